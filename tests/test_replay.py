"""Recorded derivative programs: the same numbers, noticed changes, and nothing recorded that may not be."""

import math
import random
from functools import partial

import known_problems
import pytest
import torch

import argminlayer as al
from argminlayer import _replay

DOUBLE = torch.float64
X = torch.tensor([[0.4, -1.2, 0.7], [1.1, 0.3, -0.5]], dtype=DOUBLE)
SCALE = 2.0


def count(monkeypatch):
    """Return a list that grows with every recording; its entries say whether it was accepted."""
    recorded = []
    record = _replay._record

    def counting(*arguments):
        entry = record(*arguments)
        recorded.append(entry.program is not None)
        return entry

    monkeypatch.setattr(_replay, "_record", counting)
    return recorded


def gradient(problem, x, times=1, **options):
    """Return the gradient of a weighted sum, of the last of several backward passes."""
    x = x.clone().requires_grad_()
    weight = torch.cos(torch.arange(x.shape[-1], dtype=DOUBLE))
    for _ in range(times):
        value = al.argmin(problem, x, solver="scipy", **options)
        (found,) = torch.autograd.grad((value * weight).sum(), x)
    return found


@pytest.mark.parametrize("case", known_problems.CASES, ids=lambda case: case.name)
def test_a_replay_gives_the_gradient_of_the_original(case):
    leaves = [p.detach().clone().requires_grad_(p.is_floating_point()) for p in case.parameters]
    wanted = [p for p in leaves if p.requires_grad]
    answer = case.answer()
    results = []
    for _ in range(3):
        value = known_problems.as_tuple(al.attach(case.problem, known_problems.as_variables(answer), *leaves))
        weights = (torch.cos(torch.arange(part.numel(), dtype=part.dtype)).reshape(part.shape) for part in value)
        total = sum((part * weight).sum() for part, weight in zip(value, weights, strict=True))
        results.append(torch.autograd.grad(total, wanted, allow_unused=True))
    for later in results[1:]:
        torch.testing.assert_close(later, results[0], rtol=1e-9, atol=1e-11)


def test_a_program_is_recorded_the_second_time_and_replayed_from_then_on(monkeypatch):
    recorded = count(monkeypatch)
    problem = al.Problem(lambda u, x: ((u - x) ** 4 + (u - x) ** 2).sum(), "(n)->(n)")
    for expected in ([], [True], [True], [True]):
        gradient(problem, X)
        assert recorded == expected


def test_other_shapes_get_programs_of_their_own(monkeypatch):
    recorded = count(monkeypatch)
    problem = al.Problem(lambda u, x: ((u - x) ** 4 + (u - x) ** 2).sum(), "(n)->(n)")
    for x in (X, X[:1], X[:, :2], X[0]):
        torch.testing.assert_close(gradient(problem, x, 3), gradient(problem, x))
    assert recorded == [True] * 4


def changing(read):
    """Return a problem whose solution is x over ``1 + c``, where c is read anew at every call."""
    return al.Problem(lambda u, x: 0.5 * (1 + read()) * u @ u - u @ x, "(n)->(n)")


def test_a_number_in_the_closure_that_changes_is_noticed(monkeypatch):
    recorded = count(monkeypatch)
    c = 1.0
    problem = al.Problem(lambda u, x: 0.5 * (1 + c) * u @ u - u @ x, "(n)->(n)")
    before = gradient(problem, X, 3)
    c = 3.0
    torch.testing.assert_close(gradient(problem, X), before / 2)
    torch.testing.assert_close(gradient(problem, X, 3), before / 2)
    assert recorded == [True, True]


def test_a_number_in_the_closure_of_a_function_that_is_called_is_noticed():
    c = 1.0

    def inner():
        return c

    problem = changing(inner)
    before = gradient(problem, X, 3)
    c = 3.0
    torch.testing.assert_close(gradient(problem, X), before / 2)


def test_a_global_that_changes_is_noticed(monkeypatch):
    problem = al.Problem(lambda u, x: 0.5 * (SCALE + 0.0) * u @ u - u @ x, "(n)->(n)")
    before = gradient(problem, X, 3)
    monkeypatch.setitem(globals(), "SCALE", 4.0)
    torch.testing.assert_close(gradient(problem, X), before / 2)


