"""Bi-level experiments: choose a hyperparameter by gradients through the problem that it shapes."""

import argminlayer as al

from ._experiment import RidgeCrossValidation as RidgeCrossValidation

__all__ = ["RidgeCrossValidation"]


@al.hookimpl
def argminlayer_experiments() -> list[type[al.AbstractExperiment]]:
    """Return the experiments of this plugin."""
    return [RidgeCrossValidation]
