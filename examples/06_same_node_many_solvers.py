"""Solve one node with every installed solver that can, and get the same gradient from each.

    u(A, b) = argmin_u  ½ |A u − b|²   subject to   u ≥ 0

The last row is a value found outside the library, by the active-set method of Lawson and Hanson in SciPy (`nnls`), to
which `attach` adds the gradient. Which solver found the value makes no difference to its derivative.

Takes a few seconds. Prints the solution and the gradient of Σ u² in b for each solver, and below them the gradient that
follows from ordinary least squares on the variables that are not zero.
"""

import scipy.optimize
import torch
from torch import Tensor

import argminlayer as al

nonnegative_fit = al.least_squares(lambda u, A, b: A @ u - b, "(m,n),(m)->(n)", lower=0.0)


def data() -> tuple[Tensor, Tensor]:
    """Return a small data set for which some of the variables are zero."""
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    return A, A @ torch.tensor([1.0, -1.0, 0.5, -0.2], dtype=torch.float64)


def pull_back(value: Tensor, b: Tensor) -> Tensor:
    """Return the gradient of the sum of squares of the solution."""
    return torch.autograd.grad(value.square().sum(), b)[0]


def gradient_on_the_support(A: Tensor, b: Tensor) -> Tensor:
    """Return the same gradient from the normal equations of the variables that `nnls` leaves positive."""
    support = torch.from_numpy(scipy.optimize.nnls(A.numpy(), b.detach().numpy())[0] > 0)
    free = A[:, support]
    return pull_back(torch.linalg.solve(free.mT @ free, free.mT @ b), b)


def main() -> tuple[dict[str, Tensor], Tensor]:
    """Return the gradient by each solver, and the one obtained without any of them."""
    A, b = data()
    b.requires_grad_()
    usable = [v.solver.name for v in al.explain(nonnegative_fit, A, b).verdicts if v.reason is None]
    values = {name: al.argmin(nonnegative_fit, A, b, solver=name) for name in usable}
    outside = torch.from_numpy(scipy.optimize.nnls(A.numpy(), b.detach().numpy())[0])
    values["attach(nnls)"] = al.attach(nonnegative_fit, outside, A, b)

    gradients = {name: pull_back(value, b) for name, value in values.items()}
    expected = gradient_on_the_support(A, b)
    for name, gradient in gradients.items():
        print(f"{name + ':':<21} u = {show(values[name].detach())}  gradient {show(gradient[:4])} ...")
    print(f"{'without the node':<62} gradient {show(expected[:4])} ...")
    return gradients, expected


def show(tensor: Tensor) -> str:
    """Return the entries with five decimals."""
    return " ".join(f"{entry:8.5f}" for entry in tensor.tolist())


if __name__ == "__main__":
    main()
