"""Attack a classifier by projected gradients inside Lp balls, and train one that withstands.

    attack    maximise over d  loss(model(x + d), y)   subject to   |d|_p ≤ ε           for p = 1, 2, ∞
    train     minimise over the weights  the loss at the attacked points

Every step of the attack ends with a projection layer: `LpProjection(p, ε, "ball")` takes the perturbation back into its
ball. The perturbed points of the network are images with entries from 0 to 1; that is one more projection, onto a box.

Takes about ten seconds. For a linear classifier the worst perturbation is known, its margin falls by ε times the dual
norm of the weights: prints what the attack reaches of that. Then prints the accuracy of two networks, one trained as
usual and one on attacked points, with and without an attack.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from argminlayer_projection import BoxProjection, LpProjection

RADII = {1.0: 6.0, 2.0: 0.8, math.inf: 0.15}
"""How far an attack may move an image, in each norm."""


def ascend(slope: Tensor, p: float) -> Tensor:
    """Return the direction of length one in the p-norm along which a linear function grows fastest."""
    if math.isinf(p):
        return slope.sign()
    if p == 1:
        return slope.sign() * nn.functional.one_hot(slope.abs().argmax(-1), slope.shape[-1])
    return LpProjection(2)(slope + 1e-30)


def attack(
    loss: Callable[[Tensor], Tensor], x: Tensor, p: float, radius: float, steps: int = 20, box: nn.Module | None = None
) -> Tensor:
    """Return points that maximise ``loss`` within the ball around x, by projected gradient ascent."""
    ball = LpProjection(p, radius, "ball")
    d = torch.zeros_like(x)
    for _ in range(steps):
        d.requires_grad_()
        (slope,) = torch.autograd.grad(loss(x + d), d)
        d = ball(d.detach() + 2.5 * radius / steps * ascend(slope, p))
        if box is not None:
            d = box(x + d) - x  # towards x, so that it stays in the ball
    return x + d


def linear_classifier() -> dict[float, float]:
    """Return, for each p, the largest difference of the margin under attack from its known value."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(30, generator=generator, dtype=torch.float64)
    x = torch.randn(16, 30, generator=generator, dtype=torch.float64)
    errors = {}
    for p, dual in ((1.0, math.inf), (2.0, 2.0), (math.inf, 1.0)):
        found = attack(lambda points: softplus(-points @ w).sum(), x, p, 0.5) @ w
        errors[p] = float((found - (x @ w - 0.5 * torch.linalg.vector_norm(w, dual))).abs().max())
    return errors


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy images of four classes, 8 by 8 pixels: bars that lie, stand, and cross."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    place = torch.randint(2, 6, (count, 2), generator=generator)
    rows = nn.functional.one_hot(place[:, 0], 8)[:, :, None].float()
    columns = nn.functional.one_hot(place[:, 1], 8)[:, None, :].float()
    lying, standing = (labels % 2 == 1)[:, None, None], (labels > 1)[:, None, None]
    bars = torch.where(lying, rows, 0.0) + torch.where(standing, columns, 0.0)
    noise = 0.1 * torch.randn(count, 8, 8, generator=generator)
    return (0.8 * bars.clamp_max(1.0) + 0.1 + noise).clamp(0, 1).flatten(1), labels


def train(robust: bool, epochs: int = 30) -> nn.Module:
    """Return a small network, trained on images or on attacked images."""
    torch.manual_seed(0)
    x, labels = images(1000, seed=1)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(100):
            points = x[batch]
            if robust:
                p = (1.0, 2.0, math.inf)[int(torch.randint(3, ()))]
                points = attacked(network, points, labels[batch], p, steps=5)
            optimizer.zero_grad()
            cross_entropy(network(points), labels[batch]).backward()
            optimizer.step()
    return network


def attacked(network: nn.Module, x: Tensor, labels: Tensor, p: float, steps: int = 20) -> Tensor:
    """Return images as the attack of the network leaves them."""
    return attack(
        lambda points: cross_entropy(network(points), labels, reduction="sum"), x, p, RADII[p], steps, BoxProjection()
    )


def accuracy(network: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Return the share of images that are classified correctly."""
    return float((network(x).argmax(-1) == labels).float().mean())


def main() -> tuple[dict[float, float], dict[str, dict[str, float]]]:
    """Return the errors of the attack of a linear classifier, and the accuracies of both networks."""
    errors = linear_classifier()
    for p, error in errors.items():
        print(f"linear classifier, p = {p:g}: margin under attack differs from the known one by {error:.1e}")
    x, labels = images(500, seed=2)
    accuracies = {}
    for name, robust in (("usual", False), ("robust", True)):
        network = train(robust)
        found = {"clean": accuracy(network, x, labels)}
        for p in RADII:
            moved = attacked(network, x, labels, p)
            assert (torch.linalg.vector_norm(moved - x, p, dim=-1) <= RADII[p] * (1 + 1e-5)).all()
            found[f"p = {p:g}"] = accuracy(network, moved, labels)
        accuracies[name] = found
        print(f"{name} training: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
    return errors, accuracies


if __name__ == "__main__":
    main()
