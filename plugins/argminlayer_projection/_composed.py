"""Sets whose nearest points are a formula that autograd differentiates: boxes, half-spaces, affine sets, cones."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._lp import LpSet
from ._set import AbstractSet, checked


class AbstractComposed(AbstractSet):
    """A set whose nearest points are computed by differentiable operations, in float64.

    Attributes:
        core: number of core dimensions of a point.
        why: what makes the set empty, for the error.
    """

    core: ClassVar[int] = 1
    why: ClassVar[str] = "its points must be finite"

    @abc.abstractmethod
    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., *core), and which instances have one (...)."""

    def project(self, x: Tensor, *parameters: Tensor, throw: bool = True) -> Tensor:
        """Return the nearest points, differentiable; see :class:`AbstractSet`."""
        y, good = self.nearest(x.double(), *(p.double() for p in parameters))
        finite = (x.detach().isfinite() & y.detach().isfinite()).flatten(y.ndim - self.core).all(-1)
        return checked(y, good & finite, throw, self.why).to(x.dtype)


@dataclass(frozen=True)
class BoxSet(AbstractComposed):
    """``l <= u <= h``. Parameters: x (n), l (n), h (n), which may be infinite."""

    name: ClassVar[str] = "box"
    signature = "(n),(n),(n)->(n)"
    why = "its points must be finite, and no lower bound above its upper one"

    @property
    def conditions(self) -> dict[str, Any]:
        """Bounds that are parameters."""
        return {"lower": _second, "upper": _third}

    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return x clipped; an entry on a bound counts as held there."""
        low, high = parameters
        y = torch.where(x <= low, low, torch.where(x >= high, high, x))
        return y, (low <= high).all(-1)


def _second(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    del x, high
    return low


def _third(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    del x, low
    return high


@dataclass(frozen=True)
class HalfSpaceSet(AbstractComposed):
    """``a'u <= b``. Parameters: x (n), a (n), b ()."""

    name: ClassVar[str] = "half-space"
    signature = "(n),(n),()->(n)"
    why = "its points must be finite, and a zero normal needs an offset that is not negative"

    @property
    def conditions(self) -> dict[str, Any]:
        """One linear inequality."""
        return {"inequality": _above_the_plane}

    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return x moved along the normal."""
        a, b = parameters
        scale = a.detach().abs().amax(-1)  # squares must neither overflow nor vanish
        scale = torch.where(scale > 0, scale, 1.0)
        a, b = a / scale.unsqueeze(-1), b / scale
        length = a.square().sum(-1)
        excess = (a * x).sum(-1) - b
        step = torch.where(excess >= 0, excess, 0.0) / torch.where(length > 0, length, 1.0)
        return x - step.unsqueeze(-1) * a, (length > 0) | (b >= 0)


def _above_the_plane(u: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    del x
    return a @ u - b


@dataclass(frozen=True)
class AffineSet(AbstractComposed):
    """``A u = b``. Parameters: x (n), A (m,n), b (m); rows of A may depend on each other."""

    name: ClassVar[str] = "affine"
    signature = "(n),(m,n),(m)->(n)"
    why = "its points must be finite, and the equations A u = b must have a solution"

    @property
    def conditions(self) -> dict[str, Any]:
        """Linear equalities."""
        return {"equality": _residual}

    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x - A^+ (A x - b)``."""
        A, b = parameters
        missing = (A @ x.unsqueeze(-1)).squeeze(-1) - b
        y = x - (torch.linalg.pinv(A) @ missing.unsqueeze(-1)).squeeze(-1)
        left = ((A @ y.unsqueeze(-1)).squeeze(-1) - b).detach().abs().amax(-1)
        scale = (A.detach().abs() @ y.detach().abs().unsqueeze(-1)).squeeze(-1).amax(-1) + b.detach().abs().amax(-1)
        return y, left <= 1e-9 * (scale + 1.0)


def _residual(u: Tensor, x: Tensor, A: Tensor, b: Tensor) -> Tensor:
    del x
    return A @ u - b


@dataclass(frozen=True)
class SecondOrderConeSet(AbstractComposed):
    """``|v|_2 <= t`` for ``u = (v, t)``, t the last entry. Parameters: x (n)."""

    name: ClassVar[str] = "second-order-cone"
    signature = "(n)->(n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """The cone cut by the plane that holds x and its axis, where the nearest point lies."""
        return {"inequality": _outside_the_cone}

    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, zero, or the nearest point of the surface."""
        v, t = x[..., :-1], x[..., -1:]
        zero = (v == 0).all(-1, keepdim=True)
        size = torch.where(zero, 0.0, torch.linalg.vector_norm(torch.where(zero, 1.0, v), dim=-1, keepdim=True))
        half = 0.5 * (size + t)
        surface = torch.cat([half * v / torch.where(zero, 1.0, size), half], dim=-1)
        y = torch.where(size < t, x, torch.where(size <= -t, torch.zeros_like(x), surface))
        return torch.where(zero & (t >= 0), x, y), torch.ones_like(t[..., 0], dtype=torch.bool)


def _outside_the_cone(u: Tensor, x: Tensor) -> Tensor:
    v = x[:-1]
    size = v.norm()
    direction = v / torch.where(size > 0, size, 1.0)
    return torch.stack([direction @ u[:-1] - u[-1], -u[-1]])


@dataclass(frozen=True)
class GroupBallSet(AbstractComposed):
    """``sum_i |u_i|_2 <= r`` over the rows u_i. Parameters: x (m,n), r ()."""

    name: ClassVar[str] = "l12-ball"
    core: ClassVar[int] = 2
    signature = "(m,n),()->(m,n)"
    why = "its points must be finite, and its radius not negative"

    @property
    def conditions(self) -> dict[str, Any]:
        """The simplex of the lengths along the rows of x, whose directions the rows of the nearest point have."""
        return {"inequality": _lengths}

    def nearest(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows shortened as the ball p = 1 shortens their lengths."""
        zero = (x == 0).all(-1, keepdim=True)
        size = torch.where(zero, 0.0, torch.linalg.vector_norm(torch.where(zero, 1.0, x), dim=-1, keepdim=True))
        short = LpSet(1.0, "ball").project(size.squeeze(-1), parameters[0], throw=False).unsqueeze(-1)
        inside = (size.sum((-2, -1)) < parameters[0])[..., None, None]
        y = torch.where(inside, x, x * (short / torch.where(zero, 1.0, size)))
        return y, parameters[0] >= 0


def _lengths(u: Tensor, x: Tensor, r: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    along = (x / torch.where(size > 0, size, 1.0) * u).sum(-1)
    return torch.cat([-along, (along.sum() - r)[None]])
