"""Rows of points to be pooled, each on its own; worked through in blocks that stay in the cache."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1 << 18
"""Points worked on at a time on a CPU: a few rows with their temporaries fit into the cache of a core."""
SMALL = 1 << 16
"""Points that are not worked on in parts to save memory."""
BLOCK_ON_GPU = 1 << 26
"""Points worked on at a time on any other device: enough to fill it, few enough for its memory."""


@dataclass(frozen=True)
class Rows:
    """Points of several pools, all finite.

    Attributes:
        x: (rows, n), or vectors (rows, m, n).
        weights: nonnegative, of positive sum in each row, (rows, n), or None for ones.
        alpha: scale of the penalty, positive, (rows, 1), in double precision.
    """

    x: Tensor
    weights: Tensor | None
    alpha: Tensor

    def __getitem__(self, index: slice | Tensor) -> "Rows":
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[index]
        return Rows(self.x[index], weights, self.alpha[index])

    def without(self, bad: Tensor) -> "Rows":
        """Return the rows with harmless ones in place of the bad, (rows,), so that the others keep their places."""
        weights = None if self.weights is None else self.weights.masked_fill(bad[:, None], 1.0)
        where = bad.reshape(-1, *[1] * (self.x.ndim - 1))
        return Rows(self.x.masked_fill(where, 0.0), weights, self.alpha.masked_fill(bad[:, None], 1.0))

    def double(self) -> "Rows":
        """Return the rows in double precision."""
        return Rows(self.x.double(), None if self.weights is None else self.weights.double(), self.alpha)

    def wide(self) -> "Rows":
        """Return the rows in single precision, if that of the points is less."""
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        return Rows(self.x.to(dtype), None if self.weights is None else self.weights.to(dtype), self.alpha)

    @property
    def total(self) -> Tensor:
        """Sum of the weights of each row, (rows,), double."""
        if self.weights is None:
            return torch.full_like(self.alpha[:, 0], self.x.shape[-1])
        return self.weights.sum(-1, dtype=torch.float64)

    @functools.cached_property
    def unit(self) -> Tensor:
        """``1 / alpha`` in the precision of the points, (rows, 1)."""
        return self.alpha.reciprocal().clamp_(max=torch.finfo(self.x.dtype).max).to(self.x.dtype)

    def residuals(self, u: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``(x - u) / alpha`` for one ``u`` in each row, (rows,), rounded to the precision of the points."""
        return torch.sub(self.x, u[:, None].to(self.x.dtype), out=out).mul_(self.unit)

    def clamp(self, u: Tensor) -> Tensor:
        """Return ``u`` (rows,) within the range of the points, out of which only rounding leads."""
        return u.clamp(self.x.amin(-1), self.x.amax(-1))

    def blocks(self, parts: int = 1) -> Iterator[tuple[slice, "Rows"]]:
        """Yield the rows in blocks, each with where it is; in so many parts at least, unless they would be small."""
        count, each = len(self.x), self.x.shape[1:].numel()
        most = BLOCK if self.x.device.type == "cpu" else BLOCK_ON_GPU
        size = max(1, min(most, max(SMALL, count * each // parts)) // each)
        for first in range(0, count, size):
            where = slice(first, min(first + size, count))
            yield where, self[where]


def sort_rows(rows: Rows) -> Rows:
    """Return the rows sorted by their points, weights with them. On a CPU NumPy sorts many times faster than torch."""
    if rows.weights is not None:
        x, order = rows.x.sort(-1)
        return Rows(x, rows.weights.gather(-1, order), rows.alpha)
    if rows.x.device.type != "cpu":
        return Rows(rows.x.sort(-1).values, None, rows.alpha)
    import numpy as np

    return Rows(torch.from_numpy(np.sort(rows.x.numpy(), axis=-1)), None, rows.alpha)
