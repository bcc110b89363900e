"""``al.cone_program``: dense and sparse arrays, shared or not, and what is wrong with them."""

import pytest
import torch
from cone_programs import RawClarabel, isolated

import argminlayer as al

FINE = RawClarabel(tol=1e-10)
CONES = al.Cones(1, 2, (3,), (2,))
N = 5


def arrays(batch=3):
    known = isolated(CONES, N, batch=batch)
    upper = torch.zeros(batch, N, N, dtype=torch.float64)
    upper[:, known.pattern.P_rows, known.pattern.P_columns] = known.P
    P = upper + upper.mT - torch.diag_embed(upper.diagonal(dim1=1, dim2=2))
    return known, [
        t.requires_grad_() for t in (P, known.q.clone(), known.A.reshape(batch, -1, N).clone(), known.b.clone())
    ]


def test_solution_slack_and_multipliers_are_those_of_the_program():
    known, given = arrays()
    x, s, z = al.cone_program(*given, CONES, solver=FINE)
    for found, expected in ((x, known.x), (s, known.s), (z, known.z)):
        assert torch.allclose(found, expected, atol=1e-9)


def test_every_array_has_its_gradient():
    _, given = arrays()

    def loss(*data):
        x, s, z = al.cone_program(*data, CONES, solver=FINE)
        return x.sin().sum() + s.cos().sum() + z.square().sum()

    gradients = torch.autograd.grad(loss(*given), given)
    assert torch.allclose(gradients[0], gradients[0].mT)
    h = 1e-6
    for k, gradient in enumerate(gradients):
        move = torch.cos(torch.arange(gradient.numel(), dtype=gradient.dtype)).reshape(gradient.shape)
        ahead, behind = (
            loss(*(t.detach() + step * move if i == k else t.detach() for i, t in enumerate(given))) for step in (h, -h)
        )
        assert ((gradient * move).sum() - (ahead - behind) / (2 * h)).abs() < 1e-6 * (gradient * move).abs().sum()


def test_only_the_symmetric_part_of_the_matrix_counts():
    _, given = arrays()
    P = given[0].detach()
    turned = P + torch.triu(torch.ones(N, N), 1).to(P) - torch.tril(torch.ones(N, N), -1).to(P)
    one, other = (al.cone_program(M, *given[1:], CONES, solver=FINE)[0] for M in (P, turned))
    assert torch.allclose(one, other, atol=1e-10)


def test_sparse_matrices_are_shared_and_keep_sparse_gradients():
    _, given = arrays(batch=1)
    P, q, A, b = (t.detach()[0] for t in given)
    q = q + 0.01 * torch.arange(3, dtype=q.dtype)[:, None]
    dense = [P.clone().requires_grad_(), A.clone().requires_grad_()]
    sparse = [P.to_sparse().requires_grad_(), A.to_sparse().requires_grad_()]
    values, gradients = [], []
    for own_P, own_A in (dense, sparse):
        x, s, _ = al.cone_program(own_P, q, own_A, b, CONES, solver=FINE)
        values.append(x.detach())
        gradients.append(torch.autograd.grad(x.square().sum() + s.sum(), (own_P, own_A)))
    assert torch.allclose(*values, atol=1e-11)
    for one, other in zip(*gradients, strict=True):
        assert other.layout != torch.strided
        assert torch.allclose(one, other.to_dense(), atol=1e-9)


def test_a_linear_objective_needs_no_matrix():
    A = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    x, s, z = al.cone_program(None, torch.tensor([-1.0, -2.0]).double(), A, b, al.Cones(0, 3), solver=FINE)
    assert torch.allclose(x, torch.tensor([0.0, 1.0]).double(), atol=1e-10)
    assert torch.allclose(s, torch.tensor([0.0, 1.0, 0.0]).double(), atol=1e-10)
    assert torch.allclose(z, torch.tensor([1.0, 0.0, 2.0]).double(), atol=1e-9)
    assert torch.allclose(torch.autograd.grad(x[1], b)[0], torch.tensor([1.0, 0.0, 1.0]).double(), atol=1e-9)


def test_transforms_of_torch_reach_every_array():
    _, given = arrays(batch=1)
    one = [t.detach()[0] for t in given]

    def of(*data):
        return torch.cat(al.cone_program(*data, CONES, solver=FINE))

    forward, reverse = (mode(of, argnums=(0, 1, 2, 3))(*one) for mode in (torch.func.jacfwd, torch.func.jacrev))
    for ahead, behind in zip(forward, reverse, strict=True):
        assert torch.allclose(ahead, behind, atol=1e-8 * (1.0 + float(ahead.abs().max())))
    mapped = torch.func.vmap(lambda q: of(one[0], q, *one[2:]))(torch.stack([one[1], 1.1 * one[1]]))
    assert torch.allclose(mapped[1], of(one[0], 1.1 * one[1], *one[2:]), atol=1e-11)


def test_programs_without_rows_and_with_redundant_ones():
    P, q = torch.eye(3).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    none = torch.zeros(0, 3).double(), torch.zeros(0).double()
    x, s, z = al.cone_program(P, q, *none, al.Cones(), solver=FINE)
    assert torch.allclose(x, -q)
    assert s.shape == z.shape == (0,)
    b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    x, _, z = al.cone_program(P, q, torch.ones(2, 3).double(), b, al.Cones(2), solver=FINE)
    assert torch.allclose(torch.autograd.grad(x[0], b, retain_graph=True)[0], torch.full((2,), 1 / 6).double())
    with pytest.raises(al.NotDifferentiable, match="other variables or multipliers are as good"):
        torch.autograd.grad(z[0], b, retain_graph=True)
    # their sum is determined
    assert torch.allclose(torch.autograd.grad(z.sum(), b)[0], torch.full((2,), -1 / 6).double())


def test_shapes_that_do_not_fit_are_named():
    _, (P, q, A, b) = arrays()
    with pytest.raises(al.SignatureError, match=r"A has shape \(3, 9, 4\), but q has 5 entries and the cones 9 rows"):
        al.cone_program(P, q, A[..., :4], b, CONES, solver=FINE)
    with pytest.raises(al.SignatureError, match=r"P has shape \(3, 4, 5\).* must end in \(5, 5\)"):
        al.cone_program(P[:, :4], q, A, b, CONES, solver=FINE)
    with pytest.raises(al.ProblemError, match="the sparse matrix A has shape"):
        al.cone_program(P, q, A.detach().to_sparse(), b, CONES, solver=FINE)
