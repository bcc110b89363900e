"""Parameters that cannot be pooled, in words."""

import math

import torch
from torch import Tensor

import argminlayer as al


def unusable(
    x: Tensor, weights: Tensor | None, alpha: Tensor, batch: torch.Size, throw: bool, cores: int = 1
) -> Tensor | None:
    """Return which instances of the flattened batch cannot be pooled, (rows,), None when all can.

    Args:
        x: points, the last ``cores`` dimensions of one instance.
        weights: (..., n) or None.
        alpha: (...).
        batch: what the leading dimensions broadcast to.
        throw: raise instead.
        cores: number of dimensions of an instance of ``x``.

    Raises:
        ProblemError: there are no points; with ``throw``, something that is not finite, alpha or weights that are not
            positive: what, where, and what would be right.
    """
    if x.shape[-1] == 0:
        raise al.ProblemError(f"an empty pool: an input of shape {tuple(x.shape)} has no points")
    bad = [_not_finite(x, cores, "the input", throw)]
    if alpha.ndim or not 0.0 < alpha.item() < math.inf:
        said = "alpha is not positive: it is {0:g}; a distance such as 1 would do"
        bad += [_not_finite(alpha, 0, "alpha", throw), _reported(~(alpha > 0), alpha, said, throw)]
    if weights is not None:
        least, total = weights.amin(-1), weights.sum(-1)
        bad += [
            _not_finite(weights, 1, "the weights", throw),
            _reported(least < 0, least, "weights must not be negative, but one is {0:g}", throw),
            _reported(total <= 0, total, "an empty pool: all weights are zero; weigh a point, or leave it out", throw),
        ]
    found = [items.broadcast_to(batch).flatten() for items in bad if items is not None]
    return torch.stack(found).any(0) if found else None


def _not_finite(values: Tensor, cores: int, what: str, throw: bool) -> Tensor | None:
    """Return the items that are not finite; a sum that is finite says quickly that there are none."""
    if math.isfinite(values.sum().item()):
        return None
    wrong = ~values.isfinite()
    items = wrong.flatten(values.ndim - cores).any(-1) if cores else wrong
    if not bool(items.any()):
        return None
    if throw:
        at = tuple(items.nonzero()[0].tolist())
        kind = "nan" if bool(values[at].isnan().any()) else "inf"
        raise al.ProblemError(
            f"{what} is not finite: {int(items.sum())} of {items.numel()} items hold nan or inf, the first{_place(at)} "
            f"({kind}). Clean the input, or pass throw=False to get NaN for these items only"
        )
    return items


def _reported(items: Tensor, values: Tensor, message: str, throw: bool) -> Tensor | None:
    if not bool(items.any()):
        return None
    if throw:
        at = tuple(items.nonzero()[0].tolist())
        raise al.ProblemError(message.format(values[at].item()) + _place(at, " (batch index {0})"))
    return items


def _place(at: tuple[int, ...], words: str = " at batch index {0}") -> str:
    return words.format(at) if at else ""
