"""Thresholds: the number t that makes a sum of clipped entries equal the radius."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ._rows import PARTS, own, slices

STEPS = 32
"""Newton steps before the remaining rows are sorted; random data need 3 to 8, whatever the length of a row."""
SORTED = 8192
"""Up to so many entries NumPy sorts a row on the processor in less time than Newton's steps take."""
CHUNKED, CHUNK, LONG_CHUNK = 256, 32, 64
"""Rows from so many entries are searched in chunks of so many entries, the longer ones from 32 long chunks on."""


def onto_simplex(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None) -> Tensor:
    """Project rows onto ``{u >= 0, sum u = r}``; the state is the number of positive entries, but at least one."""
    del w
    state = _onto_few(x, y, r, signed=False)
    state = _blockwise(_soft_threshold, x, y, r) if state is None else state
    if not bool(x.sum(-1).isfinite().all()):  # -inf is below every threshold
        state = torch.where(x.isfinite().all(-1, keepdim=True), state, torch.nan)
    return state


def onto_l1(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``sum |u| = r``, with positive signs where x is zero.

    The point of the sphere nearest to a point inside lies on the facet of the point's own signs: the same formula holds
    with a negative threshold. The state of a row on the surface is the number of its entries that are not zero.
    """
    del w
    state = _onto_few(x, y, r, signed=True)
    return _blockwise(functools.partial(_block_onto_l1, ball=ball), x, y, r) if state is None else state


def _onto_few(x: Tensor, y: Tensor, r: Tensor, signed: bool) -> Tensor | None:
    """Do as ``onto_l1`` or ``onto_simplex`` where few entries of every row can remain, else return None.

    Where an entry vanishes the threshold is not negative, so that no point is inside.
    """
    length = _chunk_length(x.shape[1]) if x.device.type == "cpu" else 0
    candidates = _candidates(x, r, signed, length) if length else None
    if candidates is None:
        return None
    row, place, values = candidates
    rows, counts = len(x), torch.bincount(row, minlength=len(x))
    width = int(counts.max())
    if 4 * width > x.shape[1]:
        return None
    at = torch.arange(len(row)) + (torch.arange(rows) * width - counts.cumsum(0) + counts)[row]
    few = torch.full((rows, width), -torch.inf, dtype=x.dtype)
    few.view(-1)[at] = values
    found = torch.empty_like(few)
    state = _soft_threshold(few, found, r, (few, torch.empty_like(few)))
    remaining = found.view(-1)[at]
    y.zero_().view(-1)[place] = remaining.copysign_(x.view(-1)[place]) if signed else remaining
    return state


def _candidates(x: Tensor, r: Tensor, signed: bool, length: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the entries that may remain: rows, places in ``x.view(-1)``, and values relative to the row's largest.

    The threshold of the largest entries of all chunks of a row is at most that of the row, so that what is below it
    vanishes: most chunks at once, then single entries. None where half of the chunks may keep an entry.
    """
    chunks, parts = x.view(-1, length), x.shape[1] // length
    largest = chunks.amax(-1)
    if signed:
        largest = torch.maximum(largest, chunks.amin(-1).neg_())
    top = largest.view(-1, parts).amax(-1, keepdim=True)
    relative = largest.view(-1, parts).sub_(top)
    least = _sorted_threshold(relative, r)
    hit = _where(relative >= least)
    if 2 * len(hit) > len(chunks):
        return None
    near, row = chunks.index_select(0, hit), hit // parts
    near = (near.abs_() if signed else near).sub_(top[row])
    kept = _where(near >= least[row])
    chunk = kept // length
    return row[chunk], hit[chunk] * length + kept % length, near.view(-1)[kept]


def _where(mask: Tensor) -> Tensor:
    """Return where a mask holds, counted through all its rows."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


@functools.lru_cache(maxsize=256)
def _chunk_length(n: int) -> int:
    """Return the length of the chunks that divide a row of n entries, 0 where none is fit."""
    longest = LONG_CHUNK if n >= 32 * LONG_CHUNK else CHUNK
    lengths = range(longest, longest // 3, -1) if n >= CHUNKED else range(0)
    return next((length for length in lengths if n % length == 0), 0)


def _blockwise(block: Callable[..., Tensor], x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    blocks = tuple(slices(x, PARTS))
    scratch = (torch.empty_like(x[blocks[0]]), torch.empty_like(x[blocks[0]]))
    return torch.cat([block(x[i], y[i], own(r, i), (scratch[0][: len(x[i])], scratch[1][: len(x[i])])) for i in blocks])


def _block_onto_l1(x: Tensor, y: Tensor, r: Tensor, scratch: tuple[Tensor, Tensor], ball: bool) -> Tensor:
    size = torch.abs(x, out=scratch[0]).sum(-1, keepdim=True)
    free = size < r
    if ball and bool(free.all()):
        y.copy_(x)
        return torch.zeros_like(size)
    state = _soft_threshold(scratch[0], y, r, scratch)
    y.copysign_(x)
    if bool(free.any()):
        rows = free.flatten()
        y[rows] = x[rows] if ball else torch.where(x[rows] < 0, y[rows], y[rows].abs())  # + also for -0
        state = state.masked_fill(free, 0.0) if ball else state
    return state


def _soft_threshold(a: Tensor, y: Tensor, r: Tensor, scratch: tuple[Tensor, Tensor]) -> Tensor:
    """Write ``max(a - t, 0)`` with sum ``r`` to ``y`` (b, n); ``a`` changes if it is one of the scratch tensors.

    Entries are taken relative to the largest one, so that everything is of the size of r, and so is what is lost in
    rounding. A last Newton step on the sum, which is piecewise linear in t, is not added to t but subtracted from the
    entries, which keeps its digits.

    Returns:
        How many entries are positive, at least one, (b, 1), NaN where the radius or an entry is of no use.
    """
    top = a.amax(-1, keepdim=True)
    below, positive = torch.sub(a, top, out=scratch[0]), scratch[1]
    if a.device.type == "cpu" and a.shape[1] <= SORTED:
        t = _sorted_threshold(below, r, scratch[1])
    else:
        t = _newton_threshold(below, r, y, positive)
    count = torch.gt(torch.sub(below, t, out=y).clamp_min_(0.0), 0.0, out=positive).sum(-1, keepdim=True)
    whole, rest = _parts(y)
    total = whole.sum(1).double().sum(-1, keepdim=True) + rest.sum(-1, keepdim=True)
    y.addcmul_(positive, ((r - total) / count.clamp_min_(1.0)).to(y.dtype)).clamp_min_(0.0)
    count = torch.gt(y, 0.0, out=positive).sum(-1, keepdim=True).clamp_min_(1.0)
    return torch.where(total.isfinite() & (r >= 0), count, torch.nan)


def _newton_threshold(below: Tensor, r: Tensor, y: Tensor, positive: Tensor) -> Tensor:
    """Return the threshold of entries of which the largest is zero, by Newton's method from the left.

    The sum is convex and piecewise linear in the threshold, so that it ends after finitely many steps. It begins at the
    threshold of the largest entries of parts of the row, which can only be too low and mostly is nearly right.

    Reference: Michelot 1986; Condat, *Fast projection onto the simplex and the l1 ball*, 2016, sec. 2.
    """
    bound = (
        below.mean(-1, keepdim=True) - r / below.shape[1]
    )  # of huge entries it overflows to -inf, and bounds nothing
    t, count = torch.maximum(_sorted_threshold(_largest_of_parts(below), r), bound), None
    for _ in range(STEPS):
        torch.sub(below, t, out=y).clamp_min_(0.0)
        before, count = count, torch.gt(y, 0.0, out=positive).sum(-1, keepdim=True).clamp_min_(1.0)
        if before is not None and torch.equal(before, count):
            return t
        t = t + (y.sum(-1, keepdim=True) - r) / count
    return _sorted_threshold(below, r, positive)


def _parts(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return up to 64 interleaved parts of equal length of every row, (b, length, parts), and the rest, (b, rest)."""
    parts = min(64, a.shape[1])
    length = a.shape[1] // parts
    return a[:, : parts * length].unflatten(1, (length, parts)), a[:, parts * length :]


def _largest_of_parts(a: Tensor) -> Tensor:
    """Return the largest entry of each part, (b, parts), and of what remains."""
    whole, rest = _parts(a)
    largest = whole.amax(1)
    return torch.cat([largest, rest.amax(-1, keepdim=True)], dim=1) if rest.shape[1] else largest


def _sorted_threshold(a: Tensor, r: Tensor, scratch: Tensor | None = None) -> Tensor:
    """Return the threshold by sorting, ``max_k (sum of the k largest - r) / k`` (Held, Wolfe and Crowder 1974)."""
    falling = torch.neg(a, out=scratch)
    if a.device.type == "cpu":  # NumPy sorts floats twenty times as fast as torch
        falling.numpy().sort(axis=-1)
    else:
        falling = falling.sort(-1).values
    counts = torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device)
    return falling.cumsum_(-1).add_(r).div_(counts).amin(-1, keepdim=True).neg_()


