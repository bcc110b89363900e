# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Fused kernels of robust pooling of vectors: all that a step of a descent sums, and the derivative.

A program has a part of the points of one item, all channels of a block of them at a time. Sums are of float32.
"""

import triton
import triton.language as tl

from ._pool_kernels import terms


@triton.jit
def residuals(
    x_ptr,
    weight_ptr,
    u,
    channel,
    at,
    m,
    n,
    alpha,
    shape,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Return x - u (channels, points) of a block, the weights of the points, and value, weight and bend of the penalty.

    With ``size = |x - u| / alpha`` the weight is ``rho' / size``, and the bend ``(rho'' - weight) / size^2``.
    """
    x = tl.load(x_ptr + channel[:, None] * n + at[None, :], mask=(channel < m)[:, None] & (at < n)[None, :], other=0.0)
    w = tl.where(at < n, 1.0, 0.0)
    if WEIGHTED:
        w = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    z = tl.where((channel < m)[:, None], x.to(tl.float32) - u[:, None], 0.0)
    size = tl.sqrt(tl.sum(z * z, 0)) / alpha
    value, weight, curvature = terms(size, PENALTY, shape)
    bend = tl.where(size > 0, (curvature - weight) / tl.maximum(size * size, 1e-30), 0.0)
    return z, w, value, weight, bend


@triton.jit
def look(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    sums_ptr,
    pulls_ptr,
    hessians_ptr,
    shape,
    m,
    n,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HESSIAN: tl.constexpr,
    PART: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum over a part of the points of an item, at ``u`` (m).

    Writes the sums of values and weights, (rows, parts, 2), of weights times x - u, (rows, parts, m), and of bends
    times ``t t'``, (rows, parts, m, m).
    """
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    alpha = tl.load(alpha_ptr + row)
    u = tl.load(u_ptr + row * m + channel, mask=channel < m, other=0.0)
    x_ptr += row * m * n
    weight_ptr += row * n
    value = tl.full((), 0.0, tl.float32)
    mass = tl.full((), 0.0, tl.float32)
    pulled = tl.zeros((CHANNELS,), tl.float32)
    hessian = tl.zeros((CHANNELS, CHANNELS), tl.float32)
    first = tl.program_id(1) * PART
    for start in range(first, tl.minimum(first + PART, n), BLOCK):
        at = start + tl.arange(0, BLOCK)
        z, w, values, weights, bends = residuals(
            x_ptr, weight_ptr, u, channel, at, m, n, alpha, shape, PENALTY, WEIGHTED
        )
        value += tl.sum(w * values, 0)
        mass += tl.sum(w * weights, 0)
        pulled += tl.sum(z * (w * weights)[None, :], 1)
        if HESSIAN:
            t = z / alpha
            hessian += tl.dot(t * (w * bends)[None, :], tl.trans(t), input_precision="ieee")
    part = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums_ptr + part * 2, value)
    tl.store(sums_ptr + part * 2 + 1, mass)
    tl.store(pulls_ptr + part * m + channel, pulled, mask=channel < m)
    if HESSIAN:
        place = channel[:, None] * m + channel[None, :]
        there = (channel < m)[:, None] & (channel < m)[None, :]
        tl.store(hessians_ptr + part * m * m + place, hessian, mask=there)


@triton.jit
def pull(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    v_ptr,
    usable_ptr,
    points_ptr,
    weights_ptr,
    alphas_ptr,
    shape,
    m,
    n,
    WEIGHTS: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    PART: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients for a part of the points and their weights, and its share in that for alpha, (rows, parts).

    ``v`` (m) is the cotangent times the inverse of the second derivative; bends count where that is ``usable``.
    """
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    alpha = tl.load(alpha_ptr + row)
    u = tl.load(u_ptr + row * m + channel, mask=channel < m, other=0.0)
    v = tl.load(v_ptr + row * m + channel, mask=channel < m, other=0.0)
    usable = tl.load(usable_ptr + row)
    x_ptr += row * m * n
    weight_ptr += row * n
    total = tl.full((), 0.0, tl.float32)
    first = tl.program_id(1) * PART
    for start in range(first, tl.minimum(first + PART, n), BLOCK):
        at = start + tl.arange(0, BLOCK)
        z, w, _, weights, bends = residuals(x_ptr, weight_ptr, u, channel, at, m, n, alpha, shape, PENALTY, WEIGHTED)
        t = z / alpha
        along = tl.sum(t * v[:, None], 0)
        points = v[:, None] * (w * weights)[None, :] + t * (usable * w * bends * along)[None, :]
        total += tl.sum(tl.sum(points * t, 0), 0)
        place = row * m * n + channel[:, None] * n + at[None, :]
        tl.store(points_ptr + place, points, mask=(channel < m)[:, None] & (at < n)[None, :])
        if WEIGHTS:
            tl.store(weights_ptr + row * n + at, weights * along * alpha, mask=at < n)
    tl.store(alphas_ptr + row * tl.num_programs(1) + tl.program_id(1), -total)
