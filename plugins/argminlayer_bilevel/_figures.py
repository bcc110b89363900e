"""The figures: training curves as in the paper's figures 4 and 5, and the validation curve."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._report import digits, penalty
from ._search import Outcome, Trace
from ._study import Study

COLOURS = ("#1f5fa8", "#d1662a", "#3a8f5c", "#8a4fa3", "#a8324a", "#6b6b6b")
GRID_COLOUR = "#9aa3ad"
INK = "#222222"


def training_figure(study: Study) -> Figure:
    """Draw loss and hypergradient against the lower solves, one curve for each start."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    loss_axes, slope_axes = figure.subplots(1, 2)
    for trace, colour in zip(study.main.traces, _colours(study), strict=True):
        count = np.arange(1, len(trace.steps) + 1)
        style = {"color": colour, "marker": "o", "markersize": 4.0, "linewidth": 1.6}
        label = f"from $\\mu$ = {trace.start:g}: {len(trace.steps)} lower solves"
        loss_axes.plot(count, [step.loss for step in trace.steps], label=label, **style)
        relative = np.array([abs(step.slope) / (step.loss or 1.0) for step in trace.steps])
        slope_axes.plot(count, np.where(relative > 0, relative, np.nan), **style)
    best = study.main.best
    loss_axes.axhline(best.found.loss, color=INK, linestyle=":", linewidth=1.2, label=_found_label(best))
    loss_axes.set_ylabel("validation loss $J$")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    slope_axes.set_yscale("log")
    slope_axes.set_ylabel(r"relative hypergradient $|dJ/d\log\mu|\,/\,J$")
    for axes in (loss_axes, slope_axes):
        axes.set_xlabel("lower solve (all folds)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axes)
    figure.suptitle(f"{study.data.name}: training curves of the ridge penalty", fontsize=12)
    return figure


def validation_figure(study: Study) -> Figure:
    """Draw the validation loss against mu: the grid, the points the searches visited, and the optimum found."""
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.subplots()
    grid, best = study.grid, study.main.best
    label = f"grid search: {len(grid.mu)} lower solves, best $\\mu$ = {grid.mu[grid.best]:.4g}"
    axes.plot(grid.mu, grid.loss, color=GRID_COLOUR, marker=".", markersize=5.0, linewidth=1.0, label=label, zorder=1)
    for trace, colour in zip(study.main.traces, _colours(study), strict=True):
        mu, loss = [step.mu for step in trace.steps], [step.loss for step in trace.steps]
        label = f"search from $\\mu$ = {trace.start:g}: {len(mu)} lower solves"
        axes.plot(
            mu,
            loss,
            linestyle="none",
            marker="o",
            markersize=7.0,
            color=colour,
            markeredgecolor="white",
            label=label,
            zorder=2,
        )
        axes.plot(mu[0], loss[0], marker="o", markersize=12.0, fillstyle="none", color=colour, zorder=2)
    axes.plot(
        best.found.mu,
        best.found.loss,
        label=_found_label(best),
        linestyle="none",
        marker="*",
        markersize=15.0,
        color=INK,
        zorder=3,
    )
    if study.data.published is not None:
        published = study.data.published.mu
        label = f"the paper's $\\mu$ = {published:g}"
        axes.axvline(published, color=INK, linestyle="--", linewidth=0.9, label=label, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel(r"penalty $\mu$")
    axes.set_ylabel("validation loss $J$")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(f"{study.data.name}: validation curve (circled: the starts)", fontsize=12)
    _tidy(axes)
    return figure


def _colours(study: Study) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(study.main.traces))]


def _found_label(trace: Trace) -> str:
    what = "optimum" if trace.outcome == Outcome.MINIMUM else str(trace.outcome)
    return f"{what}: $\\mu$ = {penalty(trace)}, $J$ = {digits(trace.found.loss)}"


def _tidy(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
