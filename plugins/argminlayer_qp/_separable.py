"""Programs that are separable but for a few equalities, a whole batch at once: Newton's method on the dual.

    minimise 1/2 sum p_j x_j^2 + q'x   subject to   E x = b,   l <= x <= u,      p > 0.

Given multipliers y of the equalities ``x(y) = clip(-(q + E'y) / p, l, u)``; the dual function is concave, its gradient
is ``E x(y) - b``, and its generalised Hessian ``-E_F diag(1 / p_F) E_F'`` over the variables F inside their bounds.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import argminlayer as al

Array = NDArray[Any]

FEW = 4
"""Largest number of equalities."""
EXACT = 1e-13
"""Residual, over the size of its terms, at which the search ends."""
SHORTEST = 1e-6
"""Smallest part of a step that is tried."""


class Shape(NamedTuple):
    """Where the entries of a separable pattern are: of equalities, and of rows with one entry."""

    equal: Array
    single: Array


def shape_of(pattern: al.ConePattern) -> Shape | None:
    """Return where the entries are, None where a pattern is not that of a separable program."""
    zero, n = pattern.cones.zero, pattern.size
    if not pattern.cones.is_linear or zero > FEW or len(pattern.P_rows) != n:
        return None
    diagonal = (pattern.P_rows == pattern.P_columns).all() and len(np.unique(pattern.P_rows)) == n
    counts = np.bincount(pattern.A_rows, minlength=pattern.cones.rows)[zero:]
    if not diagonal or not (counts == 1).all():
        return None
    return Shape(np.flatnonzero(pattern.A_rows < zero), np.flatnonzero(pattern.A_rows >= zero))


class Program(NamedTuple):
    """A batch: p, q, lower and upper (batch, n), E (batch, k, n), b (batch, k)."""

    p: Array
    q: Array
    E: Array
    b: Array
    lower: Array
    upper: Array

    def point(self, y: Array) -> Array:
        """Return x(y), (batch, n)."""
        inside = -(self.q + (y[:, None] @ self.E)[:, 0]) / self.p
        found: Array = np.minimum(np.maximum(inside, self.lower), self.upper)
        return found

    def dual(self, x: Array, y: Array) -> Array:
        """Return the dual function at y, given x(y), (batch,)."""
        value: Array = ((0.5 * self.p * x + self.q) * x).sum(1) + (y * self.rest(x)).sum(1)
        return value

    def rest(self, x: Array) -> Array:
        """Return ``E x - b``, (batch, k)."""
        found: Array = (self.E @ x[..., None])[..., 0] - self.b
        return found


def solve(form: al.ConeForm, max_iter: int) -> al.ConeAnswer:
    """Solve every program of a batch."""
    shape = shape_of(form.pattern)
    assert shape is not None
    with np.errstate(all="ignore"):
        program = _program(form, shape)
        y, iterations = _search(program, max_iter)
        x = program.point(y)
        solved = _small(program, x)
        slack, multipliers = _rows(form, shape, program, x, y)
    status = np.where(solved, int(al.Status.SOLVED), int(al.Status.MAX_ITERATIONS))
    words = tuple("" if fine else "the multipliers of the equalities did not converge" for fine in solved)
    return al.ConeAnswer(x, slack, multipliers, status, iterations, words)


def _program(form: al.ConeForm, shape: Shape) -> Program:
    pattern, n, batch, zero = form.pattern, form.pattern.size, form.batch, form.pattern.cones.zero
    p = np.empty((len(form.P), n))
    p[:, pattern.P_rows] = form.P
    E = np.zeros((len(form.A), zero, n))
    i, j = pattern.A_rows[shape.equal], pattern.A_columns[shape.equal]
    for entries, row in zip(form.A, E, strict=True):
        np.add.at(row, (i, j), entries[shape.equal])
    lower, upper = np.full((batch, n), -np.inf), np.full((batch, n), np.inf)
    rows, columns = pattern.A_rows[shape.single], pattern.A_columns[shape.single]
    values = form.A[:, shape.single]
    sides = np.broadcast_to(form.b[:, rows] / values, (batch, len(rows)))
    below, above = np.where(values < 0, sides, -np.inf), np.where(values > 0, sides, np.inf)
    for turn in range(_most(columns)):
        chosen = _nth(columns, turn)
        at = columns[chosen]
        lower[:, at] = np.maximum(lower[:, at], below[:, chosen])
        upper[:, at] = np.minimum(upper[:, at], above[:, chosen])
    return Program(p, form.q, E, form.b[:, :zero], lower, upper)


def _search(program: Program, max_iter: int) -> tuple[Array, Array]:
    """Return multipliers of the equalities by Newton steps that raise the dual function, and the number of steps."""
    batch, k = len(program.lower), program.b.shape[1]
    y, iterations = np.zeros((batch, k)), np.zeros(batch, dtype=np.int64)
    if not k:
        return y, iterations
    x = program.point(y)
    weight = np.broadcast_to(1.0 / program.p, x.shape)
    whole = (program.E * weight[:, None]) @ program.E.swapaxes(1, 2)
    small = 1e-12 * np.trace(whole, axis1=1, axis2=2)[:, None, None] * np.eye(k)
    for _ in range(max_iter):
        open_ = ~_small(program, x)
        if not open_.any():
            break
        iterations += open_
        free = (x > program.lower) & (x < program.upper)
        hessian = (program.E * np.where(free, weight, 0.0)[:, None]) @ program.E.swapaxes(1, 2)
        # where all variables sit at bounds the slope has no curvature: that without bounds makes a step
        inside = np.asarray(free.any(1))
        hessian = np.where(inside[:, None, None], hessian + small, whole + small)
        rest = program.rest(x)
        step = np.linalg.solve(np.where(np.isfinite(hessian), hessian, np.eye(k)), np.nan_to_num(rest)[..., None])[
            ..., 0
        ]
        y, x = _risen(program, y, x, np.where(open_[:, None], step, 0.0), rest)
    return y, iterations


def _risen(program: Program, y: Array, x: Array, step: Array, rest: Array) -> tuple[Array, Array]:
    """Return the points after steps of a length with which the dual function rises by enough."""
    before, slope = program.dual(x, y), (step * rest).sum(1)
    length = np.ones(len(y))
    while True:
        trial = y + length[:, None] * step
        there = program.point(trial)
        gain = program.dual(there, trial) - before
        short = ~(gain >= 1e-4 * length * slope - 1e-14 * abs(before)) & (length > SHORTEST)
        if not short.any():
            return trial, there
        length = np.where(short, 0.5 * length, length)


def _small(program: Program, x: Array) -> Array:
    """Return where the equalities hold, (batch,)."""
    size = abs(program.b) + (abs(program.E) @ abs(x)[..., None])[..., 0]
    return np.asarray((abs(program.rest(x)) <= EXACT * size).all(1))


def _rows(form: al.ConeForm, shape: Shape, program: Program, x: Array, y: Array) -> tuple[Array, Array]:
    """Return slacks and multipliers of all rows, (batch, m); of several equal bounds the first one pulls."""
    pattern, zero, batch = form.pattern, form.pattern.cones.zero, form.batch
    multipliers, slack = (np.zeros((batch, pattern.cones.rows)) for _ in range(2))
    multipliers[:, :zero] = y
    rows, columns = pattern.A_rows[shape.single], pattern.A_columns[shape.single]
    values = np.broadcast_to(form.A[:, shape.single], (batch, len(rows)))
    slack[:, rows] = np.maximum(form.b[:, rows] - values * x[:, columns], 0.0)
    pull = -(program.p * x + program.q + (y[:, None] @ program.E)[:, 0])
    side = np.where(pull > 0, program.upper, program.lower)[:, columns]
    binding = (form.b[:, rows] / values == side) & (pull[:, columns] * values > 0)
    first = np.zeros_like(binding)
    seen = np.zeros(x.shape, dtype=bool)
    for turn in range(_most(columns)):
        chosen = _nth(columns, turn)
        fresh = binding[:, chosen] & ~seen[:, columns[chosen]]
        first[:, chosen] = fresh
        seen[:, columns[chosen]] |= fresh
    multipliers[:, rows] = np.where(first, pull[:, columns] / values, 0.0)
    return slack, multipliers


def _most(columns: Array) -> int:
    """Return how often the most frequent column occurs."""
    return int(np.unique(columns, return_counts=True)[1].max(initial=0))


def _nth(columns: Array, turn: int) -> Array:
    """Return the positions at which each column occurs for the n-th time."""
    order = np.argsort(columns, kind="stable")
    ordered = columns[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(columns) else np.zeros(0, dtype=int)
    rank = np.arange(len(columns)) - np.repeat(begins, np.diff(np.r_[begins, len(columns)]))
    found: Array = order[rank == turn]
    return found
