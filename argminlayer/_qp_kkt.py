"""The KKT system of quadratic programs on their active rows, by Schur complements where P is definite.

    [ P  C' ] [d]   [top   ]
    [ C  0  ] [e] = [bottom]       C: the active rows of (I, A, G).

With ``P = L L'`` and ``Y = L^-1 C'`` the Schur complement is ``S = Y'Y``. Where P or S is singular to working precision
the whole matrix is factorised instead, with its generalised inverse.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._linear import SymmetricFactor
from ._qp_form import Array, QuadraticForm

DEPENDENT = 1e-12
"""Active rows depend on each other when the square of a pivot of the scaled Schur complement falls below this."""
AT_ONCE = 2**18
"""Numbers in the matrices of the instances that are solved at once: the memory of fresh arrays, which the system hands
out page by page, takes longer than the arithmetic."""
SMALL = 60
"""Up to this many variables the system of a single instance is inverted."""
REGULAR = 1e11
"""Largest product of the largest entries of a matrix and its inverse with which that is used."""


@dataclass(frozen=True)
class ActiveRows:
    """Which rows are active: positions (batch, k) among all s rows, and whether each position is used."""

    index: Tensor
    used: Tensor
    count: int

    @classmethod
    def of_mask(cls, mask: Array) -> "ActiveRows":
        """Return the positions of the rows in a mask (batch, s)."""
        k = int(np.add.reduce(mask, 1).max(initial=0))
        order = np.ascontiguousarray(np.argsort(~mask, axis=1, kind="stable")[:, :k])
        return cls(torch.from_numpy(order), torch.from_numpy(np.take_along_axis(mask, order, 1)), mask.shape[1])

    def gather(self, values: Tensor) -> Tensor:
        """Return the active entries of (batch, s, c), zero where a position is not used."""
        return values.gather(1, self._expanded(values)) * self.used[..., None]

    def scatter(self, values: Tensor) -> Tensor:
        """Return (batch, k, c) values at their places among all rows, zero elsewhere."""
        zeros = values.new_zeros(values.shape[0], self.count, values.shape[2])
        return zeros.scatter(1, self._expanded(values), values * self.used[..., None])

    def _expanded(self, values: Tensor) -> Tensor:
        return self.index[..., None].expand(*self.index.shape, values.shape[2])

    def matrix(self, rows: Tensor, offset: int, unit: float = 1.0) -> Tensor:
        """Return the matrix C of the active rows, (batch, k, n), from ``rows`` (1 or batch, s - offset, n).

        Rows of bounds are ``unit`` times those of the identity.
        """
        batch, k = self.index.shape
        n = rows.shape[-1]
        inner = (self.index - offset).clamp_min(0) if offset else self.index
        if rows.shape[1] == 0:
            picked = rows.new_zeros(batch, k, n)
        elif rows.shape[0] == 1:
            picked = rows[0].index_select(0, inner.reshape(-1)).reshape(batch, k, n)
        else:
            first = torch.arange(batch, device=rows.device)[:, None] * rows.shape[1]
            picked = rows.reshape(-1, n).index_select(0, (inner + first).reshape(-1)).reshape(batch, k, n)
        if offset:
            units = unit * torch.eye(n, dtype=rows.dtype, device=rows.device)
            bounds = units.index_select(0, self.index.clamp_max(n - 1).reshape(-1)).reshape(batch, k, n)
            picked = torch.where((self.index < offset)[..., None], bounds, picked)
        return picked * self.used[..., None]


class Steps(NamedTuple):
    """The solution of KKT systems.

    Attributes:
        d: (batch, n, c).
        e: of all rows, zero where they are not active, (batch, s, c).
        freedom: number of directions in which d is not determined, (batch,); None when it is everywhere.
    """

    d: Tensor
    e: Tensor
    freedom: Tensor | None = None


class FormSteps(NamedTuple):
    """The same for one right-hand side each: d (batch, n), e (batch, s) and freedom (batch,)."""

    d: Array
    e: Array
    freedom: Array | None = None


def solve_form(form: QuadraticForm, mask: Array, top: Array, bottom: Array | None = None) -> FormSteps:
    """Solve the KKT systems of programs on the rows in ``mask`` (batch, s).

    Args:
        form: the programs.
        mask: the active rows, (batch, s).
        top: (batch, n).
        bottom: (batch, s), None for zero.
    """
    if form.batch == 1 and form.size <= SMALL:
        found = _inverted(form, mask[0].nonzero()[0], top[0], None if bottom is None else bottom[0])
        if found is not None:
            return found
    width = max(1, AT_ONCE // (form.size * form.size + 1))
    if form.batch <= width or (len(form.cholesky) == 1 and len(form.rows) == 1):
        return _solved_at_once(form, mask, top, bottom)
    ends = ((i, i + width) for i in range(0, form.batch, width))
    parts = [
        _solved_at_once(form.window(i, j), mask[i:j], top[i:j], None if bottom is None else bottom[i:j])
        for i, j in ends
    ]
    freedom = None
    if any(part.freedom is not None for part in parts):
        freedom = np.concatenate([np.zeros(len(p.d)) if p.freedom is None else p.freedom for p in parts])
    return FormSteps(np.concatenate([p.d for p in parts]), np.concatenate([p.e for p in parts]), freedom)


def _solved_at_once(form: QuadraticForm, mask: Array, top: Array, bottom: Array | None) -> FormSteps:
    steps = solve_kkt(
        None if form.P is None else torch.from_numpy(form.P),
        form.cholesky if form.definite.all() else None,
        torch.from_numpy(form.rows),
        form.offset,
        ActiveRows.of_mask(mask),
        torch.from_numpy(np.ascontiguousarray(top))[..., None],
        None if bottom is None else torch.from_numpy(np.ascontiguousarray(bottom))[..., None],
    )
    freedom = None if steps.freedom is None else steps.freedom.numpy()
    return FormSteps(steps.d[..., 0].numpy(), steps.e[..., 0].numpy(), freedom)


def _inverted(form: QuadraticForm, active: Array, top: Array, bottom: Array | None) -> FormSteps | None:
    """Solve a single small system by the inverse of its matrix, None where that is singular.

    The steps of a Schur complement would each cost more in calls than in arithmetic. The inverse gives the condition
    number, and one instance is none of the batches on which LU can hang.
    """
    n, offset, k = form.size, form.offset, len(active)
    matrix = np.zeros((n + k, n + k))
    if form.P is not None:
        matrix[:n, :n] = form.P[0]
    general = active if offset == 0 else active[active >= offset] - offset
    held = k - len(general)
    matrix[n + held :, :n] = rows = form.rows[0][general]
    matrix[:n, n + held :] = rows.T
    if held:
        place = np.arange(n, n + held)
        matrix[place, active[:held]] = matrix[active[:held], place] = 1.0
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return None
    if not abs(matrix).max() * abs(inverse).max() < REGULAR:
        return None
    found = inverse[:, :n] @ top
    if bottom is not None:
        found += inverse[:, n:] @ bottom[active]
    e = np.zeros((1, form.height))
    e[0, active] = found[n:]
    return FormSteps(found[None, :n], e)


def solve_kkt(
    P: Tensor | None,
    cholesky: Tensor | None,
    rows: Tensor,
    offset: int,
    active: ActiveRows,
    top: Tensor,
    bottom: Tensor | None,
) -> Steps:
    """Solve the KKT systems of a batch.

    Args:
        P: (1 or batch, n, n), None for zero.
        cholesky: lower factors of P, None where P is not definite in every instance.
        rows: (1 or batch, s - offset, n).
        offset: number of rows that belong to bounds.
        active: the active rows.
        top: (batch, n, c).
        bottom: (batch, s, c), None for zero.
    """
    inner = None if bottom is None else active.gather(bottom)
    found = None
    if cholesky is not None:
        if cholesky.shape[0] == 1 and rows.shape[0] == 1 and active.index.shape[0] > 1:
            found = _shared_schur(cholesky[0], rows[0], offset, active, top, inner)
        else:
            found = _batched_schur(cholesky, active.matrix(rows, offset), active, top, inner)
    if found is not None:
        return Steps(found[0], active.scatter(found[1]))
    d, e, freedom = _whole(P, active.matrix(rows, offset), active, top, inner)
    return Steps(d, active.scatter(e), freedom)


def _batched_schur(
    L: Tensor, C: Tensor, active: ActiveRows, top: Tensor, bottom: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    t = _lower(L, top)
    if C.shape[1] == 0:
        return _upper(L, t), top.new_zeros(top.shape[0], 0, top.shape[2])
    Y = _lower(L, C.mT)
    factor = _schur_factor(Y.mT @ Y, active)
    if factor is None:
        return None
    right = Y.mT @ t
    e = torch.cholesky_solve(right if bottom is None else right - bottom, factor)
    return _upper(L, t - Y @ e), e


def _shared_schur(
    L: Tensor, rows: Tensor, offset: int, active: ActiveRows, top: Tensor, bottom: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Solve with one factor for the whole batch: all rows are multiplied by ``L^-1`` once, the active ones picked."""
    batch, n, c = top.shape
    every = torch.cat([torch.eye(n, dtype=rows.dtype, device=rows.device), rows]) if offset else rows
    t = torch.linalg.solve_triangular(L, top.movedim(0, 1).reshape(n, batch * c), upper=False)
    Y = torch.linalg.solve_triangular(L, every.mT, upper=False)
    gram, right = Y.mT @ Y, (Y.mT @ t).reshape(-1, batch, c).movedim(1, 0)
    index = active.index
    both = active.used[:, :, None] * active.used[:, None, :]
    factor = _schur_factor(gram[index[:, :, None], index[:, None, :]] * both, active)
    if factor is None:
        return None
    picked = active.gather(right)
    e = torch.cholesky_solve(picked if bottom is None else picked - bottom, factor)
    d = t - Y @ active.scatter(e).movedim(0, 1).reshape(-1, batch * c)
    d = torch.linalg.solve_triangular(L.mT, d, upper=True).reshape(n, batch, c).movedim(1, 0)
    return d, e


