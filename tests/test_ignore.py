"""The rule that ignores constraints, and the diagnostic that measures its angle to the exact gradient."""

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

values = known.values
half_square = known.half_square

SPHERE = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1, start=lambda x: x / x.norm())
BALL = al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u @ u - 1)
PLANE = al.Problem(
    known.quadratic, "(n,n),(n)->(n)", equality=lambda u, P, q: u.sum() - 1, lower=-10.0, start=lambda P, q: 0 * q
)


def test_the_jacobian_is_the_inverse_hessian_alone() -> None:
    x = values(3.0, 4.0)
    found = torch.func.jacrev(lambda x: al.argmin(SPHERE, x, backward=al.IgnoreConstraints()))(x)
    assert torch.allclose(found, torch.eye(2).to(x) / 5.0, atol=1e-9)  # H = (1 + 2 nu) I with 1 + 2 nu = |x|
    P, q = known.definite(3, 3), values(1.0, -2.0, 0.5)
    found = torch.func.jacrev(lambda q: al.argmin(PLANE, P, q, backward=al.IgnoreConstraints()))(q)
    assert torch.allclose(found, -torch.linalg.inv(known.symmetric(P)), atol=1e-9)


def test_it_is_exact_where_nothing_is_active() -> None:
    x = values([0.3, 0.2], [2.0, 1.0])
    found = torch.func.vmap(torch.func.jacrev(lambda x: al.argmin(BALL, x, backward=al.IgnoreConstraints())))(x)
    assert torch.allclose(found[0], torch.eye(2).to(x), atol=1e-9)
    assert torch.allclose(found[1], torch.eye(2).to(x) / x[1].norm(), atol=1e-9)


def test_every_mode_and_the_second_derivative_follow_the_rule() -> None:
    x, rule = values(3.0, 4.0), al.IgnoreConstraints()

    def layer(x: Tensor) -> Tensor:
        return al.argmin(SPHERE, x, backward=rule)  # type: ignore[return-value]

    assert torch.allclose(torch.func.jacfwd(layer)(x), torch.func.jacrev(layer)(x), atol=1e-12)
    # the multiplier is constant to the rule, and with it the inverse of the Hessian, (1 + 2 nu) I
    assert torch.allclose(torch.func.jacrev(torch.func.jacrev(layer))(x), torch.zeros(2, 2, 2).to(x), atol=1e-12)
    quartic = al.Problem(
        lambda u, x: (0.25 * u**4 - x * u).sum(),
        "(n)->(n)",
        equality=lambda u, x: u.sum() - 2,
        start=lambda x: 1 + 0 * x,
    )
    x = values(1.0, 1.0)  # u = 1, nu = 0, and the rule says dy/dx = 1 / (3 y^2), so that y'' = -2 y' / (3 y^3)
    twice = torch.func.jacrev(torch.func.jacrev(lambda x: al.argmin(quartic, x, backward=rule)))(x)
    expected = torch.zeros(2, 2, 2).to(x)
    expected[0, 0, 0] = expected[1, 1, 1] = -2 / 9
    assert torch.allclose(twice, expected, atol=1e-6)


def test_multipliers_are_constant_and_the_optimal_value_is_exact() -> None:
    x = values(3.0, 4.0).requires_grad_()
    found = al.solve(SPHERE, x, backward=al.IgnoreConstraints())
    (price,) = torch.autograd.grad(found.multipliers.equality.sum(), x, retain_graph=True)
    (slope,) = torch.autograd.grad(found.objective, x)
    assert torch.equal(price, torch.zeros(2).to(x))
    assert torch.allclose(slope, x - x / x.norm(), atol=1e-9)


def test_a_bound_that_moves_with_a_parameter_still_moves_the_optimal_value() -> None:
    problem = al.Problem(half_square, "(n),(n)->(n)", lower=lambda x, lo: lo)
    lower = values(1.0, -1.0).requires_grad_()
    found = al.solve(problem, values(0.0, 0.0), lower, backward=al.IgnoreConstraints())
    (slope,) = torch.autograd.grad(found.objective, lower, retain_graph=True)
    (ignored,) = torch.autograd.grad(found.value.sum(), lower)
    assert torch.allclose(slope, values(1.0, 0.0), atol=1e-9)
    assert torch.equal(ignored, torch.zeros(2).to(slope))


