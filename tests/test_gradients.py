"""What a derivative promises beside its value: linearity, every order and mode, multipliers, refusals."""

from typing import Any

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values

SMALL = [case for case in known.CASES if sum(p.numel() for p in case.parameters) <= 24]


def half_square(u: Tensor, x: Tensor, *_: Tensor) -> Tensor:
    return 0.5 * (u - x).square().sum()


BALL = al.Problem(half_square, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square())
POLYNOMIAL = al.Problem(lambda u, x: x * u**4 + 2 * x**2 * u**3 - 12 * u**2, "()->()")
"""Paper 002, sec. 3.2: stationary at zero and at two other points, each with a known derivative."""


def on_ball(x: Tensor, r: Tensor) -> Tensor:
    return x * (r / x.norm(dim=-1)).clamp_max(1.0)[..., None]


def all_multipliers(problem: al.Problem, *parameters: Tensor) -> Tensor:
    found = al.solve(problem, *parameters).multipliers
    parts = (found.equality, found.inequality, *known.as_tuple(found.lower), *known.as_tuple(found.upper))
    return torch.cat([part.flatten() for part in parts])


WITH_MULTIPLIERS = {
    "ball": (BALL, (values(2.0, 1.0), values(1.0)[0])),
    "sphere": (
        al.Problem(half_square, "(n),()->(n)", equality=lambda u, x, r: u @ u - r.square(), start=lambda x, r: x),
        (values(2.0, 1.0), values(1.0)[0]),
    ),
    "box": (
        al.Problem(half_square, "(n),(n),(n)->(n)", lower=lambda x, lo, up: lo, upper=lambda x, lo, up: up),
        (values(2.0, -1.0, 0.3), values(0.0, -0.5, 0.0), values(1.0, 1.0, 1.0)),
    ),
    "simplex": (
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        (values(2.0, -1.0, 1.9, 0.3),),
    ),
    "entropy, maximised": (
        al.Problem(
            lambda u, x: x @ u - (u * u.log()).sum(),
            "(n)->(n)",
            equality=lambda u, x: u.sum() - 1,
            start=lambda x: torch.full_like(x, 1 / 3),
            maximize=True,
        ),
        (values(0.2, -1.0, 0.9),),
    ),
    "every kind of constraint": (
        al.Problem(
            known.quadratic,
            "(n,n),(n),()->(n)",
            equality=lambda u, P, q, c: u.sum() - c,
            inequality=lambda u, P, q, c: torch.stack([u @ u - 3 * c.exp(), u[0] - u[1] - c]),
            lower=lambda P, q, c: -0.2 * c,
            upper=2.0,
        ),
        (known.definite(1, 4), values(-3.0, 1.0, 3.0, -1.0), values(1.0)[0]),
    ),
    "equal bounds": (
        al.Problem(
            lambda u, q, t: u.square().sum() + u.prod() + q @ u,
            "(n),()->(n)",
            lower=lambda q, t: torch.stack([t, t - 9]),
            upper=lambda q, t: torch.stack([t, t + 9]),
        ),
        (values(3.0, 1.0), values(0.5)[0]),
    ),
}


@pytest.mark.parametrize("name", WITH_MULTIPLIERS)
def test_the_derivative_of_the_multipliers_agrees_with_differences(name: str) -> None:
    problem, parameters = WITH_MULTIPLIERS[name]
    leaves = tuple(p.clone().requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(lambda *x: all_multipliers(problem, *x), leaves, atol=1e-6, rtol=1e-5)


def test_the_multiplier_of_a_ball_and_its_derivative_are_the_formula() -> None:
    x, r = values([2.0, 1.0], [0.1, 0.3]).requires_grad_(), values(1.5).requires_grad_()
    found = al.solve(BALL, x, r).multipliers.inequality[:, 0]
    true = ((x.norm(dim=-1) / r - 1) / 2).clamp_min(0.0)
    weights = values(0.7, -0.4)
    assert torch.allclose(found, true, atol=1e-10)
    for got, want in zip(
        torch.autograd.grad(found, (x, r), weights), torch.autograd.grad(true, (x, r), weights), strict=True
    ):
        assert torch.allclose(got, want, atol=1e-9)


def test_the_multiplier_of_a_parameter_dependent_equality_is_the_sensitivity_of_the_optimal_value() -> None:
    problem = al.Problem(known.quadratic, "(n,n),(n),()->(n)", equality=lambda u, P, q, c: u.sum() - c)
    P, q, c = known.definite(2, 3), values(1.0, -2.0, 0.5), values(0.7)[0].requires_grad_()
    solution = al.solve(problem, P, q, c)
    (slope,) = torch.autograd.grad(known.quadratic(solution.value, P, q), c)
    assert torch.allclose(slope, -solution.multipliers.equality[0], atol=1e-10)
    assert torch.allclose(solution.objective, known.quadratic(solution.value, P, q), atol=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-12, 1e12, 1e200])
