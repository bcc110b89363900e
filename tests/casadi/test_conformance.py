"""CasADi's solvers pass the suite that every plugin passes, and keep what is promised of them in particular."""

import pytest

import argminlayer_casadi
from argminlayer.testing import SolverConformance

pytest.importorskip("casadi", reason="needs the extra casadi")


class TestIPOPT(SolverConformance):
    solver = argminlayer_casadi.IPOPT()


class TestSQP(SolverConformance):
    solver = argminlayer_casadi.SQP()
