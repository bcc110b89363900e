"""PIQP, called directly: sparse or dense quadratic programs."""

from typing import Any

import numpy as np
import piqp
import scipy.sparse as sp

import argminlayer as al

from ._batch import Answer, Program, solve_each
from ._solvers import PIQP

DENSE = 0.25
"""From this share of entries on matrices are dense."""
_STATUS = {
    "PIQP_SOLVED": al.Status.SOLVED,
    "PIQP_MAX_ITER_REACHED": al.Status.MAX_ITERATIONS,
    "PIQP_PRIMAL_INFEASIBLE": al.Status.INFEASIBLE,
    "PIQP_DUAL_INFEASIBLE": al.Status.UNBOUNDED,
}


def solve(solver: PIQP, form: al.ConeForm) -> al.ConeAnswer:
    """Solve every program of a batch."""
    n, zero, m = form.pattern.size, form.pattern.cones.zero, form.pattern.cones.rows
    entries = 2 * form.P.shape[-1] + form.A.shape[-1]
    dense = entries > DENSE * n * (n + m)
    settings = {"verbose": False, **solver.back_end_settings()}

    def solve_one(program: Program, index: int) -> Answer:
        del index
        made = piqp.DenseSolver() if dense else piqp.SparseSolver()
        for name, value in settings.items():
            if not hasattr(made.settings, name):
                raise al.SolverError(f"{solver.name}: PIQP has no setting {name!r}")
            setattr(made.settings, name, value)
        P = program.P + sp.triu(program.P, 1).T
        shaped = (lambda matrix: matrix.toarray()) if dense else sp.csc_matrix
        equal = (shaped(program.A[:zero]), program.b[:zero]) if zero else (None, None)
        below = (shaped(program.A[zero:]), None, program.b[zero:]) if m > zero else (None, None, None)
        made.setup(shaped(P), program.q, *equal, *below, None, None)
        return _read(made.solve(), made.result, program, m > zero)

    return solve_each(form, solve_one, solver.threads)


def _read(said: Any, found: Any, program: Program, inequalities: bool) -> Answer:
    x, parts = np.array(found.x), [np.array(found.y), *([np.array(found.z_u)] if inequalities else [])]
    status = _STATUS.get(said.name, al.Status.BREAKDOWN)
    return Answer(x, program.b - program.A @ x, np.concatenate(parts), status, found.info.iter, said.name)
