"""Pyomo models read as problems: every kind of component, against closed forms and differences of re-solved models."""

import copy
import math
import pickle

import pyomo.dae as dae
import pyomo.environ as pyo
import pyomo.gdp as gdp
import pytest
import torch
from pyomo.core.expr.numeric_expr import MaxExpression, MinExpression

import argminlayer as al
from argminlayer.testing import central_differences

DOUBLE = {"dtype": torch.float64}


def tensor(*values):
    return torch.tensor(values, **DOUBLE)


def scalar(value):
    return torch.tensor(value, **DOUBLE)


def assert_gradient_is_that_of_resolved_models(layer, *parameters, atol=1e-6):
    """Compare the Jacobian of all that a layer returns with differences of solutions."""

    def flat(*values):
        found = layer(*values)
        return torch.cat([f.reshape(-1) for f in (found if isinstance(found, tuple) else (found,))])

    jacobians = torch.autograd.functional.jacobian(flat, parameters)
    for exact, difference in zip(jacobians, central_differences(flat, *parameters), strict=True):
        torch.testing.assert_close(exact, difference, rtol=1e-5, atol=atol)


def projection():
    """Return the projection of p onto the simplex of total s."""
    m = pyo.ConcreteModel()
    m.I = pyo.Set(initialize=["a", "b", "c"])
    m.p = pyo.Param(m.I, initialize={"a": 0.5, "b": 0.4, "c": -1.0}, mutable=True)
    m.s = pyo.Param(initialize=1.0, mutable=True)
    m.x = pyo.Var(m.I, domain=pyo.NonNegativeReals)
    m.total = pyo.Constraint(expr=sum(m.x[i] for i in m.I) == m.s)
    m.distance = pyo.Objective(expr=sum((m.x[i] - m.p[i]) ** 2 for i in m.I))
    return m


def test_a_projection_onto_the_simplex_and_its_gradient():
    m = projection()
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x])
    p, s = tensor(0.5, 0.4, -1.0).requires_grad_(), scalar(1.0).requires_grad_()
    x = layer(p, s)
    torch.testing.assert_close(x, tensor(0.55, 0.45, 0.0))
    x[0].backward()
    torch.testing.assert_close(p.grad, tensor(0.5, -0.5, 0.0))
    torch.testing.assert_close(s.grad, scalar(0.5))


@pytest.mark.parametrize("solver", ["scipy", "pyomo.ipopt", "pyomo.highs", "pyomo:highs"])
def test_a_batch_equals_its_elements_with_every_solver(solver):
    m = projection()
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x], solver=solver)
    p = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), **DOUBLE)
    together = layer(p, scalar(1.0))
    assert together.shape == (4, 3)
    for one, value in zip(p, together, strict=True):
        torch.testing.assert_close(layer(one, scalar(1.0)), value, rtol=0, atol=1e-7)


def test_without_a_choice_all_mutable_params_and_all_variables_are_taken_in_the_order_of_the_model():
    m = projection()
    layer = al.ArgminLayer(m)
    assert str(layer.problem.signature) == "(3),()->(3)"


def test_without_a_choice_references_and_deactivated_blocks_are_left_out():
    m = pyo.ConcreteModel()
    m.unit = pyo.Block([1, 2])
    for i in (1, 2):
        m.unit[i].y = pyo.Var(initialize=1.0)
    m.all = pyo.Reference(m.unit[:].y)
    m.p = pyo.Param(initialize=2.0, mutable=True)
    m.o = pyo.Objective(expr=sum((m.all[i] - i * m.p) ** 2 for i in (1, 2)))
    m.off = pyo.Block()
    m.off.n = pyo.Var(domain=pyo.Binary)
    m.off.c = pyo.Constraint(expr=m.off.n >= 2)
    m.off.deactivate()
    one, two = al.ArgminLayer(m)(scalar(3.0))
    assert [float(one), float(two)] == pytest.approx([3.0, 6.0])
    torch.testing.assert_close(al.ArgminLayer(m, variables=[m.all])(scalar(3.0)), tensor(3.0, 6.0))


