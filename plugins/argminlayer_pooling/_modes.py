"""Pooling with a smooth penalty that is not convex: the global minimum, with a proof of how near it is.

The points are gathered in narrow bins. Sums over the bins bound the objective over cells of the line from below; cells
that cannot hold the minimum are dropped, the others are cut and bounded again. From what is left Newton's method runs
on the points themselves. Around a minimum it finds, Taylor's theorem says how far nothing is lower.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._penalties import AbstractPenalty, Bounds, weighted
from ._rows import Rows, sort_rows

BIN = 0.25
"""Width of a bin in units of alpha."""
CUT = 8
"""Into how many cells a cell is cut."""
FAR = 1e6
"""Rows of single precision that spread over more than this many alpha are worked on in double precision."""
PAIRS = 1 << 18
"""Pairs of cells and bins worked on at a time."""
MOST_STEPS = 60
"""Newton steps from one cell."""
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
        """Return the bins of sorted points (rows, n)."""
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
            parts.append([(term.mul_(mass)).sum(-1) for term in penalty.value_and_slope(t)])
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


def pool_modes(penalty: AbstractPenalty, bounds: Bounds, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return ``argmin_u sum_i w_i phi(x_i - u)`` of a block of rows, and the gap that is left.

    Of minima that are equal to rounding, the leftmost is taken.

    Args:
        penalty: smooth, not convex.
        bounds: on its derivatives.
        rows: a block.

    Returns:
        The solutions, (rows,), in double precision. By how much of the total weight the objective, in units of
        ``alpha^2 phi''(0)``, may at most exceed its global minimum, (rows,): zero where that is proved.
    """
    s = sort_rows(rows)
    far = s.x[:, -1] - s.x[:, 0] > FAR * s.alpha[:, 0]
    if s.x.dtype == torch.float64 or not bool(far.any()):
        return _pool_sorted(penalty, bounds, s)
    u, gap = torch.empty_like(s.alpha[:, 0]), torch.empty_like(s.alpha[:, 0])
    for which, some in ((far, s[far].double()), (~far, s[~far])):
        if len(some.x):
            u[which], gap[which] = _pool_sorted(penalty, bounds, some)
    return u, gap


