"""Large sparse cone programs: one sparse factorisation each, with the same answers and gradients as dense ones."""

import numpy as np
import pytest
import torch
from cone_programs import CURVED, RawClarabel, isolated, square

import argminlayer as al
from argminlayer.cones import _programs
from argminlayer.cones._separable import SeparableMatrices
from argminlayer.cones._sparse import SparseMatrices

FINE = RawClarabel(tol=1e-10)


@pytest.fixture
def always_sparse(monkeypatch):
    """Keep matrices of any size by their entries."""
    monkeypatch.setattr(_programs, "TINY", 0)
    monkeypatch.setattr(_programs, "LARGE", -1)
    monkeypatch.setattr(_programs, "FILLED", 1e9)


def gradients(known):
    data = [t.clone().requires_grad_() for t in known.data]
    x, z = al.argmin(known.problem, *data, solver=FINE)
    loss = x.square().sum() + z.cos().sum()
    first = torch.autograd.grad(loss, data, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), data)
    return (x, z, *first, *second)


@pytest.mark.parametrize(("cones", "n"), CURVED.values(), ids=CURVED)
def test_sparse_and_dense_systems_agree(cones, n, monkeypatch):
    known = isolated(cones, n)
    dense = gradients(known)
    monkeypatch.setattr(_programs, "LARGE", -1)
    monkeypatch.setattr(_programs, "FILLED", 1e9)
    for one, other in zip(dense, gradients(known), strict=True):
        assert torch.allclose(one, other, atol=1e-8 * (1.0 + float(one.detach().abs().max())))


@pytest.mark.usefixtures("always_sparse")
def test_a_sparse_solution_that_is_not_isolated_has_the_derivative_that_is_determined():
    problem = square()
    b = torch.ones(4, dtype=torch.float64).requires_grad_()
    value = al.argmin(problem, b, solver=FINE)
    (gradient,) = torch.autograd.grad(value[0], b, retain_graph=True)
    assert torch.allclose(gradient, torch.tensor([0.0, 0.0, -1.0, 0.0]).double(), atol=1e-9)
    with pytest.raises(al.NotDifferentiable):
        torch.autograd.grad(value[1], b)
    tangent = torch.func.jvp(lambda b: al.argmin(problem, b, solver=FINE), (b.detach(),), (torch.ones_like(b),))[1]
    assert tangent[0].item() == pytest.approx(-1.0)
    solution = al.solve(problem, b, solver=FINE)
    assert solution.certificate.freedom == 1
    assert solution.certificate.redundant == 0


def test_projections_of_long_vectors_onto_the_norm_ball_and_the_simplex():
    """``min 1/2 |x - y|^2 s.t. |x| <= 1`` and ``x >= 0, 1'x = 1`` for vectors of 500."""
    n, batch = 500, 3
    y = torch.randn(batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    diagonal = np.arange(n)
    one = torch.ones(n, dtype=torch.float64)

    def ball(y):
        b = torch.cat([one[:1], torch.zeros(n, dtype=torch.float64)])
        return one, -y, -one, b

    def simplex(y):
        b = torch.cat([one[:1], torch.zeros(n, dtype=torch.float64)])
        return one, -y, torch.cat([one, -one]), b

    rows = al.ConePattern(n, al.Cones(0, 0, (n + 1,)), diagonal, diagonal, 1 + diagonal, diagonal)
    sums = al.ConePattern(
        n, al.Cones(1, n), diagonal, diagonal, np.r_[0 * diagonal, 1 + diagonal], np.r_[diagonal, diagonal]
    )
    y.requires_grad_()
    for data, pattern, expected in (
        (ball, rows, y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)),
        (simplex, sums, sorted_simplex(y)),
    ):
        problem = al.ConeProgram(f"({n})->({n})", pattern, data)
        assert isinstance(_programs.matrices_of(pattern, one[None], one[None]), SparseMatrices) == (data is simplex)
        value = al.argmin(problem, y, solver=FINE)
        assert torch.allclose(value, expected, atol=1e-10)
        weight = torch.cos(torch.arange(batch * n, dtype=y.dtype)).reshape(batch, n)
        got, want = (torch.autograd.grad((v * weight).sum(), y, retain_graph=True)[0] for v in (value, expected))
        assert torch.allclose(got, want, atol=1e-9)


@pytest.mark.usefixtures("always_sparse")
def test_separable_systems_agree_with_sparse_ones(monkeypatch):
    """``min sum 1/2 p x^2 + q x`` over two equalities, lower bounds by rows with two signs, and one upper bound."""
    n, batch = 7, 4
    draw = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    diagonal = np.arange(n)
    rows = np.r_[0 * diagonal, 0 * diagonal + 1, 2 + diagonal, 2 + n]
    pattern = al.ConePattern(n, al.Cones(2, n + 1), diagonal, diagonal, rows, np.r_[diagonal, diagonal, diagonal, 3])
    sign = torch.where(torch.arange(n) % 2 == 0, -1.0, -2.0).double()

    def data(p, q, E, b, low):
        A = torch.cat([E.flatten(-2), sign.expand(*E.shape[:-2], n), sign.new_ones(*E.shape[:-2], 1)], -1)
        return p, q, A, torch.cat([b, sign * low, b.new_full((*b.shape[:-1], 1), 3.0)], -1)

    problem = al.ConeProgram(
        f"({n}),({n}),(2,{n}),(2),({n})->({n}),({n + 3})", pattern, data, lambda x, z: (x, z), multipliers=True
    )
    E = normal(batch, 2, n)
    given = [normal(batch, n).exp(), 2.0 * normal(batch, n), E, E.sum(-1), 0.3 * normal(batch, n)]
    assert isinstance(_programs.matrices_of(pattern, given[0], given[0]), SeparableMatrices)

    def both():
        data = [t.clone().requires_grad_() for t in given]
        x, z = al.argmin(problem, *data, solver=FINE)
        first = torch.autograd.grad(x.square().sum() + z.sin().sum(), data, create_graph=True)
        return x, z, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), data)

    separable = both()
    monkeypatch.setattr(_programs, "prefers_separable", lambda _: False)
    for one, other in zip(separable, both(), strict=True):
        assert torch.allclose(one, other, atol=1e-8 * (1.0 + float(one.detach().abs().max())))


def sorted_simplex(y):
    """Return the projection onto the simplex by sorting."""
    ordered = torch.sort(y, dim=-1, descending=True).values
    count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype)
    level = (ordered.cumsum(-1) - 1.0) / count
    last = (ordered > level).sum(-1, keepdim=True) - 1
    return (y - level.gather(-1, last)).clamp_min(0.0)
