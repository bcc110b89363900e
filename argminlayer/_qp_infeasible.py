"""Proofs that a quadratic program has no solution: a Farkas vector, or a direction in which it falls without limit.

Both are projections onto cones, and so strictly convex quadratic programs with an identity for P, which any of the
solvers can be asked for when a back end offers no certificate of its own:

    infeasible:  project -c on {y : R'y = 0, y >= 0 where a row has no lower side, ...},   R u <= c;
    unbounded:   project -q on {d : P d = 0, R d <= 0, ...}.

A projection p that is not zero has ``c'p = -|p|^2 < 0`` (or ``q'p < 0``), which with ``R'p = 0`` is Farkas' lemma. What
a solver returns for them is verified here before anything is said.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ._qp_certificate import row_lengths
from ._qp_form import Array, QuadraticForm, at, quadratic_form

if TYPE_CHECKING:
    from ._qp_solver import AbstractQuadraticSolver

PROOF = 1e-7
"""How far a certificate may miss its linear conditions, over its gain."""


def proves_infeasible(form: QuadraticForm, offered: Array, chain: Sequence["AbstractQuadraticSolver"]) -> Array:
    """Return which instances have no feasible point, (batch,).

    Args:
        form: the programs that were not solved.
        offered: multipliers (batch, s), which may be Farkas vectors.
        chain: solvers to ask for the projection; the first is asked.
    """
    proved = (form.low > form.high).any(-1) | np.zeros(form.batch, dtype=bool)
    for i in np.flatnonzero(~proved):
        one = _scaled(form, int(i))
        if one.height == 0:
            continue
        length = at(row_lengths(form), int(i))
        proved[i] = _is_farkas(one, offered[i] * length) or _is_farkas(one, _farkas(one, chain[0]))
    return proved


def proves_unbounded(form: QuadraticForm, offered: Array, chain: Sequence["AbstractQuadraticSolver"]) -> Array:
    """Return which instances, of those that could be feasible, fall without limit along a feasible direction."""
    proved = np.zeros(form.batch, dtype=bool)
    for i in range(form.batch):
        if not at(form.definite, i):
            one = _scaled(form, i)
            proved[i] = _is_descent(one, offered[i]) or _is_descent(one, _descent(one, chain[0]))
    return proved


def _scaled(form: QuadraticForm, instance: int) -> QuadraticForm:
    """Return the program of one instance with rows of length one, those of bounds written out."""
    rows = at(form.rows, instance)
    length = at(row_lengths(form), instance)
    everything = np.concatenate([np.eye(form.size), rows]) if form.bounded else rows
    blocks = {"A": everything / length[:, None], "q": at(form.q, instance), "b": at(form.high, instance) / length}
    if form.P is not None:
        blocks["P"] = at(form.P, instance)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(block)) for name, block in blocks.items()}
    return quadratic_form(tensors, torch.Size([1]))._replace(low=at(form.low, instance)[None] / length)


def _is_farkas(form: QuadraticForm, y: Array) -> bool:
    """Say whether ``R'y = 0`` and ``high'y_+ - low'y_- < 0``: no u has ``low <= R u <= high``."""
    low, high, R = form.low[0], form.high[0], form.rows[0]
    if not np.isfinite(y).all():
        return False
    # what points to where there is no side is rounding, or makes the vector fail below
    y = np.where(np.isinf(np.where(y > 0, high, low)), 0.0, y)
    up, down = np.maximum(y, 0.0), np.maximum(-y, 0.0)
    sides = np.where(up > 0, high, 0.0) * up, np.where(down > 0, low, 0.0) * down
    gain = -(sides[0] - sides[1]).sum()
    size = np.abs(sides[0]).sum() + np.abs(sides[1]).sum()
    return bool(gain > PROOF * size and np.abs(y @ R).max(initial=0.0) <= PROOF * gain)


def _farkas(form: QuadraticForm, solver: "AbstractQuadraticSolver") -> Array:
    """Return the projection of the right-hand sides on the cone of Farkas vectors."""
    low, high, R = form.low[0], form.high[0], form.rows[0]
    upper, lower = np.flatnonzero(np.isfinite(high)), np.flatnonzero(np.isfinite(low) & (low < high))
    equal = np.flatnonzero(low == high)
    right = np.concatenate([high[upper], -low[lower]])
    scale = np.abs(right).max(initial=0.0)
    if scale == 0.0:
        return np.zeros(form.height)
    bound = np.where(np.isin(upper, equal), -np.inf, 0.0)
    program = _program(
        P=np.eye(len(right)),
        q=right / scale,
        A=np.concatenate([R[upper], -R[lower]]).T,
        b=np.zeros(form.size),
        lower=np.concatenate([bound, np.zeros(len(lower))]),
    )
    found = solver.solve_quadratic(program).value[0]
    y = np.zeros(form.height)
    y[upper] += found[: len(upper)]
    y[lower] -= found[len(upper) :]
    return y


def _is_descent(form: QuadraticForm, d: Array) -> bool:
    """Say whether ``q'd < 0`` along a direction d that costs nothing and meets no row."""
    if not np.isfinite(d).all() or not np.any(d):
        return False
    d = d / np.abs(d).max()
    low, high, moved = form.low[0], form.high[0], form.rows[0] @ d
    gain = -float(form.q[0] @ d)
    against = np.where(np.isfinite(high), moved, 0.0).max(initial=0.0)
    against = max(against, np.where(np.isfinite(low), -moved, 0.0).max(initial=0.0))
    if form.P is not None:
        against = max(against, float(np.abs(form.P[0] @ d).max()))
    return bool(gain > PROOF * np.abs(form.q[0] * d).sum() and against <= PROOF)


def _descent(form: QuadraticForm, solver: "AbstractQuadraticSolver") -> Array:
    """Return the projection of ``-q`` on the cone of directions that cost nothing and meet no row."""
    low, high, R, q = form.low[0], form.high[0], form.rows[0], form.q[0]
    scale = np.abs(q).max(initial=0.0)
    if scale == 0.0:
        return np.zeros(form.size)
    both, above, below = (
        np.isfinite(low) & np.isfinite(high),
        np.isfinite(high) & ~np.isfinite(low),
        np.isfinite(low) & ~np.isfinite(high),
    )
    still = R[both]
    if form.P is not None:
        P = form.P[0]
        values, vectors = np.linalg.eigh(P)
        still = np.concatenate([still, vectors[:, values > 1e-10 * max(abs(values).max(), 1e-300)].T])
    G = np.concatenate([R[above], -R[below]])
    program = _program(P=np.eye(form.size), q=q / scale, A=still, b=np.zeros(len(still)), G=G, h=np.zeros(len(G)))
    found: Array = solver.solve_quadratic(program).value[0]
    return found


def _program(**blocks: Array) -> QuadraticForm:
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(block))
        for name, block in blocks.items()
        if block.size or name == "q"
    }
    return quadratic_form(tensors, torch.Size([1]))
