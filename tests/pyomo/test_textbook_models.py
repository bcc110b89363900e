"""Textbook models read in: known optima, and derivatives against Pyomo itself solving the model for moved parameters.

Hock and Schittkowski, *Test Examples for Nonlinear Programming Codes*, 1981, by number.
"""

import math

import pyomo.environ as pyo
import pytest
import torch

import argminlayer as al
from argminlayer_pyomo._solvers import executable_of


def hs71():
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 25.0, 2: 40.0}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(4), bounds=(1, 5), initialize={1: 1, 2: 5, 3: 5, 4: 1})
    x = m.x
    m.product = pyo.Constraint(expr=x[1] * x[2] * x[3] * x[4] >= m.p[1])
    m.squares = pyo.Constraint(expr=sum(x[i] ** 2 for i in x) == m.p[2])
    m.o = pyo.Objective(expr=x[1] * x[4] * (x[1] + x[2] + x[3]) + x[3])
    return m, 17.0140173


def hs35():
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 3.0, 2: 9.0}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(3), domain=pyo.NonNegativeReals, initialize=0.5)
    x = m.x
    m.c = pyo.Constraint(expr=x[1] + x[2] + 2 * x[3] <= m.p[1])
    m.o = pyo.Objective(
        expr=m.p[2] - 8 * x[1] - 6 * x[2] - 4 * x[3] + 2 * x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2
        + 2 * x[1] * x[2] + 2 * x[1] * x[3]
    )  # fmt: skip
    return m, 1 / 9


def hs39():
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 1.0, 2: 0.1}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(4), initialize=2.0)
    x = m.x
    m.c = pyo.Constraint(expr=x[2] - m.p[1] * x[1] ** 3 - x[3] ** 2 - 1e-3 * m.p[2] == 0)
    m.d = pyo.Constraint(expr=x[1] ** 2 - x[2] - x[4] ** 2 - 0.5 * m.p[2] == -0.05)
    m.o = pyo.Objective(expr=-x[1] + 0.1 * x[3] ** 2 + 0.1 * x[4] ** 2)
    return m, None


def hs65():
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 48.0, 2: 5.0}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(3), initialize={1: -5.0, 2: 5.0, 3: 0.0})
    x = m.x
    for i, limit in ((1, 4.5), (2, 4.5), (3, 5.0)):
        x[i].setlb(-limit)
        x[i].setub(limit)
    m.ball = pyo.Constraint(expr=m.p[1] - sum(x[i] ** 2 for i in x) >= 0)
    m.o = pyo.Objective(expr=(x[1] - x[2]) ** 2 + (x[1] + x[2] - 10) ** 2 / 9 + (x[3] - m.p[2]) ** 2)
    return m, 0.9535288567


