"""Comparison of two backward rules: how far the gradient of an approximate one points from the exact one."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._argmin import certify, solve
from ._autodiff import entry
from ._backward import KKT, AbstractBackward
from ._bound import arrange
from ._errors import ProblemError
from ._layout import WORKING_DTYPE
from ._problem import Problem
from ._solution import Solution, Variables
from ._solver import AbstractSolver

VANISHING = 1e-12
"""A gradient shorter than this, against the other one, is rounding."""


@dataclass(frozen=True, eq=False)
class BackwardComparison:
    """How the gradient of one backward rule differs from that of another, for each instance; ``str`` is a report.

    The gradients are taken in all parameters of an instance together, also in those that the batch shares.

    Attributes:
        angle: between the two gradients, in degrees from 0 to 180, in the shape of the batch: below 90 a step against
            the one is a step downhill for the other. Zero where both vanish, NaN where one of them does, or where a
            rule gives no derivative.
        ratio: length of the rule's gradient over that of the reference, NaN where that vanishes.
        error: length of the difference over that of the reference, likewise.
        rule: the rule compared.
        reference: what it is compared with.
    """

    angle: Tensor
    ratio: Tensor
    error: Tensor
    rule: AbstractBackward
    reference: AbstractBackward

    def __str__(self) -> str:
        known = self.angle[~self.angle.isnan()]
        lines = [f"{self.rule} against {self.reference}, {self.angle.numel()} instances"]
        if known.numel():
            lines.append(f"angle in degrees   median {known.median():.3g}, largest {known.max():.3g}")
            uphill = int((known >= 90.0).sum())
            lines.append(f"uphill             {uphill} of {known.numel()} gradients point away by 90 degrees or more")
        if known.numel() < self.angle.numel():
            lines.append(f"no angle           {self.angle.numel() - known.numel()} instances")
        return "\n".join(lines)


@entry
def compare_backward(
    problem: Problem,
    *parameters: Any,
    backward: AbstractBackward,
    reference: AbstractBackward = KKT(),
    cotangent: Variables | None = None,
    solution: Solution | None = None,
    solver: str | AbstractSolver | None = None,
) -> BackwardComparison:
    """Compare the gradient of a backward rule with the exact one, at the same solution and for the same cotangent.

    For each instance let ``a = y_bar' Dy`` by the rule and ``b`` by the reference, over all of its parameters. The
    angle between them is ``2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||)``, accurate for small angles too.

    Args:
        problem: the problem.
        *parameters: as for :func:`argminlayer.solve`.
        backward: the rule, such as ``al.IgnoreConstraints()``.
        reference: what to compare it with.
        cotangent: derivative of a loss in the solution, in the shape of the solution; ones by default.
        solution: solved before; without it the problem is solved.
        solver: as for :func:`argminlayer.solve`.

    Raises:
        ProblemError: the cotangent does not fit the solution, or no parameter is a float.
        SolveFailed: never; an instance that is not solved has no angle.
    """
    layout, prepared = arrange(problem, parameters)
    # every instance gets parameters of its own, so that their gradients do not add up
    pairs = zip(prepared, layout.shared, strict=True)
    own = [p.detach().expand(layout.batch, *p.shape) if shared else p.detach() for p, shared in pairs]
    leaves = [p.clone().requires_grad_(p.is_floating_point()) for p in own]
    floats = [p for p in leaves if p.requires_grad]
    if not floats:
        raise ProblemError("there is nothing to compare: no parameter of the problem is a float")
    if solution is None:
        solution = solve(problem, *own, solver=solver, throw=False)
    value = layout.flatten(solution.iterate, "the solution").reshape(layout.batch, layout.size)
    weight = torch.ones_like(value) if cotangent is None else _cotangent(layout, cotangent)

    def gradient(rule: AbstractBackward) -> Tensor:
        found = certify(problem, layout.unflatten(value), *leaves, backward=rule, throw=False).value
        flat = layout.flatten(found, "the solution")
        pulled = torch.autograd.grad(flat, floats, weight.to(flat), materialize_grads=True)
        return torch.cat([g.reshape(layout.batch, -1) for g in pulled], dim=-1)

    one, other = (gradient(rule).to(WORKING_DTYPE) for rule in (backward, reference))
    angle, ratio, error = (t.reshape(layout.batch_shape) for t in _measures(one, other))
    return BackwardComparison(angle, ratio, error, backward, reference)


def _cotangent(layout: Any, cotangent: Variables) -> Tensor:
    flat: Tensor = layout.flatten(cotangent, "the cotangent")
    return flat.expand(*layout.batch_shape, layout.size).reshape(layout.batch, layout.size)


def _measures(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return angle in degrees, ratio of lengths and relative difference of the rows of two (batch, r)."""
    a, b = (torch.linalg.vector_norm(g, dim=-1) for g in (one, other))
    least = VANISHING * torch.maximum(a, b)
    a, b = torch.where(a > least, a, 0.0), torch.where(b > least, b, 0.0)
    unit, mark = one / a[:, None], other / b[:, None]
    apart, along = (torch.linalg.vector_norm(v, dim=-1) for v in (unit - mark, unit + mark))
    angle = 2.0 * torch.atan2(apart, along) * (180.0 / math.pi)
    angle = torch.where((a == 0) & (b == 0), 0.0, angle)
    angle = torch.where((a == 0) ^ (b == 0), torch.nan, angle)
    ratio, error = a / b, torch.linalg.vector_norm(one - other, dim=-1) / b
    return angle, torch.where(b > 0, ratio, torch.nan), torch.where(b > 0, error, torch.nan)
