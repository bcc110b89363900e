"""What kernels must offer to take over the sums over points; another plugin may bring them."""

from typing import Protocol

from torch import Tensor

from ._penalties import AbstractPenalty, Barron


class Kernels(Protocol):
    """Functions of rows of points ``x`` (rows, n), weights likewise or None, and alpha (rows,).

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
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Return the gradients for points, weights and alpha of every row, and where curvatures cancel, (rows,)."""
        ...


def shape_of(penalty: AbstractPenalty) -> float:
    """Return the shape of Barron's penalty, zero for any other."""
    return penalty.shape if isinstance(penalty, Barron) else 0.0
