"""The experiment's settings; everything heavy is imported when it runs."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import argminlayer as al

MODELS = {
    "none": None,
    "l1-sphere": (1.0, "sphere"),
    "l2-sphere": (2.0, "sphere"),
    "linf-sphere": (math.inf, "sphere"),
    "l1-ball": (1.0, "ball"),
    "l2-ball": (2.0, "ball"),
    "linf-ball": (math.inf, "ball"),
}
"""What the features are projected onto: p and kind."""

ModelName = Literal["none", "l1-sphere", "l2-sphere", "linf-sphere", "l1-ball", "l2-ball", "linf-ball"]


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ImageClassification(al.AbstractExperiment):
    """Classify images by a ResNet-18 whose features are projected onto an Lp sphere or ball before the last layer.

    The projection follows a batch norm without parameters. Its radius is 2/3 of the median norm of the features that
    the network without projection, trained first, has on the training images, after such a batch norm: about 250, 15
    and 3 for p = 1, 2 and infinity and 512 features. Top-1 and top-5 accuracy, mean average precision and the
    calibration of the confidence are measured on the validation images after every epoch.

    Reference: Gould, Hartley and Campbell, *Deep Declarative Networks*, sec. 7 and table 5; Pan, Wang and Zhou, *Deep
    Declarative Networks: Further Explorations*, sec. 4.2 and figure 3.

    Attributes: the settings, described in ``argminlayer run projection --help``.
    """

    name: ClassVar[str] = "projection"
    summary: ClassVar[str] = "project the features of an image classifier onto Lp spheres and balls"

    data: str = _setting(
        "digits",
        "digits (of scikit-learn), generated, or a folder: train/CLASS/IMAGE and val/CLASS/IMAGE as of ImageNet, or "
        "CLASS/IMAGE, of which a fifth is held out",
    )
    models: tuple[ModelName, ...] = _setting(
        tuple(MODELS), "what to project onto, none first: the radii are measured on it"
    )
    radii: tuple[float, float, float] | None = _setting(
        None, "radii for p = 1, 2 and infinity; None: 2/3 of the median norm of the features without projection"
    )
    width: int = _setting(64, "channels of the first stage; the features are eight times as many")
    size: int | None = _setting(None, "side of the images in pixels; None: 8 for digits, 16 generated, 224 of a folder")
    epochs: int = _setting(12, "passes over the training images; the rate falls by ten after each third")
    batch: int = _setting(64, "images of a step, of all processes together")
    rate: float = _setting(0.1, "learning rate at the beginning")
    momentum: float = _setting(0.9, "momentum of the steps")
    decay: float = _setting(1e-4, "weight decay")
    images: int = _setting(2000, "number of generated images")
    workers: int = _setting(0, "processes that read images of a folder")
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, mps, ...")
    checkpoints: Path | None = field(
        default=None, metadata={"help": "folder in which to save the training, and to go on from"}
    )
    seed: int = _setting(0, "seed of weights, of the order of images, and of what is held out or generated")

    def run(self, progress: al.Progress) -> al.Result:
        """Train and measure every model; see :class:`argminlayer.AbstractExperiment`.

        Raises:
            ExperimentError: a setting or the images cannot be used, or a package is missing.
        """
        self._check()
        from ._report import report
        from ._study import study

        return report(self, study(self, progress))

    def _check(self) -> None:
        requirements = (
            (bool(self.models), f"no model is named; give some of {', '.join(MODELS)}"),
            (len(set(self.models)) == len(self.models), f"a model is named twice: {', '.join(self.models)}"),
            (
                self.radii is not None or self.models[:1] == ("none",) or "none" not in self.models,
                "the model none must come first, because the radii of the others are measured on it",
            ),
            (
                self.radii is not None or "none" in self.models,
                "without the model none there is nothing to measure radii on; add it, or give the radii, for example "
                "250,15,3",
            ),
            (self.radii is None or min(self.radii) > 0, f"the radii are {self.radii}; they must be positive"),
            (self.width >= 1, f"width is {self.width}; a stage needs at least one channel"),
            (self.size is None or self.size >= 8, f"size is {self.size}; the network needs at least 8 pixels"),
            (self.epochs >= 1, f"epochs is {self.epochs}; give at least one"),
            (self.batch >= 2, f"batch is {self.batch}; a batch norm needs at least two images"),
            (0 < self.rate < math.inf, f"rate is {self.rate:g}; a learning rate must be positive and finite"),
            (self.images >= 40, f"images is {self.images}; generate at least 40"),
            (self.workers >= 0, f"workers is {self.workers}; it must not be negative"),
        )
        for holds, message in requirements:
            if not holds:
                raise al.ExperimentError(message)
