"""The sphere and ball of p = 2 and of p = infinity, whose nearest points are scaled and clipped."""

import math

import torch
from torch import Tensor

from ._rows import extremes, own

PART = 256
"""Entries whose squares are summed in their own precision."""


def onto_l2(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``|u|_2 = r``; the state is ``r / |x|``, the tiniest number at the centre.

    The point of a sphere nearest to its centre is any; ``r / sqrt(n) (1, ..., 1)`` is returned.
    """
    del w
    size = _length(x)
    limits = torch.finfo(x.dtype)
    ratio: Tensor = r / size
    torch.mul(x, ratio.clamp_max(1.0) if ball else ratio, out=y)
    state = ratio.masked_fill(size < r, 0.0) if ball else ratio
    low, high = limits.tiny**0.4, limits.max**0.4  # their ratios and squares neither overflow nor lose digits
    (shortest, longest), (least, most) = extremes(size), extremes(r)
    if low < shortest and longest < high and low < least and most < high:
        return state
    doubtful = ~((size > low) & (size < high) & (r > low) & (r < high))
    rows = doubtful.flatten().nonzero().flatten()
    y[rows], state[rows] = _of_any_scale(x[rows], own(r, rows), ball)
    return state


def _length(x: Tensor) -> Tensor:
    """Return the lengths of rows, (b, 1), of long ones from those of their parts, so that rounding does not add up."""
    parts = x.shape[1] // PART
    if parts < 3:
        length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return length
    whole: Tensor = torch.linalg.vector_norm(x[:, : parts * PART].unflatten(1, (parts, PART)), dim=-1)
    rest: Tensor = torch.linalg.vector_norm(x[:, parts * PART :], dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(torch.cat([whole, rest], -1).double(), dim=-1, keepdim=True)
    return length.to(x.dtype)


def _of_any_scale(x: Tensor, r: Tensor, ball: bool) -> tuple[Tensor, Tensor]:
    """Return points and states of rows whose squares overflow or underflow, through float64 and powers of two."""
    limits = torch.finfo(x.dtype)
    wide = x.double()
    largest = wide.abs().amax(-1, keepdim=True)
    exponent = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0)
    scaled = torch.ldexp(wide, -exponent)
    size = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    centre = size == 0
    unit = torch.where(centre, x.shape[1] ** -0.5, scaled / size)
    length = torch.ldexp(size, exponent)
    free = (length < r) if ball else torch.zeros_like(centre)
    y = torch.where(free, wide, unit * r).to(x.dtype)
    ratio = torch.where(centre, limits.tiny, (r.double() / length).clamp(limits.tiny, limits.max**0.75))
    state = torch.where(free, 0.0, ratio).to(x.dtype)
    return y, torch.where(largest.isfinite() & r.isfinite() & (r >= 0), state, torch.nan)


def onto_linf(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``max w_i |u_i| = r``.

    The point of a sphere nearest to a point inside differs from it in the one coordinate that is nearest to its limit,
    the first of several.
    """
    if r.numel() == 1 and w is None:
        limit = r
        torch.clamp(x, -float(r), float(r), out=y)
    else:
        limit = (r if w is None else r / w).to(x.dtype)
        torch.maximum(torch.minimum(x, limit, out=y), -limit, out=y)
    if ball:
        return _state(x.sum(-1, keepdim=True), x, r, w)
    high, low = x.amax(-1, keepdim=True), x.amin(-1, keepdim=True)
    largest = torch.maximum(high, -low)
    state = _state(largest, x, r, w)
    if w is None and bool((largest >= r).all()):
        return state
    inside = largest < r if w is None else (x.abs() < limit).all(-1, keepdim=True)
    if bool(inside.any()):
        rows = inside.flatten().nonzero().flatten()
        limits = limit.expand_as(x)[rows]
        nearest = nearest_limit(limits, x[rows].abs()).unsqueeze(-1)
        corner = torch.where(x[rows] < 0, -limits, limits).gather(-1, nearest)
        y[rows] = y[rows].scatter(-1, nearest, corner)
    return state


def nearest_limit(limit: Tensor, a: Tensor) -> Tensor:
    """Return where ``limit - a`` (..., n) is least, the first place of several, for entries below their limits.

    What rounding takes from the differences decides between those that it makes equal.
    """
    spare = limit - a
    lost = (limit - spare) - a  # exact, by Dekker's fast sum
    return torch.where(spare == spare.amin(-1, keepdim=True), lost, torch.inf).argmin(-1)


def _state(summary: Tensor, entries: Tensor, r: Tensor, w: Tensor | None) -> Tensor:
    """Return ones, NaN for rows whose summary is not finite because an entry is not, and for useless parameters."""
    if w is None and math.isfinite(float(summary.sum())):
        least, largest = extremes(r)
        if least >= 0 and largest < math.inf:
            return torch.ones_like(summary)
    good = entries.isfinite().all(-1, keepdim=True) & (r >= 0) & r.isfinite()
    if w is not None:
        good &= (w > 0).all(-1, keepdim=True)
    return torch.where(good, 1.0, torch.nan).to(summary.dtype)
