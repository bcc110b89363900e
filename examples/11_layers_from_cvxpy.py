"""The activations of neural networks as convex problems: written in CVXPY, differentiated as layers.

    relu       argmin |y − x|²                          subject to  y ≥ 0
    ball       argmin |y − x|²                          subject to  |y| ≤ 1
    sigmoid    argmin −x'y − H(y) − H(1 − y)
    softmax    argmin −x'y − H(y)                       subject to  Σ y = 1
    sparsemax  argmin |y − x|²                          subject to  Σ y = 1,  y ≥ 0

with the entropy H(y) = −Σ y log y. Each layer takes a batch, and each solution and product with its derivative is
compared with the closed form that torch has, or that a few lines of it give.

Takes a second. Prints the largest differences of values and of products with the transposed derivative.
"""

from collections.abc import Callable

import cvxpy as cp
import torch
from torch import Tensor

import argminlayer as al

N, BATCH = 6, 8


def layers() -> dict[str, al.ArgminLayer]:
    """Return the layers by name."""
    x, y = cp.Parameter(N), cp.Variable(N)
    distance, entropy = cp.sum_squares(y - x), cp.sum(cp.entr(y))
    problems = {
        "relu": cp.Problem(cp.Minimize(distance), [y >= 0]),
        "ball": cp.Problem(cp.Minimize(distance), [cp.norm(y) <= 1]),
        "sigmoid": cp.Problem(cp.Maximize(x @ y + entropy + cp.sum(cp.entr(1 - y)))),
        "softmax": cp.Problem(cp.Maximize(x @ y + entropy), [cp.sum(y) == 1]),
        "sparsemax": cp.Problem(cp.Minimize(distance), [cp.sum(y) == 1, y >= 0]),
    }
    return {name: al.ArgminLayer(each, parameters=[x], variables=[y]) for name, each in problems.items()}


def sparsemax(x: Tensor) -> Tensor:
    """Return the projections of rows onto the simplex, by sorting."""
    ordered = x.sort(-1, descending=True).values
    thresholds = (ordered.cumsum(-1) - 1) / torch.arange(1, N + 1, dtype=x.dtype)
    count = (ordered > thresholds).sum(-1, keepdim=True)
    return (x - thresholds.gather(-1, count - 1)).clamp_min(0)


CLOSED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "ball": lambda x: x / x.norm(dim=-1, keepdim=True).clamp_min(1),
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, -1),
    "sparsemax": sparsemax,
}


def main() -> dict[str, tuple[float, float]]:
    """Return the largest differences to the closed forms, of values and of products with the derivative."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, N, dtype=torch.float64, generator=generator).requires_grad_()
    cotangent = torch.randn(BATCH, N, dtype=torch.float64, generator=generator)
    differences = {}
    for name, layer in layers().items():
        found, known = layer(x), CLOSED[name](x)
        slopes = [torch.autograd.grad(y, x, cotangent)[0] for y in (found, known)]
        differences[name] = (float((found - known).detach().abs().max()), float((slopes[0] - slopes[1]).abs().max()))
        print(f"{name:10s} values {differences[name][0]:.1e}   derivative {differences[name][1]:.1e}")
    return differences


if __name__ == "__main__":
    main()
