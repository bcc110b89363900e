"""The derivative of projections onto Lp spheres and balls: the optimality conditions, linearised at the solution.

For finite p the conditions are ``u - x + nu a(u) = 0`` and ``h(u) = (sum w |u/r|^p - 1) r / p = 0`` with ``a = dh/du``.
With ``d = 1 / (1 + nu da/du)``, zero for entries held on a plateau, tangents satisfy

    du = d (dx - nu da/dw dw - a dnu),        a'du + (dh/dw)'dw = dr.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._rows import PARTS, extremes, own, slices, working


@dataclass(frozen=True)
class Smooth:
    """The conditions of finite p, linearised; all (..., n) but ``stretch``, ``total`` and ``held`` (..., 1).

    Attributes:
        a: gradient of the constraint.
        d: how freely each entry follows its x, but for the stretch.
        stretch: a factor of d that all entries share, kept apart because it may be huge.
        total: ``sum a^2 d``, one where that is zero.
        held: whether the row is on the surface.
        by_weight: ``nu da/dw`` and ``dh/dw``, or None.
    """

    a: Tensor
    d: Tensor
    stretch: Tensor
    total: Tensor
    held: Tensor
    by_weight: tuple[Tensor, Tensor] | None


def smooth(p: float, y: Tensor, state: Tensor, x: Tensor, r: Tensor, w: Tensor | None, mask: bool) -> Smooth:
    """Linearise the conditions of finite p; differentiable in everything.

    Args:
        p: at least 1.
        y: the nearest points.
        state: zero where a row is free, for p = 2 without weights otherwise ``r / |x|``, the tiniest number at its
            centre.
        x: the points.
        r: radii, (..., 1).
        w: weights, or None.
        mask: hold entries on a plateau.
    """
    sign, size = y.sign(), y.abs()
    weight = torch.ones((), dtype=y.dtype, device=y.device) if w is None else w
    ratio = size / r.clamp_min(torch.finfo(y.dtype).tiny)
    positive = ratio > 0  # it may underflow
    v = torch.where(positive, ratio, 1.0)
    power = v ** (p - 1.0)
    slope = torch.where(positive, power, 0.0)
    a = weight * sign * slope
    largest = 0.25 * torch.finfo(y.dtype).max  # the sum may overflow where the derivative vanishes anyway
    well = a * torch.where(positive, v, 0.0)  # for p near 1 the smallest entries say nothing of the multiplier
    moved = (well * (x - y)).sum(-1, keepdim=True).clamp(-largest, largest)
    nu = _divided(moved, (well * a).sum(-1, keepdim=True)).clamp(-largest, largest)
    stretch = torch.ones((), dtype=y.dtype, device=y.device)
    if p == 1:
        d = sign.abs() if mask else torch.ones_like(y)
    elif p == 2 and w is None:
        centre = state <= 2.0 * torch.finfo(state.dtype).tiny
        scale = torch.where(centre, 1.0, x.detach()).abs().amax(-1, keepdim=True)  # squares must not overflow or vanish
        usual = ~centre & (r.detach() / scale < largest)  # others are as constant as they are large
        length = torch.linalg.vector_norm(torch.where(usual, x, 1.0) / scale, dim=-1, keepdim=True)
        ratio = (torch.where(usual, r, 1.0) / scale) / length
        d, stretch = torch.ones_like(y), torch.where(centre, 0.0, torch.where(usual, ratio, state))
    else:
        bend = weight * ((p - 1.0) * power / v) / r.clamp_min(torch.finfo(y.dtype).tiny)
        d = _divided(torch.ones_like(y), 1.0 + nu * torch.where(positive | (p == 2), bend, 0.0))
        d = torch.where(positive, d, 0.0) if p < 2 else d
    d = torch.where(r > 0, d, 0.0)
    by_weight = None if w is None else (nu * sign * slope, torch.where(positive, size * slope / p, 0.0))
    total = (a * a * d).sum(-1, keepdim=True)
    return Smooth(a, d, stretch, torch.where(total == 0, 1.0, total), (state != 0), by_weight)


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, zero where b is."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def pull_smooth(g: Tensor, at: Smooth) -> tuple[Tensor, ...]:
    """Return the cotangents of x (..., n), r (...) and, with weights, w (..., n)."""
    h = at.d * g
    beta = (at.a * h).sum(-1, keepdim=True) / at.total
    q = at.stretch * (h - beta * at.d * at.a)
    bars = (torch.where(at.held, q, g), torch.where(at.held, beta, 0.0).squeeze(-1))
    if at.by_weight is None:
        return bars
    force, size = at.by_weight
    return (*bars, torch.where(at.held, -force * q - beta * size, 0.0))


def push_smooth(dx: Tensor, dr: Tensor | None, dw: Tensor | None, at: Smooth) -> Tensor:
    """Return the tangent of the nearest points."""
    moved, excess = dx, torch.zeros_like(at.total)
    if dw is not None and at.by_weight is not None:
        moved, excess = dx - at.by_weight[0] * dw, excess + (at.by_weight[1] * dw).sum(-1, keepdim=True)
    if dr is not None:
        excess = excess - dr
    along = (at.a * at.d * moved).sum(-1, keepdim=True) / at.total
    return torch.where(at.held, at.stretch * at.d * (moved - along * at.a) - excess / at.total * at.d * at.a, dx)


@dataclass(frozen=True)
class Clipped:
    """The conditions of p = infinity, linearised; all (..., n) but ``total`` (..., 1).

    Attributes:
        at: which entries sit at their limits ``r / w``.
        a: gradient of the constraint where all of them are one constraint: ``w sign(u)`` there.
        total: ``sum a^2``, one where that is zero.
        by_radius: derivative of the limits in the radius.
        by_weight: derivative of the limits in the weights.
        mask: whether the entries are held one by one.
    """

    at: Tensor
    a: Tensor
    total: Tensor
    by_radius: Tensor
    by_weight: Tensor | None
    mask: bool


def clipped(y: Tensor, r: Tensor, w: Tensor | None, mask: bool, dtype: torch.dtype) -> Clipped:
    """Linearise the conditions of p = infinity.

    Args:
        y: the nearest points, in working precision.
        r: radii, (..., 1).
        w: weights, or None.
        mask: hold the largest entries one by one.
        dtype: that the nearest points were rounded to.
    """
    limit = (r if w is None else r / w).to(dtype).to(y.dtype)
    at = y.abs() >= limit
    sign = torch.where(y < 0, -1.0, 1.0).to(y.dtype) * at
    a = sign if w is None else sign * w
    total = (a * a).sum(-1, keepdim=True)
    by_weight = None if w is None else -sign * r / w**2
    return Clipped(at, a, torch.where(total == 0, 1.0, total), sign if w is None else sign / w, by_weight, mask)


def pull_clipped(g: Tensor, at: Clipped) -> tuple[Tensor, ...]:
    """Return the cotangents of x (..., n), r (...) and, with weights, w (..., n)."""
    beta = (at.a * g).sum(-1, keepdim=True) / at.total
    q = torch.where(at.at, 0.0, g) if at.mask else g - beta * at.a
    bars = (q, (at.by_radius * g).sum(-1) if at.mask else beta.squeeze(-1))
    return bars if at.by_weight is None else (*bars, at.by_weight * g)


def push_clipped(dx: Tensor, dr: Tensor | None, dw: Tensor | None, at: Clipped) -> Tensor:
    """Return the tangent of the nearest points."""
    zero = torch.zeros_like(dx)
    moved = zero if dw is None or at.by_weight is None else at.by_weight * dw
    if at.mask:
        return torch.where(at.at, moved + (zero if dr is None else at.by_radius * dr), dx)
    excess = (at.a * dx).sum(-1, keepdim=True) - (0.0 if dr is None else dr)
    return dx + moved - excess / at.total * at.a


# The same formulas for first derivatives of the sets without weights, block by block and in place.


def pull_l1(
    wanted: tuple[bool, ...], out: Tensor, g: Tensor, y: Tensor, state: Tensor, r: Tensor
) -> tuple[Tensor | None]:
    """Write the cotangent of x for p = 1 to ``out`` (B, n), and return that of the radius (B, 1)."""
    del r
    dtype, betas = working(out.dtype), []
    for rows in slices(out):
        sign, count = y[rows].to(dtype).sign(), state[rows]
        bar = out[rows] if out.dtype == dtype else torch.empty_like(sign)
        beta = torch.mul(sign, g[rows].to(dtype), out=bar).sum(-1, keepdim=True) / count.clamp_min(1.0)
        bar.sub_(beta).mul_(sign)
        if not bool(count.all()):
            free = count == 0
            index = free.flatten()
            bar[index], beta = g[rows][index].to(dtype), beta.masked_fill(free, 0.0)
        if out.dtype != dtype:
            out[rows] = bar
        betas.append(beta)
    return (torch.cat(betas).to(out.dtype) if wanted[1] else None,)


def pull_l2(
    wanted: tuple[bool, ...], out: Tensor, g: Tensor, y: Tensor, state: Tensor, x: Tensor, r: Tensor
) -> tuple[Tensor | None]:
    """Write the cotangent of x for p = 2 to ``out`` (B, n), and return that of the radius (B, 1)."""
    del x
    dtype = working(out.dtype)
    wide_g, wide_y = g.to(dtype), y.to(dtype)
    bar = out if out.dtype == dtype else torch.empty_like(wide_g)
    if extremes(r)[0] < torch.finfo(dtype).tiny ** 0.4:  # cotangents may be too large for it
        wide_y, r = wide_y / r.clamp_min(torch.finfo(dtype).tiny), torch.ones_like(r)
    beta = torch.mul(wide_g, wide_y, out=bar).sum(-1, keepdim=True).div_(r)
    if not bool(state.all()):
        free = state == 0
        beta, state = beta.masked_fill(free, 0.0), state.masked_fill(free, 1.0)
    torch.addcmul(wide_g, wide_y, beta / r, value=-1.0, out=bar).mul_(state)
    if bar is not out:
        out.copy_(bar)
    return (beta.to(out.dtype) if wanted[1] else None,)


def pull_power(
    wanted: tuple[bool, ...], out: Tensor, g: Tensor, y: Tensor, state: Tensor, x: Tensor, r: Tensor, p: float
) -> tuple[Tensor | None]:
    """Write the cotangent of x for other p above 1 to ``out`` (B, n), and return that of the radius (B, 1).

    Rows that scale or rounding could harm are left to :func:`pull_smooth`.
    """
    dtype, betas = working(out.dtype), []
    for rows in slices(out, PARTS):
        wide_g, wide_y, wide_x, radius = g[rows].to(dtype), y[rows].to(dtype), x[rows].to(dtype), own(r, rows)
        bar, beta = _pulled_power(wide_g, wide_y, wide_x, radius, p)
        free = state[rows] == 0
        if bool(free.any()):
            bar[free.flatten()], beta = wide_g[free.flatten()], beta.masked_fill(free, 0.0)
        if not math.isfinite(float((bar.sum(-1, keepdim=True) + beta).sum())) or extremes(radius)[0] == 0.0:
            at = smooth(p, wide_y, state[rows], wide_x, radius, None, True)
            bar, beta = pull_smooth(wide_g, at)
            beta = beta.unsqueeze(-1)
        out[rows] = bar
        betas.append(beta)
    return (torch.cat(betas).to(out.dtype) if wanted[1] else None,)


def _pulled_power(g: Tensor, y: Tensor, x: Tensor, r: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return the cotangents of x (b, n) and r (b, 1) of rows on the surface, where nothing over- or underflows."""
    tiny = torch.finfo(y.dtype).tiny
    v = y.abs().div_(r)
    slope = _power(v, p - 1.0)
    scratch = slope * v
    moved = x.abs().sub_(y.abs())
    nu = moved.mul_(scratch).sum(-1, keepdim=True) / scratch.mul_(slope).sum(-1, keepdim=True)
    stiffness = nu * ((p - 1.0) / r)
    if p < 2:  # zeros are held
        d = v.div_(torch.mul(slope, stiffness, out=scratch).add_(v).add_(tiny))
    else:
        d = torch.div(slope, v.clamp_min_(tiny), out=scratch).mul_(stiffness).add_(1.0).reciprocal_()
    a = slope.copysign_(y)
    da = torch.mul(d, a, out=moved)
    bar = d.mul_(g)
    beta = (bar * a).sum(-1, keepdim=True) / a.mul_(da).sum(-1, keepdim=True)
    return bar.sub_(da.mul_(beta)), beta


def _power(v: Tensor, exponent: float) -> Tensor:
    """Return ``v ** exponent``; NumPy's is twice as fast as torch's on the processor."""
    return (
        torch.from_numpy(np.power(v.numpy(), v.numpy().dtype.type(exponent))) if v.device.type == "cpu" else v**exponent
    )


def pull_linf(
    wanted: tuple[bool, ...], out: Tensor, g: Tensor, y: Tensor, state: Tensor, r: Tensor
) -> tuple[Tensor | None]:
    """Write the cotangent of x for p = infinity and one radius to ``out`` (B, n), and return that of the radius."""
    del state
    limit = float(r.to(out.dtype))
    torch.ops.aten.hardtanh_backward.grad_input(g, y, -limit, limit, grad_input=out)
    if not wanted[1]:
        return (None,)
    return (((g - out) * torch.where(y < 0, -1.0, 1.0)).sum(-1, keepdim=True).to(out.dtype),)
