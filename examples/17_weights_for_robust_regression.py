"""Learn which samples to trust: weights of a robust regression, by the error on a few clean samples.

    x(w) = argmin_x  Σ_i w_i huber(a_i'x − b_i) + ½ ρ |x|²

A third of the samples were measured by a faulty instrument, and nobody knows which. Huber's loss bounds what each of
them does, but they all err to the same side. The weights w = sigmoid(v) are learned by descending on the squared error
of x(w) on ten clean samples, through the regression.

Takes a few seconds. Prints the distance to the true x: of least squares on all samples, of Huber's loss, with learned
weights, and of least squares on the good samples alone, which is as well as one can do.
"""

import cvxpy as cp
import torch
from torch import Tensor

import argminlayer as al

FEATURES, SAMPLES, FAULTY, CLEAN, STEPS, RIDGE = 4, 60, 20, 10, 40, 1e-3


def layer() -> al.ArgminLayer:
    """Return the regression as a layer of the weights."""
    A, b, _ = samples()
    x, w = cp.Variable(FEATURES), cp.Parameter(SAMPLES, nonneg=True)
    loss = cp.sum(cp.multiply(w, cp.huber(A.numpy() @ x - b.numpy(), 0.5)))
    return al.ArgminLayer(
        cp.Problem(cp.Minimize(loss + 0.5 * RIDGE * cp.sum_squares(x))), parameters=[w], variables=[x]
    )


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows a, the values b, of which the first are faulty, and the true x."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(FEATURES, dtype=torch.float64, generator=generator)
    A = torch.randn(SAMPLES, FEATURES, dtype=torch.float64, generator=generator)
    A[:, 0] = 1.0
    b = A @ x + 0.1 * torch.randn(SAMPLES, dtype=torch.float64, generator=generator)
    b[:FAULTY] += 3.0
    return A, b, x


def main() -> tuple[dict[str, float], float, float]:
    """Return the distances to the true x, and the mean learned weights of faulty and of good samples."""
    A, b, x = samples()
    generator = torch.Generator().manual_seed(1)
    fresh = torch.randn(CLEAN, FEATURES, dtype=torch.float64, generator=generator)
    target = fresh @ x + 0.1 * torch.randn(CLEAN, dtype=torch.float64, generator=generator)
    regression = layer()
    v = torch.zeros(SAMPLES, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=0.3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (fresh @ regression(torch.sigmoid(v)) - target).square().mean().backward()
        optimizer.step()
    w = torch.sigmoid(v.detach())
    found = {
        "least squares": torch.linalg.lstsq(A, b[:, None]).solution[:, 0],
        "huber": regression(torch.ones(SAMPLES, dtype=torch.float64)),
        "learned weights": regression(w),
        "good samples": torch.linalg.lstsq(A[FAULTY:], b[FAULTY:, None]).solution[:, 0],
    }
    distances = {name: float((each - x).norm()) for name, each in found.items()}
    for name, distance in distances.items():
        print(f"{name:16s} distance to the true x {distance:.3f}")
    faulty, good = float(w[:FAULTY].mean()), float(w[FAULTY:].mean())
    print(f"mean weight of faulty samples {faulty:.2f}, of good ones {good:.2f}")
    return distances, faulty, good


if __name__ == "__main__":
    main()
