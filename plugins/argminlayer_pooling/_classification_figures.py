"""The figures of the experiment ``pooling``: training curves, accuracy against outliers, confusion."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._classification import PointClouds
from ._classification_report import SHORT
from ._study import Study

COLOURS = ("#6b6b6b", "#1f5fa8", "#d1662a", "#3a8f5c", "#8a4fa3", "#a8324a", "#b59a1a", "#2a8f9a")


def training(settings: PointClouds, study: Study) -> Figure:
    """Draw loss, accuracy and average precision by epoch, for the largest fraction of outliers in training.

    As figure 2 of Pan, Wang and Zhou, *Deep Declarative Networks: Further Explorations*.
    """
    fraction = max(settings.training)
    figure = Figure(figsize=(12.0, 4.0), layout="constrained")
    kinds = ("loss", "accuracy", "average_precision")
    for axes, kind, title in zip(
        figure.subplots(1, 3), kinds, ("training loss", "test accuracy", "test mAP"), strict=True
    ):
        for pool, colour in zip(settings.pools, COLOURS, strict=False):
            values = [getattr(epoch, kind) for epoch in study.outcome(pool, fraction).epochs]
            axes.plot(range(1, len(values) + 1), values, color=colour, marker="o", markersize=3.0, label=SHORT[pool])
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=11)
        _tidy(axes)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"{study.data.name}: {100 * fraction:g} % outliers in training and testing", fontsize=12)
    return figure


def outliers(settings: PointClouds, study: Study) -> Figure:
    """Draw accuracy and average precision against the fraction of outliers, for training without any."""
    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    for axes, kind, title in zip(
        figure.subplots(1, 2), ("accuracy", "average_precision"), ("top-1 accuracy", "mAP"), strict=True
    ):
        for pool, colour in zip(settings.pools, COLOURS, strict=False):
            scores = study.outcome(pool, 0.0).scores
            values = [getattr(score, kind) for score in scores.values()]
            axes.plot([100 * f for f in scores], values, color=colour, marker="o", markersize=4.0, label=SHORT[pool])
        axes.set_xlabel("outliers in the test set, %")
        axes.set_ylabel(title)
        axes.set_ylim(0.0, 1.02)
        _tidy(axes)
    figure.axes[0].legend(frameon=False)
    figure.suptitle(f"{study.data.name}: no outliers in training", fontsize=12)
    return figure


def confusion(settings: PointClouds, study: Study) -> Figure:
    """Draw which classes are taken for which, for every pooling, with outliers that no network was trained with."""
    from sklearn.metrics import confusion_matrix

    tested = [f for f in settings.testing if f > 0.0] or list(settings.testing)
    fraction = min(tested, key=lambda f: abs(f - 0.3))
    figure = Figure(figsize=(3.2 * len(settings.pools), 3.8), layout="constrained")
    classes = range(len(study.data.classes))
    for axes, pool in zip(figure.subplots(1, len(settings.pools), squeeze=False)[0], settings.pools, strict=True):
        score = study.outcome(pool, 0.0).scores[fraction]
        found = confusion_matrix(score.labels, score.probabilities.argmax(1), labels=classes, normalize="true")
        axes.imshow(found, cmap="Blues", vmin=0.0, vmax=1.0)
        axes.set_title(f"{SHORT[pool]}: {100 * score.accuracy:.0f} %", fontsize=11)
        axes.set_xlabel("predicted")
        if len(study.data.classes) <= 20:
            axes.set_xticks(classes, study.data.classes, rotation=90, fontsize=7)
            axes.set_yticks(classes, study.data.classes if axes is figure.axes[0] else [], fontsize=7)
    figure.suptitle(
        f"{study.data.name}: no outliers in training, {100 * fraction:g} % in the test set; rows are the true classes",
        fontsize=12,
    )
    return figure


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
