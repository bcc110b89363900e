# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""Kernels of the derivative of projections: they pull cotangents back to the points, the radius and the weights."""

import triton
import triton.language as tl

from ._row_kernels import WHOLE, entries, place, total, weights


@triton.jit
def divided(a, b):
    """Return a / b, zero where b is."""
    return tl.where(b == 0, 0.0, a / tl.where(b == 0, 1.0, b))


@triton.jit
def pull_smooth(
    g_ptr,
    y_ptr,
    state_ptr,
    x_ptr,
    r_ptr,
    r_stride,
    w_ptr,
    w_stride,
    gx_ptr,
    gr_ptr,
    gw_ptr,
    sums_ptr,
    n,
    P: tl.constexpr,
    MASK: tl.constexpr,
    TINY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Pull a cotangent back for finite P, and for the simplex as the facet of P = 1 with signs +.

    With ``v = |y| / r``, ``a = w v^(P-1)`` and ``d = 1 / (1 + nu w (P-1) v^(P-2) / r)``, zero where v is for P < 2
    (of P = 1 only with MASK), the cotangent of the radius is ``beta = sum a d g / sum a^2 d``, that of x
    ``q = d (g - beta a)`` and that of the weights ``-nu v^(P-1) q - beta v^P r / P``.
    Passes: 0 sums for ``nu``, which is needed where there are weights or bends, 1 sums for ``beta``, 2 writes.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    valid = at < n
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    state = tl.load(state_ptr + row).to(WIDE)
    g = entries(g_ptr, row * n, at, n, WIDE)
    y = entries(y_ptr, row * n, at, n, WIDE)
    w = weights(w_ptr, row * w_stride, at, n, WEIGHTED, WIDE)
    unit = tl.maximum(r, TINY)
    size = tl.abs(y) / unit
    positive = size > 0  # it may underflow
    v = tl.where(positive, size, 1.0)
    logarithm = tl.log2(v)
    power = tl.where(positive, v if P == 2 else tl.exp2((P - 1.0) * logarithm), 0.0)
    slope = tl.where(y < 0, -power, power)
    a = w * slope
    nu = r * 0.0
    if WEIGHTED or (P != 1 and P != 2):
        x = entries(x_ptr, row * n, at, n, WIDE)
        well = tl.where(positive, a * v, 0.0)  # for p near 1 the smallest entries say nothing of the multiplier
        moved = total(tl.sum(well * (x - y), 0), sums_ptr, row, 0, part, parts, 0, PASS)
        length = total(tl.sum(well * a, 0), sums_ptr, row, 1, part, parts, 0, PASS)
        most = 0.01 / TINY  # the sum may overflow where the derivative vanishes anyway
        nu = divided(tl.minimum(tl.maximum(moved, -most), most), length)
    d = tl.where(r > 0, tl.where(valid, 1.0, 0.0), 0.0).to(WIDE)
    if P != 1 and (P != 2 or WEIGHTED):
        bend = tl.minimum(w * ((P - 1.0) * tl.exp2((P - 2.0) * logarithm)) / unit, 1.0 / TINY)
        d = divided(d, 1.0 + nu * (bend if P == 2 else tl.where(positive, bend, 0.0)))
    if P < 2 and (P != 1 or MASK):
        d = tl.where(positive, d, 0.0)
    share = total(tl.sum(a * d * g, 0), sums_ptr, row, 2, part, parts, 1, PASS)
    norm = total(tl.sum(a * a * d, 0), sums_ptr, row, 3, part, parts, 1, PASS)
    beta = share / tl.where(norm == 0, 1.0, norm)
    if (PASS == WHOLE) | (PASS == 2):
        q = d * (g - beta * a)
        if P == 2 and not WEIGHTED:
            q *= state  # r / |x|, by which all entries move alike
        tl.store(gx_ptr + row * n + at, tl.where(state == 0, g, q).to(gx_ptr.dtype.element_ty), mask=valid)
        tl.store(gr_ptr + row, tl.where(state == 0, 0.0, beta).to(gr_ptr.dtype.element_ty))
        if WEIGHTED:
            by_norm = tl.where(positive, tl.abs(y) * power / P, 0.0)
            gw = tl.where(state == 0, 0.0, -nu * slope * q - beta * by_norm)
            tl.store(gw_ptr + row * n + at, gw.to(gw_ptr.dtype.element_ty), mask=valid)


@triton.jit
def pull_clip(
    g_ptr,
    y_ptr,
    r_ptr,
    r_stride,
    w_ptr,
    w_stride,
    gx_ptr,
    gr_ptr,
    gw_ptr,
    sums_ptr,
    n,
    MASK: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PASS: tl.constexpr,
):
    """Pull a cotangent back for p = infinity: entries at their limits belong to the radius, the others to x.

    Not masked the entries at their limits are one constraint, with gradient ``w sign(y)`` there.
    Passes: 0 sums, 1 writes.
    """
    row, part, parts, at = place(n, BLOCK, PASS)
    r = tl.load(r_ptr + row * r_stride).to(WIDE)
    g = entries(g_ptr, row * n, at, n, WIDE)
    y = entries(y_ptr, row * n, at, n, WIDE)
    w = weights(w_ptr, row * w_stride, at, n, WEIGHTED, WIDE)
    limit = (r / w if WEIGHTED else r).to(y_ptr.dtype.element_ty).to(WIDE)
    held = (tl.abs(y) >= limit) & (at < n)
    sign = tl.where(held, tl.where(y < 0, -1.0, 1.0), 0.0).to(WIDE)
    if MASK:
        q = tl.where(held, 0.0, g)
        beta = total(tl.sum(sign / w * g if WEIGHTED else sign * g, 0), sums_ptr, row, 0, part, parts, 0, PASS)
    else:
        a = sign * w
        norm = total(tl.sum(a * a, 0), sums_ptr, row, 1, part, parts, 0, PASS)
        beta = total(tl.sum(a * g, 0), sums_ptr, row, 0, part, parts, 0, PASS) / tl.where(norm == 0, 1.0, norm)
        q = g - beta * a
    if (PASS == WHOLE) | (PASS == 1):
        tl.store(gx_ptr + row * n + at, q.to(gx_ptr.dtype.element_ty), mask=at < n)
        tl.store(gr_ptr + row, beta.to(gr_ptr.dtype.element_ty))
        if WEIGHTED:
            gw = -sign * r / (w * w) * g
            tl.store(gw_ptr + row * n + at, gw.to(gw_ptr.dtype.element_ty), mask=at < n)
