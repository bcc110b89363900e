"""Pool features without their outliers, and learn how far an outlier is.

    y = argmin_u  sum_i phi(x_i - u; alpha)

Rows of features have a true level each, noise, and a third of outliers. Every penalty pools them; then alpha of the
Huber penalty is learned by gradient descent through the argmin. Takes a few seconds, and prints the error of every
pooling, alpha before and after, and the greatest difference of the gradient from that of the KKT engine.
"""

import torch

import argminlayer as al
from argminlayer_pooling import RobustPool, pooling_problem

PENALTIES = ("quadratic", "pseudo-huber", "huber", "welsch", "truncated-quadratic", "geman-mcclure", "barron")


def features(rows: int, points: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (rows, points) and their levels (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(rows, generator=generator, dtype=torch.float64)
    x = level[:, None] + 0.2 * torch.randn(rows, points, generator=generator, dtype=torch.float64)
    far = torch.rand(rows, points, generator=generator) < 0.33
    return torch.where(far, level[:, None] + 3.0 + 2.0 * torch.randn(rows, points, generator=generator), x), level


def main() -> tuple[dict[str, float], float, float, float]:
    """Return the error of every pooling, the error before and after learning alpha, and that of the gradient."""
    x, level = features(200, 40, seed=0)
    errors = {}
    for penalty in PENALTIES:
        with torch.no_grad():
            errors[penalty] = (RobustPool(penalty, 0.5, dim=-1)(x) - level).abs().mean().item()
        print(f"{penalty:20} mean error {errors[penalty]:.3f}")

    # alpha = exp(s) stays positive; at this penalty an alpha of its own would do, but a step may lead it below zero
    problem, s = pooling_problem("huber"), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.2)
    losses = []
    for _ in range(25):
        loss = (al.argmin(problem, x, s.exp()) - level).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"alpha 4.48 -> {s.exp().item():.2f}: squared error {losses[0]:.3f} -> {losses[-1]:.3f}")

    fast = torch.autograd.grad(al.argmin(problem, x, s.exp()).sum(), s)[0]
    engine = torch.autograd.grad(al.solve(problem, x, s.exp()).value.sum(), s)[0]
    print(f"gradient for s: {fast.item():.9f}, by the KKT engine {engine.item():.9f}")
    return errors, losses[0], losses[-1], abs((fast - engine).item())


if __name__ == "__main__":
    main()
