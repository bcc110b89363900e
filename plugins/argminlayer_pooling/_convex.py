"""Pooling with a convex penalty: safeguarded Newton steps, and bisection over the sorted points where those fail."""

import math

import torch
from torch import Tensor

from ._kernels import Kernels, pools_of
from ._penalties import AbstractPenalty, Huber, summed
from ._rows import Rows, sort_rows

MOST_STEPS = 16
"""Newton steps from a median before a row is left to bisection; a handful is usual, and more would hardly help."""
MOST_BISECTIONS = 400
"""More than bisection needs between any two doubles."""
FAR = 1e6
"""Rows that spread over more than this many alpha are left to bisection in double precision."""
FLAT = 0.1
"""So are rows whose mean curvature is below this over the root of n: a flat minimum, or one that rounding moves."""
SAMPLE = 64
"""Points of a row whose median is the start."""


def pool_convex(penalty: AbstractPenalty, rows: Rows, kernels: Kernels | None = None) -> Tensor:
    """Return ``argmin_u sum_i w_i phi(x_i - u)`` of a block of rows, (rows,), in double precision.

    Newton's method within a bracket, from the median of a sample. Where it meets trouble (a spread of many orders of
    magnitude, hardly any curvature, no convergence) the row is solved again in double precision, within two
    neighbouring points that bisection over the sorted ones finds. For Huber's penalty, whose slope is linear between
    kinks, both end at the exact solution; where solutions fill an interval, it is the middle of that.
    """
    u, hard = _newton(penalty, rows) if kernels is None else _by_kernel(penalty, rows, kernels)
    if bool(hard.any()):
        where = hard.nonzero()[:, 0]
        u[where] = _bisect(penalty, rows[where].double())
    return u


def _newton(penalty: AbstractPenalty, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return solutions in double precision, and which rows are too hard, (rows,)."""
    dtype = rows.x.dtype
    alpha, eps = rows.alpha[:, 0].to(dtype), torch.finfo(dtype).eps
    low, high = rows.x.amin(-1), rows.x.amax(-1)
    hard = high - low > FAR * alpha
    u, t = _start(rows), torch.empty_like(rows.x)
    # after a step that is this short the next would be shorter than rounding: the error is its square, for a kink zero;
    # one of the rounding of u cannot be shorter
    part = 2.0 * eps if isinstance(penalty, Huber) else 0.1 * eps**0.5
    short = u.abs().mul_(2.0 * eps).add_(alpha, alpha=part).masked_fill_(hard, torch.inf)
    for count in range(MOST_STEPS):
        slope, curvature = penalty.second(rows.residuals(u, t), rows.weights)
        step = slope.div_(curvature).mul_(alpha)
        moves = step.abs().gt_(short)  # one or zero: what has arrived stays where it is
        if count > 1 and not moves.any():
            break
        u = torch.addcmul(u, step, moves).clamp_(low, high)
    solution = (u.double() + step.double()).clamp_(low, high)
    return solution, hard | ~(step.abs() <= short) | _flat(rows, curvature)


def _by_kernel(penalty: AbstractPenalty, rows: Rows, kernels: Kernels) -> tuple[Tensor, Tensor]:
    """Return what :func:`_newton` does."""
    x, alpha, start = rows.x, rows.alpha[:, 0], _start(rows)
    eps = torch.finfo(start.dtype).eps
    short = 0.1 * eps**0.5
    if isinstance(penalty, Huber):
        short = 8.0 * eps * (1.0 + float((start.abs() / alpha).max()))
    u, curvature, settled = kernels.descend(pools_of(penalty, rows), start, short)
    hard = ~settled | (x.amax(-1).double() - x.amin(-1).double() > FAR * alpha) | _flat(rows, curvature)
    if isinstance(penalty, Huber):
        hard |= _alone(rows.wide(), u, 1e-5)
    return rows.clamp(u), hard


def _start(rows: Rows) -> Tensor:
    """Return the median of a sample of each row."""
    sample = rows.x[:, :: -(-rows.x.shape[-1] // SAMPLE)]
    start: Tensor = sample.to(torch.promote_types(sample.dtype, torch.float32)).median(-1).values
    return start


def _flat(rows: Rows, curvature: Tensor) -> Tensor:
    """Return where the minimum is flat, or rounding would move it."""
    return curvature < FLAT / math.sqrt(rows.x.shape[-1]) * rows.total


def _bisect(penalty: AbstractPenalty, rows: Rows) -> Tensor:
    """Return the solutions of rows in double precision, (rows,)."""
    s = sort_rows(rows)
    first = torch.zeros_like(rows.alpha[:, 0], dtype=torch.int64)
    last = torch.full_like(first, s.x.shape[-1] - 1)
    for _ in range(s.x.shape[-1].bit_length()):
        middle = (first + last) // 2
        rising = _pull(penalty, s, s.x.gather(-1, middle[:, None])[:, 0]) > 0
        first, last = torch.where(rising, middle, first), torch.where(rising, last, middle)
    low, high = (s.x.gather(-1, at[:, None])[:, 0] for at in (first, last))
    u = _within(penalty, s, low, high)
    return _middle(s, u, _pull(penalty, s, u)) if isinstance(penalty, Huber) else u


def _within(penalty: AbstractPenalty, rows: Rows, low: Tensor, high: Tensor) -> Tensor:
    """Return the solutions between two bounds: Newton steps where they stay inside, else bisection."""
    alpha = rows.alpha[:, 0]
    u = low + 0.5 * (high - low)
    for _ in range(MOST_BISECTIONS):
        slope = _pull(penalty, rows, u)
        curvature = summed(penalty.curvature(_residuals(rows, u)), rows.weights)
        low, high = torch.where(slope >= 0, u, low), torch.where(slope <= 0, u, high)
        new = u + alpha * (slope / curvature)
        inside = (new >= low) & (new <= high)
        new = torch.where(inside, new, low + 0.5 * (high - low))
        new = torch.where(slope == 0, u, new)
        settled = (new - u).abs() <= torch.finfo(torch.float64).eps * u.abs()
        u = new
        if bool(settled.all()):
            break
    return u


def _residuals(rows: Rows, u: Tensor) -> Tensor:
    return rows.residuals(u).clamp_(-1e150, 1e150)  # whose squares are finite


def _pull(penalty: AbstractPenalty, rows: Rows, u: Tensor) -> Tensor:
    return penalty.pull(_residuals(rows, u), rows.weights)


def _middle(rows: Rows, u: Tensor, pull: Tensor) -> Tensor:
    """Return the middle between the neighbouring points where no point is nearer than alpha, else ``u``.

    The pull of the points on ``u`` must vanish there too: the nearest number to a point may be further away than alpha.
    """
    there = rows.x if rows.weights is None else torch.where(rows.weights > 0, rows.x, torch.nan)
    below = torch.where(there < u[:, None], there, -torch.inf).amax(-1)
    above = torch.where(there > u[:, None], there, torch.inf).amin(-1)
    between = _alone(rows, u, 1e-9) & (pull.abs() <= 1e-12 * rows.total)
    return torch.where(between, 0.5 * below + 0.5 * above, u)


def _alone(rows: Rows, u: Tensor, tolerance: float) -> Tensor:
    """Return where no point that counts is nearer than alpha, up to a tolerance."""
    distance = rows.residuals(u).abs_()
    if rows.weights is not None:
        distance.masked_fill_(rows.weights <= 0, torch.inf)
    return distance.amin(-1) >= 1.0 - tolerance
