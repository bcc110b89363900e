"""The figures: measures against epochs, and accuracy against confidence."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._report import label
from ._study import Study

COLOURS = {
    "none": "#222222",
    "l1-sphere": "#1f5fa8",
    "l1-ball": "#1f5fa8",
    "l2-sphere": "#d1662a",
    "l2-ball": "#d1662a",
    "linf-sphere": "#3a8f5c",
    "linf-ball": "#3a8f5c",
}
PANELS = (
    ("mean_average_precision", "mean average precision x100"),
    ("top1", "top-1 accuracy %"),
    ("top5", "top-5 accuracy %"),
    ("calibration_error", "calibration error %"),
)


def metrics_figure(study: Study) -> Figure:
    """Draw the measures on the validation images after every epoch; balls are dashed."""
    figure = Figure(figsize=(13.0, 4.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for model in study.models:
            values = [getattr(epoch.metrics, name) for epoch in model.epochs]
            style = "--" if model.name.endswith("ball") else "-"
            axes.plot(
                range(1, len(values) + 1),
                values,
                style,
                color=COLOURS[model.name],
                marker="o",
                markersize=3.0,
                linewidth=1.5,
                label=label(model.name) if name == "top1" else None,
            )
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def reliability_figure(study: Study) -> Figure:
    """Draw accuracy against confidence for every model; on the diagonal confidence is deserved."""
    figure = Figure(figsize=(2.6 * len(study.models), 3.0), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(study.models), squeeze=False)[0], study.models, strict=True):
        axes.plot([0, 1], [0, 1], color="#9aa3ad", linewidth=1.0)
        bins = model.reliability
        filled = [i for i, count in enumerate(bins.count) if count]
        axes.plot(
            [bins.confidence[i] for i in filled],
            [bins.accuracy[i] for i in filled],
            color=COLOURS[model.name],
            marker="o",
            markersize=4.0,
        )
        axes.set_title(f"{label(model.name)}\nerror {model.last.calibration_error:.2f} %", fontsize=9)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        _tidy(axes)
    return figure


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
