"""Kinks, tangent constraints and minima that only a weak constraint holds: a valid derivative, or a report."""

from collections.abc import Callable

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al
from argminlayer._bound import bind

values = known.values
half_square = known.half_square


def jacobian(problem: al.Problem, value: Tensor, x: Tensor, **options: object) -> Tensor:
    return torch.autograd.functional.jacobian(lambda t: al.attach(problem, value, t, **options), x)


def pool(penalty: Callable[[Tensor], Tensor]) -> al.Problem:
    return al.Problem(lambda u, x: penalty(u - x).sum(), "(n)->()")


TANGENT = {
    "a disc and a line": (lambda u: torch.stack([u @ u - 1, u[0] - 1]), values(2.0, 0.0), 0.5),
    "nested discs": (lambda u: torch.stack([u @ u - 1, (u[0] + 1) ** 2 + u[1] ** 2 - 4]), values(2.0, 0.0), 0.5),
    "the larger disc first, scaled": (
        lambda u: torch.stack([100 * ((u[0] + 1) ** 2 + u[1] ** 2 - 4), u @ u - 1]),
        values(4.0, 0.0),
        0.25,
    ),
    "a disc, a line and the same line": (
        lambda u: torch.stack([u @ u - 1, 2 * u[0] - 2]),
        values(1.0, 0.0),
        1.0,
    ),
}


@pytest.mark.parametrize("name", TANGENT)
def test_of_constraints_tangent_to_each_other_the_one_that_curves_most_decides(name: str) -> None:
    inequality, x, slope = TANGENT[name]
    problem = al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: inequality(u))
    found = al.certify(problem, values(1.0, 0.0), x)
    assert int(found.status) == al.Status.SOLVED
    assert int(found.certificate.weakly_active) > 0
    sideways = jacobian(problem, values(1.0, 0.0), x)[:, 1]
    again = al.argmin(problem, x + values(0.0, 0.01)) - al.argmin(problem, x - values(0.0, 0.01))
    assert torch.allclose(sideways, values(0.0, slope), atol=1e-9)
    assert torch.allclose(sideways, again / 0.02, atol=1e-3)


def test_a_curved_constraint_beside_redundant_flat_ones_does_not_make_them_bend() -> None:
    normal = values(0.3, -0.7, 0.2)
    problem = al.Problem(
        half_square,
        "(3)->(3)",
        equality=lambda u, x: torch.stack([normal @ u, 2 * (normal @ u), -0.3 * (normal @ u)]),
        inequality=lambda u, x: u @ u - 1,
    )
    x = values(2.0, 1.0, -1.0)
    flat = x - normal * (normal @ x) / (normal @ normal)
    expected = torch.func.jacrev(
        lambda t: torch.nn.functional.normalize(t - normal * (normal @ t) / (normal @ normal), dim=0)
    )(x)
    assert torch.allclose(jacobian(problem, flat / flat.norm(), x), expected, atol=1e-9)


def test_tangent_equalities_that_curve_apart_are_refused() -> None:
    problem = al.Problem(half_square, "(2)->(2)", equality=lambda u, x: torch.stack([u @ u - 1, u[0] - 1]))
    x = values(2.0, 0.0).requires_grad_()
    value = al.attach(problem, values(1.0, 0.0), x)
    with pytest.raises(al.NotDifferentiable, match="of its 2 active constraints 1 are redundant, and they do not stay"):
        value.sum().backward()  # type: ignore[union-attr]


def test_tangent_constraints_in_space_of_which_neither_curves_most_are_refused() -> None:
    problem = al.Problem(
        half_square,
        "(3)->(3)",
        inequality=lambda u, x: torch.stack([u[0] + u[1] ** 2, u[0] + u[2] ** 2]),
    )
    x = values(2.0, 0.0, 0.0).requires_grad_()
    value = al.attach(problem, values(0.0, 0.0, 0.0), x)
    # how the force of 2 is shared decides, and neither end of the interval is the answer for both directions
    with pytest.raises(al.NotDifferentiable, match="they do not stay redundant"):
        value.sum().backward()  # type: ignore[union-attr]


