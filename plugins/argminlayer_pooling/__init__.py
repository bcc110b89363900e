"""Robust pooling: means that do not follow outliers, exact and global, with exact gradients."""

import argminlayer as al

from ._classification import PointClouds as PointClouds
from ._consumption import Consumption as Consumption
from ._layers import RobustPool as RobustPool
from ._layers import RobustVectorPool as RobustVectorPool
from ._problem import pooling_problem as pooling_problem
from ._solver import Robust as Robust

__all__ = ["Consumption", "PointClouds", "Robust", "RobustPool", "RobustVectorPool", "pooling_problem"]


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [Robust]


@al.hookimpl
def argminlayer_experiments() -> list[type[al.AbstractExperiment]]:
    """Return the experiments of this plugin."""
    return [PointClouds, Consumption]
