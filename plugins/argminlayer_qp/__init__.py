"""Solvers of quadratic and linear programs, through qpsolvers: DAQP, PIQP, ProxQP, Clarabel, OSQP, HiGHS and others."""

from ._solvers import (
    DAQP,
    HIGHS,
    OSQP,
    PIQP,
    SCS,
    Clarabel,
    ProxQP,
    Quadprog,
    Separable,
    argminlayer_read_model,
    argminlayer_solvers,
)

__all__ = [
    "DAQP",
    "HIGHS",
    "OSQP",
    "PIQP",
    "SCS",
    "Clarabel",
    "ProxQP",
    "Quadprog",
    "Separable",
    "argminlayer_read_model",
    "argminlayer_solvers",
]
