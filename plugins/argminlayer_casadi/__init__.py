"""CasADi's nonlinear solvers: torch problems recorded as algebra, exact sparse derivatives, compiled batches."""

from ._solvers import IPOPT, SQP, argminlayer_solvers

__all__ = ["IPOPT", "SQP", "argminlayer_solvers"]
