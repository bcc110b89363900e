"""Pooling with the truncated quadratic penalty: the exact global minimum, by enumeration of the sets of inliers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._kernels import Kernels
from ._penalties import weighted
from ._rows import Rows, sort_rows

CELLS = (64, 16)
"""Into how many cells a row is cut, and those of them again that may hold the minimum, before sets are enumerated."""
FEW = 512
"""Rows of so few points are enumerated at once."""
NARROW = 1e4
"""Rows that spread over less than this many alpha have prefix sums accurate enough with one origin."""
TIE = 1e-12
"""Relative difference of objectives up to which the leftmost of several minima is taken."""


@dataclass(frozen=True)
class Windows:
    """Sorted points ``t`` (rows, n) in units of alpha, with prefix sums that give the cost of a window of them.

    Let the points of a window be the inliers. With ``w`` and ``s`` the sum of their weights and half the weighted sum
    of their squared distances to their mean, the objective there is at most ``s + (total - w) / 2``, and equal to it at
    the window that is the minimum: the truncated quadratic is the smaller of its two branches.

    Attributes:
        t: sorted.
        origin: from which the sums are taken, one number for each point, the same within any window.
        sums: prefix sums of ``w d`` and ``w d^2`` with ``d = t - origin``, each (rows, n + 1), first zero.
        weights: prefix sums of ``w``, None for ones.
        total: sum of the weights, (rows, 1).
    """

    t: Tensor
    origin: Tensor
    sums: tuple[Tensor, Tensor]
    weights: Tensor | None
    total: Tensor

    @classmethod
    def of(cls, t: Tensor, w: Tensor | None) -> "Windows":
        """Return the windows of sorted points."""
        origin = _origin(t)
        d = t - origin
        wd = weighted(d, w)
        weights = None if w is None else _prefix(w)
        total = torch.full_like(t[:, :1], t.shape[-1]) if weights is None else weights[:, -1:]
        return cls(t, origin, (_prefix(wd), _prefix(wd * d)), weights, total)

    def weight(self, first: Tensor, last: Tensor) -> Tensor:
        """Return the weight of the windows ``first <= i < last``."""
        if self.weights is None:
            return (last - first).to(self.t.dtype)
        return self.weights.gather(-1, last) - self.weights.gather(-1, first)

    def moments(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weight, mean from the origin and scatter of the windows, all zero for one without weight."""
        w = self.weight(first, last)
        d, dd = (s.gather(-1, last).sub_(s.gather(-1, first)) for s in self.sums)
        mean = d / w.clamp(min=torch.finfo(w.dtype).tiny)  # zero over zero is zero
        return w, mean, (dd - d * mean).clamp_min_(0.0)

    def cost(self, first: Tensor, last: Tensor) -> Tensor:
        """Return twice the objective with the windows as inliers, less the total weight."""
        w, _, scatter = self.moments(first, last)
        return scatter.sub_(w)


def _prefix(terms: Tensor) -> Tensor:
    return torch.nn.functional.pad(terms.cumsum(-1), (1, 0))


