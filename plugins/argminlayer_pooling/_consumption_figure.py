"""The figure of the experiment ``consumption``."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._consumption import PUBLISHED, PUBLISHED_SIZES, Consumption
from ._measure import Cost

COLOURS = ("#1f5fa8", "#d1662a", "#3a8f5c", "#8a4fa3", "#a8324a", "#b59a1a", "#2a8f9a")


def consumption(settings: Consumption, costs: Sequence[Cost]) -> Figure:
    """Draw time above and memory below, forward on the left and backward on the right; dashed: the reference."""
    figure = Figure(figsize=(10.0, 7.6), layout="constrained")
    panels = figure.subplots(2, 2)
    for penalty, colour in zip(settings.penalties, COLOURS, strict=False):
        some = [cost for cost in costs if cost.penalty == penalty]
        sizes = [cost.size for cost in some]
        for column, part in enumerate(("forward", "backward")):
            style = {"color": colour, "marker": "o", "markersize": 4.0}
            panels[0, column].plot(sizes, [1e3 * getattr(cost, part) for cost in some], label=penalty, **style)
            panels[1, column].plot(sizes, [getattr(cost, f"{part}_memory") for cost in some], **style)
            if settings.kind == "numbers" and penalty in PUBLISHED:
                panels[0, column].plot(
                    PUBLISHED_SIZES, PUBLISHED[penalty][column], color=colour, linestyle="--", linewidth=0.9
                )
            panels[0, column].set_title(part, fontsize=11)
    panels[0, 0].legend(frameon=False, fontsize=9)
    panels[0, 0].set_ylabel("milliseconds")
    panels[1, 0].set_ylabel("peak memory beside the input, over its size")
    for axes in panels[0]:
        axes.set_yscale("log")
    for axes in panels.flat:
        axes.set_xscale("log", base=2)
        axes.set_xticks(settings.sizes, [str(size) for size in settings.sizes])
        axes.set_xlabel("side of the map")
        _tidy(axes)
    note = "; dashed: the reference, on another machine" if settings.kind == "numbers" else ""
    figure.suptitle(f"Pooling of {settings.kind}, {settings.channels} channels, one item{note}", fontsize=12)
    return figure


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
