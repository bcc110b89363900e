# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def"
# ruff: noqa: ANN001, ANN202 - annotations other than constexpr are compiled as code
"""What kernels of rows share: where a program works, what it reads there, and sums over a row that several have.

A row of up to ``BLOCK`` entries belongs to one program, which reads it once and keeps it on the chip (``PASS`` is
``WHOLE``). Of a longer row every program has a part, and the same kernel runs in several passes: in pass k all programs
write their shares of the sums of stage k, which later passes read.
"""

import triton
import triton.language as tl

WHOLE = tl.constexpr(-1)
"""The pass of rows that are on the chip."""
SLOTS = tl.constexpr(12)
"""Sums of a row, at most."""


@triton.jit
def place(n, BLOCK: tl.constexpr, PASS: tl.constexpr):
    """Return the row of a program, its part, the number of parts, and the entries it has."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    if PASS == WHOLE:
        return row, 0, 1, at
    else:
        parts = tl.cdiv(n.to(tl.int64), BLOCK)
        part = row % parts
        return row // parts, part, parts, part * BLOCK + at


@triton.jit
def entries(x_ptr, first, at, n, WIDE: tl.constexpr):
    """Return entries of the row that begins at ``first``, zero beyond its end."""
    x = tl.load(x_ptr + first + at, mask=at < n, other=0.0)
    if x.dtype == tl.bfloat16:
        x = x.to(tl.float32)  # to float64 there is no other way
    return x.to(WIDE)


@triton.jit
def weights(w_ptr, first, at, n, WEIGHTED: tl.constexpr, WIDE: tl.constexpr):
    """Return the weights of entries, one beyond the end of a row and where there are none."""
    if WEIGHTED:
        return tl.where(at < n, entries(w_ptr, first, at, n, WIDE), 1.0)
    else:
        return tl.full((), 1.0, WIDE)


@triton.jit
def unusable(x, w, WEIGHTED: tl.constexpr):
    """Return how many entries are infinite or no number, or have a weight that is, or is not positive."""
    good = x - x == 0
    if WEIGHTED:
        good = good & (w > 0) & (w - w == 0)
    return tl.sum(tl.where(good, 0.0, 1.0).to(x.dtype), 0)


@triton.jit
def state_of(state, bad, r):
    """Return the state of a row, NaN where its entries, weights or radius cannot be used."""
    return tl.where((bad == 0) & (r >= 0) & (r - r == 0), state, float("nan"))


@triton.jit
def store_row(y, state, y_ptr, state_ptr, row, at, n):
    """Write entries of a row, NaN where its state is, and its state."""
    y = tl.where(state == state, y, float("nan"))
    if y_ptr.dtype.element_ty == tl.bfloat16:
        y = y.to(tl.float32)
    tl.store(y_ptr + row * n + at, y.to(y_ptr.dtype.element_ty), mask=at < n)
    tl.store(state_ptr + row, state)


@triton.jit
def total(own, sums_ptr, row, slot, part, parts, STAGE: tl.constexpr, PASS: tl.constexpr):
    """Return the sum over a row of what its programs have."""
    sums_ptr += (row * SLOTS + slot) * parts
    if PASS == STAGE:
        tl.store(sums_ptr + part, own)
    if PASS > STAGE:
        own = tl.full((), 0.0, own.dtype)
        for start in range(0, parts, 256):
            at = start + tl.arange(0, 256)
            own += tl.sum(tl.load(sums_ptr + at, mask=at < parts, other=0.0), 0)
    return own


@triton.jit
def largest(own, sums_ptr, row, slot, part, parts, STAGE: tl.constexpr, PASS: tl.constexpr):
    """Return the largest over a row of what its programs have."""
    sums_ptr += (row * SLOTS + slot) * parts
    if PASS == STAGE:
        tl.store(sums_ptr + part, own)
    if PASS > STAGE:
        own = tl.full((), -float("inf"), own.dtype)
        for start in range(0, parts, 256):
            at = start + tl.arange(0, 256)
            own = tl.maximum(own, tl.max(tl.load(sums_ptr + at, mask=at < parts, other=-float("inf")), 0))
    return own