def test_a_scaled_cotangent_gives_the_scaled_gradient(scale: float) -> None:
    x, r = values([2.0, 1.0], [0.1, 0.3]).requires_grad_(), values(1.0)[0].requires_grad_()
    value, cotangent = al.argmin(BALL, x, r), values([0.3, -0.7], [1.0, 2.0])
    once = torch.autograd.grad(value, (x, r), cotangent, retain_graph=True)
    scaled = torch.autograd.grad(value, (x, r), scale * cotangent)
    for got, want in zip(scaled, once, strict=True):
        assert torch.allclose(got / scale, want, rtol=1e-12, atol=0.0)


def test_a_zero_cotangent_gives_a_zero_gradient_and_nan_gives_nan() -> None:
    x, r = values(2.0, 1.0).requires_grad_(), values(1.0)[0]
    value = al.argmin(BALL, x, r)
    (zero,) = torch.autograd.grad(value, x, torch.zeros_like(value), retain_graph=True)
    (nan,) = torch.autograd.grad(value, x, torch.full_like(value, torch.nan))
    assert bool((zero == 0).all())
    assert bool(nan.isnan().all())


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_first_and_second_derivatives_agree_with_differences_of_solved_problems(case: Any, check: Any) -> None:
    leaves = tuple(p.clone().requires_grad_() for p in case.parameters)
    start = known.as_variables(case.answer())
    assert check(
        lambda *x: al.argmin(case.problem, *x, start=start),
        leaves,
        atol=1e-4,
        rtol=1e-3,
        nondet_tol=1e-7,
        fast_mode=True,
    )


def test_a_shared_parameter_receives_the_sum_of_the_gradients() -> None:
    x, r = known.normal(3, 3, 1, 2), values(0.5)[0]
    shift = known.normal(4, 4, 2)
    problem = al.Problem(
        lambda u, x, s, r: half_square(u, x + s), "(n),(n),()->(n)", inequality=lambda u, x, s, r: u @ u - r.square()
    )
    leaves = tuple(t.clone().requires_grad_() for t in (x, shift, r))
    found = torch.autograd.grad(al.argmin(problem, *leaves).square().sum() + al.argmin(problem, *leaves).sum(), leaves)
    full = on_ball(leaves[0] + leaves[1], leaves[2])
    for got, want in zip(found, torch.autograd.grad(full.square().sum() + full.sum(), leaves), strict=True):
        assert torch.allclose(got, want, atol=1e-10)


@pytest.mark.parametrize(
    ("what", "point", "message"),
    [
        ("not stationary", values(0.89, 0.456), "NOT_STATIONARY"),
        ("outside", 1.01 * values(2.0, 1.0) / 5**0.5, "NOT_FEASIBLE"),
        ("inside", 0.99 * values(2.0, 1.0) / 5**0.5, "NOT_STATIONARY"),
        ("on the far side", -values(2.0, 1.0) / 5**0.5, "NOT_STATIONARY"),
    ],
)
def test_a_wrong_solution_is_refused(what: str, point: Tensor, message: str) -> None:
    with pytest.raises(al.SolveFailed, match=message):
        al.attach(BALL, point, values(2.0, 1.0), values(1.0)[0])


