"""The proximal policy: what it converges to, what it leaves alone, and that it is reported."""

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values
LINE = al.Problem(lambda u, x: (u[0] + 2 * u[1] - x).square(), "()->(2)")
"""Its solutions are a line; H = 2 (1, 2)(1, 2)', whose non-zero eigenvalue is 10."""
QUATERNION = al.Problem(lambda q, x: (q / q.norm() - x / x.norm()).square().sum(), "(4)->(4)")
"""An over-parametrised rotation: the length of q is free."""


def slope(problem: al.Problem, value: Tensor, x: Tensor, rule: al.KKT) -> Tensor:
    return torch.autograd.functional.jacobian(lambda t: al.attach(problem, value, t, backward=rule), x)


@pytest.mark.parametrize("delta", [1e-1, 1e-3, 1e-6, 1e-9])
def test_the_derivative_is_that_of_the_regularised_problem(delta: float) -> None:
    x, value = values(1.0)[0], values(0.2, 0.4)
    found = slope(LINE, value, x, al.KKT(singular=al.proximal(delta)))
    assert torch.allclose(found, values(2.0, 4.0) / (10 + delta), rtol=1e-6, atol=0.0)
    regularised = al.Problem(
        lambda u, x: (u[0] + 2 * u[1] - x).square() + 0.5 * delta * (u - value).square().sum(), "()->(2)"
    )
    if delta > 1e-8:
        assert torch.allclose(found, slope(regularised, value, x, al.KKT()), rtol=1e-6, atol=0.0)


def test_it_converges_to_the_derivative_of_least_norm() -> None:
    x = values(0.5, -1.0, 0.3, 0.2)
    value = 1.3 * x / x.norm()
    least = slope(QUATERNION, value, x, al.KKT(singular="minimum-norm"))
    errors = [
        float((slope(QUATERNION, value, x, al.KKT(singular=al.proximal(d))) - least).abs().max())
        for d in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] > 1e-4
    assert errors[1] < 0.011 * errors[0]
    assert errors[2] < 0.011 * errors[1]


def test_it_is_reported_and_leaves_regular_instances_alone() -> None:
    problem = al.Problem(lambda u, a, x: a * u[1].square() + (u[0] - x).square(), "(),()->(2)")
    a, x = values(1.0, 0.0, 2.0), values(3.0, 3.0, 3.0)
    value = values([3.0, 0.0], [3.0, 5.0], [3.0, 0.0])
    rule = al.KKT(singular=al.proximal(0.5))
    found = al.certify(problem, value, a, x.requires_grad_(), backward=rule)
    assert found.certificate.regularised.tolist() == [0.0, 0.5, 0.0]
    assert found.certificate.freedom.tolist() == [0, 1, 0]
    (gradient,) = torch.autograd.grad(found.value[:, 0].sum(), x)
    assert torch.allclose(gradient, values(1.0, 2 / 2.5, 1.0))


def test_active_constraints_are_met_exactly_with_the_term() -> None:
    problem = al.Problem(
        lambda u, x: (u[0] - x).square(), "()->(3)", equality=lambda u, x: u.sum() - x, inequality=lambda u, x: u[0] - 1
    )
    x = values(3.0)[0]
    found = slope(problem, values(1.0, 1.0, 1.0), x, al.KKT(singular=al.proximal(1e-3)))
    assert torch.allclose(found, values(0.0, 0.5, 0.5), atol=1e-9)


def test_every_mode_and_the_second_derivative_carry_the_term() -> None:
    x, value, delta = values(0.5, -1.0, 0.3, 0.2), values(0.5, -1.0, 0.3, 0.2), 1e-2
    rule = al.KKT(singular=al.proximal(delta))

    def layer(x: Tensor) -> Tensor:
        return al.attach(QUATERNION, value, x, backward=rule)

    reverse, forward = torch.func.jacrev(layer)(x), torch.func.jacfwd(layer)(x)
    assert torch.allclose(reverse, forward, atol=1e-12)
    mapped = torch.func.vmap(torch.func.jacrev(layer))(torch.stack([x, x]))
    assert torch.allclose(mapped, torch.stack([reverse, reverse]), atol=1e-12)

    # the solution moves by the rule's own derivative, so that the second one is that of y' = -(H + delta)^{-1} B
    def velocity(y: Tensor, x: Tensor) -> Tensor:
        hessian = torch.func.hessian(QUATERNION.objective)(y, x) + delta * known.eye(4)
        mixed = torch.func.jacfwd(torch.func.grad(QUATERNION.objective), argnums=1)(y, x)
        return -torch.linalg.solve(hessian, mixed)

    by_y, by_x = torch.func.jacfwd(velocity, argnums=(0, 1))(value, x)
    expected = by_x + torch.einsum("ijk,kl->ijl", by_y, reverse)
    assert torch.allclose(torch.func.jacrev(torch.func.jacrev(layer))(x), expected, atol=1e-9)


@pytest.mark.parametrize("delta", [0.0, -1.0, float("inf"), float("nan"), "small"])
def test_a_term_that_does_not_regularise_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta of a proximal term must be a positive number"):
        al.proximal(delta)
