"""Convex problems with kinks: solved, certified and differentiated as cone programs, exactly where the kink is."""

import pytest
import torch

import argminlayer as al
from argminlayer.testing import central_differences

pytest.importorskip("clarabel", reason="needs the extra cvxpy")

G = torch.Generator().manual_seed(0)
A = torch.randn(6, 4, generator=G, dtype=torch.float64)
B = torch.randn(6, generator=G, dtype=torch.float64)
X = torch.randn(3, 4, generator=G, dtype=torch.float64)
SOLVER = "cvxpy.clarabel"


def soft(x, weight):
    return x.sign() * (x.abs() - weight).clamp_min(0.0)


shrink = al.Problem(lambda u, x, w: 0.5 * (u - x).square().sum() + w * u.abs().sum(), "(n),()->(n)")
W = torch.tensor([0.1, 0.5, 5.0], dtype=torch.float64)


def test_soft_thresholding_and_its_gradient_are_exact_where_entries_are_zero():
    x, w = X.clone().requires_grad_(True), W.clone().requires_grad_(True)
    solution = al.solve(shrink, x, w, solver=SOLVER)
    torch.testing.assert_close(solution.value, soft(x, w[:, None]), rtol=0.0, atol=1e-10)
    assert solution.certificate.error.max() < 1e-12
    weights = torch.cos(torch.arange(12, dtype=torch.float64)).reshape(3, 4)
    found = torch.autograd.grad((weights * solution.value).sum(), (x, w))
    expected = torch.autograd.grad((weights * soft(x, w[:, None])).sum(), (x, w))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-10)


def test_the_objective_has_its_own_derivative():
    x, w = X.clone().requires_grad_(True), W.clone().requires_grad_(True)
    solution = al.solve(shrink, x, w, solver=SOLVER)
    u = soft(x, w[:, None])
    value = 0.5 * (u - x).square().sum(1) + w * u.abs().sum(1)
    torch.testing.assert_close(solution.objective, value, rtol=0.0, atol=1e-10)
    found = torch.autograd.grad(solution.objective.sum(), (x, w))
    torch.testing.assert_close(found, torch.autograd.grad(value.sum(), (x, w)), rtol=0.0, atol=1e-9)


