"""Pooling of numbers with its own derivative: the minimum in blocks of rows, the gradient in one more pass."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._checks import unusable
from ._convex import pool_convex
from ._kernels import Kernels, pools_of
from ._modes import pool_modes
from ._penalties import AbstractPenalty, Barron, Huber, Quadratic, TruncatedQuadratic, weighted
from ._problem import CONVEX
from ._rows import Rows
from ._truncated import pool_truncated

CANCELLED = {torch.float32: 1e-4, torch.float64: 1e-11}
"""A sum of curvatures below this part of the sum of their sizes is lost in rounding."""
Gradients = Sequence[Tensor | None]
"""Where gradients are written: for points, weights, alpha and shape, None where not wanted."""


def minimise(penalty: AbstractPenalty, rows: Rows, kernels: Kernels | None = None) -> tuple[Tensor, Tensor]:
    """Return the pooled value of every row in double precision, and the gap left to the global minimum, (rows,).

    The gap is that of :func:`pool_modes`, zero for penalties that are solved exactly.
    """
    solver = _solver(penalty, kernels)
    # what sorts holds ten times the points that it works on
    parts = [solver(block) for _, block in rows.blocks(parts=1 if penalty.name in CONVEX else 8)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return rows.alpha[:, 0], rows.alpha[:, 0]
    return torch.cat([u for u, _ in parts]), torch.cat([gap for _, gap in parts])


def _solver(penalty: AbstractPenalty, kernels: Kernels | None) -> Callable[[Rows], tuple[Tensor, Tensor]]:
    bounds = penalty.bounds
    if bounds is not None:
        return lambda rows: pool_modes(penalty, bounds, rows.wide(), kernels)
    if isinstance(penalty, Quadratic):
        return lambda rows: _exact(_mean(rows))
    if isinstance(penalty, TruncatedQuadratic):
        return lambda rows: _exact(pool_truncated(rows.wide(), kernels))
    return lambda rows: _exact(pool_convex(penalty, rows, kernels))


def _exact(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return a solution with the gap that it leaves, none."""
    return u, torch.zeros_like(u)


def _mean(rows: Rows) -> Tensor:
    mean = weighted(rows.x.double(), rows.weights).sum(-1) / rows.total
    return rows.clamp(mean)


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
    failed = None
    if bool(bad.any()):
        failed = bad & (cotangent != 0.0)
        rows, u, cotangent = rows.without(bad), u.nan_to_num(nan=0.0), cotangent.masked_fill(bad, 0.0)
    if wanted[3]:
        rows, kernels = rows.wide(), None  # no kernel knows of the shape
    full = [torch.empty_like(rows.x) if want else None for want in wanted[:2]]
    single = [torch.empty_like(rows.alpha) if want else None for want in wanted[2:]]
    grads = [*full, *single]
    for where, block in rows.blocks(parts=4):
        into = [None if grad is None else grad[where] for grad in grads]
        given = penalty, block, u[where], cotangent[where], into
        if kernels is None:
            _block(*given)
        else:
            _by_kernel(*given, kernels)
    if failed is not None:
        for grad in grads:
            if grad is not None:
                grad[failed] = torch.nan
    return grads


def _by_kernel(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, into: Gradients, kernels: Kernels
) -> None:
    """Do what :func:`_block` does, which is left to it where curvatures cancel."""
    points, weights, alpha, _ = into
    scale, weak = kernels.pull(pools_of(penalty, rows), u, cotangent, (points, weights))
    if alpha is not None:
        alpha.copy_(scale[:, None])
    if bool(weak.any()):
        some = rows[weak].wide()
        found = [
            None if grad is None else torch.empty_like(grad[weak], dtype=torch.promote_types(grad.dtype, some.x.dtype))
            for grad in into
        ]
        _block(penalty, some, u[weak], cotangent[weak], found)
        for grad, part in zip(into, found, strict=True):
            if grad is not None and part is not None:
                grad[weak] = part.to(grad.dtype)