def test_a_boundary_point_that_is_no_minimum_is_refused() -> None:
    inner = values(0.2, -0.1)
    with pytest.raises(al.SolveFailed, match="NOT_STATIONARY"):
        al.attach(BALL, inner / inner.norm(), inner, values(1.0)[0])


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.1])
def test_wrong_multipliers_are_refused(factor: float) -> None:
    x, r = values(2.0, 1.0), values(1.0)[0]
    solution = al.solve(BALL, x, r)
    given = al.Multipliers(
        equality=solution.multipliers.equality,
        inequality=factor * solution.multipliers.inequality,
        lower=solution.multipliers.lower,
        upper=solution.multipliers.upper,
    )
    with pytest.raises(al.SolveFailed, match="NOT_STATIONARY"):
        al.attach(BALL, solution.value, x, r, multipliers=given)


SPHERE = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1)
RAYLEIGH = al.Problem(lambda u, A: u @ A @ u, "(n,n)->(n)", equality=lambda u, A: u @ u - 1)
DIAGONAL = torch.diag(values(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("problem", "point", "parameter", "kind"),
    [
        (POLYNOMIAL, values(0.0)[0], values(1.0)[0], al.PointKind.MAXIMUM),
        (SPHERE, -values(0.6, 0.8), values(3.0, 4.0), al.PointKind.MAXIMUM),
        (RAYLEIGH, known.eye(3)[0], DIAGONAL, al.PointKind.MINIMUM),
        (RAYLEIGH, known.eye(3)[1], DIAGONAL, al.PointKind.SADDLE),
        (RAYLEIGH, known.eye(3)[2], DIAGONAL, al.PointKind.MAXIMUM),
        (
            al.Problem(lambda u, x: u[0] ** 2 - u[1] ** 2 + x @ u, "(2)->(2)"),
            values(0.0, 0.0),
            values(0.0, 0.0),
            al.PointKind.SADDLE,
        ),
        (
            al.Problem(lambda u, x: -half_square(u, x), "(2)->(2)", lower=0.0),
            values(0.0, 1.0),
            values(1.0, 1.0),
            al.PointKind.MAXIMUM,
        ),
    ],
)
def test_the_certificate_names_the_kind_of_a_stationary_point(
    problem: al.Problem, point: Tensor, parameter: Tensor, kind: al.PointKind
) -> None:
    solution = al.certify(problem, point, parameter)
    assert int(solution.certificate.kind) == kind
    expected = al.Status.SOLVED if kind == al.PointKind.MINIMUM else al.Status.NOT_A_MINIMUM
    assert int(solution.status) == expected


def test_every_stationary_point_of_the_polynomial_has_its_known_derivative() -> None:
    branches = (
        lambda x: 0 * x,
        lambda x: (-3 * x**2 - (9 * x**4 + 96 * x).sqrt()) / (4 * x),
        lambda x: (-3 * x**2 + (9 * x**4 + 96 * x).sqrt()) / (4 * x),
    )
    for branch in branches:
        x = values(0.5, 1.0, 2.0).requires_grad_()
        value = al.attach(POLYNOMIAL, branch(x).detach(), x)
        (found,) = torch.autograd.grad(value.sum(), x)
        (true,) = torch.autograd.grad(branch(x).sum(), x)
        assert torch.allclose(found, true, atol=1e-10)


def test_an_eigenvector_that_is_a_saddle_has_its_known_derivative() -> None:
    A = (DIAGONAL + 0.1 * known.normal(5, 3, 3)).requires_grad_()
    true = torch.linalg.eigh(known.symmetric(A))[1][:, 1]
    value = al.attach(RAYLEIGH, true.detach(), A)
    weights = values(0.3, -1.0, 0.5)
    (found,), (want,) = (torch.autograd.grad(y, A, weights) for y in (value, true))
    assert torch.allclose(found, want, atol=1e-10)


def test_a_solver_that_lands_on_a_maximum_is_not_believed() -> None:
    solution = al.solve(POLYNOMIAL, values(1.0)[0], solver="scipy.lbfgs", start=0.0, throw=False)
    assert int(solution.status) == al.Status.NOT_A_MINIMUM
    assert bool(solution.value.isnan())


DUPLICATED = {
    "inequalities": al.Problem(
        half_square, "(2)->(2)", inequality=lambda u, x: torch.stack([u.sum() - 1, u.sum() - 1])
    ),
    "scaled equalities": al.Problem(
        half_square, "(2)->(2)", equality=lambda u, x: torch.stack([u.sum() - 1, 2 * u.sum() - 2])
    ),
    "an equality and an inequality": al.Problem(
        half_square, "(2)->(2)", equality=lambda u, x: u.sum() - 1, inequality=lambda u, x: u.sum() - 1
    ),
}


@pytest.mark.parametrize("name", DUPLICATED)
def test_dependent_constraints_raise_or_give_the_right_derivative(name: str) -> None:
    x = values(2.0, 1.0).requires_grad_()
    true = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64)
    value = al.attach(DUPLICATED[name], values(1.0, 0.0), x)
    try:
        found = torch.stack([torch.autograd.grad(value[i], x, retain_graph=True)[0] for i in range(2)])
    except al.NotDifferentiable as error:
        assert "LICQ fails" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert torch.allclose(found, true, atol=1e-9)