def _origin(t: Tensor) -> Tensor:
    """Return where sums are taken from: one point for a narrow row, else the first after each gap no window spans."""
    if bool((t[:, -1] - t[:, 0] <= NARROW).all()):
        return t[:, t.shape[-1] // 2, None]
    gap = torch.nn.functional.pad(t.diff(dim=-1) > 2.0, (1, 0), value=True)
    position = torch.arange(t.shape[-1], device=t.device).expand_as(t)
    return t.gather(-1, torch.where(gap, position, 0).cummax(-1).values)


def pool_truncated(rows: Rows, kernels: Kernels | None = None) -> Tensor:
    """Return ``argmin_u sum_i w_i min((x_i - u)^2, alpha^2) / 2`` of a block of rows, (rows,), in double precision.

    As ``u`` moves over the sorted points, its inliers are a window that gains a point at ``x_i - alpha`` and loses one
    at ``x_i + alpha``; the best of these 2n windows is the minimum, and its mean the solution. Windows in cells whose
    lower bound exceeds the best window known are left out. Of equal minima the leftmost is taken.
    """
    s = sort_rows(rows)
    middle = s.x[:, s.x.shape[-1] // 2, None].double()
    t = (s.x.double() - middle).div_(s.alpha)
    windows = Windows.of(t, None if s.weights is None else s.weights.double())
    if kernels is None:
        begin, end = _best(windows)
    else:
        begin, end = kernels.windows(t, windows.sums, windows.weights, windows.total, TIE)
    # from the first inlier: a window is narrow, a row may be wide
    offset = windows.moments(begin, end)[1] + (windows.origin.expand_as(t).gather(-1, begin) - t.gather(-1, begin))
    u = s.x.gather(-1, begin).double() + s.alpha * offset
    return u[:, 0].clamp_(s.x[:, 0], s.x[:, -1])


def _best(windows: Windows) -> tuple[Tensor, Tensor]:
    """Return the first point of the leftmost best window of each row, and the one after its last, (rows, 1) each."""
    t, n = windows.t, windows.t.shape[-1]
    gains, losses, *held = _promising(windows) if n > FEW else (torch.arange(n, device=t.device).expand_as(t),) * 2
    # a window that ends with the point gained, and one that begins after the point lost
    first = torch.searchsorted(t, t.gather(-1, gains) - 2.0)
    last = torch.searchsorted(t, t.gather(-1, losses) + 2.0, right=True)
    begin, end = torch.cat([first, losses + 1, *held[:1]], -1), torch.cat([gains + 1, last, *held[1:]], -1)
    cost = windows.cost(begin, end)
    least = cost.amin(-1, keepdim=True)
    begin = torch.where(cost <= least + TIE * windows.total, begin, n)
    chosen = begin.argmin(-1, keepdim=True)
    return begin.gather(-1, chosen), end.gather(-1, chosen)


def _promising(windows: Windows) -> tuple[Tensor, ...]:
    """Return what the window of the minimum may be: the points whose gain or loss makes it, or a whole window.

    The row is cut into cells, and those that may hold the minimum are cut again. A window that no point in these cells
    makes is there already at the lower edge of one.

    Returns:
        Points gained and points lost, (rows, most) each; first points of windows and the ones after their last points.
    """
    t = windows.t
    low, high = t[:, :1], t[:, -1:]
    bound = torch.full_like(low, torch.inf)
    for count in CELLS:
        edges = torch.linspace(0.0, 1.0, count + 1, dtype=t.dtype, device=t.device)
        edges = low[:, :, None] + (high - low)[:, :, None] * edges
        cells, keep, bound = _bounded(windows, edges, bound)
        order = keep.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[:, : int(keep.sum(-1).max())]
        low, high, *window = (part.gather(-1, order) for part in cells)
        keep = keep.gather(-1, order)
    first, after, later, end = window
    n = t.shape[-1]
    return _listed(after, end, keep, n), _listed(first, later, keep, n), first, after


def _bounded(windows: Windows, edges: Tensor, bound: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Bound the cost over cells from below, and from above by what it is at their edges.

    Over a cell of width h, the points within alpha of both edges are inliers (the core), and the points that are
    inliers somewhere but not everywhere cost at least ``(alpha - h)^2 / 2`` each.

    Args:
        windows: of the points.
        edges: of neighbouring cells, (rows, groups, cells + 1).
        bound: the least cost known, (rows, 1).

    Returns:
        Of each cell (rows, groups * cells): its edges, and the windows of inliers at these, as their first points and
        the ones after their last points. Which cells may hold the minimum. The least cost known now.
    """
    flat = edges.flatten(1)
    enter = torch.searchsorted(windows.t, flat - 1.0)
    leave = torch.searchsorted(windows.t, flat + 1.0, right=True)
    bound = torch.minimum(bound, windows.cost(enter, leave).amin(-1, keepdim=True))
    low, high = edges[..., :-1].flatten(1), edges[..., 1:].flatten(1)
    enter, leave = enter.reshape(edges.shape), leave.reshape(edges.shape)
    first, after = enter[..., :-1].flatten(1), leave[..., :-1].flatten(1)
    later, end = enter[..., 1:].flatten(1), leave[..., 1:].flatten(1)
    core, _, scatter = windows.moments(later, torch.maximum(later, after))
    rim = (windows.weight(first, end) - core) * (1.0 - (1.0 - (high - low)).clamp_min(0.0).square())
    keep = scatter - core - rim <= bound + TIE * windows.total
    return (low, high, first, after, later, end), keep, bound


def _listed(first: Tensor, last: Tensor, keep: Tensor, n: int) -> Tensor:
    """Return the positions ``first <= i < last`` of the ranges kept, (rows, most); the last ones repeat others."""
    lengths = torch.where(keep, last - first, 0)
    ends = lengths.cumsum(-1)
    most = max(1, int(ends[:, -1].max()))
    place = torch.arange(most, device=ends.device).minimum(ends[:, -1:] - 1).clamp_min(0)
    inside = torch.searchsorted(ends, place, right=True).clamp_max(ends.shape[-1] - 1)
    return (place - ends.gather(-1, inside) + last.gather(-1, inside)).clamp(0, n - 1)
