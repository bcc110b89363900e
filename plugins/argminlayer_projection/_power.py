"""The sphere and ball of any p > 1, with weights: one safeguarded Newton iteration for a whole block of rows.

With ``v = |u| / r`` and ``b = |x| / r`` the nearest point to a point outside satisfies, for some ``nu > 0``,

    v + nu w v^(p - 1) = b  for every coordinate,       sum w v^p = 1.

In logarithms both terms of the first equation are exponentials of linear functions, so that for every p, near 1 or
large, and for weights and entries of any scale its slope stays between min(1, p - 1) and max(1, p - 1).
"""

import math

import numpy as np
import torch
from torch import Tensor

from ._inside import from_inside
from ._rows import own

STEPS = 80
"""Newton steps at most; 5 to 9 are usual."""
LN2 = math.log(2.0)


def onto_power(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, scratch: object, p: float, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``(sum w |u|^p)^(1/p) = r``; see ``_rows.Kernel``."""
    del scratch
    weights = torch.ones(1, 1, dtype=x.dtype, device=x.device) if w is None else w
    size = _log2_size(log2(x.abs()) - log2(r), log2(weights), p)
    good = (size < math.inf) & r.isfinite() & (r >= 0) & (weights > 0).all(-1, keepdim=True)
    inside, proper = size < 0, good & (r > 0)
    if ball or not bool((~inside & proper).all()):
        y.copy_(x)
    for rows, nearest in ((~inside & proper, _from_outside), (inside & proper & (not ball), from_inside)):
        index = rows.flatten().nonzero().flatten()
        if len(index) == len(x):
            y.copy_(nearest(x, r, weights, p))
        elif len(index):
            y[index] = nearest(x[index], own(r, index), own(weights, index), p)
    if bool((r == 0).any()):
        y.masked_fill_(good & (r == 0), 0.0)
    held = (~inside | (not ball)).to(x.dtype)
    return torch.where(good, held, torch.nan)


def log2(x: Tensor) -> Tensor:
    """Return the logarithm to base 2; NumPy's is four times as fast as torch's on the processor."""
    if x.device.type != "cpu":
        return x.log2()
    with np.errstate(divide="ignore", invalid="ignore"):
        return torch.from_numpy(np.log2(x.numpy()))


def _log2_size(b: Tensor, w: Tensor, p: float) -> Tensor:
    """Return ``log2 (sum w v^p)^(1/p)`` of ``v = 2^b``, (b, 1)."""
    top = b.amax(-1, keepdim=True).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return top + log2(torch.exp2((b - top).mul_(p).add_(w)).sum(-1, keepdim=True, dtype=torch.float64)).to(b.dtype) / p


def _from_outside(x: Tensor, r: Tensor, w: Tensor, p: float) -> Tensor:
    """Return the nearest points of rows that are not inside.

    The unknowns are ``z = log2 v`` of every coordinate and ``log2 nu`` of every row. A step corrects z at the present
    nu and, where that correction is small, moves nu by Newton's method on a power of ``S = sum w v^p``.
    """
    limits = torch.finfo(x.dtype)
    floor = math.log2(limits.tiny) * 0.9
    b, w_log = (log2(x.abs()) - log2(r)).clamp_min_(floor), log2(w)
    size = _log2_size(b, w_log, p)
    if x.dtype == torch.float32 and float(size.max()) > 60.0:
        return _from_outside(x.double(), r.double(), w.double(), p).to(x.dtype)
    capped = b - w_log
    z, nu, low, high = *_first(b, w_log, size, p), torch.full_like(size, -math.inf), torch.full_like(size, math.inf)
    for _ in range(STEPS):
        value = torch.exp2(z)
        force = torch.exp2((p - 1.0) * z + (w_log + nu))
        both = value + force
        share = force / both
        slope = (share * (p - 2.0)).add_(1.0)
        step = (b - log2(both)).div_(slope)
        moves = share.div_(slope)
        weight = value.mul_(force)
        scale = weight.sum(-1, keepdim=True)
        change = p * (weight * moves).sum(-1, keepdim=True) / scale
        gains = weight.mul_(step)
        total = log2((scale + p * LN2 * gains.sum(-1, keepdim=True)).clamp_min_(0.5 * scale)) - nu
        error = p * torch.maximum(gains.abs_().sum(-1, keepdim=True) / scale, step.amax(-1, keepdim=True))
        if bool(((error < limits.eps**0.6) & (total.abs() < limits.eps**0.6)).all()):
            z.add_(step).sub_(moves.mul_(total / change))
            break
        settled = error < 0.3
        low = torch.where(settled & (total > error**2), torch.maximum(low, nu), low)
        high = torch.where(settled & (total < -(error**2)), torch.minimum(high, nu), high)
        moved = torch.where(settled, _newton(nu, total, change, low, high, p), nu)
        z.add_(step).sub_(moves.mul_(moved - nu))
        nu = moved
        z = torch.minimum(torch.minimum(z, b, out=z), (capped - nu).div_(p - 1.0), out=z).clamp_min_(floor)
    z.sub_(_log2_size(z, w_log, p))
    return torch.exp2(z, out=z).mul_(r).mul_(x.sign())


def _first(b: Tensor, w: Tensor, size: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return where to begin: the radial projection, and the multiplier of its largest entry within its bounds."""
    top = b.amax(-1, keepdim=True)
    least = w.amin(-1, keepdim=True)
    most = top + math.log2(b.shape[-1]) * (p - 1.0) / p - least / p
    radial = top + log2(-torch.expm1(-size * LN2)) - (p - 1.0) * (top - size) - least
    nu = torch.minimum(radial, most).clamp_min(-40.0)
    z = torch.minimum(torch.minimum(b - size, ((b - w) - nu) / (p - 1.0)), b)
    return z.clamp_min_(math.log2(torch.finfo(b.dtype).tiny) * 0.9), nu


def _newton(nu: Tensor, total: Tensor, change: Tensor, low: Tensor, high: Tensor, p: float) -> Tensor:
    """Return the next ``log2 nu``: Newton's, or inside the bracket where that leaves it.

    The power ``S^-k`` is as linear in nu as it can be: exactly for one coordinate as nu goes to zero (p below 2), for
    p = 2, and as nu goes to infinity (p above 2).

    Args:
        nu: the present one, in logarithms like all others.
        total: ``log2 S``.
        change: ``-dlog S / dlog nu``.
        low: the bracket's lower end.
        high: its upper end.
        p: above 1.
    """
    k = (2.0 * p - 3.0) / p if p < 2.0 else (p - 1.0) / p
    growth = torch.expm1(k * LN2 * total) / k if abs(k) > 1e-9 else LN2 * total
    trial = nu + torch.log1p(growth / change) / LN2
    middle = torch.where(high.isinf(), nu + 3.0, torch.where(low.isinf(), high - 6.0, 0.5 * (low + high)))
    return torch.where((trial > low) & (trial < high), trial, middle)
