"""What kernels must offer to take over the sums over points; another plugin may bring them."""

from typing import Protocol

from torch import Tensor

from ._penalties import AbstractPenalty, Barron


class Kernels(Protocol):
    """Functions of rows of points ``x`` (rows, n) of any precision, weights likewise or None, and alpha (rows,).

    ``penalty`` is a name, ``shape`` a number of which only Barron's penalty makes use.
    """

    def descend(
        self, penalty: str, shape: float, x: Tensor, weights: Tensor | None, alpha: Tensor, start: Tensor, short: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return where descents from ``start`` (rows,) end, in double, their curvature, and which have arrived.

        A descent has arrived when a step is shorter than ``short`` in units of alpha.
        """
        ...

    def sums(
        self, penalty: str, shape: float, x: Tensor, weights: Tensor | None, alpha: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return objectives and slopes at places ``u`` (rows, m), in units of alpha, in double."""
        ...

    def pull(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        cotangent: Tensor,
        into: tuple[Tensor | None, Tensor | None],
    ) -> tuple[Tensor, Tensor]:
        """Write the gradients for points and weights, where they are wanted, in the precision of ``x``.

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

    def look(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        hessian: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return sums over vectors ``x`` (rows, m, n) at ``u`` (rows, m), with ``t = (x - u) / alpha``.

        Returns:
            The objective in units of alpha, and the sum of ``w rho' / |t|``, (rows,); this times x - u, (rows, m); and
            that of ``w (rho'' - rho' / |t|) / |t|^2`` times ``t t'``, (rows, m, m), None unless ``hessian``.
        """
        ...

    def pull_vectors(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        v: Tensor,
        usable: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the gradients for points (rows, m, n), weights (rows, n) if they are ``wanted``, and alpha (rows,).

        ``v`` (rows, m) is the cotangent times the inverse of the second derivative; where that is not ``usable``
        (rows,), one or zero, the points share as in their weighted mean.
        """
        ...


def shape_of(penalty: AbstractPenalty) -> float:
    """Return the shape of Barron's penalty, zero for any other."""
    return penalty.shape if isinstance(penalty, Barron) else 0.0
