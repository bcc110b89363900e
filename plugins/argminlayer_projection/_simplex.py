"""The simplex, the capped simplex, and the entropies between the arg max and the soft max."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import _lp_derivative as derivative
from ._function import AbstractClosedForm, AbstractSelfAdjoint, Cotangents
from ._root import root
from ._rows import by_rows, column, flat, working
from ._set import checked
from ._threshold import onto_simplex


def _sum_is_radius(u: Tensor, x: Tensor, r: Tensor, *others: Tensor) -> Tensor:
    del x, others
    return u.sum() - r


def _share_of_the_radius(x: Tensor, r: Tensor, *others: Tensor) -> Tensor:
    del others
    return (r / x.shape[-1]).expand_as(x)


@dataclass(frozen=True)
class SimplexSet(AbstractClosedForm):
    """``{u >= 0, sum u = r}``. Parameters: x (n), r (), which must not be negative."""

    name: ClassVar[str] = "simplex"
    cores = (1, 0)
    curved = False
    signature = "(n),()->(n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """One equality and bounds."""
        return {"equality": _sum_is_radius, "lower": 0.0, "start": _share_of_the_radius}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., n) and the sizes of their supports (..., 1)."""
        lead = x.shape[:-1]
        y, state = by_rows(onto_simplex, throw, flat(x), column(parameters[0], lead, working(x.dtype)))
        return y.reshape(x.shape), state.reshape((*lead, 1))

    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Cotangents:
        """Pull a cotangent back to x and r: its mean over the support is taken away, and is that of r."""
        wide = g.to(working(g.dtype))
        return tuple(bar.to(g.dtype) for bar in derivative.pull_smooth(wide, _supported(y, wide)))

    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push tangents of x and r forward."""
        dx = (torch.zeros_like(y) if tangents[0] is None else tangents[0]).to(working(y.dtype))
        dr = None if tangents[1] is None else tangents[1].to(dx.dtype).unsqueeze(-1)
        return derivative.push_smooth(dx, dr, None, _supported(y, dx)).to(y.dtype)

    def pull_fast(
        self, wanted: tuple[bool, ...], g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor
    ) -> Cotangents:
        """Do as ``pull``, in place and block by block: the simplex is the facet of the sphere p = 1 with signs +."""
        out = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        rows = out.view(-1, y.shape[-1])
        (radius,) = derivative.pull_l1(wanted, rows, flat(g), flat(y), flat(state), state)
        return out, None if radius is None else radius.reshape(y.shape[:-1])


def _supported(y: Tensor, like: Tensor) -> derivative.Smooth:
    support = (y > 0).to(like.dtype)
    total = support.sum(-1, keepdim=True)
    return derivative.Smooth(support, support, total.new_ones(()), total.clamp_min(1.0), total >= 0, None)


@dataclass(frozen=True)
class CappedSimplexSet(AbstractClosedForm):
    """``{0 <= u <= c, sum u = r}``. Parameters: x (n), r (), c (); not empty for ``0 <= r <= n c``."""

    name: ClassVar[str] = "capped-simplex"
    cores = (1, 0, 0)
    signature = "(n),(),()->(n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """One equality and bounds, one of them a parameter."""
        return {"equality": _sum_is_radius, "lower": 0.0, "upper": _cap, "start": _share_of_the_radius}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., n) and ones (..., 1); computed in float64."""
        wide = x.double()
        r, c = (p.double().unsqueeze(-1) for p in parameters)
        good = wide.isfinite().all(-1) & ((r >= 0) & (r <= c * x.shape[-1])).squeeze(-1)
        why = f"the points must be finite, and 0 <= radius <= {x.shape[-1]} times the cap"

        # the threshold is at most a cap below the entry that ceil(r / c) caps reach: relative to it no digit is lost
        rank = (r / c).nan_to_num().ceil().clamp(1, x.shape[-1]).long() - 1
        descending = wide.sort(-1, descending=True).values
        below = wide - descending.gather(-1, rank.expand(*wide.shape[:-1], 1))

        def missing(t: Tensor) -> Tensor:
            return r - torch.minimum((below - t).clamp_min(0.0), c).sum(-1, keepdim=True)

        t = root(missing, (-c).expand_as(below[..., :1]), torch.zeros_like(below[..., :1]))
        y = torch.minimum((below - t).clamp_min(0.0), c)
        inner = (y > 0) & (y < c)
        spread = (y.sum(-1, keepdim=True) - r) / inner.sum(-1, keepdim=True).clamp_min(1)
        y = torch.minimum((y - spread * inner).clamp_min(0.0), c)
        y = checked(y, good, throw, why).to(x.dtype)
        return y, torch.ones_like(y[..., :1])

    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Cotangents:
        """Pull a cotangent back to x, r and c."""
        capped, inner, count = self._parts(y, parameters[1])
        beta = (inner * g).sum(-1, keepdim=True) / count
        cap = (capped * (g - beta)).sum(-1)
        return inner * (g - beta), beta.squeeze(-1), cap

    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push tangents of x, r and c forward."""
        capped, inner, count = self._parts(y, parameters[1])
        dx = torch.zeros_like(y) if tangents[0] is None else tangents[0]
        dr, dc = (torch.zeros_like(y[..., :1]) if t is None else t.unsqueeze(-1) for t in tangents[1:])
        shift = ((inner * dx).sum(-1, keepdim=True) + capped.sum(-1, keepdim=True) * dc - dr) / count
        return inner * (dx - shift) + capped * dc

    @staticmethod
    def _parts(y: Tensor, cap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which entries are at the cap, which are between the bounds, and how many these are."""
        capped = y >= cap.unsqueeze(-1)
        inner = (y > 0) & ~capped
        return capped.to(y.dtype), inner.to(y.dtype), inner.sum(-1, keepdim=True).clamp_min(1).to(y.dtype)


