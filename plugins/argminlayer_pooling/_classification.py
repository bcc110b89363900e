"""The experiment ``pooling``: its settings; everything heavy is imported when it runs."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import argminlayer as al

from ._penalties import NAMES, check_name

POOLS = ("max", "quadratic", "pseudo-huber", "huber", "welsch", "truncated-quadratic")


def setting(default: Any, help: str) -> Any:
    """Return the field of a setting with its default and what it is."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PointClouds(al.AbstractExperiment):
    """Classify point clouds with outliers by PointNet, with max pooling and with each robust pooling.

    Tables 3 and 4 of Gould, Hartley and Campbell: networks trained without outliers, or with a fraction of them, are
    tested with fractions of outliers, points uniform in the unit ball that replace others. Without ``--data`` the
    clouds are generated: surfaces of twelve kinds of solids. The networks are narrower than the paper's by default, so
    that the whole runs on one core of a CPU in some minutes.

    Under torchrun each network is trained by all processes, on its share of every batch.

    Attributes: the settings, described in ``argminlayer run pooling --help``.
    """

    name: ClassVar[str] = "pooling"
    summary: ClassVar[str] = "classify point clouds with outliers: max pooling against robust pooling in PointNet"

    data: Path | None = field(
        default=None, metadata={"help": "folder or ZIP of ModelNet40 (HDF5 or OFF); generated shapes if not given"}
    )
    pools: tuple[str, ...] = setting(POOLS, "what is compared: max, or penalties")
    training: tuple[float, ...] = setting((0.0, 0.5), "fractions of outliers that networks train with")
    testing: tuple[float, ...] = setting(
        (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "fractions of outliers that networks are tested with"
    )
    alpha: float = setting(1.0, "scale of the penalties")
    train_size: int = setting(1200, "generated clouds to train on")
    test_size: int = setting(480, "generated clouds to test on")
    points: int = setting(256, "points of a cloud")
    widths: tuple[int, ...] = setting((64, 128, 256), "channels of the perceptron of a point; the last are pooled")
    epochs: int = setting(8, "passes over the training set")
    batch: int = setting(32, "clouds in a step")
    rate: float = setting(3e-3, "learning rate of Adam at the start")
    device: str = setting("cpu", "device as torch names it: cpu, cuda, ...")
    checkpoints: Path | None = field(
        default=None, metadata={"help": "folder of checkpoints, to go on from where a run stopped"}
    )
    seed: int = setting(0, "seed of data, weights, order and outliers")

    def run(self, progress: al.Progress) -> al.Result:
        """Train and test all networks; see :class:`argminlayer.AbstractExperiment`.

        Raises:
            ExperimentError: a setting, the data or a checkpoint cannot be used, or an optional package is missing.
        """
        self._check()
        from ._classification_report import report
        from ._missing import explained_imports
        from ._study import study

        with explained_imports("the mean average precision"):
            import sklearn.metrics  # noqa: F401 - to fail before the training, not after it
        return report(self, study(self, progress))

    def _check(self) -> None:
        for name in self.pools:
            if name != "max":
                check_name(name)
        fractions = (*self.training, *self.testing)
        requirements = (
            (bool(self.pools), f"no pooling is named; give max, or penalties such as {NAMES[1]}"),
            (
                bool(self.training) and bool(self.testing) and all(0.0 <= f < 1.0 for f in fractions),
                f"training and testing are {self.training} and {self.testing}; fractions of outliers are at least 0 "
                "and below 1, and each list needs one",
            ),
            (self.alpha > 0.0, f"alpha is {self.alpha:g}; it must be positive"),
            (
                min(self.train_size, self.test_size) >= 12,
                f"train_size and test_size are {self.train_size} and {self.test_size}; there are twelve classes, so at "
                "least 12 clouds are needed",
            ),
            (self.points >= 2, f"points is {self.points}; a cloud needs at least 2"),
            (
                bool(self.widths) and min(self.widths) >= 2,
                f"widths is {self.widths}; give the channels of at least one layer, each at least 2",
            ),
            (self.epochs >= 1, f"epochs is {self.epochs}; it must be at least 1"),
            (self.batch >= 2, f"batch is {self.batch}; batch normalisation needs at least 2 clouds"),
            (self.rate > 0.0, f"rate is {self.rate:g}; a learning rate must be positive"),
        )
        for holds, message in requirements:
            if not holds:
                raise al.ExperimentError(message)


def processes() -> int:
    """Return how many processes torchrun started, one without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
