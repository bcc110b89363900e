"""Which systems a backward rule solves where slack and multiplier both vanish, or the solution is not isolated."""

from collections.abc import Callable

import torch
from torch import Tensor

from .._backward import KKT
from .._proximal import Proximal
from ._programs import AnySystem
from ._system import Steps


def ruled(rule: KKT, system: Callable[[bool, float], AnySystem], top: Tensor, bottom: Tensor) -> Steps:
    """Solve the systems that a rule asks for."""
    weak_active = rule.degenerate != "inactive"
    first = system(weak_active, 0.0)
    steps = first.solve(top, bottom)
    if bool(first.faces.weak.any()):
        if rule.degenerate == "average" or bool(steps.missed.any()):
            other = system(not weak_active, 0.0).solve(top, bottom)
            steps = _mean(steps, other) if rule.degenerate == "average" else _first(steps, other)
    if not bool(steps.missed.any()) or rule.singular == "raise":
        return steps
    if isinstance(rule.singular, Proximal):
        shifted = system(weak_active, rule.singular.delta).solve(top, bottom)
        steps = _first(steps, shifted)
    return steps._replace(missed=torch.zeros_like(steps.missed))


def _first(one: Steps, other: Steps) -> Steps:
    """Return what one system solves, and what the other solves where the one does not."""
    wide = one.missed[:, None]
    return Steps(torch.where(wide, other.a, one.a), torch.where(wide, other.e, one.e), one.missed & other.missed)


def _mean(one: Steps, other: Steps) -> Steps:
    mean = Steps(0.5 * (one.a + other.a), 0.5 * (one.e + other.e), one.missed & other.missed)
    alone, its = one.missed[:, None], other.missed[:, None]
    a, e = (
        torch.where(alone, second, torch.where(its, first, both))
        for first, second, both in zip(one[:2], other[:2], mean[:2], strict=True)
    )
    return Steps(a, e, mean.missed)
