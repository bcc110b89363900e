"""The hooks: solvers, and the reader of Pyomo models. Pyomo itself is not imported here."""

from collections.abc import Sequence
from typing import Any

import argminlayer as al

from ._solvers import Highs, Ipopt, Named


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [Ipopt, Highs, Named]


@al.hookimpl
def argminlayer_read_model(
    model: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None
) -> al.Problem | None:
    """Return the problem that a Pyomo model states, None for any other object."""
    if not any(kind.__module__.partition(".")[0] == "pyomo" for kind in type(model).__mro__):
        return None
    from ._read import read

    return read(model, parameters, variables)
