"""Share a network fairly, read its prices off the multipliers, and learn what its users value from what they got.

    x(w, c) = argmax_x  Σ_i w_i log x_i   subject to   L x ≤ c

Flow i takes the links that column i of L names, c are the capacities. The multiplier of a link is its price, and at the
optimum every flow spends its weight: x_i (L'price)_i = w_i. Flows and prices are both returned, and both are
differentiable: prices here for how they react to capacity.

The weights are unknown. They are learned from the flows under five different capacities, by L-BFGS on the squared
error through the layer, until they are those that made the flows.

Takes a few seconds. Prints the learned and the true weights, how well flows spend their weights, and the change of the
total price with capacity beside a difference of re-solved problems.
"""

import cvxpy as cp
import torch
from torch import Tensor

import argminlayer as al

LINKS = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [1, 0, 1, 1, 0]], dtype=torch.float64)
"""Which links (rows) each flow (column) takes."""
TRUE = torch.tensor([1.0, 2.0, 0.5, 1.5, 0.8], dtype=torch.float64)
STEPS = 60


def network() -> al.ArgminLayer:
    """Return the layer of weights and capacities, which returns flows and prices."""
    links, flows = LINKS.shape
    x, w, c = cp.Variable(flows), cp.Parameter(flows, nonneg=True), cp.Parameter(links, nonneg=True)
    capacity = LINKS.numpy() @ x <= c
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(w, cp.log(x)))), [capacity])
    return al.ArgminLayer(problem, parameters=[w, c], variables=[x, capacity.dual_variables[0]])


def learned(layer: al.ArgminLayer, capacities: Tensor, flows: Tensor) -> Tensor:
    """Return the weights under which flows are those given, up to their common scale, which flows do not show."""
    logarithms = torch.zeros(len(TRUE), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS([logarithms], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (layer(logarithms.exp(), capacities)[0] - flows).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weights = logarithms.detach().exp()
    return weights * TRUE.sum() / weights.sum()


def main() -> tuple[Tensor, float, tuple[float, float]]:
    """Return the learned weights, how far flows are from spending theirs, and the slope of the total price, twice."""
    layer = network()
    generator = torch.Generator().manual_seed(0)
    capacities = 1.0 + torch.rand(5, len(LINKS), dtype=torch.float64, generator=generator)
    flows, prices = layer(TRUE, capacities)
    spent = float((flows * (prices @ LINKS) - TRUE).abs().max())
    weights = learned(layer, capacities, flows)

    c = capacities[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(layer(TRUE, c)[1].sum(), c)
    step = torch.tensor([1e-4, 0.0, 0.0], dtype=torch.float64)
    difference = (layer(TRUE, c.detach() + step)[1].sum() - layer(TRUE, c.detach() - step)[1].sum()) / 2e-4
    print(f"weights learned {[round(v, 3) for v in weights.tolist()]}, true {TRUE.tolist()}")
    print(f"flows spend their weights up to {spent:.1e}")
    print(f"change of the total price with the first capacity {float(slope[0]):.6f}, re-solved {float(difference):.6f}")
    return weights, spent, (float(slope[0]), float(difference))


if __name__ == "__main__":
    main()
