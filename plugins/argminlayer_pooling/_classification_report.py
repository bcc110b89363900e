"""What the experiment ``pooling`` returns: records, tables in the paper's form, notes and figures."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import argminlayer as al

from ._classification import PointClouds
from ._missing import explained_imports
from ._study import Outcome, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = {
    "max": "max",
    "quadratic": "Q",
    "pseudo-huber": "PH",
    "huber": "H",
    "welsch": "W",
    "truncated-quadratic": "TQ",
    "geman-mcclure": "GM",
    "barron": "B",
}
"""Names of the poolings in the paper's tables."""


def report(settings: PointClouds, study: Study) -> al.Result:
    """Return the result of the experiment."""
    clean, same = 0.0 in settings.training, any(settings.training)
    tables = [_table(settings, study, "no outliers in training", settings.testing, False)] if clean else []
    tables += [_table(settings, study, "as many outliers in training", settings.training, True)] if same else []
    return al.Result(
        records={
            "data": study.data.name,
            "classes": list(study.data.classes),
            "train_clouds": len(study.data.train.labels),
            "test_clouds": len(study.data.test.labels),
            "networks": [_record(outcome) for outcome in study.outcomes],
        },
        tables=tuple(tables),
        figures=_figures(settings, study),
        notes=tuple(_notes(settings, study)),
    )


def _record(outcome: Outcome) -> dict[str, Any]:
    return {
        "pool": outcome.plan.pool,
        "training_outliers": outcome.plan.outliers,
        "epochs": [vars(epoch) for epoch in outcome.epochs],
        "tests": [
            {"outliers": fraction, "accuracy": score.accuracy, "average_precision": score.average_precision}
            for fraction, score in outcome.scores.items()
        ],
    }


def _table(settings: PointClouds, study: Study, title: str, fractions: Sequence[float], same: bool) -> al.Table:
    """Return accuracy and average precision of every pooling, a row for each fraction of outliers in the test set."""
    short = [SHORT[pool] for pool in settings.pools]
    columns = ("outliers %", *(f"{name} acc %" for name in short), *(f"{name} mAP" for name in short))
    rows = []
    for fraction in fractions:
        scores = [study.outcome(pool, fraction if same else 0.0).scores.get(fraction) for pool in settings.pools]
        cells = [f"{100.0 * s.accuracy:.1f}" if s else "-" for s in scores]
        cells += [f"{100.0 * s.average_precision:.1f}" if s else "-" for s in scores]
        rows.append((f"{100.0 * fraction:g}", *cells))
    return al.Table(f"{study.data.name}, {title}", columns, tuple(rows))


def _notes(settings: PointClouds, study: Study) -> Iterable[str]:
    yield (
        f"{len(study.data.train.labels)} clouds to train on and {len(study.data.test.labels)} to test on, of "
        f"{settings.points} points and {len(study.data.classes)} classes; alpha = {settings.alpha:g}, seed "
        f"{settings.seed}. Outliers are uniform in the unit ball and replace other points. mAP is the mean average "
        "precision, times 100."
    )
    clean = [pool for pool in settings.pools if 0.0 in settings.training]
    middle = [f for f in settings.testing if 0.2 <= f <= 0.5]
    if "max" in clean and len(clean) > 1 and middle:
        means = {pool: sum(study.outcome(pool, 0.0).scores[f].accuracy for f in middle) / len(middle) for pool in clean}
        best = max((pool for pool in clean if pool != "max"), key=means.__getitem__)
        yield (
            f"Trained without outliers and tested with {100 * min(middle):g} to {100 * max(middle):g} % of them, the "
            f"mean accuracy is {100 * means['max']:.1f} % with max pooling and {100 * means[best]:.1f} % with {best}."
        )


def _figures(settings: PointClouds, study: Study) -> "dict[str, Callable[[], Figure]]":
    figures: dict[str, Callable[[], Figure]] = {"training": functools.partial(_draw, "training", settings, study)}
    if 0.0 in settings.training:
        figures["outliers"] = functools.partial(_draw, "outliers", settings, study)
        figures["confusion"] = functools.partial(_draw, "confusion", settings, study)
    return figures


def _draw(kind: str, settings: PointClouds, study: Study) -> "Figure":
    with explained_imports(f"the figure {kind!r}"):
        from . import _classification_figures as figures
    drawers = {"training": figures.training, "outliers": figures.outliers, "confusion": figures.confusion}
    return drawers[kind](settings, study)
