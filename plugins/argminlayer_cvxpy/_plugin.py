"""The hooks: solvers, and the reader of CVXPY problems. CVXPY itself is not imported here."""

import argminlayer as al


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return []
