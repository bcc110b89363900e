"""OSQP, called directly: rows with lower and upper sides."""

from typing import Any

import numpy as np
import osqp

import argminlayer as al

from ._batch import Answer, Program, solve_each
from ._solvers import OSQP

_STATUS = (
    ("primal infeasible", al.Status.INFEASIBLE),
    ("dual infeasible", al.Status.UNBOUNDED),
    ("maximum iterations", al.Status.MAX_ITERATIONS),
    ("time limit", al.Status.TIME_LIMIT),
    ("non convex", al.Status.NOT_CONVEX),
    ("solved", al.Status.SOLVED),
)
DEFAULTS = {"verbose": False, "max_iter": 20000, "eps_prim_inf": 1e-7, "eps_dual_inf": 1e-7}
"""OSQP's own limits are for tolerances of 1e-3, and its proofs of infeasibility for 1e-4."""


def solve(solver: OSQP, form: al.ConeForm, start: al.ConeAnswer | None) -> al.ConeAnswer:
    """Solve every program of a batch."""
    zero = form.pattern.cones.zero
    settings = {**DEFAULTS, **solver.back_end_settings()}

    def solve_one(program: Program, index: int) -> Answer:
        low = np.where(np.arange(len(program.b)) < zero, program.b, -np.inf)
        made = osqp.OSQP()
        try:
            made.setup(P=program.P, q=program.q, A=program.A, l=low, u=program.b, **settings)
        except ValueError as error:
            raise al.SolverError(f"{solver.name}: {error}") from error
        if start is not None and np.isfinite(start.value[index]).all() and np.isfinite(start.multipliers[index]).all():
            made.warm_start(x=start.value[index], y=start.multipliers[index])
        return _read(made.solve(raise_error=False), program)

    return solve_each(form, solve_one, solver.threads, warns=True)


def _read(found: Any, program: Program) -> Answer:
    said = str(found.info.status)
    status = next((status for words, status in _STATUS if words in said.lower()), al.Status.BREAKDOWN)
    if status == al.Status.INFEASIBLE:
        return Answer(None, None, found.prim_inf_cert, status, found.info.iter, said)
    if status == al.Status.UNBOUNDED:
        return Answer(found.dual_inf_cert, None, None, status, found.info.iter, said)
    slack = None if found.x is None else program.b - program.A @ found.x
    return Answer(found.x, slack, found.y, status, found.info.iter, said)
