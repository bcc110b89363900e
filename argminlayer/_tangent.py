"""Tangent active constraints: the multipliers of largest curvature, which alone tell how the solution moves."""

import torch

from ._bound import BoundProblem
from ._certificate import EXACT, KKTPoint, measure
from ._measures import largest, smallest
from ._redundancy import CANCELLED, bend, combinations, curvature_sign


def settle(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    """Return the point with the multipliers of largest curvature where inequalities are tangent but curve apart.

    There the multipliers are ``lambda + s c`` for an interval of s, with c the combination of gradients that cancels.
    The directional derivative of the solution minimises, over the tangent directions, the maximum of the curvature
    ``d' H(lambda + s c) d`` over s. When the Hessian of ``c'g`` is semidefinite on the tangent space, one end of the
    interval attains it for all d: the constraint that curves most holds alone, the one it hides becomes weakly active.

    Only instances with one such combination, of inequalities, are settled.

    Reference: Bonnans and Shapiro, *Perturbation analysis of optimization problems*, sec. 5.2.
    """
    single = (point.system.redundant == 1) & (point.certificate.consistent.logical_not())
    if not bool(single.any()):
        return point
    lam = point.lam
    for weights in combinations(point.system):
        nu, c = weights
        left, size = bend(bound, point.z, point.system, weights)
        sign = curvature_sign(bound, point.z, point.system, weights)
        c = c * sign[:, None]
        # how far s may grow until a multiplier vanishes
        falling = c < -CANCELLED * largest(c)[:, None]
        room = smallest(torch.where(falling, lam / torch.where(falling, -c, 1.0), torch.inf))
        fit = single & (nu == 0).all(-1) & (left > CANCELLED * size) & (sign != 0) & room.isfinite()
        step = torch.where(fit, room, 0.0)[:, None] * c
        moved = torch.where(falling & (lam + step <= EXACT * largest(lam)[:, None]), 0.0, lam + step)
        lam = torch.where(fit[:, None], moved, lam)
    trial = measure(bound, point.z, point.nu, lam, accuracy=EXACT)
    better = (trial.residual <= torch.maximum(point.residual, torch.full_like(point.residual, EXACT)))[:, None]
    return measure(bound, point.z, point.nu, torch.where(better, lam, point.lam), accuracy=EXACT)
