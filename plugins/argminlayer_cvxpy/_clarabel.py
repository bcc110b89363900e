"""Clarabel, called directly: all cones, with semidefinite blocks in its own order."""

from typing import Any

import clarabel
import numpy as np

import argminlayer as al

from ._batch import Answer, Array, Program, solve_each
from ._solvers import Clarabel

_STATUS = {
    "Solved": al.Status.SOLVED,
    "AlmostSolved": al.Status.SOLVED,
    "PrimalInfeasible": al.Status.INFEASIBLE,
    "AlmostPrimalInfeasible": al.Status.INFEASIBLE,
    "DualInfeasible": al.Status.UNBOUNDED,
    "AlmostDualInfeasible": al.Status.UNBOUNDED,
    "MaxIterations": al.Status.MAX_ITERATIONS,
    "MaxTime": al.Status.TIME_LIMIT,
}


def solve(solver: Clarabel, form: al.ConeForm) -> al.ConeAnswer:
    """Solve every program of a batch."""
    settings, cones = _settings(solver), _cones(form.pattern.cones)

    def solve_one(program: Program, index: int) -> Answer:
        del index
        try:
            found = clarabel.DefaultSolver(*program, cones, settings).solve()
        except BaseException as error:
            # a panic of compiled code is no Exception, though it concerns this program alone
            if type(error).__name__ != "PanicException":
                raise
            return Answer(None, None, None, al.Status.BREAKDOWN, message=f"{type(error).__name__}: {error}")
        said = str(found.status)
        status = _STATUS.get(said, al.Status.BREAKDOWN)
        return Answer(found.x, found.s, found.z, status, found.iterations, said)

    return solve_each(form, solve_one, solver.threads, upper_order)


def upper_order(cones: al.Cones) -> Array | None:
    """Return where each row goes when semidefinite blocks are upper triangles by columns; None where there are none."""
    if not cones.semidefinite:
        return None
    order = np.arange(cones.rows)
    for kind, first, k in cones.blocks():
        if kind == "semidefinite":
            columns, rows = np.triu_indices(int(k))  # the lower triangle by columns
            order[first : first + len(rows)] = first + rows * (rows + 1) // 2 + columns
    return order


def _cones(cones: al.Cones) -> list[Any]:
    """Return the cones in Clarabel's classes."""
    kinds = {
        "second_order": lambda size: clarabel.SecondOrderConeT(int(size)),
        "semidefinite": lambda k: clarabel.PSDTriangleConeT(int(k)),
        "exponential": lambda _: clarabel.ExponentialConeT(),
        "power": clarabel.PowerConeT,
    }
    flat = [
        (clarabel.ZeroConeT, cones.zero),
        (clarabel.NonnegativeConeT, cones.nonnegative),
    ]
    return [make(size) for make, size in flat if size] + [kinds[kind](detail) for kind, _, detail in cones.blocks()]


def _settings(solver: Clarabel) -> Any:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    for name, value in solver.back_end_settings().items():
        if not hasattr(settings, name):
            raise al.SolverError(f"{solver.name}: Clarabel has no setting {name!r}")
        try:
            setattr(settings, name, value)
        except TypeError as error:
            raise al.SolverError(f"{solver.name}: Clarabel's setting {name!r} cannot be {value!r}: {error}") from error
    return settings
