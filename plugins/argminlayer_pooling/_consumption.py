"""The experiment ``consumption``: time and memory of the forward and the backward pass of every pooling."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import argminlayer as al

from ._classification import setting
from ._penalties import NAMES, check_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ._measure import Cost

PUBLISHED_SIZES = (7, 14, 28, 56, 112)
PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "quadratic": ((0.29, 0.86, 1.6, 5.0, 19.0), (0.06, 0.09, 0.20, 0.94, 2.9)),
    "pseudo-huber": ((1.9, 3.3, 5.1, 25.0, 76.0), (0.16, 0.33, 0.83, 3.9, 16.0)),
    "huber": ((2.6, 6.9, 11.0, 40.0, 181.0), (0.16, 0.32, 1.1, 4.0, 20.0)),
    "welsch": ((6.6, 7.1, 12.0, 49.0, 173.0), (0.22, 0.38, 1.1, 4.8, 19.0)),
    "truncated-quadratic": ((17.0, 29.0, 77.0, 196.0, 470.0), (0.18, 0.41, 1.2, 4.6, 18.0)),
}
"""Milliseconds of the reference implementation (ddn, commit a20a31f), numbers, one thread: forward and backward."""


@dataclass(frozen=True)
class Consumption(al.AbstractExperiment):
    """Measure time and peak memory of pooling square maps of features, forward and backward, for every penalty.

    As figure 6 of Pan, Wang and Zhou, *Deep Declarative Networks: Further Explorations*: 128 channels, one item. Where
    numbers are pooled, what is known of the reference implementation on another machine is drawn beside.

    Attributes: the settings, described in ``argminlayer run consumption --help``.
    """

    name: ClassVar[str] = "consumption"
    summary: ClassVar[str] = "time and memory of robust pooling, forward and backward, by penalty and size"

    penalties: tuple[str, ...] = setting(tuple(PUBLISHED), "penalties")
    kind: Literal["numbers", "vectors"] = setting("numbers", "pool every channel, or all channels as one vector")
    sizes: tuple[int, ...] = setting(PUBLISHED_SIZES, "sides of the maps")
    channels: int = setting(128, "channels")
    alpha: float = setting(1.0, "scale of the penalties")
    repeats: int = setting(5, "repetitions, of which the median counts")
    threads: int = setting(1, "threads of torch")
    device: str = setting("cpu", "device as torch names it: cpu, cuda, ...")
    seed: int = setting(0, "seed of the features")

    def run(self, progress: al.Progress) -> al.Result:
        """Measure; see :class:`argminlayer.AbstractExperiment`.

        Raises:
            ExperimentError: a setting or the device cannot be used.
        """
        self._check()
        from ._measure import measure

        cases = [(penalty, size) for penalty in self.penalties for size in self.sizes]
        costs = [measure(self, penalty, size) for penalty, size in progress.track(cases, "penalties and sizes")]
        return al.Result(
            records={"costs": [_record(cost) for cost in costs]},
            tables=(_table(self, costs),),
            figures={"consumption": functools.partial(_draw, self, costs)},
            notes=(
                f"Milliseconds, medians of {self.repeats}, {self.threads} thread(s) on {self.device}; peak of the "
                "memory allocated beside the input, in its size. In brackets the reference implementation, measured on "
                "another machine: compare trends, not digits.",
            ),
        )

    def _check(self) -> None:
        for name in self.penalties:
            check_name(name)
        requirements = (
            (bool(self.penalties), f"no penalty is named; give one or more of {', '.join(NAMES)}"),
            (bool(self.sizes) and min(self.sizes) >= 1, f"sizes is {self.sizes}; give at least one, each at least 1"),
            (self.channels >= 1, f"channels is {self.channels}; it must be at least 1"),
            (self.alpha > 0.0, f"alpha is {self.alpha:g}; it must be positive"),
            (self.repeats >= 1, f"repeats is {self.repeats}; it must be at least 1"),
            (self.threads >= 1, f"threads is {self.threads}; it must be at least 1"),
        )
        for holds, message in requirements:
            if not holds:
                raise al.ExperimentError(message)


def _record(cost: "Cost") -> dict[str, Any]:
    return {
        "penalty": cost.penalty,
        "size": cost.size,
        "seconds": {"forward": cost.forward, "backward": cost.backward},
        "memory": {"forward": cost.forward_memory, "backward": cost.backward_memory},
    }


def _table(settings: Consumption, costs: "Sequence[Cost]") -> al.Table:
    rows = []
    for cost in costs:
        published = _published(settings, cost)
        beside = f" ({published[0]:g} / {published[1]:g})" if published else ""
        rows.append(
            (
                cost.penalty,
                f"{cost.size}x{cost.size}",
                f"{1e3 * cost.forward:.3g} / {1e3 * cost.backward:.3g}{beside}",
                f"{cost.forward_memory:.2f} / {cost.backward_memory:.2f}",
            )
        )
    columns = ("penalty", "map", "ms forward / backward", "memory forward / backward")
    return al.Table(f"{settings.kind}, {settings.channels} channels, one item, float32", columns, tuple(rows))


def _published(settings: Consumption, cost: "Cost") -> tuple[float, float] | None:
    known = settings.kind == "numbers" and cost.penalty in PUBLISHED and cost.size in PUBLISHED_SIZES
    if not known:
        return None
    forward, backward = PUBLISHED[cost.penalty]
    index = PUBLISHED_SIZES.index(cost.size)
    return forward[index], backward[index]


def _draw(settings: Consumption, costs: "Sequence[Cost]") -> "Figure":
    from ._missing import explained_imports

    with explained_imports("the figure of the consumption"):
        from ._consumption_figure import consumption
    return consumption(settings, costs)
