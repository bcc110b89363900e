"""One argmin, its three stationary points, and how each of them moves with the parameter.

    y(x) = argmin_y  x y⁴ + 2 x² y³ − 12 y²

For x > 0 the objective has two minima and, at y = 0, a maximum between them. The gradient of an argmin belongs to a
stationary point, whichever it is: the global minimum, the other one, or the maximum (Gould et al. 2016, sec. 3.2).

Takes about a second. Prints each stationary point at x = 1 with its derivative, beside the closed forms

    y = (−3 x² ± √(9 x⁴ + 96 x)) / (4 x)  or  0,      y' = −(y³ + 3 x y²) / (3 x y² + 3 x² y − 6).
"""

import math

import torch
from torch import Tensor

import argminlayer as al

quartic = al.Problem(lambda y, x: x * y**4 + 2 * x**2 * y**3 - 12 * y**2, "()->()")


def main() -> list[tuple[float, float, float, float]]:
    """Return (point, derivative, point in closed form, derivative in closed form) for each stationary point."""
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    # A list of starts: every one is tried, and the best certified minimum wins.
    best = al.argmin(quartic, x, start=[-1.0, 1.0])
    # One start: the minimum that the solver finds from there.
    near = al.argmin(quartic, x, start=1.0)
    # A point found without any solver. It is a maximum, and its status says so; it has a gradient all the same.
    between = al.certify(quartic, torch.zeros_like(x), x)
    assert between.status == al.Status.NOT_A_MINIMUM

    rows = []
    for name, y, expected in zip(
        ("global minimum", "local minimum", "maximum"), (best, near, between.value), closed_form(1.0), strict=True
    ):
        rows.append((float(y.detach()), derivative(y, x), *expected))
        print("{:<15} y = {:+.12f}  y' = {:+.12f}   closed form {:+.12f}  {:+.12f}".format(name, *rows[-1]))
    return rows


def derivative(y: Tensor, x: Tensor) -> float:
    """Return dy/dx."""
    (slope,) = torch.autograd.grad(y, x)
    return float(slope)


def closed_form(x: float) -> list[tuple[float, float]]:
    """Return the stationary points and their derivatives, equations 23 and 24 of the paper."""
    root = math.sqrt(9 * x**4 + 96 * x)
    points = ((-3 * x**2 - root) / (4 * x), (-3 * x**2 + root) / (4 * x), 0.0)
    return [(y, -(y**3 + 3 * x * y**2) / (3 * x * y**2 + 3 * x**2 * y - 6)) for y in points]


if __name__ == "__main__":
    main()
