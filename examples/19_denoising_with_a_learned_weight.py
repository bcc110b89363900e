"""Learn how much to smooth: the weight of total variation, by the error on signals whose truth is known.

    u(y, w) = argmin_u  ½ |u − y|² + w Σ_i |u_{i+1} − u_i|

The solution is piecewise constant: it sits at kinks of the absolute values, where the derivatives of the function say
nothing. CVXPY proves the problem to be convex, and its cone program has an exact derivative there. The logarithm of the
weight descends on the mean squared error of eight noisy signals.

Takes a few seconds. Prints the learned weight and its error, and the best of a grid of weights whose solutions are
found without the library, by accelerated projected gradients on the dual problem.
"""

import torch
from torch import Tensor

import argminlayer as al

LENGTH, SIGNALS, NOISE, STEPS = 40, 8, 0.3, 15

denoise = al.Problem(lambda u, y, w: 0.5 * (u - y).square().sum() + w * u.diff().abs().sum(), "(n),()->(n)")


def signals() -> tuple[Tensor, Tensor]:
    """Return piecewise constant signals (SIGNALS, LENGTH), and noisy ones."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randn(SIGNALS, 5, dtype=torch.float64, generator=generator)
    truth = levels.repeat_interleave(LENGTH // 5, dim=1)
    return truth, truth + NOISE * torch.randn(SIGNALS, LENGTH, dtype=torch.float64, generator=generator)


def by_the_dual(noisy: Tensor, weight: float, steps: int = 3000) -> Tensor:
    """Return ``y - D'z`` with z the projection onto ``|z| <= w`` of the dual problem, by Nesterov's method."""
    z = ahead = torch.zeros(SIGNALS, LENGTH - 1, dtype=torch.float64)
    momentum = 1.0
    for _ in range(steps):
        slope = (noisy - _transposed(ahead)).diff()
        moved = (ahead + 0.25 * slope).clamp(-weight, weight)
        faster = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
        ahead, z, momentum = moved + (momentum - 1.0) / faster * (moved - z), moved, faster
    return noisy - _transposed(z)


def _transposed(z: Tensor) -> Tensor:
    return -torch.nn.functional.pad(z, (1, 1)).diff()


def main() -> tuple[float, float, float, float, float]:
    """Return the learned weight and its error, the best of the grid and its error, and the difference of solutions."""
    truth, noisy = signals()
    logarithm = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Rprop([logarithm], lr=0.3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (al.argmin(denoise, noisy, logarithm.exp(), solver="cvxpy.clarabel") - truth).square().mean()
        loss.backward()
        optimizer.step()
    weight = float(logarithm.detach().exp())
    found = al.argmin(denoise, noisy, torch.tensor(weight, dtype=torch.float64), solver="cvxpy.clarabel")
    error = float((found - truth).square().mean())
    grid = {w: float((by_the_dual(noisy, w) - truth).square().mean()) for w in torch.logspace(-1, 0.5, 25).tolist()}
    best = min(grid, key=lambda w: grid[w])
    difference = float((by_the_dual(noisy, weight) - found).abs().max())
    print(f"noisy signals     mean squared error {float((noisy - truth).square().mean()):.5f}")
    print(f"learned weight    {weight:.4f}, error {error:.5f}")
    print(f"best of the grid  {best:.4f}, error {grid[best]:.5f}")
    print(f"largest difference of a solution from that by the dual problem {difference:.1e}")
    return weight, error, best, grid[best], difference


if __name__ == "__main__":
    main()
