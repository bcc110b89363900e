"""The hooks: solvers, and the reader of CVXPY problems. CVXPY itself is not imported here."""

from collections.abc import Mapping, Sequence
from typing import Any

import argminlayer as al

from ._solvers import ECOS, HIGHS, OSQP, PIQP, SCS, Clarabel, Gurobi, Mosek, Named


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [Clarabel, SCS, PIQP, OSQP, HIGHS, ECOS, Mosek, Gurobi, Named]


@al.hookimpl
def argminlayer_read_model(
    model: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None, options: Mapping[str, Any]
) -> al.Problem | None:
    """Return the cone program that a CVXPY problem stands for, None for any other object.

    Options are ``gp``, whether the problem is a geometric program; ``canon_backend``, for CVXPY's canonicalisation; and
    ``squares=False``, which leaves sums of squares as CVXPY states them.
    """
    if not any(kind.__module__.partition(".")[0] == "cvxpy" for kind in type(model).__mro__):
        return None
    from ._read import read

    if unknown := set(options) - {"gp", "canon_backend", "squares"}:
        raise al.ProblemError(
            f"a CVXPY problem is read with the options gp, canon_backend and squares, not {sorted(unknown)}"
        )
    return read(model, parameters, variables, **options)
