"""The proximal term: what makes a solution that is not isolated move in one way only."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Proximal:
    """A proximal term ``delta/2 |u - y|^2``; see :func:`proximal`."""

    delta: float

    def __post_init__(self) -> None:
        """Refuse what does not regularise."""
        if not (isinstance(self.delta, int | float) and math.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta of a proximal term must be a positive number, not {self.delta!r}")

    def shift(self, freedom: Tensor) -> Tensor:
        """Return what to add to the diagonal of the Hessian, (batch,), given in how many directions it is free."""
        return torch.where(freedom > 0, self.delta, 0.0).to(torch.float64)


def proximal(delta: float) -> Proximal:
    """Return the policy ``singular=al.proximal(delta)`` of :class:`KKT` for solutions that are not isolated.

    Where the Hessian H of the Lagrangian is singular on the tangent space of the active constraints, the derivative is
    that of the problem with the proximal term ``delta/2 |u - y|^2`` about the solution y, which y solves too: the KKT
    system with ``H + delta I`` in the place of H. Other instances are not touched. As delta falls it converges, at the
    rate of delta over the smallest non-zero eigenvalue of H, to the derivative of least norm where the linearised
    conditions are consistent; where they are not, which means that the solution ceases to exist when the parameters
    move, it grows like 1/delta.

    Args:
        delta: positive, in units of the Hessian.

    Raises:
        ValueError: delta is not a positive number.

    Reference: Gould, Hartley and Campbell, *Deep Declarative Networks*, sec. 4.7, singular Hessians.
    """
    return Proximal(delta)
