"""One node solved by SciPy, by CasADi's IPOPT and by Pyomo's IPOPT: the same gradient three times.

The node is the largest box with edges u that fits into an ellipsoid with half-axes x, not longer than 1.2 along the
first axis:

    max u1 u2 u3    subject to    sum (u_i / 2 x_i)^2 <= 1,   u_1 <= 1.2,   u >= 0.1.

No solver computes the gradient: it is taken from the KKT conditions at whatever point was found, so that it does not
depend on who found it. Without the limit the solution is u_i = 2 x_i / sqrt(3).

Takes a few seconds. Prints the gradient of the volume of every solver, and that of the closed form.
"""

import torch

import argminlayer as al

SOLVERS = ("scipy", "casadi.ipopt", "pyomo.ipopt")


def main() -> dict[str, torch.Tensor]:
    """Return the gradient by every solver, and the closed form."""
    box = al.Problem(
        lambda u, x: u.prod(),
        "(n)->(n)",
        inequality=lambda u, x: torch.stack([(u / (2 * x)).square().sum() - 1, u[0] - 1.2]),
        lower=0.1,
        start=lambda x: 0.5 * x,
        maximize=True,
    )
    x = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    gradients = {}
    for solver in SOLVERS:
        variable = x.clone().requires_grad_()
        al.argmin(box, variable, solver=solver).prod().backward()
        gradients[solver] = variable.grad
    gradients["closed form"] = closed_form(x)
    for name, gradient in gradients.items():
        print(f"{name:<13} {'  '.join(f'{value: .12f}' for value in gradient.tolist())}")
    return gradients


def closed_form(x: torch.Tensor) -> torch.Tensor:
    """Return the gradient of 1.2 u2 u3 with u_i = 2 x_i sqrt(s / 2) and s = 1 - (0.6 / x1)^2."""
    variable = x.clone().requires_grad_()
    left = 1 - (0.6 / variable[0]).square()
    volume = 1.2 * 4 * variable[1] * variable[2] * left / 2
    (gradient,) = torch.autograd.grad(volume, variable)
    return gradient


if __name__ == "__main__":
    main()
