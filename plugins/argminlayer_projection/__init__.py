"""Projections onto sets as layers, each also an ordinary problem: nearest points with exact derivatives."""

import argminlayer as al

from ._solver import ExactProjection as ExactProjection
from ._vectors import CappedSimplexProjection as CappedSimplexProjection
from ._vectors import Entmax as Entmax
from ._vectors import LpProjection as LpProjection
from ._vectors import SimplexProjection as SimplexProjection
from ._vectors import Sparsemax as Sparsemax

__all__ = [
    "CappedSimplexProjection",
    "Entmax",
    "ExactProjection",
    "LpProjection",
    "SimplexProjection",
    "Sparsemax",
]


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [ExactProjection]