def hs100():
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 127.0, 2: 196.0}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(7), initialize=dict(enumerate([1, 2, 0, 4, 0, 1, 1], start=1)))
    a, b, c, d, e, f, g = m.x.values()
    m.first = pyo.Constraint(expr=m.p[1] - 2 * a**2 - 3 * b**4 - c - 4 * d**2 - 5 * e >= 0)
    m.second = pyo.Constraint(expr=282 - 7 * a - 3 * b - 10 * c**2 - d + e >= 0)
    m.third = pyo.Constraint(expr=m.p[2] - 23 * a - b**2 - 6 * f**2 + 8 * g >= 0)
    m.fourth = pyo.Constraint(expr=-4 * a**2 - b**2 + 3 * a * b - 2 * c**2 - 5 * f + 11 * g >= 0)
    m.o = pyo.Objective(
        expr=(a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2 + 10 * e**6 + 7 * f**2 + g**4
        - 4 * f * g - 10 * f - 8 * g
    )  # fmt: skip
    return m, 680.6300573


def hs112():
    """Chemical equilibrium: the free energy of ten species with three elements, one of them a sum."""
    energy = [-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.1, -10.708, -26.662, -22.179]
    m = pyo.ConcreteModel()
    m.p = pyo.Param([1, 2], initialize={1: 2.0, 2: 1.0}, mutable=True)
    m.x = pyo.Var(pyo.RangeSet(10), bounds=(1e-6, None), initialize=0.1)
    x = m.x
    m.total = pyo.Expression(expr=sum(x.values()))
    m.h = pyo.Constraint(expr=x[1] + 2 * x[2] + 2 * x[3] + x[6] + x[10] == m.p[1])
    m.n = pyo.Constraint(expr=x[4] + 2 * x[5] + x[6] + x[7] == m.p[2])
    m.oxygen = pyo.Constraint(expr=x[3] + x[7] + x[8] + 2 * x[9] + x[10] == 1)
    m.o = pyo.Objective(expr=sum(x[i] * (energy[i - 1] + pyo.log(x[i] / m.total)) for i in x))
    return m, -47.76109


def network():
    """Flow through a network of pipes: a nonlinear resistance on every arc, and the flow of least energy."""
    arcs = [("s", "a"), ("s", "b"), ("a", "b"), ("a", "t"), ("b", "t")]
    m = pyo.ConcreteModel()
    m.nodes, m.arcs = pyo.Set(initialize=["s", "a", "b", "t"]), pyo.Set(initialize=arcs, dimen=2)
    m.p = pyo.Param([1, 2], initialize={1: 2.0, 2: 1.5}, mutable=True)
    m.x = pyo.Var(m.arcs, bounds=(0, None), initialize=0.5)
    supply = {"s": m.p[1], "t": -m.p[1]}

    @m.Constraint(m.nodes)
    def balance(m, node):
        out = sum(m.x[a] for a in m.arcs if a[0] == node)
        into = sum(m.x[a] for a in m.arcs if a[1] == node)
        return out - into == supply.get(node, 0)

    m.o = pyo.Objective(expr=sum((1 + 0.3 * k) * (m.x[a] + 0.1) ** (1 + m.p[2]) for k, a in enumerate(m.arcs)))
    return m, None


MODELS = [hs71, hs35, hs39, hs65, hs100, hs112, network]


def solved_by_pyomo(build, values):
    """Return the variables, solved by Pyomo itself for these parameters."""
    m, _ = build()
    for element, value in zip(m.p.values(), values, strict=True):
        element.value = value
    options = {"tol": 1e-12, "print_level": 0}
    pyo.SolverFactory("ipopt", executable=executable_of("pounce")).solve(m, options=options)
    return torch.tensor([v.value for v in m.x.values()], dtype=torch.float64)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("solver", ["pyomo.ipopt", "auto"])
def test_a_textbook_model_has_its_optimum_and_the_derivative_of_models_solved_by_pyomo(build, solver):
    m, optimum = build()
    problem = al.ArgminLayer(m, parameters=[m.p], variables=[m.x]).problem
    p = torch.tensor([v.value for v in m.p.values()], dtype=torch.float64)
    solution = al.solve(problem, p, solver=solver)
    if optimum is not None:
        assert float(solution.objective) == pytest.approx(optimum, rel=1e-6)
    torch.testing.assert_close(solution.value, solved_by_pyomo(build, p.tolist()), rtol=1e-4, atol=1e-5)
    if solver == "auto":
        return
    jacobian = torch.autograd.functional.jacobian(lambda p: al.argmin(problem, p, solver=solver), p)
    for column in range(2):
        step = 1e-3 * (1 + abs(float(p[column])))
        moved = [p.clone(), p.clone()]
        moved[0][column] += step
        moved[1][column] -= step
        ahead, behind = (solved_by_pyomo(build, q.tolist()) for q in moved)
        torch.testing.assert_close(jacobian[:, column], (ahead - behind) / (2 * step), rtol=2e-3, atol=2e-4)


def test_the_multipliers_of_hs71_are_those_in_the_manual_of_ipopt():
    m, _ = hs71()
    problem = al.ArgminLayer(m, parameters=[m.p], variables=[m.x]).problem
    solution = al.solve(problem, torch.tensor([25.0, 40.0], dtype=torch.float64), solver="pyomo.ipopt")
    assert float(solution.multipliers.inequality) == pytest.approx(0.55229366, rel=1e-6)
    assert abs(float(solution.multipliers.equality)) == pytest.approx(0.16146857, rel=1e-6)
    assert float(solution.multipliers.lower[0]) == pytest.approx(1.08787121, rel=1e-6)
    assert math.isclose(float(solution.objective), 17.0140171, rel_tol=1e-7)
