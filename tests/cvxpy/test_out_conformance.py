"""Ordinary problems solved by CVXPY's solvers pass the suite that every plugin passes."""

import pytest

import argminlayer_cvxpy
from argminlayer.testing import KNOWN_PROBLEMS, SolverConformance

pytest.importorskip("cvxpy", reason="needs the extra cvxpy")

FEW = {"logarithm", "ridge", "largest product", "several variables", "every kind of constraint", "linear system"}
MORE = FEW | {
    "quadratic",
    "fit within bounds",
    "affine projection",
    "ball",
    "simplex",
    "disc",
    "one-sided bounds of two variables",
}


class TestClarabel(SolverConformance):
    solver = argminlayer_cvxpy.Clarabel()
    problems = tuple(known for known in KNOWN_PROBLEMS if known.name in MORE)


class TestSCS(SolverConformance):
    solver = argminlayer_cvxpy.SCS()
    problems = tuple(known for known in KNOWN_PROBLEMS if known.name in FEW)
