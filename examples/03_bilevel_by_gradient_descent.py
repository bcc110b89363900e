"""Move the most likely points of a soft-max classifier to chosen places, by gradient descent through the argmax.

    minimise over A, b   ½ Σᵢ |gᵢ(A, b) − tᵢ|²,      gᵢ(A, b) = argmax_u  log softmax(A u + b)ᵢ   subject to  |u|² ≤ 1

Three classes in the plane; the targets tᵢ are spaced evenly on the unit circle. The three lower problems are one batch
of one node: the classifier (A, b) is shared, the class differs (Gould et al. 2016, sec. 5).

Takes a few seconds. Prints the upper objective as it falls, then the most likely points of the final classifier
beside the targets and beside those found by trying every point of a fine grid on the disc.
"""

import math

import torch
from torch import Tensor

import argminlayer as al

STEPS = 60
RATE = 4.0

most_likely = al.Problem(
    lambda u, A, b, chosen: torch.log_softmax(A @ u + b, dim=0) @ chosen,
    "(m,n),(m),(m)->(n)",
    inequality=lambda u, A, b, chosen: u @ u - 1,
    maximize=True,
)
every_class = torch.eye(3, dtype=torch.float64)


def targets() -> Tensor:
    """Return three points on the unit circle."""
    angle = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def train() -> tuple[Tensor, Tensor, list[float]]:
    """Return the classifier found, and the upper objective before every step."""
    A = torch.tensor([[1.0, -0.4], [0.3, 1.2], [-0.8, 0.5]], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([A, b], lr=RATE)
    losses, points = [], None
    for _ in range(STEPS):
        # Each solve goes on from the points before the last step.
        points = al.solve(most_likely, A, b, every_class, start=points)
        loss = 0.5 * (points.value - targets()).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return A.detach(), b.detach(), losses


def by_trying_every_point(A: Tensor, b: Tensor) -> Tensor:
    """Return the most likely point of each class among those of a polar grid on the disc."""
    angle = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)[:, None]
    radius = torch.linspace(0, 1, 21, dtype=torch.float64)
    disc = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).reshape(-1, 2)
    return disc[torch.log_softmax(disc @ A.mT + b, dim=-1).argmax(0)]


def main() -> tuple[list[float], Tensor, Tensor]:
    """Return the training curve, and the final points found by the node and by trying every point."""
    A, b, losses = train()
    for step in range(0, STEPS, 10):
        print(f"step {step:3d}  objective {losses[step]:.3e}")
    found, tried = al.argmin(most_likely, A, b, every_class), by_trying_every_point(A, b)
    print("target             node               trying every point")
    for row in torch.cat([targets(), found, tried], dim=-1).tolist():
        print("({:+.4f}, {:+.4f})  ({:+.4f}, {:+.4f})  ({:+.4f}, {:+.4f})".format(*row))
    return losses, found, tried


if __name__ == "__main__":
    main()
