"""KKT systems of programs that are separable but for a few equalities: projections onto simplices, boxes and the like.

    minimise 1/2 sum p_j x_j^2 + q'x   subject to   E x = b,   one-entry inequalities,      p > 0.

A variable either sits at the bound of a row that holds, or is free; what is left is a system in the multipliers of the
few equalities, for the whole batch at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._faces import Faces
from ._sparse import SparseMatrices, SparseSystem
from ._system import Steps, decided

DEFINITE = 1e-12
"""Squares of Cholesky pivots below this, over the diagonal, mean that equalities depend on each other."""


@dataclass(frozen=True, eq=False)
class SeparableMatrices(SparseMatrices):
    """P and A of separable programs by their entries."""

    def select(self, index: Tensor) -> "SeparableMatrices":
        """Return the matrices of the instances in ``index``."""
        P, A = (part if len(part) == 1 else part[index] for part in (self.P, self.A))
        return SeparableMatrices(self.pattern, P, A)

    def system(
        self, faces: Faces, gamma: Tensor, weak_active: bool, shift: float = 0.0
    ) -> "SeparableSystem | SparseSystem":
        """Return the KKT systems in the multipliers of the equalities, or sparse ones where these are singular."""
        found = SeparableSystem.of(self, faces, gamma, weak_active, shift)
        return super().system(faces, gamma, weak_active, shift) if found is None else found


@dataclass(frozen=True, eq=False)
class SeparableSystem:
    """Factorised KKT systems of a batch; the interface is that of :class:`System`.

    Attributes:
        faces: the derivative of the projection.
        p: the diagonal of P times gamma, (batch, n).
        E: the equalities, (1 or batch, zero, n).
        held: which variables sit at a bound, (batch, n).
        row: the row that holds each of these, (batch, n).
        coefficient: of the variable in that row, one without, (batch, n).
        factor: lower Cholesky factors, (batch, zero, zero).
        gamma: (batch,).
    """

    faces: Faces
    p: Tensor
    E: Tensor
    held: Tensor
    row: Tensor
    coefficient: Tensor
    factor: Tensor
    gamma: Tensor

    @classmethod
    def of(
        cls, matrices: SparseMatrices, faces: Faces, gamma: Tensor, weak_active: bool, shift: float
    ) -> "SeparableSystem | None":
        """Assemble and factorise; None where P is not positive, or equalities and bounds depend on each other."""
        pattern, at = matrices.pattern, matrices.pattern.places
        zero, n, batch = pattern.cones.zero, pattern.size, len(gamma)
        p = gamma[:, None] * (matrices.P.new_zeros(len(matrices.P), n).index_add(1, at.P_rows, matrices.P) + shift)
        holds = decided(faces, weak_active)[1] > 0
        below = at.A_rows >= zero
        rows, columns, values = at.A_rows[below], at.A_columns[below], matrices.A[:, below]
        active = holds[:, rows]
        place = columns.expand(batch, -1)
        count = torch.zeros(batch, n, dtype=torch.int64).scatter_add(1, place, active.to(torch.int64))
        entry = torch.zeros(batch, n, dtype=torch.int64).scatter_reduce(
            1, place, torch.where(active, torch.arange(1, len(rows) + 1), 0), "amax"
        )
        if not bool((p > 0).all()) or bool((count > 1).any()):
            return None
        held, entry = count == 1, (entry - 1).clamp_min(0)
        coefficient = torch.ones_like(p)
        if len(rows):
            coefficient = torch.where(held, values.expand(batch, -1).gather(1, entry), 1.0)
        if bool((coefficient == 0).any()):
            return None
        E = _equalities(matrices, zero)
        weighted = torch.where(held, 0.0, 1.0 / p)[:, None, :] * E
        schur = weighted @ E.mT
        factor, info = torch.linalg.cholesky_ex(schur)
        pivots = factor.diagonal(dim1=1, dim2=2).square()
        if bool((info != 0).any()) or bool((pivots <= DEFINITE * schur.diagonal(dim1=1, dim2=2)).any()):
            return None
        row = rows[entry] if len(rows) else entry
        return cls(faces, p, E, held, row, coefficient, factor, gamma)

    def solve(self, top: Tensor, bottom: Tensor) -> Steps:
        """Solve ``P a + A'e = top`` and ``A a - W e = bottom`` for (batch, n, c) and (batch, m, c)."""
        gamma, zero = self.gamma[:, None, None], self.E.shape[1]
        held, p, coefficient = (part[..., None] for part in (self.held, self.p, self.coefficient))
        above = gamma * top
        index = self.row[..., None].expand(top.shape)
        fixed = torch.where(held, bottom.gather(1, index) / coefficient, 0.0)
        moved = self.E @ (torch.where(held, 0.0, above / p) + fixed) - bottom[:, :zero]
        force = torch.cholesky_solve(moved, self.factor) if zero else moved
        rest = above - self.E.mT @ force
        a = torch.where(held, fixed, rest / p)
        pulls = torch.where(held, (rest - p * a) / coefficient, 0.0)
        e = torch.zeros_like(bottom).scatter_add(1, index, pulls)
        e[:, :zero] += force
        return Steps(a, e / gamma, torch.zeros_like(top[:, 0], dtype=torch.bool))

    @property
    def null(self) -> tuple[Tensor, Tensor]:
        """Nothing is taken to zero: (batch, n, 0) and (batch, m, 0)."""
        return self.p.new_zeros(*self.p.shape, 0), self.faces.kept.new_zeros(*self.faces.kept.shape, 0)

    @property
    def freedom(self) -> Tensor:
        """Zero: the solution is isolated, (batch,)."""
        return torch.zeros(len(self.gamma), dtype=torch.int64)

    @property
    def redundant(self) -> Tensor:
        """Zero: so are the multipliers, (batch,)."""
        return torch.zeros(len(self.gamma), dtype=torch.int64)


def _equalities(matrices: SparseMatrices, zero: int) -> Tensor:
    """Return the rows of the zero cone, dense."""
    at, n = matrices.pattern.places, matrices.pattern.size
    inside = at.A_rows < zero
    flat = matrices.A.new_zeros(len(matrices.A), zero * n)
    return flat.index_add(1, at.A_rows[inside] * n + at.A_columns[inside], matrices.A[:, inside]).reshape(
        len(matrices.A), zero, n
    )