def _pool_sorted(penalty: AbstractPenalty, bounds: Bounds, s: Rows) -> tuple[Tensor, Tensor]:
    middle = s.x[:, s.x.shape[-1] // 2, None].double()
    t = (s.x.double() - middle).div_(s.alpha)
    bins = Bins.of(t, None if s.weights is None else s.weights.double(), s.x.dtype)
    cells = _promising(penalty, bounds, bins)
    return _descend(_Search(penalty, bounds, s, middle[:, 0], bins.total[:, 0]), cells)


def _promising(penalty: AbstractPenalty, bounds: Bounds, bins: Bins) -> Cells:
    """Return the cells that may hold the minimum, after one cut."""
    width = max(1.0, 0.5 * bounds.inflection)
    around = -(-bounds.inflection // width)
    place = torch.where(bins.mass > 0, (bins.mean / width).floor_(), torch.nan)
    shifts = torch.arange(-around, around + 1.0, device=place.device, dtype=place.dtype)
    place = _distinct((place[:, :, None] + shifts).flatten(1))
    cells, best = _bounded(penalty, bounds, bins, (place + 0.5) * width, 0.5 * width)
    cells = _kept(cells, best)
    offsets = (torch.arange(CUT, device=place.device, dtype=place.dtype) + 0.5) / CUT * 2.0 - 1.0
    middles = torch.where(cells.bound < torch.inf, cells.middle, torch.nan)[:, :, None] + cells.radius * offsets
    cells, best = _bounded(penalty, bounds, bins, middles.flatten(1), cells.radius / CUT)
    return _kept(cells, best)


def _distinct(place: Tensor) -> Tensor:
    """Return the distinct numbers of each row, sorted, the rest NaN."""
    place = place.sort(-1).values
    place[:, 1:][place[:, 1:] == place[:, :-1]] = torch.nan
    most = int((~place.isnan()).sum(-1).max())
    return place.sort(-1).values[:, :most]


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
    """Return the lowest minimum that Newton's method finds from the cells, and the gap of those it cannot explain.

    The cell of lowest bound goes first. A cell is done when it lies where the minimum found is proved to be lowest, or
    when its bound exceeds the lowest value found.
    """
    u = torch.zeros_like(search.total)
    lowest, gap = torch.full_like(u, torch.inf), torch.zeros_like(u)
    tie = torch.finfo(search.rows.x.dtype).eps * search.total
    bound = cells.bound.clone()
    left = torch.arange(len(u), device=u.device)
    while len(left):
        some, own = search[left], bound[left].argmin(-1, keepdim=True)
        middle = cells.middle[left]
        found, value, curvature = some.minimum(middle.gather(-1, own)[:, 0])
        lower, equal = value < lowest[left] - tie[left], value <= lowest[left] + tie[left]
        u[left] = torch.where(lower | (equal & (found < u[left])), found, u[left])
        lowest[left] = torch.minimum(value, lowest[left])
        sure = 3.0 * curvature / (search.bounds.twist * some.total) - cells.radius
        explained = (middle - some.place(found)[:, None]).abs() <= sure[:, None]
        done = explained | (bound[left] > lowest[left, None])
        for i in (~done.gather(-1, own)[:, 0]).nonzero()[:, 0].tolist():
            row = left[i]
            rest = some[i : i + 1].remainder(middle[i, own[i]], cells.radius, lowest[row])
            gap[row] = torch.maximum(gap[row], rest)
        bound[left] = torch.where(done, torch.inf, bound[left]).scatter(-1, own, torch.inf)
        left = left[(bound[left] < torch.inf).any(-1)]
    return u, gap / search.total


@dataclass(frozen=True)
class _Search:
    """Rows in which minima are looked for.

    Attributes:
        penalty: of the points.
        bounds: on its derivatives.
        rows: the points.
        origin: from which places are counted, in units of alpha, (rows,).
        total: sum of the weights, (rows,).
    """

    penalty: AbstractPenalty
    bounds: Bounds
    rows: Rows
    origin: Tensor
    total: Tensor

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
        u = self.origin + alpha * place
        short = 0.1 * torch.finfo(rows.x.dtype).eps ** 0.5 * alpha
        done = torch.zeros_like(u, dtype=torch.bool)
        for _ in range(MOST_STEPS):
            u = torch.where(done, u, u.to(rows.x.dtype).double())
            t = rows.residuals(u)
            slope, curvature = (weighted(term, rows.weights).sum(-1).double() for term in penalty.both(t))
            if bool((curvature <= 0.0).any()):
                mass = weighted(penalty.weight(t), rows.weights).sum(-1).double()
                curvature = torch.where(curvature > 0.1 * mass, curvature, mass)
            step = alpha * slope / curvature
            u = torch.where(done, u, u + step)
            done = done | (step.abs() <= short)
            if bool(done.all()):
                break
        # in double precision at last, so that neither the choice of a minimum nor its last digit depends on the start
        exact = rows.double()
        t = exact.residuals(u)
        terms = (penalty.value(t), *penalty.both(t))
        value, slope, curvature = (weighted(term, exact.weights).sum(-1) for term in terms)
        step = torch.where(curvature > 0.0, alpha * slope / curvature, 0.0)
        return torch.where(step.abs() <= short, u + step, u), value, curvature

    def remainder(self, place: Tensor, radius: float, lowest: Tensor) -> Tensor:
        """Return by how much the objective of this one row may be below ``lowest`` in a cell, cut again and again."""
        rows = self.rows.double()
        x = (rows.x[0] - self.origin) / rows.alpha[0]
        for _ in range(MOST_CUTS):
            radius = radius / CUT
            place = (place[:, None] + (2.0 * torch.arange(CUT).to(place) + 1.0 - CUT) * radius).flatten()
            values, slopes = [], []
            for part in place.split(CUT):
                value, slope = self.penalty.value_and_slope(part[:, None] - x)
                values.append(weighted(value, rows.weights).sum(-1))
                slopes.append(weighted(slope, rows.weights).sum(-1))
            dip = 0.5 * self.bounds.dip * radius**2 * self.total
            bound = torch.cat(values) - radius * torch.cat(slopes).abs() - dip
            place = place[bound < lowest]
            if not 0 < len(place) <= MOST_CELLS:
                break
        return (lowest - bound.min()).clamp_min(0.0)
