"""Pooling with a smooth penalty that is not convex: the global minimum, with a proof of how near it is.

The points are gathered in narrow bins. Sums over the bins bound the objective over cells of the line from below; cells
that cannot hold the minimum are dropped, the others are cut and bounded again. From what is left Newton's method runs
on the points themselves. Around a minimum it finds, Taylor's theorem says how far nothing is lower.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._kernels import Kernels, pools_of
from ._penalties import AbstractPenalty, Bounds, summed, weighted
from ._rows import Rows, sort_rows

BIN = 0.25
"""Width of a bin in units of alpha."""
FEW = 64
"""So few points of a row need no bins."""
CUT = 8
"""Into how many cells a cell is cut."""
FAR = 1e6
"""Rows of single precision that spread over more than this many alpha are worked on in double precision."""
PAIRS = 1 << 18
"""Pairs of cells and bins worked on at a time."""
MOST_STEPS = 100
"""Newton steps from one cell."""
LEVEL = 1e-3
"""Where the curvature is less than this part of the weights, a step is to the weighted mean instead."""
MOST_CUTS = 8
"""How often a cell that no minimum explains is cut, before the gap that it leaves is reported."""
MOST_CELLS = 1024
"""Cells of a row worked on at a time then."""


@dataclass(frozen=True)
class Bins:
    """Points in narrow bins, as masses at their means; all in units of alpha, (rows, bins), no mass where padded.

    Attributes:
        mean: of the points in a bin.
        mass: their weight.
        scatter: weighted sum of squared distances to the mean, of all bins, (rows, 1).
        total: sum of the weights, (rows, 1).
        dtype: in which sums are taken.
    """

    mean: Tensor
    mass: Tensor
    scatter: Tensor
    total: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, t: Tensor, weights: Tensor | None, dtype: torch.dtype) -> "Bins":
        """Return the bins of sorted points (rows, n); of a few, every point in one of its own."""
        if t.shape[-1] <= FEW:
            mass = torch.ones_like(t) if weights is None else weights
            return cls(t, mass, torch.zeros_like(t[:, :1]), mass.sum(-1, keepdim=True), dtype)
        place = (t / BIN).floor_()
        offset = t - (place + 0.5).mul_(BIN)
        number = torch.nn.functional.pad(place[:, 1:] != place[:, :-1], (1, 0)).cumsum(-1)
        bins = torch.arange(int(number[:, -1].max()) + 2, device=t.device).expand(len(t), -1).contiguous()
        edges = torch.searchsorted(number, bins)
        first, last = edges[:, :-1], edges[:, 1:]

        def collected(terms: Tensor) -> Tensor:
            sums = torch.nn.functional.pad(terms.cumsum(-1), (1, 0))
            return sums.gather(-1, last) - sums.gather(-1, first)

        mass = (last - first).to(t.dtype) if weights is None else collected(weights)
        shift = collected(weighted(offset, weights))
        scatter = collected(weighted(offset.square_(), weights))
        shift = torch.where(mass > 0, shift / mass, 0.0)
        scatter = (scatter - mass * shift.square()).sum(-1, keepdim=True)
        start = place.gather(-1, first.clamp_max(t.shape[-1] - 1))
        return cls((start + 0.5) * BIN + shift, mass, scatter, mass.sum(-1, keepdim=True), dtype)

    def sums(self, penalty: AbstractPenalty, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective and its slope at ``u`` (rows, m), as if all points were at the means of their bins."""
        rows, bins = self.mean.shape
        step = max(1, PAIRS // (rows * bins))
        mass = self.mass.to(self.dtype)[:, None]
        parts = []
        for at in u.split(step, dim=-1):
            t = (at[:, :, None] - self.mean[:, None]).to(self.dtype)
            parts.append(penalty.first(t, mass))
        value, slope = (torch.cat(part, -1).double() for part in zip(*parts, strict=True))
        return value, slope


@dataclass(frozen=True)
class Cells:
    """Cells that may hold the minimum, in units of alpha, (rows, m); a padded cell has no bound, infinity.

    Attributes:
        middle: of the cells.
        radius: of all of them, half their width.
        bound: what the objective is at least, over each cell.
    """

    middle: Tensor
    radius: float
    bound: Tensor


def pool_modes(
    penalty: AbstractPenalty, bounds: Bounds, rows: Rows, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``argmin_u sum_i w_i phi(x_i - u)`` of a block of rows, and the gap that is left.

    Of minima that are equal to rounding, the leftmost is taken.

    Args:
        penalty: smooth, not convex.
        bounds: on its derivatives.
        rows: a block.
        kernels: take over sums over the points.

    Returns:
        The solutions, (rows,), in double precision. By how much of the total weight the objective, in units of
        ``alpha^2 phi''(0)``, may at most exceed its global minimum, (rows,): zero where that is proved.
    """
    s = sort_rows(rows)
    far = s.x[:, -1] - s.x[:, 0] > FAR * s.alpha[:, 0]
    if s.x.dtype == torch.float64 or not bool(far.any()):
        return _pool_sorted(penalty, bounds, s, kernels)
    u, gap = torch.empty_like(s.alpha[:, 0]), torch.empty_like(s.alpha[:, 0])
    for which, some in ((far, s[far].double()), (~far, s[~far])):
        if len(some.x):
            u[which], gap[which] = _pool_sorted(penalty, bounds, some, kernels)
    return u, gap


def _pool_sorted(penalty: AbstractPenalty, bounds: Bounds, s: Rows, kernels: Kernels | None) -> tuple[Tensor, Tensor]:
    middle = s.x[:, s.x.shape[-1] // 2, None].double()
    t = (s.x.double() - middle).div_(s.alpha)
    bins = Bins.of(t, None if s.weights is None else s.weights.double(), s.x.dtype)
    cells = _promising(penalty, bounds, bins)
    u, gap = _descend(_Search(penalty, bounds, s, middle[:, 0], bins.total[:, 0], kernels), cells)
    return u.clamp_(s.x[:, 0], s.x[:, -1]), gap / bins.total[:, 0]


def _promising(penalty: AbstractPenalty, bounds: Bounds, bins: Bins) -> Cells:
    """Return the cells that may hold the minimum, after one cut."""
    width = max(1.0, 0.5 * bounds.inflection)
    around = int(-(-bounds.inflection // width))
    cells, best = _bounded(penalty, bounds, bins, (_places(bins, width, around) + 0.5) * width, 0.5 * width)
    cells = _kept(cells, best)
    offsets = (torch.arange(CUT).to(cells.middle) + 0.5) / CUT * 2.0 - 1.0
    middles = torch.where(cells.bound < torch.inf, cells.middle, torch.nan)[:, :, None] + cells.radius * offsets
    cells, best = _bounded(penalty, bounds, bins, middles.flatten(1), cells.radius / CUT)
    return _kept(cells, best)


def _places(bins: Bins, width: float, around: int) -> Tensor:
    """Return the places of the cells that hold a bin or are at most ``around`` away from one, the rest NaN."""
    place = torch.where(bins.mass > 0, (bins.mean / width).floor_(), -torch.inf).cummax(-1).values
    # of the cells around a bin those beyond the cells around the one before
    above = torch.nn.functional.pad(place[:, :-1], (1, 0), value=-torch.inf) + around
    near = place[:, :, None] + torch.arange(-around, around + 1.0, device=place.device, dtype=place.dtype)
    new = ((near > above[:, :, None]) & (near > -torch.inf)).flatten(1)
    order = new.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[:, : int(new.sum(-1).max())]
    return torch.where(new, near.flatten(1), torch.nan).gather(-1, order)


def _bounded(
    penalty: AbstractPenalty, bounds: Bounds, bins: Bins, middle: Tensor, radius: float
) -> tuple[Cells, Tensor]:
    """Bound the objective over cells from below, and its minimum from above, (rows, 1).

    The mean of a bin for its points changes a sum of rho by at most half the scatter, for ``|rho''| <= 1``, and that
    of rho' by ``twist / 2`` of it. From the middle of a cell of radius r the objective falls at most by
    ``r |slope| + dip r^2 / 2`` of the total.
    """
    value, slope = bins.sums(penalty, middle)
    rounding = 100.0 * torch.finfo(bins.dtype).eps * (bins.total + value)
    error, tilt = 0.5 * bins.scatter + rounding, 0.5 * bounds.twist * bins.scatter + rounding
    bound = value - error - radius * (slope.abs() + tilt) - 0.5 * bounds.dip * radius**2 * bins.total
    best = (value + error).nan_to_num(nan=torch.inf).amin(-1, keepdim=True)
    return Cells(middle, radius, bound.nan_to_num(nan=torch.inf)), best


def _kept(cells: Cells, best: Tensor) -> Cells:
    """Return the cells whose bound is below the best value known."""
    keep = cells.bound <= best
    order = keep.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)[:, : int(keep.sum(-1).max())]
    bound = torch.where(keep, cells.bound, torch.inf).gather(-1, order)
    return Cells(cells.middle.gather(-1, order), cells.radius, bound)


def _descend(search: "_Search", cells: Cells) -> tuple[Tensor, Tensor]:
    """Return the lowest of the minima that descents from the cells find, and the gap that they leave.

    The cell of lowest bound goes first. The minimum found explains the cells around it over which nothing is proved to
    be lower; those whose bound exceeds the lowest minimum are done as well. The rest is cut, and bounded by sums over
    the points themselves, until nothing is left.
    """
    u = torch.zeros_like(search.total)
    lowest, gap = torch.full_like(u, torch.inf), torch.zeros_like(u)
    tie = torch.finfo(search.rows.x.dtype).eps * search.total
    left = torch.arange(len(u), device=u.device)
    for _ in range(MOST_CUTS):
        first = cells.bound.argmin(-1, keepdim=True)
        found, value, curvature = search.minimum(cells.middle.gather(-1, first)[:, 0])
        lower, equal = value < lowest[left] - tie[left], value <= lowest[left] + tie[left]
        u[left] = torch.where(lower | (equal & (found < u[left])), found, u[left])
        lowest[left] = torch.minimum(value, lowest[left])
        sure = 3.0 * curvature / (search.bounds.twist * search.total) - cells.radius
        explained = (cells.middle - search.place(found)[:, None]).abs() <= sure[:, None]
        bound = torch.where(explained | (cells.bound > lowest[left, None]), torch.inf, cells.bound)
        gap[left] = (lowest[left] - bound.amin(-1)).clamp_min(0.0)
        rest = (gap[left] > 0.0).nonzero()[:, 0]
        if len(rest) == 0:
            break
        left, search = left[rest], search[rest]
        cells = _kept(Cells(cells.middle[rest], cells.radius, bound[rest]), lowest[left, None])
        if cells.middle.shape[-1] > MOST_CELLS:
            break
        cells = _kept(search.cut(cells), lowest[left, None])
        gap[left] = 0.0
        some = (cells.bound < torch.inf).any(-1).nonzero()[:, 0]
        if len(some) == 0:
            break
        left, search = left[some], search[some]
        cells = Cells(cells.middle[some], cells.radius, cells.bound[some])
        gap[left] = (lowest[left] - cells.bound.amin(-1)).clamp_min(0.0)
    return u, gap


@dataclass(frozen=True)
class _Search:
    """Rows in which minima are looked for.

    Attributes:
        penalty: of the points.
        bounds: on its derivatives.
        rows: the points.
        origin: from which places are counted, in units of alpha, (rows,).
        total: sum of the weights, (rows,).
        kernels: take over sums over the points.
    """

    penalty: AbstractPenalty
    bounds: Bounds
    rows: Rows
    origin: Tensor
    total: Tensor
    kernels: Kernels | None

    def __getitem__(self, index: slice | Tensor) -> "_Search":
        """Return the search in some of the rows."""
        return replace(self, rows=self.rows[index], origin=self.origin[index], total=self.total[index])

    def place(self, u: Tensor) -> Tensor:
        """Return the place of values, one in each row, from the origin."""
        return (u - self.origin) / self.rows.alpha[:, 0]

    def minimum(self, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the minimum to which a descent leads, its objective and curvature in units of alpha, (rows,) each.

        Newton's method; where the curvature is small or negative, the step to the weighted mean, which never goes up.
        """
        penalty, rows, alpha = self.penalty, self.rows, self.rows.alpha[:, 0]
        # after so short a step the next one, the last, is as short as the grid below is fine
        short = 0.1 * torch.finfo(rows.x.dtype).eps ** 0.25
        u = self.origin + alpha * place
        if self.kernels is None:
            u = self._descend(u, short)
        else:
            u = self.kernels.descend(pools_of(penalty, rows), u, short)[0]
        # one more step, from a point on a grid: neither the minimum nor its last digit depends on the way there
        grid = 0.125 * torch.finfo(rows.x.dtype).eps ** 0.5 * alpha
        u = (u / grid).round() * grid
        u = u.to(rows.x.dtype).double()
        t = rows.residuals(u)
        value, _ = penalty.first(t.clone(), rows.weights)
        slope, curvature = (term.double() for term in penalty.second(t, rows.weights))
        step = torch.where(curvature > 0.0, alpha * (slope / curvature), 0.0)
        return torch.where(step.abs() <= short * alpha, u + step, u), value.double(), curvature

    def _descend(self, u: Tensor, short: float) -> Tensor:
        """Return where steps from ``u`` are shorter than ``short`` in units of alpha."""
        penalty, rows, alpha = self.penalty, self.rows, self.rows.alpha[:, 0]
        done, t = torch.zeros_like(u, dtype=torch.bool), torch.empty_like(rows.x)
        for _ in range(MOST_STEPS):
            u = torch.where(done, u, u.to(rows.x.dtype).double())
            slope, curvature = (term.double() for term in penalty.second(rows.residuals(u, t), rows.weights))
            if bool((curvature <= LEVEL * self.total).any()):
                mass = summed(penalty.weight(rows.residuals(u, t)), rows.weights).double()
                curvature = torch.where(curvature > LEVEL * mass, curvature, mass)
            step = alpha * (slope / curvature)
            u = torch.where(done, u, u + step)
            done = done | (step.abs() <= short * alpha)
            if bool(done.all()):
                break
        return u

    def sums(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return objective and slope at places (rows, m), in units of alpha."""
        rows, penalty = self.rows, self.penalty
        if self.kernels is not None:
            return self.kernels.sums(pools_of(penalty, rows), u)
        values, slopes = [], []
        weights = None if rows.weights is None else rows.weights[:, None]
        for part in u.split(max(1, PAIRS // rows.x.numel()), dim=-1):
            t = (rows.x[:, None] - part[:, :, None].to(rows.x.dtype)) * rows.unit[:, :, None]
            value, slope = (term.double() for term in penalty.first(t, weights))
            values.append(value)
            slopes.append(slope)
        return torch.cat(values, -1), torch.cat(slopes, -1)

    def cut(self, cells: Cells) -> Cells:
        """Return the cells cut, bounded by sums over the points themselves."""
        radius = cells.radius / CUT
        offsets = (2.0 * torch.arange(CUT).to(cells.middle) + 1.0 - CUT) * radius
        middle = (cells.middle[:, :, None] + offsets).flatten(1)
        value, slope = self.sums(self.origin[:, None] + self.rows.alpha * middle)
        total = self.total[:, None]
        rounding = 10.0 * torch.finfo(self.rows.x.dtype).eps * (total + value)
        bound = value - rounding - radius * slope.abs() - 0.5 * self.bounds.dip * radius**2 * total
        parents = (cells.bound < torch.inf)[:, :, None].expand(-1, -1, CUT).flatten(1)
        return Cells(middle, radius, torch.where(parents, bound, torch.inf))
