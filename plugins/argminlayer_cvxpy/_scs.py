"""SCS, called directly: all cones, begun where it is told to."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import scs

import argminlayer as al

from ._batch import Answer, Program, solve_each
from ._solvers import SCS

_STATUS = {
    1: al.Status.SOLVED,
    2: al.Status.MAX_ITERATIONS,
    -1: al.Status.UNBOUNDED,
    -2: al.Status.INFEASIBLE,
    -6: al.Status.UNBOUNDED,
    -7: al.Status.INFEASIBLE,
}


def solve(solver: SCS, form: al.ConeForm, start: al.ConeAnswer | None) -> al.ConeAnswer:
    """Solve every program of a batch."""
    cones, settings = _cones(form.pattern.cones), {"verbose": False, **solver.back_end_settings()}
    rows = form.pattern.cones.rows

    def solve_one(program: Program, index: int) -> Answer:
        data = {"P": program.P, "A": program.A, "b": program.b, "c": program.q}
        if not rows:
            # SCS needs a row: 0 x + s = 1, s >= 0 is none
            data |= {"A": sp.csc_matrix((1, len(program.q))), "b": np.ones(1)}
        made = scs.SCS(data, cones if rows else {"l": 1}, **settings)
        begin = {} if start is None or not rows else _begin(start, index)
        found = made.solve(warm_start=bool(begin), **begin)
        info = found["info"]
        status = _STATUS.get(info["status_val"], al.Status.BREAKDOWN)
        return Answer(found["x"], found["s"][:rows], found["y"][:rows], status, info["iter"], info["status"])

    return solve_each(form, solve_one, solver.threads)


def _begin(start: al.ConeAnswer, index: int) -> dict[str, Any]:
    vectors = {"x": start.value[index], "y": start.multipliers[index], "s": start.slack[index]}
    return vectors if all(np.isfinite(vector).all() for vector in vectors.values()) else {}


def _cones(cones: al.Cones) -> dict[str, Any]:
    return {
        "z": cones.zero,
        "l": cones.nonnegative,
        "q": list(cones.second_order),
        "s": list(cones.semidefinite),
        "ep": cones.exponential,
        "p": list(cones.power),
    }
