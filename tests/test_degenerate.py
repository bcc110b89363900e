"""Weakly active constraints: every policy gives an element between the derivatives from the two sides."""

from collections.abc import Callable
from typing import Any

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values

POLICIES = ("active", "inactive", "average")


def half_square(u: Tensor, x: Tensor, *_: Tensor) -> Tensor:
    return 0.5 * (u - x).square().sum()


def diagonal(*entries: float) -> Tensor:
    return torch.diag(values(*entries))


UNIT = values(0.6, 0.8)
OUTWARD = torch.outer(UNIT, UNIT)
EYE = known.eye(2)

KINKS: dict[str, tuple[al.Problem, Tensor, Tensor, Tensor, Tensor]] = {
    # problem, solution, parameter, derivative with the weak constraints held, and without
    "a ball from its boundary": (
        al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u @ u - 1),
        UNIT,
        UNIT,
        EYE - OUTWARD,
        EYE,
    ),
    "a lower bound": (
        al.Problem(half_square, "(n)->(n)", lower=0.0),
        values(0.0, 1.0),
        values(0.0, 1.0),
        diagonal(0.0, 1.0),
        EYE,
    ),
    "an upper bound, maximised": (
        al.Problem(lambda u, x: -half_square(u, x), "(n)->(n)", upper=2.0, maximize=True),
        values(2.0, 1.0),
        values(2.0, 1.0),
        diagonal(0.0, 1.0),
        EYE,
    ),
    "two bounds at once": (
        al.Problem(half_square, "(n)->(n)", lower=0.0),
        values(0.0, 0.0),
        values(0.0, 0.0),
        0 * EYE,
        EYE,
    ),
    "one bound weak, one not": (
        al.Problem(half_square, "(n)->(n)", lower=0.0),
        values(0.0, 0.0),
        values(0.0, -1.0),
        0 * EYE,
        diagonal(1.0, 0.0),
    ),
    "a simplex whose last entry just vanishes": (
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, inequality=lambda u, x: -u),
        values(0.7, 0.3, 0.0),
        values(0.8, 0.4, 0.1),
        values([0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]),
        known.eye(3) - 1 / 3,
    ),
    "a halfspace that moves with the parameter": (
        al.Problem(lambda u, x: 0.5 * u.square().sum(), "(2)->(2)", inequality=lambda u, x: x.sum() - u[0]),
        values(0.0, 0.0),
        values(1.0, -1.0),
        values([1.0, 1.0], [0.0, 0.0]),
        0 * EYE,
    ),
    "a weak constraint written twice": (
        al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: torch.stack([u.sum() - 1, 2 * u.sum() - 2])),
        values(0.5, 0.5),
        values(0.5, 0.5),
        EYE - 0.5,
        EYE,
    ),
}


def expected(held: Tensor, free: Tensor, policy: str) -> Tensor:
    return {"active": held, "inactive": free, "average": 0.5 * (held + free)}[policy]


def attached(name: str, policy: Any, **options: Any) -> Callable[[Tensor], Tensor]:
    problem, solution = KINKS[name][:2]
    return lambda x: al.attach(problem, solution, x, backward=al.KKT(degenerate=policy), **options)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KINKS)
def test_the_policy_chooses_between_the_two_sides(name: str, policy: str) -> None:
    _, _, x, held, free = KINKS[name]
    want = expected(held, free, policy)
    for jacobian in (
        torch.func.jacrev,
        torch.func.jacfwd,
        lambda f: lambda x: torch.autograd.functional.jacobian(f, x),
    ):
        assert torch.allclose(jacobian(attached(name, policy))(x), want, atol=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KINKS)
def test_a_solved_problem_has_the_same_derivative_and_reports_the_kink(name: str, policy: Any) -> None:
    problem, solution, x, held, free = KINKS[name]
    leaf = x.clone().requires_grad_()
    found = al.solve(problem, leaf, backward=al.KKT(degenerate=policy))
    rows = [torch.autograd.grad(entry, leaf, retain_graph=True)[0] for entry in found.value]
    assert torch.allclose(found.value, solution, atol=1e-6)
    assert torch.allclose(torch.stack(rows), expected(held, free, policy), atol=1e-5)
    assert int(found.certificate.weakly_active) > 0
    assert float(found.certificate.margin) < 1e-6


@pytest.mark.parametrize("name", ["a ball from its boundary", "a lower bound", "two bounds at once"])
def test_the_two_sides_are_those_of_problems_solved_again(name: str) -> None:
    problem, solution, x, held, free = KINKS[name]
    for direction in (x + 1.0, -x - 1.0):
        step = 1e-4 * direction
        one_sided = (al.argmin(problem, x + step) - solution) / 1e-4
        # along one direction all weak constraints of these problems hold, along its opposite none does
        assert min(float((j @ direction - one_sided).abs().max()) for j in (held, free)) < 1e-3