@pytest.mark.parametrize("how", ["value", "item"])
def test_a_captured_tensor_that_is_written_in_place_is_noticed(how):
    c = torch.tensor(1.0, dtype=DOUBLE)
    problem = changing(lambda: c if how == "value" else c.item())
    before = gradient(problem, X, 3)
    c.fill_(3.0)
    torch.testing.assert_close(gradient(problem, X), before / 2)


@pytest.mark.parametrize("kind", ["list", "dictionary", "object", "module", "array", "class", "method"])
def test_what_may_change_unseen_is_not_recorded(monkeypatch, kind):
    recorded = count(monkeypatch)

    class Settings:
        c = 1.0

    holders = {
        "list": ([1.0], lambda h: h[0], lambda h: h.__setitem__(0, 3.0)),
        "dictionary": ({"c": 1.0}, lambda h: h["c"], lambda h: h.__setitem__("c", 3.0)),
        "object": (Settings(), lambda h: h.c, lambda h: setattr(h, "c", 3.0)),
        "class": (Settings, lambda h: h.c, lambda h: setattr(h, "c", 3.0)),
        "module": (
            torch.nn.Linear(1, 1).requires_grad_(False),
            lambda h: h.weight.item() * 0 + h.c,
            lambda h: setattr(h, "c", 3.0),
        ),
        "method": ([1.0].__getitem__, lambda h: h(0), lambda h: h.__self__.__setitem__(0, 3.0)),
        "array": (torch.ones(1, dtype=DOUBLE).numpy(), lambda h: float(h[0]), lambda h: h.__setitem__(0, 3.0)),
    }
    holder, read, change = holders[kind]
    if kind == "module":
        holder.c = 1.0
    problem = changing(lambda: read(holder))
    before = gradient(problem, X, 3)
    change(holder)
    torch.testing.assert_close(gradient(problem, X), before / 2)
    assert recorded == [False]


def test_control_flow_that_depends_on_parameters_is_run_as_it_is():
    def objective(u, x):
        return 0.5 * (u - x) @ (u - x) if x.sum() > 0 else 2.0 * (u - 3.0 * x) @ (u - 3.0 * x)

    problem = al.Problem(objective, "(n)->(n)")
    positive, negative = X[1], -X[1]
    for _ in range(3):
        torch.testing.assert_close(gradient(problem, negative), 3.0 * gradient(problem, positive))


def test_functions_that_draw_random_numbers_are_not_recorded(monkeypatch):
    recorded = count(monkeypatch)
    problem = al.Problem(lambda u, x: (u - x).square().sum() * (1.0 + 0.0 * torch.rand(())), "(n)->(n)")
    gradient(problem, X[0], 3)
    other = al.Problem(lambda u, x: (u - x).square().sum() * (1.0 + 0.0 * random.random()), "(n)->(n)")
    gradient(other, X[0], 3)
    assert recorded == [False, False]


def test_a_gradient_can_be_changed_in_place_without_touching_anything_else():
    captured = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    problem = al.Problem(lambda u, x, a: 0.5 * u @ u - (a * x * captured) @ u, "(n),(n)->(n)")
    x, a = X[0].clone().requires_grad_(), X[1].clone().requires_grad_()
    copies = x.detach().clone(), a.detach().clone(), captured.clone()
    for _ in range(4):
        value = al.argmin(problem, x, a)
        cotangent = torch.ones_like(value)
        for g in torch.autograd.grad(value, (x, a), cotangent):
            g.mul_(100.0)
        assert torch.equal(cotangent, torch.ones_like(value))
    for kept, tensor in zip(copies, (x, a, captured), strict=True):
        assert torch.equal(kept, tensor.detach())


def test_partial_functions_methods_and_mathematics_are_recorded(monkeypatch):
    recorded = count(monkeypatch)

    def objective(c, u, x):
        return math.exp(c) * torch.nn.functional.softplus(u - x).sum() + u @ u

    gradient(al.Problem(partial(objective, 0.3), "(n)->(n)"), X, 3)
    assert recorded == [True]


def test_programs_of_a_problem_go_with_it_and_are_bounded():
    problem = al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)")
    for size in range(1, _replay.ENTRIES + 6):
        gradient(problem, torch.ones(size, dtype=DOUBLE))
    assert len(_replay.REPLAYS._entries[problem]) == _replay.ENTRIES
    del problem
    assert all(kept is not None for kept in _replay.REPLAYS._entries)
