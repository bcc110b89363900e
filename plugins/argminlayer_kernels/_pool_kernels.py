# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Fused kernels of robust pooling: descent to a minimum, sums over the points at many places, and the derivative.

A program computes in ``WIDE``, float32 or float64, whatever the points are stored in. A row of up to ``BLOCK`` points
belongs to one program, which reads it once and keeps it on the chip, for all steps of a descent too. Of a longer row
every program has a part: ``moments`` and ``spread`` are the two halves of a step, and of the derivative.
"""

import triton
import triton.language as tl


@triton.jit
def terms(t, PENALTY: tl.constexpr, shape):
    """Return value, weight (slope over t) and curvature of a penalty at residuals in units of alpha."""
    square = t * t
    if PENALTY == "quadratic":
        return 0.5 * square, square * 0.0 + 1.0, square * 0.0 + 1.0
    elif PENALTY == "pseudo-huber":
        root = tl.sqrt(1.0 + square)
        weight = 1.0 / root
        return square / (1.0 + root), weight, weight * weight * weight
    elif PENALTY == "huber":
        size = tl.abs(t)
        inside = size <= 1.0
        weight = 1.0 / tl.maximum(size, 1.0)
        return tl.where(inside, 0.5 * square, size - 0.5), weight, tl.where(inside, 1.0, 0.0)
    elif PENALTY == "welsch":
        weight = tl.exp(-0.5 * square)
        return 1.0 - weight, weight, weight * (1.0 - tl.minimum(square, 1e4))
    elif PENALTY == "truncated-quadratic":
        inside = tl.where(tl.abs(t) <= 1.0, 1.0, 0.0)
        return 0.5 * tl.minimum(square, 1.0), inside, inside
    elif PENALTY == "geman-mcclure":
        rest = 1.0 / (1.0 + square)
        return 0.5 - 0.5 * rest, rest * rest, rest * rest * (4.0 * rest - 3.0)
    else:
        room = 2.0 - shape
        rest = 1.0 / (1.0 + square / room)
        growth = -tl.log(rest)
        weight = tl.exp((0.5 * shape - 1.0) * growth)
        flat = tl.abs(shape) < 1e-4
        half = tl.where(flat, 1.0, 0.5 * shape)
        near = growth + 0.25 * shape * growth * growth
        value = 0.5 * room * tl.where(flat, near, (tl.exp(half * growth) - 1.0) / half)
        return value, weight, weight * (shape - 1.0 + room * rest)


@triton.jit
def points(x_ptr, weight_ptr, at, n, WEIGHTED: tl.constexpr, WIDE: tl.constexpr):
    """Return points of a row and their weights, zero beyond its end."""
    x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
    w = tl.where(at < n, 1.0, 0.0).to(WIDE)
    if WEIGHTED:
        w = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(WIDE)
    return x, w


@triton.jit
def descend(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    step_ptr,
    curvature_ptr,
    shape,
    n,
    short,
    STEPS: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Descend from ``u`` by Newton's method, in a bracket that the signs of the slope narrow.

    Where the curvature is small or negative the step is to the weighted mean. Ends when a step is shorter than
    ``short`` in units of alpha. Writes the last place, the step from there, and the curvature.
    """
    row = tl.program_id(0).to(tl.int64)
    x, w = points(x_ptr + row * n, weight_ptr + row * n, tl.arange(0, BLOCK), n, WEIGHTED, WIDE)
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    u = tl.load(u_ptr + row).to(WIDE)
    low = tl.full((), -float("inf"), WIDE)
    high = tl.full((), float("inf"), WIDE)
    step = tl.full((), float("inf"), WIDE)
    bend = tl.full((), 0.0, WIDE)
    taken = 0
    while (taken < STEPS) & (tl.abs(step) > short * alpha):
        u += tl.where(taken > 0, step, 0.0)
        t = (x - u) / alpha
        _, weight, curvature = terms(t, PENALTY, shape)
        slope = tl.sum(w * weight * t, 0)
        mass = tl.sum(w * weight, 0)
        bend = tl.sum(w * curvature, 0)
        low = tl.where(slope >= 0, tl.maximum(low, u), low)
        high = tl.where(slope <= 0, tl.minimum(high, u), high)
        steep = tl.where(bend > 1e-3 * mass, bend, mass)
        step = tl.where(slope == 0, 0.0, alpha * (slope / tl.where(steep > 0, steep, 1.0)))
        inside = (u + step >= low) & (u + step <= high)
        step = tl.where(inside, step, 0.5 * (low + high) - u)
        taken += 1
    tl.store(u_ptr + row, u)
    tl.store(step_ptr + row, step)
    tl.store(curvature_ptr + row, bend)


