"""Solutions of KKT systems as differentiable functions of the point, the parameters and the right-hand side.

The matrix is never differentiated entry by entry. With ``K(t) x = b`` at ``t = (z, nu, lambda, parameters)``,

    b_bar = K^{-1} x_bar,     t_bar = -d/dt [ b_bar' K(t) x ],     x_dot = K^{-1} (b_dot - dK/dt[t_dot] x),

and ``w' K(t) x`` is the second derivative of the Lagrangian in (z, nu, lambda) along w and x, which costs two
gradients whatever the size. Each derivative solves with the same factor, so any order is exact.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._autodiff import derivative_wanted, gradient, without_finished_levels
from ._batching import unfold, widen, widen_parameters
from ._functions import Functions
from ._kkt import AbstractSystem, Vector
from ._layout import fill_floats, floats_of

Point = tuple[Tensor, Tensor, Tensor]
"""z (batch, n), nu (batch, p) and lambda (batch, q)."""


@dataclass(frozen=True)
class Adjoint:
    """KKT systems that can be solved, and differentiated.

    Attributes:
        functions: of the problem, for the instances in ``index``.
        system: factorised, with one matrix for each instance that was solved.
        index: which of the systems belongs to each instance, (batch,).
    """

    functions: Functions
    system: AbstractSystem
    index: Tensor

    def solve(self, point: Point, parameters: tuple[Tensor, ...], right: Vector) -> Vector:
        """Solve for right-hand sides without columns: (batch, n), (batch, p), (batch, q), (batch, n)."""
        columns = tuple(part[..., None] for part in right)
        if derivative_wanted():
            solved = _Solve.apply(self, self.index, *point, *parameters, *columns)  # type: ignore[no-untyped-call]
        else:
            solved = _chosen(self.system, self.index).solve(columns)  # type: ignore[arg-type]
        u, a, b, c = (part[..., 0] for part in solved)
        return u, a, b, c


def _chosen(system: AbstractSystem, index: Tensor) -> AbstractSystem:
    count = system.active.at_lower.shape[0]
    if index.shape[0] == count and bool((index == torch.arange(count, device=index.device)).all()):
        return system
    return system.select(index)


class _Solve(torch.autograd.Function):
    """``(index, z, nu, lambda, *parameters, *right) -> (u, a, b, c)``, right-hand sides with columns."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        adjoint, index, *tensors = inputs
        return _chosen(adjoint.system, index).solve(tuple(t.detach() for t in tensors[-4:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.adjoint = inputs[0]
        ctx.save_for_backward(*inputs[1:-4], *output)
        ctx.save_for_forward(*inputs[1:-4], *output)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        adjoint, index, point, parameters, solved = _split(ctx)
        weights = _solve(adjoint, index, point, parameters, bars)
        if not any(ctx.needs_input_grad[2:-4]):
            return (*(None,) * len(ctx.needs_input_grad[:-4]), *weights)

        def product(*arguments: Tensor) -> Tensor:
            at, floats = arguments[:3], arguments[3:]
            return _product(adjoint.functions, at, fill_floats(parameters, floats), weights[:3], solved[:3])

        partials = [-bar for bar in gradient(product, *point, *floats_of(parameters))]
        filled = iter(partials[3:])
        moved = tuple(next(filled) if p.is_floating_point() else None for p in parameters)
        return (None, None, *partials[:3], *moved, *weights)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Vector:
        adjoint, index, point, parameters, solved = _split(ctx)
        point_dots, right_dots = tangents[2:5], tangents[-4:]
        dots = [
            torch.zeros_like(t) if dot is None else dot
            for t, dot in zip((*point, *parameters), (*point_dots, *tangents[5:-4]), strict=True)
            if t.is_floating_point()
        ]

        def along(*weights: Tensor) -> Tensor:
            def product(*arguments: Tensor) -> Tensor:
                at, floats = arguments[:3], arguments[3:]
                return _product(adjoint.functions, at, fill_floats(parameters, floats), weights, solved[:3])

            partials = gradient(product, *point, *floats_of(parameters))
            return torch.stack([(g * dot).sum() for g, dot in zip(partials, dots, strict=True)]).sum()

        change = gradient(along, *map(torch.zeros_like, solved[:3]))
        right = [torch.zeros_like(like) if dot is None else dot for dot, like in zip(right_dots, solved, strict=True)]
        top, equality, inequality = (r - moved for r, moved in zip(right[:3], change, strict=True))
        return _solve(adjoint, index, point, parameters, (top, equality, inequality, right[3]))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], adjoint: Adjoint, *tensors: Tensor) -> tuple[Any, Any]:
        size, dims = info.batch_size, in_dims[1:]
        if all(dim is None for dim in dims[:-4]):
            return _vmap_columns(size, dims, adjoint, tensors)
        layout = adjoint.functions.layout
        kept = [widen(t, d, size) for t, d in zip(tensors[:4], dims[:4], strict=True)]
        wide, parameters = widen_parameters(layout, tensors[4:-4], dims[4:-4], size)
        right = [widen(t, d, size) for t, d in zip(tensors[-4:], dims[-4:], strict=True)]
        solved: Vector = _Solve.apply(  # type: ignore[no-untyped-call]
            replace(adjoint, functions=adjoint.functions.on(wide)), *kept, *parameters, *right
        )
        return tuple(unfold(t, size, layout.batch) for t in solved), (0,) * 4


def _vmap_columns(
    size: int, dims: tuple[int | None, ...], adjoint: Adjoint, tensors: tuple[Tensor, ...]
) -> tuple[Any, Any]:
    """Solve for many right-hand sides of one point: they become columns, and share its factor."""
    columns = [
        (t.expand(size, *t.shape) if d is None else t.movedim(d, 0)).movedim(0, -1)
        for t, d in zip(tensors[-4:], dims[-4:], strict=True)
    ]
    count = columns[0].shape[-2]
    flat = _Solve.apply(adjoint, *tensors[:-4], *(c.flatten(-2) for c in columns))  # type: ignore[no-untyped-call]
    return tuple(t.reshape(*t.shape[:-1], count, size) for t in flat), (3,) * 4


def _solve(
    adjoint: Adjoint, index: Tensor, point: Point, parameters: tuple[Tensor, ...], right: tuple[Tensor, ...]
) -> Vector:
    solved: Vector = _Solve.apply(adjoint, index, *point, *parameters, *right)  # type: ignore[no-untyped-call]
    return solved


def _split(ctx: Any) -> tuple[Adjoint, Tensor, Point, tuple[Tensor, ...], Vector]:
    index, z, nu, lam, *rest = map(without_finished_levels, ctx.saved_tensors)
    u, a, b, c = rest[-4:]
    return ctx.adjoint, index, (z, nu, lam), tuple(rest[:-4]), (u, a, b, c)


def _product(
    functions: Functions, point: tuple[Tensor, ...], parameters: tuple[Tensor, ...], left: Any, right: Any
) -> Tensor:
    """Return the sum over columns of ``left' K right``, the active part of the KKT matrix at the point."""
    if left[0].shape[-1] == 1:
        return _one_product(functions, point, parameters, *((part[..., 0] for part in side) for side in (left, right)))
    one = torch.vmap(lambda *sides: _one_product(functions, point, parameters, sides[:3], sides[3:]), in_dims=-1)
    total: Tensor = one(*left, *right).sum()
    return total


def _one_product(
    functions: Functions, point: tuple[Tensor, ...], parameters: tuple[Tensor, ...], left: Any, right: Any
) -> Tensor:
    w_u, w_a, w_b = left

    def along(z: Tensor, nu: Tensor, lam: Tensor) -> Tensor:
        return functions.weighted(z, nu, lam, parameters, (w_u, w_a, w_b))

    partials = gradient(along, *point)
    return torch.stack([(g * x).sum() for g, x in zip(partials, right, strict=True)]).sum()
