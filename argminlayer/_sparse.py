"""KKT systems that are sparse: SciPy's SuperLU, one factor for each instance, time and memory linear in the entries.

SciPy is imported where a system is factorised, and nowhere else in the core.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._kkt import AbstractSystem, ActiveSet, Vector
from ._linear import SINGULAR
from ._matrices import AbstractMatrix, BlockMatrix, Jacobian, SparseMatrix

Array = NDArray[Any]
Entries = tuple[Array, Array, Array]
"""Rows, columns and values."""

REGULAR = 1e-12
"""Diagonal that makes the least-squares system for multipliers regular, relative to rows of length one."""
ROUNDS = 30
"""How often constraints with multipliers of the wrong sign are left out."""
REFINEMENTS = 5
"""Steps that remove from a solution what the shift of the constraints has changed."""
TINY = 1e-14
"""Diagonal that makes an exactly singular matrix a nearly singular one."""
SHIFT = 1e-8
"""Relative size of the diagonal that is put into the block of the constraints while eigenvalues are counted."""


@dataclass(frozen=True)
class SparseSystem(AbstractSystem):
    """The KKT matrices of a batch with their sparse factors. Inactive inequalities keep a row of their own, with -1.

    Attributes:
        hessian: H.
        equality: A.
        inequality: G, of all inequalities.
        active: the active set.
        fill: diagonal that stands for variables held at a bound, (batch, 1).
        factors: one for each instance.
        null: a vector that the matrix annihilates, zero where it is regular, (batch, n + p + q, 1); no column when all
            are regular.
        negatives: number of negative eigenvalues of the Hessian on the tangent space, (batch,).
    """

    hessian: AbstractMatrix
    equality: Jacobian
    inequality: Jacobian
    active: ActiveSet
    fill: Tensor
    factors: tuple["_Factor", ...]
    null: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, hessian: AbstractMatrix, equality: Jacobian, inequality: Jacobian, active: ActiveSet) -> "SparseSystem":
        """Build and factorise the matrices."""
        batch, n = active.at_lower.shape
        size = hessian.largest()
        fill = torch.where(size > 0, size, 1.0)[:, None]
        factors = tuple(
            _Factor.of(_kkt_matrix(i, hessian, equality, inequality, active, float(fill[i])), n) for i in range(batch)
        )
        singular = any(factor.null is not None for factor in factors)
        rows = factors[0].size if factors else 0
        null = torch.zeros(batch, rows, 1 if singular else 0, dtype=fill.dtype, device=fill.device)
        for i, factor in enumerate(factors):
            if factor.null is not None:
                null[i, :, 0] = torch.from_numpy(factor.null).to(null)
        constraints = rows - n
        negatives = torch.tensor([factor.negative - constraints for factor in factors], device=fill.device)
        return cls(hessian, equality, inequality, active, fill, factors, null, negatives)

    def solve(self, right: Vector) -> Vector:
        """See :meth:`AbstractSystem.solve`."""
        top, equality, inequality, bound = right
        fixed, used = self.active.fixed[..., None], self.active.inequality[..., None]
        held = torch.where(fixed, -bound, 0.0)
        lifted = [
            torch.where(fixed, self.fill[..., None] * held, top - self.hessian.times(held)),
            equality - self.equality.times(held),
            torch.where(used, inequality - self.inequality.times(held), 0.0),
        ]
        sizes = [part.shape[1] for part in lifted]
        joined = torch.cat(lifted, dim=1)
        stacked = joined.cpu().numpy()
        each = [torch.from_numpy(factor.solve(stacked[i])) for i, factor in enumerate(self.factors)]
        u, a, b = (torch.stack(each).to(joined) if each else joined).split(sizes, dim=1)
        force = self.hessian.times(u) + self.equality.transposed(a) + self.inequality.transposed(b) - top
        return u, a, torch.where(used, b, 0.0), torch.where(fixed, force, 0.0)

    def select(self, index: Tensor) -> "SparseSystem":
        """See :meth:`AbstractSystem.select`."""
        return replace(super().select(index), factors=tuple(self.factors[i] for i in index.tolist()))

    @property
    def kernel(self) -> Vector:
        """See :attr:`AbstractSystem.kernel`; of a singular matrix one vector is known."""
        n, q = self.active.at_lower.shape[-1], self.active.inequality.shape[-1]
        u, a, b = self.null.split([n, self.null.shape[1] - n - q, q], dim=1)
        return u, a, b, torch.zeros_like(u)

    @property
    def negative(self) -> Tensor:
        """See :attr:`AbstractSystem.negative`; the shift makes one negative of each redundant constraint, too."""
        return self.negatives


@dataclass(frozen=True)
class _Factor:
    """Factor of one sparse symmetric matrix, scaled by one factor for all variables and to rows of size one.

    A singular matrix is solved by the factor of its neighbour, with a small diagonal of the signs of a minimum, and
    refined with the matrix itself: for consistent right-hand sides that leads to the solution of least norm.

    Attributes:
        matrix: scaled.
        factor: SuperLU's.
        scale: of rows and columns.
        negative: number of negative eigenvalues.
        null: a vector that the matrix annihilates, None when it is regular.
    """

    matrix: Any
    factor: Any
    scale: Array
    negative: int
    null: Array | None

    @property
    def size(self) -> int:
        return len(self.scale)

    @classmethod
    def of(cls, matrix: Any, leading: int) -> "_Factor":
        """Factorise a SciPy matrix whose first ``leading`` unknowns are variables."""
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import splu

        scale = _scale(matrix, leading)
        scaled = (diags_array(scale) @ matrix @ diags_array(scale)).tocsc()
        factor, null = _regular_factor(scaled)
        negative = _count_negative(scaled, leading)
        if null is None:
            return cls(scaled, factor, scale, negative, None)
        null = scale * null / np.linalg.norm(scale * null)
        if np.linalg.norm(null[:leading]) <= 1e-6:
            null[:leading] = 0.0
        neighbour = np.r_[np.full(leading, SHIFT), np.full(len(scale) - leading, -SHIFT)]
        return cls(scaled, splu((scaled + diags_array(neighbour)).tocsc()), scale, negative, null)

    def solve(self, rhs: Array) -> Array:
        """Solve for the columns of ``rhs``."""
        scale = self.scale[:, None]
        scaled = np.ascontiguousarray(scale * rhs)
        solved: Array = self.factor.solve(scaled)
        for _ in range(REFINEMENTS if self.null is not None else 0):
            solved += self.factor.solve(scaled - self.matrix @ solved)
        return scale * solved


def _scale(matrix: Any, leading: int) -> Array:
    """Return one factor for the variables, which keeps the meaning of a norm of theirs, and one for each constraint."""
    size = abs(matrix[:leading, :leading]).max() if leading else 1.0
    common = 1.0 / np.sqrt(size if size > 0 else 1.0)
    lengths = common * abs(matrix[leading:]).max(axis=1).toarray().ravel()
    scale: Array = np.r_[np.full(leading, common), 1.0 / np.where(lengths > 0, lengths, 1.0)]
    return scale


def _regular_factor(matrix: Any) -> tuple[Any, Array | None]:
    """Return SuperLU's factor, and a vector of length one that the matrix annihilates, if there is one."""
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import splu

    size = matrix.shape[0]
    try:
        factor = splu(matrix)
    except RuntimeError:  # exactly singular: its neighbour tells what it annihilates
        factor = splu((matrix + TINY * eye_array(size)).tocsc())
    vector = np.cos(1.618 * np.arange(1, size + 1))
    for _ in range(3):
        vector = factor.solve(vector / np.linalg.norm(vector))
        if not np.isfinite(vector).all():
            return factor, np.full(size, size**-0.5)
    growth = np.linalg.norm(vector)
    return factor, None if growth * SINGULAR < 1.0 else vector / growth


