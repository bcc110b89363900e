"""What the kernels of robust pooling are given."""

from typing import Protocol

import torch
from torch import Tensor


class Pools(Protocol):
    """Points of some pools, as the structure's owner gives them.

    Attributes:
        penalty: its name.
        shape: of Barron's penalty.
        x: points (rows, n), or vectors (rows, m, n).
        weights: (rows, n) or None.
        alpha: (rows,).
    """

    @property
    def penalty(self) -> str: ...
    @property
    def shape(self) -> float: ...
    @property
    def x(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor | None: ...
    @property
    def alpha(self) -> Tensor: ...


def wide(x: Tensor) -> torch.dtype:
    """Return the precision in which kernels compute."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def given(pools: Pools) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors that every kernel begins with: points, weights (or points, not read) and alpha."""
    x, weights = pools.x, pools.weights
    assert x.is_contiguous()
    assert weights is None or weights.is_contiguous()
    return x, x if weights is None else weights, pools.alpha.to(wide(x)).contiguous()
