"""What the experiment returns: records, the table in the form of the paper's, notes and figures."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import argminlayer as al

from ._experiment import MODELS, ImageClassification
from ._study import ModelStudy, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = {
    "none": (69.80, 89.26, 58.97),
    "l1-sphere": (69.92, 89.38, 62.72),
    "l2-sphere": (70.66, 89.60, 71.97),
    "linf-sphere": (70.03, 89.22, 63.98),
    "l1-ball": (70.17, 89.47, 61.26),
    "l2-ball": (70.59, 89.70, 72.43),
    "linf-ball": (70.06, 89.29, 63.33),
}
"""Top-1, top-5 and mean average precision that Gould et al., table 5, print for ImageNet."""


def label(name: str) -> str:
    """Return what the paper calls a model."""
    kind = MODELS[name]
    return "ResNet-18" if kind is None else f"ResNet-18-L{'∞' if kind[0] > 2 else f'{kind[0]:g}'} {kind[1].title()}"


def report(settings: ImageClassification, study: Study) -> al.Result:
    """Return the result of the experiment."""
    return al.Result(
        records={
            "radii": {"l1": study.radii[0], "l2": study.radii[1], "linf": study.radii[2]},
            "classes": study.images.classes,
            "images": {"train": _length(study.images.train), "validation": _length(study.images.validation)},
            "models": {model.name: _record(model) for model in study.models},
        },
        tables=(_table(settings, study),),
        figures={
            "metrics": functools.partial(_draw, "metrics", study),
            "reliability": functools.partial(_draw, "reliability", study),
        },
        notes=tuple(_notes(settings, study)),
    )


def _length(images: Any) -> int:
    return len(images)


def _record(model: ModelStudy) -> dict[str, Any]:
    return {
        "radius": model.radius,
        "parameters": model.parameters,
        **dataclasses.asdict(model.last),
        "affected": model.affected,
        "epochs": [{"loss": e.loss, **dataclasses.asdict(e.metrics)} for e in model.epochs],
        "reliability": dataclasses.asdict(model.reliability),
        "paper": dict(zip(("top1", "top5", "mean_average_precision"), PUBLISHED[model.name], strict=True)),
    }


def _table(settings: ImageClassification, study: Study) -> al.Table:
    columns = (
        "model",
        "radius",
        "top-1 acc. %",
        "top-5 acc. %",
        "mAP x100",
        "calibration error %",
        "log loss",
        "moved %",
        "paper, ImageNet",
    )
    rows = []
    for model in study.models:
        last = model.last
        rows.append(
            (
                label(model.name),
                "-" if model.radius is None else f"{model.radius:.4g}",
                f"{last.top1:.2f}",
                f"{last.top5:.2f}",
                f"{last.mean_average_precision:.2f}",
                f"{last.calibration_error:.2f}",
                f"{last.log_loss:.4f}",
                "-" if model.affected is None else f"{model.affected:.0f}",
                " / ".join(f"{value:.2f}" for value in PUBLISHED[model.name]),
            )
        )
    title = (
        f"{settings.data}: {_length(study.images.train)} images to train on, {_length(study.images.validation)} to "
        f"validate with, {study.images.classes} classes, {settings.epochs} epochs"
    )
    return al.Table(title, columns, tuple(rows))


def _notes(settings: ImageClassification, study: Study) -> Iterable[str]:
    yield (
        "Average precision is that of each class against all others, ranked by probability, and its mean is over "
        "classes; the calibration error is over 15 bins of confidence. 'moved' says how many of the validation "
        "images have features that the projection changes."
    )
    if settings.radii is None:
        yield (
            "The radii are 2/3 of the median norm of the features of the plain network on the training images after a "
            f"batch norm: {', '.join(f'{r:.4g}' for r in study.radii)}. The paper's, for 512 features of ImageNet, are "
            "250, 15 and 3."
        )
    if settings.data in ("digits", "generated"):
        yield (
            "These images are no substitute for ImageNet: with few classes and small networks differences of a percent "
            "are within what another seed changes. Give a folder with --data for the experiment of the paper."
        )


def _draw(which: str, study: Study) -> "Figure":
    from . import _figures

    return {"metrics": _figures.metrics_figure, "reliability": _figures.reliability_figure}[which](study)
