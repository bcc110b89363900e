"""PointNet with the pooling of one's choice, and outliers for its input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._layers import RobustPool


class MaxPool(nn.Module):
    """The largest feature over all points, PointNet's own pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., channels) of (..., channels, points)."""
        return x.amax(-1)


class PointNet(nn.Module):
    """A perceptron for each point, one pooling over the points, and a perceptron for the cloud.

    Args:
        classes: number of classes.
        pool: ``"max"`` or the name of a penalty.
        alpha: of the penalty, not learned.
        widths: channels of the perceptron of a point, of which the last are pooled.

    Reference: Qi, Su, Mo and Guibas, *PointNet*, 2017, without the transformer nets, as in Gould, Hartley and Campbell.
    """

    def __init__(self, classes: int, pool: str, alpha: float, widths: Sequence[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv1d(before, after, 1, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.points = nn.Sequential(*layers[:-1])  # what is pooled has both signs and unit variance
        self.pool = MaxPool() if pool == "max" else RobustPool(pool, alpha, -1, learnable=False)
        width = widths[-1] // 2
        self.cloud = nn.Sequential(
            nn.Linear(widths[-1], width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes)
        )

    def forward(self, clouds: Tensor) -> Tensor:
        """Return logits (batch, classes) of clouds (batch, points, 3)."""
        logits: Tensor = self.cloud(self.pool(self.points(clouds.mT)))
        return logits


def with_outliers(clouds: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return the clouds with a fraction of their points replaced by points uniform in the unit ball."""
    batch, n, _ = clouds.shape
    count = round(fraction * n)
    if count == 0:
        return clouds
    direction = torch.randn(batch, count, 3, generator=generator)
    radius = torch.rand(batch, count, 1, generator=generator) ** (1.0 / 3.0)
    ball = direction / direction.norm(dim=-1, keepdim=True) * radius
    # which points are replaced does not matter: their order does not
    return torch.cat([ball.to(clouds), clouds[:, count:]], 1)