def onto_weighted_l1(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``sum w |u| = r``, in float64: entries move by ``t w`` towards zero.

    As without weights t is taken relative to the largest ratio, that of the entry which vanishes last.
    """
    assert w is not None
    a, w, r = x.double().abs(), w.double(), r.double()
    size = (w * a).sum(-1, keepdim=True)
    free = (size < r) & ball
    top, last = (a / w).max(-1, keepdim=True)
    below = (a - top * w).scatter(-1, last, 0.0)
    t = ((w * below).sum(-1, keepdim=True) - r) / w.square().sum(-1, keepdim=True)
    t = torch.maximum(t, -r / w.expand_as(a).gather(-1, last).square())  # the last entry alone fills the radius
    weight = torch.zeros_like(t)
    for _ in range(a.shape[1] + 2):
        z = (below - t * w).clamp_min_(0.0)
        excess = (w * z).sum(-1, keepdim=True) - r
        before, weight = weight, (w.square() * (z > 0)).sum(-1, keepdim=True).clamp_min_(torch.finfo(z.dtype).tiny)
        if torch.equal(before, weight):
            break
        t = t + excess / weight
    z = (below - t * w - (excess / weight) * w).clamp_min_(0.0)
    y.copy_(torch.where(free, x, torch.where(x < 0, -z, z)))
    good = size.isfinite() & r.isfinite() & (r >= 0) & (w > 0).all(-1, keepdim=True)
    return torch.where(good, (~free).double(), torch.nan).to(x.dtype)