@pytest.mark.parametrize("size", [1e3, 1e9, 1e17])
def test_huge_multipliers_that_cancel_do_not_make_a_point_stationary(size: float) -> None:
    none = torch.zeros(2, dtype=torch.float64)
    given = al.Multipliers(equality=values(-size), inequality=values(size), lower=none, upper=none)
    problem, x = DUPLICATED["an equality and an inequality"], values(2.0, 1.0)
    with pytest.raises(al.SolveFailed, match="NOT_STATIONARY"):
        al.attach(problem, values(0.0, 1.0), x, multipliers=given)


NOT_DIFFERENTIABLE = {
    "constraints that part when the parameters move": (
        al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: torch.stack([u.sum() - 1, u.sum() - x[0]])),
        values(0.5, 0.5),
        values(1.0, 1.0),
        "LICQ fails",
    ),
    "a repeated eigenvalue": (RAYLEIGH, known.eye(3)[0], known.eye(3), "not isolated"),
    "a scale-free direction": (
        al.Problem(lambda u, x: -x @ u / u.norm(), "(n)->(n)"),
        values(0.6, 0.8),
        values(3.0, 4.0),
        "not isolated",
    ),
    "a tie in a linear program": (
        al.Problem(lambda u, x: x @ u, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        values(0.5, 0.5, 0.0),
        values(1.0, 1.0, 2.0),
        "not isolated",
    ),
}


@pytest.mark.parametrize("name", NOT_DIFFERENTIABLE)
def test_a_solution_without_a_derivative_raises_and_says_why(name: str) -> None:
    problem, point, parameter, message = NOT_DIFFERENTIABLE[name]
    parameter = parameter.clone().requires_grad_()
    value = al.attach(problem, point, parameter)
    assert not bool(al.certify(problem, point, parameter).certificate.regular)
    with pytest.raises(al.NotDifferentiable, match=message):
        torch.autograd.grad(value.sum(), parameter)


@pytest.mark.parametrize("name", NOT_DIFFERENTIABLE)
def test_a_solution_without_a_derivative_has_a_nan_gradient_when_nothing_may_be_raised(name: str) -> None:
    problem, point, parameter, _ = NOT_DIFFERENTIABLE[name]
    parameter = parameter.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(al.attach(problem, point, parameter, throw=False).sum(), parameter)
    assert bool(gradient.isnan().all())


WEAK = {
    "ball": (BALL, values(0.6, 0.8), (values(0.6, 0.8), values(1.0)[0])),
    "bounds": (al.Problem(half_square, "(n)->(n)", lower=0.0), values(0.0, 1.0), (values(0.0, 1.0),)),
}


