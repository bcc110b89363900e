"""Kinks: points at which a gradient jumps, where no derivative that torch returns says how the solution moves."""

from dataclasses import replace

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._certificate import KKTPoint
from ._measures import finite, largest

NEAR, NEARER = 1e-7, 1e-9
"""Distances over ``1 + |u|`` across which the gradient is compared."""
JUMP = 1e-6
"""Smallest jump that counts, over the size of the gradients of objective and constraints."""


def find_kinks(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    """Return the point with the instances marked whose objective or active constraints have a kink at it.

    The gradient of the Lagrangian is compared on both sides of the point along a generic direction within the bounds.
    A smooth one differs a hundred times less across a hundredth of the distance, one that jumps by the same amount.
    Jumps of the second derivative, such as those of a Huber penalty, are no kinks: each side's is a valid one.

    Only problems with operations that may have a kink are looked at.
    """
    if not bound.kinks or bound.batch == 0:
        return point
    near, nearer = (_jump(bound, point, distance) for distance in (NEAR, NEARER))
    size = torch.stack([largest(bound.gradient(point.z)[1]), *(largest(p) for p in _pulls(bound, point))]).amax(0)
    smooth = ~((nearer > 0.5 * near) & (nearer > JUMP * size))
    certificate = replace(point.certificate, smooth=smooth, regular=point.certificate.regular & smooth)
    return replace(point, certificate=certificate)


def _jump(bound: BoundProblem, point: KKTPoint, distance: float) -> Tensor:
    """Return how much the gradient of the Lagrangian changes from one side of the point to the other, (batch,)."""
    z, active = point.z, point.system.active
    index = torch.arange(1, bound.size + 1, dtype=z.dtype, device=z.device)
    step = distance * (1.0 + largest(z))[:, None] * (torch.sin(12.9898 * index) + 0.1)
    step = torch.where(active.fixed, 0.0, step)
    sides = (torch.minimum(torch.maximum(t, bound.lower), bound.upper) for t in (z + step, z - step))
    one, other = (_slope(bound, point, t) for t in sides)
    return largest(finite(one - other))


def _slope(bound: BoundProblem, point: KKTPoint, z: Tensor) -> Tensor:
    with torch.no_grad():
        return bound.functions.slope(z, point.nu, point.lam, bound.parameters)


def _pulls(bound: BoundProblem, point: KKTPoint) -> tuple[Tensor, ...]:
    _, A, G = point.matrices
    return A.pull(point.nu), G.pull(point.lam)
