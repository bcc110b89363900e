"""Fixed numbers."""

from typing import Any

import torch
from torch import Tensor


def normal(seed: int, *shape: int) -> Tensor:
    """Return fixed normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(seed: int, *shape: int) -> Tensor:
    """Return fixed numbers in (0.5, 1.5)."""
    return 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definite(seed: int, n: int, *batch: int) -> Tensor:
    """Return fixed positive definite matrices."""
    root = normal(seed, *batch, n, n)
    return root @ root.mT / n + torch.eye(n, dtype=torch.float64)


def values(*numbers: Any) -> Tensor:
    """Return numbers as float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def eye(n: int) -> Tensor:
    """Return the identity."""
    return torch.eye(n, dtype=torch.float64)


def symmetric(matrix: Tensor) -> Tensor:
    """Return the symmetric part."""
    return 0.5 * (matrix + matrix.mT)