def test_single_elements_may_be_parameters_and_variables():
    m = projection()
    layer = al.ArgminLayer(m, parameters=[m.p["b"]], variables=[m.x["b"], m.x["a"]])
    b, a = layer(scalar(0.4))
    assert b.shape == a.shape == ()
    torch.testing.assert_close(torch.stack([a, b]), tensor(0.55, 0.45))
    assert str(layer.problem.signature) == "()->(),(),(1)"


def test_params_that_are_not_asked_for_keep_their_values():
    m = projection()
    m.s = 2.0
    layer = al.ArgminLayer(m, parameters=[m.p], variables=[m.x])
    m.s = 7.0
    torch.testing.assert_close(layer(tensor(0.0, 0.0, 0.0)).sum(), scalar(2.0))


def test_the_model_is_not_modified():
    m = projection()
    m.x["a"].value = 0.125
    before = {id(data): (data.name, data.value) for data in m.component_data_objects((pyo.Var, pyo.Param))}
    components = [component.name for component in m.component_objects()]
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x])
    for solver in ("scipy", "pyomo.ipopt", "pyomo.highs"):
        layer(tensor(1.0, 2.0, 3.0), scalar(4.0), solver=solver)
    after = {id(data): (data.name, data.value) for data in m.component_data_objects((pyo.Var, pyo.Param))}
    assert after == before
    assert [component.name for component in m.component_objects()] == components


def everything():
    """Return a model with every kind of component that is supported."""
    m = pyo.ConcreteModel()
    m.I = pyo.RangeSet(1, 3)
    m.p = pyo.Param(m.I, initialize={1: 1.0, 2: 2.0, 3: 3.0}, mutable=True)
    m.q = pyo.Param(initialize=2.0, mutable=True)
    m.k = pyo.Param(initialize=0.5)
    m.x = pyo.Var(m.I, bounds=(-0.5, 10), initialize=1.0)
    m.y = pyo.Var(bounds=(0.1 * m.q, None))
    m.z = pyo.Var()
    m.held = pyo.Var(initialize=3.0)
    m.held.fix()
    m.weighted = pyo.Expression(expr=sum(m.x[i] * m.p[i] for i in m.I))
    m.balance = pyo.Constraint(expr=m.weighted == m.q + m.y)
    m.range = pyo.Constraint(expr=(0.5, m.x[1] + m.x[2] ** 2, 3 * m.q))
    m.from_below = pyo.Constraint(expr=pyo.exp(m.z) >= m.held)
    m.from_above = pyo.Constraint(expr=m.x[1] <= m.q * m.x[2] + 5)
    m.off = pyo.Constraint(expr=m.x[1] >= 100)
    m.off.deactivate()
    m.several = pyo.ConstraintList()
    m.several.add(m.z <= 4)
    m.several.add(m.x[3] >= -0.25 * m.q)

    @m.Block([1, 2])
    def unit(b, i):
        b.w = pyo.Var(initialize=1.0)
        b.law = pyo.Constraint(expr=b.w * (1 + m.x[i] ** 2) == m.q)

    m.idle = pyo.Objective(expr=m.x[1])
    m.idle.deactivate()
    m.gain = pyo.Objective(
        expr=-((m.x[1] - 1) ** 2) - m.x[2] ** 2 - pyo.sqrt(1 + m.x[3] ** 2) - m.y**2 - m.k * m.z**2
        + m.q * pyo.log(m.x[3] + 2) - sum(m.unit[i].w ** 2 for i in (1, 2)),
        sense=pyo.maximize,
    )  # fmt: skip
    return m


