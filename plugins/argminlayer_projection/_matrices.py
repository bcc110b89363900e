"""Layers that project matrices, held in the last two dimensions: balls of norms, cones, permutations, rotations."""

import argminlayer as al

from ._birkhoff import BirkhoffSet
from ._composed import GroupBallSet
from ._layer import AbstractProjection, Size
from ._spectral import NuclearBallSet, RotationSet, SemidefiniteSet


class SemidefiniteProjection(AbstractProjection):
    """Project onto the cone of positive semidefinite matrices; of x the symmetric part counts.

    The derivative is finite for repeated eigenvalues, and one-sided where an eigenvalue is zero.

    Args:
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on matrices that are not finite; otherwise they become NaN.
    """

    def __init__(self, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(SemidefiniteSet(), {}, solver=solver, throw=throw)


class GroupBallProjection(AbstractProjection):
    """Project onto the l1,2 ball, ``argmin_u 1/2 |u - x|^2`` subject to ``sum_i |u_i|_2 <= r`` over the rows u_i.

    Args:
        radius: as for :class:`LpProjection`.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on matrices that are not finite; otherwise they become NaN.
    """

    def __init__(self, radius: Size = 1.0, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(GroupBallSet(), {"radius": radius}, solver=solver, throw=throw)


class NuclearBallProjection(AbstractProjection):
    """Project onto the ball of the nuclear norm: matrices whose singular values sum to at most r.

    Args:
        radius: as for :class:`LpProjection`.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on matrices that are not finite; otherwise they become NaN.
    """

    def __init__(self, radius: Size = 1.0, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(NuclearBallSet(), {"radius": radius}, solver=solver, throw=throw)


class BirkhoffProjection(AbstractProjection):
    """Project onto the Birkhoff polytope of doubly stochastic matrices, the convex hull of the permutations.

    Args:
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on matrices that are not finite; otherwise they become NaN.

    Reference: Santa Cruz et al., *DeepPermNet*, 2017.
    """

    def __init__(self, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(BirkhoffSet(), {}, solver=solver, throw=throw)


class RotationProjection(AbstractProjection):
    """Project onto the rotations SO(n), for n = 3 those of space: ``u'u = 1, det u = 1``.

    Where the nearest rotation is not unique one of them is returned, with a derivative that is zero in the directions
    in which it may move.

    Args:
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise on matrices that are not finite; otherwise they become NaN.
    """

    def __init__(self, *, solver: str | al.AbstractSolver | None = None, throw: bool = True):
        super().__init__(RotationSet(), {}, solver=solver, throw=throw)
