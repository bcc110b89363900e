"""Pooling of numbers with its own derivative: the minimum in blocks of rows, the gradient in one more pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._checks import unusable
from ._convex import pool_convex
from ._modes import pool_modes
from ._penalties import AbstractPenalty, Barron, Huber, Quadratic, TruncatedQuadratic, barron_cost, penalty_of, weighted
from ._rows import Rows
from ._truncated import pool_truncated

CANCELLED = 1e-7
"""A sum of curvatures below this part of the sum of their sizes does not say how the solution moves."""


def minimise(penalty: AbstractPenalty, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the pooled value of every row in double precision, and the gap left to the global minimum, (rows,).

    The gap is that of :func:`pool_modes`, zero for penalties that are solved exactly.
    """
    u, gap = torch.empty_like(rows.alpha[:, 0]), torch.zeros_like(rows.alpha[:, 0])
    solver = _solver(penalty)
    for where, block in rows.blocks():
        u[where], gap[where] = solver(block)
    # rounding never leads out of the range of the points
    return u.clamp(rows.x.amin(-1).double(), rows.x.amax(-1).double()), gap


def _solver(penalty: AbstractPenalty) -> Callable[[Rows], tuple[Tensor, Tensor | float]]:
    bounds = penalty.bounds
    if isinstance(penalty, Quadratic):
        return lambda rows: (_mean(rows), 0.0)
    if isinstance(penalty, TruncatedQuadratic):
        return lambda rows: (pool_truncated(rows), 0.0)
    if bounds is None:
        return lambda rows: (pool_convex(penalty, rows), 0.0)
    return lambda rows: pool_modes(penalty, bounds, rows)


def _mean(rows: Rows) -> Tensor:
    return weighted(rows.x.double(), rows.weights).sum(-1) / rows.total


