# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Kernels of projections onto spheres and balls of any p > 1, with weights: one safeguarded Newton iteration for a row.

With ``c`` the radial projection of |x| to the sphere of radius one, ``e = r / |x|_p`` and ``v = |u| / r``, the nearest
point to a point outside satisfies, for some ``nu > 0``,

    e v + nu w v^(p - 1) = c  for every entry,       sum w v^p = 1.

The unknowns are ``d = log2 c / v`` of every entry and ``log2 nu``. With ``q = nu w v^(p - 2)`` the first equation reads
``log2 (e + q) = d``, whose slope stays between min(1, p - 1) and max(1, p - 1).
"""

import triton
import triton.language as tl

from ._row_kernels import WHOLE, entries, largest, place, state_of, store_row, total, unusable, weights

LOWEST = tl.constexpr(-200.0)
"""The least logarithm of an entry, relative to the largest: what is smaller counts for nothing."""
LN2 = tl.constexpr(0.6931471805599453)
STEPS = tl.constexpr(200)
"""Newton steps at most; 4 to 8 are usual."""
UNKNOWNS = tl.constexpr(5)
"""Numbers of a row that are kept between steps: log2 nu, its last move, the ends of its bracket, and the error."""


@triton.jit
def correction(force, square, e, d, nu, positive, P: tl.constexpr, LIMIT: tl.constexpr):
    """Return the Newton step of d at the present nu and how d follows log2 nu, and the sums over the row's entries.

    The sums are of the weight ``nu w v^p`` of an entry, of its first-order change, of its squared error, of how it
    follows log2 nu; and the largest step.
    """
    q = tl.exp2(tl.minimum(tl.maximum(force + (2.0 - P) * d + nu, -LIMIT), LIMIT))
    both = q + e
    share = q / both
    missing = tl.log2(both) - d
    slope = 1.0 + (P - 2.0) * share
    step = tl.where(positive, missing / slope, 0.0)
    moves = share / slope
    weight = tl.where(positive, share / both * square, 0.0)
    gain = tl.sum(weight * (2.0 * missing - P * step), 0)
    return (
        step,
        moves,
        tl.sum(weight, 0),
        gain,
        tl.sum(weight * step * step, 0),
        tl.sum(weight * moves, 0),
        tl.max(step, 0),
    )


@triton.jit
def advance(mass, gain, rough, by_nu, furthest, nu, low, high, P: tl.constexpr):
    """Return the next log2 nu, its bracket, and the error that the next correction removes.

    nu moves where the correction of d is small, by Newton's method on the power ``S^(1/p - 1)`` of ``S = sum w v^p``,
    which is linear in nu for p = 2 and for every p as nu goes to infinity. An end of the bracket that contradicts nu
    came of a rough d, and is dropped.
    """
    K: tl.constexpr = (P - 1.0) / P
    excess = tl.log2(tl.maximum(mass + LN2 * gain, 0.5 * mass) * tl.exp2(-nu))
    error = P * tl.sqrt(rough / mass)
    if P > 2:  # entries whose q is far too large have no weight yet
        error = tl.maximum(error, P * furthest)
    settled = error < (0.3 if P > 1.1 else 3.0 * (P - 1.0))
    above = settled & (excess > error * error)
    below = settled & (excess < -error * error)
    low = tl.where(below & (low >= nu), -float("inf"), low)
    high = tl.where(above & (high <= nu), float("inf"), high)
    low = tl.where(above, tl.maximum(low, nu), low)
    high = tl.where(below, tl.minimum(high, nu), high)
    change = P * by_nu / mass
    growth = 1.0 + (tl.exp2(K * excess) - 1.0) / (K * change)
    trial = nu + tl.log2(tl.where(growth > 0, growth, 1.0))
    inside = (growth > 0) & (trial >= low) & (trial <= high)
    middle = tl.where(high == float("inf"), nu + 3.0, tl.where(low == -float("inf"), high - 6.0, 0.5 * (low + high)))
    moved = tl.where(settled, tl.where(inside, trial, middle), nu)
    error = tl.maximum(tl.maximum(error, tl.abs(excess)), 0.25 * tl.sqrt(change) * tl.abs(moved - nu))
    return moved, low, high, error


@triton.jit
def bounded(d, force, e, nu, P: tl.constexpr, LIMIT: tl.constexpr):
    """Return d inside the range of the exponent and, for small p, above bounds that the tangent may miss by far."""
    if P < 2:
        d = tl.maximum(d, tl.log2(e))
    if P < 1.2:
        d = tl.maximum(d, (force + nu) / (P - 1.0))
    return tl.minimum(tl.maximum(d, -LIMIT), LIMIT)


@triton.jit
def power(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    w_ptr,
    w_stride,
    sums_ptr,
    row_ptr,
    d_ptr,
    moves_ptr,
    n,
    P: tl.constexpr,
    EPS: tl.constexpr,
    LIMIT: tl.constexpr,
    BALL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Project a row onto the sphere or ball of a general P.

    Passes: 0 to 3 find where to begin, 4 is a step, which ``settle`` ends, 5 sums for the norm, 6 writes. Between steps
    d and how it follows log2 nu are kept in rows like x, and nu in ``row``.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x = entries(x_ptr, row * n, at, n, WIDE)
    w = weights(w_ptr, row * w_stride, at, n, WEIGHTED, WIDE)
    top = largest(tl.max(tl.abs(x), 0), sums_ptr, row, 0, part, parts, 0, PASS)
    bad = total(unusable(x, w, WEIGHTED), sums_ptr, row, 1, part, parts, 0, PASS)
    divisor = tl.where(top > 0, top, 1.0)
    c = tl.abs(x) / divisor
    positive = c > 0
    log_w = tl.log2(w)
    log_c = tl.where(positive, tl.maximum(tl.log2(tl.where(positive, c, 1.0)), LOWEST), LOWEST)
    own = tl.sum(tl.where(positive, tl.exp2(P * log_c + log_w), 0.0), 0)
    size = tl.log2(total(own, sums_ptr, row, 2, part, parts, 1, PASS)) / P
    e = (r / divisor) * tl.exp2(-size)
    outside = (e <= 1.0 + 8.0 * EPS) & (top > 0)
    e = tl.minimum(e, 1.0)
    c *= tl.exp2(-size)
    log_c -= size
    force = (P - 2.0) * log_c + log_w

    K: tl.constexpr = P / (P - 1.0)
    steepest = tl.where(positive, log_c - log_w, -float("inf"))
    crest = largest(tl.max(steepest, 0), sums_ptr, row, 3, part, parts, 2, PASS)
    own = tl.sum(tl.where(positive, tl.exp2(K * (steepest - crest) + log_w), 0.0), 0)
    far = crest + tl.log2(total(own, sums_ptr, row, 4, part, parts, 3, PASS)) / K
    nu = tl.log2(tl.maximum(1.0 - e, 1e-20)) + far  # exact for e = 0
    d = tl.maximum((force + nu) / (P - 1.0), tl.maximum(tl.log2(e), LOWEST))
    d = tl.minimum(tl.maximum(d, -LIMIT), LIMIT)
    square = c * c
    if PASS == WHOLE:
        low = nu * 0.0 - float("inf")
        high = nu * 0.0 + float("inf")
        error = tl.where(outside, 1.0, 0.0).to(WIDE)
        steps = 0
        while (error >= 0.5 * EPS**0.5) & (steps < STEPS):
            step, moves, mass, gain, rough, by_nu, furthest = correction(force, square, e, d, nu, positive, P, LIMIT)
            moved, low, high, error = advance(mass, gain, rough, by_nu, furthest, nu, low, high, P)
            d = bounded(d + step + moves * (moved - nu), force, e, moved, P, LIMIT)
            nu = moved
            steps += 1
    if PASS > 3:
        move = tl.load(row_ptr + row * UNKNOWNS + 1)
        begun = move == move
        nu = tl.where(begun, tl.load(row_ptr + row * UNKNOWNS), nu)
        kept = entries(d_ptr, row * n, at, n, WIDE) + entries(moves_ptr, row * n, at, n, WIDE) * move
        d = tl.where(begun, bounded(kept, force, e, nu, P, LIMIT), d)
    if PASS == 4:
        step, moves, mass, gain, rough, by_nu, furthest = correction(force, square, e, d, nu, positive, P, LIMIT)
        total(mass, sums_ptr, row, 5, part, parts, 4, PASS)
        total(gain, sums_ptr, row, 6, part, parts, 4, PASS)
        total(tl.where(outside, rough, float("nan")), sums_ptr, row, 7, part, parts, 4, PASS)
        total(by_nu, sums_ptr, row, 8, part, parts, 4, PASS)
        largest(furthest, sums_ptr, row, 9, part, parts, 4, PASS)
        tl.store(d_ptr + row * n + at, d + step, mask=at < n)
        tl.store(moves_ptr + row * n + at, moves, mask=at < n)
        tl.store(row_ptr + row * UNKNOWNS, nu)
    own = tl.sum(tl.where(positive, tl.exp2(P * (log_c - d) + log_w), 0.0), 0)
    norm = tl.exp2(tl.log2(total(own, sums_ptr, row, 10, part, parts, 5, PASS)) / P)
    if (PASS == WHOLE) | (PASS == 6):
        y = c * tl.exp2(-d) / norm * r
        y = tl.where(outside, tl.where(x < 0, -y, y), x)
        state = tl.where(outside | (r == 0), 1.0, 0.0 if BALL else -1.0).to(WIDE)
        store_row(tl.where(r == 0, 0.0, y), state_of(state, bad, r), y_ptr, state_ptr, row, at, n)


@triton.jit
def settle(row_ptr, sums_ptr, parts, P: tl.constexpr):
    """End a step of a row that several programs have: sum what they found, and move its nu."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr += row * UNKNOWNS
    nu = tl.load(row_ptr)
    mass = total(nu, sums_ptr, row, 5, 0, parts, 4, 5)
    gain = total(nu, sums_ptr, row, 6, 0, parts, 4, 5)
    rough = total(nu, sums_ptr, row, 7, 0, parts, 4, 5)
    by_nu = total(nu, sums_ptr, row, 8, 0, parts, 4, 5)
    furthest = largest(nu, sums_ptr, row, 9, 0, parts, 4, 5)
    low, high = tl.load(row_ptr + 2), tl.load(row_ptr + 3)
    moved, low, high, error = advance(mass, gain, rough, by_nu, furthest, nu, low, high, P)
    tl.store(row_ptr, moved)
    tl.store(row_ptr + 1, moved - nu)
    tl.store(row_ptr + 2, low)
    tl.store(row_ptr + 3, high)
    tl.store(row_ptr + 4, error)
