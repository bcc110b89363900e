"""What is done with one data set: the searches, the grid search, and the variants of the folds and the model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import argminlayer as al

from ._data import DataSet
from ._experiment import RidgeCrossValidation
from ._grid import GridSearch, grid_search
from ._ridge import CrossValidation, split_rows
from ._search import Outcome, Rules, Trace, search


@dataclass(frozen=True)
class Variant:
    """The searches with one way of cutting folds, with or without an intercept."""

    shuffle: bool
    intercept: bool
    traces: tuple[Trace, ...]

    @property
    def best(self) -> Trace:
        """The search that found the lowest loss; one that did not end by itself only if none did."""
        return min(self.traces, key=lambda t: (t.outcome in (Outcome.FLAT, Outcome.OUT_OF_SOLVES), t.found.loss))

    @property
    def solves(self) -> int:
        """Lower solves of all searches."""
        return sum(len(trace.steps) for trace in self.traces)


@dataclass(frozen=True)
class Study:
    """Everything found about one data set.

    Attributes:
        data: the data set.
        per_sample: whether the loss of a fold is divided by its size.
        main: the searches with the settings of the experiment.
        grid: the grid search with the same settings.
        variants: all four ways to cut folds and to fit, ``main`` among them; empty when not asked for.
    """

    data: DataSet
    per_sample: bool
    main: Variant
    grid: GridSearch
    variants: tuple[Variant, ...]


def study(settings: RidgeCrossValidation, data: DataSet, progress: al.Progress) -> Study:
    """Run everything on one data set.

    Raises:
        ExperimentError: there are fewer rows than folds, or a fit fails.
    """
    per_sample = data.per_sample if settings.normalisation == "paper" else settings.normalisation == "mean"
    splits = split_rows(data, settings.folds, settings.shuffle, settings.seed)
    main = _searches(settings, data, per_sample, progress)
    grid = grid_search(
        data, splits, settings.grid, intercept=settings.intercept, per_sample=per_sample, progress=progress
    )
    variants = tuple(
        main if one == settings else _searches(one, data, per_sample, progress) for one in _variants(settings)
    )
    return Study(data, per_sample, main, grid, variants)


def _variants(settings: RidgeCrossValidation) -> Iterator[RidgeCrossValidation]:
    choices = (False, True) if settings.variants else ()
    return (replace(settings, shuffle=shuffle, intercept=intercept) for intercept in choices for shuffle in choices)


def _searches(settings: RidgeCrossValidation, data: DataSet, per_sample: bool, progress: al.Progress) -> Variant:
    splits = split_rows(data, settings.folds, settings.shuffle, settings.seed)
    solver = None if settings.solver == "auto" else settings.solver
    problem = CrossValidation.of(data, splits, intercept=settings.intercept, per_sample=per_sample, solver=solver)
    rules = Rules(settings.limits, settings.tolerance, settings.max_solves, settings.rate)
    traces = tuple(
        search(settings.search, problem.evaluate, start, rules)
        for start in progress.track(settings.starts, f"{data.name}: {_described(settings)}")
    )
    return Variant(settings.shuffle, settings.intercept, traces)


def _described(settings: RidgeCrossValidation) -> str:
    folds = "shuffled" if settings.shuffle else "contiguous"
    return f"{folds} folds, {'an' if settings.intercept else 'no'} intercept"
