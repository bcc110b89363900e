"""A third-party plugin for argminlayer: a batched Newton solver, and models of its own that become problems."""

from typing import Any

import argminlayer as al

from ._model import BoxFit
from ._solver import Newton

__all__ = ["BoxFit", "Newton", "argminlayer_read_model", "argminlayer_solvers"]


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [Newton]


@al.hookimpl
def argminlayer_read_model(model: Any) -> al.Problem | None:
    """Return the problem that a :class:`BoxFit` states, None for every other model."""
    return model.problem() if isinstance(model, BoxFit) else None