def _schur_factor(S: Tensor, active: ActiveRows) -> Tensor | None:
    """Return the Cholesky factors of Schur complements, None where active rows depend on each other."""
    diagonal = S.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(~active.used)
    factor, info = torch.linalg.cholesky_ex(S)
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    sound = (pivots * pivots > DEPENDENT * diagonal).all() & (info == 0).all()
    return factor if bool(sound) else None


def _lower(L: Tensor, right: Tensor) -> Tensor:
    if L.shape[0] == right.shape[0]:
        solved: Tensor = torch.linalg.solve_triangular(L, right, upper=False)
        return solved
    return _columns(L[0], right, upper=False)


def _upper(L: Tensor, right: Tensor) -> Tensor:
    if L.shape[0] == right.shape[0]:
        solved: Tensor = torch.linalg.solve_triangular(L.mT, right, upper=True)
        return solved
    return _columns(L[0].mT, right, upper=True)


def _columns(triangle: Tensor, right: Tensor, upper: bool) -> Tensor:
    """Solve with one triangle for the right-hand sides of a batch, side by side."""
    batch, n, c = right.shape
    flat = right.movedim(0, 1).reshape(n, batch * c)
    solved: Tensor = torch.linalg.solve_triangular(triangle, flat, upper=upper).reshape(n, batch, c).movedim(1, 0)
    return solved


def _whole(
    P: Tensor | None, C: Tensor, active: ActiveRows, top: Tensor, bottom: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Factorise the whole KKT matrix: P is singular, or active rows depend on each other."""
    (batch, k, n), c = C.shape, top.shape[2]
    factor = SymmetricFactor.of(kkt_matrix(P, C, active), n)
    right = torch.cat([top, top.new_zeros(batch, k, c) if bottom is None else bottom], 1)
    d, e = factor.solve(right).split([n, k], 1)
    inside = factor.kernel[:, :n]
    freedom = (torch.linalg.svdvals(inside) > 1e-6).sum(-1) if inside.numel() else None
    return d, e, freedom


def kkt_matrix(P: Tensor | None, C: Tensor, active: ActiveRows) -> Tensor:
    """Return the KKT matrices, (batch, n + k, n + k), with -1 on the diagonal where a position is not used."""
    batch, _, n = C.shape
    top = C.new_zeros(batch, n, n) if P is None else P.expand(batch, n, n)
    corner = torch.diag_embed(-(~active.used).to(C.dtype))
    return torch.cat([torch.cat([top, C.mT], 2), torch.cat([C, corner], 2)], 1)
