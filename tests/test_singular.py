"""Singular KKT systems: redundant constraints, surfaces of solutions, more equations than unknowns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import argminlayer as al

torch.manual_seed(0)
POINT = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
MATRIX = torch.tensor([[1.0, 0.3, -0.2], [0.1, 1.5, 0.4], [-0.3, 0.2, 0.7]], dtype=torch.float64)
COST = torch.tensor([[0.1, 0.7, 0.3, 0.9], [0.5, 0.2, 0.8, 0.4], [0.6, 0.9, 0.1, 0.2]], dtype=torch.float64)


def jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(function, at)


def half_square(u: Tensor, x: Tensor) -> Tensor:
    return 0.5 * (u - x).square().sum()


def plane(*scales: float) -> al.Problem:
    """Projection onto sum(u) = 1, the equation repeated with different scales."""
    return al.Problem(half_square, "(n)->(n)", equality=lambda u, x: torch.stack([s * (u.sum() - 1) for s in scales]))


def test_an_equation_written_twice_changes_nothing() -> None:
    twice, once = plane(1.0, -2.0), plane(1.0)
    assert torch.allclose(al.argmin(twice, POINT), al.argmin(once, POINT), atol=1e-12)
    assert torch.allclose(jacobian(lambda x: al.argmin(twice, x), POINT), jacobian(lambda x: al.argmin(once, x), POINT))


def test_the_multipliers_of_redundant_constraints_have_least_norm_for_normals_of_length_one() -> None:
    (alone,) = al.solve(plane(1.0), POINT).multipliers.equality
    shared = al.solve(plane(1.0, 2.0), POINT).multipliers.equality
    assert torch.allclose(shared, alone * torch.tensor([0.5, 0.25], dtype=torch.float64))


def test_the_certificate_counts_redundant_constraints() -> None:
    certificate = al.solve(plane(1.0, 2.0, 3.0), POINT).certificate
    assert int(certificate.redundant) == 2
    assert bool(certificate.consistent)
    assert bool(certificate.regular)


def test_redundant_constraints_may_move_together() -> None:
    problem = al.Problem(
        lambda u, b: u.square().sum(), "()->(3)", equality=lambda u, b: torch.stack([u.sum() - b, 2 * u.sum() - 2 * b])
    )
    derivative = jacobian(lambda b: al.argmin(problem, b), torch.tensor(1.5, dtype=torch.float64))
    assert torch.allclose(derivative, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_redundant_constraints_that_part_when_the_parameters_move_are_refused() -> None:
    problem = al.Problem(
        lambda u, b: u.square().sum(), "(2)->(3)", equality=lambda u, b: torch.stack([u.sum() - b[0], u.sum() - b[1]])
    )
    b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    value = al.argmin(problem, b)
    with pytest.raises(al.NotDifferentiable, match="of its 2 active constraints 1 are redundant, and they do not stay"):
        value.sum().backward()


def test_only_the_instances_with_parting_constraints_lose_their_gradient() -> None:
    problem = al.Problem(
        lambda u, b: (u - b).square().sum(),
        "()->(2)",
        inequality=lambda u, b: u.sum() - 1,
        equality=lambda u, b: u.sum() - b,
    )
    b = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
    solution = al.solve(problem, b, throw=False, solver="scipy.trust-constr")
    (gradient,) = torch.autograd.grad(solution.value[:, 0].sum(), b)
    assert bool(solution.ok.all())
    assert torch.allclose(gradient[1], torch.tensor(0.5, dtype=torch.float64))
    assert bool(solution.certificate.weakly_active[0] > 0) or bool(gradient[0].isnan())


def test_a_constant_corner_with_more_constraints_than_unknowns_does_not_move() -> None:
    problem = al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: torch.stack([u[0], u[1], u.sum()]))
    derivative = jacobian(lambda x: al.argmin(problem, x), torch.tensor([3.0, 2.0], dtype=torch.float64))
    assert torch.allclose(derivative, torch.zeros(2, 2, dtype=torch.float64), atol=1e-14)


def test_consistent_equations_beyond_the_unknowns_are_solved_exactly() -> None:
    problem = al.Problem(None, "(2)->(2)", equality=lambda u, x: torch.cat([u - x, (u.sum() - x.sum())[None]]))
    x = torch.tensor([3.0, 2.0], dtype=torch.float64)
    assert torch.allclose(al.argmin(problem, x), x)
    assert torch.allclose(jacobian(lambda t: al.argmin(problem, t), x), torch.eye(2, dtype=torch.float64))


def test_the_nearest_rotation_is_differentiated_with_all_nine_equations() -> None:
    problem = al.Problem(
        lambda U, M: (U - M).square().sum(), "(3,3)->(3,3)", equality=lambda U, M: U.T @ U - torch.eye(3).to(U)
    )

    def polar(M: Tensor) -> Tensor:
        left, _, right = torch.linalg.svd(M)
        return left @ right

    nearest = polar(MATRIX)
    assert torch.allclose(al.argmin(problem, MATRIX, start=nearest), nearest, atol=1e-9)
    found = jacobian(lambda M: al.attach(problem, nearest, M), MATRIX)
    assert torch.allclose(found, jacobian(polar, MATRIX), atol=1e-9)
    assert int(al.certify(problem, nearest, MATRIX).certificate.redundant) == 3


def transport(columns: slice) -> al.Problem:
    def marginals(P: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return P.sum(1) - 1 / 3, (P.sum(0) - 1 / 4)[columns]

    return al.Problem(
        lambda P, C: (P * C).sum() + 0.1 * (P * (P.log() - 1)).sum(),
        "(3,4)->(3,4)",
        equality=marginals,
        lower=1e-12,
        start=lambda C: torch.full_like(C, 1 / 12),
    )


def test_the_redundant_marginal_of_optimal_transport_needs_not_be_dropped() -> None:
    full, reduced = transport(slice(None)), transport(slice(None, -1))
    solution = al.solve(full, COST)
    assert int(solution.certificate.redundant) == 1
    assert torch.allclose(solution.value, al.argmin(reduced, COST), atol=1e-9)
    found, expected = (jacobian(lambda C, p=p: al.argmin(p, C), COST) for p in (full, reduced))
    assert torch.allclose(found, expected, atol=1e-8)


def test_a_feasibility_problem_follows_its_surface_by_the_least_movement() -> None:
    problem = al.Problem(
        None,
        "(2)->(3)",
        equality=lambda u, b: torch.stack([u[0] + u[1] - b[0], u[2] * u[0] - b[1]]),
        start=torch.ones(3, dtype=torch.float64),
    )
    b = torch.tensor([2.0, 1.0], dtype=torch.float64)
    solution = al.solve(problem, b)
    u = solution.value
    normals = torch.tensor([[1.0, 1.0, 0.0], [u[2], 0.0, u[0]]], dtype=torch.float64)
    assert int(solution.certificate.freedom) == 1
    assert torch.allclose(jacobian(lambda b: al.attach(problem, u, b), b), torch.linalg.pinv(normals), atol=1e-12)


def test_a_solution_that_is_not_isolated_is_refused_unless_the_least_norm_is_asked_for() -> None:
    problem = al.Problem(lambda u, x: (u[0] + 2 * u[1] - x) ** 2, "()->(2)")
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = al.argmin(problem, x)
    with pytest.raises(
        al.NotDifferentiable, match=r"not isolated: it may move in 1 independent directions.*minimum-norm"
    ):
        value.sum().backward()
    least = jacobian(lambda t: al.argmin(problem, t, backward=al.KKT(singular="minimum-norm")), x.detach())
    assert torch.allclose(least, torch.tensor([0.2, 0.4], dtype=torch.float64))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 'raise', 'minimum-norm' or al.proximal\(delta\), not 'ignore'"):
        al.KKT(singular="ignore")  # type: ignore[arg-type]


def test_second_derivatives_pass_through_redundant_constraints() -> None:
    x = POINT.clone().requires_grad_()
    problem = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: torch.stack([u @ u - 1, 2 * u @ u - 2]))
    unit = (POINT / POINT.norm()).detach()

    def loss(x: Tensor) -> Tensor:
        return (al.attach(problem, unit, x) ** 3).sum()

    expected = torch.autograd.functional.hessian(lambda x: ((x / x.norm()) ** 3).sum(), x)
    assert torch.allclose(torch.autograd.functional.hessian(loss, x), expected, atol=1e-9)


def test_a_balance_at_every_node_of_a_network_stays_consistent_whatever_flows():
    # the balances add up to zero: inflow and outflow are the same parameter with two signs
    incidence = torch.tensor([[1.0, 1, 0, 0], [-1, 0, 1, 0], [0, -1, -1, 1], [0, 0, 0, -1]], dtype=torch.float64)
    problem = al.Problem(
        lambda u, s: (u**2 * torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=u.dtype)).sum(),
        "()->(4)",
        equality=lambda u, s: incidence @ u - torch.stack([s, 0 * s, 0 * s, -s]),
    )
    s = torch.tensor(2.0, dtype=torch.float64)
    solution = al.solve(problem, s)
    assert (int(solution.certificate.redundant), bool(solution.certificate.consistent)) == (1, True)
    (jacobian,) = torch.autograd.functional.jacobian(lambda s: (al.argmin(problem, s),), (s,))[0]
    # linear in s
    torch.testing.assert_close(jacobian, solution.value.detach() / 2.0)