def _count_negative(matrix: Any, leading: int) -> int:
    """Return how many eigenvalues are negative, from the pivots of a factorisation that keeps to the diagonal.

    A small shift of the block of the constraints makes such pivots possible: the pivots of a symmetric elimination have
    the signs of the eigenvalues (Sylvester's law of inertia). Where an entry of the Hessian's diagonal vanishes even
    so, the constraints are eliminated first, which leaves ``H + A'A / shift`` (Haynsworth's inertia additivity).
    """
    from scipy.sparse import diags_array

    constraints: int = matrix.shape[0] - leading
    shift = np.r_[np.zeros(leading), np.full(constraints, -SHIFT)]
    shifted = (matrix + diags_array(shift)).tocsr()
    negative = _negative_pivots(shifted)
    if negative is not None:
        return negative
    rows = shifted[leading:, :leading]
    force = diags_array(-1.0 / shifted.diagonal()[leading:])
    negative = _negative_pivots(shifted[:leading, :leading] + rows.T @ force @ rows)
    return constraints + (negative or 0)


def _negative_pivots(matrix: Any) -> int | None:
    """Return how many pivots on the diagonal are negative, None where an elimination has to leave the diagonal."""
    from scipy.sparse.linalg import splu

    try:
        factor = splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True, "Equil": False},
        )
    except RuntimeError:
        return None
    if not np.array_equal(factor.perm_r, factor.perm_c):
        return None
    return sum(1 for pivot in factor.U.diagonal().tolist() if pivot < 0)


