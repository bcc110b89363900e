"""Matrices as dense tensors or by their entries, whichever suits the size of a program."""

from torch import Tensor

from ._matrices import Matrices
from ._pattern import ConePattern
from ._separable import SeparableMatrices, SeparableSystem
from ._sparse import SparseMatrices, SparseSystem
from ._system import System

LARGE = 250
"""Up to so many variables and rows together matrices are dense."""
TINY = 24
"""Up to so many variables separable programs are solved as any others."""
FILLED = 0.1
"""From this part of entries on they are dense whatever their size."""

AnyMatrices = Matrices | SparseMatrices
AnySystem = System | SparseSystem | SeparableSystem


def matrices_of(pattern: ConePattern, P: Tensor, A: Tensor) -> AnyMatrices:
    """Return the matrices of values P and A, (1 or batch, entries) each."""
    if prefers_separable(pattern):
        return SeparableMatrices(pattern, P, A)
    return SparseMatrices(pattern, P, A) if is_sparse(pattern) else Matrices.of(pattern, P, A)


def prefers_separable(pattern: ConePattern) -> bool:
    """Return whether a program is treated as a separable one, as pays from a few dozen variables on."""
    return pattern.size > TINY and pattern.is_separable


def is_sparse(pattern: ConePattern) -> bool:
    """Return whether so few entries of a large program are not zero that its matrices are kept by their entries."""
    n, m = pattern.size, pattern.cones.rows
    blocks = sum(side * (side + 1) // 2 * n for side in pattern.cones.semidefinite)
    blocks += sum(size * min(n, size) for size in pattern.cones.second_order)
    entries = 2 * (len(pattern.P_rows) + len(pattern.A_rows) + blocks)
    return n + m > LARGE and entries < FILLED * (n + m) ** 2
