"""Torch problems as Pyomo models: values of every user function, shared values, bounds, batches, refusals."""

import pyomo.environ as pyo
import pytest
import torch

import argminlayer as al
from argminlayer import algebra
from argminlayer._bound import bind
from argminlayer.testing import USER_FUNCTIONS
from argminlayer_pyomo import _write
from argminlayer_pyomo._arithmetic import CasadiArithmetic, TorchArithmetic

DOUBLE = {"dtype": torch.float64}
NOT_IN_PYOMO = ("erf(", "erfc(", "gelu(u)", "atan2(")


def points(seed):
    return 0.1 + 0.8 * torch.rand(6, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def flat(result):
    parts = result if isinstance(result, tuple | list) else (result,)
    return torch.cat([part.to(torch.float64).reshape(-1) for part in parts])


@pytest.mark.parametrize("user", USER_FUNCTIONS, ids=lambda user: user.code)
def test_a_user_function_has_the_values_of_torch_in_pyomo_and_in_casadi_or_is_refused_by_name(user):
    import casadi

    parameters, z = points(3), points(4)
    (recorded,) = algebra.record(bind(user.problem, (parameters,)))
    if any(name in user.code for name in NOT_IN_PYOMO):
        with pytest.raises(al.AlgebraError, match="which this modelling language does not have"):
            _write.write(recorded)
        return
    model = _write.write(recorded)
    expected = flat(user.function(z, parameters))
    for variable, value in zip(model.x.values(), z.tolist(), strict=True):
        variable.value = value
    native = [pyo.value(row.body) - pyo.value(row.upper) for row in model.equality.values()]
    torch.testing.assert_close(torch.tensor(native, **DOUBLE), expected, rtol=1e-6, atol=1e-9)
    program, values = _write.translate_back(model).equality, recorded.values[0]
    torch.testing.assert_close(program.run(TorchArithmetic(z), z, values), expected, rtol=1e-6, atol=1e-9)
    u, p = casadi.MX.sym("u", 6), casadi.MX.sym("p", len(values))
    found = casadi.Function("f", [u, p], [program.run(CasadiArithmetic(), u, p)])(z.numpy(), values.numpy())
    torch.testing.assert_close(torch.from_numpy(found.full()[:, 0]), expected, rtol=1e-6, atol=1e-9)


def test_a_model_has_mutable_params_that_instances_differ_in():
    problem = al.Problem(lambda u, x: ((u - x.exp()) ** 2).sum(), "(n)->(n)", inequality=lambda u, x: u.sum() - x.sum())
    (recorded,) = algebra.record(bind(problem, (torch.zeros(3, **DOUBLE),)))
    model = _write.write(recorded)
    assert all(p.parent_component().mutable for p in model.p.values())
    # what depends on the parameters alone is computed by torch, and enters as a number
    assert [p.value for p in model.p.values()] == [1.0, 1.0, 1.0, 0.0]


def test_values_that_are_read_twice_are_named_so_that_models_do_not_double_at_every_step():
    def objective(u, x):
        for _ in range(40):
            u = x * u + 0.1 * torch.sin(u)
        return (u - 1).square().sum()

    problem = al.Problem(objective, "(n)->(n)")
    x = torch.tensor([0.8, 0.9], **DOUBLE)
    (recorded,) = algebra.record(bind(problem, (x,)))
    assert len(_write.write(recorded).shared) >= 40
    value = al.argmin(problem, x, solver="pyomo.ipopt", start=torch.ones(2, **DOUBLE))
    torch.testing.assert_close(objective(value, x), torch.tensor(0.0, **DOUBLE))


BALL = al.Problem(
    lambda u, x: 0.5 * (u - x).square().sum(), "(n)->(n)", inequality=lambda u, x: u.square().sum() - 1, lower=-0.5
)


@pytest.mark.parametrize("solver", ["pyomo.ipopt", "pyomo:pounce"])
def test_a_batch_is_solved_by_one_model_and_has_the_gradient_of_scipy(solver, monkeypatch):
    built = []
    monkeypatch.setattr("argminlayer_pyomo._instances.build", lambda *given: built.append(1) or _write.build(*given))
    x = torch.tensor([[2.0, 1.0, 0.1], [-3.0, 1.0, 0.2], [0.1, 0.2, 0.3]], **DOUBLE, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, -1.0], **DOUBLE)
    ours = al.argmin(BALL, x, solver=solver)
    theirs = al.argmin(BALL, x, solver="scipy")
    torch.testing.assert_close(ours, theirs)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), x)[0] for value in (ours, theirs))
    torch.testing.assert_close(ours, theirs)
    assert len(built) <= 1


