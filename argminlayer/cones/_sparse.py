"""Large sparse cone programs: products by entries, and one sparse KKT factorisation for each instance.

SciPy, which torch cannot replace here, is imported where a sparse program is met, and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._faces import Faces
from ._factor import ACCURATE, WIDTH
from ._matrices import A_product, A_pulled, P_product
from ._pattern import Array, ConePattern
from ._system import MISSED, Steps, decided

SHIFT = 1e-9
"""What is added to the diagonal, of matrices with entries of size one: it makes them quasi-definite."""
NULL = 1e-8
"""Eigenvalues below this count as zero."""
GROWTH = 1e6
"""A solution larger than its right-hand side by more than this makes a matrix suspect of being singular."""
ROUNDS = 8
"""Rounds of refinement, at most."""


@dataclass(frozen=True, eq=False)
class SparseMatrices:
    """P and A of every instance by their entries; the interface is that of the dense ones.

    Attributes:
        pattern: where the entries are.
        P: (1 or batch, entries), of the upper triangle.
        A: (1 or batch, entries).
    """

    pattern: ConePattern
    P: Tensor
    A: Tensor

    def select(self, index: Tensor) -> "SparseMatrices":
        """Return the matrices of the instances in ``index``."""
        P, A = (part if len(part) == 1 else part[index] for part in (self.P, self.A))
        return SparseMatrices(self.pattern, P, A)

    def lengths(self) -> Tensor:
        """Return the lengths of the rows of A, (1 or batch, m)."""
        squares = self.A.new_zeros(len(self.A), self.pattern.cones.rows)
        return squares.index_add(1, self.pattern.places.A_rows, self.A.square()).sqrt()

    def largest(self) -> Tensor:
        """Return the largest diagonal entry of P, (1 or batch,)."""
        diagonal = np.flatnonzero(self.pattern.P_rows == self.pattern.P_columns)
        return self.P[:, diagonal].amax(1) if len(diagonal) else self.A.new_zeros(1)

    def P_times(self, x: Tensor) -> Tensor:
        """Return P x for x (batch, n)."""
        return P_product(self.pattern, self.P, x)

    def A_times(self, x: Tensor) -> Tensor:
        """Return A x for x (batch, n)."""
        return A_product(self.pattern, self.A, x)

    def A_pulled(self, z: Tensor) -> Tensor:
        """Return A'z for z (batch, m)."""
        return A_pulled(self.pattern, self.A, z)

    def system(self, faces: Faces, gamma: Tensor, weak_active: bool, shift: float = 0.0) -> Any:
        """Return the factorised KKT systems; see :class:`System`."""
        return SparseSystem.of(self, faces, gamma, weak_active, shift)


@dataclass(frozen=True, eq=False)
class _One:
    """The factorised matrix of one instance.

    Attributes:
        matrix: scaled, without its shift.
        solved: solves with the shifted matrix.
        scale: by which rows and columns are multiplied.
        rows: which rows of A it has.
        kernel: orthonormal null vectors, (N, d).
    """

    matrix: Any
    solved: Callable[[Array], Array]
    scale: Array
    rows: Array
    kernel: Array

    def solve(self, right: Array) -> Array:
        """Return the solution for (N, c) of least norm; what null vectors have of ``right`` is left out."""
        right = self._without_null(right)
        found = self.solved(right)
        allowed = ACCURATE * abs(right).max(initial=0.0)
        for _ in range(ROUNDS):
            rest = right - self.matrix @ found
            if abs(rest).max(initial=0.0) <= allowed:
                break
            found = found + self.solved(self._without_null(rest))
        return self._without_null(found)

    def _without_null(self, values: Array) -> Array:
        return values - self.kernel @ (self.kernel.T @ values) if self.kernel.shape[1] else values


