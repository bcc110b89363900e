"""The optimal value as a differentiable output: the envelope theorem."""

import pytest
import torch
from torch import Tensor

import argminlayer as al

torch.manual_seed(0)
MIXED = al.Problem(
    lambda u, x, r: (u - x).square().sum() + (u @ x).square(),
    "(n),()->(n)",
    inequality=lambda u, x, r: u @ u - r**2,
    equality=lambda u, x, r: u.sum() - r * x[0],
    lower=lambda x, r: x - 2 * r,
)
X = torch.tensor([[0.4, -1.1, 0.6], [1.2, 0.3, -0.2]], dtype=torch.float64)
RADIUS = torch.tensor(1.5, dtype=torch.float64)


def value(x: Tensor, r: Tensor) -> Tensor:
    return al.solve(MIXED, x, r).objective


def test_first_and_second_derivatives_agree_with_differences() -> None:
    leaves = (X.clone().requires_grad_(), RADIUS.clone().requires_grad_())
    assert torch.autograd.gradcheck(value, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(value, leaves)


def test_value_solution_and_multipliers_share_one_backward() -> None:
    def everything(x: Tensor, r: Tensor) -> Tensor:
        solution = al.solve(MIXED, x, r)
        return solution.objective + solution.value.sum(-1) + solution.multipliers.equality[..., 0]

    assert torch.autograd.gradcheck(everything, (X.clone().requires_grad_(), RADIUS.clone().requires_grad_()))


def test_the_value_of_a_maximum_has_the_derivative_of_the_maximum() -> None:
    problem = al.Problem(lambda u, x: x @ u - u @ u, "(n)->(n)", maximize=True)
    x = X.clone().requires_grad_()
    (found,) = torch.autograd.grad(al.solve(problem, x).objective.sum(), x)
    assert torch.allclose(found, X / 2)


def test_the_value_has_a_derivative_where_the_solution_has_none() -> None:
    line = al.Problem(lambda u, x: (u.sum() - x).square() + x.square(), "()->(2)")
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    solution = al.solve(line, x)
    (found,) = torch.autograd.grad(solution.objective, x, retain_graph=True)
    assert float(found) == pytest.approx(2.0)
    with pytest.raises(al.NotDifferentiable):
        solution.value.sum().backward()


def test_the_value_of_a_failed_instance_is_nan_and_so_is_its_derivative() -> None:
    problem = al.Problem(lambda u, x: u @ u, "()->(2)", inequality=lambda u, x: torch.stack([u[0] - x, 1 - u[0]]))
    x = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    solution = al.solve(problem, x, throw=False)
    (found,) = torch.autograd.grad(solution.objective.sum(), x)
    assert solution.objective.isnan().tolist() == [True, False]
    assert found.isnan().tolist() == [True, False]


def test_a_fixed_point_is_found_and_differentiated() -> None:
    weights = torch.tensor([[0.2, -0.1], [0.3, 0.1]], dtype=torch.float64)
    equilibrium = al.fixed_point(lambda u, x: torch.tanh(weights @ u + x), "(n)->(n)")
    x = torch.tensor([[0.5, -0.3], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    u = al.argmin(equilibrium, x)
    assert torch.allclose(u, torch.tanh(u @ weights.T + x))
    assert torch.autograd.gradcheck(lambda t: al.argmin(equilibrium, t), (x,))


def test_a_fixed_point_of_several_variables() -> None:
    pair = al.fixed_point(lambda u, x: (0.5 * u[1] + x, 0.5 * u[0].sum(0, keepdim=True)), "(2)->(2),(1)")
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    first, second = al.argmin(pair, x)
    assert torch.allclose(first, 0.5 * second + x)
    assert torch.allclose(second, 0.5 * first.sum())
