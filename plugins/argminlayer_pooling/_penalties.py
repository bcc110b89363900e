"""The penalties: what each costs, and its derivatives in units of alpha."""

import abc
import difflib
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

import argminlayer as al


def weighted(terms: Tensor, weights: Tensor | None) -> Tensor:
    """Return the terms of a sum times their weights, if there are any."""
    return terms if weights is None else terms * weights


def _inside(t: Tensor) -> Tensor:
    """Return one where ``|t| <= 1``, else zero, without a comparison, which is slow."""
    return t.abs().ceil_().neg_().add_(2.0).clamp_(0.0, 1.0)


class Bounds(NamedTuple):
    """Bounds on the derivatives of a penalty.

    Attributes:
        inflection: ``rho''(t) > 0`` only for ``|t| < inflection``: a minimum has a point this near.
        dip: ``sup -rho''``.
        twist: ``sup |rho'''|``.
    """

    inflection: float
    dip: float
    twist: float


@dataclass(frozen=True)
class AbstractPenalty(abc.ABC):
    """An even function phi of a residual ``z``, of scale alpha. Derivatives are with respect to ``t = z / alpha``.

    Every penalty here is a function of ``t`` alone, up to a factor: ``slope``, ``weight`` and ``curvature`` are those
    of ``rho(t) = phi(alpha t) / (phi''(0) alpha^2)``, which is ``t^2 / 2`` for small ``t``.

    Attributes:
        name: as users write it.
    """

    name: ClassVar[str]

    @property
    def bounds(self) -> Bounds | None:
        """Bounds on the derivatives of a smooth penalty that is not convex, None for any other."""
        return None

    @abc.abstractmethod
    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return phi as a function of ``z^2``, differentiable at zero too."""

    @abc.abstractmethod
    def weight(self, t: Tensor) -> Tensor:
        """Return ``rho'(t) / t``, the weight of a point in the mean that the solution is."""

    @abc.abstractmethod
    def curvature(self, t: Tensor) -> Tensor:
        """Return ``rho''(t)``."""

    def value(self, t: Tensor) -> Tensor:
        """Return ``rho(t)``."""
        return self.cost(t.square(), t.new_ones(()))

    def slope(self, t: Tensor) -> Tensor:
        """Return ``rho'(t)``."""
        return self.weight(t).mul_(t)

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return slope and curvature, cheaper than one after the other."""
        return self.slope(t), self.curvature(t)

    def value_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope, cheaper than one after the other."""
        return self.value(t), self.slope(t)

    def pull(self, t: Tensor, weights: Tensor | None) -> Tensor:
        """Return ``sum w rho'(t)`` over the last dimension, as accurately as can be."""
        return weighted(self.slope(t), weights).sum(-1)


class Quadratic(AbstractPenalty):
    """``z^2 / 2``: pooling is the mean."""

    name = "quadratic"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return half the square."""
        del alpha
        return 0.5 * square

    def weight(self, t: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(t)

    def curvature(self, t: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(t)


class PseudoHuber(AbstractPenalty):
    """``alpha^2 (sqrt(1 + z^2 / alpha^2) - 1)``."""

    name = "pseudo-huber"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it without the cancellation near zero."""
        return square / ((1.0 + square / alpha.square()).sqrt() + 1.0)

    def weight(self, t: Tensor) -> Tensor:
        """Return ``1 / sqrt(1 + t^2)``."""
        return t.square().add_(1.0).rsqrt_()

    def curvature(self, t: Tensor) -> Tensor:
        """Return the cube of the weight."""
        weight = self.weight(t)
        return weight.square().mul_(weight)

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one square root."""
        weight = self.weight(t)
        return weight * t, weight.square().mul_(weight)

    def pull(self, t: Tensor, weights: Tensor | None) -> Tensor:
        """Return the sum without cancellation: the slope is one up to ``1 / (r (r + |t|))``, r = sqrt(1 + t^2)."""
        root, sign = torch.hypot(t, t.new_ones(())), t.sign()
        rest = sign / (root * (root + t.abs()))
        return weighted(sign, weights).sum(-1) - weighted(rest, weights).sum(-1)


class Huber(AbstractPenalty):
    """``z^2 / 2`` up to alpha, ``alpha (|z| - alpha / 2)`` beyond."""

    name = "huber"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it; the root is not taken of zero, where it has no derivative."""
        inside = square <= alpha.square()
        distance = torch.where(inside, alpha.square(), square).sqrt()
        return torch.where(inside, 0.5 * square, alpha * (distance - 0.5 * alpha))

    def weight(self, t: Tensor) -> Tensor:
        """Return ``min(1, 1 / |t|)``."""
        return t.abs().clamp_(min=1.0).reciprocal_()

    def slope(self, t: Tensor) -> Tensor:
        """Return t, clipped."""
        return t.clamp(-1.0, 1.0)

    def curvature(self, t: Tensor) -> Tensor:
        """Return one up to the kink, and there."""
        return _inside(t)

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both without a comparison, which is slow; at the kink the curvature is that from outside."""
        slope = t.clamp(-1.0, 1.0)
        return slope, 1.0 - slope.abs().floor_()


class TruncatedQuadratic(AbstractPenalty):
    """``min(z^2, alpha^2) / 2``: pooling is the mean of the points within alpha of it."""

    name = "truncated-quadratic"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return the smaller of the two."""
        return 0.5 * torch.minimum(square, alpha.square())

    def weight(self, t: Tensor) -> Tensor:
        """Return one up to the kink, and there."""
        return _inside(t)

    def curvature(self, t: Tensor) -> Tensor:
        """Return the weight."""
        return self.weight(t)


