# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Fused kernels of projections onto Lp spheres and balls and the simplex: one program for a row, forward and backward.

Every kernel computes in ``WIDE``, float32 or float64, whatever the rows are stored in. Rows of up to ``BLOCK`` entries
are read once; longer ones are read again for every pass over them. The state of a row is zero where it is its own
nearest point, positive where it is held to the surface (``r / |x|`` for p = 2, the tiniest number at its centre), -1
where a sphere of a general p has the point inside, which these kernels leave to others, and NaN where it has no
nearest point.
"""

import triton
import triton.language as tl


@triton.jit
def not_finite(x):
    """Return how many entries are infinite or no number."""
    return tl.sum(tl.where(x - x == 0, 0.0, 1.0), 0)


@triton.jit
def threshold(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    n,
    SIGNED: tl.constexpr,
    BALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Project a row onto the simplex, or (SIGNED) the sphere or ball of p = 1, by Newton's method on the threshold.

    Entries are taken relative to the largest, so that rounding is of the size of the radius.
    """
    row = tl.program_id(0).to(tl.int64)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x_ptr += row * n
    y_ptr += row * n
    top = tl.full((), -float("inf"), WIDE)
    total = tl.full((), 0.0, WIDE)
    bad = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        a = tl.abs(x) if SIGNED else x
        top = tl.maximum(top, tl.max(tl.where(at < n, a, -float("inf")), 0))
        total += tl.sum(a, 0)
        bad += not_finite(x)
    t = tl.maximum(-r, (total - r) / n - top)
    count = tl.full((), 0.0, WIDE)
    before = tl.full((), -1.0, WIDE)
    excess = tl.full((), 0.0, WIDE)
    steps = 0
    while (count != before) & (steps < n + 2):
        before = count
        t += tl.where(count > 0, excess / tl.maximum(count, 1.0), 0.0)
        count = tl.full((), 0.0, WIDE)
        excess = -r
        for start in range(0, n, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
            a = tl.abs(x) if SIGNED else x
            z = tl.where(at < n, tl.maximum((a - top) - t, 0.0), 0.0)
            count += tl.sum(tl.where(z > 0, 1.0, 0.0).to(WIDE), 0)
            excess += tl.sum(z, 0)
        steps += 1
    inside = total < r if BALL else total != total
    last = excess / tl.maximum(count, 1.0)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        a = tl.abs(x) if SIGNED else x
        z = (a - top) - t
        y = tl.where(z > 0, tl.maximum(z - last, 0.0), 0.0)
        if SIGNED:
            y = tl.where(x < 0, -y, y)
        tl.store(y_ptr + at, tl.where(inside, x, y).to(y_ptr.dtype.element_ty), mask=at < n)
    state = tl.where(inside, 0.0, 1.0)
    tl.store(state_ptr + row, tl.where((bad == 0) & (r >= 0), state, float("nan")).to(state_ptr.dtype.element_ty))


@triton.jit
def scale(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    n,
    TINY: tl.constexpr,
    BALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Project a row onto the sphere or ball of p = 2; entries are divided by the largest before they are squared."""
    row = tl.program_id(0).to(tl.int64)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x_ptr += row * n
    y_ptr += row * n
    top = tl.full((), 0.0, WIDE)
    bad = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        top = tl.maximum(top, tl.max(tl.abs(x), 0))
        bad += not_finite(x)
    divisor = tl.where(top > 0, top, 1.0)
    squares = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE) / divisor
        squares += tl.sum(x * x, 0)
    size = tl.sqrt(squares)
    inside = size * divisor < r if BALL else size != size
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        unit = tl.where(top > 0, (x / divisor) / tl.where(top > 0, size, 1.0), 1.0 / tl.sqrt(n * (r * 0.0 + 1.0)))
        tl.store(y_ptr + at, tl.where(inside, x, unit * r).to(y_ptr.dtype.element_ty), mask=at < n)
    ratio = tl.where(top > 0, tl.minimum((r / divisor) / tl.where(top > 0, size, 1.0), 1.0 / TINY), 0.0)
    state = tl.where(inside, 0.0, tl.maximum(ratio, TINY))
    tl.store(state_ptr + row, tl.where((bad == 0) & (r >= 0), state, float("nan")).to(state_ptr.dtype.element_ty))


@triton.jit
def clip(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    n,
    BALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Project a row onto the sphere or ball of p = infinity; inside a sphere the first of the largest entries moves."""
    row = tl.program_id(0).to(tl.int64)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x_ptr += row * n
    y_ptr += row * n
    top = tl.full((), -1.0, WIDE)
    first = tl.full((), 0, tl.int32)
    bad = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        bad += not_finite(x)
        a = tl.where(at < n, tl.abs(x), -1.0)
        largest = tl.max(a, 0)
        place = tl.min(tl.where(a == largest, at, n), 0).to(tl.int32)
        first = tl.where(largest > top, place, first)
        top = tl.maximum(top, largest)
    moved = -1 if BALL else tl.where(top < r, first, -1)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
        y = tl.minimum(tl.maximum(x, -r), r)
        y = tl.where(at == moved, tl.where(x < 0, -r, r), y)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=at < n)
    tl.store(state_ptr + row, tl.where((bad == 0) & (r >= 0), 1.0, float("nan")).to(state_ptr.dtype.element_ty))


@triton.jit
def power(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    n,
    P: tl.constexpr,
    FLOOR: tl.constexpr,
    TOLERANCE: tl.constexpr,
    BALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Project a row of at most BLOCK entries onto the sphere or ball of a general p above 1.

    In logarithms ``z = log2 |u| / r`` and ``nu`` solve ``2^z + 2^((P - 1) z + nu) = |x| / r`` and ``sum 2^(P z) = 1``.
    A step corrects z at the present nu and, where that correction is small, moves nu by Newton's method on a power of
    the sum, inside a bracket.
    """
    LN2: tl.constexpr = 0.6931471805599453
    FAR: tl.constexpr = 1e30
    row = tl.program_id(0).to(tl.int64)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    at = tl.arange(0, BLOCK)
    valid = at < n
    x = tl.load(x_ptr + row * n + at, mask=valid, other=0.0).to(WIDE)
    positive = valid & (x != 0)
    bad = not_finite(x)
    b = tl.maximum(tl.where(positive, tl.log2(tl.where(positive, tl.abs(x), 1.0)) - tl.log2(r), FLOOR), FLOOR)
    top = tl.max(b, 0)
    size = top + tl.log2(tl.sum(tl.where(positive, tl.exp2(P * (b - top)), 0.0), 0)) / P
    radial = top + tl.log2(1.0 - tl.exp2(-tl.maximum(size, 1e-6))) - (P - 1.0) * (top - size)
    nu = tl.maximum(tl.minimum(radial, top + tl.log2(n * (r * 0.0 + 1.0)) * (P - 1.0) / P), -40.0)
    z = tl.maximum(tl.minimum(tl.minimum(b - size, (b - nu) / (P - 1.0)), b), FLOOR)
    low = nu * 0.0 - FAR
    high = nu * 0.0 + FAR
    settled = nu != nu
    steps = 0
    while (not settled) & (steps < 100) & (size >= 0):
        value = tl.where(positive, tl.exp2(z), 0.0)
        force = tl.where(positive, tl.exp2((P - 1.0) * z + nu), 0.0)
        both = tl.where(positive, value + force, 1.0)
        share = force / both
        slope = 1.0 + (P - 2.0) * share
        step = tl.where(positive, (b - tl.log2(both)) / slope, 0.0)
        moves = share / slope
        weight = value * force
        mass = tl.sum(weight, 0)
        error = tl.maximum(P * tl.sum(weight * tl.abs(step), 0) / mass, P * tl.max(step, 0))
        sums = tl.maximum(tl.sum(weight * (1.0 + P * LN2 * step), 0), 0.5 * mass)
        total = tl.log2(sums) - nu
        change = P * tl.sum(weight * moves, 0) / mass
        settled = (error < TOLERANCE) & (tl.abs(total) < TOLERANCE)
        close = error < 0.3
        low = tl.where(close & (total > error * error), tl.maximum(low, nu), low)
        high = tl.where(close & (total < -error * error), tl.minimum(high, nu), high)
        K: tl.constexpr = (2.0 * P - 3.0) / P if P < 2 else (P - 1.0) / P
        if K == 0:
            growth = total * LN2
        else:
            growth = (tl.exp2(K * total) - 1.0) / K
        trial = nu + tl.log2(tl.maximum(1.0 + growth / change, 1e-30))
        middle = tl.where(high == FAR, nu + 3.0, tl.where(low == -FAR, high - 6.0, 0.5 * (low + high)))
        moved = tl.where((trial > low) & (trial < high), trial, middle)
        moved = tl.where(settled, nu + total / change, tl.where(close, moved, nu))
        z += step - moves * (moved - nu)
        nu = moved
        z = tl.maximum(tl.minimum(tl.minimum(z, b), (b - nu) / (P - 1.0)), FLOOR)
        steps += 1
    v = tl.where(positive, tl.exp2(z), 0.0)
    largest = tl.max(tl.where(positive, z, FLOOR), 0)
    length = largest + tl.log2(tl.sum(tl.where(positive, tl.exp2(P * (z - largest)), 0.0), 0)) / P
    y = v * tl.exp2(-length) * r
    y = tl.where(x < 0, -y, y)
    outside = size >= 0
    y = tl.where(outside & (r > 0), y, tl.where(r > 0, x, 0.0))
    tl.store(y_ptr + row * n + at, y.to(y_ptr.dtype.element_ty), mask=valid)
    inside: tl.constexpr = 0.0 if BALL else -1.0
    state = tl.where(outside | (r == 0), 1.0, inside)
    tl.store(state_ptr + row, tl.where((bad == 0) & (r >= 0), state, float("nan")).to(state_ptr.dtype.element_ty))


@triton.jit
def pull_mean(
    g_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    gx_ptr,
    gr_ptr,
    n,
    CLIPPED: tl.constexpr,
    MASK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pull a cotangent back for one constraint with the signs of y as its gradient, zero off its support.

    The support is all of y for p = 1 and the simplex, the entries at the limit if CLIPPED (p = infinity). The mean over
    it is taken away and belongs to the radius; off it the cotangent becomes zero if MASK, and else stays.
    """
    row = tl.program_id(0).to(tl.int64)
    g_ptr += row * n
    y_ptr += row * n
    least = tl.load(r_ptr + row * r_stride).to(y_ptr.dtype.element_ty).to(WIDE) if CLIPPED else 0.0
    free = tl.load(state_ptr + row) == 0
    total = tl.full((), 0.0, WIDE)
    count = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + at, mask=at < n, other=0.0).to(WIDE)
        g = tl.load(g_ptr + at, mask=at < n, other=0.0).to(WIDE)
        sign = tl.where(y > 0, 1.0, tl.where(y < 0, -1.0, 0.0)).to(WIDE)
        sign = tl.where(tl.abs(y) >= least, sign, 0.0)
        total += tl.sum(sign * g, 0)
        count += tl.sum(sign * sign, 0)
    beta = total / tl.maximum(count, 1.0)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + at, mask=at < n, other=0.0).to(WIDE)
        g = tl.load(g_ptr + at, mask=at < n, other=0.0).to(WIDE)
        sign = tl.where(y > 0, 1.0, tl.where(y < 0, -1.0, 0.0)).to(WIDE)
        sign = tl.where(tl.abs(y) >= least, sign, 0.0)
        kept = g * sign * sign if MASK else g
        tl.store(gx_ptr + row * n + at, tl.where(free, g, kept - sign * beta).to(gx_ptr.dtype.element_ty), mask=at < n)
    tl.store(gr_ptr + row, tl.where(free, 0.0, beta).to(gr_ptr.dtype.element_ty))