@pytest.mark.parametrize("solver", ["scipy", "pyomo.ipopt"])
def test_all_kinds_of_components_together_solve_to_what_pyomo_evaluates_and_differentiate(solver):
    m = everything()
    chosen = [m.x, m.y, m.unit[2].w]
    layer = al.ArgminLayer(m, parameters=[m.p, m.q], variables=chosen, solver=solver)
    p, q = tensor(1.0, 2.0, 3.0), scalar(2.0)
    solution = al.solve(layer.problem, p, q, solver=solver)
    values = torch.cat([v.reshape(-1) for v in solution.value[:3]])
    elements = [*m.x.values(), m.y, m.unit[2].w]
    for element, value in zip(elements, values.tolist(), strict=True):
        element.value = value
    m.z.value, m.unit[1].w.value = math.log(3.0), 2.0 / (1.0 + m.x[1].value ** 2)
    assert pyo.value(m.gain) == pytest.approx(float(solution.objective), rel=1e-9)
    assert max(abs(pyo.value(c.body) - pyo.value(c.upper)) for c in (m.balance, m.unit[2].law)) < 1e-9
    assert 0.5 - 1e-9 <= pyo.value(m.range.body) <= 6.0
    assert_gradient_is_that_of_resolved_models(layer, p, q)


def test_bounds_that_depend_on_params_move_with_them():
    m = pyo.ConcreteModel()
    m.low, m.high = pyo.Param(initialize=1.0, mutable=True), pyo.Param(initialize=2.0, mutable=True)
    m.x = pyo.Var([0, 1], bounds=(m.low, m.high))
    m.cost = pyo.Objective(expr=m.x[0] - m.x[1])
    m.weight = pyo.Constraint(expr=m.x[0] + m.x[1] <= 100)
    layer = al.ArgminLayer(m, parameters=[m.low, m.high], variables=[m.x])
    low, high = scalar(-3.0).requires_grad_(), scalar(5.0).requires_grad_()
    x = layer(low, high)
    torch.testing.assert_close(x, tensor(-3.0, 5.0))
    x.sum().backward()
    assert (float(low.grad), float(high.grad)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("body", "derivative"),
    [
        (lambda x, p: pyo.sin(p) * x, lambda p: math.cos(p)),
        (lambda x, p: pyo.exp(p * 0.1) * x, lambda p: 0.1 * math.exp(0.1 * p)),
        (lambda x, p: x / p, lambda p: -1 / p**2),
        (lambda x, p: x * p**3, lambda p: 3 * p**2),
        (lambda x, p: x * 2**p, lambda p: math.log(2) * 2**p),
        (lambda x, p: x * p**p, lambda p: p**p * (math.log(p) + 1)),
        (lambda x, p: x * abs(-p), lambda p: 1.0),
        (lambda x, p: x * pyo.atan(p), lambda p: 1 / (1 + p * p)),
        (lambda x, p: x * pyo.log10(p), lambda p: 1 / (p * math.log(10))),
        (lambda x, p: x * pyo.tanh(p), lambda p: 1 - math.tanh(p) ** 2),
        (lambda x, p: x * pyo.acosh(p), lambda p: 1 / math.sqrt(p * p - 1)),
        (lambda x, p: x * pyo.sqrt(p), lambda p: 0.5 / math.sqrt(p)),
        (lambda x, p: pyo.Expr_if(p >= 1, x * p, -x), lambda p: 1.0),
        (lambda x, p: pyo.Expr_if(pyo.inequality(5, p, 6), -x, x * p), lambda p: 1.0),
    ],
)
@pytest.mark.parametrize("solver", ["scipy", "pyomo.ipopt"])
def test_intrinsic_functions_of_params(body, derivative, solver):
    # x = body(1, p) by a linear equality, so that dx/dp is the derivative of the function itself
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=1.3, mutable=True)
    m.x, m.one = pyo.Var(), pyo.Var(initialize=1.0)
    m.c = pyo.Constraint(expr=m.x == body(m.one, m.p))
    m.unit = pyo.Constraint(expr=m.one == 1)
    m.o = pyo.Objective(expr=m.x**2)
    p = scalar(1.7).requires_grad_()
    x = al.ArgminLayer(m, parameters=[m.p], variables=[m.x], solver=solver)(p)
    m.p, m.one.value = 1.7, 1.0
    assert float(x.detach()) == pytest.approx(pyo.value(body(m.one, m.p)), rel=1e-9)
    x.backward()
    assert float(p.grad) == pytest.approx(derivative(1.7), rel=1e-7)


