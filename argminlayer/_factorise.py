"""Which form of KKT system suits the structure of the Hessian and the Jacobians."""

from torch import Tensor

from ._dense import DenseSystem
from ._kkt import AbstractSystem, ActiveSet
from ._krylov import KrylovSystem
from ._matrices import AbstractMatrix, BlockMatrix, Jacobian, ProductMatrix, SparseMatrix
from ._measures import finite
from ._schur import SchurSystem
from ._sparse import SparseSystem
from ._structure import DENSE_LIMIT


def factorise(hessian: AbstractMatrix, equality: Jacobian, inequality: Jacobian, active: ActiveSet) -> AbstractSystem:
    """Return the KKT system of a batch.

    Sparse matrices go to a sparse factorisation; blocks, perhaps with a low rank, to a Schur complement, unless a block
    is singular; up to DENSE_LIMIT variables everything else is dense, beyond it matrix-free.
    """
    n = active.at_lower.shape[-1]
    formed = not isinstance(hessian, ProductMatrix)
    if formed and any(isinstance(matrix, SparseMatrix) for matrix in (hessian, equality, inequality)):
        return SparseSystem.of(hessian, equality, inequality, active)
    A, G = finite(equality.dense()), finite(inequality.dense())
    if isinstance(hessian, BlockMatrix) and (n > DENSE_LIMIT or _few_rows(hessian, A, active)):
        system = SchurSystem.of(hessian, A, G, active)
        if system is not None and (n > DENSE_LIMIT or not bool((system.freedom > 0).any())):
            return system
    if n > DENSE_LIMIT:
        return KrylovSystem.of(hessian, A, G, active)
    return DenseSystem.of(finite(hessian.dense()), A, G, active)


def _few_rows(hessian: BlockMatrix, equality: Tensor, active: ActiveSet) -> bool:
    most = int(active.inequality.sum(-1).max()) if active.inequality.numel() else 0
    rows = hessian.low.shape[-1] + equality.shape[1] + most
    return 2 * rows <= active.at_lower.shape[-1]
