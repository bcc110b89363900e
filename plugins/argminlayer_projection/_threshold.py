"""Thresholds: the number t that makes a sum of clipped entries equal the radius, found without sorting."""

import numpy as np
import torch
from torch import Tensor

STEPS = 32
"""Newton steps before the remaining rows are sorted; random data need 3 to 8, whatever the length of a row."""


def soft_threshold(a: Tensor, y: Tensor, r: Tensor, scratch: tuple[Tensor, Tensor]) -> Tensor:
    """Write ``max(a - t, 0)`` with sum ``r`` to ``y`` (b, n); ``a`` changes if it is the first of the scratch tensors.

    Entries are taken relative to the largest one, so that everything is of the size of r, and so is what is lost in
    rounding. The sum is convex and piecewise linear in t: Newton's method from the left ends after finitely many steps.
    It begins at the threshold of the largest entries of parts of the row, which can only be too low and mostly is
    nearly right. The last step is not added to t but subtracted from the entries, which keeps its digits.

    Returns:
        What the sum was before the last step, (b, 1), NaN where entries are not finite.

    Reference: Michelot 1986; Condat, *Fast projection onto the simplex and the l1 ball*, 2016, sec. 2.
    """
    largest = _largest_of_parts(a)
    top = largest.amax(-1, keepdim=True)
    mean = a.mean(-1, keepdim=True)
    if not bool(mean.isfinite().all()):  # of huge entries it may overflow, and then bounds nothing
        top = torch.where(a.isfinite().all(-1, keepdim=True), top, torch.nan)
        mean = mean.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    bound = (mean - top) - r / a.shape[1]
    t = torch.maximum(_sorted_threshold(largest - top, r), bound)
    below, positive, count = torch.sub(a, top, out=scratch[0]), scratch[1], None
    for _ in range(STEPS):
        torch.sub(below, t, out=y).clamp_min_(0.0)
        before, count = count, torch.gt(y, 0.0, out=positive).sum(-1, keepdim=True).clamp_min_(1.0)
        if before is not None and torch.equal(before, count):
            break
        t = t + (y.sum(-1, keepdim=True) - r) / count
    else:
        torch.sub(below, _sorted_threshold(below, r), out=y).clamp_min_(0.0)
        count = torch.gt(y, 0.0, out=positive).sum(-1, keepdim=True).clamp_min_(1.0)
    total = _parts(y)[0].sum(1).double().sum(-1, keepdim=True) + _parts(y)[1].sum(-1, keepdim=True)
    y.addcmul_(positive, ((r - total) / count).to(y.dtype)).clamp_min_(0.0)
    return total


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


def _sorted_threshold(a: Tensor, r: Tensor) -> Tensor:
    """Return the threshold by sorting, ``max_k (sum of the k largest - r) / k`` (Held, Wolfe and Crowder 1974)."""
    if a.device.type == "cpu":  # NumPy sorts floats twenty times as fast as torch
        descending = torch.from_numpy(np.sort(a.numpy(), axis=-1)).flip(-1)
    else:
        descending = a.sort(-1, descending=True).values
    counts = torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device)
    return ((descending.cumsum(-1) - r) / counts).amax(-1, keepdim=True)


def onto_simplex(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, scratch: tuple[Tensor, Tensor]) -> Tensor:
    """Project rows onto ``{u >= 0, sum u = r}``; see ``_rows.Kernel``."""
    del w
    total = soft_threshold(x, y, r, scratch)
    return torch.where(total.isfinite() & (r >= 0), 1.0, torch.nan)


def onto_l1(x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, scratch: tuple[Tensor, Tensor], ball: bool) -> Tensor:
    """Project rows onto the sphere or ball ``sum |u| = r``, with positive signs where x is zero.

    The point of the sphere nearest to a point inside lies on the facet of the point's own signs: the same formula holds
    with a negative threshold.
    """
    del w
    size = torch.abs(x, out=scratch[0]).sum(-1, keepdim=True)
    free = size < r
    if ball and bool(free.all()):
        y.copy_(x)
        return torch.zeros_like(size)
    total = soft_threshold(scratch[0], y, r, scratch)
    y.copysign_(x)
    state = torch.where(total.isfinite() & (r >= 0), 1.0, torch.nan)
    if bool(free.any()):
        rows = free.flatten()
        y[rows] = x[rows] if ball else torch.where(x[rows] < 0, y[rows], y[rows].abs())  # + also for -0
        state = state.masked_fill(free, 0.0) if ball else state
    return state


def onto_weighted_l1(
    x: Tensor, y: Tensor, r: Tensor, w: Tensor | None, scratch: tuple[Tensor, Tensor], ball: bool
) -> Tensor:
    """Project rows onto the sphere or ball ``sum w |u| = r``, in float64: entries move by ``t w`` towards zero.

    As without weights t is taken relative to the largest ratio, that of the entry which vanishes last.
    """
    del scratch
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