@pytest.mark.parametrize(
    "function",
    "exp log log10 sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sqrt".split(),
)
def test_intrinsic_functions_of_variables_have_their_inverse_as_solution(function):
    m = pyo.ConcreteModel()
    m.target = pyo.Param(mutable=True, initialize=0.0)
    m.x = pyo.Var(bounds=(1.001, 1.4) if function == "acosh" else (0.05, 0.95), initialize=1.2)
    m.law = pyo.Constraint(expr=getattr(pyo, function)(m.x) == m.target)
    known = 1.2 if function == "acosh" else 0.6
    target = scalar(getattr(math, function)(known))
    for solver in ("scipy", "pyomo.ipopt"):
        layer = al.ArgminLayer(m, parameters=[m.target], variables=[m.x], solver=solver)
        assert float(layer(target)) == pytest.approx(known, rel=1e-8)
        assert_gradient_is_that_of_resolved_models(layer, target)


def test_a_bound_and_a_domain_that_both_hold():
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=3.0, mutable=True)
    m.x = pyo.Var(initialize=0.5)
    m.c = pyo.Constraint(expr=m.x <= m.p)
    m.y = pyo.Var(bounds=(m.p, None), domain=pyo.NonNegativeReals)
    m.o = pyo.Objective(expr=(m.x - 1) ** 2 + m.y)
    layer = al.ArgminLayer(m, parameters=[m.p], variables=[m.x, m.y])
    # a bound on a nonnegative variable is the greater of the two
    assert [float(v) for v in layer(scalar(2.0))] == pytest.approx([1.0, 2.0])
    assert [float(v) for v in layer(scalar(-4.0))] == pytest.approx([-4.0, 0.0], abs=1e-9)


def test_indexed_sets_of_several_dimensions_are_vectors_in_the_order_of_their_index():
    m = pyo.ConcreteModel()
    m.I, m.J = pyo.RangeSet(2), pyo.RangeSet(3)
    m.c = pyo.Param(m.I, m.J, initialize=lambda m, i, j: 10 * i + j, mutable=True)
    m.x = pyo.Var(m.I, m.J)
    m.o = pyo.Objective(expr=sum((m.x[i, j] - m.c[i, j]) ** 2 for i in m.I for j in m.J))
    layer = al.ArgminLayer(m, parameters=[m.c], variables=[m.x])
    values = tensor(*(float(pyo.value(c)) for c in m.c.values()))
    torch.testing.assert_close(layer(values), tensor(11, 12, 13, 21, 22, 23))


def test_a_fixed_variable_may_be_a_parameter():
    m = projection()
    m.x["c"].fix(0.3)
    layer = al.ArgminLayer(m, parameters=[m.x["c"]], variables=[m.x["a"], m.x["b"]])
    for solver in ("scipy", "pyomo.ipopt", "pyomo.highs"):
        a, b = layer(scalar(0.5), solver=solver)
        assert (float(a), float(b)) == pytest.approx((0.3, 0.2), abs=1e-8)


def test_variables_that_are_fixed_or_that_nothing_uses_keep_their_values_and_have_no_gradient():
    m = projection()
    m.x["c"].fix(0.3)
    m.spare = pyo.Var([1, 2], initialize=7.0, bounds=(0, None))
    layer = al.ArgminLayer(m, parameters=[m.s], variables=[m.x, m.spare])
    s = scalar(1.0).requires_grad_()
    for solver in ("scipy", "pyomo.ipopt", "pyomo.highs"):
        x, spare = layer(s, solver=solver)
        torch.testing.assert_close(x, tensor(0.4, 0.3, 0.3))
        torch.testing.assert_close(spare, tensor(7.0, 7.0))
    (gradient,) = torch.autograd.grad(x[2] + spare.sum(), s)
    assert float(gradient) == 0.0


def test_a_model_without_objective_or_with_a_constant_one_is_a_feasibility_problem():
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=2.0, mutable=True)
    m.x = pyo.Var(initialize=1.0, bounds=(0, None))
    m.c = pyo.Constraint(expr=m.x**2 == m.p)
    without = al.ArgminLayer(m, parameters=[m.p], variables=[m.x])
    m.o = pyo.Objective(expr=m.p)
    constant = al.ArgminLayer(m, parameters=[m.p], variables=[m.x])
    for layer in (without, constant):
        assert layer.problem.objective is None
        p = scalar(9.0).requires_grad_()
        x = layer(p, solver="pyomo.ipopt")
        x.backward()
        assert (float(x.detach()), float(p.grad)) == pytest.approx((3.0, 1.0 / 6.0))


