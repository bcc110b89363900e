"""Smoothing of linear programs, so that learning sees more of them than the basis they happen to have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ._errors import ProblemError

Solve = Callable[[Mapping[str, Tensor]], Tensor]

STEPS = 40
"""Newton steps of an entropic solution, at most."""
BACK = 0.1
"""A step keeps at least this part of every variable, so that its logarithm stays defined."""
SMALLEST = 1e-8
"""Variables below this are treated as if they were that large: they end at zero."""
STILL = 1e-10
"""Relative change of the variables at which the steps end."""


@dataclass(frozen=True)
class Smoothing:
    """A strictly convex term that makes the solution of a linear program differentiable, and its gradient informative.

        quadratic:  weight / 2 |u|²          entropic:  weight sum u log u   (u > 0)

    The solution of a linear program is a vertex. Its derivative in the costs is zero almost everywhere, and does not
    exist where the basis changes; in the constraints it is that of the vertex. The smoothed solution moves with the
    costs, and tends to a vertex as the weight falls: for quadratic smoothing it *is* a vertex below some weight.

    Attributes:
        weight: positive.
        kind: ``"quadratic"`` or ``"entropic"``. The latter keeps every variable positive, so that no bound at zero is
            ever active; it is found by Newton's method on quadratic programs.

    Reference: Wilder, Dilkina and Tambe, *Melding the data-decisions pipeline*, 2019, sec. 4.2; Mandi and Guns,
    *Interior point solving for LP-based prediction+optimisation*, 2020.
    """

    weight: float
    kind: Literal["quadratic", "entropic"] = "quadratic"

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if not self.weight > 0:
            raise ProblemError(f"the weight of a smoothing must be positive, not {self.weight!r}")
        if self.kind not in ("quadratic", "entropic"):
            raise ProblemError(f"a smoothing is 'quadratic' or 'entropic', not {self.kind!r}")


def smoothed(smoothing: Smoothing, blocks: Mapping[str, Tensor], size: int, solve: Solve) -> Tensor:
    """Return the smoothed solution.

    Args:
        smoothing: the term.
        blocks: of the program, tensors of one dtype.
        size: number of variables.
        solve: solves the quadratic program of some blocks, differentiably.
    """
    like = next(iter(blocks.values()))
    if smoothing.kind == "quadratic":
        extra = smoothing.weight * torch.eye(size, dtype=like.dtype, device=like.device)
        return solve({**blocks, "P": blocks["P"] + extra if "P" in blocks else extra})
    return _entropic(smoothing.weight, blocks, size, solve)


def _entropic(weight: float, blocks: Mapping[str, Tensor], size: int, solve: Solve) -> Tensor:
    """Minimise with the entropy by Newton's method.

    A step solves the program whose smoothing term is expanded to second order at the last point. Two more steps from
    the solution carry the derivative: Newton's map does not depend on where it starts, to first order, so that the
    first of them has the right first derivative, and the second, which starts at a point that moves, the second one.
    """
    with torch.no_grad():
        fixed = {name: block.detach() for name, block in blocks.items()}
        floor = torch.zeros(size, dtype=torch.float64) if "lower" not in fixed else fixed["lower"].clamp_min(0.0)
        like = next(iter(fixed.values()))
        floor = floor.to(like)
        start = {**fixed, "P": torch.eye(size).to(like), "q": -torch.ones(size).to(like), "lower": floor}
        u = solve(start).clamp_min(1e-3)
        for _ in range(STEPS):
            moved = solve({**_expanded(weight, fixed, u), "lower": torch.maximum(BACK * u, floor)}).clamp_min(SMALLEST)
            change = ((moved - u).abs() / u).amax() if u.numel() else u.sum()
            u = moved
            if not bool(change > STILL):
                break
    whole = {**blocks, "lower": blocks["lower"].clamp_min(0.0) if "lower" in blocks else floor}
    return solve(_expanded(weight, whole, solve(_expanded(weight, whole, u)).clamp_min(SMALLEST)))


def _expanded(weight: float, blocks: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
    """Return the blocks with ``weight sum u log u`` expanded to second order at u."""
    curvature = torch.diag_embed(weight / u)
    slope = weight * u.log()
    return {
        **blocks,
        "P": blocks["P"] + curvature if "P" in blocks else curvature,
        "q": blocks["q"] + slope if "q" in blocks else slope,
    }
