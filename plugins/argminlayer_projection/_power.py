"""The sphere and ball of any p > 1, with weights: one safeguarded Newton iteration for a whole block of rows.

With ``c`` the radial projection of |x| to the sphere of radius one, ``e = r / |x|_p`` and ``v = |u| / r``, the nearest
point to a point outside satisfies, for some ``nu > 0``,

    e v + nu w v^(p - 1) = c  for every coordinate,       sum w v^p = 1.

The unknowns are ``d = log2 c / v`` of every coordinate and ``log2 nu`` of every row. With ``q = nu w v^(p - 2)`` the
first equation reads ``log2 (e + q) = d``, whose slope stays between min(1, p - 1) and max(1, p - 1) for every p, near 1
or large, and for weights and entries of any scale.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ._inside import from_inside
from ._rows import own

STEPS = 200
"""Newton steps at most; 4 to 8 are usual, more for p below 1.05."""
COARSE, COARSE_STEPS = 5e-3, 12
"""The error at which float32 hands over to float64, and after how many steps at the latest."""
SINGLE = (1.2, 50.0)
"""Between these p float32 is enough for points in float32; beyond them its rounding is magnified."""
LOWEST = -200.0
"""The least logarithm of an entry, relative to the largest: what is smaller counts for nothing."""
LN2 = math.log(2.0)


def onto_power(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, p: float, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``(sum w |u|^p)^(1/p) = r``; see ``_rows.Kernel``."""
    dtype = x.dtype if SINGLE[0] <= p <= SINGLE[1] else torch.float64
    weights = torch.ones(1, 1, dtype=dtype, device=x.device) if w is None else w.to(dtype)
    largest = x.abs().amax(-1, keepdim=True).double()
    good = largest.isfinite() & r.isfinite() & (r >= 0) & (weights > 0).all(-1, keepdim=True)
    unit = torch.exp2(-torch.frexp(largest).exponent.double().clamp(-900.0, 900.0))
    c, log_w = torch.mul(x, unit).abs_().to(dtype), log2(weights)
    log_c = log2(c).clamp_min_(LOWEST)
    size = _log2_size(log_c, log_w, p)
    e = (r * unit) * torch.exp2(-size)
    c.mul_(torch.exp2(-size).to(dtype))
    log_c.sub_(size.to(dtype))
    inside = (e > 1.0 + 8.0 * torch.finfo(dtype).eps) | (largest == 0)
    if bool((good & ~inside).all()):
        y.copy_(_from_outside(c, log_c, log_w, e.clamp_max(1.0), p).mul_(r)).copysign_(x)
        return torch.ones_like(e).to(x.dtype)
    y.copy_(x)
    rows = (good & ~inside).flatten().nonzero().flatten()
    if len(rows):
        v = _from_outside(c[rows], log_c[rows], own(log_w, rows), e[rows].clamp_max(1.0), p)
        y[rows] = v.mul_(own(r, rows)).to(x.dtype).copysign_(x[rows])
    rows = (good & inside & (r > 0)).flatten().nonzero().flatten()
    if len(rows) and not ball:
        y[rows] = from_inside(x[rows], own(r, rows), own(weights, rows), p)
    return torch.where(good, (~inside | (not ball)).to(x.dtype), torch.nan)


