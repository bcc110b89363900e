"""Learn how a load slows a pendulum from optimal swing-ups: optimal control by IPOPT inside a trained model.

    minimise    Σ h τₖ²                                   over angles θ, speeds ω and torques τ at 100 times, n = 300
    subject to  θ' = ω,   ω' = τ − sin θ − c ω            by the trapezoidal rule,
                θ(0) = ω(0) = 0,   θ(T) = π,   ω(T) = 0,   |τ| ≤ 1.2

An operator swings loads up optimally. What the friction c is for a load, nobody has measured: it is learned. A small
network predicts c from the load, the layer plans the swing-up for that c, and the loss is the distance between planned
and observed angles and torques. Its gradient passes through the solution of a nonlinear program with 202 equalities.

Takes about ten seconds. Prints the friction that was learned beside the true one for loads not trained on, and the
derivative of a plan in c beside central differences of plans computed again. Needs `pip install 'argminlayer[casadi]'`.
"""

import math

import torch
from torch import Tensor

import argminlayer as al

STEPS, DURATION, STRONGEST = 100, 6.0, 1.2
STEP = DURATION / (STEPS - 1)


def effort(u: Tensor, friction: Tensor) -> Tensor:
    """Return the sum of squared torques."""
    del friction
    return STEP * u[2].square().sum()


def dynamics(u: Tensor, friction: Tensor) -> Tensor:
    """Return what the trapezoidal rule leaves, and the distances from the boundary values."""
    angle, speed, torque = u
    rate = torque - torch.sin(angle) - friction * speed
    return torch.cat(
        [
            angle[1:] - angle[:-1] - STEP / 2 * (speed[1:] + speed[:-1]),
            speed[1:] - speed[:-1] - STEP / 2 * (rate[1:] + rate[:-1]),
            torch.stack([angle[0], speed[0], angle[-1] - math.pi, speed[-1]]),
        ]
    )


def straight(friction: Tensor) -> Tensor:
    """Return the start of the search: the angle grows evenly."""
    line = torch.linspace(0.0, math.pi, STEPS, dtype=friction.dtype)
    return torch.stack([line, torch.full_like(line, math.pi / DURATION), torch.zeros_like(line)])


limits = torch.tensor([[math.inf], [math.inf], [STRONGEST]], dtype=torch.float64)
swing_up = al.Problem(effort, f"()->(3,{STEPS})", equality=dynamics, lower=-limits, upper=limits, start=straight)


def true_friction(load: Tensor) -> Tensor:
    """Return the friction that the model does not know."""
    return 0.05 + 0.3 * load.square()


class Model(torch.nn.Module):
    """Load to friction by a network, friction to a plan by optimal control."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        self.plan = al.ArgminLayer(swing_up, solver="casadi.ipopt")

    def friction(self, load: Tensor) -> Tensor:
        """Return the friction predicted for loads (batch,)."""
        return 0.3 * torch.sigmoid(self.network(load[:, None])[:, 0]) + 0.02

    def forward(self, load: Tensor) -> Tensor:
        """Return the planned angles, speeds and torques, (batch, 3, steps)."""
        plan: Tensor = self.plan(self.friction(load))
        return plan


def train(model: Model, loads: Tensor, observed: Tensor, rounds: int) -> list[float]:
    """Fit the plans to what was observed; return the losses."""
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=rounds, line_search_fn="strong_wolfe", tolerance_grad=0.0
    )
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(loads) - observed)[:, [0, 2]].square().mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return losses


def derivative(friction: float) -> tuple[float, float]:
    """Return the derivative of the angle in the middle of the plan, by the layer and by central differences."""

    def middle(c: Tensor) -> Tensor:
        angle: Tensor = al.argmin(swing_up, c, solver="casadi.ipopt")[0, STEPS // 2]
        return angle

    c = torch.tensor(friction, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(middle(c), c)
    difference = (middle(c.detach() + 1e-4) - middle(c.detach() - 1e-4)) / 2e-4
    return slope.item(), difference.item()


def main(rounds: int = 30) -> tuple[list[float], Tensor, Tensor, tuple[float, float]]:
    """Train, and compare friction and derivative."""
    torch.manual_seed(0)
    loads = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    observed = al.argmin(swing_up, true_friction(loads), solver="casadi.ipopt")
    model = Model()
    losses = train(model, loads, observed, rounds)
    unseen = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    found, true = model.friction(unseen).detach(), true_friction(unseen)
    slopes = derivative(0.1)
    print(f"loss {losses[0]:.2e} -> {losses[-1]:.2e}")
    for load, learned, known in zip(unseen.tolist(), found.tolist(), true.tolist(), strict=True):
        print(f"load {load:.1f}: friction learned {learned:.3f}, true {known:.3f}")
    print(f"derivative of the middle angle in c: {slopes[0]:.8f}, by differences {slopes[1]:.8f}")
    return losses, found, true, slopes


if __name__ == "__main__":
    main()
