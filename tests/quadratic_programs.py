"""Quadratic programs for the tests, random but the same on every machine, and derivatives by differences."""

import torch

import argminlayer as al
from argminlayer.testing import central_differences

NAMES = ("P", "q", "G", "h", "A", "b", "lower", "upper")


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(n=5, m=6, p=1, batch=(3,), seed=0):
    """Return blocks of strictly convex programs with a feasible point, some of whose rows are active."""
    root = randn(seed, *batch, n, n)
    P = root @ root.mT / n + 0.3 * torch.eye(n, dtype=torch.float64)
    q, G, A, inside = (
        randn(seed + 1, *batch, n),
        randn(seed + 2, *batch, m, n),
        randn(seed + 3, *batch, p, n),
        randn(seed + 4, *batch, n),
    )
    h = (G @ inside[..., None])[..., 0] + randn(seed + 5, *batch, m).abs()
    b = (A @ inside[..., None])[..., 0]
    return {"P": P, "q": q, "G": G, "h": h, "A": A, "b": b}


def boxed(n=5, p=1, batch=(3,), seed=0):
    """Return blocks with bounds, some of which are active."""
    blocks = dense(n, 1, p, batch, seed)
    inside = 0.2 * torch.ones(n, dtype=torch.float64)
    return {
        "P": blocks["P"],
        "q": 2.0 * blocks["q"],
        "A": blocks["A"],
        "b": blocks["A"] @ inside,
        "lower": -0.4 + 0.0 * blocks["q"],
        "upper": 0.7 + 0.0 * blocks["q"],
    }


def leaves(blocks):
    return {name: block.detach().clone().requires_grad_() for name, block in blocks.items()}


def solve(blocks, **options):
    return al.qp(**({"P": None, "q": None} | blocks), **options)


def weights(like):
    index = torch.arange(1, like.numel() + 1, dtype=torch.float64)
    return (torch.cos(7.13 * index) + 0.2).reshape(like.shape)


def gradients(blocks, **options):
    """Return the gradients of a weighted sum of the solution in all blocks."""
    given = leaves(blocks)
    value = solve(given, **options)
    return dict(zip(given, torch.autograd.grad((value * weights(value)).sum(), tuple(given.values())), strict=True))


def differences(blocks, name, step=1e-5, **options):
    """Return the same gradient in one block, by central differences of solutions."""

    def total(block):
        value = solve(blocks | {name: block}, **options)
        return (value * weights(value)).sum()

    (found,) = central_differences(total, blocks[name], step=step)
    return found


def worst(found, expected):
    """Return the error relative to the largest entry expected."""
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