def test_a_discretised_differential_equation_is_read():
    m = pyo.ConcreteModel()
    m.t = dae.ContinuousSet(bounds=(0, 1))
    m.rate = pyo.Param(initialize=1.0, mutable=True)
    m.x = pyo.Var(m.t, initialize=1.0)
    m.dx = dae.DerivativeVar(m.x, wrt=m.t)
    m.law = pyo.Constraint(m.t, rule=lambda m, t: m.dx[t] == -m.rate * m.x[t])
    m.first = pyo.Constraint(expr=m.x[0] == 1)
    m.o = pyo.Objective(expr=m.x[1])
    with pytest.raises(al.ProblemError, match=r"the component t is a ContinuousSet, which is not supported: apply"):
        al.ArgminLayer(m, parameters=[m.rate], variables=[m.x[1]])
    pyo.TransformationFactory("dae.collocation").apply_to(m, nfe=4, ncp=3, scheme="LAGRANGE-RADAU")
    layer = al.ArgminLayer(m, parameters=[m.rate], variables=[m.x[1]], solver="pyomo.ipopt")
    rate = scalar(0.7).requires_grad_()
    value = layer(rate)
    value.backward()
    assert (float(value.detach()), float(rate.grad)) == pytest.approx((math.exp(-0.7), -math.exp(-0.7)), rel=1e-5)


def test_named_expressions_that_double_at_every_step_are_translated_once():
    m = pyo.ConcreteModel()
    m.a = pyo.Param(initialize=0.5, mutable=True)
    m.u = pyo.Var(initialize=0.1)
    m.state = pyo.Expression(pyo.RangeSet(0, 60))
    m.state[0] = m.u
    for k in range(60):
        m.state[k + 1] = m.a * m.state[k] + 0.1 * pyo.sin(m.state[k])
    m.o = pyo.Objective(expr=(m.state[60] - 0.0) ** 2 + (m.u - 1) ** 2)
    layer = al.ArgminLayer(m, parameters=[m.a], variables=[m.u])
    assert_gradient_is_that_of_resolved_models(layer, scalar(0.8))


def test_a_layer_of_a_model_can_be_copied_and_pickled_also_when_rules_are_lambdas():
    m = projection()
    m.y = pyo.Var([1, 2], bounds=lambda m, i: (0, i), initialize=lambda m, i: 0.5)
    m.c = pyo.Constraint([1, 2], rule=lambda m, i: m.y[i] >= m.s * i)
    m.free = pyo.Param(m.I, default=lambda m, i: 1.0, mutable=True)
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x])
    p, s = tensor(0.5, 0.4, -1.0), scalar(0.5)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for solver in ("pyomo.ipopt", "pyomo:pounce"):
            torch.testing.assert_close(twin(p, s, solver=solver), layer(p, s, solver=solver))


def with_component(name, make):
    def build():
        m = projection()
        m.add_component(name, make(m))
        return m

    return build


def integer():
    m = projection()
    m.n = pyo.Var(domain=pyo.Integers, initialize=1)
    m.use = pyo.Constraint(expr=m.n <= m.s)
    return m


def two_objectives():
    m = projection()
    m.second = pyo.Objective(expr=m.x["a"])
    return m


def logical():
    m = projection()
    m.flag = pyo.BooleanVar()
    m.rule = pyo.LogicalConstraint(expr=m.flag)
    return m


def disjunctive():
    m = projection()
    m.either = gdp.Disjunction(expr=[[m.x["a"] >= 1], [m.x["b"] >= 1]])
    return m


def external():
    m = projection()
    m.f = pyo.ExternalFunction(lambda x: x**2)
    m.c = pyo.Constraint(expr=m.f(m.x["a"]) <= 1)
    return m