def _kkt_matrix(
    instance: int,
    hessian: AbstractMatrix,
    equality: Jacobian,
    inequality: Jacobian,
    active: ActiveSet,
    fill: float,
) -> Any:
    """Return the KKT matrix of one instance in SciPy's compressed form."""
    from scipy.sparse import coo_array

    one = torch.tensor([instance])
    n = active.at_lower.shape[-1]
    fixed = active.fixed[instance].cpu().numpy()
    used = active.inequality[instance].cpu().numpy()
    rows, columns, values = _entries(hessian.select(one))
    inside = ~fixed[rows] & ~fixed[columns]
    parts: list[Entries] = [(rows[inside], columns[inside], values[inside])]
    held = np.flatnonzero(fixed)
    parts.append((held, held, np.full(len(held), fill)))
    offset = n
    for jacobian, mask, count in ((equality, None, equality.count), (inequality, used, len(used))):
        rows, columns, values = _entries(jacobian.select(one))
        inside = ~fixed[columns] if mask is None else ~fixed[columns] & mask[rows]
        rows, columns, values = rows[inside] + offset, columns[inside], values[inside]
        parts += [(rows, columns, values), (columns, rows, values)]
        offset += count
    idle = np.flatnonzero(~used) + offset - len(used)
    parts.append((idle, idle, np.full(len(idle), -1.0)))
    i, j, v = (np.concatenate(column) for column in zip(*parts, strict=True))
    return coo_array((v, (i, j)), shape=(offset, offset)).tocsc()


def _entries(matrix: AbstractMatrix) -> Entries:
    """Return the entries of the first instance that are not zero."""
    if isinstance(matrix, SparseMatrix):
        pattern = matrix.pattern
        return pattern.rows.cpu().numpy(), pattern.columns.cpu().numpy(), matrix.values[0].cpu().numpy()
    if isinstance(matrix, BlockMatrix) and matrix.low.shape[-1] == 0:
        return _block_entries(matrix)
    dense = matrix.dense()[0].cpu().numpy()
    rows, columns = np.nonzero(dense)
    return rows, columns, dense[rows, columns]


def _block_entries(matrix: BlockMatrix) -> Entries:
    order = matrix.grouping.order.unflatten(0, (-1, matrix.grouping.size)).cpu().numpy()
    values = matrix.blocks[0].cpu().numpy()
    rows, columns = np.broadcast_arrays(order[:, :, None], order[:, None, :])
    real = (rows < len(matrix.grouping.place)) & (columns < len(matrix.grouping.place))
    return rows[real], columns[real], values[real]


def recover_sparse_multipliers(
    gradient: Tensor, equality: Jacobian, inequality: Jacobian, slacks: tuple[Tensor, Tensor, Tensor], near: float
) -> tuple[Tensor, Tensor]:
    """Return the multipliers (nu, lambda) that explain the gradient best, of large sparse problems.

    The least-squares problem of ``recover_multipliers``, each instance by sparse factorisations of its augmented
    system; constraints whose multiplier has the wrong sign are left out, until none has.

    Args:
        gradient: of the objective, (batch, n).
        equality: Jacobian A.
        inequality: Jacobian G.
        slacks: scaled distances to the inequalities (batch, q), the lower and the upper bounds (batch, n).
        near: constraints further away than this cannot be active.
    """
    found = [
        _recover_one(
            gradient[i].cpu().numpy(),
            _entries(equality.select(torch.tensor([i]))),
            _entries(inequality.select(torch.tensor([i]))),
            equality.count,
            [(slack[i] <= near).cpu().numpy() for slack in slacks],
        )
        for i in range(len(gradient))
    ]
    nu, lam = (torch.from_numpy(np.stack(parts)).to(gradient) for parts in zip(*found, strict=True))
    return nu, lam


def _recover_one(
    gradient: Array, equality: Entries, inequality: Entries, count: int, near: list[Array]
) -> tuple[Array, Array]:
    from scipy.sparse import block_array, coo_array, diags_array, eye_array, vstack
    from scipy.sparse.linalg import spsolve

    n, q = len(gradient), len(near[0])
    signed = np.r_[near[0], near[1], near[2]]
    normals = vstack(
        [
            coo_array((equality[2], equality[:2]), shape=(count, n)),
            coo_array((inequality[2], inequality[:2]), shape=(q, n)),
            -eye_array(n),
            eye_array(n),
        ],
        format="csr",
    )
    lengths = np.sqrt(np.asarray(normals.multiply(normals).sum(axis=1)).ravel())
    keep = np.r_[np.ones(count, dtype=bool), signed] & (lengths > 0)
    weights = np.zeros(len(keep))
    for _ in range(ROUNDS):
        chosen = np.flatnonzero(keep)
        unit = diags_array(1.0 / lengths[chosen]) @ normals[chosen]
        # a tiny diagonal gives redundant rows the multipliers of least norm
        system = block_array([[eye_array(n), unit.T], [unit, -REGULAR * eye_array(len(chosen))]], format="csc")
        solved = spsolve(system, np.r_[-gradient, np.zeros(len(chosen))])[n:]
        weights = np.zeros(len(keep))
        weights[chosen] = solved / lengths[chosen]
        wrong = np.flatnonzero((weights < 0) & (np.arange(len(keep)) >= count))
        if not len(wrong):
            break
        keep[wrong] = False
    weights[count:] = weights[count:].clip(min=0.0)
    return weights[:count], weights[count : count + q]
