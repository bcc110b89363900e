"""Derivatives of cone programs against central differences of programs that are solved again."""

import pytest
import torch
from cone_programs import CURVED, RawClarabel, isolated, random_programs

import argminlayer as al

FINE = RawClarabel(tol=1e-10)
STEP = 1e-6


def solved(known, *data):
    return al.argmin(known.problem, *data, solver=FINE)


def along(values, weights):
    return sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize(("cones", "n"), CURVED.values(), ids=CURVED)
def test_gradients_of_solution_and_multipliers_are_those_of_differences(cones, n, quadratic):
    known = isolated(cones, n, quadratic=quadratic)
    data = [t.clone().requires_grad_() for t in known.data]
    values = solved(known, *data)
    weights = [torch.cos(torch.arange(v.numel(), dtype=v.dtype)).reshape(v.shape) for v in values]
    gradients = torch.autograd.grad(along(values, weights), data)
    moves = [torch.sin(1.0 + torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape) for t in data]
    ahead, behind = (
        solved(known, *(t.detach() + h * d for t, d in zip(data, moves, strict=True))) for h in (STEP, -STEP)
    )
    measured = (along(ahead, weights) - along(behind, weights)) / (2 * STEP)
    exact = along(gradients, moves)
    scale = sum((g * d).abs().sum() for g, d in zip(gradients, moves, strict=True))
    assert abs(exact - measured) < 1e-6 * scale


@pytest.mark.parametrize(("cones", "n"), CURVED.values(), ids=CURVED)
def test_answers_are_refined_to_rounding(cones, n):
    known = random_programs(cones, n, seed=3)
    solution = al.solve(known.problem, *known.data, solver=RawClarabel())
    assert solution.certificate.error.max() < 1e-12
    assert torch.allclose(solution.value[0], known.x, atol=1e-9)
    assert torch.allclose(solution.slack, known.s, atol=1e-9)


def test_a_matrix_of_twenty_by_twenty():
    known = random_programs(al.Cones(5, 0, (), (20,)), 150, batch=2)
    q = known.q.clone().requires_grad_()
    value = solved(known, known.P, q, known.A, known.b)[0]
    weight = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
    (gradient,) = torch.autograd.grad((value * weight).sum(), q)
    move = torch.sin(torch.arange(q.numel(), dtype=q.dtype)).reshape(q.shape)
    ahead, behind = (solved(known, known.P, known.q + h * move, known.A, known.b)[0] for h in (1e-5, -1e-5))
    measured = ((ahead - behind) / 2e-5 * weight).sum()
    assert abs((gradient * move).sum() - measured) < 1e-6 * (gradient * move).abs().sum()


def test_small_cotangents_give_gradients_in_proportion():
    known = random_programs(*CURVED["semidefinite"])
    q = known.q.clone().requires_grad_()
    value = solved(known, known.P, q, known.A, known.b)[0]
    (plain,) = torch.autograd.grad(value.sum(), q, retain_graph=True)
    (small,) = torch.autograd.grad(1e-9 * value.sum(), q)
    assert torch.allclose(small * 1e9, plain, rtol=1e-9, atol=1e-14)


def test_what_the_batch_shares_receives_the_sum():
    known = random_programs(al.Cones(1, 4, (3,)), 6, batch=1)
    q = known.q + 0.1 * torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared = [t[0].clone().requires_grad_() for t in (known.P, known.A, known.b)]
    each = [t.detach().expand(4, -1).clone().requires_grad_() for t in shared]
    gradients = []
    for P, A, b in (shared, each):
        value = al.argmin(known.problem, P, q, A, b, solver=FINE)[0]
        gradients.append(torch.autograd.grad(value.square().sum(), (P, A, b)))
    for one, many in zip(*gradients, strict=True):
        assert torch.allclose(one, many.sum(0), atol=1e-10)


def test_instances_do_not_depend_on_their_batch():
    known = random_programs(*CURVED["all"], batch=4)
    whole = solved(known, *known.data)[0]
    alone = torch.stack([solved(known, *(t[i] for t in known.data))[0] for i in range(4)])
    assert torch.allclose(whole, alone, atol=1e-11)


def test_single_precision_comes_back_as_it_went_in():
    known = random_programs(*CURVED["second-order"])
    data = [t.float().requires_grad_() for t in known.data]
    value, z = al.argmin(known.problem, *data, solver=FINE)
    assert value.dtype == z.dtype == torch.float32
    value.sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in data)
    assert torch.allclose(value.double(), known.x, atol=1e-3)


def test_leading_dimensions_broadcast():
    known = random_programs(*CURVED["second-order"], batch=1)
    P, q, A, b = (t[0] for t in known.data)
    shift = 0.01 * torch.arange(6, dtype=torch.float64).reshape(2, 3, 1)
    value = al.argmin(known.problem, P, q + shift, A, b + 0.01 * torch.ones(3, 1, dtype=b.dtype), solver=FINE)[0]
    assert value.shape == (2, 3, len(q))
    one = al.argmin(known.problem, P, q + shift[1, 2], A, b + 0.01, solver=FINE)[0]
    assert torch.allclose(value[1, 2], one, atol=1e-11)


def test_an_empty_batch_has_gradients():
    known = random_programs(*CURVED["second-order"])
    data = [t[:0].clone().requires_grad_() for t in known.data]
    value = al.argmin(known.problem, *data, solver=FINE)[0]
    assert value.shape == (0, known.x.shape[1])
    value.sum().backward()
    assert all(t.grad.shape == t.shape for t in data)
