"""Exponential and power cones: both are spanned by a curve of rays, and so is their dual.

With ``p(rho)`` on the boundary of K and ``w(rho)`` on that of K*, orthogonal to each other and to each other's
derivatives, a vector outside of K and of its polar is ``v = alpha p(rho) - beta w(rho)`` in one way with alpha and beta
positive, and ``alpha p(rho)`` is its projection:

    exponential:  p = (rho, 1, e^rho),                       w = (-1, rho - 1, e^-rho);
    power:        p = (e^{(1-a) rho}, e^{-a rho}, sigma),    w = (a e^{-(1-a) rho}, (1-a) e^{a rho}, -sigma).

The derivative has the eigenvectors p (eigenvalue 1), w (0) and ``t = p x w``, whose eigenvalue is
``alpha t'p' / (alpha t'p' - beta t'w')``. Where the projection lies on a flat face the derivative is diagonal.

Reference: Friberg, *Projection onto the exponential cone: a univariate root-finding problem*, 2023; Hien,
*Differential properties of Euclidean projection onto power cone*, 2015.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._spectral import Slopes

FLAT = 40.0
"""From ``x < -FLAT y`` on, ``y exp(x / y)`` is zero in double precision."""
FAR = 500.0
"""Largest size of rho."""
TINY = 1e-300
"""Stands for zero under a logarithm."""
CLOSE = 1e-15
"""A step in rho below this ends the search."""
ROUNDS = 120
"""Steps of the search for rho, at most: half of them may bisect."""


class Curve(NamedTuple):
    """Points of both curves with two derivatives, (..., 3) each, scaled by powers that do not depend on rho."""

    p: Tensor
    p1: Tensor
    p2: Tensor
    w: Tensor
    w1: Tensor
    w2: Tensor


class Place(NamedTuple):
    """Where points lie relative to their cones, (batch, count) each.

    Attributes:
        curved: ``v = alpha p - beta w``.
        inside: v in K.
        polar: v in the polar of K.
        rho: of curved points.
        alpha: of curved points, for the scaled p.
        beta: of curved points, for the scaled w.
        curve: at rho.
        flat: what the projection keeps of x, y and z where none of the above holds, (batch, count, 3).
        weak: which of them are at a kink, (batch, count, 3).
    """

    curved: Tensor
    inside: Tensor
    polar: Tensor
    rho: Tensor
    alpha: Tensor
    beta: Tensor
    curve: Curve
    flat: Tensor
    weak: Tensor


class Curved:
    """Exponential cones (``exponents`` None) or power cones at points v (batch, count, 3).

    Args:
        v: the points.
        exponents: (count,) of power cones.
        near: what counts as zero, (batch, count or 1).
        hint: points near the projections, which save steps of the search; or None.
    """

    def __init__(self, v: Tensor, exponents: Tensor | None, near: Tensor, hint: Tensor | None = None):
        self.v = v
        near = near.expand(v.shape[:-1])
        self.near = near
        self.place = _exponential(v, near, hint) if exponents is None else _power(v, exponents, near, hint)

    def project(self) -> Tensor:
        """Return the projections, (batch, count, 3)."""
        at = self.place
        flat = torch.where(at.flat > 0, self.v, 0.0)
        curved = torch.where(at.curved[..., None], at.alpha[..., None] * at.curve.p, flat)
        return torch.where(at.inside[..., None], self.v, torch.where(at.polar[..., None], 0.0, curved))

    def slopes(self, near: Tensor) -> Slopes:
        """Return the eigenvalues of the derivative in the basis of :meth:`rotate`, (batch, count, 3)."""
        near = near[:, None]
        at, curve = self.place, self.place.curve
        across = torch.linalg.cross(curve.p, curve.w)
        rise = at.alpha * (across * curve.p1).sum(-1).abs()
        fall = at.beta * (across * curve.w1).sum(-1).abs()
        no_s = at.alpha * torch.linalg.vector_norm(curve.p, dim=-1) <= near
        no_z = at.beta * torch.linalg.vector_norm(curve.w, dim=-1) <= near
        weak = torch.stack([no_s, no_z, no_s & no_z], -1)
        total = torch.where(rise + fall > 0, rise + fall, 1.0)
        one = torch.ones_like(rise)
        kept = torch.stack([one, 0.0 * one, torch.where(no_z, 1.0, rise / total)], -1)
        lost = torch.stack([0.0 * one, one, torch.where(no_z, 0.0, fall / total)], -1)
        whole = torch.where(at.inside[..., None], 1.0, at.flat)
        weak = torch.where(at.curved[..., None], weak, at.weak)
        kept = torch.where(at.curved[..., None], kept, whole)
        lost = torch.where(at.curved[..., None], lost, 1.0 - whole)
        return Slopes(torch.where(weak, 0.0, kept), torch.where(weak, 0.0, lost), weak)

    def margins(self) -> Tensor:
        """Return the smaller of slack and multiplier where both are on the boundary, (batch, count)."""
        at = self.place
        s, z = (
            at.alpha * torch.linalg.vector_norm(at.curve.p, dim=-1),
            at.beta * torch.linalg.vector_norm(at.curve.w, dim=-1),
        )
        return torch.where(at.curved, torch.minimum(s, z), torch.inf)

    @functools.cached_property
    def basis(self) -> Tensor:
        """Q with the eigenvectors p, w and p x w in its columns, (batch, count, 3, 3)."""
        curve = self.place.curve
        columns = torch.stack([curve.p, curve.w, torch.linalg.cross(curve.p, curve.w)], -1)
        columns = columns / torch.linalg.vector_norm(columns, dim=-2, keepdim=True)
        return torch.where(self.place.curved[..., None, None], columns, torch.eye(3, dtype=columns.dtype))

    def rotate(self, values: Tensor) -> Tensor:
        """Return Q'V for (batch, count, 3, c)."""
        return self.basis.mT @ values

    def back(self, values: Tensor) -> Tensor:
        """Return QV, the inverse of :meth:`rotate`."""
        return self.basis @ values

    def bend(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the second derivative of the projection along a and b, (batch, count, 3).

        With ``dv = N (d alpha, d rho, d beta)`` the derivative is ``D = G N^-1``, and ``dD = (dG - D dN) N^-1``.
        """
        at, c = self.place, self.place.curve
        bends = (at.curved & (at.alpha > 0) & (at.beta > 0))[..., None]
        alpha, beta = (torch.where(bends, part[..., None], 1.0) for part in (at.alpha, at.beta))
        N = torch.stack([c.p, alpha * c.p1 - beta * c.w1, -c.w], -1)
        inverse = torch.linalg.inv(N)
        by_a, by_b = ((inverse @ part[..., None])[..., 0] for part in (a, b))
        (a_alpha, a_rho, a_beta), (d_alpha, d_rho, d_beta) = (part.split(1, -1) for part in (by_a, by_b))
        rise = d_alpha * c.p1 + alpha * d_rho * c.p2
        changed_G = d_rho * a_alpha * c.p1 + a_rho * rise
        fall = d_beta * c.w1 + beta * d_rho * c.w2
        changed_N = changed_G - a_rho * fall - a_beta * d_rho * c.w1
        pulled = (inverse @ changed_N[..., None])[..., 0]
        found = changed_G - pulled[..., :1] * c.p - pulled[..., 1:2] * alpha * c.p1
        return torch.where(bends, found, 0.0)


def _exponential(v: Tensor, near: Tensor, hint: Tensor | None) -> Place:
    x, y, z = v.unbind(-1)
    up, right = y > 0, x > 0
    safe_x, safe_y = torch.where(x == 0, 1.0, x), torch.where(y == 0, 1.0, y)
    height = torch.where(up, y * torch.exp(x / safe_y), torch.inf)
    depth = torch.where(right, x * torch.exp(y / safe_x - 1.0), torch.inf)
    flat = (x <= 0) & (x <= -FLAT * y.clamp_min(0.0)) & ~((x == 0) & up)
    # so steep that only z is left
    ray = right & (y < 0) & (y < -FAR * x)
    gap, drop = z - height, -z - depth
    inside = up & (gap >= 0) & ~flat
    polar = right & (drop >= 0)
    edge_in = inside & (gap <= near * (1.0 + height / safe_y * (1.0 + (x / safe_y).abs())))
    edge_out = polar & (drop <= near * (1.0 + depth / safe_x * (1.0 + (y / safe_x).abs())))
    search = ~(flat | ray | inside | polar)
    rho = torch.where(edge_in, x / safe_y, torch.where(edge_out, 1.0 - y / safe_x, 0.0))
    low = torch.where(right, 1.0 - y / safe_x, -torch.inf)
    high = torch.where(up, x / safe_y, torch.inf)

    def values(at: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        # log(e^rho alpha + z_-) - log(e^-rho beta + z_+), which is close to linear
        weight = at * at - at + 1.0
        alpha, beta = (((at - 1.0) * x + y) / weight).clamp_min(TINY), ((x - at * y) / weight).clamp_min(TINY)
        slope = (2.0 * at - 1.0) / weight
        grown, shrunk = at + alpha.log(), beta.log() - at
        left = torch.logaddexp(grown, (-z).clamp_min(TINY).log())
        right = torch.logaddexp(shrunk, z.clamp_min(TINY).log())
        rise = torch.exp(grown - left) * (1.0 + x / weight / alpha - slope)
        fall = torch.exp(shrunk - right) * (1.0 + y / weight / beta + slope)
        return left - right, rise + fall

    guess = None
    if hint is not None:
        guess = torch.where(hint[..., 1] > 0, hint[..., 0] / torch.where(hint[..., 1] > 0, hint[..., 1], 1.0), 0.0)
    rho = _searched(values, search, rho, low, high, guess, (x, y, z)).clamp(-FAR, FAR)
    curve = _exponential_curve(rho)
    curved = search | edge_in | edge_out
    weight = rho * rho - rho + 1.0
    alpha, beta = ((rho - 1.0) * x + y) / weight, (x - rho * y) / weight
    # from the third equation where the first two cancel
    alpha, beta = (
        torch.where(rho > 0, (z + torch.exp(-rho) * beta) * torch.exp(-rho), alpha),
        torch.where(rho < 0, (torch.exp(rho) * alpha - z) * torch.exp(rho), beta),
    )
    scale_p, scale_w = _scales(rho)
    alpha = torch.where(edge_out, 0.0, torch.where(edge_in, y, alpha)).clamp_min(0.0) / scale_p
    beta = torch.where(edge_in, 0.0, torch.where(edge_out, x, beta)).clamp_min(0.0) / scale_w
    keeps = torch.stack([flat, flat & up, (flat | ray) & (z > 0)], -1)
    kinks = torch.stack(
        [flat & (x.abs() <= near) & (y.abs() <= near), flat & (y.abs() <= near), (flat | ray) & (z.abs() <= near)], -1
    )
    # next to the interior of the flat face the derivative in y is zero on both sides
    kinks[..., 1] &= ~(flat & (y <= 0) & (z > near))
    return Place(curved, inside, polar, rho, alpha, beta, curve, keeps.to(v), kinks)


def _scales(rho: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors that bring p and w of an exponential cone to length about one."""
    size = rho.abs().clamp_min(1.0)
    return 1.0 / torch.maximum(size, torch.exp(rho)), 1.0 / torch.maximum(size, torch.exp(-rho))


def _exponential_curve(rho: Tensor) -> Curve:
    one, none = torch.ones_like(rho), torch.zeros_like(rho)
    grown, shrunk = torch.exp(rho), torch.exp(-rho)
    by_p, by_w = (part[..., None] for part in _scales(rho))
    return Curve(
        by_p * torch.stack([rho, one, grown], -1),
        by_p * torch.stack([one, none, grown], -1),
        by_p * torch.stack([none, none, grown], -1),
        by_w * torch.stack([-one, rho - 1.0, shrunk], -1),
        by_w * torch.stack([none, one, -shrunk], -1),
        by_w * torch.stack([none, none, shrunk], -1),
    )


def _power(v: Tensor, exponents: Tensor, near: Tensor, hint: Tensor | None) -> Place:
    x, y, z = v.unbind(-1)
    a = exponents.expand(x.shape)
    size, sign = z.abs(), torch.where(z < 0, -1.0, 1.0)
    top = x.clamp_min(0.0) ** a * y.clamp_min(0.0) ** (1.0 - a)
    bottom = ((-x).clamp_min(0.0) / a) ** a * ((-y).clamp_min(0.0) / (1.0 - a)) ** (1.0 - a)
    gap, drop = top - size, bottom - size
    inside = (x >= 0) & (y >= 0) & (gap >= 0)
    polar = (x <= 0) & (y <= 0) & (drop >= 0) & ~inside
    edge_in = inside & (gap <= near) & (size > near)
    edge_out = polar & (drop <= near) & (size > near)
    flat = ~inside & ~polar & (size == 0)
    search = ~(inside | polar | flat)

    def values(at: Tensor, x: Tensor, y: Tensor, size: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        r, rest = size * torch.sigmoid(at), size * torch.sigmoid(-at)
        s, ds = _side(x, a, r, rest)
        t, dt = _side(y, 1.0 - a, r, rest)
        value = r.log() - a * s.log() - (1.0 - a) * t.log()
        return value, (1.0 / r - a * ds / s - (1.0 - a) * dt / t) * r * (rest / size)

    guess = None
    if hint is not None:
        r = hint[..., 2].abs()
        guess = r.clamp_min(TINY).log() - (size - r).clamp_min(TINY).log()
    ends = torch.full_like(size, torch.inf)
    found = _searched(values, search, torch.zeros_like(size), -ends, ends, guess, (x, y, size, a))
    r, rest = size * torch.sigmoid(found), size * torch.sigmoid(-found)
    r, rest = torch.where(edge_out, 0.0, torch.where(edge_in, size, r)), torch.where(edge_in, 0.0, rest)
    s, _ = _side(x, a, r, rest)
    t, _ = _side(y, 1.0 - a, r, rest)
    s, t = torch.where(edge_in, x, s), torch.where(edge_in, y, t)
    # where s and t vanish rho is that of the dual side
    s, t = torch.where(edge_out, -y / (1.0 - a), s), torch.where(edge_out, -x / a, t)
    curved = search | edge_in | edge_out
    ratio = torch.where(curved, s, 1.0).clamp_min(TINY).log() - torch.where(curved, t, 1.0).clamp_min(TINY).log()
    rho = ratio.clamp(-FAR, FAR)
    curve, by_p, by_w = _power_curve(rho, a, sign)
    alpha, beta = r / by_p, torch.where(edge_out, size, rest) / by_w
    keeps = torch.stack([flat & (x > 0), flat & (y > 0), torch.zeros_like(flat)], -1).to(v)
    keeps[..., 2] = torch.where(flat, _flat_slope(x, y, a), 0.0)
    kinks = (torch.stack([x.abs(), y.abs(), torch.maximum(x.abs(), y.abs())], -1) <= near[..., None]) & flat[..., None]
    corner = (x.abs() <= near) & (y.abs() <= near) & (size <= near)
    kinks |= (corner & (inside | polar))[..., None]
    return Place(curved, inside, polar, rho, alpha, beta, curve, keeps, kinks)


def _side(x: Tensor, a: Tensor, r: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the larger root s of ``s (s - x) = a r rest``, and its derivative in r, which ``rest`` falls with."""
    room = a * r * rest
    root = torch.sqrt(x * x + 4.0 * room)
    s = torch.where(x > 0, 0.5 * (x + root), 2.0 * room / torch.where(x > 0, 1.0, root - x).clamp_min(TINY))
    return s.clamp_min(TINY), a * (rest - r) / root.clamp_min(TINY)


def _flat_slope(x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    """Return the derivative of z at z = 0 where x and y have different signs: the smaller exponent decides."""
    lone, depth = torch.maximum(x, y), torch.minimum(x, y).abs()
    of_lone = torch.where(x > y, a, 1.0 - a)
    middle = lone / (lone + 2.0 * depth).clamp_min(TINY)
    return torch.where(of_lone > 0.5, 1.0, torch.where(of_lone < 0.5, 0.0, middle))


def _power_curve(rho: Tensor, a: Tensor, sign: Tensor) -> tuple[Curve, Tensor, Tensor]:
    b = 1.0 - a
    none = torch.zeros_like(rho)
    by_p = 1.0 / torch.maximum(torch.exp(b * rho), torch.exp(-a * rho))
    by_w = 1.0 / torch.maximum(torch.exp(-b * rho), torch.exp(a * rho))
    p, q = torch.exp(b * rho) * by_p, torch.exp(-a * rho) * by_p
    u, v = a * torch.exp(-b * rho) * by_w, b * torch.exp(a * rho) * by_w
    return (
        Curve(
            torch.stack([p, q, sign * by_p], -1),
            torch.stack([b * p, -a * q, none], -1),
            torch.stack([b * b * p, a * a * q, none], -1),
            torch.stack([u, v, -sign * by_w], -1),
            torch.stack([-b * u, a * v, none], -1),
            torch.stack([b * b * u, a * a * v, none], -1),
        ),
        by_p,
        by_w,
    )


def _searched(
    function: Callable[..., tuple[Tensor, Tensor]],
    wanted: Tensor,
    otherwise: Tensor,
    low: Tensor,
    high: Tensor,
    guess: Tensor | None,
    arguments: tuple[Tensor, ...],
) -> Tensor:
    """Return the roots of increasing functions where they are wanted, between low and high, which may be infinite."""
    if not bool(wanted.any()):
        return otherwise
    low, high = low[wanted], high[wanted]
    arguments = tuple(argument[wanted] for argument in arguments)
    low, high = _bracket(lambda at: function(at, *arguments)[0], low, high)
    at = 0.5 * (low + high)
    if guess is not None:
        first = guess[wanted]
        at = torch.where((first > low) & (first < high), first, at)
    before, done = torch.full_like(at, torch.inf), torch.zeros_like(at, dtype=torch.bool)
    for _ in range(ROUNDS):
        value, slope = function(at, *arguments)
        low, high = torch.where(value < 0, at, low), torch.where(value > 0, at, high)
        step, size = value / slope, value.abs()
        following = at - step
        # Newton where it stays inside and converges, else halves
        good = (following > low) & (following < high) & (size < 0.5 * before)
        following = torch.where(good, following, 0.5 * (low + high))
        small = CLOSE * (1.0 + at.abs())
        # what is there once stays, for rounding makes values stop falling; a pole makes steps small, too
        done = done | ((step.abs() <= small) & (size < 1e-6)) | (high - low <= small)
        at, before = torch.where(done, at, following), size
        if bool(done.all()):
            break
    return otherwise.masked_scatter(wanted, at)


def _bracket(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return finite ends between which increasing functions change their sign."""
    down, up = low == -torch.inf, high == torch.inf
    low = torch.where(down, torch.where(up, 0.0, high) - 1.0, low)
    high = torch.where(up, low + 1.0, high)
    reach = 1.0
    while reach < 2.0 * FAR:
        too_high, too_low = down & (function(low) > 0), up & (function(high) < 0)
        if not bool((too_high | too_low).any()):
            break
        low, high = torch.where(too_high, low - reach, low), torch.where(too_low, high + reach, high)
        reach *= 2.0
    return low, high
