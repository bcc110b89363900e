"""Functions of several statements, as users write them: assignment, loops, branches on parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _in_place(u: Tensor, p: Tensor) -> Any:
    y = u.clone()
    y += p
    return y.mul_(2)


def _assigned(u: Tensor, p: Tensor) -> Tensor:
    y = torch.zeros(4, dtype=u.dtype)
    y[0] = u[0] * p[0]
    y[1:3] = u[:2]
    return y


def _assigned_to_a_matrix(u: Tensor, p: Tensor) -> Any:
    y = torch.zeros(2, 3, dtype=u.dtype)
    y[0].copy_(u[:3])
    y[:, 1] += p[1]
    return y


def _assigned_at_indices(u: Tensor, p: Tensor) -> Tensor:
    y = p.clone()
    y[torch.tensor([4, 1])] = u[:2]
    return y


def _lower_triangle(u: Tensor, p: Tensor) -> Any:
    i = torch.tril_indices(3, 3)
    factor = torch.zeros(3, 3, dtype=u.dtype)
    factor[i[0], i[1]] = u
    return factor @ factor.T


def _unpacked(u: Tensor, p: Tensor) -> Any:
    a, b, *rest = u
    return a * rest[0] + b


def _split(u: Tensor, p: Tensor) -> Any:
    a, b = u.split([2, 4])
    return a.sum() * b


def _generator(u: Tensor, p: Tensor) -> Any:
    return torch.stack([x**2 for x in u]).sum()


def _rosenbrock(u: Tensor, p: Tensor) -> Any:
    total = torch.zeros((), dtype=u.dtype)
    for i in range(len(u) - 1):
        total = total + 100 * (u[i + 1] - u[i] ** 2) ** 2 + (1 - u[i]) ** 2
    return total


def _shooting(u: Tensor, p: Tensor) -> Any:
    x = p[:2]
    for k in range(6):
        x = torch.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * (torch.sin(x[0]) + u[k])])
    return x


def _several(u: Tensor, p: Tensor) -> tuple[Tensor, ...]:
    return u[0] - 1, u[1:] + p[1:]


def _parameter_branch(u: Tensor, p: Tensor) -> Any:
    return u * p if p.sum() > 0 else u - p


def _parameter_slice(u: Tensor, p: Tensor) -> Any:
    return u[: int(4 * p[0]) + 2] * p[1].item()


def _parameter_mask(u: Tensor, p: Tensor) -> Any:
    chosen = p > p.mean()
    return (u * chosen).cumsum(0)


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


def _custom_function(u: Tensor, p: Tensor) -> Any:
    cube: Any = _Cube.apply
    return cube(u) - p


def _views_in_place(u: Tensor, p: Tensor) -> Any:
    cube: Any = _Cube.apply
    y = torch.outer(u[:2], p[:3])
    row, column = y[0], y[:, 1]
    row.add_(u[:3])
    column.sub_(p[0])
    y.t()[2].add_(cube(u[4]))
    y.mul_(2.0)
    return row + column[0] + y[1]


STATEMENTS: tuple[tuple[str, Callable[[Tensor, Tensor], Any], int], ...] = (
    ("y = u.clone(); y += p; y.mul_(2)", _in_place, 1),
    ("y = torch.zeros(4); y[0] = u[0] * p[0]; y[1:3] = u[:2]", _assigned, 1),
    ("y = torch.zeros(2, 3); y[0].copy_(u[:3]); y[:, 1] += p[1]", _assigned_to_a_matrix, 1),
    ("y = p.clone(); y[torch.tensor([4, 1])] = u[:2]", _assigned_at_indices, 1),
    ("L = torch.zeros(3, 3); L[i[0], i[1]] = u; L @ L.T", _lower_triangle, 2),
    ("a, b, *rest = u; a * rest[0] + b", _unpacked, 2),
    ("a, b = u.split([2, 4]); a.sum() * b", _split, 2),
    ("torch.stack([x ** 2 for x in u]).sum()", _generator, 2),
    ("for i in range(5): f = f + 100 * (u[i + 1] - u[i] ** 2) ** 2 + (1 - u[i]) ** 2", _rosenbrock, 3),
    ("for k in range(6): x = torch.stack([x[0] + 0.1 * x[1], ... torch.sin(x[0]) + u[k]])", _shooting, 3),
    ("return u[0] - 1, u[1:] + p[1:]", _several, 1),
    ("return u * p if p.sum() > 0 else u - p", _parameter_branch, 1),
    ("u[: int(4 * p[0]) + 2] * p[1].item()", _parameter_slice, 1),
    ("chosen = p > p.mean(); (u * chosen).cumsum(0)", _parameter_mask, 1),
    ("row, column = y[0], y[:, 1]; row.add_(u[:3]); column.sub_(p[0]); y.mul_(2.0)", _views_in_place, 3),
    ("a torch.autograd.Function", _custom_function, 3),
)
