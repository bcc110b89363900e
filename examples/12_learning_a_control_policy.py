"""Learn a control policy that solves a small convex problem at every step, and compare with the optimal one.

    x⁺ = A x + B u + noise,      u(x) = argmin_u |u|² + |R (A x + B u)|²   subject to   |u|∞ ≤ limit

The matrix R stands for the value of the next state. It is learned by descending on the cost Σ |x|² + |u|² of simulated
rollouts, through the policy. Without the limit the best policy is linear and known: R'R solves Riccati's equation, here
by SciPy. With it nothing is known in closed form; the usual remedy is to clip the linear policy.

Takes about ten seconds. Prints the mean cost on fresh noise, before and after learning, and by Riccati's equation.
"""

import cvxpy as cp
import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import argminlayer as al

STATES, INPUTS, HORIZON, ROLLOUTS, STEPS = 3, 2, 10, 16, 30


def dynamics() -> tuple[Tensor, Tensor]:
    """Return A, which is unstable, and B."""
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(STATES, STATES, dtype=torch.float64, generator=generator)
    B = torch.randn(STATES, INPUTS, dtype=torch.float64, generator=generator)
    return 1.1 * A / torch.linalg.eigvals(A).abs().max(), B


A, B = dynamics()


def policy(limit: float) -> al.ArgminLayer:
    """Return the layer that takes R B and R A x, and returns the input."""
    u, RB, RAx = cp.Variable(INPUTS), cp.Parameter((STATES, INPUTS)), cp.Parameter(STATES)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u) + cp.sum_squares(RAx + RB @ u)), [cp.norm_inf(u) <= limit])
    return al.ArgminLayer(problem, parameters=[RB, RAx], variables=[u])


def noise(seed: int) -> Tensor:
    """Return the noise of all steps, (horizon, rollouts, states)."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(HORIZON, ROLLOUTS, STATES, dtype=torch.float64, generator=generator)


def cost(layer: al.ArgminLayer, R: Tensor, disturbances: Tensor) -> Tensor:
    """Return the mean cost of a step."""
    x, total = torch.zeros(ROLLOUTS, STATES, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for disturbance in disturbances:
        u = layer(R @ B, x @ (R @ A).mT)
        total = total + (x.square().sum(-1) + u.square().sum(-1)).mean()
        x = x @ A.mT + u @ B.mT + disturbance
    return total / HORIZON


def learned(layer: al.ArgminLayer) -> Tensor:
    """Return the R of least cost, from a small multiple of the identity on."""
    R = (0.2 * torch.eye(STATES, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([R], lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        cost(layer, R, noise(step)).backward()
        optimizer.step()
    return R.detach()


def clipped_cost(limit: float, disturbances: Tensor) -> float:
    """Return the cost of the linear policy of Riccati's equation, clipped to the limit, without the library."""
    a, b = A.numpy(), B.numpy()
    value = scipy.linalg.solve_discrete_are(a, b, np.eye(STATES), np.eye(INPUTS))
    gain = np.linalg.solve(np.eye(INPUTS) + b.T @ value @ b, b.T @ value @ a)
    x, total = np.zeros((ROLLOUTS, STATES)), 0.0
    for disturbance in disturbances.numpy():
        u = np.clip(-x @ gain.T, -limit, limit)
        total += ((x**2).sum(-1) + (u**2).sum(-1)).mean()
        x = x @ a.T + u @ b.T + disturbance
    return float(total / HORIZON)


def main() -> dict[str, tuple[float, float, float]]:
    """Return the mean costs on fresh noise before and after learning and by Riccati's equation, for each limit."""
    fresh = noise(1000)
    costs = {}
    for name, limit in (("free", 1e3), ("limited", 0.2)):
        layer = policy(limit)
        with torch.no_grad():
            before = float(cost(layer, 0.2 * torch.eye(STATES, dtype=torch.float64), fresh))
        R = learned(layer)
        with torch.no_grad():
            after = float(cost(layer, R, fresh))
        costs[name] = (before, after, clipped_cost(limit, fresh))
        print(f"{name:8s} before {before:.3f}   learned {after:.3f}   Riccati, clipped {costs[name][2]:.3f}")
    return costs


if __name__ == "__main__":
    main()