PROBLEMS = {
    "lasso": al.Problem(lambda u, x: 0.5 * (A @ u - B).square().sum() + x[0].abs() * u.abs().sum(), "(n)->(n)"),
    "minimax": al.Problem(lambda u, x: (A @ u - B).max() + 0.1 * (u - x).square().sum(), "(n)->(n)"),
    "groups": al.Problem(lambda u, x: 0.5 * u[:2].norm() + u[2:].norm() + 0.5 * (u - x).square().sum(), "(n)->(n)"),
    "hinge": al.Problem(
        lambda u, x: torch.relu(1.0 - B.sign() * (A @ u)).sum() + 0.5 * (u - x).square().sum(), "(n)->(n)"
    ),
    "total variation": al.Problem(
        lambda u, x: 0.5 * (u - x).square().sum() + 0.5 * u.diff().abs().sum(), "(n)->(n)", lower=-1.0
    ),
    "ball of sums": al.Problem(
        lambda u, x: (u - x).square().sum(), "(n)->(n)", inequality=lambda u, x: u.abs().sum() - 1.0
    ),
    "largest entries": al.Problem(lambda u, x: u.topk(2).values.sum() + (u - x).square().sum(), "(n)->(n)"),
    "spectral norm": al.Problem(
        lambda u, x: 2.0 * torch.linalg.svdvals(u.reshape(2, 2))[0] + (u - x).square().sum(), "(n)->(n)"
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_at_kinks_are_those_of_central_differences(name):
    problem = PROBLEMS[name]
    weights = torch.cos(1.0 + torch.arange(12, dtype=torch.float64)).reshape(3, 4)

    def value(x):
        return (weights * al.argmin(problem, x, solver=SOLVER)).sum()

    x = X.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(value(x), x)
    (expected,) = central_differences(value, X)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_automatic_choice_solves_them():
    solution = al.solve(PROBLEMS["lasso"], X)
    assert solution.solver.startswith("cvxpy.")
    assert bool(solution.ok.all())


def test_multipliers_are_those_of_the_problem():
    free = al.Problem(
        lambda u, x: 0.5 * (u - x).square().sum(),
        "(n)->(n)",
        equality=lambda u, x: u[0] - 0.1,
        inequality=lambda u, x: u[1] + u[2] - 0.1,
        lower=-0.3,
        upper=0.3,
    )
    kinked = al.Problem(
        lambda u, x: 0.5 * (u - x).square().sum() + 0.0 * u.abs().sum(),
        "(n)->(n)",
        equality=free.equality,
        inequality=free.inequality,
        lower=-0.3,
        upper=0.3,
    )
    found, expected = (al.solve(problem, X, solver=SOLVER) for problem in (kinked, free))
    assert found.certificate.error.max() < 1e-9
    for name in ("equality", "inequality", "lower", "upper"):
        pair = (getattr(solution.multipliers, name) for solution in (found, expected))
        torch.testing.assert_close(*pair, rtol=0.0, atol=1e-8)


def test_single_precision_batches_of_any_shape_and_several_variables():
    problem = al.Problem(lambda u, x: (u[0] - x).square().sum() + u[1].abs() + (u[1] - u[0].sum()).abs(), "(n)->(n),()")
    x = X[:, None].float().requires_grad_(True)
    first, second = al.argmin(problem, x, solver=SOLVER)
    assert (first.shape, second.shape, first.dtype) == ((3, 1, 4), (3, 1), torch.float32)
    first.sum().backward()
    assert x.grad.dtype == torch.float32
    assert bool(x.grad.isfinite().all())


def test_second_derivatives():
    problem = al.Problem(
        lambda u, x: (x[0] ** 2 * u - x).square().sum() + 0.5 * u.abs().sum() + u.square().sum(), "(n)->(n)"
    )
    x = torch.tensor([1.0, 0.1, -2.0], dtype=torch.float64, requires_grad=True)

    def value(x):
        return al.argmin(problem, x, solver=SOLVER).square().sum()

    (first,) = torch.autograd.grad(value(x), x, create_graph=True)
    (found,) = torch.autograd.grad(first[0], x)

    def slope(x):
        with torch.enable_grad():
            moving = x.clone().requires_grad_(True)
            return torch.autograd.grad(value(moving), moving)[0][0]

    (expected,) = central_differences(slope, x.detach())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_infeasible_unbounded_and_concave_members_are_named_and_harm_no_other():
    problem = al.Problem(
        lambda u, c, w: c @ u + w * u.abs().sum(),
        "(n),()->(n)",
        inequality=lambda u, c, w: torch.stack([c[1] - u[1], -u[1] - 1.0]),
    )
    c = torch.tensor([[0.2, 0.0], [3.0, 0.0], [0.2, 0.5], [0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    solution = al.solve(problem, c, w, solver=SOLVER, throw=False)
    wanted = [al.Status.SOLVED, al.Status.UNBOUNDED, al.Status.SOLVED, al.Status.NOT_CONVEX]
    assert solution.status.tolist() == wanted
    torch.testing.assert_close(solution.value[[0, 2], 1], torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert bool(solution.value[[1, 3]].isnan().all())
    solution.value[2].sum().backward()
    torch.testing.assert_close(c.grad[2], torch.tensor([0.0, 1.0], dtype=torch.float64))
    with pytest.raises(al.SolveFailed, match=r"2 of 4 problems; the first is at batch index \(1,\): UNBOUNDED"):
        al.solve(problem, c, w, solver=SOLVER)


def test_transforms_of_derivatives_see_the_kinks():
    def solution(x):
        return al.argmin(shrink, x, W[1], solver=SOLVER)

    x = X[0]
    expected = torch.diag((x.abs() > W[1]).double())
    assert 0 < expected.trace() < 4
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(solution)(x), expected, rtol=0.0, atol=1e-10)
    _, pushed = torch.func.jvp(solution, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(pushed, expected.sum(1), rtol=0.0, atol=1e-10)
    second = torch.func.hessian(lambda x: solution(x).square().sum())(x)
    torch.testing.assert_close(second, 2.0 * expected, rtol=0.0, atol=1e-9)


def solved(x, w):
    return al.argmin(shrink, x, w, solver=SOLVER)


def weighed(function):
    weights = torch.cos(torch.arange(4, dtype=torch.float64))
    return lambda x, w: (weights * function(x, w)).square().sum()


MAPPED = {
    "vmap": lambda f: torch.vmap(f)(X, W),
    "of the second dimension, the weight shared": lambda f: torch.vmap(f, in_dims=(1, None), out_dims=1)(X.mT, W[1]),
    "twice": lambda f: torch.vmap(torch.vmap(f, in_dims=(None, 0)), in_dims=(0, None))(X, W),
    "gradients": lambda f: torch.vmap(torch.func.grad(weighed(f)))(X, W),
    "gradients in what is shared": lambda f: torch.vmap(torch.func.grad(weighed(f), 1), in_dims=(0, None))(X, W[1]),
    "gradient of a sum": lambda f: torch.func.grad(lambda x: torch.vmap(weighed(f))(x, W).sum())(X),
    "jacrev outside": lambda f: torch.func.jacrev(lambda x: torch.vmap(f)(x, W))(X),
    "jacrev inside": lambda f: torch.vmap(torch.func.jacrev(f))(X, W),
    "jacfwd inside": lambda f: torch.vmap(torch.func.jacfwd(f))(X, W),
    "jvp outside": lambda f: torch.func.jvp(lambda x: torch.vmap(f)(x, W), (X,), (X,))[1],
    "jvp inside": lambda f: torch.vmap(lambda x, w: torch.func.jvp(lambda x: f(x, w), (x,), (x,))[1])(X, W),
    "hessians": lambda f: torch.vmap(torch.func.hessian(weighed(f)))(X, W),
}


@pytest.mark.parametrize("way", MAPPED)
def test_kinks_inside_vmap_are_those_of_a_batch(way):
    torch.testing.assert_close(MAPPED[way](solved), MAPPED[way](soft), rtol=0.0, atol=1e-9)


def test_instances_that_fail_inside_vmap_are_named_and_lost_alone():
    w = torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64)

    def found(x, w):
        solution = al.solve(shrink, x, w, solver=SOLVER, throw=False)
        return solution.value, solution.status

    value, status = torch.vmap(found)(X, w)
    assert status.tolist() == [al.Status.SOLVED, al.Status.NOT_CONVEX, al.Status.SOLVED]
    assert value[1].isnan().all()
    torch.testing.assert_close(value[[0, 2]], soft(X[[0, 2]], 0.5), rtol=0.0, atol=1e-10)
    with pytest.raises(al.SolveFailed, match=r"1 of 3 problems; the first is at batch index \(1,\): NOT_CONVEX"):
        torch.vmap(solved)(X, w)


def test_automatic_choice_hands_instances_that_fail_on():
    # the forces at the minimum are 1e-8, which the first solver is content to leave to chance
    problem = al.Problem(lambda u, x: 1.0 / u + 1e-8 * x * u + (u - u).abs(), "()->()", lower=1e-9)
    x = torch.tensor([1.0, 1e8], dtype=torch.float64, requires_grad=True)
    alone = al.solve(problem, x, solver=SOLVER, throw=False)
    assert alone.status.tolist() == [al.Status.NOT_STATIONARY, al.Status.SOLVED]
    solution = al.solve(problem, x)
    assert solution.solver.startswith("cvxpy.clarabel, cvxpy.")
    expected = 1e4 * x.rsqrt()
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(solution.multipliers.lower, torch.zeros(2, dtype=torch.float64))
    assert solution.messages[0] != alone.messages[0]
    assert solution.messages[1] == alone.messages[1]
    found, wanted = (torch.autograd.grad(value.sum(), x)[0] for value in (solution.value, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0.0)


def test_an_instance_that_is_not_finite_or_not_convex_is_lost_alone_and_so_is_its_gradient():
    x, w = X.clone(), torch.tensor([0.5, -1.0, 0.5], dtype=torch.float64)
    x[0, 1] = torch.nan
    x.requires_grad_(True)
    shared = torch.ones((), dtype=torch.float64, requires_grad=True)
    problem = al.Problem(lambda u, x, w, s: 0.5 * (u - x).square().sum() + s * w * u.abs().sum(), "(n),(),()->(n)")
    solution = al.solve(problem, x, w, shared, solver=SOLVER, throw=False)
    assert solution.status.tolist() == [al.Status.NOT_FINITE, al.Status.NOT_CONVEX, al.Status.SOLVED]
    torch.testing.assert_close(solution.value[2], soft(X[2], 0.5), rtol=0.0, atol=1e-10)
    solution.value[2].sum().backward(retain_graph=True)
    expected = (X[2].abs() > 0.5).double()
    torch.testing.assert_close(x.grad[2], expected, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(shared.grad, -(0.5 * X[2].sign() * expected).sum(), rtol=0.0, atol=1e-10)
    assert bool((x.grad[:2] == 0).all())
    (lost,) = torch.autograd.grad(solution.value.sum(), x)
    assert bool(lost[:2].isnan().all())
    torch.testing.assert_close(lost[2], expected, rtol=0.0, atol=1e-10)
    with pytest.raises(al.ProblemError, match="is not finite: nan at batch index"):
        al.solve(problem, x, w, shared, solver=SOLVER)