@triton.jit
def sums(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    value_ptr,
    slope_ptr,
    shape,
    n,
    m,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    """Sum values and slopes over the points of a row at a tile of the places ``u`` (rows, m)."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)
    x_ptr += row * n
    weight_ptr += row * n
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    u = tl.load(u_ptr + row * m + place, mask=place < m, other=0.0).to(WIDE)
    values = tl.zeros((TILE,), WIDE)
    slopes = tl.zeros((TILE,), WIDE)
    for start in range(0, n, BLOCK):
        x, w = points(x_ptr, weight_ptr, start + tl.arange(0, BLOCK), n, WEIGHTED, WIDE)
        t = (x[None, :] - u[:, None]) / alpha
        value, weight, _ = terms(t, PENALTY, shape)
        values += tl.sum(w[None, :] * value, 1)
        slopes += tl.sum(w[None, :] * weight * t, 1)
    tl.store(value_ptr + row * m + place, values, mask=place < m)
    tl.store(slope_ptr + row * m + place, slopes, mask=place < m)


@triton.jit
def moments(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    parts_ptr,
    shape,
    n,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum over a part of a row, at ``u``: slope, weight, curvature, its size, and curvature times t.

    Writes five sums for each row and part, (rows, parts, 5).
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x, w = points(x_ptr + row * n, weight_ptr + row * n, at, n, WEIGHTED, WIDE)
    t = (x - tl.load(u_ptr + row).to(WIDE)) / tl.load(alpha_ptr + row).to(WIDE)
    _, weight, curvature = terms(t, PENALTY, shape)
    parts_ptr += (row * tl.num_programs(1) + tl.program_id(1)) * 5
    tl.store(parts_ptr, tl.sum(w * weight * t, 0))
    tl.store(parts_ptr + 1, tl.sum(w * weight, 0))
    tl.store(parts_ptr + 2, tl.sum(w * curvature, 0))
    tl.store(parts_ptr + 3, tl.sum(w * tl.abs(curvature), 0))
    tl.store(parts_ptr + 4, tl.sum(w * curvature * t, 0))


@triton.jit
def spread(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    scale_ptr,
    points_ptr,
    weights_ptr,
    shape,
    n,
    POINTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients for a part of a row's points and weights; ``scale`` is the cotangent over the curvature."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x, w = points(x_ptr + row * n, weight_ptr + row * n, at, n, WEIGHTED, WIDE)
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    scale = tl.load(scale_ptr + row).to(WIDE)
    t = (x - tl.load(u_ptr + row).to(WIDE)) / alpha
    _, weight, curvature = terms(t, PENALTY, shape)
    if POINTS:
        tl.store(points_ptr + row * n + at, w * curvature * scale, mask=at < n)
    if WEIGHTS:
        tl.store(weights_ptr + row * n + at, weight * t * (alpha * scale), mask=at < n)


@triton.jit
def pull(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    cotangent_ptr,
    points_ptr,
    weights_ptr,
    sums_ptr,
    shape,
    n,
    POINTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pull the cotangent of a row back to its points and weights, in one pass.

    Writes the sums of the curvatures, of their sizes, and of the curvatures times t too, (rows, 3).
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    x, w = points(x_ptr + row * n, weight_ptr + row * n, at, n, WEIGHTED, WIDE)
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    t = (x - tl.load(u_ptr + row).to(WIDE)) / alpha
    _, weight, curvature = terms(t, PENALTY, shape)
    total = tl.sum(w * curvature, 0)
    scale = tl.load(cotangent_ptr + row).to(WIDE) / total
    if POINTS:
        tl.store(points_ptr + row * n + at, w * curvature * scale, mask=at < n)
    if WEIGHTS:
        tl.store(weights_ptr + row * n + at, weight * t * (alpha * scale), mask=at < n)
    tl.store(sums_ptr + row * 3, total)
    tl.store(sums_ptr + row * 3 + 1, tl.sum(w * tl.abs(curvature), 0))
    tl.store(sums_ptr + row * 3 + 2, tl.sum(w * curvature * t, 0))


@triton.jit
def found(t_ptr, value, n, BITS: tl.constexpr, AFTER: tl.constexpr):
    """Return how many of the sorted ``t`` are below each value, or (``AFTER``) not above it."""
    low = value.to(tl.int32) * 0
    high = low + n
    for _ in range(BITS):
        middle = (low + high) // 2
        there = tl.load(t_ptr + middle, mask=low < high, other=0.0)
        if AFTER:
            below = there <= value
        else:
            below = there < value
        low, high = tl.where((low < high) & below, middle + 1, low), tl.where((low < high) & ~below, middle, high)
    return low


@triton.jit
def cost(sums_ptr, squares_ptr, weights_ptr, first, last, here, WEIGHTED: tl.constexpr):
    """Return the scatter of the windows ``first <= i < last`` of a row less their weight."""
    w = (last - first).to(tl.float64)
    if WEIGHTED:
        w = tl.load(weights_ptr + last, mask=here, other=0.0) - tl.load(weights_ptr + first, mask=here, other=0.0)
    d = tl.load(sums_ptr + last, mask=here, other=0.0) - tl.load(sums_ptr + first, mask=here, other=0.0)
    dd = tl.load(squares_ptr + last, mask=here, other=0.0) - tl.load(squares_ptr + first, mask=here, other=0.0)
    scatter = tl.maximum(dd - d * d / tl.where(w > 0, w, 1.0), 0.0)
    return tl.where(w > 0, scatter - w, 0.0)


@triton.jit
def windows(
    t_ptr,
    sums_ptr,
    squares_ptr,
    weights_ptr,
    limit_ptr,
    least_ptr,
    chosen_ptr,
    n,
    BITS: tl.constexpr,
    CHOOSE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Look at the sets of inliers of the truncated quadratic that a part of a row's points begins or ends.

    A point ends the window of all points up to 2 below it, and the one after it begins that of all up to 2 above it.
    Writes the least cost of these windows, or (``CHOOSE``) the first point of the leftmost whose cost is at most the
    ``limit`` of the row, times n + 1, plus the one after its last point.
    """
    row = tl.program_id(0).to(tl.int64)
    part = row * tl.num_programs(1) + tl.program_id(1)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    t_ptr += row * n
    sums_ptr += row * (n + 1)
    squares_ptr += row * (n + 1)
    weights_ptr += row * (n + 1)
    t = tl.load(t_ptr + at, mask=here, other=0.0)
    first = found(t_ptr, t - 2.0, n, BITS, False)
    last = found(t_ptr, t + 2.0, n, BITS, True)
    gained = cost(sums_ptr, squares_ptr, weights_ptr, first, at + 1, here, WEIGHTED)
    lost = cost(sums_ptr, squares_ptr, weights_ptr, at + 1, last, here, WEIGHTED)
    if CHOOSE:
        limit = tl.load(limit_ptr + row)
        size = (n + 1).to(tl.int64)
        none = size * size
        one = tl.where(here & (gained <= limit), first.to(tl.int64) * size + at + 1, none)
        other = tl.where(here & (lost <= limit), (at + 1).to(tl.int64) * size + last, none)
        tl.store(chosen_ptr + part, tl.minimum(tl.min(one, 0), tl.min(other, 0)))
    else:
        costs = tl.where(here, tl.minimum(gained, lost), float("inf"))
        tl.store(least_ptr + part, tl.min(costs, 0))