@pytest.mark.parametrize("name", WEAK)
def test_a_weakly_active_constraint_is_reported_in_the_certificate(name: str) -> None:
    problem, point, parameters = WEAK[name]
    for solution in (al.certify(problem, point, *parameters), al.solve(problem, *parameters)):
        assert int(solution.status) == al.Status.SOLVED
        assert int(solution.certificate.weakly_active) == 1
        assert float(solution.certificate.margin) < 1e-6


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-6, -1e-3, -1e-5, -1e-6])
@pytest.mark.parametrize("error", [-1e-6, 0.0, 1e-6])
def test_a_point_close_to_the_boundary_is_put_on_the_right_side_of_it(distance: float, error: float) -> None:
    direction = values(0.6, 0.8)
    x = ((1 + distance) * direction).requires_grad_()
    value = al.attach(BALL, min(1.0, 1 + distance) * direction + error * direction, x, values(1.0)[0])
    (gradient,) = torch.autograd.grad(value, x, direction)
    assert float(gradient @ direction) == pytest.approx(0.0 if distance > 0 else 1.0, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e9, 1e12])
def test_the_scale_of_the_objective_does_not_matter(scale: float) -> None:
    problem = al.Problem(lambda u, x: scale * half_square(u, x), "(n)->(n)", inequality=lambda u, x: u @ u - 1)
    x = values([2.0, 1.0], [0.2, -0.1]).requires_grad_()
    true = on_ball(x, values(1.0)[0])
    (want,) = torch.autograd.grad(true.square().sum() + true.sum(), x, retain_graph=True)
    for value in (al.argmin(problem, x), al.attach(problem, true.detach(), x)):
        assert torch.allclose(value, true, atol=1e-9)
        (found,) = torch.autograd.grad(value.square().sum() + value.sum(), x)
        assert torch.allclose(found, want, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0])
def test_a_tiny_objective_beside_a_large_constraint_and_active_bounds_is_regular(scale: float) -> None:
    problem = al.Problem(
        lambda u, x: scale * half_square(u, x), "(n)->(n)", equality=lambda u, x: 1e3 * (u.sum() - 1), lower=0.0
    )
    x = values(1.0, 0.8, 0.3, -2.0).requires_grad_()
    (found,) = torch.autograd.grad(al.attach(problem, values(0.6, 0.4, 0.0, 0.0), x)[0], x)
    assert torch.allclose(found, values(0.5, -0.5, 0.0, 0.0), atol=1e-9)


def test_a_parameter_without_entries_is_allowed_beside_redundant_constraints() -> None:
    problem = al.Problem(
        half_square, "(n),(k)->(n)", equality=lambda u, x, e: torch.stack([u.sum() - 1, 2 * u.sum() - 2])
    )
    x, empty = values(2.0, 1.0).requires_grad_(), values().requires_grad_()
    found = torch.autograd.grad(al.attach(problem, values(1.0, 0.0), x, empty)[0], (x, empty), materialize_grads=True)
    assert torch.allclose(found[0], values(0.5, -0.5), atol=1e-9)
    assert found[1].shape == (0,)


def test_a_value_that_is_itself_differentiable_is_attached_without_its_history() -> None:
    x, r = values(2.0, 1.0).requires_grad_(), values(1.0)[0]
    solution = al.solve(BALL, x, r)
    (first,) = torch.autograd.grad(solution.value[0], x)
    value = al.attach(BALL, solution.value, x, r, multipliers=solution.multipliers)
    (second,) = torch.autograd.grad(value[0], x)
    assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on its first use of jvp
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_forward_mode_agrees_with_the_known_derivative(case: Any) -> None:
    tangents = tuple(known.normal(30 + i, *p.shape) for i, p in enumerate(case.parameters))
    given = known.as_variables(case.answer())
    _, dots = torch.func.jvp(lambda *x: al.attach(case.problem, given, *x), case.parameters, tangents)
    cotangents = case.cotangents()
    forward = sum((c * d).sum() for c, d in zip(cotangents, known.as_tuple(dots), strict=True))
    reverse = sum((g * t).sum() for g, t in zip(case.gradients(), tangents, strict=True))
    assert float(forward) == pytest.approx(float(reverse), rel=1e-6, abs=1e-8)