@triton.jit
def smooth_terms(y, nu, unit, P: tl.constexpr):
    """Return the gradient of the constraint at y, and how freely each entry follows its x."""
    v = tl.abs(y) / unit
    logarithm = tl.log2(tl.where(v > 0, v, 1.0))
    slope = tl.where(v > 0, tl.exp2((P - 1.0) * logarithm), 0.0)
    d = slope * 0.0 + 1.0
    if P != 2:
        bend = tl.where(v > 0, (P - 1.0) * tl.exp2((P - 2.0) * logarithm) / unit, 0.0)
        d = 1.0 / (1.0 + nu * bend)
        if P < 2:
            d = tl.where(v > 0, d, 0.0)
    return tl.where(y < 0, -slope, slope), d


@triton.jit
def pull_smooth(
    g_ptr,
    y_ptr,
    state_ptr,
    x_ptr,
    r_ptr,
    r_stride,
    gx_ptr,
    gr_ptr,
    n,
    P: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pull a cotangent back for 1 < P < infinity.

    With ``a = v^(P-1)`` and ``d = 1 / (1 + nu (P-1) v^(P-2) / r)`` the cotangent of the radius is
    ``beta = sum a d g / sum a^2 d`` and that of x is ``d (g - beta a)``.
    """
    row = tl.program_id(0).to(tl.int64)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    state = tl.load(state_ptr + row).to(WIDE)
    g_ptr += row * n
    y_ptr += row * n
    x_ptr += row * n
    unit = tl.where(r > 0, r, 1.0)
    moved = tl.full((), 0.0, WIDE)
    length = tl.full((), 0.0, WIDE)
    if P != 2:
        for start in range(0, n, BLOCK):
            at = start + tl.arange(0, BLOCK)
            y = tl.load(y_ptr + at, mask=at < n, other=0.0).to(WIDE)
            x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(WIDE)
            v = tl.abs(y) / unit
            slope = tl.where(v > 0, tl.exp2((P - 1.0) * tl.log2(tl.where(v > 0, v, 1.0))), 0.0)
            moved += tl.sum(v * slope * tl.where(y < 0, y - x, x - y), 0)
            length += tl.sum(v * slope * slope, 0)
    nu = moved / tl.where(length > 0, length, 1.0)
    total = tl.full((), 0.0, WIDE)
    norm = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + at, mask=at < n, other=0.0).to(WIDE)
        g = tl.load(g_ptr + at, mask=at < n, other=0.0).to(WIDE)
        a, d = smooth_terms(y, nu, unit, P)
        total += tl.sum(a * d * g, 0)
        norm += tl.sum(a * a * d, 0)
    beta = total / tl.where(norm == 0, 1.0, norm)
    factor = tl.where(r > 0, (state if P == 2 else state * 0.0 + 1.0), 0.0)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + at, mask=at < n, other=0.0).to(WIDE)
        g = tl.load(g_ptr + at, mask=at < n, other=0.0).to(WIDE)
        a, d = smooth_terms(y, nu, unit, P)
        gx = tl.where(state == 0, g, factor * d * (g - beta * a))
        tl.store(gx_ptr + row * n + at, gx.to(gx_ptr.dtype.element_ty), mask=at < n)
    tl.store(gr_ptr + row, tl.where(state == 0, 0.0, beta).to(gr_ptr.dtype.element_ty))


@triton.jit
def pull_clip(
    g_ptr,
    y_ptr,
    r_ptr,
    r_stride,
    gx_ptr,
    gr_ptr,
    n,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pull a cotangent back for p = infinity: entries at the limit belong to the radius, the others to x."""
    row = tl.program_id(0).to(tl.int64)
    limit = tl.load(r_ptr + row * r_stride).to(y_ptr.dtype.element_ty).to(WIDE)
    beta = tl.full((), 0.0, WIDE)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + row * n + at, mask=at < n, other=0.0).to(WIDE)
        g = tl.load(g_ptr + row * n + at, mask=at < n, other=0.0).to(WIDE)
        held = tl.abs(y) >= limit
        beta += tl.sum(tl.where(held & (at < n), tl.where(y < 0, -g, g), 0.0), 0)
        tl.store(gx_ptr + row * n + at, tl.where(held, 0.0, g).to(gx_ptr.dtype.element_ty), mask=at < n)
    tl.store(gr_ptr + row, beta.to(gr_ptr.dtype.element_ty))
