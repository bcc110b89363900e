"""Pyomo models as layers, beside CasADi by hand and beside Pyomo by itself.

    python benchmarks/pyomo_models.py [--steps 1667]

A control problem of the van der Pol oscillator with 3 steps + 2 variables: how long it takes to read the model once, to
compile it once, to solve it again for other parameters, to certify the solution and to differentiate it. Beside it: the
same nonlinear program written by hand for CasADi, and a solve of the model by Pyomo through an executable, which writes
the model anew every time. Then a batch of 128 small problems written in torch, through Pyomo's models.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import casadi
import numpy as np
import pyomo.environ as pyo
import torch

import argminlayer as al
from argminlayer_pyomo import Ipopt

HORIZON = 10.0


def model(steps: int) -> pyo.ConcreteModel:
    """Return the control problem as a Pyomo model."""
    m = pyo.ConcreteModel()
    m.k, m.states = pyo.RangeSet(0, steps - 1), pyo.RangeSet(0, steps)
    m.mu = pyo.Param(initialize=1.0, mutable=True)
    m.first = pyo.Param([0, 1], initialize={0: 1.0, 1: 0.0}, mutable=True)
    m.x, m.v = pyo.Var(m.states, initialize=0.1), pyo.Var(m.states, initialize=0.0)
    m.u = pyo.Var(m.k, bounds=(-1, 1), initialize=0.0)
    h = HORIZON / steps
    m.position = pyo.Constraint(m.k, rule=lambda m, k: m.x[k + 1] == m.x[k] + h * m.v[k])
    m.speed = pyo.Constraint(
        m.k, rule=lambda m, k: m.v[k + 1] == m.v[k] + h * (m.mu * (1 - m.x[k] ** 2) * m.v[k] - m.x[k] + m.u[k])
    )
    m.start = pyo.Constraint([0, 1], rule=lambda m, i: (m.x, m.v)[i][0] == m.first[i])
    m.cost = pyo.Objective(expr=sum(h * (m.x[k] ** 2 + m.v[k] ** 2 + m.u[k] ** 2) for k in m.k))
    return m


def by_hand(steps: int) -> Callable[[float], Any]:
    """Return a solve of the same program, written for CasADi with vectors."""
    h = HORIZON / steps
    x, v, u, mu = (
        casadi.MX.sym(name, size) for name, size in zip("xvum", (steps + 1, steps + 1, steps, 1), strict=True)
    )
    rows = [
        x[1:] - x[:-1] - h * v[:-1],
        v[1:] - v[:-1] - h * (mu * (1 - x[:-1] ** 2) * v[:-1] - x[:-1] + u),
        x[0] - 1.0,
        v[0],
    ]
    cost = h * (casadi.sumsqr(x[:-1]) + casadi.sumsqr(v[:-1]) + casadi.sumsqr(u))
    program = {"x": casadi.vertcat(x, v, u), "p": mu, "f": cost, "g": casadi.vertcat(*rows)}
    options = {"ipopt": {"print_level": 0, "sb": "yes", "tol": 1e-8}, "print_time": False}
    function = casadi.nlpsol("by_hand", "ipopt", program, options)
    free = np.full(2 * steps + 2, np.inf)
    limit = np.r_[free, np.ones(steps)]
    begin = np.r_[np.full(steps + 1, 0.1), np.zeros(2 * steps + 1)]
    return lambda p: function(x0=begin, p=p, lbg=0, ubg=0, lbx=-limit, ubx=limit)


def seconds(call: Callable[[], Any], repeat: int = 5) -> float:
    """Return the best of several runs."""
    best = np.inf
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def large(steps: int) -> None:
    """Time the control problem."""
    m = model(steps)
    al.ArgminLayer(model(10))  # imports
    began = time.perf_counter()
    layer = al.ArgminLayer(m, parameters=[m.mu, m.first], variables=[m.x, m.u], solver="pyomo.ipopt")
    print(f"control problem, {3 * steps + 2} variables")
    print(f"  read the model                        {1e3 * (time.perf_counter() - began):8.1f} ms, once")
    mu, first = torch.tensor(1.0, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    inputs = (mu.requires_grad_(), first.requires_grad_())
    began = time.perf_counter()
    x, u = layer(*inputs)
    print(f"  first forward (compiles, finds sparsity) {1e3 * (time.perf_counter() - began):5.0f} ms, once")

    raw: list[float] = []

    class Timed(Ipopt):
        def solve(self, problem: al.BoundProblem, start: torch.Tensor) -> al.Candidate:
            began = time.perf_counter()
            found = super().solve(problem, start)
            raw.append(time.perf_counter() - began)
            return found

    timed = Timed()
    layer(*inputs, solver=timed)
    forward = seconds(lambda: layer(*inputs, solver=timed))
    solve = min(raw[1:])
    hand = by_hand(steps)
    hand(1.0)
    handwritten = seconds(lambda: hand(1.0))
    loss = x[steps // 4] + u.square().sum()
    backward = seconds(lambda: torch.autograd.grad(loss, inputs, retain_graph=True))
    print(f"  solve again by IPOPT                  {1e3 * solve:8.1f} ms")
    print(f"  the same by hand in CasADi            {1e3 * handwritten:8.1f} ms, ratio {solve / handwritten:.2f}")
    print(f"  forward: solve, certify, refine       {1e3 * forward:8.1f} ms")
    print(f"  backward                              {1e3 * backward:8.1f} ms")
    executable = Ipopt(route="pounce")
    if executable.available():
        native = seconds(lambda: layer(*inputs, solver=executable), repeat=2)
        print(f"  forward through an executable         {1e3 * native:8.1f} ms")


def batch(size: int = 128) -> None:
    """Time a batch of small problems written in torch."""
    problem = al.Problem(
        lambda u, x: (u - x).square().sum() + torch.logsumexp(u, 0),
        "(n)->(n)",
        equality=lambda u, x: u.sum() - 1,
        inequality=lambda u, x: torch.stack([u.square().sum() - 4, (u * u[0]).sum() - 2]),
    )
    x = torch.randn(size, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    print(f"batch of {size} problems in torch, 10 variables")
    for solver, instances in (("pyomo.ipopt", size), ("casadi.ipopt", size), ("pyomo:pounce", 8)):
        given = x[:instances]
        al.argmin(problem, given[:1], solver=solver)
        spent = seconds(lambda s=solver, g=given: al.solve(problem, g, solver=s), repeat=3) * size / instances
        note = "" if instances == size else f", from {instances}"
        print(f"  {solver:<13} {1e3 * spent:8.0f} ms with certificates{note}")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1667)
    torch.set_num_threads(1)
    large(parser.parse_args().steps)
    batch()


if __name__ == "__main__":
    main()
