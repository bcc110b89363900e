"""Instances that fail inside a batch: each is reported, and the others keep their values and gradients."""

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values


def half_square(u: Tensor, x: Tensor, *_: Tensor) -> Tensor:
    return 0.5 * (u - x).square().sum()


BALL = al.Problem(half_square, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square())


def on_ball(x: Tensor, r: Tensor) -> Tensor:
    return x * (r / x.norm(dim=-1)).clamp_max(1.0)[..., None]


CHAMBER = al.Problem(
    lambda u, x, s: (u - s).square().sum(), "(),()->(2)", inequality=lambda u, x, s: torch.stack([u[0] - x, 1 - u[0]])
)
"""Needs 1 <= u[0] <= x, which is empty for x < 1; s is shared."""


def test_infeasible_instances_fail_alone_and_leave_the_shared_gradient_finite() -> None:
    x, s = values(0.0, 2.0, -1.0, 3.0).requires_grad_(), values(2.5)[0].requires_grad_()
    solution = al.solve(CHAMBER, x, s, throw=False)
    infeasible, solved = int(al.Status.INFEASIBLE), int(al.Status.SOLVED)
    assert solution.status.tolist() == [infeasible, solved, infeasible, solved]
    assert bool(solution.value[~solution.ok].isnan().all())
    masked = torch.autograd.grad(solution.value[solution.ok].sum(), (x, s), retain_graph=True)
    assert torch.allclose(masked[0], values(0.0, 1.0, 0.0, 0.0), atol=1e-9)
    assert float(masked[1]) == pytest.approx(3.0)
    whole = torch.autograd.grad(solution.value.sum(), (x, s))
    assert whole[0].isnan().tolist() == [True, False, True, False]
    assert float(whole[0][1]) == pytest.approx(1.0)


def test_infeasible_instances_raise_with_the_solution_of_the_others() -> None:
    with pytest.raises(
        al.SolveFailed, match=r"did not solve 2 of 4 problems.*batch index \(0,\): INFEASIBLE"
    ) as caught:
        al.solve(CHAMBER, values(0.0, 2.0, -1.0, 3.0), values(2.5)[0])
    assert torch.allclose(caught.value.solution.value[1], values(2.0, 2.5), atol=1e-9)


def tiny_sphere(u: Tensor, x: Tensor) -> Tensor:
    return torch.exp(50.0 * u).sum() + 0.5 * (100.0 * u - x).square().sum()


def test_constraints_that_another_start_meets_are_not_called_infeasible() -> None:
    """At zero, the first start, nothing says in which direction the sphere is."""
    x = torch.linspace(-1.0, 1.5, 2, dtype=torch.float64)
    problem = al.Problem(tiny_sphere, "(n)->(n)", equality=lambda u, x: 1e4 * (u @ u) - 1.0)
    solution = al.solve(problem, x, solver="scipy.slsqp")
    assert float(solution.value.norm()) == pytest.approx(0.01)
    kinked = al.Problem(
        lambda u, x: (u - x).square().sum() + u.abs().sum(), "(n)->(n)", equality=lambda u, x: u @ u - 1.0
    )
    failed = al.solve(kinked, values(0.3, 0.0, -0.2), solver="scipy.slsqp", throw=False)
    assert al.Status(int(failed.status)) is al.Status.NOT_STATIONARY
    assert failed.iterate is not None
    assert float(failed.iterate.norm()) == pytest.approx(1.0)


def test_an_objective_that_falls_from_a_huge_value_is_not_unbounded() -> None:
    problem = al.Problem(lambda u, x: torch.exp(u).sum() + (u - x).abs().sum(), "(n)->(n)")
    x = values(-3.0, 1.0)
    solution = al.solve(problem, x, solver="scipy.lbfgs", start=torch.tensor(40.0), throw=False)
    assert al.Status(int(solution.status)) is not al.Status.UNBOUNDED


def test_unbounded_instances_fail_alone() -> None:
    problem = al.Problem(lambda u, x: x * u.square().sum() + u.sum(), "()->(2)")
    x = values(1.0, -1.0, 2.0, 0.0).requires_grad_()
    solution = al.solve(problem, x, throw=False)
    unbounded = int(al.Status.UNBOUNDED)
    assert solution.status.tolist() == [0, unbounded, 0, unbounded]
    (gradient,) = torch.autograd.grad(solution.value[solution.ok].sum(), x)
    assert torch.allclose(gradient, values(1.0, 0.0, 0.25, 0.0), atol=1e-9)


def test_truncated_solves_are_reported_with_nan_values_and_gradients() -> None:
    valley = al.Problem(
        lambda u, x: (100 * (u[1:] - u[:-1] ** 2) ** 2 + (1 - u[:-1]) ** 2).sum() + 0.1 * (x @ u),
        "(n)->(n)",
        start=lambda x: torch.full_like(x, -1.0),
    )
    x = known.normal(6, 3, 5).requires_grad_()
    solution = al.solve(valley, x, solver="scipy.lbfgs", options={"max_iter": 3}, throw=False)
    assert bool((solution.status == al.Status.MAX_ITERATIONS).all())
    assert bool(solution.value.isnan().all())
    assert bool(torch.autograd.grad(solution.value.sum(), x)[0].isnan().all())


def test_parameters_that_are_not_finite_lose_only_their_own_instances() -> None:
    x = values([2.0, 1.0], [torch.nan, 1.0], [0.1, 0.2]).requires_grad_()
    r = values(1.0)[0].requires_grad_()
    solution = al.solve(BALL, x, r, throw=False)
    assert solution.status.tolist() == [0, int(al.Status.NOT_FINITE), 0]
    found = torch.autograd.grad(solution.value[solution.ok].sum(), (x, r))
    leaves = tuple(t.detach()[[0, 2]].requires_grad_() if t.ndim else t.detach().requires_grad_() for t in (x, r))
    true = torch.autograd.grad(on_ball(*leaves).sum(), leaves)
    assert torch.allclose(found[0][[0, 2]], true[0], atol=1e-9)
    assert bool((found[0][1] == 0).all())
    assert torch.allclose(found[1], true[1], atol=1e-9)


def test_an_objective_without_a_finite_value_loses_only_its_own_instance() -> None:
    problem = al.Problem(lambda u, x, s: (u - s).square().sum() / x, "(),()->(2)")
    x, s = values(1.0, 0.0, 2.0), values(0.3)[0].requires_grad_()
    solution = al.solve(problem, x, s, throw=False)
    assert solution.ok.tolist() == [True, False, True]
    (gradient,) = torch.autograd.grad(solution.value[solution.ok].sum(), s)
    assert float(gradient) == pytest.approx(4.0)


def test_a_wrong_attached_instance_fails_alone() -> None:
    x, r = values([2.0, 1.0], [2.0, 1.0], [0.1, 0.2]).requires_grad_(), values(1.0)[0]
    given = on_ball(x, r).detach()
    given[1] = values(1.0, 0.0)
    value = al.attach(BALL, given, x, r, throw=False)
    assert value.isnan().any(-1).tolist() == [False, True, False]
    (gradient,) = torch.autograd.grad(value[[0, 2]].sum(), x)
    leaf = x.detach().requires_grad_()
    (true,) = torch.autograd.grad(on_ball(leaf, r)[[0, 2]].sum(), leaf)
    assert torch.allclose(gradient, true, atol=1e-10)
