"""SciPy's optimizers as argminlayer solvers: exact derivatives, multipliers in our signs, batches in parallel."""

from ._solvers import LBFGS, SLSQP, LeastSquares, Newton, Root, TrustConstr, argminlayer_solvers

__all__ = ["LBFGS", "SLSQP", "LeastSquares", "Newton", "Root", "TrustConstr", "argminlayer_solvers"]