def _cap(x: Tensor, r: Tensor, c: Tensor) -> Tensor:
    del x, r
    return c


@dataclass(frozen=True)
class EntmaxSet(AbstractSelfAdjoint):
    """The distribution ``argmax_u x'u + (1 - sum u^alpha) / (alpha (alpha - 1))``, sparse for alpha above 1.

    Parameters: x (n). Between the soft max (alpha near 1) and the projection onto the simplex (alpha = 2, sparsemax).

    Attributes:
        alpha: above 1.

    Reference: Peters, Niculae and Martins, *Sparse sequence-to-sequence models*, 2019.
    """

    name: ClassVar[str] = "entmax"
    alpha: float = 1.5
    cores = (1,)
    signature = "(n)->(n)"

    @property
    def objective(self) -> Any:
        """The negative of what is maximised."""
        return self._objective

    def _objective(self, u: Tensor, x: Tensor) -> Tensor:
        # a bound holds u at zero, where the power of alpha below 2 has no second derivative
        inner = torch.where(u > 0, u, 1.0)
        power = torch.where(u > 0, inner**self.alpha, 0.0)
        return (power.sum() - 1.0) / (self.alpha * (self.alpha - 1.0)) - x @ u

    @property
    def conditions(self) -> dict[str, Any]:
        """The simplex."""
        return {"equality": _sum_is_one, "lower": 0.0, "start": _uniform}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distributions (..., n) and ones (..., 1); computed in float64."""
        scaled = (self.alpha - 1.0) * x.double()
        top = scaled.amax(-1, keepdim=True)
        good = scaled.isfinite().all(-1)
        scaled, power = scaled - top, 1.0 / (self.alpha - 1.0)

        def excess(t: Tensor) -> Tensor:
            return 1.0 - ((scaled - t).clamp_min(0.0) ** power).sum(-1, keepdim=True)

        highest = -(float(x.shape[-1]) ** (1.0 - self.alpha)) * torch.ones_like(top)
        t = root(excess, torch.full_like(top, -1.0), highest.clamp_min(-1.0))
        y = (scaled - t).clamp_min(0.0) ** power
        y = checked(y / y.sum(-1, keepdim=True), good, throw, "its points must be finite").to(x.dtype)
        return y, torch.ones_like(y[..., :1])

    def along(self, dx: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return ``(diag(s) - s s' / sum s) dx`` with ``s = y^(2 - alpha)`` on the support."""
        del x
        positive = y > 0
        s = torch.where(positive, torch.where(positive, y, 1.0) ** (2.0 - self.alpha), 0.0)
        return s * (dx - (s * dx).sum(-1, keepdim=True) / s.sum(-1, keepdim=True))


def _sum_is_one(u: Tensor, x: Tensor) -> Tensor:
    del x
    return u.sum() - 1.0


def _uniform(x: Tensor) -> Tensor:
    return torch.full_like(x, 1.0 / x.shape[-1])
