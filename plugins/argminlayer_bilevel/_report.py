"""What the experiment returns: records, tables, notes and figures."""

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import argminlayer as al

from ._errors import explained_imports
from ._experiment import RidgeCrossValidation
from ._search import Outcome, Trace
from ._study import Study, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAME_MU = 1e-4
"""Relative difference up to which two penalties count as the same minimum."""
_MEANING = {
    Outcome.LOWER_LIMIT: "the loss falls all the way to the smallest mu allowed: no penalty is best, and there is no "
    "optimum inside the limits",
    Outcome.UPPER_LIMIT: "the loss falls all the way to the largest mu allowed: shrinking to nothing is best, and "
    "there is no optimum inside the limits",
    Outcome.FLAT: "the hypergradient is exactly zero: the loss does not depend on mu, or starts too far out",
    Outcome.OUT_OF_SOLVES: "the search did not end within max_solves, and its result is no optimum: raise max_solves, "
    "change rate, or use the secant search",
}


def report(settings: RidgeCrossValidation, studies: Sequence[Study]) -> al.Result:
    """Return the result of the experiment."""
    return al.Result(
        records={study.data.name: _record(settings, study) for study in studies},
        tables=(*(_table(settings, study) for study in studies), *_variants_tables(settings, studies)),
        figures=_figures(studies),
        notes=tuple(_notes(settings, studies)),
    )


def digits(value: float) -> str:
    """Return a number with six digits, or one after the point where it is large."""
    return f"{value:.1f}" if 1e5 <= abs(value) < 1e9 else f"{value:#.6g}"


def penalty(trace: Trace) -> str:
    """Return where a search ended; a limit is a bound on the optimum, not its place."""
    sign = {Outcome.LOWER_LIMIT: "<= ", Outcome.UPPER_LIMIT: ">= "}.get(trace.outcome)
    return digits(trace.found.mu) if sign is None else f"{sign}{trace.found.mu:.3g}"


def _figures(studies: Sequence[Study]) -> dict[str, Any]:
    kinds = ("training", "validation")
    return {f"{study.data.name}-{kind}": functools.partial(_draw, kind, study) for study in studies for kind in kinds}


def _draw(kind: str, study: Study) -> "Figure":
    with explained_imports(f"the figure of the {kind} curve"):
        from . import _figures
    return {"training": _figures.training_figure, "validation": _figures.validation_figure}[kind](study)


def _record(settings: RidgeCrossValidation, study: Study) -> dict[str, Any]:
    published, grid = study.data.published, study.grid
    return {
        "rows": study.data.X.shape[0],
        "columns": study.data.X.shape[1],
        "folds": settings.folds,
        "normalisation": "mean" if study.per_sample else "sum",
        **_trace_record(study.main.best, settings.folds),
        "searches": [
            {**_trace_record(trace, settings.folds), "curve": _curve_record(trace)} for trace in study.main.traces
        ],
        "paper": None if published is None else {"mu": published.mu, "loss": published.loss},
        "grid": {
            "mu": float(grid.mu[grid.best]),
            "loss": float(grid.loss[grid.best]),
            "lower_solves": len(grid.mu),
            "fits": grid.fits,
            "factor": grid.factor,
        },
        "variants": [
            {"shuffle": v.shuffle, "intercept": v.intercept, **_trace_record(v.best, settings.folds)}
            for v in study.variants
        ],
    }


def _trace_record(trace: Trace, folds: int) -> dict[str, Any]:
    return {
        "mu": trace.found.mu,
        "loss": trace.found.loss,
        "hypergradient": trace.found.slope / trace.found.mu,
        "hypergradient_log": trace.found.slope,
        "outcome": str(trace.outcome),
        "start": trace.start,
        "lower_solves": len(trace.steps),
        "fits": len(trace.steps) * folds,
        "solver": trace.found.solver,
    }


def _curve_record(trace: Trace) -> dict[str, list[float]]:
    return {
        "mu": [step.mu for step in trace.steps],
        "loss": [step.loss for step in trace.steps],
        "hypergradient_log": [step.slope for step in trace.steps],
    }


def _table(settings: RidgeCrossValidation, study: Study) -> al.Table:
    published, grid = study.data.published, study.grid
    columns = ("method", "mu", "loss", "lower solves", "ridge fits", "dJ/dlog mu", "ended at")
    rows = [
        (
            f"{settings.search}, from {trace.start:g}",
            penalty(trace),
            digits(trace.found.loss),
            str(len(trace.steps)),
            str(len(trace.steps) * settings.folds),
            f"{trace.found.slope:.1e}",
            str(trace.outcome),
        )
        for trace in study.main.traces
    ]
    best = (digits(float(grid.mu[grid.best])), digits(float(grid.loss[grid.best])))
    rows.append(("grid search", *best, str(len(grid.mu)), str(grid.fits), "-", f"grid step x{grid.factor:.2f}"))
    if published is not None:
        rows.append(("paper", f"{published.mu:g}", f"{published.loss:g}", published.iterations, "-", "-", "as printed"))
    return al.Table(f"{study.data.name}: {_setup(settings, study)}", columns, tuple(rows))


