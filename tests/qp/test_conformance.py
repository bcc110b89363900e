"""Every solver of the plugin passes the suite that every solver passes, on quadratic programs."""

import pytest

import argminlayer as al
import argminlayer_qp
from argminlayer.testing import (
    INFEASIBLE_PROBLEMS,
    INFEASIBLE_PROGRAMS,
    KNOWN_PROBLEMS,
    QUADRATIC_PROBLEMS,
    SolverConformance,
)


class QuadraticConformance(SolverConformance):
    # those among the known problems that their algebra proves quadratic are supported, too
    problems = (*KNOWN_PROBLEMS, *QUADRATIC_PROBLEMS)
    infeasible = (*INFEASIBLE_PROBLEMS, *INFEASIBLE_PROGRAMS)
    # what a back end itself returns; the engine polishes it
    raw_tolerance = 1e-4


class TestDAQP(QuadraticConformance):
    solver = argminlayer_qp.DAQP()


class TestPIQP(QuadraticConformance):
    solver = argminlayer_qp.PIQP()


class TestProxQP(QuadraticConformance):
    solver = argminlayer_qp.ProxQP()


class TestClarabel(QuadraticConformance):
    solver = argminlayer_qp.Clarabel()


class TestOSQP(QuadraticConformance):
    solver = argminlayer_qp.OSQP()


class TestSCS(QuadraticConformance):
    solver = argminlayer_qp.SCS()


class TestHIGHS(QuadraticConformance):
    solver = argminlayer_qp.HIGHS()

    def cut_short(self):
        # it adds the one active row in its first iteration
        return None


class TestQuadprog(QuadraticConformance):
    solver = argminlayer_qp.Quadprog()

    def cut_short(self):
        return None


THROUGH_QPSOLVERS = [
    kind for kind in argminlayer_qp.argminlayer_solvers() if issubclass(kind, al.AbstractQuadraticSolver)
]
"""The others solve cone programs only, and are tested on these."""


def test_no_solver_of_the_plugin_escapes_the_suite():
    suites = QuadraticConformance.__subclasses__()
    assert {type(suite.solver) for suite in suites} == set(THROUGH_QPSOLVERS)
    assert {*argminlayer_qp.argminlayer_solvers()} - {*THROUGH_QPSOLVERS} == {argminlayer_qp.Separable}


@pytest.mark.parametrize("kind", THROUGH_QPSOLVERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, "tol must be positive, not 0.0"),
        ({"max_iter": 0}, "max_iter must be at least 1 or None, not 0"),
        ({"time_limit": -1.0}, "time_limit must be positive seconds or None, not -1.0"),
        ({"threads": 0}, "threads must be at least 1 or None, not 0"),
    ],
)
def test_options_out_of_range_are_refused(kind, options, message):
    with pytest.raises(al.SolverError, match=f"{kind.name}: {message}"):
        kind(**options)


def test_a_limit_that_the_back_end_does_not_have_is_refused():
    with pytest.raises(al.SolverError, match=r"qp\.quadprog: max_iter must be None, for quadprog has no such limit"):
        argminlayer_qp.Quadprog(max_iter=5)
    with pytest.raises(al.SolverError, match=r"qp\.piqp: time_limit must be None, for piqp has no such limit"):
        argminlayer_qp.PIQP(time_limit=5.0)
