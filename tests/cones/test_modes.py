"""Cone programs in every mode of torch: forward mode, vmap, and derivatives of derivatives."""

import pytest
import torch
from cone_programs import CURVED, RawClarabel, isolated, random_programs

import argminlayer as al

FINE = RawClarabel(tol=1e-10)


def setting(kind):
    """Return a function of b alone, of one program, and b."""
    cones, n = CURVED[kind]
    known = isolated(cones, n, batch=1)
    P, q, A, b = (t[0] for t in known.data)

    def of(q, A, b):
        x, z = al.argmin(known.problem, P, q, A, b, solver=FINE)
        return torch.cat([x, z], -1)

    return of, (q, A, b)


@pytest.mark.parametrize("kind", CURVED)
def test_forward_and_reverse_mode_agree(kind):
    of, data = setting(kind)
    forward, reverse = (mode(of, argnums=(0, 2))(*data) for mode in (torch.func.jacfwd, torch.func.jacrev))
    for one, other in zip(forward, reverse, strict=True):
        assert torch.allclose(one, other, atol=1e-8 * (1 + one.abs().max()))


@pytest.mark.parametrize("kind", CURVED)
def test_second_derivatives_are_those_of_differences(kind):
    of, (q, A, b) = setting(kind)
    weight = torch.cos(torch.arange(len(q) + len(b), dtype=q.dtype))

    def gradient(*data):
        data = [t.detach().requires_grad_() for t in data]
        return torch.autograd.grad((of(*data) * weight).sum(), data, create_graph=True), data

    gradients, data = gradient(q, A, b)
    moves = [torch.sin(1.0 + torch.arange(t.numel(), dtype=t.dtype)) for t in (q, A, b)]
    second = torch.autograd.grad(sum((g * d).sum() for g, d in zip(gradients, moves, strict=True)), data)
    h = 1e-6
    ahead, behind = (gradient(*(t + s * d for t, d in zip((q, A, b), moves, strict=True)))[0] for s in (h, -h))
    for exact, one, other in zip(second, ahead, behind, strict=True):
        measured = (one - other).detach() / (2 * h)
        assert torch.allclose(exact, measured, atol=1e-5 * (1 + float(measured.abs().max())))


@pytest.mark.parametrize("kind", ["second-order", "semidefinite", "exponential"])
def test_forward_over_reverse_is_the_hessian(kind):
    of, (q, A, b) = setting(kind)

    def loss(b):
        return of(q, A, b).square().sum()

    mixed = torch.func.jacfwd(torch.func.jacrev(loss))(b)
    twice = torch.func.jacrev(torch.func.jacrev(loss))(b)
    assert torch.allclose(mixed, twice, atol=1e-7 * (1 + mixed.abs().max()))
    assert torch.allclose(mixed, mixed.T, atol=1e-7 * (1 + mixed.abs().max()))


def test_vmap_is_a_batch():
    known = random_programs(*CURVED["all"], batch=3)
    P, q, A, b = known.data

    def one(q, b):
        return al.argmin(known.problem, P[0], q, A[0], b, solver=FINE)[0]

    q, b = q[:1] + 0.01 * torch.arange(3.0)[:, None], b[:1] + 0.0 * b
    mapped = torch.func.vmap(one)(q, b)
    assert torch.allclose(mapped, one(q, b), atol=1e-11)
    pulled = torch.func.vmap(torch.func.grad(lambda q, b: one(q, b).square().sum()))(q, b)
    q = q.clone().requires_grad_()
    one(q, b).square().sum().backward()
    assert torch.allclose(pulled, q.grad, atol=1e-9)


def test_third_derivatives_of_curved_cones_are_refused():
    of, (q, A, b) = setting("second-order")
    b = b.clone().requires_grad_()
    (first,) = torch.autograd.grad(of(q, A, b).sum(), b, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), b, create_graph=True)
    with pytest.raises(al.NotDifferentiable, match="third derivatives"):
        torch.autograd.grad(second.sum(), b)
