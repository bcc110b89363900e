"""Where solvers begin: the caller's starts, or points inside the bounds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._errors import ProblemError
from ._solution import Solution

DEFAULT_STARTS = 4
"""Starts tried, one after the other on what is left unsolved, when the caller gives none."""


def start_points(bound: BoundProblem, start: Any) -> list[Tensor]:
    """Return the caller's starts as flat tensors (batch, n), inside the bounds.

    Args:
        bound: the problem.
        start: as for :class:`argminlayer.Problem`, or a :class:`argminlayer.Solution` to go on from.

    Raises:
        ProblemError: wrong shape, NaN or infinite values, or an empty list.
    """
    starts = start if isinstance(start, list) else [start]
    if not starts:
        raise ProblemError("the list of starts is empty; give at least one, or None for the default")
    return [_clip(bound, _one(bound, s)) for s in starts]


def _one(bound: BoundProblem, start: Any) -> Tensor:
    with torch.no_grad():
        if callable(start):
            functions = bound.functions
            flat = functions.batched(lambda *x: functions.start_one(start, *x), None, bound.parameters)
        else:
            given = start.iterate if isinstance(start, Solution) else start
            flat = flat_value(bound, given, "the start")
    if not bool(flat.isfinite().all()):
        raise ProblemError("the start has NaN or infinite entries; give a finite point, or None for the default")
    return flat.contiguous()


def flat_value(bound: BoundProblem, value: Any, what: str) -> Tensor:
    """Return variables in the caller's shape, broadcast to the batch, as a flat detached tensor (batch, n).

    Raises:
        ProblemError: the shapes do not fit; ``what`` names the value.
    """
    flat = bound.layout.flatten(value, what).detach()
    shape = bound.layout.batch_shape + flat.shape[-1:]
    try:
        return flat.expand(shape).reshape(bound.batch, bound.size)
    except RuntimeError as error:
        raise ProblemError(
            f"{what} has leading dimensions {tuple(flat.shape[:-1])}, which do not broadcast to the batch "
            f"{tuple(bound.layout.batch_shape)}"
        ) from error


def default_starts(bound: BoundProblem) -> list[Tensor]:
    """Return starts for a problem that has none: the middle of the bounds, one inside a single bound, else zero.

    The others add fixed quasi-random offsets of growing size: at zero the gradient of many constraints vanishes
    (``u'u = 1``), and a symmetric point may be a saddle.
    """
    lower, upper = bound.lower, bound.upper
    both = lower.isfinite() & upper.isfinite()
    middle = torch.where(both, 0.5 * (lower + upper), torch.zeros_like(lower))
    middle = torch.where(lower.isfinite() & ~both, lower + 1.0, middle)
    middle = torch.where(upper.isfinite() & ~both, upper - 1.0, middle)
    index = torch.arange(1, bound.size + 1, dtype=lower.dtype, device=lower.device)
    offsets = [scale * torch.sin(seed * index) for seed, scale in _OFFSETS[: DEFAULT_STARTS - 1]]
    width = torch.where(both, 0.5 * (upper - lower), torch.ones_like(lower))
    return [_clip(bound, middle), *(_clip(bound, middle + width * offset) for offset in offsets)]


_OFFSETS: Sequence[tuple[float, float]] = ((1.7, 0.7), (-2.9, 0.9), (4.3, 3.0))


def _clip(bound: BoundProblem, start: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(start, bound.lower), bound.upper)
