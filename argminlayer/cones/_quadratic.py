"""Cone programs that are quadratic or linear programs, stated as such for the solvers of that class.

Canonical forms name every affine expression under a square: ``min |t|^2 s.t. t = F x``. Variables that one equality
defines, and nothing else constrains, are eliminated; rows with one entry become bounds. Both are functions of the
parameters like any other, so that derivatives pass through them.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._autodiff import inside_transform
from .._qp_form import factorised, quadratic_form
from .._qp_layer import solve_blocks
from .._qp_search import choose_quadratic, quadratic_family
from .._select import AUTO, requested
from .._solver import AbstractSolver
from ._pattern import Array, ConePattern
from ._programs import is_sparse

DENSE = 400
"""Up to so many variables, without those that are eliminated, sparse matrices are made dense."""
PIVOT = 1e-3
"""A variable is eliminated where its coefficient is larger than this, over the largest of its row."""

Blocks = dict[str, Tensor]
Data = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Patch:
    """A dense matrix made of some of the values of a sparse one.

    Attributes:
        entries: which values.
        places: where each goes in the flat matrix; those with the same place add up.
        shape: of the matrix.
    """

    entries: Tensor
    places: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: Array, columns: Array, at_row: Array, at_column: Array) -> "Patch":
        """Return the part of a matrix with the rows and columns that have a place, not -1, among the new ones."""
        i, j = at_row[rows], at_column[columns]
        inside = np.flatnonzero((i >= 0) & (j >= 0))
        shape = int(at_row.max(initial=-1)) + 1, int(at_column.max(initial=-1)) + 1
        return cls(torch.from_numpy(inside), torch.from_numpy(i[inside] * shape[1] + j[inside]), shape)

    def __call__(self, values: Tensor) -> Tensor:
        """Return the matrices (1 or batch, rows, columns) of values (1 or batch, entries)."""
        flat = values.new_zeros(len(values), self.shape[0] * self.shape[1])
        return flat.index_add(1, self.places, values[:, self.entries]).reshape(len(values), *self.shape)


@dataclass(frozen=True, eq=False)
class Plan:
    """What of a pattern becomes which block.

    Attributes:
        kept: variables that stay.
        gone: variables that are eliminated.
        rows: the equality that defines each of these.
        pivots: which entry of A is its coefficient there.
        zero: the other equalities.
        single: inequalities with one entry that can be bounds.
        column: the variable of each of these, among those that stay.
        entry: their entries of A.
        many: the other inequalities.
        defining: the defining equalities, without the variables that they define.
        equal: the other equalities.
        singles: the inequalities with one entry.
        below: the other inequalities.
        inner: P among the variables that stay.
        cross: P between these and the eliminated ones.
        outer: P among the eliminated ones.
    """

    kept: Tensor
    gone: Tensor
    rows: Tensor
    pivots: Tensor
    zero: Tensor
    single: Tensor
    column: Tensor
    entry: Tensor
    many: Tensor
    defining: Patch
    equal: Patch
    singles: Patch
    below: Patch
    inner: Patch
    cross: Patch
    outer: Patch

    @classmethod
    def of(cls, pattern: ConePattern) -> "Plan":
        """Return the plan for a pattern, made once."""
        if pattern not in _PLANS:
            _PLANS[pattern] = _plan(pattern)
        return _PLANS[pattern]


_PLANS: "weakref.WeakKeyDictionary[ConePattern, Plan]" = weakref.WeakKeyDictionary()


def _plan(pattern: ConePattern) -> Plan:
    n, zero, m = pattern.size, pattern.cones.zero, pattern.cones.rows
    rows, columns = pattern.A_rows, pattern.A_columns
    per_row, per_column = np.bincount(rows, minlength=m), np.bincount(columns, minlength=n)
    # a variable with one entry of A, in an equality where it is the first such
    alone = np.flatnonzero((per_column[columns] == 1) & (rows < zero) & (per_row[rows] > 1))
    _, first = np.unique(rows[alone], return_index=True)
    pivots = alone[first]
    gone = columns[pivots]
    kept = np.setdiff1d(np.arange(n), gone)
    zeros = np.setdiff1d(np.arange(zero), rows[pivots])
    stays, leaves = _numbered(kept, n), _numbered(gone, n)
    lone = np.flatnonzero((rows >= zero) & (per_row[rows] == 1) & (stays[columns] >= 0))
    _, first = np.unique(columns[lone], return_index=True)
    entry = lone[first]
    single = rows[entry]
    many = np.setdiff1d(np.arange(zero, m), single)
    indices = (kept, gone, rows[pivots], pivots, zeros, single, stays[columns[entry]], entry, many)
    parts = tuple(Patch.of(rows, columns, _numbered(of, m), stays) for of in (rows[pivots], zeros, single, many))
    i, j = pattern.P_rows, pattern.P_columns
    # the upper triangle lies on both sides of the diagonal
    both = np.concatenate([i, j]), np.concatenate([j, i])
    quadratic = tuple(Patch.of(*both, a, b) for a, b in ((stays, stays), (stays, leaves), (leaves, leaves)))
    tensors: Any = (torch.from_numpy(np.asarray(index, dtype=np.int64)) for index in indices)
    return Plan(*tensors, *parts, *quadratic)


def _numbered(chosen: Array, size: int) -> Array:
    """Return the number of each index among those that are chosen, -1 for the others."""
    numbers = np.full(size, -1)
    numbers[chosen] = np.arange(len(chosen))
    return numbers


@dataclass(frozen=True, eq=False)
class Reduced:
    """A quadratic program that stands for a cone program, and the way back: ``x = (u, M u + c)``.

    Attributes:
        blocks: as :func:`argminlayer.qp` takes them.
        plan: which variables stay.
        M: the variables that were eliminated as functions of u, (1 or batch, gone, kept).
        c: their constants, (1 or batch, gone).
    """

    blocks: Blocks
    plan: Plan
    M: Tensor
    c: Tensor

    def recovered(self, u: Tensor) -> Tensor:
        """Return x (batch, n) for the solution u (batch, kept)."""
        t = (self.M @ u[..., None])[..., 0] + self.c
        x = u.new_zeros(len(u), len(self.plan.kept) + len(self.plan.gone))
        return x.index_copy(1, self.plan.kept, u).index_copy(1, self.plan.gone, t)


def solve_quadratic(
    pattern: ConePattern,
    data: Data,
    shape: torch.Size,
    solver: str | AbstractSolver | None,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Tensor | None:
    """Return x (batch, n) by solvers of quadratic programs, None where they do not serve.

    Args:
        pattern: of a program with zero and nonnegative cones only.
        data: P, q, A and b, (1 or batch, entries).
        shape: of the batch.
        solver: as for :func:`argminlayer.solve`.
        options: fields of the solver to replace.
        throw: raise when an instance fails; otherwise it is NaN.
    """
    found = _stated(pattern, data, solver)
    if found is None:
        return None
    # what is shared has no leading dimensions, so that failures are named by the index in the batch
    blocks = {k: t[0] if len(t) == 1 else t.reshape(shape + t.shape[1:]) for k, t in found.blocks.items()}
    u = solve_blocks(blocks, solver, options, throw)
    if u is None:
        return None
    return found.recovered(u.reshape(-1, u.shape[-1])).expand(shape.numel(), pattern.size)


def quadratic_chain(
    pattern: ConePattern, data: Data, shape: torch.Size, solver: str | AbstractSolver | None
) -> tuple[AbstractSolver, ...]:
    """Return the solvers that :func:`solve_quadratic` would use, none where it does not serve."""
    family, found = quadratic_family(solver), _stated(pattern, data, solver)
    if not family or found is None:
        return ()
    blocks = {name: block.detach().contiguous() for name, block in found.blocks.items()}
    return choose_quadratic(quadratic_form(blocks, torch.Size([shape.numel()])), family, None)


def _stated(pattern: ConePattern, data: Data, solver: str | AbstractSolver | None) -> "Reduced | None":
    """Return the quadratic program of data, None where automatic choice leaves it to solvers of cone programs."""
    automatic = requested(solver) == AUTO
    if automatic and inside_transform():
        # where nobody can look at numbers, whether the program is definite stays unknown
        return None
    found = reduced(pattern, *data)
    return None if found is None or (automatic and not _is_definite(found.blocks)) else found


def _is_definite(blocks: Blocks) -> bool:
    """Return whether the solution is unique whatever the constraints; where it is not the cone way says more."""
    return "P" in blocks and bool(factorised(blocks["P"].detach().numpy())[1].all())


def reduced(pattern: ConePattern, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Reduced | None:
    """Return the quadratic program of data (1 or batch, entries), differentiable in them; None if large and sparse.

    Args:
        pattern: of a program with zero and nonnegative cones only.
        P: values of the upper triangle of P.
        q: (1 or batch, n).
        A: values of A.
        b: (1 or batch, m).
    """
    plan = Plan.of(pattern)
    if len(plan.kept) > DENSE and is_sparse(pattern):
        return None
    definitions, pivots = plan.defining(A), A[:, plan.pivots]
    if bool((pivots.abs() <= PIVOT * definitions.detach().abs().amax(2)).any()) if len(plan.gone) else False:
        return None
    M, c = -definitions / pivots[..., None], b[:, plan.rows] / pivots
    blocks: Blocks = {"q": q[:, plan.kept] + _pulled(M, q[:, plan.gone])}
    if len(pattern.P_rows):
        halved = P * torch.from_numpy(np.where(pattern.P_rows == pattern.P_columns, 0.5, 1.0))
        blocks["P"], shift = _quadratic(halved.repeat(1, 2), plan, M, c)
        blocks["q"] = blocks["q"] + shift
    if len(plan.zero):
        blocks["A"], blocks["b"] = plan.equal(A), b[:, plan.zero]
    return Reduced(blocks | _inequalities(plan, A, b), plan, M, c)


def _quadratic(P: Tensor, plan: Plan, M: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``[I M'] P [I; M]`` and ``[I M'] P [0; c]`` for values P of both triangles."""
    outer = plan.outer(P)
    turned = outer @ M
    total, shift = M.mT @ turned, _pulled(turned, c)
    if len(plan.cross.entries):
        mixed = plan.cross(P)
        total = total + mixed @ M + (mixed @ M).mT
        shift = shift + (mixed @ c[..., None])[..., 0]
    return (total + plan.inner(P) if len(plan.inner.entries) else total), shift


def _inequalities(plan: Plan, A: Tensor, b: Tensor) -> Blocks:
    """Return bounds for the rows with one entry, where its sign is that of all instances; and the other rows."""
    found: Blocks = {}
    coefficients = A[:, plan.entry]
    sign = torch.sign(coefficients.detach())
    one_sided = bool(((sign == sign[:1]) & (sign != 0)).all())
    if one_sided:
        sides = b[:, plan.single] / coefficients
        for name, which, empty in (("lower", sign[0] < 0, -torch.inf), ("upper", sign[0] > 0, torch.inf)):
            if bool(which.any()):
                free = sides.new_full((len(sides), len(plan.kept)), empty)
                found[name] = free.index_copy(1, plan.column[which], sides[:, which])
    G, h = plan.below(A), b[:, plan.many]
    if not one_sided:
        G, h = torch.cat([plan.singles(A), G], 1), torch.cat([b[:, plan.single], h], 1)
    return found | ({"G": G, "h": h} if G.shape[1] else {})


def _pulled(matrix: Tensor, vector: Tensor) -> Tensor:
    return (vector[:, None, :] @ matrix)[:, 0]