NOT_SMOOTH = {
    "soft thresholding at a zero entry": (
        al.Problem(lambda u, x: half_square(u, x) + u.abs().sum(), "(n)->(n)"),
        values(1.0, 0.0),
        values(2.0, 0.0),
    ),
    "a vertex of the ball of the 1-norm": (
        al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u.abs().sum() - 1),
        values(1.0, 0.0),
        values(2.0, 0.0),
    ),
    "a corner of the ball of the maximum norm": (
        al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u.abs().amax() - 1),
        values(1.0, 1.0),
        values(2.0, 2.0),
    ),
    "a norm at zero": (
        al.Problem(lambda u, x: half_square(u, x) + u.norm(), "(n)->(n)"),
        values(0.0, 0.0),
        values(0.0, 0.0),
    ),
    "a median": (pool(torch.abs), values(2.0)[0], values(1.0, 2.0, 5.0)),
    "a truncated quadratic at its edges": (
        pool(lambda z: (0.5 * z.square()).clamp_max(0.5)),
        values(0.0)[0],
        values(-1.0, 0.0, 1.0),
    ),
    "a rectifier": (al.Problem(lambda u, x: 0.5 * (u - x) ** 2 + u.relu(), "()->()"), values(0.0)[0], values(0.0)[0]),
}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", NOT_SMOOTH)
@pytest.mark.parametrize(
    "rule",
    [al.KKT(), al.KKT(singular="minimum-norm"), al.KKT(singular=al.proximal(1e-3)), al.IgnoreConstraints()],
    ids=str,
)
def test_a_kink_is_reported_and_not_differentiated(name: str, rule: al.AbstractBackward, scale: float) -> None:
    plain, value, x = NOT_SMOOTH[name]
    problem = al.Problem(
        lambda u, x: scale * plain.objective(u, x),
        plain.signature,
        inequality=plain.inequality,  # type: ignore[misc]
    )
    leaf = x.clone().requires_grad_()
    found = al.certify(problem, value, leaf, backward=rule, throw=True)
    assert not bool(found.certificate.smooth)
    assert not bool(found.certificate.regular)
    with pytest.raises(al.NotDifferentiable, match=r"jumps at the solution.*minimise t with t >= u and t >= -u"):
        found.value.sum().backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["soft thresholding at a zero entry", "a corner of the ball of the maximum norm"])
def test_a_zero_entry_with_a_force_on_it_is_refused_as_not_stationary(name: str) -> None:
    problem, value, x = NOT_SMOOTH[name]
    with pytest.raises(al.SolveFailed, match="NOT_STATIONARY"):
        al.attach(problem, value, x + values(0.0, 0.3))


def test_only_the_instances_at_a_kink_lose_their_gradient() -> None:
    problem = NOT_SMOOTH["soft thresholding at a zero entry"][0]
    x = values([2.0, 0.0], [2.0, -3.0]).requires_grad_()
    value = al.attach(problem, values([1.0, 0.0], [1.0, -2.0]), x, throw=False)
    (gradient,) = torch.autograd.grad(value.sum(), x)  # type: ignore[union-attr]
    assert bool(gradient[0].isnan().all())
    assert torch.allclose(gradient[1], values(1.0, 1.0))


def test_the_kinks_of_the_one_norm_are_gone_when_it_is_written_with_constraints() -> None:
    problem = al.Problem(
        lambda u, x: half_square(u[0], x) + u[1].sum(),
        "(n)->(n),(n)",
        inequality=lambda u, x: torch.cat([u[0] - u[1], -u[0] - u[1]]),
    )
    x = values(2.0, 0.3, -1.5)
    soft = x.sign() * (x.abs() - 1).clamp_min(0.0)
    found = torch.autograd.functional.jacobian(lambda t: al.attach(problem, (soft, soft.abs()), t)[0], x)
    assert torch.allclose(found, torch.diag(values(1.0, 0.0, 1.0)), atol=1e-9)


