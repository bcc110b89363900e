"""ResNet-18, with a projection of the features before the last layer."""

import torch
from torch import Tensor, nn

from .._vectors import LpProjection


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the next stage."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18: a stem, four stages of two blocks, the mean over the image, a linear layer.

    Args:
        channels: of the images.
        classes: number of classes.
        width: channels of the first stage, 64 in the original; the features are eight times as many.
        small: whether images are below 64 pixels: then the stem keeps their size.
        projection: applied to the features after a batch norm without parameters; None for the plain network.
    """

    def __init__(self, channels: int, classes: int, width: int, small: bool, projection: LpProjection | None):
        super().__init__()
        self.stem = _stem(channels, width, small)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        blocks = [
            Block(sizes[i] if first else sizes[i + 1], sizes[i + 1], 2 if first and i > 0 else 1)
            for i in range(4)
            for first in (True, False)
        ]
        self.stages = nn.Sequential(*blocks)
        self.norm = None if projection is None else nn.BatchNorm1d(8 * width, affine=False)
        self.projection = projection
        self.classifier = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """Return the features (batch, 8 width) before any projection."""
        features: Tensor = self.stages(self.stem(images)).mean((-2, -1))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes, (batch, classes)."""
        features = self.features(images)
        if self.norm is not None and self.projection is not None:
            features = self.projection(self.norm(features))
        scores: Tensor = self.classifier(features)
        return scores


def _stem(channels: int, width: int, small: bool) -> nn.Sequential:
    if small:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
    return nn.Sequential(
        nn.Conv2d(channels, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    )
