"""Derivative programs recorded once and replayed: the operations without autograd, without torch.vmap, simplified.

The second time a program is asked for with the same shapes it is recorded, by running it on proxies; constants are
folded, factors collected, operations that change nothing dropped, and what is left becomes one straight-line function.
It stands for the original as long as its :class:`Guard` holds, and must first reproduce the original's result. Programs
that depend on data, write in place or draw random numbers are run as they are.
"""

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ._autodiff import derivative_wanted
from ._guard import CannotWatch, Guard
from ._problem import Problem
from ._simplify import straight_line

Program = Callable[..., tuple[Tensor, ...]]

AGREEMENT = 1e-11
"""Relative deviation of a replay from the original that rounding explains."""
ENTRIES = 32
"""Programs kept for one problem; with more shapes than that the oldest are forgotten."""


@dataclass(frozen=True)
class _Recording:
    """A recorded program with what it depends on; without a program the original is run."""

    program: Program | None
    guard: Guard


class Replays:
    """Recorded programs, by problem and by what else they are for."""

    def __init__(self) -> None:
        self._entries: weakref.WeakKeyDictionary[Problem, dict[Hashable, _Recording | None]]
        self._entries = weakref.WeakKeyDictionary()

    def run(self, problem: Problem, key: Hashable, program: Program, inputs: tuple[Tensor, ...], fresh: int) -> Any:
        """Return ``program(*inputs)``, replayed if it was recorded, recorded if it was run before.

        Args:
            problem: whose functions the program calls; besides them it depends on the inputs and the key alone.
            key: what the program is, with everything but its inputs' shapes.
            program: tensors to tensors, without side effects.
            inputs: its arguments.
            fresh: how many of the last inputs may be returned as they are; no result shares memory with the others.
        """
        if derivative_wanted():
            return program(*inputs)
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        full = (key, shapes, torch.get_default_dtype())
        entries = self._entries.setdefault(problem, {})
        if full not in entries:
            entries[full] = None
            if len(entries) > ENTRIES:
                del entries[next(iter(entries))]
            return program(*inputs)
        found = entries[full]
        if found is None or not found.guard.holds():
            result = program(*inputs)
            entries[full] = _record(problem, program, inputs, fresh, result)
            return result
        return program(*inputs) if found.program is None else found.program(*inputs)


REPLAYS = Replays()


def _record(
    problem: Problem, program: Program, inputs: tuple[Tensor, ...], fresh: int, expected: tuple[Tensor, ...]
) -> _Recording:
    functions = (problem.objective, problem.equality, problem.inequality, problem.lower, problem.upper)
    try:
        guard = Guard.of(function for function in functions if callable(function))
    except CannotWatch:
        return _Recording(None, Guard(()))
    try:
        replay = straight_line(make_fx(program)(*inputs), len(inputs) - fresh)
        agrees = all(_close(new, old) for new, old in zip(replay(*inputs), expected, strict=True))
    except Exception:  # noqa: BLE001 - whatever cannot be recorded runs as it is, and tells its own errors
        return _Recording(None, guard)
    return _Recording(replay if agrees else None, guard)


def _close(new: Tensor, old: Tensor) -> bool:
    return new.shape == old.shape and bool(((new - old).abs().amax() <= AGREEMENT * (old.abs().amax() + 1e-300)).all())
