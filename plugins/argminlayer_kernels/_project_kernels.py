# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Kernels of projections onto the simplex, and the spheres and balls of p = 1, 2 and infinity, with weights.

Every kernel computes in ``WIDE``, float32 or float64, whatever the rows are stored in; see ``_row_kernels`` for what a
program has of them. The state of a row is zero where it is its own nearest point, positive where it is held to the
surface (``r / |x|`` for p = 2 without weights, the tiniest number at its centre), -1 where a sphere of a general p has
the point inside, which is left to others, and NaN, like the row, where it has no nearest point.
"""

import triton
import triton.language as tl

from ._row_kernels import WHOLE, entries, largest, place, state_of, store_row, total, unusable, weights


@triton.jit
def above(below, t, w, valid):
    """Return how far entries are above a threshold, the weighted sum of that, and that of their squared weights."""
    z = tl.where(valid, tl.maximum(below - t * w, 0.0), 0.0)
    return z, tl.sum(w * z, 0), tl.sum(tl.where(z > 0, w * w, 0.0), 0)


@triton.jit
def threshold(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    w_ptr,
    w_stride,
    sums_ptr,
    shift_ptr,
    n,
    SIGNED: tl.constexpr,
    BALL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Project a row onto the simplex, or (SIGNED) the sphere or ball of p = 1, by Newton's method on the threshold t.

    Entries move by ``t w`` towards zero. They are taken relative to the one that vanishes last, so that rounding is of
    the size of the radius. Newton's method comes from the left, so that fewer and fewer entries are above.
    Passes: 0 and 1 find where to begin, 2 is a step from ``shift`` to the right of there, 3 writes.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    valid = at < n
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x = entries(x_ptr, row * n, at, n, WIDE)
    w = weights(w_ptr, row * w_stride, at, n, WEIGHTED, WIDE)
    a = tl.abs(x) if SIGNED else x
    ratio = tl.where(valid, a / w if WEIGHTED else a, -float("inf"))
    top = largest(tl.max(ratio, 0), sums_ptr, row, 0, part, parts, 0, PASS)
    size = total(tl.sum(w * a, 0), sums_ptr, row, 1, part, parts, 0, PASS)
    bad = total(unusable(x, w, WEIGHTED), sums_ptr, row, 2, part, parts, 0, PASS)
    below = tl.where(ratio == top, 0.0, a - top * w)
    mean = total(tl.sum(tl.where(valid, w * below, 0.0), 0), sums_ptr, row, 3, part, parts, 1, PASS)
    last = w
    squares = n * (r * 0.0 + 1.0)
    if WEIGHTED:
        last = largest(tl.max(tl.where(ratio == top, w, 0.0), 0), sums_ptr, row, 4, part, parts, 1, PASS)
        squares = total(tl.sum(tl.where(valid, w * w, 0.0), 0), sums_ptr, row, 5, part, parts, 1, PASS)
    t = tl.maximum(-r / last / last, mean / squares - r / squares)
    if PASS > 1:
        t += tl.load(shift_ptr + row)
    z, filled, mass = above(below, t, w, valid)
    if PASS == WHOLE:
        before = mass * 0.0 + float("inf")
        while mass < before:
            before = mass
            t += tl.where(mass > 0, (filled - r) / mass, 0.0)
            z, filled, mass = above(below, t, w, valid)
    filled = total(filled, sums_ptr, row, 6, part, parts, 2, PASS)
    mass = total(mass, sums_ptr, row, 7, part, parts, 2, PASS)
    if (PASS == WHOLE) | (PASS == 3):
        z = tl.where(z > 0, tl.maximum(z - tl.where(mass > 0, (filled - r) / mass, 0.0) * w, 0.0), 0.0)
        y = tl.where(x < 0, -z, z) if SIGNED else z
        inside = size < r if BALL else size != size
        state = state_of(tl.where(inside, 0.0, 1.0).to(WIDE), bad, r)
        store_row(tl.where(inside, x, y), state, y_ptr, state_ptr, row, at, n)


@triton.jit
def scale(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    sums_ptr,
    n,
    TINY: tl.constexpr,
    BALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Project a row onto the sphere or ball of p = 2; entries are divided by the largest before they are squared.

    Passes: 0 finds the largest, 1 sums, 2 writes.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x = entries(x_ptr, row * n, at, n, WIDE)
    top = largest(tl.max(tl.abs(x), 0), sums_ptr, row, 0, part, parts, 0, PASS)
    bad = total(unusable(x, 1.0, False), sums_ptr, row, 1, part, parts, 0, PASS)
    divisor = tl.where(top > 0, top, 1.0)
    scaled = x / divisor
    size = tl.sqrt(total(tl.sum(scaled * scaled, 0), sums_ptr, row, 2, part, parts, 1, PASS))
    if (PASS == WHOLE) | (PASS == 2):
        inside = size * divisor < r if BALL else size != size
        length = tl.where(top > 0, size, 1.0)
        y = tl.where(top > 0, scaled * (r / length), r / tl.sqrt(n * (r * 0.0 + 1.0)))
        ratio = tl.where(top > 0, tl.minimum((r / divisor) / length, 1.0 / TINY), 0.0)
        state = state_of(tl.where(inside, 0.0, tl.maximum(ratio, TINY)), bad, r)
        store_row(tl.where(inside, x, y), state, y_ptr, state_ptr, row, at, n)


@triton.jit
def clip(
    x_ptr,
    y_ptr,
    state_ptr,
    r_ptr,
    r_stride,
    w_ptr,
    w_stride,
    sums_ptr,
    n,
    BALL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Project a row onto the sphere or ball of p = infinity.

    Inside a sphere the entry nearest to its limit moves there, the first of several. Passes: 0 finds how near, 1 (of
    spheres) which it is, 2 writes.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    x = entries(x_ptr, row * n, at, n, WIDE)
    w = weights(w_ptr, row * w_stride, at, n, WEIGHTED, WIDE)
    limit = r / w if WEIGHTED else r
    bad = total(unusable(x, w, WEIGHTED), sums_ptr, row, 0, part, parts, 0, PASS)
    y = tl.minimum(tl.maximum(x, -limit), limit)
    if not BALL:
        beyond = tl.where(at < n, tl.abs(x) - limit if WEIGHTED else tl.abs(x), -float("inf"))
        top = largest(tl.max(beyond, 0), sums_ptr, row, 1, part, parts, 0, PASS)
        rank = tl.where(tl.max(beyond, 0) == top, 1.0, 0.0).to(WIDE) * (parts - part)
        leader = largest(rank, sums_ptr, row, 2, part, parts, 1, PASS) == rank
        moved = tl.where(leader & (top < (0.0 if WEIGHTED else r)), tl.min(tl.where(beyond == top, at, n), 0), -1)
        y = tl.where(at == moved, tl.where(x < 0, -limit, limit), y)
    if (PASS == WHOLE) | (PASS == 2):
        store_row(y, state_of(r * 0.0 + 1.0, bad, r), y_ptr, state_ptr, row, at, n)