def violated():
    m = projection()
    m.held = pyo.Var(initialize=3.0)
    m.held.fix()
    m.c = pyo.Constraint(expr=m.held <= 1)
    return m


def between_parameters():
    m = projection()
    m.c = pyo.Constraint(expr=m.p["a"] + m.p["b"] == 1)
    return m


def without_value():
    m = projection()
    m.q = pyo.Param(mutable=True)
    m.c = pyo.Constraint(expr=m.x["a"] <= m.q)
    return m


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (integer, r"the variable n is in the domain Integers: integer variables have no derivative"),
        (two_objectives, r"the model has 2 active objectives \(distance, second\)"),
        (
            with_component("sos", lambda m: pyo.SOSConstraint(var=m.x, sos=1)),
            r"the component sos is a SOSConstraint, which is not supported: special ordered sets",
        ),
        (logical, r"the component flag is a BooleanVar, which is not supported: logic has no derivative"),
        (disjunctive, r"the component either is a Disjunction, which is not supported"),
        (external, r"the constraint c contains ExternalFunctionExpression .*which cannot be translated"),
        (between_parameters, r"the constraint c is an equation between parameters alone; it leaves them no freedom"),
        (violated, r"the constraint c has no variable that is not fixed, and is violated by 2"),
        (without_value, r"q has no value; give it one before the model is read"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(build, message):
    m = build()
    with pytest.raises(al.ProblemError, match=message):
        al.ArgminLayer(m, parameters=[m.p], variables=[m.x])


def test_integer_variables_that_are_fixed_are_constants():
    m = integer()
    m.n.fix(1)
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x])
    torch.testing.assert_close(layer(tensor(0.0, 0.0, 0.0), scalar(3.0)), tensor(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda m, other: ([m.x], [m.x]), r"x\[a\] in parameters is a variable that is not fixed; fix it"),
        (lambda m, other: ([m.k], [m.x]), r"k in parameters is not mutable; declare it with Param"),
        (lambda m, other: ([m.p], [m.p]), r"p\[a\] in variables is a Param, not a Var"),
        (lambda m, other: ([m.total], [m.x]), r"total in parameters is a Constraint, not a Param"),
        (lambda m, other: ([m.p], [m.x, m.x["a"]]), r"x\[a\] is in variables twice"),
        (lambda m, other: ([other.p], [m.x]), r"p in parameters is not a component of the model 'unknown'"),
        (lambda m, other: (m.p, [m.x]), r"parameters must be a list of components such as \[model.x\], not"),
        (lambda m, other: (["p"], [m.x]), r"parameters holds 'p'; list components of the model"),
        (lambda m, other: ([m.p], [m.spare]), r"spare has no value; nothing active uses it, so that it needs one"),
    ],
)
def test_a_choice_of_components_that_is_not_possible_is_refused(choose, message):
    m, other = projection(), projection()
    m.k = pyo.Param(initialize=1.0)
    m.spare = pyo.Var()
    parameters, variables = choose(m, other)
    with pytest.raises(al.ProblemError, match=message):
        al.ArgminLayer(m, parameters=parameters, variables=variables)


@pytest.fixture
def without_signs(monkeypatch):
    """Let the translation forget the sign of negated expressions."""
    import pyomo.core.expr as ex

    from argminlayer_pyomo import _translate

    wrong = {**_translate._RULES, ex.NegationExpression: lambda recorder, node, data: data[0]}
    monkeypatch.setattr(_translate, "_RULES", wrong)
    _translate._rule.cache_clear()
    yield
    _translate._rule.cache_clear()


@pytest.mark.usefixtures("without_signs")
def test_a_wrong_translation_is_found_before_anything_is_solved():
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=2.0, mutable=True)
    m.x = pyo.Var(initialize=1.0)
    m.o = pyo.Objective(expr=m.x**2)
    m.c = pyo.Constraint(expr=-(m.x**3) <= m.p)
    with pytest.raises(al.ProblemError, match=r"^c has the value -3.0 in Pyomo, but -1.0 in its translation"):
        al.ArgminLayer(m, parameters=[m.p], variables=[m.x])


