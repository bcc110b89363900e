"""The solvers of CVXPY pass the conformance suite of solvers of cone programs."""

import argminlayer as al
from argminlayer.testing import ConeConformance
from argminlayer_cvxpy import ECOS, HIGHS, OSQP, PIQP, SCS, Clarabel, Named, argminlayer_solvers


class TestClarabel(ConeConformance):
    solver = Clarabel()


class TestSCS(ConeConformance):
    solver = SCS()


class TestECOS(ConeConformance):
    solver = ECOS()


class TestPIQP(ConeConformance):
    solver = PIQP()


class TestOSQP(ConeConformance):
    solver = OSQP()


class TestHIGHS(ConeConformance):
    solver = HIGHS()


class TestNamed(ConeConformance):
    solver = Named(solver="clarabel")


def test_no_installed_solver_escapes_the_suite():
    tested = {type(suite.solver) for suite in ConeConformance.__subclasses__()}
    installed = {kind for kind in argminlayer_solvers() if kind().available()}
    assert installed <= tested
    assert all(issubclass(kind, al.AbstractConeSolver) for kind in tested)
