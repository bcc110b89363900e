"""The classical way: fit scikit-learn's Ridge on every fold for every penalty of a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import argminlayer as al

from ._data import Array, DataSet
from ._errors import explained_imports
from ._ridge import Split


@dataclass(frozen=True)
class GridSearch:
    """Validation losses (count,) of the penalties ``mu`` (count,), and the number of fits they took."""

    mu: Array
    loss: Array
    fits: int

    @property
    def best(self) -> int:
        """Position of the lowest loss."""
        return int(self.loss.argmin())

    @property
    def factor(self) -> float:
        """Ratio of neighbouring penalties."""
        return float(self.mu[1] / self.mu[0])


def grid_search(
    data: DataSet,
    splits: Sequence[Split],
    grid: tuple[float, float, int],
    *,
    intercept: bool,
    per_sample: bool,
    progress: al.Progress,
) -> GridSearch:
    """Evaluate the validation loss of :class:`CrossValidation` without us: a loop over penalties and folds.

    Args:
        data: the data set.
        splits: pairs of rows to fit on and rows held out.
        grid: from, to, number of penalties, evenly spaced in log mu.
        intercept: whether Ridge fits a constant term.
        per_sample: whether the loss of a fold is divided by its size.
        progress: is told of each penalty.
    """
    with explained_imports("grid search"):
        from sklearn.linear_model import Ridge
    mus = np.geomspace(*grid)
    losses = []
    for mu in progress.track(mus, f"{data.name}: grid search", total=len(mus)):
        folds = []
        for fit, held in splits:
            # Singular values, because collinear columns at a small penalty are too much for the Cholesky factor.
            model = Ridge(alpha=mu, fit_intercept=intercept, solver="svd").fit(data.X[fit], data.y[fit])
            squares = np.square(model.predict(data.X[held]) - data.y[held])
            folds.append(0.5 * (squares.mean() if per_sample else squares.sum()))
        losses.append(np.mean(folds))
    return GridSearch(mus, np.array(losses), len(mus) * len(splits))
