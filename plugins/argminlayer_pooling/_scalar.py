"""Pooling of numbers with its own derivative: the minimum in blocks of rows, the gradient in one more pass."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._checks import unusable
from ._convex import pool_convex
from ._kernels import Kernels, shape_of
from ._modes import pool_modes
from ._penalties import AbstractPenalty, Barron, Huber, Quadratic, TruncatedQuadratic, weighted
from ._rows import Rows
from ._truncated import pool_truncated

CANCELLED = 1e-7
"""A sum of curvatures below this part of the sum of their sizes does not say how the solution moves."""


def minimise(penalty: AbstractPenalty, rows: Rows, kernels: Kernels | None = None) -> tuple[Tensor, Tensor]:
    """Return the pooled value of every row in double precision, and the gap left to the global minimum, (rows,).

    The gap is that of :func:`pool_modes`, zero for penalties that are solved exactly.
    """
    u, gap = torch.empty_like(rows.alpha[:, 0]), torch.zeros_like(rows.alpha[:, 0])
    solver = _solver(penalty, kernels)
    for where, block in rows.blocks():
        u[where], gap[where] = solver(block)
    # rounding never leads out of the range of the points
    return u.clamp(rows.x.amin(-1).double(), rows.x.amax(-1).double()), gap


def _solver(penalty: AbstractPenalty, kernels: Kernels | None) -> Callable[[Rows], tuple[Tensor, Tensor | float]]:
    bounds = penalty.bounds
    if isinstance(penalty, Quadratic):
        return lambda rows: (_mean(rows), 0.0)
    if isinstance(penalty, TruncatedQuadratic):
        return lambda rows: (pool_truncated(rows), 0.0)
    if bounds is None:
        return lambda rows: (pool_convex(penalty, rows, kernels), 0.0)
    return lambda rows: pool_modes(penalty, bounds, rows, kernels)


def _mean(rows: Rows) -> Tensor:
    return weighted(rows.x.double(), rows.weights).sum(-1) / rows.total


def derivative(
    penalty: AbstractPenalty,
    rows: Rows,
    u: Tensor,
    cotangent: Tensor,
    wanted: tuple[bool, ...],
    kernels: Kernels | None = None,
) -> list[Tensor | None]:
    """Return the gradients for points, weights, alpha and shape, of each row its own.

    With ``t = (x - u) / alpha``, ``g_i = w_i rho''(t_i) / sum w rho''`` (Gould, Hartley and Campbell, table 2):

        du/dx = g,   du/dalpha = -sum g t,   du/dw = alpha rho'(t) / sum w rho'',   du/dshape likewise.

    Args:
        penalty: the penalty.
        rows: the points.
        u: the pooled values, (rows,), double; NaN makes gradients NaN where there is a cotangent.
        cotangent: (rows,), double.
        wanted: which gradients are wanted.
        kernels: take over the work on the points.

    Returns:
        (rows, n), (rows, n), (rows, 1), (rows, 1), None where not wanted.
    """
    bad = u.isnan()
    failed = bad & (cotangent != 0.0)
    if bool(bad.any()):
        rows, u, cotangent = rows.without(bad), u.nan_to_num(nan=0.0), cotangent.masked_fill(bad, 0.0)
    full = [torch.empty_like(rows.x) if want else None for want in wanted[:2]]
    single = [torch.empty_like(rows.alpha) if want else None for want in wanted[2:]]
    grads = [*full, *single]

    def part_of(block: Rows, u: Tensor, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        found = None if kernels is None or wanted[3] else _by_kernel(penalty, block, u, cotangent, wanted, kernels)
        return found or _block(penalty, block, u, cotangent, wanted)

    for where, block in rows.blocks():
        for grad, part in zip(grads, part_of(block, u[where], cotangent[where]), strict=True):
            if grad is not None and part is not None:
                grad[where] = part
    for grad in grads:
        if grad is not None:
            grad[failed] = torch.nan
    return grads


def _by_kernel(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, wanted: tuple[bool, ...], kernels: Kernels
) -> tuple[Tensor | None, ...] | None:
    """Return what :func:`_block` does, None where curvatures cancel."""
    points, weights, alpha, weak = kernels.pull(
        penalty.name,
        shape_of(penalty),
        rows.x,
        rows.weights,
        rows.alpha[:, 0],
        u,
        cotangent,
        (wanted[0], wanted[1]),
    )
    return None if bool(weak.any()) else (points, weights, alpha[:, None] if wanted[2] else None, None)


def _block(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    t = rows.residuals(u)
    curvature = weighted(penalty.curvature(t), rows.weights)
    total = curvature.sum(-1, keepdim=True)
    weak = total <= CANCELLED * _size(penalty, curvature, total)
    if bool(weak.any()):
        some = weak[:, 0].nonzero()[:, 0]
        curvature[some], total[some] = (part.to(t.dtype) for part in _share(penalty, rows[some].double(), u[some]))
    dtype = rows.x.dtype
    scale = cotangent[:, None] / total.double()
    points = alpha = weights = shape = None
    if wanted[2]:
        alpha = -torch.linalg.vecdot(curvature, t)[:, None].double() * scale
    if wanted[1]:
        weights = penalty.slope(t).mul_((rows.alpha * scale).to(dtype))
    if wanted[3]:
        assert isinstance(penalty, Barron)
        moved = weighted(penalty.shape_slope(t), rows.weights)
        shape = moved.sum(-1, keepdim=True, dtype=torch.float64) * rows.alpha * scale
    if wanted[0]:
        points = curvature.mul_(scale.to(dtype))
    return points, weights, alpha, shape


def _size(penalty: AbstractPenalty, curvature: Tensor, total: Tensor) -> Tensor:
    return total if penalty.bounds is None else curvature.abs().sum(-1, keepdim=True)


def _share(penalty: AbstractPenalty, rows: Rows, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return how the points share in a solution whose second derivative vanishes, and the sum, (rows, n) and (rows, 1).

    Huber's is the middle between the two neighbouring points: these share equally. For any other penalty the derivative
    is infinite or lost in rounding: the points share as in the weighted mean that the solution is.
    """
    if not isinstance(penalty, Huber):
        share = weighted(penalty.weight(rows.residuals(u).clamp_(-1e150, 1e150)), rows.weights)
        return share, share.sum(-1, keepdim=True)
    z = rows.x - u[:, None]
    distance = z.abs() if rows.weights is None else torch.where(rows.weights > 0, z.abs(), torch.inf)
    share = torch.zeros_like(z)
    for side in (z < 0, z > 0):
        near = torch.where(side, distance, torch.inf)
        nearest = (side & (near <= near.amin(-1, keepdim=True))).double()
        share += 0.5 * nearest / nearest.sum(-1, keepdim=True).clamp_min(1.0)
    return share, share.sum(-1, keepdim=True)


def mean(x: Tensor, alpha: Tensor, throw: bool) -> Tensor:
    """Return the mean over the last dimension, which torch differentiates."""
    y = x.mean(-1)
    if not bool(y.isfinite().all()):
        bad = unusable(x, None, alpha, x.shape[:-1], throw)
        y = torch.where(y.isfinite(), y, x.double().mean(-1).to(y.dtype))  # a sum of huge numbers may overflow
        y = y if bad is None else y.masked_fill(bad.reshape(y.shape), torch.nan)
    return y
