"""Learn how consumers react to prices, through the market that sets the prices.

A market on an alternating-current grid maximises welfare: what power d is worth to the consumers, a'd - d'diag(b)d/2,
minus what it costs to generate, subject to the power flow equations

    P_i = V_i sum_j V_j (G_ij cos t_ij + B_ij sin t_ij),    Q_i = V_i sum_j V_j (G_ij sin t_ij - B_ij cos t_ij),

limits of voltages, generators and lines. The market is a Pyomo model; `al.ArgminLayer` makes a layer of it. The
consumption of some days is known, and the sensitivities b to prices are learned from it by gradient descent. In the
optimum the price at a bus, from the multipliers of its power balances, is what consumers would pay for more: a - b d.

Takes about ten seconds. Prints the sensitivities found beside the true ones, and the prices beside a - b d.
"""

import pyomo.environ as pyo
import torch

import argminlayer as al

BUSES, CONSUMERS = (1, 2, 3), (2, 3)
LINES = {(1, 2): (4.0, -12.0), (2, 3): (3.0, -10.0), (1, 3): (2.0, -8.0)}  # conductance and susceptance
TRUTH = torch.tensor([6.0, 9.0], dtype=torch.float64)


def market() -> pyo.ConcreteModel:
    """Return the market of one day."""
    m = pyo.ConcreteModel()
    m.worth = pyo.Param(CONSUMERS, initialize=10.0, mutable=True)
    m.slope = pyo.Param(CONSUMERS, initialize=5.0, mutable=True)
    m.demand = pyo.Var(CONSUMERS, bounds=(0, None), initialize=0.5)
    m.P = pyo.Var((1, 2), bounds=(0, 2), initialize=0.5)
    m.Q = pyo.Var((1, 2), bounds=(-1, 1), initialize=0.0)
    m.V = pyo.Var(BUSES, bounds=(0.95, 1.05), initialize=1.0)
    m.angle = pyo.Var(BUSES, bounds=(-1, 1), initialize=0.0)
    m.angle[1].fix(0.0)

    def admittance(i: int, j: int) -> tuple[float, float]:
        if i != j:
            g, b = LINES[min(i, j), max(i, j)]
            return -g, -b
        parts = [y for line, y in LINES.items() if i in line]
        return sum(g for g, _ in parts), sum(b for _, b in parts)

    def flow(m: pyo.ConcreteModel, i: int, shift: float) -> pyo.Expression:
        total = 0.0
        for j in BUSES:
            g, b = admittance(i, j)
            t = m.angle[i] - m.angle[j]
            total += m.V[j] * (g * pyo.cos(t - shift) + b * pyo.sin(t - shift))
        return m.V[i] * total

    quarter = 1.5707963267948966
    m.balance = pyo.Constraint(
        BUSES, rule=lambda m, i: (m.demand[i] if i != 1 else 0) - (m.P[i] if i != 3 else 0) + flow(m, i, 0.0) == 0
    )
    m.reactive = pyo.Constraint(
        BUSES,
        rule=lambda m, i: 0.3 * (m.demand[i] if i != 1 else 0) - (m.Q[i] if i != 3 else 0) + flow(m, i, quarter) == 0,
    )
    m.line = pyo.Constraint(
        list(LINES), rule=lambda m, i, j: (-0.1, m.angle[i] - m.angle[j], 0.1)
    )  # power over a line grows with the difference of the angles
    cost = 2.0 * m.P[1] + m.P[1] ** 2 + 3.0 * m.P[2] + 1.5 * m.P[2] ** 2
    worth = sum(m.worth[i] * m.demand[i] - 0.5 * m.slope[i] * m.demand[i] ** 2 for i in CONSUMERS)
    m.welfare = pyo.Objective(expr=worth - cost, sense=pyo.maximize)
    return m


def main() -> dict[str, torch.Tensor]:
    """Learn the sensitivities from eight days of consumption."""
    m = market()
    layer = al.ArgminLayer(m, parameters=[m.worth, m.slope], variables=[m.demand], solver="pyomo.ipopt")
    worth = 8.0 + 4.0 * torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        observed = layer(worth, TRUTH)

    logarithm = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logarithm], max_iter=30, line_search_fn="strong_wolfe", tolerance_grad=1e-12)
    optimiser.param_groups[0]["tolerance_change"] = 1e-15

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = (layer(worth, logarithm.exp()) - observed).square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    found = logarithm.exp().detach()

    solution = al.solve(layer.problem, worth, found, solver="pyomo.ipopt")
    # the first three equalities are the balances of active power, the others of reactive power, of which every unit
    # consumed takes 0.3
    balance = solution.multipliers.equality
    prices = balance[:, 1:3] + 0.3 * balance[:, 4:6]
    demand = solution.value[0]
    print(f"price sensitivities: true {TRUTH.tolist()}, learned {[round(v, 6) for v in found.tolist()]}")
    print(f"prices on the first day: {[round(v, 4) for v in prices[0].tolist()]}")
    print(f"worth of one unit more:  {[round(v, 4) for v in (worth - found * demand)[0].tolist()]}")
    return {"found": found, "prices": prices.detach(), "marginal worth": (worth - found * demand).detach()}


if __name__ == "__main__":
    main()
