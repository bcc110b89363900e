"""The log-barrier rule: the derivative of the barrier problem, which converges to the exact one."""

from collections.abc import Callable
from typing import Any

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values
half_square = known.half_square

POSITIVE = al.Problem(lambda u, x: (x - u).square(), "()->()", lower=0.0)
"""Figure 3 of the paper, whose barrier problem has the solution below."""


def on_path(x: Tensor, t: float) -> Tensor:
    """Return argmin_u t (x - u)^2 - log u."""
    return 0.5 * (x + (x.square() + 2 / t).sqrt())


@pytest.mark.parametrize("t", [0.1, 1.0, 10.0, 1e3, 1e6, 1e9, 1e12])
def test_the_derivative_of_figure_3_is_the_closed_form(t: float) -> None:
    x = values(-2.0, -0.3, 0.0, 0.01, 0.5, 3.0)
    layer = torch.func.vmap(torch.func.grad(lambda x: al.argmin(POSITIVE, x, backward=al.LogBarrier(t))))
    expected = torch.func.vmap(torch.func.grad(lambda x: on_path(x, t)))(x)
    assert torch.allclose(layer(x), expected, atol=1e-10)


@pytest.mark.parametrize("t", [1.0, 1e3, 1e6])
def test_the_second_derivative_is_the_closed_form(t: float) -> None:
    x = values(-0.7, 0.0, 0.2)
    rule = al.LogBarrier(t)
    true = torch.func.vmap(torch.func.grad(torch.func.grad(lambda x: on_path(x, t))))(x)
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        twice = outer(torch.func.grad(lambda x: al.argmin(POSITIVE, x, backward=rule)))
        found = torch.stack([twice(each) for each in x])
        assert torch.allclose(found, true, rtol=1e-7, atol=1e-9)


def test_the_value_is_the_exact_solution() -> None:
    x = values(-1.0, 0.5)
    assert torch.allclose(al.argmin(POSITIVE, x, backward=al.LogBarrier(1.0)), x.clamp_min(0.0), atol=1e-12)


def barrier_of(problem: al.Problem, t: float) -> al.Problem:
    """Return the barrier problem, written by hand: its own derivative is exact."""

    def objective(u: Any, *x: Tensor) -> Tensor:
        total = (-1 if problem.maximize else 1) * problem.objective(u, *x)  # type: ignore[misc]
        if problem.inequality is not None:
            parts = problem.inequality(u, *x)
            for part in parts if isinstance(parts, tuple) else (parts,):
                total = total - (-part).log().sum() / t
        for bound, sign in ((problem.lower, 1.0), (problem.upper, -1.0)):
            if bound is not None:
                b = bound(*x) if callable(bound) else torch.as_tensor(bound)
                gap = sign * (u - b)
                total = total - torch.where(torch.isinf(b), 0.0, torch.where(torch.isinf(b), 1.0, gap).log()).sum() / t
        return total

    return al.Problem(objective, problem.signature, equality=problem.equality)


def padded(upper: Tensor) -> Tensor:
    """Return upper bounds of which the last one is missing."""
    return torch.cat([upper, torch.full_like(upper[:1], torch.inf)])


PROBLEMS: dict[str, tuple[al.Problem, tuple[Tensor, ...], Tensor]] = {
    # problem, parameters, a point inside
    "a ball, from outside, from its boundary and from inside": (
        al.Problem(half_square, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square()),
        (values([2.0, 1.0], [0.6, 0.8], [0.1, 0.2]), values(1.0, 1.0, 2.0)),
        values(0.1, 0.2),
    ),
    "a box that moves with its parameters": (
        al.Problem(half_square, "(n),(n),(k)->(n)", lower=lambda x, lo, up: lo, upper=lambda x, lo, up: padded(up)),
        (values(2.0, -1.0, 0.3), values(0.0, -0.5, 0.0), values(1.0, 1.0)),
        values(0.5, 0.1, 0.4),
    ),
    "a simplex": (
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        (values(2.0, -1.0, 1.9, 0.3),),
        values(0.25, 0.25, 0.25, 0.25),
    ),
    "every kind of constraint, maximised": (
        al.Problem(
            lambda u, P, q, c: -known.quadratic(u, P, q),
            "(n,n),(n),()->(n)",
            equality=lambda u, P, q, c: u.sum() - c,
            inequality=lambda u, P, q, c: torch.stack([u @ u - 3 * c.exp(), u[0] - u[1] - c]),
            lower=lambda P, q, c: -0.2 * c,
            upper=2.0,
            maximize=True,
        ),
        (known.definite(1, 4), values(-3.0, 1.0, 3.0, -1.0), values(1.0)[0]),
        values(0.1, 0.3, 0.3, 0.3),
    ),
}