@dataclass(frozen=True, eq=False)
class SparseSystem:
    """Factorised KKT matrices of a batch, one after another; the interface is that of :class:`System`.

    Attributes:
        each: the matrices.
        faces: the derivative of the projection.
        slant: S, (batch, m).
        gamma: (batch,).
        size: n.
    """

    each: tuple[_One, ...]
    faces: Faces
    slant: Tensor
    gamma: Tensor
    size: int

    @classmethod
    def of(
        cls, matrices: SparseMatrices, faces: Faces, gamma: Tensor, weak_active: bool, shift: float = 0.0
    ) -> "SparseSystem":
        """Assemble and factorise; arguments as for :meth:`System.of`."""
        kept, lost = decided(faces, weak_active)
        slant = lost.sqrt()
        turn = _turn(faces)
        pattern = matrices.pattern
        P, A, units = matrices.P.numpy(), matrices.A.numpy(), gamma.numpy()
        each = []
        for i in range(len(slant)):
            values = P[i if len(P) > 1 else 0], A[i if len(A) > 1 else 0]
            each.append(_factorised(pattern, values, kept[i].numpy(), slant[i].numpy(), turn(i), units[i], shift))
        return cls(tuple(each), faces, slant, gamma, pattern.size)

    def solve(self, top: Tensor, bottom: Tensor) -> Steps:
        """Solve ``P a + A'e = top`` and ``A a - W e = bottom`` for (batch, n, c) and (batch, m, c)."""
        gamma = self.gamma[:, None, None]
        above, below = (gamma * top).numpy(), (self.faces.rotate(bottom) * self.slant[..., None]).numpy()
        a, f = torch.zeros_like(top), torch.zeros_like(bottom)
        missed = torch.zeros_like(top[:, 0], dtype=torch.bool)
        for i, one in enumerate(self.each):
            right = np.concatenate([above[i], below[i][one.rows]]) * one.scale[:, None]
            found = one.solve(right) * one.scale[:, None]
            if one.kernel.shape[1]:
                left = abs(one.kernel.T @ right).max(0)
                missed[i] = torch.from_numpy(left > MISSED * abs(right).max(0))
            a[i] = torch.from_numpy(found[: self.size])
            f[i, one.rows] = torch.from_numpy(found[self.size :])
        return Steps(a, self.faces.back(f * self.slant[..., None]) / gamma, missed)

    @property
    def null(self) -> tuple[Tensor, Tensor]:
        """What the system takes to zero: variables (batch, n, d) and multipliers (batch, m, d), padded with zeros."""
        width = max((one.kernel.shape[1] for one in self.each), default=0)
        a = self.slant.new_zeros(len(self.each), self.size, width)
        f = self.slant.new_zeros(len(self.each), self.slant.shape[1], width)
        for i, one in enumerate(self.each):
            vectors = torch.from_numpy(one.kernel * one.scale[:, None])
            a[i, :, : vectors.shape[1]] = vectors[: self.size]
            f[i, one.rows, : vectors.shape[1]] = vectors[self.size :]
        return a, self.faces.back(f * self.slant[..., None])

    @property
    def freedom(self) -> Tensor:
        """Number of independent directions in which the solution may move, (batch,)."""
        ranks = [np.linalg.matrix_rank(one.kernel[: self.size], tol=1e-6) for one in self.each]
        return torch.tensor(ranks, dtype=torch.int64)

    @property
    def redundant(self) -> Tensor:
        """Number of independent directions in which the multipliers alone may move, (batch,)."""
        return torch.tensor([one.kernel.shape[1] for one in self.each], dtype=torch.int64) - self.freedom


