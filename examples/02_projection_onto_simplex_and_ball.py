"""Project a batch of points onto a simplex and onto a ball whose size is a parameter too.

    simplex   argmin_u  ½ |u − x|²   subject to   Σ u = r,  u ≥ 0
    ball      argmin_u  ½ |u − x|²   subject to   |u|² ≤ r²

Some entries of the first and some points of the second are held by a constraint, the others are not: which ones is
decided for every point of the batch by itself.

Takes a few seconds. Prints the largest difference of the projections and of their Jacobians from closed forms: sorting
for the simplex (Held, Wolfe and Crowder 1974), scaling for the ball.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import argminlayer as al

simplex = al.Problem(
    lambda u, x, r: 0.5 * (u - x).square().sum(),
    "(n),()->(n)",
    equality=lambda u, x, r: u.sum() - r,
    lower=0.0,
)
ball = al.Problem(
    lambda u, x, r: 0.5 * (u - x).square().sum(),
    "(n),()->(n)",
    inequality=lambda u, x, r: u @ u - r**2,
)


def onto_simplex(x: Tensor, r: Tensor) -> Tensor:
    """Return max(x − t, 0) with the threshold t that makes the sum r, found by sorting."""
    descending = x.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    thresholds = (descending.cumsum(-1) - r) / count
    last = (descending > thresholds).sum(-1, keepdim=True) - 1
    return (x - thresholds.gather(-1, last)).clamp_min(0.0)


def onto_ball(x: Tensor, r: Tensor) -> Tensor:
    """Return x where it is inside, and the nearest point of the sphere where it is not."""
    length = x.norm(dim=-1, keepdim=True)
    return torch.where(length > r, r * x / length, x)


def differences(problem: al.Problem, closed_form: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """Return the largest differences of values and of Jacobians in x and in r."""
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = torch.tensor(2.0, dtype=torch.float64)
    value = (al.argmin(problem, x, r) - closed_form(x, r)).abs().max()
    found = torch.autograd.functional.jacobian(lambda x, r: al.argmin(problem, x, r), (x, r))
    expected = torch.autograd.functional.jacobian(closed_form, (x, r))
    jacobian = max((f - e).abs().max() for f, e in zip(found, expected, strict=True))
    return float(value), float(jacobian)


def main() -> dict[str, tuple[float, float]]:
    """Return, for each set, the largest difference of the values and of the Jacobians."""
    results = {"simplex": differences(simplex, onto_simplex), "ball": differences(ball, onto_ball)}
    for name, (value, jacobian) in results.items():
        print(f"{name:<8} largest difference from the closed form: value {value:.1e}, Jacobian {jacobian:.1e}")
    return results


if __name__ == "__main__":
    main()
