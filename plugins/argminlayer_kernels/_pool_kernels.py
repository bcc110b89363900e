# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Fused kernels of robust pooling: descent to a minimum, sums over the points at many places, and the derivative.

One program has one row. It computes in ``WIDE``, float32 or float64, whatever the points are stored in. A row of up to
``BLOCK`` points is read once and kept on the chip for all steps of a descent (``FITS``); a longer one is read again for
each, block by block.
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
    FITS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Descend from ``u`` by Newton's method, in a bracket that the signs of the slope narrow.

    Where the curvature is small or negative the step is to the weighted mean. Ends when a step is shorter than
    ``short`` in units of alpha. Writes the last place, the step from there, and the curvature.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    weight_ptr += row * n
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    u = tl.load(u_ptr + row).to(WIDE)
    low = tl.full((), -float("inf"), WIDE)
    high = tl.full((), float("inf"), WIDE)
    step = tl.full((), float("inf"), WIDE)
    bend = tl.full((), 0.0, WIDE)
    at = tl.arange(0, BLOCK)
    if FITS:
        kept = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        counts = tl.where(at < n, 1.0, 0.0).to(WIDE)
        if WEIGHTED:
            counts = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(WIDE)
    taken = 0
    while (taken < STEPS) & (tl.abs(step) > short * alpha):
        u += tl.where(taken > 0, step, 0.0)
        if FITS:
            t = (kept - u) / alpha
            _, weight, curvature = terms(t, PENALTY, shape)
            slope = tl.sum(counts * weight * t, 0)
            mass = tl.sum(counts * weight, 0)
            bend = tl.sum(counts * curvature, 0)
        else:
            slope = tl.full((), 0.0, WIDE)
            mass = tl.full((), 0.0, WIDE)
            bend = tl.full((), 0.0, WIDE)
            for start in range(0, n, BLOCK):
                here = start + at
                x = tl.load(x_ptr + here, mask=here < n, other=0.0).to(WIDE)
                w = tl.where(here < n, 1.0, 0.0).to(WIDE)
                if WEIGHTED:
                    w = tl.load(weight_ptr + here, mask=here < n, other=0.0).to(WIDE)
                t = (x - u) / alpha
                _, weight, curvature = terms(t, PENALTY, shape)
                slope += tl.sum(w * weight * t, 0)
                mass += tl.sum(w * weight, 0)
                bend += tl.sum(w * curvature, 0)
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
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        w = tl.where(at < n, 1.0, 0.0).to(WIDE)
        if WEIGHTED:
            w = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(WIDE)
        t = (x[None, :] - u[:, None]) / alpha
        value, weight, _ = terms(t, PENALTY, shape)
        values += tl.sum(w[None, :] * value, 1)
        slopes += tl.sum(w[None, :] * weight * t, 1)
    tl.store(value_ptr + row * m + place, values, mask=place < m)
    tl.store(slope_ptr + row * m + place, slopes, mask=place < m)


@triton.jit
def pull(
    x_ptr,
    weight_ptr,
    alpha_ptr,
    u_ptr,
    cotangent_ptr,
    points_ptr,
    alphas_ptr,
    weights_ptr,
    total_ptr,
    size_ptr,
    shape,
    n,
    POINTS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    PENALTY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    FITS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pull the cotangent of a row back to its points, weights and alpha.

    Writes the sum of the curvatures too, and that of their sizes: where they cancel, the derivative is left to others.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    weight_ptr += row * n
    points_ptr += row * n
    weights_ptr += row * n
    alpha = tl.load(alpha_ptr + row).to(WIDE)
    u = tl.load(u_ptr + row).to(WIDE)
    g = tl.load(cotangent_ptr + row).to(WIDE)
    total = tl.full((), 0.0, WIDE)
    size = tl.full((), 0.0, WIDE)
    moment = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        w = tl.where(at < n, 1.0, 0.0).to(WIDE)
        if WEIGHTED:
            w = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(WIDE)
        t = (x - u) / alpha
        _, weight, curvature = terms(t, PENALTY, shape)
        total += tl.sum(w * curvature, 0)
        size += tl.sum(w * tl.abs(curvature), 0)
        moment += tl.sum(w * curvature * t, 0)
        if FITS:
            if POINTS:
                tl.store(points_ptr + at, w * curvature * (g / total), mask=at < n)
            if WEIGHTS:
                tl.store(weights_ptr + at, weight * t * (alpha * (g / total)), mask=at < n)
    if not FITS:
        for start in range(0, n, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
            w = tl.where(at < n, 1.0, 0.0).to(WIDE)
            if WEIGHTED:
                w = tl.load(weight_ptr + at, mask=at < n, other=0.0).to(WIDE)
            t = (x - u) / alpha
            _, weight, curvature = terms(t, PENALTY, shape)
            if POINTS:
                tl.store(points_ptr + at, w * curvature * (g / total), mask=at < n)
            if WEIGHTS:
                tl.store(weights_ptr + at, weight * t * (alpha * (g / total)), mask=at < n)
    tl.store(alphas_ptr + row, -moment * g / total)
    tl.store(total_ptr + row, total)
    tl.store(size_ptr + row, size)
