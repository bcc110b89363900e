"""DAQP, called directly: a batch in threads, one workspace for instances that share P and the rows."""

import daqp
import numpy as np

import argminlayer as al

from ._batch import each_in_threads
from ._solvers import DAQP

EQUALITY = 5
LOOSE = 1e-6
"""DAQP's own tolerance, tried where a tighter one makes it call a program infeasible that is not; polishing does the
rest."""
INFEASIBLE = -1

_STATUS = {
    1: al.Status.SOLVED,
    2: al.Status.SOLVED,
    -1: al.Status.INFEASIBLE,
    -2: al.Status.BREAKDOWN,
    -3: al.Status.UNBOUNDED,
    -4: al.Status.MAX_ITERATIONS,
    -5: al.Status.NOT_CONVEX,
    -6: al.Status.INFEASIBLE,
    -7: al.Status.TIME_LIMIT,
}


def solve_batch(solver: DAQP, form: al.QuadraticForm) -> al.QuadraticAnswer:
    """Solve every program of a batch."""
    batch, settings = form.batch, solver.settings()
    value, multipliers = np.empty((batch, form.size)), np.empty((batch, form.height))
    flags, iterations = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.int64)
    P, q, rows, high, low = form.P, form.q, form.rows, form.high, form.low
    sense = (low == high) * np.intc(EQUALITY)
    p, v, r, t = (int(len(array) > 1) for array in (q if P is None else P, q, rows, high))

    def solve(start: int, stop: int) -> None:
        for i in range(start, stop):
            x, _, flags[i], info = daqp.solve(
                None if P is None else P[i * p],
                q[i * v],
                rows[i * r],
                high[i * t],
                low[i * t],
                sense[i * t],
                **settings,
            )
            value[i], multipliers[i], iterations[i] = x, info["lam"], info["iterations"]

    def solve_loosely(i: int) -> None:
        nonlocal settings
        settings = settings | {"primal_tol": max(LOOSE, solver.tol)}
        solve(i, i + 1)

    each_in_threads(solve, batch, solver.threads, form.size * form.size * (form.size + form.height))
    if (flags > 0).all():
        return al.QuadraticAnswer(value, multipliers, np.zeros(batch, dtype=np.int64), iterations, ("",) * batch)
    for i in np.flatnonzero(flags == INFEASIBLE):
        solve_loosely(int(i))
    status = np.array([_STATUS.get(flag, al.Status.BREAKDOWN) for flag in flags.tolist()], dtype=np.int64)
    words = tuple("" if flag > 0 else f"exit flag {flag}" for flag in flags.tolist())
    return al.QuadraticAnswer(value, multipliers, status, iterations, words)