def log2(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the logarithm to base 2; NumPy's is four times as fast as torch's on the processor."""
    out = torch.empty_like(x) if out is None else out
    if x.device.type != "cpu":
        return torch.log2(x, out=out)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log2(x.numpy(), out=out.numpy())
    return out


def _log2_size(v: Tensor, w: Tensor, p: float) -> Tensor:
    """Return the logarithm of ``(sum w v^p)^(1/p)`` for v and w in logarithms, (b, 1) in float64."""
    top = v.amax(-1, keepdim=True)
    return top + torch.log2(_sum(torch.sub(v, top).mul_(p).add_(w).exp2_())) / p


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True).double()


def _from_outside(c: Tensor, log_c: Tensor, w: Tensor, e: Tensor, p: float) -> Tensor:
    """Return ``v`` (b, n) of rows that are not inside.

    Args:
        c: the radial projections, (b, n).
        log_c: their logarithms, overwritten.
        w: logarithms of the weights, broadcast to c.
        e: radius over norm, (b, 1).
        p: above 1.
    """
    nu = torch.log2((1.0 - e).clamp_min(1e-20)) + _log2_size(log_c - w, w, p / (p - 1.0))  # exact for e = 0
    force, square = log_c.mul_(p - 2.0).add_(w), c.square()
    d = torch.maximum(torch.div(force + nu.to(c.dtype), p - 1.0), torch.log2(e).clamp_min(LOWEST).to(c.dtype))
    if c.dtype == torch.float64:
        coarse, nu = _newton(force.float(), square.float(), e, d.float(), nu, p, COARSE, COARSE_STEPS)
        d = coarse.double()
    d, _ = _newton(force, square, e, d, nu, p, 0.5 * torch.finfo(c.dtype).eps ** 0.5, STEPS)
    v = d.neg_().exp2_().mul_(c)
    return v.mul_(torch.exp2(-_log2_size(log2(v).clamp_min_(LOWEST), w, p)).to(c.dtype))


def _newton(
    force: Tensor, square: Tensor, e: Tensor, d: Tensor, nu: Tensor, p: float, tolerance: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Return ``d`` and ``log2 nu`` after Newton steps, the last of which corrects an error below the tolerance.

    A step corrects d at the present nu and, where that correction is small, moves nu by Newton's method on a power of
    ``S = sum w v^p``. The first equation is convex in d and log nu together: after the first step d only grows.

    Args:
        force: ``log2 w c^(p - 2)``, (b, n).
        square: ``c^2``.
        e: (b, 1).
        d: where to begin.
        nu: likewise.
        p: above 1.
        tolerance: of relative errors.
        steps: at most.
    """
    limit, own_e = 0.9 * math.log2(torch.finfo(d.dtype).max), e.to(d.dtype)
    one = torch.ones((), dtype=d.dtype, device=d.device)
    least = torch.log2(own_e).clamp_min_(-limit)
    low, high = torch.full_like(nu, -math.inf), torch.full_like(nu, math.inf)
    share, weight, step, slope, product = (torch.empty_like(d) for _ in range(5))
    for _ in range(steps):
        q = torch.add(force, d, alpha=2.0 - p, out=share).add_(nu.to(d.dtype)).clamp_max_(limit).exp2_()
        both = torch.add(q, own_e, out=weight)
        log2(both, out=step).sub_(d)
        torch.add(one, share.div_(both), alpha=p - 2.0, out=slope)
        step.div_(slope)
        torch.div(share, both, out=weight).mul_(square)  # nu w v^p of v = c / (e + q)
        moves = share.div_(slope)
        mass, by_nu = _sum(weight), _sum(torch.mul(weight, moves, out=product))
        gains = weight.mul_(step)
        sums = mass + LN2 * (2.0 * _sum(torch.mul(gains, slope, out=product)) - p * _sum(gains))
        total = torch.log2(torch.maximum(sums, 0.5 * mass)) - nu
        doubt = p**2 * _sum(torch.mul(gains, step, out=product)) / mass  # of total, to second order
        error = doubt.sqrt()
        if p > 2:  # entries whose q is far too large have no weight yet
            error = torch.maximum(error, p * step.amax(-1, keepdim=True).double())
        settled = error < 0.3 * min(1.0, 10.0 * (p - 1.0))  # towards p = 1 the force hardly depends on v
        low, high = _narrowed(low, high, nu, settled & (total > doubt), settled & (total < -doubt))
        change = p * by_nu / mass
        moved = torch.where(settled, _next(nu, total, change, low, high, p), nu)
        error = torch.maximum(torch.maximum(error, total.abs()), 0.25 * change.sqrt() * (moved - nu).abs())
        d.add_(step).addcmul_(moves, (moved - nu).to(d.dtype)).clamp_(-limit, limit)
        nu = moved
        if p < 2:  # bounds that the tangent may miss by far
            torch.maximum(d, least, out=d)
        if p < SINGLE[0]:
            torch.maximum(d, torch.div(force + nu.to(d.dtype), p - 1.0).clamp_max_(limit), out=d)
        if bool((error < tolerance).all()):
            break
    return d, nu


def _narrowed(low: Tensor, high: Tensor, nu: Tensor, above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bracket with ``nu`` as an end; one that contradicts it came of a rough d, and is dropped."""
    low, high = torch.where(below & (low >= nu), -math.inf, low), torch.where(above & (high <= nu), math.inf, high)
    return torch.where(above, torch.maximum(low, nu), low), torch.where(below, torch.minimum(high, nu), high)


def _next(nu: Tensor, total: Tensor, change: Tensor, low: Tensor, high: Tensor, p: float) -> Tensor:
    """Return the next ``log2 nu``: Newton's, or inside the bracket where that leaves it.

    The power ``S^(1/p - 1)`` is linear in nu for p = 2, and for every p as nu goes to infinity.

    Args:
        nu: the present one, in logarithms like all others.
        total: ``log2 S``.
        change: ``-dlog S / dlog nu``.
        low: the bracket's lower end.
        high: its upper end.
        p: above 1.
    """
    k = (p - 1.0) / p
    trial = nu + torch.log1p(torch.expm1(k * LN2 * total) / (k * change)) / LN2
    middle = torch.where(high.isinf(), nu + 3.0, torch.where(low.isinf(), high - 6.0, 0.5 * (low + high)))
    return torch.where((trial >= low) & (trial <= high), trial, middle)
