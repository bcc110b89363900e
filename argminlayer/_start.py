"""Where solvers begin: the caller's starts, or points inside the bounds."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._errors import ProblemError
from ._functions import Functions
from ._layout import Layout
from ._solution import Solution

DEFAULT_STARTS = 4
"""Starts tried, one after the other on what is left unsolved, when the caller gives none."""


Starts = tuple[Callable[..., Any] | int, ...]
"""Starts as functions of the parameters, or as positions among given tensors."""


def read_starts(layout: Layout, start: Any) -> tuple[Starts | None, tuple[Tensor, ...]]:
    """Return the caller's starts, None for the default, and the tensors (batch, n) that they refer to.

    Args:
        layout: shapes and batch.
        start: as for :class:`argminlayer.Problem`, or a :class:`argminlayer.Solution` to go on from.

    Raises:
        ProblemError: wrong shape, or an empty list.
    """
    if start is None:
        return None, ()
    listed = start if isinstance(start, list) else [start]
    if not listed:
        raise ProblemError("the list of starts is empty; give at least one, or None for the default")
    starts: list[Callable[..., Any] | int] = []
    given: list[Tensor] = []
    for one in listed:
        if callable(one):
            starts.append(one)
        else:
            starts.append(len(given))
            given.append(flat_value(layout, one.iterate if isinstance(one, Solution) else one, "the start"))
    return tuple(starts), tuple(given)


def flat_value(layout: Layout, value: Any, what: str) -> Tensor:
    """Return variables in the caller's shape, broadcast to the batch, as a flat tensor (batch, n).

    Raises:
        ProblemError: the shapes do not fit; ``what`` names the value.
    """
    flat = layout.flatten(value, what)
    try:
        return flat.expand(layout.batch_shape + flat.shape[-1:]).reshape(layout.batch, layout.size)
    except RuntimeError as error:
        raise ProblemError(
            f"{what} has leading dimensions {tuple(flat.shape[:-1])}, which do not broadcast to the batch "
            f"{tuple(layout.batch_shape)}"
        ) from error


def first_start(bound: BoundProblem) -> Tensor:
    """Return where a solver would begin with nothing but the problem, (batch, n)."""
    starts, given = read_starts(bound.layout, bound.problem.start)
    return default_starts(bound)[0] if starts is None else start_points(bound, starts, given)[0]


def start_points(bound: BoundProblem, starts: Starts, given: tuple[Tensor, ...]) -> list[Tensor]:
    """Return starts as points (batch, n) inside the bounds.

    Raises:
        ProblemError: NaN or infinite entries.
    """
    return [_clip(bound, _point(bound, start, given)) for start in starts]


def _point(bound: BoundProblem, start: Callable[..., Any] | int, given: tuple[Tensor, ...]) -> Tensor:
    flat = given[start] if isinstance(start, int) else _called(bound, start)
    if not bool(flat.isfinite().all()):
        raise ProblemError("the start has NaN or infinite entries; give a finite point, or None for the default")
    return flat.contiguous()


def _called(bound: BoundProblem, start: Callable[..., Any]) -> Tensor:
    """Return a start given as a function, instance by instance: it is called once, and may branch on its data."""
    functions = Functions(bound.problem, bound.layout, mapped=False)
    try:
        return functions.batched(functools.partial(functions.start_one, start), None, bound.parameters)
    except ProblemError:
        raise
    except Exception as error:
        raise ProblemError(
            f"the start raised {type(error).__name__}: {error}. It is called as (*parameters) with core shapes"
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
