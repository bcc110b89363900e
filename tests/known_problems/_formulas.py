"""Objectives and closed forms that several problems share, and an independent solve of smooth conditions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def root(conditions: Callable[[Tensor], Tensor], begin: Tensor) -> Tensor:
    """Return where ``conditions`` vanish, by damped Newton steps to the last digit."""
    z = begin.detach()
    for _ in range(60):
        residual = conditions(z)
        jacobian = torch.func.jacrev(conditions)(z)
        step = torch.linalg.solve(jacobian, residual)
        scale = 1.0
        while bool(conditions(z - scale * step).norm() > residual.norm()) and scale > 1e-4:
            scale *= 0.5
        moved = z - scale * step
        if torch.equal(moved, z) or float(step.abs().max()) < 1e-15 * float(1 + z.abs().max()):
            return moved
        z = moved
    return z


def minimiser(objective: Callable[[Tensor], Tensor], begin: Tensor) -> Tensor:
    """Return the minimiser of a convex function, by Newton's method."""
    return root(torch.func.grad(objective), begin)


def half_square(u: Tensor, x: Tensor, *_: Tensor) -> Tensor:
    """Return ``|u - x|^2 / 2``."""
    return 0.5 * (u - x).square().sum()


def quadratic(u: Tensor, P: Tensor, q: Tensor, *_: Tensor) -> Tensor:
    """Return ``u'Pu/2 + q'u``."""
    return 0.5 * (u @ P @ u) + q @ u


def split_last(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return a vector but its last entry, and that entry."""
    return u[:-1], u[-1]


def equality_program(P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Return the minimiser of ``u'Pu/2 + q'u`` with ``Au = b``, from its KKT system."""
    n, p = len(q), len(b)
    matrix = torch.cat([torch.cat([P, A.mT], 1), torch.cat([A, P.new_zeros(p, p)], 1)])
    return torch.linalg.solve(matrix, torch.cat([-q, b]))[:n]


def to_simplex(x: Tensor, total: Any = 1.0) -> Tensor:
    """Return the projection onto ``u >= 0, sum u = total``, by sorting."""
    ordered = x.sort(descending=True).values
    shift = (ordered.cumsum(0) - total) / torch.arange(1, len(x) + 1)
    active = int((ordered > shift).sum())
    return (x - shift[active - 1]).clamp_min(0.0)


def nonnegative_program(P: Tensor, q: Tensor) -> Tensor:
    """Return the minimiser of ``u'Pu/2 + q'u`` with ``u >= 0``, by trying every set of free variables."""
    n = len(q)
    for pattern in range(2**n):
        free = torch.tensor([bool(pattern >> i & 1) for i in range(n)])
        u = torch.zeros_like(q)
        if bool(free.any()):
            u = u.index_put((free,), torch.linalg.solve(P[free][:, free], -q[free]))
        if bool((u >= 0).all()) and bool((P @ u + q >= -1e-12).all()):
            return u
    raise AssertionError("a definite program has a solution")


def polygon(sides: int) -> Tensor:
    """Return the unit normals of a regular polygon."""
    angle = 2 * torch.pi * torch.arange(sides, dtype=torch.float64) / sides
    return torch.stack([angle.cos(), angle.sin()], dim=-1)