def test_bounds_that_differ_by_instance_reach_the_executable():
    problem = al.Problem(
        lambda u, c, low: (c * u).sum(), "(n),(n)->(n)", lower=lambda c, low: low, upper=lambda c, low: low + 1
    )
    c = torch.tensor([1.0, -1.0], **DOUBLE)
    low = torch.tensor([[0.0, 0.0], [5.0, -3.0]], **DOUBLE)
    for solver in ("pyomo.ipopt", "pyomo:pounce", "pyomo.highs"):
        found = al.argmin(problem, c, low, solver=solver)
        torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [5.0, -2.0]], **DOUBLE))


def test_instances_that_take_different_branches_get_models_of_their_own():
    def objective(u, x):
        return (u - x).square().sum() if x[0] > 0 else (u + x).square().sum()

    problem = al.Problem(objective, "(n)->(n)")
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [3.0, 4.0]], **DOUBLE)
    expected = torch.tensor([[1.0, 2.0], [1.0, -2.0], [3.0, 4.0]], **DOUBLE)
    torch.testing.assert_close(al.argmin(problem, x, solver="pyomo.ipopt"), expected)


def test_a_constraint_without_variables_keeps_its_place_among_the_multipliers():
    problem = al.Problem(
        lambda u, x: (u - x).square().sum(),
        "(n)->(n)",
        inequality=lambda u, x: torch.cat([x[:1] - 100, u[:1] - 1, u.new_full((1,), -1.0)]),
    )
    x = torch.tensor([3.0, 0.0], **DOUBLE)
    for solver in ("pyomo.ipopt", "pyomo.highs", "pyomo:pounce"):
        solution = al.solve(problem, x, solver=solver)
        torch.testing.assert_close(solution.multipliers.inequality, torch.tensor([0.0, 4.0, 0.0], **DOUBLE))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda u: torch.erf(u).sum(), r"the operator `erf` needs the function 'erf', which this modelling language"),
        (lambda u: torch.linalg.svdvals(u.reshape(2, 2)).sum(), r"has no algebraic form"),
        (lambda u: u.sum() if u[0] > 0 else -u.sum(), r"torch\.where"),
    ],
)
def test_what_pyomo_cannot_say_is_refused_before_anything_is_built(function, message):
    problem = al.Problem(lambda u, x: function(u) + (u - x).square().sum(), "(4)->(4)")
    with pytest.raises(al.SolverError, match=message):
        al.argmin(problem, torch.ones(4, **DOUBLE), solver="pyomo.ipopt")


def test_highs_refuses_a_torch_problem_that_is_not_quadratic():
    with pytest.raises(al.SolverError, match="needs linear constraints, and inequality 0 is not"):
        al.argmin(BALL, torch.ones(2, **DOUBLE), solver="pyomo.highs")


def test_a_dense_hessian_is_approximated_and_the_message_says_so():
    n = 300
    A = torch.randn(40, n, generator=torch.Generator().manual_seed(0), **DOUBLE) / 8
    problem = al.Problem(lambda u, x: 0.5 * (u - x).square().sum() + torch.logsumexp(A @ u, 0), "(n)->(n)")
    x = torch.randn(n, generator=torch.Generator().manual_seed(1), **DOUBLE)
    solution = al.solve(problem, x, solver="pyomo.ipopt", options={"route": "casadi"})
    assert solution.messages == (
        "ipopt in casadi: Solve_Succeeded, with gradients alone, for the exact Hessian is dense",
    )
    expected = x - A.T @ torch.softmax(A @ solution.value.detach(), 0)
    torch.testing.assert_close(solution.value, expected, rtol=1e-8, atol=1e-8)