def test_redundant_constraints_do_not_matter_but_a_singular_hessian_does() -> None:
    parting = al.Problem(
        half_square, "(2)->(2)", equality=lambda u, x: torch.stack([u.sum() - 1, u.sum() - x[0]]), start=0.5
    )
    x = values(1.0, 1.0).requires_grad_()
    value = al.attach(parting, values(0.5, 0.5), x, backward=al.IgnoreConstraints())
    assert torch.allclose(torch.autograd.grad(value[0], x)[0], values(1.0, 0.0))
    corner = al.Problem(lambda u, c: c @ u, "(n)->(n)", lower=0.0, upper=1.0)
    c = values(1.0, -1.0).requires_grad_()
    value = al.attach(corner, values(0.0, 1.0), c, backward=al.IgnoreConstraints())
    with pytest.raises(al.NotDifferentiable, match=r"needs a regular Hessian .* it is singular in 2 directions"):
        value.sum().backward()


def test_the_angle_to_the_exact_gradient_is_the_angle_of_the_projection() -> None:
    x = values([3.0, 4.0], [1.0, 0.0], [0.3, -2.0])
    cotangent = values([1.0, 0.3], [0.5, 0.5], [-1.0, 0.2])
    unit = x / x.norm(dim=-1, keepdim=True)
    projected = cotangent - (cotangent * unit).sum(-1, keepdim=True) * unit
    cosine = (projected * cotangent).sum(-1) / (projected.norm(dim=-1) * cotangent.norm(dim=-1))
    found = al.compare_backward(SPHERE, x, backward=al.IgnoreConstraints(), cotangent=cotangent)
    assert torch.allclose(found.angle, torch.rad2deg(torch.arccos(cosine)), atol=1e-6)
    assert torch.allclose(found.ratio, cotangent.norm(dim=-1) / projected.norm(dim=-1), atol=1e-6)
    part = (cotangent * unit).sum(-1).abs() / projected.norm(dim=-1)
    assert torch.allclose(found.error, part, atol=1e-6)


def test_each_instance_has_its_angle_though_parameters_are_shared() -> None:
    P, q = known.definite(3, 3), known.normal(4, 5, 3)
    together = al.compare_backward(PLANE, P, q, backward=al.IgnoreConstraints(), cotangent=values(1.0, 2.0, -0.5))
    for i in range(5):
        alone = al.compare_backward(PLANE, P, q[i], backward=al.IgnoreConstraints(), cotangent=values(1.0, 2.0, -0.5))
        assert torch.allclose(together.angle[i], alone.angle, atol=1e-6)


def test_an_angle_is_accurate_when_small_and_none_where_there_is_no_gradient() -> None:
    x = values([3.0, 4.0], [0.3, 0.4], [3.0, 4.0])
    radial = values([0.6, 0.8], [0.6, 0.8], [-0.8, 0.6])
    found = al.compare_backward(BALL, x, backward=al.IgnoreConstraints(), cotangent=radial)
    assert bool(found.angle[0].isnan())  # the exact gradient vanishes
    assert float(found.angle[1]) == 0.0
    assert float(found.angle[2]) < 1e-7
    assert str(found).splitlines() == [
        "IgnoreConstraints() against KKT(singular='raise', degenerate='active'), 3 instances",
        f"angle in degrees   median {found.angle[1:].median():.3g}, largest {found.angle[1:].max():.3g}",
        "uphill             0 of 2 gradients point away by 90 degrees or more",
        "no angle           1 instances",
    ]


def test_any_two_rules_may_be_compared_at_a_solution_found_before() -> None:
    x = values([3.0, 4.0], [0.3, 0.4])
    solution = al.solve(BALL, x)
    near = al.compare_backward(BALL, x, backward=al.LogBarrier(1e9), solution=solution)
    far = al.compare_backward(BALL, x, backward=al.LogBarrier(1.0), solution=solution, reference=al.IgnoreConstraints())
    assert float(near.angle.max()) < 1e-4 < float(far.angle.max())


def test_nothing_to_compare_is_an_error() -> None:
    problem = al.Problem(lambda u, k: (u - k).square(), "()->()")
    with pytest.raises(al.ProblemError, match="nothing to compare: no parameter of the problem is a float"):
        al.compare_backward(problem, torch.tensor(3), backward=al.IgnoreConstraints())
    with pytest.raises(al.ProblemError, match="the cotangent has shape"):
        al.compare_backward(SPHERE, values(3.0, 4.0), backward=al.IgnoreConstraints(), cotangent=values(1.0, 2.0, 3.0))
