"""Layers read from CVXPY: solutions against CVXPY's own, derivatives against differences of solved problems."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy_problems import PROBLEMS, assign, value_of

import argminlayer as al

STEP = 1e-5


def layer_of(name):
    """Return the problem, a layer that returns its variables and dual variables, and these."""
    problem, constraints = PROBLEMS[name]()
    wanted = [*problem.variables(), *(dual for constraint in constraints for dual in constraint.dual_variables)]
    reading = {"gp": True} if name == "geometric" else {}
    return problem, al.ArgminLayer(problem, parameters=problem.parameters(), variables=wanted, **reading), wanted


def in_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def draw(problem, generator, batch):
    return [torch.tensor(np.stack([value_of(p, generator) for _ in range(batch)])) for p in problem.parameters()]


@pytest.mark.parametrize("name", PROBLEMS)
def test_values_are_those_of_cvxpy_and_derivatives_those_of_differences(name):
    problem, layer, wanted = layer_of(name)
    generator = np.random.default_rng(3)
    values, directions = draw(problem, generator, 2), draw(problem, generator, 2)
    values = [value.requires_grad_() for value in values]
    outputs = in_tuple(layer(*values))
    for k in range(2):
        assign(problem.parameters(), [value[k].detach().numpy() for value in values])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CVXPY warns of its own sparse variables, and of such tolerances
            problem.solve(solver=cp.CLARABEL, gp=name == "geometric", tol_gap_abs=1e-12, tol_gap_rel=1e-12)
        for output, variable in zip(outputs, wanted, strict=True):
            expected = variable.value_sparse if variable.sparse_idx is not None else variable.value
            expected = expected.toarray() if hasattr(expected, "toarray") else expected
            np.testing.assert_allclose(output[k].detach(), expected, atol=1e-4)

    weights = [torch.tensor(generator.standard_normal(tuple(output.shape))) for output in outputs]

    def loss(found):
        return sum((output * weight).reshape(2, -1).sum(1) for output, weight in zip(found, weights, strict=True))

    gradients = torch.autograd.grad(loss(outputs).sum(), values)
    slope = sum((g * d).reshape(2, -1).sum(1) for g, d in zip(gradients, directions, strict=True))
    with torch.no_grad():
        ahead, behind = (
            loss(in_tuple(layer(*(v + t * d for v, d in zip(values, directions, strict=True))))) for t in (STEP, -STEP)
        )
    torch.testing.assert_close(slope, (ahead - behind) / (2 * STEP), rtol=1e-6, atol=1e-6)
    _, forward = torch.func.jvp(lambda *p: loss(in_tuple(layer(*p))), tuple(values), tuple(directions))
    torch.testing.assert_close(forward, slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["lasso", "ball", "semidefinite, side 4", "entropy", "power cones", "geometric"])
def test_second_derivatives_are_those_of_differences(name):
    problem, layer, _ = layer_of(name)
    generator = np.random.default_rng(4)
    values, directions = draw(problem, generator, 1), draw(problem, generator, 1)

    def slope(t):
        given = [(v + t * d).requires_grad_() for v, d in zip(values, directions, strict=True)]
        total = sum(output.square().sum() for output in in_tuple(layer(*given)))
        gradients = torch.autograd.grad(total, given, create_graph=True)
        return sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)), given

    now, given = slope(0.0)
    second = sum((g * d).sum() for g, d in zip(torch.autograd.grad(now, given), directions, strict=True))
    measured = (slope(STEP)[0] - slope(-STEP)[0]) / (2 * STEP)
    torch.testing.assert_close(second, measured, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_shared_parameter_is_the_sum_over_the_batch():
    problem, layer, _ = layer_of("ball")
    generator = np.random.default_rng(5)
    several, shared = draw(problem, generator, 3), draw(problem, generator, 1)
    together = [several[0], *(value[0].clone().requires_grad_() for value in shared[1:])]
    sum(output.sum() for output in in_tuple(layer(*together))).backward()
    for position in range(1, len(together)):
        expected = torch.zeros_like(together[position])
        for k in range(3):
            one = [several[0][k], *(value[0].clone().requires_grad_() for value in shared[1:])]
            sum(output.sum() for output in in_tuple(layer(*one))).backward()
            expected += one[position].grad
        torch.testing.assert_close(together[position].grad, expected, rtol=1e-6, atol=1e-8)


def test_small_cotangents_are_not_lost():
    problem, layer, _ = layer_of("semidefinite, side 6")
    value = draw(problem, np.random.default_rng(6), 1)[0].requires_grad_()
    outputs = in_tuple(layer(value))
    (large,) = torch.autograd.grad(outputs[0][:, 0].sum(), value, retain_graph=True)
    (small,) = torch.autograd.grad(1e-12 * outputs[0][:, 0].sum(), value)
    assert large.abs().max() > 1e-3
    torch.testing.assert_close(small * 1e12, large, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["cvxpy.clarabel", "cvxpy.scs", "cvxpy.ecos", "cvxpy:scs"])
def test_the_gradient_does_not_depend_on_the_solver(solver):
    problem, layer, _ = layer_of("ball")
    values = [value.requires_grad_() for value in draw(problem, np.random.default_rng(7), 2)]
    expected = torch.autograd.grad(sum(o.square().sum() for o in layer(*values)), values)
    found = torch.autograd.grad(sum(o.square().sum() for o in layer(*values, solver=solver)), values)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-7)


def test_sparse_tensors_are_parameters():
    places = ([0, 1, 3], [1, 2, 0])
    S, x, b = cp.Parameter((4, 4), sparsity=places, name="S"), cp.Variable(4), np.arange(4.0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) + cp.sum_squares(S @ x)), [])
    layer = al.ArgminLayer(problem, parameters=[S], variables=[x])
    entries = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)

    def solution(given):
        return layer(torch.sparse_coo_tensor(torch.tensor(places), given, (4, 4), check_invariants=True))

    dense = torch.zeros(4, 4, dtype=torch.float64)
    dense[places] = entries.detach()
    expected = torch.linalg.solve(torch.eye(4, dtype=torch.float64) + dense.mT @ dense, torch.arange(4.0).double())
    torch.testing.assert_close(solution(entries), expected)
    torch.testing.assert_close(layer(dense), expected)
    solution(entries)[1].backward()
    with torch.no_grad():
        steps = torch.eye(3, dtype=torch.float64) * STEP
        measured = [(solution(entries + e)[1] - solution(entries - e)[1]) / (2 * STEP) for e in steps]
    torch.testing.assert_close(entries.grad, torch.stack(measured), rtol=1e-6, atol=1e-8)