def derivative(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, wanted: tuple[bool, bool, bool, bool]
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
    for where, block in rows.blocks():
        for grad, part in zip(grads, _block(penalty, block, u[where], cotangent[where], wanted), strict=True):
            if grad is not None and part is not None:
                grad[where] = part
    for grad in grads:
        if grad is not None:
            grad[failed] = torch.nan
    return grads


def _block(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, wanted: tuple[bool, bool, bool, bool]
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
        alpha = -(curvature * t).sum(-1, keepdim=True, dtype=torch.float64) * scale
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


class Pool(torch.autograd.Function):
    """``(x, weights, alpha, shape, name, throw) -> (y, u)``: the pooled values in the precision of x and in double.

    ``x`` (..., n) and ``weights`` (..., n) or None; ``alpha`` (...) and ``shape`` (one number, or None). An instance
    that cannot be pooled is an error with ``throw``, else NaN.
    """

    @staticmethod
    def forward(
        x: Tensor, weights: Tensor | None, alpha: Tensor, shape: Tensor | None, name: str, throw: bool
    ) -> tuple[Tensor, Tensor]:
        """Pool."""
        rows, batch = as_rows(x, weights, alpha)
        bad = unusable(x, weights, alpha, batch, throw)
        if bad is not None:
            rows = rows.without(bad)
        u, _ = minimise(penalty_of(name, shape), rows)
        if bad is not None:
            u[bad] = torch.nan
        u = u.reshape(batch)
        return u.to(x.dtype, copy=True), u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what the derivative needs."""
        x, weights, alpha, shape, name, _ = inputs
        y, u = output
        ctx.name = name
        ctx.mark_non_differentiable(u)
        ctx.save_for_backward(x, weights, alpha, shape, y, u)
        ctx.save_for_forward(x, weights, alpha, shape, y, u)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Pull a cotangent back; differentiable where that is asked for."""
        x, weights, alpha, shape, y, u = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        given = (x, weights, alpha, shape)
        found = differentiable(ctx.name, given, y, cotangent, wanted) if torch.is_grad_enabled() else None
        if found is None and torch._C._functorch.peek_interpreter_stack() is not None:
            found = mappable(ctx.name, given, u, cotangent, wanted)
        if found is not None:
            return (*found, None, None)
        rows, batch = as_rows(x, weights, alpha)
        grads = derivative(penalty_of(ctx.name, shape), rows, u.reshape(-1), cotangent.reshape(-1).double(), wanted)
        cores = (x.shape[-1:], x.shape[-1:], (), ())
        shaped = (
            None if g is None else g.reshape(batch + torch.Size(core)).sum_to_size(p.shape).to(p.dtype)
            for g, p, core in zip(grads, given, cores, strict=True)
        )
        return (*shaped, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        """Push tangents forward."""
        x, weights, alpha, shape, y, u = ctx.saved_tensors
        rows, batch = as_rows(x, weights, alpha)
        wanted = tuple(tangent is not None for tangent in tangents[:4])
        ones = torch.ones_like(u).reshape(-1)
        grads = derivative(penalty_of(ctx.name, shape), rows, u.reshape(-1), ones, wanted)  # type: ignore[arg-type]
        total = torch.zeros_like(y)
        for grad, tangent, core in zip(grads, tangents, (x.shape[-1:], x.shape[-1:], (), ()), strict=False):
            if grad is not None and tangent is not None:
                product = grad.reshape(batch + torch.Size(core)) * tangent
                total = total + (product.sum(-1) if core else product).to(y.dtype)
        return total, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Pool a further batch dimension along with the others."""
        del info
        x, weights, alpha, shape, name, throw = inputs
        moved = [p if d is None else p.movedim(d, 0) for p, d in zip(inputs[:4], in_dims[:4], strict=True)]
        mapped = [d is not None for d in in_dims[:3]]
        cores = (1, 1, 0)
        lead = max(p.ndim - m - core for p, m, core in zip(moved[:3], mapped, cores, strict=True) if p is not None)
        x, weights, alpha = (
            p if p is None or not m else p.reshape(p.shape[:1] + (1,) * (lead + 1 + core - p.ndim) + p.shape[1:])
            for p, m, core in zip(moved[:3], mapped, cores, strict=True)
        )
        return Pool.apply(x, weights, alpha, shape, name, throw), (0, 0)  # type: ignore[no-untyped-call]


def as_rows(x: Tensor, weights: Tensor | None, alpha: Tensor) -> tuple[Rows, torch.Size]:
    """Return the instances as rows in the precision they are worked in, and the shape of the batch."""
    n = x.shape[-1]
    given = [x.shape[:-1], alpha.shape, *([] if weights is None else [weights.shape[:-1]])]
    batch = torch.broadcast_shapes(*given)
    dtype = torch.promote_types(x.dtype, torch.float32)

    def flat(p: Tensor, core: tuple[int, ...]) -> Tensor:
        return p.detach().expand(batch + core).reshape(-1, *(core or (1,)))

    scaled = None if weights is None else flat(weights.to(dtype), (n,))
    return Rows(flat(x.to(dtype), (n,)), scaled, flat(alpha.double(), ())), batch


def mappable(
    name: str, given: tuple[Tensor | None, ...], u: Tensor, cotangent: Tensor, wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    """Return the gradients without looking at a value, which ``vmap`` does not allow; as :func:`derivative` else."""
    x, weights, alpha, shape = given
    assert x is not None
    assert alpha is not None
    penalty, scale = penalty_of(name, shape), alpha[..., None]
    t = (x - u[..., None].to(x.dtype)) / scale
    curvature = weighted(penalty.curvature(t), weights)
    factor = cotangent[..., None] / curvature.sum(-1, keepdim=True)
    points = curvature * factor
    shaped = penalty.shape_slope(t) if isinstance(penalty, Barron) else torch.zeros_like(t)
    grads = (
        points,
        penalty.slope(t) * scale * factor,
        -(points * t).sum(-1),
        (weighted(shaped, weights) * scale * factor).sum(-1),
    )
    return [
        g.sum_to_size(p.shape) if want and p is not None else None
        for g, p, want in zip(grads, given, wanted, strict=True)
    ]


def differentiable(
    name: str, given: tuple[Tensor | None, ...], y: Tensor, cotangent: Tensor, wanted: tuple[bool, ...]
) -> list[Tensor | None] | None:
    """Return the gradients as torch functions of all they depend on, the solution too; None if nothing is tracked."""
    with torch.enable_grad():
        # aliases: a derivative at a fixed solution must not follow the solution back to the points
        x, weights, alpha, shape = (None if p is None else p.view_as(p) for p in given)
        assert x is not None
        assert alpha is not None
        aliases = zip((x, weights, alpha, shape), wanted, strict=True)
        asked = [p if want and p is not None and p.requires_grad else None for p, want in aliases]
        there = [p for p in asked if p is not None]
        if not there:
            return None
        u = y.view_as(y)
        squares, scale = (x - u[..., None]).square(), alpha[..., None]
        costs = penalty_of(name).cost(squares, scale) if shape is None else barron_cost(squares, scale, shape)
        total = weighted(costs, weights).sum()
        (slope,) = torch.autograd.grad(total, u, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), u, create_graph=True)
        found = iter(torch.autograd.grad(slope, there, -cotangent / curvature, create_graph=True, allow_unused=True))
    return [None if p is None else next(found) for p in asked]


def mean(x: Tensor, alpha: Tensor, throw: bool) -> Tensor:
    """Return the mean over the last dimension, which torch differentiates."""
    y = x.mean(-1)
    if not bool(y.isfinite().all()):
        bad = unusable(x, None, alpha, x.shape[:-1], throw)
        y = torch.where(y.isfinite(), y, x.double().mean(-1).to(y.dtype))  # a sum of huge numbers may overflow
        y = y if bad is None else y.masked_fill(bad.reshape(y.shape), torch.nan)
    return y