def _block(penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, into: Gradients) -> None:
    """Write the gradients of a block of rows."""
    points, weights, alpha, shape = into
    t = rows.residuals(u)
    curvature = penalty.curvature(t, out=points)
    if rows.weights is not None:
        curvature.mul_(rows.weights)
    sums = curvature.sum(-1, keepdim=True)
    moment = sums if alpha is None else t.mul_(curvature).sum(-1, keepdim=True).double()
    # written so that NaN, which comes of overflow, counts as weak too
    weak = ~((sums > CANCELLED[t.dtype] * _size(penalty, curvature, sums)) & moment.isfinite())
    sums = sums.double()
    total = sums
    if bool(weak.any()):
        total, sums, moment = _repair(penalty, rows, u, curvature, (sums, moment), weak[:, 0].nonzero()[:, 0])
    scale = cotangent[:, None] / sums
    if points is not None:
        points.mul_(scale.to(t.dtype))
    if alpha is not None:
        # the mean does not depend on alpha
        torch.mul(scale, 0.0 if isinstance(penalty, Quadratic) else -moment, out=alpha)
    if weights is None and shape is None:
        return
    scale = cotangent[:, None] / total * rows.alpha
    if alpha is not None:
        t = rows.residuals(u, t)
    if shape is not None:
        assert isinstance(penalty, Barron)
        moved = weighted(penalty.shape_slope(t), rows.weights)
        torch.mul(moved.sum(-1, keepdim=True, dtype=torch.float64), scale, out=shape)
    if weights is not None:
        torch.mul(penalty.slope(t), scale.to(t.dtype), out=weights)


def _size(penalty: AbstractPenalty, curvature: Tensor, total: Tensor) -> Tensor:
    return total if penalty.bounds is None else curvature.abs().sum(-1, keepdim=True)


def _repair(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, curvature: Tensor, sums: tuple[Tensor, Tensor], weak: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take some rows again in double precision, and let points share where curvatures cancel there too.

    Args:
        penalty: the penalty.
        rows: the points.
        u: the pooled values.
        curvature: of the points, (rows, n); the shares of the points take its place in the rows that are weak.
        sums: of the curvatures, and of these times t, (rows, 1) each.
        weak: which rows, as indices.

    Returns:
        The sums of the curvatures, of what is now in ``curvature``, and of that times t, (rows, 1) each.
    """
    total, moment = (part.clone() for part in sums)
    some, u = rows[weak].double(), u[weak]
    z = some.x - u[:, None]
    # the result may be a point but for its rounding, which may be longer than alpha
    z[z.abs() <= 2.0 * torch.finfo(rows.x.dtype).eps * u.abs()[:, None]] = 0.0
    t = (z * some.unit).clamp_(-1e150, 1e150)
    share = weighted(penalty.curvature(t), some.weights)
    whole = share.sum(-1, keepdim=True)
    lost = ~(whole > CANCELLED[t.dtype] * _size(penalty, share, whole))[:, 0]
    total[weak] = whole
    if bool(lost.any()):
        share[lost], total[weak[lost]] = _share(penalty, some[lost], z[lost], t[lost])
    share /= share.sum(-1, keepdim=True)
    curvature[weak] = share.to(curvature.dtype)
    moment[weak] = (share * t).sum(-1, keepdim=True).to(moment.dtype)
    return total, total.index_fill(0, weak, 1.0), moment


def _share(penalty: AbstractPenalty, rows: Rows, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return how the points share in a solution whose second derivative vanishes, and the sum, (rows, n) and (rows, 1).

    Huber's is the middle between the two neighbouring points: these share equally. For any other penalty the derivative
    is infinite or lost in rounding: the points share as in the weighted mean that the solution is, or where even that
    is lost, it is the nearest point.
    """
    distance = z.abs() if rows.weights is None else torch.where(rows.weights > 0, z.abs(), torch.inf)
    if not isinstance(penalty, Huber):
        share = weighted(penalty.weight(t), rows.weights)
        nearest = (distance <= distance.amin(-1, keepdim=True)).double()
        share = torch.where(share.sum(-1, keepdim=True) > 0, share, nearest)
        return share, share.sum(-1, keepdim=True)
    share = torch.zeros_like(z)
    for side in (z < 0, z > 0):
        near = torch.where(side, distance, torch.inf)
        nearest = (side & (near <= near.amin(-1, keepdim=True))).double()
        share += 0.5 * nearest / nearest.sum(-1, keepdim=True).clamp_min(1.0)
    return share, share.sum(-1, keepdim=True)


def mean(x: Tensor, alpha: Tensor, throw: bool) -> Tensor:
    """Return the mean over the last dimension, which torch differentiates."""
    y = x.mean(-1)
    if not math.isfinite(y.detach().sum().item()):
        bad = unusable(x, None, alpha, x.shape[:-1], throw)
        y = torch.where(y.isfinite(), y, x.double().mean(-1).to(y.dtype))  # a sum of huge numbers may overflow
        y = y if bad is None else y.masked_fill(bad.reshape(y.shape), torch.nan)
    return y