@pytest.mark.parametrize("policy", POLICIES)
def test_only_instances_with_a_kink_feel_the_policy(policy: Any) -> None:
    problem = KINKS["a ball from its boundary"][0]
    x = torch.stack([2 * UNIT, UNIT, 0.5 * UNIT])
    rule = al.KKT(degenerate=policy)
    found = torch.func.vmap(torch.func.jacrev(lambda x: al.argmin(problem, x, backward=rule)))(x)
    want = torch.stack([0.5 * (EYE - OUTWARD), expected(EYE - OUTWARD, EYE, policy), EYE])
    assert torch.allclose(found, want, atol=1e-6)
    assert al.solve(problem, x, backward=rule).certificate.weakly_active.tolist() == [0, 1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_modes_agree_and_may_be_nested(policy: Any) -> None:
    problem = KINKS["a ball from its boundary"][0]
    x = torch.stack([2 * UNIT, UNIT, 0.5 * UNIT])
    cotangent = values([0.3, -1.0], [0.7, 0.2], [1.0, 1.0])

    def layer(x: Tensor) -> Tensor:
        return al.attach(problem, x / x.norm(dim=-1, keepdim=True).clamp_min(1), x, backward=al.KKT(degenerate=policy))

    _, pull = torch.func.vjp(layer, x)
    (together,) = pull(cotangent)
    _, along = torch.func.jvp(layer, (x,), (cotangent,))
    assert torch.allclose((along * cotangent).sum(), (together * cotangent).sum(), atol=1e-12)
    stacked = torch.func.vmap(lambda c: pull(c)[0])(torch.stack([cotangent, 2 * cotangent]))
    assert torch.allclose(stacked, torch.stack([together, 2 * together]), atol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_second_derivative_is_that_of_the_rule(policy: Any) -> None:
    """The derivative is a function of solution and multiplier, which both move as the rule says."""
    problem = KINKS["a ball from its boundary"][0]

    def velocity(u: Tensor, lam: Tensor) -> Tensor:
        return expected(EYE - torch.outer(u, u) / (u @ u), EYE, policy) / (1 + 2 * lam)

    by_u, by_lam = torch.func.jacrev(velocity, argnums=(0, 1))(UNIT, values(0.0)[0])
    moving = torch.einsum("ijk,kl->ijl", by_u, velocity(UNIT, values(0.0)[0]))
    want = moving + by_lam[..., None] * expected(0.5 * UNIT, 0 * UNIT, policy)
    layer = attached("a ball from its boundary", policy)
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(outer(torch.func.jacrev(layer))(UNIT), want, atol=1e-9)
    x = torch.stack([2 * UNIT, UNIT])
    mapped = torch.func.vmap(torch.func.hessian(lambda x: al.argmin(problem, x, backward=al.KKT(degenerate=policy))))(x)
    assert torch.allclose(mapped[1], want, atol=1e-5)


def test_the_derivative_of_the_multiplier_follows_the_policy() -> None:
    problem = KINKS["a ball from its boundary"][0]
    for policy in POLICIES:
        x = UNIT.clone().requires_grad_()
        found = al.certify(problem, UNIT, x, backward=al.KKT(degenerate=policy))  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(found.multipliers.inequality[0], x)
        assert torch.allclose(slope, expected(0.5 * UNIT, 0 * UNIT, policy), atol=1e-9)


def test_where_the_choice_has_no_derivative_the_other_one_is_taken() -> None:
    only_held = al.Problem(
        lambda u, x: x * u, "()->()", lower=0.0, upper=lambda x: 1.0
    )  # without its bound, u is anything
    parting = al.Problem(
        lambda u, x: (u - x[2]).square(), "(3)->()", inequality=lambda u, x: torch.stack([u - x[0], u - x[1]])
    )
    for policy in POLICIES:
        rule = al.KKT(degenerate=policy)  # type: ignore[arg-type]
        x = values(0.0)[0].requires_grad_()
        (slope,) = torch.autograd.grad(al.attach(only_held, values(0.0)[0], x, backward=rule), x)
        assert float(slope) == 0.0
        x = values(1.0, 1.0, 1.0).requires_grad_()
        (row,) = torch.autograd.grad(al.attach(parting, values(1.0)[0], x, backward=rule), x)
        assert torch.allclose(row, values(0.0, 0.0, 1.0), atol=1e-9)


def test_variables_between_equal_bounds_are_not_weakly_active() -> None:
    problem = al.Problem(half_square, "(n)->(n)", lower=lambda x: x.detach() * 0 + 1, upper=1.0)
    for policy in POLICIES:
        x = values(1.0, 3.0).requires_grad_()
        found = al.certify(problem, values(1.0, 1.0), x, backward=al.KKT(degenerate=policy))  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(found.value.sum(), x)
        assert int(found.certificate.weakly_active) == 0
        assert torch.allclose(slope, 0 * slope)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="degenerate must be 'active', 'inactive' or 'average', not 'both'"):
        al.KKT(degenerate="both")  # type: ignore[arg-type]