@pytest.mark.parametrize("t", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_derivative_is_that_of_the_barrier_problem(name: str, t: float) -> None:
    problem, parameters, inside = PROBLEMS[name]
    leaves = tuple(p.clone().requires_grad_() for p in parameters)
    solution = al.solve(problem, *leaves, backward=al.LogBarrier(t))
    by_hand = al.solve(barrier_of(problem, t), *leaves, start=inside, solver="scipy.trust-constr")
    weights = known.normal(7, *solution.value.shape)
    found = torch.autograd.grad(solution.value, leaves, weights, retain_graph=True)
    true = torch.autograd.grad(by_hand.value, leaves, weights, retain_graph=True)
    for one, other in zip(found, true, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)
    slope = torch.autograd.grad(solution.objective.sum(), leaves, retain_graph=True)
    sign = -1.0 if problem.maximize else 1.0
    for one, other in zip(slope, torch.autograd.grad(by_hand.objective.sum(), leaves), strict=True):
        assert torch.allclose(one, sign * other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_modes_agree(name: str) -> None:
    problem, parameters, _ = PROBLEMS[name]
    rule = al.LogBarrier(20.0)
    tangents = tuple(known.normal(40 + i, *p.shape) for i, p in enumerate(parameters))

    def everything(*x: Tensor) -> tuple[Tensor, ...]:
        found = al.solve(problem, *x, backward=rule)
        m = found.multipliers
        return found.value, m.equality, m.inequality, m.lower, m.upper  # type: ignore[return-value]

    value, pull = torch.func.vjp(everything, *parameters)
    weights = tuple(known.normal(50 + i, *v.shape) for i, v in enumerate(value))
    reverse = sum((g * d).sum() for g, d in zip(pull(weights), tangents, strict=True))
    _, dots = torch.func.jvp(everything, parameters, tangents)
    forward = sum((w * d).sum() for w, d in zip(weights, dots, strict=True))
    assert torch.allclose(reverse, forward, rtol=1e-9)
    leaves = tuple(p.clone().requires_grad_() for p in parameters)

    def value_of(*x: Tensor) -> Tensor:
        return al.argmin(problem, *x, backward=rule)  # type: ignore[return-value]

    assert second_derivative_is_symmetric(value_of, leaves)


def second_derivative_is_symmetric(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> bool:
    """Say whether two directions may be exchanged, which they may not when a part of the second derivative is lost."""
    one, other = ([known.normal(s + i, *p.shape) for i, p in enumerate(leaves)]
                  for s in (60, 70))  # fmt: skip
    value = function(*leaves)
    slopes = torch.autograd.grad(value, leaves, known.normal(80, *value.shape), create_graph=True)

    def along(first: list[Tensor], second: list[Tensor]) -> Tensor:
        once = torch.stack([(g * d).sum() for g, d in zip(slopes, first, strict=True)]).sum()
        twice = torch.autograd.grad(once, leaves, retain_graph=True)
        return torch.stack([(g * d).sum() for g, d in zip(twice, second, strict=True)]).sum()

    return torch.allclose(along(one, other), along(other, one), rtol=1e-7)


@pytest.mark.parametrize("t", [1e4, 1e8])
@pytest.mark.parametrize(
    "case", [c for c in known.CASES if c.problem.constraints & {"inequality", "bounds"}], ids=lambda c: c.name
)
def test_it_converges_to_the_exact_derivative(case: known.Case, t: float) -> None:
    leaves = tuple(p.clone().requires_grad_() for p in case.parameters)
    answer, scale = case.answer(), objective_scale(case)
    try:
        value = al.attach(case.problem, known.as_variables(answer), *leaves, backward=al.LogBarrier(t / scale))
        found = torch.autograd.grad(known.as_tuple(value), leaves, case.cotangents(), materialize_grads=True)
    except al.NotDifferentiable as error:
        pytest.fail(str(error))
    for one, true in zip(found, case.gradients(), strict=True):
        assert float((one - true).abs().max()) <= (1e4 / t + 1e-4) * max(1.0, float(true.abs().max()))


def objective_scale(case: known.Case) -> float:
    """Return the size of the forces of the objective, which the t of the paper is relative to."""
    found = al.certify(case.problem, known.as_variables(case.answer()), *case.parameters)
    m = found.multipliers
    sizes = [
        float(p.abs().max()) for p in (*known.as_tuple(m.lower), *known.as_tuple(m.upper), m.inequality) if p.numel()
    ]
    return min(1.0, max(sizes, default=1.0)) or 1.0


def test_at_a_kink_it_lies_between_the_two_sides() -> None:
    ball, x = PROBLEMS["a ball, from outside, from its boundary and from inside"][0], values(0.6, 0.8)
    found = torch.func.jacrev(lambda x: al.attach(ball, x.detach(), x, values(1.0)[0], backward=al.LogBarrier(1e8)))(x)
    assert torch.allclose(found, torch.eye(2).to(x) - 0.5 * torch.outer(x, x), atol=1e-3)


def test_constraints_that_repeat_each_other_do_no_harm() -> None:
    once = al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: u @ u - 1)
    twice = al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: (u @ u - 1) * torch.ones(2).to(u))
    found, exact = (
        torch.func.jacrev(lambda x, p=p, r=r: al.attach(p, values(0.6, 0.8), x, backward=r))(values(3.0, 4.0))
        for p, r in ((twice, al.LogBarrier(1e8)), (once, al.KKT()))
    )
    assert torch.allclose(found, exact, atol=1e-6)


def test_variables_between_equal_bounds_are_held() -> None:
    problem = al.Problem(
        lambda u, q, b: u.square().sum() + u.prod() + q @ u,
        "(n),()->(n)",
        lower=lambda q, b: torch.stack([b, b - 9]),
        upper=lambda q, b: torch.stack([b, b + 9]),
    )
    x = values(3.0, 1.0).requires_grad_(), values(0.5)[0].requires_grad_()
    for output in (lambda s: s.value.sum(), lambda s: s.multipliers.lower[0] - s.multipliers.upper[0]):
        found, exact = (
            torch.autograd.grad(output(al.solve(problem, *x, backward=rule)), x)
            for rule in (al.LogBarrier(1e9), al.KKT())
        )
        for one, other in zip(found, exact, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_an_instance_without_interior_is_refused_alone() -> None:
    problem = al.Problem(
        half_square, "(n),()->(n)", inequality=lambda u, x, gap: torch.stack([u.sum() - 1, 1 - gap - u.sum()])
    )
    x, gap = values([2.0, 1.0], [2.0, 1.0]).requires_grad_(), values(0.5, 0.0)
    value = values([1.0, 0.0], [1.0, 0.0])
    with pytest.raises(al.NotDifferentiable, match=r"batch index \(1,\): no point of the central path at t = 1000 was"):
        al.attach(problem, value, x, gap, backward=al.LogBarrier(1e3)).sum().backward()
    found = al.attach(problem, value, x, gap, backward=al.LogBarrier(1e3), throw=False)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), x)
    assert torch.allclose(gradient[0], values(0.5, -0.5), atol=1e-2)
    assert bool(gradient[1].isnan().all())


def test_without_inequalities_the_rule_is_exact() -> None:
    problem = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1)
    x = values(3.0, 4.0)
    found = torch.func.jacrev(lambda x: al.attach(problem, values(0.6, 0.8), x, backward=al.LogBarrier(1.0)))(x)
    assert torch.allclose(found, torch.func.jacrev(lambda x: x / x.norm())(x), atol=1e-12)


@pytest.mark.parametrize("t", [0.0, -1.0, float("inf"), float("nan"), "large"])
def test_a_weight_that_is_none_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match=r"t of al.LogBarrier must be a positive number, such as 1e6, not"):
        al.LogBarrier(t)
