"""CVXPY both ways: its problems become differentiable layers, and its solvers solve convex torch problems."""

from ._layer import CvxpyLayer
from ._plugin import argminlayer_read_model, argminlayer_solvers
from ._solvers import ECOS, HIGHS, OSQP, PIQP, SCS, Clarabel, Gurobi, Mosek, Named

__all__ = [
    "ECOS",
    "HIGHS",
    "OSQP",
    "PIQP",
    "SCS",
    "Clarabel",
    "CvxpyLayer",
    "Gurobi",
    "Mosek",
    "Named",
    "argminlayer_read_model",
    "argminlayer_solvers",
]
