"""Refinement of a point: Newton steps on the KKT conditions, from a solver's accuracy to rounding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._certificate import EXACT, KKTPoint, measure
from ._tangent import settle

CONVERGED = 1e-12
"""A point whose estimated error and residual are below this is not refined any further."""
REACH = 1e-2
"""Refinement that would move a point further than this, over ``1 + |u|``, is no refinement and is not done."""
ROUNDS = 4
"""Newton steps of a refinement, at most."""


def refine(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    """Take Newton steps on the KKT conditions where they reduce the residual and stay near; return the last point.

    Solvers stop at 1e-6 or 1e-8; from there a step or two reach rounding, and the derivative is that of the exact
    solution. An instance that would move far is left where it is; among multipliers that are not unique those are taken
    that the derivative belongs to. What looked weakly active at the solver's accuracy is
    tried as inactive, too, and looked at again at the accuracy reached.
    """
    best = settle(bound, _newton(bound, point))
    if not bool((point.certificate.weakly_active > 0).any()):
        return best
    other = _newton(bound, measure(bound, *_state(point), accuracy=0.0))
    better = (point.certificate.weakly_active > 0) & (10.0 * _total(other) + CONVERGED < _total(best))
    return combine(bound, better, other, best)


def combine(bound: BoundProblem, where: Tensor, new: KKTPoint, old: KKTPoint) -> KKTPoint:
    """Return ``new`` for the instances in the mask ``where`` (batch,), ``old`` for the others, measured again."""
    return measure(bound, *_where(where, _state(new), _state(old)), accuracy=EXACT)


def _newton(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    for _ in range(ROUNDS):
        wanted = _refinable(point)
        if not bool(wanted.any()):
            return point
        moved = _where(wanted, [old + step for old, step in zip(_state(point), point.step, strict=True)], _state(point))
        trial = measure(bound, *moved, accuracy=EXACT)
        better = wanted & (_total(trial) < _total(point))
        if bool((better == wanted).all()):
            point = trial
        elif not bool(better.any()):
            return point
        else:
            return combine(bound, better, trial, point)
    return point


def _refinable(point: KKTPoint) -> Tensor:
    error = point.certificate.error
    # multipliers may be less accurate than the point, of which alone the error is
    return ((error > CONVERGED) | (point.residual > CONVERGED)) & (error < REACH)


def _state(point: KKTPoint) -> tuple[Tensor, Tensor, Tensor]:
    return point.z, point.nu, point.lam


def _where(mask: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    z, nu, lam = (torch.where(mask[:, None], a, b) for a, b in zip(new, old, strict=True))
    return z, nu, lam


def _total(point: KKTPoint) -> Tensor:
    return point.residual + torch.nan_to_num(point.certificate.error, nan=torch.inf, posinf=1e300)
