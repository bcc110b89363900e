"""The study: the plain network first, the radii from its features, then every projection."""

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import argminlayer as al

from .._vectors import LpProjection
from ._experiment import MODELS, ImageClassification
from ._images import Images, load
from ._metrics import Metrics, Reliability, reliability
from ._resnet import ResNet18
from ._training import Epoch, Trainer, processes


@dataclass(frozen=True)
class ModelStudy:
    """What became of one model.

    Attributes:
        name: of the model.
        radius: of its set, None for the plain network.
        parameters: how many are learned.
        epochs: loss and measures after every epoch.
        reliability: of the last epoch.
        affected: share of the validation images whose features the projection moves, in percent; None without one.
    """

    name: str
    radius: float | None
    parameters: int
    epochs: tuple[Epoch, ...]
    reliability: Reliability
    affected: float | None

    @property
    def last(self) -> Metrics:
        """The measures after the last epoch."""
        return self.epochs[-1].metrics


@dataclass(frozen=True)
class Study:
    """All models, and the radii for p = 1, 2 and infinity."""

    images: Images
    radii: tuple[float, float, float]
    models: tuple[ModelStudy, ...]


def study(settings: ImageClassification, progress: al.Progress) -> Study:
    """Train and measure every model.

    Raises:
        ExperimentError: the images, the device or the checkpoints cannot be used.
    """
    images = load(settings.data, settings.size, settings.images, settings.seed)
    with processes(settings.device) as device:
        radii, models = settings.radii, []
        for name in progress.track(settings.models, "models"):
            radius = None if MODELS[name] is None or radii is None else radii[_place(name)]
            network = build(settings, images, name, radius)
            trainer = Trainer(settings, images, device, name, progress)
            network, epochs = trainer.train(network)
            if name == "none" and radii is None:
                features = trainer.apply(network, network.features, images.train)[0]
                radii = rule(features)
                progress.log(f"radii: {', '.join(f'{r:.4g}' for r in radii)}")
            scores, labels = trainer.apply(network, network, images.validation)
            models.append(
                ModelStudy(
                    name=name,
                    radius=radius,
                    parameters=sum(p.numel() for p in network.parameters()),
                    epochs=epochs,
                    reliability=reliability(scores, labels),
                    affected=_affected(network, trainer),
                )
            )
    assert radii is not None
    return Study(images, radii, tuple(models))


def build(settings: ImageClassification, images: Images, name: str, radius: float | None) -> ResNet18:
    """Return a network with the weights that the seed gives, leaving torch's own random numbers alone."""
    kind, projection = MODELS[name], None
    if kind is not None and radius is not None:
        projection = LpProjection(kind[0], radius, kind[1])  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return ResNet18(images.channels, images.classes, settings.width, images.size < 64, projection)


def rule(features: Tensor) -> tuple[float, float, float]:
    """Return 2/3 of the median of the norms of features (images, n) after a batch norm, for p = 1, 2, infinity."""
    features = features.double()
    spread = (features.var(0, unbiased=False) + nn.BatchNorm1d(1).eps).sqrt()
    standard = (features - features.mean(0)) / spread
    norms = (torch.linalg.vector_norm(standard, p, dim=-1) for p in (1.0, 2.0, math.inf))
    one, two, infinity = (2.0 / 3.0 * statistics.median(norm.tolist()) for norm in norms)
    return one, two, infinity


def _place(name: str) -> int:
    kind = MODELS[name]
    assert kind is not None
    return {1.0: 0, 2.0: 1, math.inf: 2}[kind[0]]


def _affected(network: ResNet18, trainer: Trainer) -> float | None:
    """Return how many percent of the features of the validation images the projection moves; None without one."""
    projection, norm = network.projection, network.norm
    if projection is None or norm is None:
        return None
    features = trainer.apply(network, lambda x: norm(network.features(x)), trainer.images.validation)[0]
    moved = (projection(features) - features).abs().amax(-1) > 1e-6 * features.abs().amax(-1)
    return 100.0 * float(moved.double().mean())