def _turn(faces: Faces) -> Callable[[int], Any]:
    """Return a function from instances to Q' as a sparse matrix, None without curved cones."""
    from scipy.sparse import csr_array

    if not faces.parts:
        return lambda _: None
    m = faces.kept.shape[1]
    plain = np.ones(m, dtype=bool)
    rows, columns, values = [], [], []
    for group, spectrum in faces.parts:
        count, size = group.rows.shape
        eye = torch.eye(size, dtype=torch.float64).expand(len(faces.kept), count, size, size)
        turned = spectrum.rotate(eye)
        at = group.rows.numpy()
        plain[at.ravel()] = False
        rows.append(np.broadcast_to(at[:, :, None], (count, size, size)).ravel())
        columns.append(np.broadcast_to(at[:, None, :], (count, size, size)).ravel())
        values.append(turned.flatten(1).numpy())
    rest = np.flatnonzero(plain)
    i, j = np.concatenate([*rows, rest]), np.concatenate([*columns, rest])

    def turn(instance: int) -> Any:
        entries = np.concatenate([*(part[instance] for part in values), np.ones(len(rest))])
        return csr_array((entries, (i, j)), shape=(m, m))

    return turn


def _factorised(
    pattern: ConePattern, data: tuple[Array, Array], kept: Array, slant: Array, turn: Any, unit: float, shift: float
) -> _One:
    """Assemble and factorise the matrix of one instance, given values of P and A."""
    from scipy.sparse import coo_array, csc_array, csr_array
    from scipy.sparse.linalg import splu

    P, A = data
    n, m = pattern.size, pattern.cones.rows
    rows = np.flatnonzero(slant > 0)
    full = csr_array((A, (pattern.A_rows, pattern.A_columns)), shape=(m, n))
    B = coo_array((full if turn is None else turn @ full)[rows])
    weights, diagonal = slant[rows], kept[rows]
    values = B.data * weights[B.row]
    P = unit * P
    off = pattern.P_rows != pattern.P_columns
    size = abs(P).max(initial=0.0)
    common = 1.0 / np.sqrt(size) if size > 0 else 1.0
    lengths = np.zeros(len(rows))
    np.maximum.at(lengths, B.row, abs(values) * common)
    lengths = np.maximum(lengths, np.sqrt(diagonal))
    below = 1.0 / np.where(lengths > 0, lengths, 1.0)
    values = values * common * below[B.row]
    own, corner = np.arange(n), np.arange(n, n + len(rows))
    parts = [
        (pattern.P_rows, pattern.P_columns, common**2 * P),
        (pattern.P_columns[off], pattern.P_rows[off], common**2 * P[off]),
        (own, own, np.full(n, common**2 * unit * shift)),
        (B.row + n, B.col, values),
        (B.col, B.row + n, values),
        (corner, corner, -diagonal * below**2),
    ]
    i, j, entries = (np.concatenate(part) for part in zip(*parts, strict=True))
    N = n + len(rows)
    matrix = csc_array(coo_array((entries, (i, j)), shape=(N, N)))
    signs = np.concatenate([np.full(n, SHIFT), np.full(len(rows), -SHIFT)])
    shifted = csc_array(
        coo_array((np.r_[entries, signs], (np.r_[i, np.arange(N)], np.r_[j, np.arange(N)])), shape=(N, N))
    )
    # quasi-definite: pivots may be taken from the diagonal in any order
    factor = splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    scale = np.concatenate([np.full(n, common), below])
    return _One(matrix, factor.solve, scale, rows, _null(matrix, factor.solve))


def _null(matrix: Any, solve: Callable[[Array], Array]) -> Array:
    """Return orthonormal null vectors (N, d), by inverse iteration with the shifted matrix."""
    size = matrix.shape[0]
    draw = np.random.default_rng(20210401)
    if not size or abs(solve(draw.standard_normal((size, 1)))).max() <= GROWTH:
        return np.zeros((size, 0))
    width = WIDTH
    while True:
        width = min(width, size)
        V = draw.standard_normal((size, width))
        for _ in range(2):
            V, _ = np.linalg.qr(solve(V))
        values, turn = np.linalg.eigh(V.T @ (matrix @ V))
        null = abs(values) <= NULL
        if null.sum() < width or width == size:
            found: Array = V @ turn[:, null]
            return found
        width *= 4
