"""The penalties: what each costs, and its derivatives in units of alpha."""

import abc
import difflib
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

import argminlayer as al

BITS = math.log2(math.e)
"""One power of e in powers of two."""


def weighted(terms: Tensor, weights: Tensor | None) -> Tensor:
    """Return the terms of a sum times their weights, if there are any."""
    return terms if weights is None else terms * weights


def summed(terms: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weighted sum over the last dimension; overwrites the terms if there are weights."""
    return (terms if weights is None else terms.mul_(weights)).sum(-1)


def _inside(t: Tensor, out: Tensor | None = None) -> Tensor:
    """Return one where ``|t| <= 1``, else zero; a comparison in place is fast, one that makes booleans is not."""
    return torch.abs(t, out=out).le_(1.0)


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
    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``rho''(t)``, in ``out`` if it is given."""

    def value(self, t: Tensor) -> Tensor:
        """Return ``rho(t)``."""
        return self.cost(t.square(), t.new_ones(()))

    def slope(self, t: Tensor) -> Tensor:
        """Return ``rho'(t)``."""
        return self.weight(t).mul_(t)

    def first(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ``sum w rho(t)`` and ``sum w rho'(t)`` over the last dimension; may overwrite ``t``."""
        return summed(self.value(t), weights), summed(self.slope(t), weights)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ``sum w rho'(t)`` and ``sum w rho''(t)`` over the last dimension; may overwrite ``t``."""
        return summed(self.slope(t), weights), summed(self.curvature(t), weights)

    def pull(self, t: Tensor, weights: Tensor | None) -> Tensor:
        """Return ``sum w rho'(t)`` over the last dimension, as accurately as can be."""
        return summed(self.slope(t), weights)


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

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ones."""
        return torch.ones_like(t) if out is None else out.fill_(1.0)


class PseudoHuber(AbstractPenalty):
    """``alpha^2 (sqrt(1 + z^2 / alpha^2) - 1)``."""

    name = "pseudo-huber"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return it without the cancellation near zero."""
        return square / ((1.0 + square / alpha.square()).sqrt() + 1.0)

    def weight(self, t: Tensor) -> Tensor:
        """Return ``1 / sqrt(1 + t^2)``."""
        return torch.mul(t, t).add_(1.0).rsqrt_()

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the cube of the weight."""
        return torch.mul(t, t, out=out).add_(1.0).rsqrt_().pow_(3)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one square root."""
        weight = self.weight(t)
        slope = summed(t.mul_(weight), weights)
        return slope, summed(weight.pow_(3), weights)

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

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return one up to the kink, and there."""
        return _inside(t, out)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both in place; as far as rounding goes the curvature at a kink is that from outside.

        So no point counts as inside at the end of an interval of minima, where it is at the kink.
        """
        inside = t.abs().lt_(1.0 - 1e-5)
        return summed(t.clamp_(-1.0, 1.0), weights), summed(inside, weights)


class TruncatedQuadratic(AbstractPenalty):
    """``min(z^2, alpha^2) / 2``: pooling is the mean of the points within alpha of it."""

    name = "truncated-quadratic"

    def cost(self, square: Tensor, alpha: Tensor) -> Tensor:
        """Return the smaller of the two."""
        return 0.5 * torch.minimum(square, alpha.square())

    def weight(self, t: Tensor) -> Tensor:
        """Return one up to the kink, and there."""
        return _inside(t)

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the weight."""
        return _inside(t, out)


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
        return self._near(t).square_().mul_(-0.5).exp_()

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``(1 - t^2) exp(-t^2 / 2)``."""
        square = self._near(t, out).square_()
        weight = square.mul(-0.5).exp_()
        return square.neg_().add_(1.0).mul_(weight)

    def first(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one power of two, quick where it underflows; its last digit may depend on its neighbours."""
        weight = torch.mul(t, t).mul_(-0.5 * BITS).clamp_(min=-120.0).exp2_()
        if weights is not None:
            weight.mul_(weights)
        total = t.shape[-1] if weights is None else weights.sum(-1)
        return total - weight.sum(-1), t.mul_(weight).sum(-1)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one power; the curvature is the weight less ``t`` times the slope."""
        t = self._near(t, t)
        weight = torch.mul(t, t).mul_(-0.5).exp_()
        rest = weight * t
        curvature = summed(weight.addcmul_(t, rest, value=-1.0), weights)
        return summed(rest, weights), curvature

    @staticmethod
    def _near(t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``t`` cut where the exponential all but vanishes: underflow is slow, and infinity may meet zero."""
        limit = math.sqrt(-math.log(torch.finfo(t.dtype).tiny))
        return torch.clamp(t, -limit, limit, out=out)


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
        return torch.mul(t, t).add_(1.0).square_().reciprocal_()

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``(1 - 3 t^2) (1 + t^2)^-3``; with ``s = 1 / (1 + t^2)`` it is ``s^2 (4 s - 3)``."""
        rest = torch.mul(t, t, out=out).add_(1.0).reciprocal_()
        square = rest.square()
        return rest.mul_(4.0).sub_(3.0).mul_(square)

    def first(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one division."""
        rest = torch.mul(t, t).add_(1.0).reciprocal_()
        value = summed(rest.mul(-0.5).add_(0.5), weights)
        return value, summed(t.mul_(rest.square_()), weights)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one division."""
        rest = torch.mul(t, t).add_(1.0).reciprocal_()
        square = rest.square()
        slope = summed(t.mul_(square), weights)
        return slope, summed(rest.mul_(4.0).sub_(3.0).mul_(square), weights)


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

    def curvature(self, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the weight times ``(1 + (a - 1) v) / (1 + v)`` with ``v = t^2 / b``."""
        weight = self.weight(t)
        rest = torch.mul(t, t, out=out).div_(self._rest).add_(1.0).reciprocal_()
        return rest.mul_(2.0 - self.shape).add_(self.shape - 1.0).mul_(weight)

    def second(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one power."""
        weight = self.weight(t)
        slope = summed(weight * t, weights)
        rest = t.square_().div_(self._rest).add_(1.0).reciprocal_()
        return slope, summed(rest.mul_(2.0 - self.shape).add_(self.shape - 1.0).mul_(weight), weights)

    def value(self, t: Tensor) -> Tensor:
        """Return ``rho(t)``."""
        return self._value(self._growth(t))

    def first(self, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both from one logarithm."""
        growth = self._growth(t)
        slope = summed(growth.mul(0.5 * self.shape - 1.0).exp_().mul_(t), weights)
        return summed(self._value(growth), weights), slope

    def shape_slope(self, t: Tensor) -> Tensor:
        """Return the derivative of ``rho'(t)`` with respect to the shape."""
        growth = self._growth(t)
        return self.slope(t).mul_(0.5) * (growth + torch.expm1(-growth))

    def _value(self, growth: Tensor) -> Tensor:
        """Return the value for ``log(1 + t^2 / b)``; near shape zero to second order in the shape."""
        a = self.shape
        if abs(a) < FLAT_SHAPE:
            return growth.addcmul(growth, growth, value=0.25 * a).mul_(0.5 * self._rest)
        return growth.mul_(0.5 * a).expm1_().mul_(self._rest / a)

    @property
    def _rest(self) -> float:
        return max(2.0 - self.shape, SMALLEST_REST)

    def _growth(self, t: Tensor) -> Tensor:
        return torch.mul(t, t).div_(self._rest).clamp_(max=torch.finfo(t.dtype).max).log1p_()


SMALLEST_REST = 1e-12
"""Nearer to shape 2 than this, Barron's penalty is the quadratic to machine precision."""
FLAT_SHAPE = 1e-5
"""Nearer to shape 0 than this, a power less one over the shape is expanded."""


def barron_cost(square: Tensor, alpha: Tensor, shape: Tensor) -> Tensor:
    """Return Barron's penalty as a function of ``z^2``, differentiable in alpha and in the shape."""
    rest = (2.0 - shape).clamp_min(SMALLEST_REST)
    growth = torch.log1p(square / (rest * alpha.square()))
    flat = shape.abs() < FLAT_SHAPE
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
