"""HiGHS, called directly."""

from typing import Any

import highspy
import numpy as np
import scipy.sparse as sp

import argminlayer as al

from ._batch import Answer, Program, solve_each
from ._solvers import HIGHS

_STATUS = {
    "kOptimal": al.Status.SOLVED,
    "kInfeasible": al.Status.INFEASIBLE,
    "kUnbounded": al.Status.UNBOUNDED,
    "kUnboundedOrInfeasible": al.Status.INFEASIBLE,
    "kIterationLimit": al.Status.MAX_ITERATIONS,
    "kTimeLimit": al.Status.TIME_LIMIT,
}


def solve(solver: HIGHS, form: al.ConeForm) -> al.ConeAnswer:
    """Solve every program of a batch."""
    zero = form.pattern.cones.zero
    settings = {"output_flag": False, "threads": 1, **solver.back_end_settings()}

    def solve_one(program: Program, index: int) -> Answer:
        del index
        highs = highspy.Highs()
        for name, value in settings.items():
            if highs.setOptionValue(name, value) == highspy.HighsStatus.kError:
                raise al.SolverError(f"{solver.name}: HiGHS has no option {name!r} with the value {value!r}")
        highs.passModel(_model(program, zero))
        highs.run()
        return _read(highs, program)

    return solve_each(form, solve_one, 1)


def _model(program: Program, zero: int) -> Any:
    model = highspy.HighsModel()
    lp, (m, n) = model.lp_, program.A.shape
    lp.num_col_, lp.num_row_ = n, m
    lp.col_cost_ = program.q
    lp.col_lower_, lp.col_upper_ = np.full(n, -highspy.kHighsInf), np.full(n, highspy.kHighsInf)
    lp.row_lower_ = np.where(np.arange(m) < zero, program.b, -highspy.kHighsInf)
    lp.row_upper_ = program.b
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = n, m
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = program.A.indptr, program.A.indices, program.A.data
    if program.P.nnz:
        lower = sp.csc_matrix(program.P.T)
        model.hessian_.dim_, model.hessian_.format_ = n, highspy.HessianFormat.kTriangular
        model.hessian_.start_, model.hessian_.index_, model.hessian_.value_ = lower.indptr, lower.indices, lower.data
    return model


def _read(highs: Any, program: Program) -> Answer:
    said = highs.getModelStatus().name
    found, info = highs.getSolution(), highs.getInfo()
    status = _STATUS.get(said, al.Status.BREAKDOWN)
    x = np.array(found.col_value) if found.value_valid else None
    slack = None if x is None else program.b - program.A @ x
    # the multiplier of a row is how much the objective grows with its sides
    multipliers = -np.array(found.row_dual) if found.dual_valid else None
    if status == al.Status.INFEASIBLE:
        has, ray = _ray(highs, "getDualRay", len(program.b))
        multipliers = ray if has else multipliers
    if status == al.Status.UNBOUNDED:
        has, ray = _ray(highs, "getPrimalRay", len(program.q))
        x = ray if has else x
    return Answer(x, slack, multipliers, status, max(info.simplex_iteration_count, info.qp_iteration_count), said)


def _ray(highs: Any, name: str, size: int) -> tuple[bool, Any]:
    """Return whether HiGHS has a proof of infeasibility or unboundedness, and the proof."""
    answer = getattr(highs, name)()
    has = bool(answer[1]) and len(answer) > 2 and len(answer[2]) == size
    return has, (-np.array(answer[2]) if has and name == "getDualRay" else np.array(answer[2]) if has else None)
