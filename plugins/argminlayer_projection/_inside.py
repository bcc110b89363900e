"""The point of a sphere of p > 1 nearest to a point inside it, a problem that is not convex.

With ``v = |u| / r`` and ``b = |x| / r`` the conditions are ``v - mu w v^(p - 1) = b`` with some ``mu >= 0`` and
``sum w v^p = 1``. All is computed in float64.
"""

import torch
from torch import Tensor

from ._root import root

GRID = 64
"""Places along the path of candidates at which the norm is looked at, for p > 2."""
STEPS = 80
"""Newton steps at most; they converge from one side, and quadratically away from double roots."""


def from_inside(x: Tensor, r: Tensor, w: Tensor, p: float) -> Tensor:
    """Return the nearest points (b, n) of the spheres ``(sum w |u|^p)^(1/p) = r``, with positive signs at zero.

    Args:
        x: (b, n), inside.
        r: (1, 1) or (b, 1), positive.
        w: broadcasts to x, positive.
        p: above 1.
    """
    r = r.double()
    b, w = x.abs() / r, w.double().expand_as(x)
    if p == 2:
        v = _ellipsoid(b, w)
    elif p < 2:
        v = _round(b, w, p)
    else:
        v = _pointed(b, w, p)
    v = v * (w * v**p).sum(-1, keepdim=True).pow(-1.0 / p)
    return torch.where(x < 0, -v * r, v * r).to(x.dtype)


def _ellipsoid(b: Tensor, w: Tensor) -> Tensor:
    """Return v for p = 2, also where the largest weight meets only zeros (the hard case of trust regions)."""
    share = w / w.amax(-1, keepdim=True)

    def at(rest: Tensor) -> Tensor:  # 1 - mu w, by what is left of one for the largest weight
        return (b / ((1.0 - share) + rest * share)).nan_to_num(nan=0.0)

    def excess(rest: Tensor) -> Tensor:
        return 1.0 - (w * at(rest) ** 2).sum(-1, keepdim=True).rsqrt()

    first = w.argmax(-1, keepdim=True)
    least = (w.gather(-1, first).sqrt() * b.gather(-1, first)).clamp_min(torch.finfo(b.dtype).tiny)
    v = at(root(lambda log: excess(log.exp()), torch.zeros_like(least), least.log() - 1e-9).exp())
    spare = 1.0 - (w * v**2).sum(-1, keepdim=True)
    filled = v.scatter(-1, first, (spare.clamp_min(0.0) / w.gather(-1, first)).sqrt())
    return torch.where((spare > 1e-9) & (v.gather(-1, first) == 0), filled, v)


def _round(b: Tensor, w: Tensor, p: float) -> Tensor:
    """Return v for 1 < p < 2: every coordinate moves outwards, and the multiplier is unique."""

    def at(mu: Tensor) -> Tensor:
        force = mu * w
        v = b + force ** (1.0 / (2.0 - p))
        for _ in range(STEPS):
            power = force * v ** (p - 1.0)
            step = ((v - power - b) / (1.0 - (p - 1.0) * power / v)).nan_to_num(nan=0.0)
            v = v - step
            if bool((step.abs() <= 4e-16 * v.abs()).all()):
                break
        return v

    def excess(mu: Tensor) -> Tensor:
        return 1.0 - (w * at(mu) ** p).sum(-1, keepdim=True).pow(-1.0 / p)

    last = w.amax(-1, keepdim=True) ** (-2.0 / p)
    return at(root(excess, torch.zeros_like(last), last))


def _pointed(b: Tensor, w: Tensor, p: float) -> Tensor:
    """Return v for p > 2: at most one coordinate lies beyond the bend of its equation, the others before it.

    The candidates form a path along the value of that one coordinate, on which the norm need not be monotone: every
    crossing of the surface is found, and the nearest one counts. Without weights that coordinate is the largest.
    """
    if bool((w == w[:, :1]).all()):
        return _best_crossing(b, w, b.argmax(-1, keepdim=True), p)[0]
    best, distance = _best_crossing(b, w, torch.zeros_like(b[:, :1], dtype=torch.int64), p)
    for k in range(1, b.shape[-1]):
        v, far = _best_crossing(b, w, torch.full_like(b[:, :1], k, dtype=torch.int64), p)
        best, distance = torch.where(far < distance, v, best), torch.minimum(far, distance)
    return best


def _best_crossing(b: Tensor, w: Tensor, k: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return the nearest point of the path along coordinate k (b, 1) with norm one, and half its squared distance."""
    last = w.gather(-1, k) ** (-1.0 / p)
    first = torch.maximum(b.gather(-1, k), 1e-3 * last)
    parts = torch.linspace(0.0, 1.0, GRID + 1, dtype=b.dtype, device=b.device)[:, None, None]
    places = first + (last - first) * parts
    excess = _excess(b, w, k, p, places)
    excess[-1] = torch.where(excess[-1].isnan(), torch.nan, 0.0)  # on the surface, whatever is rounded
    interval, row, _ = (((excess[:-1] < 0) & (excess[1:] >= 0)) | ((excess[:-1] >= 0) & (excess[1:] < 0))).nonzero(
        as_tuple=True
    )
    best = b.clone()  # on the surface but for rounding, where nothing is crossed
    b, w, k, rises = b[row], w[row], k[row], torch.where(excess[interval, row] < 0, 1.0, -1.0)
    s = root(lambda s: rises * _excess(b, w, k, p, s), places[interval, row], places[interval + 1, row])
    v = _path(b, w, k, p, s)
    far = 0.5 * (v - b).square().sum(-1)
    distance = torch.full_like(last[:, 0], torch.inf).scatter_reduce(0, row, far, "amin")
    nearest = far == distance[row]
    best[row[nearest]] = v[nearest]
    return best, distance[:, None]


def _path(b: Tensor, w: Tensor, k: Tensor, p: float, s: Tensor) -> Tensor:
    """Return the candidates whose coordinate k is ``s`` (..., b, 1): their multiplier follows from it."""
    own = s * torch.nn.functional.one_hot(k[:, 0], b.shape[-1])
    mu = ((s - b.gather(-1, k)) / (w.gather(-1, k) * s ** (p - 1.0))).clamp_min(0.0)
    return torch.where(own > 0, own, _before_the_bend(b, w, mu, p))


def _excess(b: Tensor, w: Tensor, k: Tensor, p: float, s: Tensor) -> Tensor:
    return 1.0 - (w * _path(b, w, k, p, s) ** p).sum(-1, keepdim=True).pow(-1.0 / p)


def _before_the_bend(b: Tensor, w: Tensor, mu: Tensor, p: float) -> Tensor:
    """Return the smaller roots of ``v - mu w v^(p - 1) = b``, NaN where there is none."""
    force = mu * w
    v = b.expand_as(force)
    for _ in range(STEPS):
        power = force * v ** (p - 1.0)
        slope = 1.0 - (p - 1.0) * (power / v).nan_to_num(nan=0.0)
        step = (b + power - v) / slope
        v = torch.where(slope > 0, v + step, v)
        if bool(((step.abs() <= 4e-16 * v.abs()) | (slope <= 0)).all()):
            break
    return torch.where(slope > 0, v, torch.nan)