def test_an_abstract_model_is_refused_with_what_to_do():
    with pytest.raises(al.ProblemError, match=r"pass a pyomo.environ.ConcreteModel \(an AbstractModel becomes one by"):
        al.ArgminLayer(pyo.AbstractModel(), parameters=[], variables=[])


def test_an_object_of_another_library_is_left_to_other_plugins():
    with pytest.raises(al.ProblemError, match="no installed plugin"):
        al.ArgminLayer(object(), parameters=[], variables=[])


def test_conditions_on_parameters_alone_decide_whether_there_is_a_solution():
    m = projection()
    m.positive = pyo.Constraint(expr=m.s >= 0)
    layer = al.ArgminLayer(m, parameters=[m.p, m.s], variables=[m.x], throw=False)
    s = tensor(1.0, -1.0)
    solution = al.solve(layer.problem, tensor(0.5, 0.4, -1.0), s, throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.INFEASIBLE]


def test_least_and_greatest_in_expressions():
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=1.0, mutable=True)
    m.x = pyo.Var(bounds=(m.p, None), domain=pyo.NonNegativeReals, initialize=3.0)
    m.least = pyo.Expression(expr=MinExpression((m.x, m.p, 2)))
    m.greatest = pyo.Expression(expr=MaxExpression((m.x, -m.p)))
    m.o = pyo.Objective(expr=(m.greatest + m.least - 8 * m.p) ** 2)
    for solver in ("scipy", "pyomo.ipopt"):
        layer = al.ArgminLayer(m, parameters=[m.p], variables=[m.x], solver=solver)
        # greatest = x, least = min(p, 2)
        torch.testing.assert_close(layer(tensor(1.0, 3.0)), tensor(7.0, 22.0))
        assert_gradient_is_that_of_resolved_models(layer, scalar(1.5))


def van_der_pol(steps):
    """Return an optimal control problem with ``3 steps + 2`` variables, whose Hessian has zeros on its diagonal."""
    m = pyo.ConcreteModel()
    m.k, m.kk = pyo.RangeSet(0, steps - 1), pyo.RangeSet(0, steps)
    m.mu = pyo.Param(initialize=1.0, mutable=True)
    m.first = pyo.Param([0, 1], initialize={0: 1.0, 1: 0.0}, mutable=True)
    m.x, m.v = pyo.Var(m.kk, initialize=0.1), pyo.Var(m.kk, initialize=0.0)
    m.u = pyo.Var(m.k, bounds=(-1, 1), initialize=0.0)
    h = 10 / steps
    m.position = pyo.Constraint(m.k, rule=lambda m, k: m.x[k + 1] == m.x[k] + h * m.v[k])
    m.speed = pyo.Constraint(
        m.k, rule=lambda m, k: m.v[k + 1] == m.v[k] + h * (m.mu * (1 - m.x[k] ** 2) * m.v[k] - m.x[k] + m.u[k])
    )
    m.start = pyo.Constraint([0, 1], rule=lambda m, i: (m.x, m.v)[i][0] == m.first[i])
    m.cost = pyo.Objective(expr=sum(h * (m.x[k] ** 2 + m.v[k] ** 2 + m.u[k] ** 2) for k in m.k))
    return m


def test_a_large_sparse_model_is_solved_certified_and_differentiated():
    m = van_der_pol(400)
    layer = al.ArgminLayer(m, parameters=[m.mu, m.first], variables=[m.x, m.u], solver="pyomo.ipopt")
    program = layer.problem.equality.program
    assert program.size == 802
    assert len(program.steps) < 10, "equal expressions are evaluated together"
    mu, first = scalar(1.0).requires_grad_(), tensor(1.0, 0.0).requires_grad_()

    def cost(mu, first):
        x, u = layer(mu, first)
        return x[100] + u.square().sum()

    gradient = torch.autograd.grad(cost(mu, first), (mu, first))
    step = 1e-4
    plus, minus = (float(cost(mu.detach() + s, first.detach())) for s in (step, -step))
    assert float(gradient[0]) == pytest.approx((plus - minus) / (2 * step), rel=1e-6)
