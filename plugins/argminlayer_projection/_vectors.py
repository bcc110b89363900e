"""Layers that project vectors: spheres and balls, simplices, and the sparse relatives of the soft max."""

import math
from typing import Literal

from torch import Tensor

import argminlayer as al

from ._composed import AffineSet, BoxSet, HalfSpaceSet, SecondOrderConeSet
from ._layer import AbstractProjection, Size
from ._lp import LpSet
from ._simplex import CappedSimplexSet, EntmaxSet, SimplexSet


class LpProjection(AbstractProjection):
    """Project onto an Lp sphere or ball,.

        argmin_u 1/2 |u - x|^2   subject to   (sum_i w_i |u_i|^p)^(1/p) = r  (sphere)   or   <= r  (ball),

    with ``max_i w_i |u_i|`` for p = infinity. Where the nearest point of a sphere is not unique, the sign + is taken at
    zeros, the first coordinate among equals for p above 2, and ``r / sqrt(n) (1, ..., 1)`` at the centre for p = 2.

    The derivative is exact in x, radius and weights, and one-sided at kinks: an entry that just reaches a plateau of
    the norm, and a point on the surface of a ball, count as held there. At the centre of the sphere p = 2 it is zero in
    x.

    Args:
        p: at least 1, also ``math.inf``.
        radius: of the set: a number, or a tensor of shape () or one per instance, which may require grad.
        kind: ``"sphere"`` or ``"ball"``.
        dim: the dimension of a point's entries; all others are the batch.
        weights: positive, (n,) or one row per instance; None for all one. For p = 2 the set is an ellipsoid.
        plateau: ``"mask"``, the derivative of the projection, or ``"implicit"``, without the mask of Gould et al.,
            table 1: entries on a plateau of the norm (p = 1 and infinity) are not held there; other solvers than the
            exact one give the former for both.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on points that are not finite; otherwise they become NaN.

    Raises:
        ProblemError: p below 1, or an unknown kind or plateau.

    Reference: Gould, Hartley and Campbell, *Deep Declarative Networks*, sec. 5.2.
    """

    def __init__(
        self,
        p: float = 1,
        radius: Size = 1.0,
        kind: Literal["sphere", "ball"] = "sphere",
        dim: int = -1,
        *,
        weights: Tensor | None = None,
        plateau: Literal["mask", "implicit"] = "mask",
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        if not float(p) >= 1.0:
            raise al.ProblemError(
                f"p is {p}; it must be at least 1: below 1 the Lp ball is not convex and no norm belongs to it, so "
                "that nearest points jump. Use p = 1 for sparse solutions"
            )
        for name, value, known in (("kind", kind, ("sphere", "ball")), ("plateau", plateau, ("mask", "implicit"))):
            if value not in known:
                raise al.ProblemError(f"{name} must be {known[0]!r} or {known[1]!r}, not {value!r}")
        _check_positive("radius", radius)
        rule = LpSet(float(p), kind, plateau, weights is not None)
        sizes: dict[str, Size] = {"radius": radius} | ({} if weights is None else {"weights": weights})
        super().__init__(rule, sizes, dim=dim, solver=solver, throw=throw)


class SimplexProjection(AbstractProjection):
    """Project onto the simplex, ``argmin_u 1/2 |u - x|^2`` subject to ``u >= 0, sum u = r``.

    Args:
        radius: the sum, as for :class:`LpProjection`.
        dim: the dimension of a point's entries.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on points that are not finite; otherwise they become NaN.
    """

    def __init__(
        self,
        radius: Size = 1.0,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        _check_positive("radius", radius)
        super().__init__(SimplexSet(), {"radius": radius}, dim=dim, solver=solver, throw=throw)


class CappedSimplexProjection(AbstractProjection):
    """Project onto the capped simplex, ``argmin_u 1/2 |u - x|^2`` subject to ``0 <= u <= c, sum u = r``.

    With ``c = 1`` and an integer r it is the convex hull of the choices of r things out of n.

    Args:
        radius: the sum, as for :class:`LpProjection`; at most n times the cap.
        cap: the largest entry allowed, likewise.
        dim: the dimension of a point's entries.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise where the set is empty or a point is not finite; otherwise such instances become NaN.
    """

    def __init__(
        self,
        radius: Size = 1.0,
        cap: Size = 1.0,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        _check_positive("radius", radius)
        _check_positive("cap", cap)
        super().__init__(CappedSimplexSet(), {"radius": radius, "cap": cap}, dim=dim, solver=solver, throw=throw)


class Entmax(AbstractProjection):
    """Map scores to a sparse distribution,.

        argmax_u  x'u + (1 - sum u^alpha) / (alpha (alpha - 1))   subject to   u >= 0, sum u = 1.

    Args:
        alpha: above 1; towards 1 it is the soft max, at 2 sparsemax.
        dim: the dimension of the scores.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on scores that are not finite; otherwise they become NaN.

    Raises:
        ProblemError: alpha is not above 1.
    """

    def __init__(
        self,
        alpha: float = 1.5,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        if not 1.0 < float(alpha) < math.inf:
            raise al.ProblemError(f"alpha is {alpha}; it must be above 1 and finite. For alpha = 1 use torch.softmax")
        super().__init__(EntmaxSet(float(alpha)), {}, dim=dim, solver=solver, throw=throw)


class Sparsemax(SimplexProjection):
    """Map scores to the nearest distribution, ``argmin_u |u - x|^2`` over the unit simplex: entmax with alpha = 2.

    Args:
        dim: the dimension of the scores.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on scores that are not finite; otherwise they become NaN.

    Reference: Martins and Astudillo, *From softmax to sparsemax*, 2016.
    """

    def __init__(self, dim: int = -1, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(1.0, dim, solver=solver, throw=throw)


class BoxProjection(AbstractProjection):
    """Project onto a box, ``argmin_u 1/2 |u - x|^2`` subject to ``lower <= u <= upper``.

    Args:
        lower: a number for all entries, or a tensor (n,) or one row per instance, which may require grad.
        upper: likewise.
        dim: the dimension of a point's entries.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise where the box is empty or a point is not finite; otherwise such instances become NaN.
    """

    def __init__(
        self,
        lower: Size = 0.0,
        upper: Size = 1.0,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        super().__init__(BoxSet(), {"lower": lower, "upper": upper}, dim=dim, solver=solver, throw=throw)


class HalfSpaceProjection(AbstractProjection):
    """Project onto a half-space, ``argmin_u 1/2 |u - x|^2`` subject to ``a'u <= b``.

    Args:
        normal: a, (n,) or one row per instance.
        offset: b, a number or a tensor of shape () or one per instance.
        dim: the dimension of a point's entries.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise where the half-space is empty or a point is not finite; otherwise such instances become NaN.
    """

    def __init__(
        self,
        normal: Tensor,
        offset: Size = 0.0,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        super().__init__(HalfSpaceSet(), {"normal": normal, "offset": offset}, dim=dim, solver=solver, throw=throw)


class AffineProjection(AbstractProjection):
    """Project onto an affine set, ``argmin_u 1/2 |u - x|^2`` subject to ``A u = b``.

    Args:
        matrix: A, (m, n) or one per instance; rows may depend on each other.
        right: b, a number for all rows, (m,) or one row per instance.
        dim: the dimension of a point's entries.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise where the equations contradict each other; otherwise such instances become NaN.
    """

    def __init__(
        self,
        matrix: Tensor,
        right: Tensor,
        dim: int = -1,
        *,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        super().__init__(AffineSet(), {"matrix": matrix, "right": right}, dim=dim, solver=solver, throw=throw)


class SecondOrderConeProjection(AbstractProjection):
    """Project onto the second-order cone, ``argmin_u 1/2 |u - x|^2`` subject to ``|v|_2 <= t`` for ``u = (v, t)``.

    Args:
        dim: the dimension of a point's entries; t is the last of them.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on points that are not finite; otherwise they become NaN.
    """

    def __init__(self, dim: int = -1, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(SecondOrderConeSet(), {}, dim=dim, solver=solver, throw=throw)


def _check_positive(name: str, value: Size) -> None:
    if not isinstance(value, Tensor) and not 0.0 <= float(value) < math.inf:
        raise al.ProblemError(f"{name} is {value}; it must be finite and not negative")
