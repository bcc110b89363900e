"""The plugin passes the suite that argminlayer ships, and its model becomes a layer."""

import outsider
import pytest
import torch

import argminlayer as al
from argminlayer.testing import SolverConformance


class TestNewton(SolverConformance):
    solver = outsider.Newton()


def test_the_solver_is_found_by_its_name():
    problem = al.Problem(
        lambda u, x: (u - x).square().sum(), "(n)->(n)", equality=lambda u, x: u.square().sum() - 1, start=lambda x: x
    )
    x = torch.tensor([[3.0, 4.0], [0.6, -0.8]], dtype=torch.float64)
    solution = al.solve(problem, x, solver="outsider")
    assert solution.solver == "outsider.newton"
    torch.testing.assert_close(solution.value, x / x.norm(dim=-1, keepdim=True))


def test_the_model_is_a_layer_whose_gradient_is_that_of_the_fit():
    layer = al.ArgminLayer(outsider.BoxFit(0.0, 1.0))
    A = torch.eye(3, dtype=torch.float64)
    b = torch.tensor([-0.5, 0.25, 2.0], dtype=torch.float64, requires_grad=True)
    fit = layer(A, b)
    torch.testing.assert_close(fit, b.clamp(0.0, 1.0))
    (gradient,) = torch.autograd.grad(fit.sum(), b)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


def test_the_plugin_refuses_what_its_solver_does_not_claim():
    problem = outsider.BoxFit(0.0, 1.0).problem()
    A, b = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(al.SolverError, match=r"outsider\.newton: does not handle bounds"):
        al.argmin(problem, A, b, solver="outsider")


def test_an_empty_box_is_refused():
    with pytest.raises(al.ProblemError, match=r"the box from 1\.0 to 0\.0 is empty; give lower <= upper"):
        outsider.BoxFit(1.0, 0.0)


def test_other_models_are_left_to_other_plugins():
    assert outsider.argminlayer_read_model(model=object()) is None