SMOOTH = {
    "entries away from zero": (lambda u: u.abs().sum(), values(1.0, -2.0)),
    "a norm away from zero": (lambda u: u.norm(), values(0.6, -0.8)),
    "a maximum without a tie": (lambda u: u.max(), values(1.0, 0.999)),
    "a kink that is near but not here": (lambda u: u.abs().sum(), values(1.0, 1e-5)),
    "a smooth function with a small scale": (lambda u: (u * u + 1e-8).sqrt().sum(), values(1.0, 0.0)),
    "a Huber penalty at the edge": (
        lambda u: torch.where(u.abs() <= 1, 0.5 * u * u, u.abs() - 0.5).sum(),
        values(1.0, -1.0),
    ),
    "the square of an absolute value": (lambda u: u.abs().square().sum(), values(0.0, 1.0)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_an_operation_with_a_kink_elsewhere_does_no_harm(name: str) -> None:
    penalty, value = SMOOTH[name]
    problem = al.Problem(lambda u, x: 0.5 * u.square().sum() - x @ u + penalty(u), "(n)->(n)")
    slope = torch.func.grad(penalty)(value)
    x = value + slope
    assert bool(al.certify(problem, value, x, throw=True).certificate.smooth)
    hessian = torch.func.hessian(penalty)(value)
    assert torch.allclose(jacobian(problem, value, x), torch.linalg.inv(torch.eye(2).to(x) + hessian), atol=1e-7)


@pytest.mark.parametrize("entry", [1.0, -1.0])
def test_at_the_edge_of_a_huber_penalty_the_derivative_is_that_of_one_side(entry: float) -> None:
    problem = pool(lambda z: torch.nn.functional.huber_loss(z, torch.zeros_like(z), reduction="none"))
    found = jacobian(problem, values(0.0)[0], entry * values(-1.0, 0.0, 1.0))
    # the second derivative at either edge is zero or one
    sides = [values(a, 1.0, b) / (1 + a + b) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    assert any(torch.allclose(found, side) for side in sides)


def test_a_truncated_quadratic_ignores_its_outliers() -> None:
    problem = pool(lambda z: (0.5 * z.square()).clamp_max(0.5))
    assert torch.allclose(jacobian(problem, values(0.0)[0], values(-0.5, 0.5, 3.0)), values(0.5, 0.5, 0.0))


@pytest.mark.parametrize(
    ("penalty", "kinks"),
    [
        (lambda u: (u.exp() @ u).sin() + u.pow(3).sum() + u.log_softmax(0)[0] + u[:1].tanh().sum(), False),
        (lambda u: u.abs().sum(), True),
        (lambda u: u.clamp_min(0.2).square().sum(), True),
        (lambda u: torch.maximum(u, 1 - u).sum(), True),
        (lambda u: torch.linalg.vector_norm(u), True),
        (lambda u: torch.where(u > 0, u, 2 * u).sum(), True),
        (lambda u: torch.nn.functional.smooth_l1_loss(u, 0 * u), True),
        (lambda u: u.sort().values @ u, True),
    ],
)
def test_operations_that_may_have_a_kink_are_recognised(penalty: Callable[[Tensor], Tensor], kinks: bool) -> None:
    problem = al.Problem(lambda u, x: half_square(u, x) + penalty(u), "(n)->(n)")
    assert bind(problem, (values(1.0, 2.0),)).kinks == kinks


def test_a_maximum_that_only_a_weak_bound_holds_is_no_minimum() -> None:
    problem = al.Problem(lambda u, x: -0.5 * (u - x) ** 2, "()->()", lower=0.0)
    held, free, pushed = (al.certify(problem, values(0.0)[0], values(x)[0]) for x in (1.0, 0.0, -1.0))
    assert int(held.status) == al.Status.SOLVED
    assert (int(free.status), int(free.certificate.kind)) == (al.Status.NOT_A_MINIMUM, al.PointKind.MAXIMUM)
    assert int(pushed.status) == al.Status.NOT_STATIONARY


def test_a_saddle_that_only_a_weak_constraint_holds_is_named() -> None:
    problem = al.Problem(
        lambda u, x: 0.5 * (u[0] - x).square() - u[1].square(), "()->(2)", inequality=lambda u, x: -u[1]
    )
    found = al.certify(problem, values(1.0, 0.0), values(1.0)[0])
    assert (int(found.status), int(found.certificate.kind)) == (al.Status.NOT_A_MINIMUM, al.PointKind.SADDLE)


def test_several_weak_constraints_that_may_hold_a_minimum_together_decide_nothing() -> None:
    problem = al.Problem(lambda u, x: u[0] * u[1] + x * u.sum(), "()->(2)", lower=0.0)
    found = al.certify(problem, values(0.0, 0.0), values(0.0)[0])
    assert (int(found.status), int(found.certificate.kind)) == (al.Status.SOLVED, al.PointKind.DEGENERATE)
