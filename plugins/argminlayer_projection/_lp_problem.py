"""Projections onto Lp spheres and balls as ordinary problems, written so that their solutions are regular points.

The norms of p = 1 and p = infinity have corners where their projections lie. The nearest point has the signs of x and,
on a sphere around x with p = infinity, sits at the limit of one known coordinate; with these written as bounds the rest
is linear, the solution is the same, and so is its derivative.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ._scaling import nearest_limit


def conditions(p: float, ball: bool, weighted: bool) -> dict[str, Any]:
    """Return the constraints, bounds and start of the problem, as arguments of :class:`argminlayer.Problem`."""
    del weighted
    if math.isinf(p):
        side = functools.partial(_limit, ball)
        return {"lower": functools.partial(side, -1.0), "upper": functools.partial(side, 1.0)}
    kind = "inequality" if ball else "equality"
    if p == 1:
        return {
            kind: _signed_sum,
            "lower": functools.partial(_orthant, -1.0),
            "upper": functools.partial(_orthant, 1.0),
            "start": _middle_of_the_facet,
        }
    starts = [functools.partial(_radial, p)] + ([functools.partial(_vertex, p)] if p > 2 and not ball else [])
    return {kind: functools.partial(_norm, p), "start": starts}


def _signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _signed_sum(u: Tensor, x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    return (w * _signs(x) * u).sum() - r


def _orthant(side: float, x: Tensor, r: Tensor, *w: Tensor) -> Tensor:
    """Return the lower (side -1) or upper (side 1) bounds of the orthant of x."""
    return torch.where(_signs(x) == side, side * torch.inf, 0.0).to(x.dtype)


def _middle_of_the_facet(x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    return _signs(x) * (r / (w * x.shape[-1]))


def _norm(p: float, u: Tensor, x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    ratio = u / r
    power = ratio.square() if p == 2 else ratio.abs() ** p  # the second derivative of |.| at zero is no number
    return ((w * power).sum() - 1.0) * (r / p)


def _radial(p: float, x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    filled = torch.where(x.abs().sum() > 0, x, torch.ones_like(x))
    return filled * (r / (w * filled.abs() ** p).sum() ** (1.0 / p))


def _vertex(p: float, x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    """Return the vertex on the axis of the largest entry, slightly moved so that no gradient vanishes."""
    first = torch.nn.functional.one_hot(x.abs().argmax(), x.shape[-1]).to(x.dtype)
    return _radial(p, _signs(x) * (first + 1e-3), r, w)


def _limit(ball: bool, side: float, x: Tensor, r: Tensor, w: Tensor | float = 1.0) -> Tensor:
    """Return the lower (side -1) or upper (side 1) bounds of the box, moved to one face for a sphere around x."""
    limit = (r / w) * torch.ones_like(x)
    if ball:
        return side * limit
    spare = limit - x.abs()
    nearest = torch.nn.functional.one_hot(nearest_limit(limit, x.abs()), x.shape[-1]).to(torch.bool)
    return torch.where(nearest & (spare > 0).all(), _signs(x) * limit, side * limit)
