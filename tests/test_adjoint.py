"""Solutions of KKT systems: derivatives of every order, and what torch.vmap does with them."""

from dataclasses import replace

import pytest
import torch

import argminlayer as al
from argminlayer._adjoint import Adjoint
from argminlayer._bound import bind
from argminlayer._dense import DenseSystem
from argminlayer._kkt import ActiveSet

DOUBLE = torch.float64
PROBLEM = al.Problem(
    lambda u, x, a: (u.pow(4) * x).sum() + (u[:-1] * u[1:] * a).sum() + u.square().sum(),
    "(n),()->(n)",
    equality=lambda u, x, a: a * (u * u).sum() - 3.0,
    inequality=lambda u, x, a: torch.stack([(u * x).sum() - 1.0, u[0] - 9.0]),
    lower=-5.0,
)


def system_at(bound, z, nu, lam):
    """Return the KKT system with the first inequality active, and the last variable held."""
    active = ActiveSet(
        torch.tensor([True, False]).expand(len(z), 2),
        torch.arange(z.shape[-1]).expand(z.shape) == z.shape[-1] - 1,
        torch.zeros(z.shape, dtype=torch.bool),
    )
    return DenseSystem.of(bound.hessian(z, nu, lam), bound.equality(z)[1], bound.inequality(z)[1], active)


def setting(batch, n=4):
    """Return a point, parameters and a right-hand side, with grad."""
    draw = torch.Generator().manual_seed(batch)

    def random(*shape):
        return torch.randn(*shape, dtype=DOUBLE, generator=draw)

    point = (
        random(batch, n),
        random(batch, 1),
        torch.cat([random(batch, 1).abs(), torch.zeros(batch, 1, dtype=DOUBLE)], 1),
    )
    parameters = random(batch, n), random(batch)
    right = random(batch, n), random(batch, 1), random(batch, 2), random(batch, n)
    return tuple(t.requires_grad_() for t in (*point, *parameters, *right))


def solve(z, nu, lam, x, a, *right):
    """Solve with a system factorised anew wherever differences try it."""
    # the second multiplier stays zero, as that of any inactive inequality
    lam = lam * torch.tensor([1.0, 0.0], dtype=DOUBLE)
    bound = bind(PROBLEM, (x.detach(), a.detach()))
    system = system_at(bound, z.detach(), nu.detach(), lam.detach())
    adjoint = Adjoint(bound.functions, system, torch.arange(len(z)))
    return adjoint.solve((z, nu, lam), (x, a), right)


@pytest.mark.parametrize("batch", [1, 2])
def test_first_derivatives_agree_with_differences(batch):
    assert torch.autograd.gradcheck(solve, setting(batch))


@pytest.mark.parametrize("batch", [1, 2])
def test_second_derivatives_agree_with_differences(batch):
    assert torch.autograd.gradgradcheck(solve, setting(batch, n=3), atol=1e-4)


def test_forward_mode_agrees_with_reverse_mode():
    inputs = tuple(t.detach() for t in setting(2))
    reverse = torch.func.jacrev(solve, argnums=(0, 3, 5))(*inputs)
    forward = torch.func.jacfwd(solve, argnums=(0, 3, 5))(*inputs)
    torch.testing.assert_close(reverse, forward)


def test_the_solution_satisfies_the_equations_and_is_zero_where_nothing_is_active():
    inputs = tuple(t.detach() for t in setting(3))
    z, nu, lam, x, a, top, equality, inequality, held = inputs
    bound = bind(PROBLEM, (x, a))
    u, mu, b, c = solve(*inputs)
    hessian, A, G = bound.hessian(z, nu, lam), bound.equality(z)[1], bound.inequality(z)[1]
    fixed = torch.tensor([0.0, 0, 0, 1], dtype=DOUBLE)
    residual = torch.einsum("bij,bj->bi", hessian, u) + mu * A[:, 0] + b[:, :1] * G[:, 0] - fixed * c - top
    torch.testing.assert_close(residual, torch.zeros_like(residual))
    torch.testing.assert_close((A[:, 0] * u).sum(-1), equality[:, 0])
    torch.testing.assert_close((G[:, 0] * u).sum(-1), inequality[:, 0])
    torch.testing.assert_close(u[:, 3], -held[:, 3])
    assert b[:, 1].abs().max() == 0.0
    assert c[:, :3].abs().max() == 0.0


def test_many_right_hand_sides_share_the_factor_of_their_point(monkeypatch):
    inputs = tuple(t.detach() for t in setting(2))
    z, nu, lam, x, a = inputs[:5]
    bound = bind(PROBLEM, (x, a))
    system = system_at(bound, z, nu, lam)
    adjoint = Adjoint(bound.functions, system, torch.arange(2))
    many = torch.randn(5, 3, 2, 4, dtype=DOUBLE)
    columns = []
    monkeypatch.setattr(
        DenseSystem,
        "solve",
        lambda self, right, plain=DenseSystem.solve: columns.append(right[0].shape) or plain(self, right),
    )
    run = torch.vmap(torch.vmap(lambda top: adjoint.solve((z, nu, lam), (x, a), (top, *inputs[6:]))[0]))
    found = run(many)
    assert columns == [(2, 4, 15)]
    expected = torch.stack(
        [torch.stack([adjoint.solve((z, nu, lam), (x, a), (t, *inputs[6:]))[0] for t in ts]) for ts in many]
    )
    torch.testing.assert_close(found, expected)


def test_mapping_over_everything_gives_the_same_as_a_loop():
    settings = [tuple(t.detach() for t in setting(batch=2)) for _ in range(3)]
    settings = [(*s[:3], 1.5**k * s[3], *s[4:]) for k, s in enumerate(settings)]
    each = [solve(*s) for s in settings]
    wide = [torch.cat(parts) for parts in zip(*settings, strict=True)]
    bound = bind(PROBLEM, (wide[3], wide[4]))
    system = system_at(bound, *wide[:3])
    one = bind(PROBLEM, (wide[3][:2], wide[4][:2]))
    adjoint = Adjoint(one.functions, system, torch.arange(2))

    def run(index, z, nu, lam, x, a, *right):
        return replace(adjoint, index=index).solve((z, nu, lam), (x, a), right)

    stacked = [torch.stack(parts) for parts in zip(*settings, strict=True)]
    found = torch.vmap(run)(torch.arange(6).reshape(3, 2), *stacked)
    for part, expected in zip(found, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(expected))