class Welsch(AbstractPenalty):
    """``1 - exp(-z^2 / (2 alpha^2))``: pooling finds the highest mode of a kernel density."""

    name = "welsch"

    @property
    def bounds(self) -> Bounds:
        """Bounds on the derivatives of a Gaussian."""
        third = math.sqrt(6.0 * (3.0 - math.sqrt(6.0))) * math.exp(0.5 * (math.sqrt(6.0) - 3.0))
        return Bounds(inflection=1.0, dip=2.0 * math.exp(-1.5), twist=third)

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it without the cancellation near zero."""
        return -torch.expm1(-0.5 * square / alpha.square())

    def weight(self, t: Tensor) -> Tensor:
        """Return ``exp(-t^2 / 2)``."""
        return t.square().mul_(-0.5).exp_()

    def curvature(self, t: Tensor) -> Tensor:
        """Return ``(1 - t^2) exp(-t^2 / 2)``; squares are cut where it vanishes, lest infinity meet zero."""
        square = t.square().clamp_(max=1e4)
        weight = (-0.5 * square).exp_()
        return weight.mul_(square.neg_().add_(1.0))

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one exponential; squares are cut where it vanishes, lest infinity meet zero."""
        square = t.square().clamp_(max=1e4)
        weight = (-0.5 * square).exp_()
        return weight * t, weight.mul_(1.0 - square)

    def value_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one exponential."""
        weight = self.weight(t)
        return 1.0 - weight, weight.mul_(t)


class GemanMcClure(AbstractPenalty):
    """``z^2 / (2 (1 + z^2 / alpha^2))``."""

    name = "geman-mcclure"

    @property
    def bounds(self) -> Bounds:
        """Bounds on the derivatives: Barron's penalty of shape -2 with half the scale."""
        barron = _barron_bounds(-2.0)
        return Bounds(0.5 * barron.inflection, barron.dip, 2.0 * barron.twist)

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it; it tends to ``alpha^2 / 2``."""
        return 0.5 * square / (1.0 + square / alpha.square())

    def weight(self, t: Tensor) -> Tensor:
        """Return ``(1 + t^2)^-2``."""
        return t.square().add_(1.0).square_().reciprocal_()

    def curvature(self, t: Tensor) -> Tensor:
        """Return ``(1 - 3 t^2) (1 + t^2)^-3``."""
        return self.both(t)[1]

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one division; with ``s = 1 / (1 + t^2)`` the curvature is ``s^2 (4 s - 3)``."""
        rest = t.square().add_(1.0).reciprocal_()
        weight = rest.square()
        return weight * t, rest.mul_(4.0).sub_(3.0).mul_(weight)

    def value_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one division."""
        rest = t.square().add_(1.0).reciprocal_()
        return 0.5 - 0.5 * rest, rest.square_().mul_(t)


@dataclass(frozen=True)
class Barron(AbstractPenalty):
    """``b / a ((z^2 / (b alpha^2) + 1)^(a / 2) - 1)`` with shape ``a <= 2`` and ``b = 2 - a``.

    Shape 2 is the quadratic, 1 the pseudo-Huber, 0 Cauchy's and -2 Geman-McClure's penalty.

    Reference: Barron, *A general and adaptive robust loss function*, CVPR 2019, equations 8 and 13.
    """

    shape: float = 0.0
    name = "barron"

    @property
    def bounds(self) -> Bounds | None:
        """Bounds on the derivatives for shapes below 1, from which on it is convex."""
        return None if self.shape >= 1.0 else _barron_bounds(self.shape)

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it for this shape."""
        return barron_cost(square, alpha, square.new_tensor(self.shape))

    def weight(self, t: Tensor) -> Tensor:
        """Return ``(1 + t^2 / b)^(a / 2 - 1)``."""
        return self._growth(t).mul_(0.5 * self.shape - 1.0).exp_()

    def curvature(self, t: Tensor) -> Tensor:
        """Return the derivative of the slope."""
        return self.both(t)[1]

    def both(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return both from one power; the curvature is the weight times ``(1 + (a - 1) v) / (1 + v)``."""
        weight = self.weight(t)
        rest = t.square().div_(self._rest).add_(1.0).reciprocal_()
        return weight * t, weight * rest.mul_(2.0 - self.shape).add_(self.shape - 1.0)

    def shape_slope(self, t: Tensor) -> Tensor:
        """Return the derivative of ``rho'(t)`` with respect to the shape."""
        growth = self._growth(t)
        return self.slope(t).mul_(0.5) * (growth + torch.expm1(-growth))

    @property
    def _rest(self) -> float:
        return max(2.0 - self.shape, SMALLEST_REST)

    def _growth(self, t: Tensor) -> Tensor:
        return t.square().div_(self._rest).log1p_()


SMALLEST_REST = 1e-12
"""Nearer to shape 2 than this, Barron's penalty is the quadratic to machine precision."""


def barron_cost(square: Tensor, alpha: Tensor, shape: Tensor) -> Tensor:
    """Return Barron's penalty as a function of ``z^2``, differentiable in alpha and in the shape."""
    rest = (2.0 - shape).clamp_min(SMALLEST_REST)
    growth = torch.log1p(square / (rest * alpha.square()))
    flat = shape.abs() < 1e-5
    half = torch.where(flat, torch.ones_like(shape), 0.5 * shape)
    near = growth + 0.25 * shape * growth.square()  # to second order in the shape
    return 0.5 * rest * torch.where(flat, near, torch.expm1(half * growth) / half)


def _barron_bounds(a: float) -> Bounds:
    """Return the bounds for a shape below 1: in ``v = t^2 / b`` the extremes of rho'' and rho''' are roots."""
    b, c, d = 2.0 - a, 1.0 - a, 3.0 - a
    root = math.sqrt(9.0 * d * d - 3.0 * c * d)
    extremes = ((3.0 * d - root) / (c * d), (3.0 * d + root) / (c * d))
    twist = max(math.sqrt(b * v) * (1.0 + v) ** (0.5 * a - 3.0) * abs(3.0 - c * v) for v in extremes)
    return Bounds(math.sqrt(b / c), 2.0 * ((4.0 - a) / c) ** (0.5 * a - 2.0), twist)


_PLAIN: dict[str, AbstractPenalty] = {
    kind.name: kind() for kind in (Quadratic, PseudoHuber, Huber, Welsch, TruncatedQuadratic, GemanMcClure)
}
NAMES = (*_PLAIN, Barron.name)


def check_name(name: str) -> None:
    """Refuse the name of a penalty that does not exist.

    Raises:
        ProblemError: with near matches and the names that exist.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise al.ProblemError(f"unknown penalty {name!r}.{hint} Known: {', '.join(NAMES)}")


def penalty_of(name: str, shape: Tensor | None = None) -> AbstractPenalty:
    """Return the penalty of a name that exists; ``shape`` is one number, for Barron's only.

    Raises:
        ProblemError: the shape is above 2 or no number.
    """
    if shape is None:
        return _PLAIN[name]
    number = float(shape)
    if not -1e6 <= number <= 2.0:
        raise al.ProblemError(
            f"the shape of the penalty 'barron' is {number:g}; it must be between -1e6 and 2, where 2 is the "
            "quadratic, 1 the pseudo-Huber, 0 Cauchy's and -2 Geman-McClure's penalty"
        )
    return Barron(number)