def _setup(settings: RidgeCrossValidation, study: Study) -> str:
    X = study.data.X
    return (
        f"{X.shape[0]} rows, {X.shape[1]} columns, {settings.folds} {_cut(study.main)} folds, "
        f"{'an' if settings.intercept else 'no'} intercept, loss {'per sample' if study.per_sample else 'summed'}"
    )


def _cut(variant: Variant) -> str:
    return "shuffled" if variant.shuffle else "contiguous"


def _variants_tables(settings: RidgeCrossValidation, studies: Sequence[Study]) -> Iterable[al.Table]:
    if not settings.variants:
        return
    columns = ("data", "folds", "intercept", "mu", "loss", "lower solves", "ended at")
    rows = tuple(
        (
            study.data.name,
            _cut(variant),
            "yes" if variant.intercept else "no",
            penalty(variant.best),
            digits(variant.best.found.loss),
            " + ".join(str(len(trace.steps)) for trace in variant.traces),
            str(variant.best.outcome),
        )
        for study in studies
        for variant in study.variants
    )
    yield al.Table(f"What the splits and the intercept change (seed {settings.seed})", columns, rows)


def _notes(settings: RidgeCrossValidation, studies: Sequence[Study]) -> Iterable[str]:
    solvers = sorted({trace.found.solver for study in studies for trace in study.main.traces})
    yield (
        f"One lower solve is one forward pass of the argmin node, all {settings.folds} fits by "
        f"{' and '.join(solvers)}. The grid search fits scikit-learn's Ridge on each fold for each penalty."
    )
    for study in studies:
        yield from _endings(study)
        yield from _what_proper_splits_change(study)
        if study.data.published is not None and _is_the_recipe(settings):
            yield f"{study.data.name}: {_REPRODUCED[study.data.name]}"


def _is_the_recipe(settings: RidgeCrossValidation) -> bool:
    plain = settings.folds == 5 and settings.normalisation == "paper"
    return plain and not (settings.shuffle or settings.intercept)


def _endings(study: Study) -> Iterable[str]:
    name, main, grid = study.data.name, study.main, study.grid
    for outcome, meaning in _MEANING.items():
        starts = [f"{trace.start:g}" for trace in main.traces if trace.outcome == outcome]
        if starts:
            yield f"{name}, from {' and '.join(starts)}: {meaning}."
    minima = [trace.found.mu for trace in main.traces if trace.outcome == Outcome.MINIMUM]
    if minima and max(minima) > min(minima) * (1.0 + _SAME_MU):
        yield f"{name}: the starts lead to different minima; the one with the lowest loss is reported."
    if grid.loss[grid.best] < main.best.found.loss * (1.0 - 1e-9):
        yield (
            f"{name}: the grid search has a lower loss, at mu = {grid.mu[grid.best]:.4g}. What was found is a local "
            "minimum, or no minimum; add that mu to the starts."
        )


def _what_proper_splits_change(study: Study) -> Iterable[str]:
    if study.data.published is None or not study.variants:
        return
    best = {(v.shuffle, v.intercept): v.best for v in study.variants}
    recipe, proper = best[False, False], best[True, True]
    yield (
        f"{study.data.name}: shuffled folds and an intercept change the penalty from {penalty(recipe)} to "
        f"{penalty(proper)}, and the loss from {digits(recipe.found.loss)} to {digits(proper.found.loss)}. The large "
        f"penalty is an artefact of the paper's recipe: {_ARTEFACT[study.data.name]}."
    )


_REPRODUCED = {
    "iris": "the paper's loss is reproduced with each fold's sum of squares divided by the fold's size, 30; summed, as "
    "its equation 6 is written, the optimum is the same and the loss 30 times as large.",
    "diabetes": "the paper's mu is reproduced to 0.02%, as by a descent stopped a little early; its loss of 0.901 is "
    "not. By its own equation 6 the loss at that mu is 1203053.9, and 13607.6 divided by the sizes of the folds. For "
    "0.901 the target would have to be divided by about 1155 (or 123), which the paper does not say.",
}
_ARTEFACT = {
    "iris": "the file is sorted by class, so that a contiguous fold is all or mostly of one class; and without an "
    "intercept the columns, which have mean zero over the whole table, must make up for the mean of the target",
    "diabetes": "without an intercept the columns, which have mean zero over the whole table, are fitted to the mean "
    "of the target, 152, which they cannot predict; a large penalty keeps them from it",
}
