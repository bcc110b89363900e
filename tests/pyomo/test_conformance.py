"""Pyomo's solvers keep the contract of a solver, each by every route that is installed."""

import argminlayer_pyomo
from argminlayer.testing import INFEASIBLE_PROBLEMS, KNOWN_PROBLEMS, SolverConformance

FEW = [
    known for known in KNOWN_PROBLEMS if known.name in ("every kind of constraint", "fit within bounds", "cube roots")
]
"""For programs that are started anew for every instance: one problem of each kind."""
QUADRATIC = {"several variables", "fit with an equality", "half-space", "moving box", "simplex", "linear system"}
"""For HiGHS: linear and quadratic problems of each kind."""


class TestIpoptInCasadi(SolverConformance):
    solver = argminlayer_pyomo.Ipopt(route="casadi")


class TestIpoptAsExecutable(SolverConformance):
    solver = argminlayer_pyomo.Ipopt(route="pounce")
    problems = FEW
    infeasible = INFEASIBLE_PROBLEMS[:1]


class TestHighs(SolverConformance):
    solver = argminlayer_pyomo.Highs()
    problems = tuple(known for known in KNOWN_PROBLEMS if known.name in QUADRATIC)


class TestNamed(SolverConformance):
    solver = argminlayer_pyomo.Named(solver="pounce")
    problems = FEW
    infeasible = INFEASIBLE_PROBLEMS[:1]


def test_no_solver_of_the_plugin_escapes_the_suite():
    suites = (TestIpoptInCasadi, TestHighs, TestNamed)
    assert [type(suite.solver) for suite in suites] == argminlayer_pyomo.argminlayer_solvers()
