"""The experiment's settings; everything heavy is imported when it runs."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import argminlayer as al


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class RidgeCrossValidation(al.AbstractExperiment):
    """Choose the penalty of ridge regression by K-fold cross-validation, as a bi-level problem.

        minimise over mu   J(mu) = 1/K sum_k w_k 1/2 |X_k beta_k(mu) - y_k|^2
        beta_k(mu) = argmin_b 1/2 |X'_k b - y'_k|^2 + 1/2 mu |b|^2

    The K fits are one argmin node, and the search follows the derivative of J through it. The defaults are the recipe
    of Pan, Wang and Zhou (*Deep Declarative Networks: Further Explorations*, sec. 3.3 and 4.3): columns standardised
    over the whole table, the target as it is, no intercept, contiguous folds. The result sets what is found beside the
    paper's figures and a grid search, with the lower solves that each needs, and shows what shuffled folds and an
    intercept change.

    Attributes: the settings, described in ``argminlayer run bilevel --help``.
    """

    name: ClassVar[str] = "bilevel"
    summary: ClassVar[str] = "choose a ridge penalty by cross-validation, with the gradient through the fits"

    data: tuple[str, ...] = _setting(("iris", "diabetes"), "data sets: iris, diabetes, or paths of CSV files")
    target: str | None = _setting(None, "column of a CSV file to predict")
    folds: int = _setting(5, "number of folds, K")
    shuffle: bool = _setting(False, "shuffle the rows before they are cut into folds")
    intercept: bool = _setting(False, "add a constant term, which is not penalised")
    normalisation: Literal["paper", "mean", "sum"] = _setting(
        "paper", "loss of a fold: mean or sum over its samples; paper: sum for diabetes, mean for all others"
    )
    search: str = _setting("secant", "secant, or an optimizer of torch.optim: adam, sgd, lbfgs, rprop, ...")
    starts: tuple[float, ...] = _setting((0.1, 800.0), "penalties mu to start from; the best result counts")
    limits: tuple[float, float] = _setting((1e-8, 1e12), "smallest and largest mu")
    tolerance: float = _setting(1e-7, "relative accuracy of mu at which a search stops")
    max_solves: int = _setting(200, "lower solves that a search may make from one start")
    rate: float = _setting(0.1, "learning rate of a torch optimizer, which moves log mu")
    grid: tuple[float, float, int] = _setting((1e-3, 1e6, 91), "grid search: from, to, number of values")
    solver: str = _setting("auto", "solver of the fits")
    variants: bool = _setting(True, "also find the optima with and without shuffled folds and intercept")
    seed: int = _setting(0, "seed of shuffled folds")

    def run(self, progress: al.Progress) -> al.Result:
        """Run the searches on every data set; see :class:`argminlayer.AbstractExperiment`.

        Raises:
            ExperimentError: a setting or a data set cannot be used, or scikit-learn, pandas or matplotlib is missing.
        """
        self._check()
        from ._data import load_all
        from ._report import report
        from ._study import study

        sets = load_all(self.data, self.target)
        return report(self, tuple(study(self, data, progress) for data in progress.track(sets, "data sets")))

    def _check(self) -> None:
        from ._data import BUILT_IN
        from ._search import check_search

        low, high = self.limits
        grid_low, grid_high, grid_count = self.grid
        requirements = (
            (
                0 < low < high < math.inf,
                f"the limits of mu are {low:g} and {high:g}; they must be 0 < smallest < largest, both finite",
            ),
            (
                self.folds >= 2,
                f"folds is {self.folds}; cross-validation needs at least 2, to hold something out and fit on the rest",
            ),
            (bool(self.data), "no data set is named; give iris, diabetes or the path of a CSV file"),
            (bool(self.starts), "no start is given; give at least one mu, for example 1"),
            (
                0 < self.tolerance < 1,
                f"tolerance is {self.tolerance:g}; it must be above 0 and below 1, for example 1e-7",
            ),
            (self.max_solves >= 2, f"max_solves is {self.max_solves}; a search needs at least 2 lower solves"),
            (0 < self.rate < math.inf, f"rate is {self.rate:g}; a learning rate must be positive and finite"),
            (
                0 < grid_low < grid_high < math.inf and grid_count >= 2,
                f"the grid is {grid_low:g}, {grid_high:g}, {grid_count}; it must be 0 < from < to, both finite, and at "
                "least 2 values",
            ),
            (
                self.target is None or not set(self.data) <= set(BUILT_IN),
                f"the target {self.target!r} belongs to a CSV file, but the data is {', '.join(self.data)}; give the "
                "path of the file as data",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise al.ExperimentError(message)
        for start in self.starts:
            if not low <= start <= high:
                raise al.ExperimentError(
                    f"the start mu = {start:g} cannot be used; a penalty to start from must be positive and within the "
                    f"limits {low:g} and {high:g}"
                )
        check_search(self.search)
