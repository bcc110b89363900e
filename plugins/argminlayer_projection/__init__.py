"""Projections onto sets as layers, each also an ordinary problem: nearest points with exact derivatives."""

import argminlayer as al

from ._matrices import BirkhoffProjection as BirkhoffProjection
from ._matrices import GroupBallProjection as GroupBallProjection
from ._matrices import NuclearBallProjection as NuclearBallProjection
from ._matrices import RotationProjection as RotationProjection
from ._matrices import SemidefiniteProjection as SemidefiniteProjection
from ._solver import ExactProjection as ExactProjection
from ._vectors import AffineProjection as AffineProjection
from ._vectors import BoxProjection as BoxProjection
from ._vectors import CappedSimplexProjection as CappedSimplexProjection
from ._vectors import Entmax as Entmax
from ._vectors import HalfSpaceProjection as HalfSpaceProjection
from ._vectors import LpProjection as LpProjection
from ._vectors import SecondOrderConeProjection as SecondOrderConeProjection
from ._vectors import SimplexProjection as SimplexProjection
from ._vectors import Sparsemax as Sparsemax
from .classification import ImageClassification as ImageClassification

__all__ = [
    "AffineProjection",
    "BirkhoffProjection",
    "BoxProjection",
    "CappedSimplexProjection",
    "Entmax",
    "ExactProjection",
    "GroupBallProjection",
    "HalfSpaceProjection",
    "ImageClassification",
    "LpProjection",
    "NuclearBallProjection",
    "RotationProjection",
    "SecondOrderConeProjection",
    "SemidefiniteProjection",
    "SimplexProjection",
    "Sparsemax",
]


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [ExactProjection]


@al.hookimpl
def argminlayer_experiments() -> list[type[al.AbstractExperiment]]:
    """Return the experiments of this plugin."""
    return [ImageClassification]
