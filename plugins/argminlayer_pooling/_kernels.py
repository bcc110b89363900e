"""What kernels must offer to take over the sums over points; another plugin may bring them."""

from typing import NamedTuple, Protocol

from torch import Tensor

from ._penalties import AbstractPenalty, Barron
from ._rows import Rows


class Pools(NamedTuple):
    """What a kernel is given of some pools.

    Attributes:
        penalty: its name.
        shape: of Barron's penalty, zero for any other.
        x: points of any precision, (rows, n), or vectors (rows, m, n).
        weights: (rows, n) or None.
        alpha: (rows,).
    """

    penalty: str
    shape: float
    x: Tensor
    weights: Tensor | None
    alpha: Tensor


class Kernels(Protocol):
    """Functions of :class:`Pools`; those that look at vectors say so."""

    def descend(self, pools: Pools, start: Tensor, short: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return where descents from ``start`` (rows,) end, in double, their curvature, and which have arrived.

        A descent has arrived when a step is shorter than ``short`` in units of alpha.
        """
        ...

    def sums(self, pools: Pools, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return objectives and slopes at places ``u`` (rows, m), in units of alpha, in double."""
        ...

    def pull(
        self, pools: Pools, u: Tensor, cotangent: Tensor, into: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Write the gradients for points and weights, where they are wanted, in the precision of the points.

        Returns:
            The gradient for alpha, of every row its own, and where curvatures cancel, so that all are lost, (rows,).
        """
        ...

    def windows(
        self, t: Tensor, sums: tuple[Tensor, Tensor], weights: Tensor | None, total: Tensor, tie: float
    ) -> tuple[Tensor, Tensor]:
        """Return first points of the leftmost best windows of sorted ``t``, and the ones after their last, (rows, 1).

        Windows are the sets of inliers of the truncated quadratic, ``sums`` and ``weights`` the prefix sums by which
        their cost is known, and costs are equal up to ``tie`` of the ``total``.
        """
        ...

    def look(self, pools: Pools, u: Tensor, hessian: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return sums over vectors at ``u`` (rows, m), with ``t = (x - u) / alpha``.

        Returns:
            The objective in units of alpha, and the sum of ``w rho' / |t|``, (rows,); this times x - u, (rows, m); and
            that of ``w (rho'' - rho' / |t|) / |t|^2`` times ``t t'``, (rows, m, m), None unless ``hessian``.
        """
        ...

    def pull_vectors(
        self, pools: Pools, u: Tensor, v: Tensor, usable: Tensor, wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the gradients for vectors (rows, m, n), weights (rows, n) if they are ``wanted``, and alpha (rows,).

        ``v`` (rows, m) is the cotangent times the inverse of the second derivative; where that is not ``usable``
        (rows,), one or zero, the points share as in their weighted mean.
        """
        ...


def pools_of(penalty: AbstractPenalty, rows: Rows) -> Pools:
    """Return what a kernel is given of rows."""
    shape = penalty.shape if isinstance(penalty, Barron) else 0.0
    return Pools(penalty.name, shape, rows.x, rows.weights, rows.alpha[:, 0])
