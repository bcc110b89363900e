"""Pooling as one function of autograd: reverse and forward mode, second derivatives, vmap."""

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import unusable
from ._kernels import Kernels
from ._penalties import AbstractPenalty, Barron, barron_cost, penalty_of, weighted
from ._rows import Rows
from ._scalar import derivative, minimise
from ._vector import pool_vectors, pull_by_kernel, vector_derivative

Given = tuple[Tensor | None, ...]
"""Points, weights (or None), alpha, and the shape (or None)."""


class Options(NamedTuple):
    """What is pooled, and how: name of the penalty, numbers or vectors, and the settings of :class:`Robust`."""

    name: str
    vectors: bool
    throw: bool
    starts: int
    sample: int
    kernels: Kernels | None


class Pool(torch.autograd.Function):
    """``(x, weights, alpha, shape, options) -> (y, u)``, the pooled values twice.

    ``x`` (..., n), or (..., m, n) for vectors; ``weights`` (..., n) or None; ``alpha`` (...) and ``shape`` (one
    number, or None). ``y`` has the precision of x, ``u`` that in which derivatives are taken, double for numbers. An
    instance that cannot be pooled is an error with ``throw``, else NaN.
    """

    @staticmethod
    def forward(
        x: Tensor, weights: Tensor | None, alpha: Tensor, shape: Tensor | None, options: Options
    ) -> tuple[Tensor, Tensor]:
        """Pool."""
        cores = 2 if options.vectors else 1
        rows, batch = as_rows(x, weights, alpha, cores, widen=options.vectors or options.kernels is None)
        bad = unusable(x, weights, alpha, batch, options.throw, cores)
        if bad is not None:
            rows = rows.without(bad)
        penalty = penalty_of(options.name, shape)
        if options.vectors:
            u, _ = pool_blocks(penalty, rows, options.starts, options.sample, options.kernels)
        else:
            u, _ = minimise(penalty, rows, options.kernels)
        if bad is not None:
            u[bad] = torch.nan
        u = u.reshape(batch + x.shape[-cores:-1])
        return u.to(x.dtype, copy=True), u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what the derivative needs."""
        x, weights, alpha, shape, ctx.options = inputs
        y, u = output
        ctx.mark_non_differentiable(u)
        ctx.save_for_backward(x, weights, alpha, shape, y, u)
        ctx.save_for_forward(x, weights, alpha, shape, y, u)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Pull a cotangent back; differentiable where that is asked for."""
        *given, y, u = ctx.saved_tensors
        wanted, (name, vectors, *_, kernels) = ctx.needs_input_grad[:4], ctx.options
        cores = 2 if vectors else 1
        found = tracked(name, given, y, cotangent, wanted, cores) if torch.is_grad_enabled() else None
        if found is None and torch._C._functorch.peek_interpreter_stack() is not None:
            found = mapped(penalty_of(name, given[3]), given, u, cotangent, wanted, cores)
        if found is None:
            found = _pulled(penalty_of(name, given[3]), given, u, cotangent, wanted, cores, kernels)
        return (*found, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        """Push tangents forward: as many pulls as a result has entries."""
        *given, y, u = ctx.saved_tensors
        name, vectors, *_ = ctx.options
        wanted, cores = tuple(tangent is not None for tangent in tangents[:4]), 2 if vectors else 1
        penalty, lead = penalty_of(name, given[3]), y.ndim - cores + 1
        units = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device) if vectors else y.new_ones(1, 1)
        pushed = []
        for unit in units:
            cotangent = (unit if vectors else unit[0]).expand(y.shape)
            grads = _broadcast(penalty, given, u, cotangent, wanted, cores)
            pairs = ((g, t) for g, t in zip(grads, tangents, strict=False) if g is not None and t is not None)
            products = ((g * t).flatten(lead).sum(-1) if g.ndim > lead else g * t for g, t in pairs)
            pushed.append(sum(products, start=y.new_zeros(y.shape[:lead])))
        return (torch.stack(pushed, -1) if vectors else pushed[0]).to(y.dtype), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Pool a further batch dimension along with the others."""
        del info
        cores = (2 if inputs[4].vectors else 1, 1, 0)
        mapped_here = [d is not None for d in in_dims[:3]]
        moved = [p if d is None else p.movedim(d, 0) for p, d in zip(inputs[:3], in_dims[:3], strict=True)]
        parts = list(zip(moved, mapped_here, cores, strict=True))
        lead = max(p.ndim - is_mapped - core for p, is_mapped, core in parts if p is not None)
        aligned = [
            p.reshape(p.shape[:1] + (1,) * (lead + 1 + core - p.ndim) + p.shape[1:]) if is_mapped else p
            for p, is_mapped, core in parts
        ]
        return Pool.apply(*aligned, *inputs[3:]), (0, 0)  # type: ignore[no-untyped-call]


# autograd asks for it in every call, and to work it out takes as long as the derivative of a small pool
Pool.forward.__signature__ = inspect.signature(Pool.forward)  # type: ignore[attr-defined]


def as_rows(
    x: Tensor, weights: Tensor | None, alpha: Tensor, cores: int, widen: bool = True
) -> tuple[Rows, torch.Size]:
    """Return the instances as rows, and the shape of the batch.

    Args:
        x: points, the last ``cores`` dimensions of one instance.
        weights: (..., n) or None.
        alpha: (...).
        cores: one for numbers, two for vectors.
        widen: to at least single precision, in which tensors are worked on; kernels read what is given.
    """
    batch = x.shape[:-cores]
    others = [alpha.shape, *([] if weights is None else [weights.shape[:-1]])]
    if any(others):  # which is rare, and not quick
        batch = torch.broadcast_shapes(batch, *others)
    dtype = torch.promote_types(x.dtype, torch.float32) if widen else x.dtype

    def flat(p: Tensor, core: torch.Size) -> Tensor:
        return p.detach().expand(batch + core).reshape(-1, *(core or (1,)))

    scaled = None if weights is None else flat(weights.to(dtype), weights.shape[-1:])
    return Rows(flat(x.to(dtype), x.shape[-cores:]), scaled, flat(alpha.double(), torch.Size())), batch


def pool_blocks(
    penalty: AbstractPenalty, rows: Rows, starts: int, sample: int, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """Return :func:`pool_vectors` of all rows, block by block."""
    parts = [pool_vectors(penalty, block, starts, sample, kernels) for _, block in rows.blocks()]
    if not parts:
        return rows.x.new_empty(rows.x.shape[:2]), rows.x.new_empty(0)
    values, steps = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(steps)


def _pulled(
    penalty: AbstractPenalty,
    given: Given,
    u: Tensor,
    cotangent: Tensor,
    wanted: tuple[bool, ...],
    cores: int,
    kernels: Kernels | None,
) -> list[Tensor | None]:
    """Return the gradients for the parameters as they are given."""
    grads = _broadcast(penalty, given, u, cotangent, wanted, cores, kernels)
    return [
        None if g is None or p is None else g.sum_to_size(p.shape).to(p.dtype)
        for g, p in zip(grads, given, strict=True)
    ]


def _broadcast(
    penalty: AbstractPenalty,
    given: Given,
    u: Tensor,
    cotangent: Tensor,
    wanted: tuple[bool, ...],
    cores: int,
    kernels: Kernels | None = None,
) -> list[Tensor | None]:
    """Return the gradients of every instance, (batch, core) each."""
    x, weights, alpha, _ = given
    assert x is not None
    assert alpha is not None
    rows, batch = as_rows(x, weights, alpha, cores, widen=kernels is None)
    if cores == 1:
        grads = derivative(penalty, rows, u.reshape(-1), cotangent.reshape(-1).double(), wanted, kernels)
    else:
        shaped = u.reshape(rows.x.shape[:2]), cotangent.reshape(rows.x.shape[:2])
        # no kernel knows of the shape
        grads = _vectors(penalty, rows, *shaped, wanted[1], None if wanted[3] else kernels)
    shapes = (x.shape[-cores:], x.shape[-1:], torch.Size(), torch.Size())
    return [
        g.reshape(batch + core) if g is not None and want else None
        for g, core, want in zip(grads, shapes, wanted, strict=True)
    ]


def _vectors(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, weights: bool, kernels: Kernels | None
) -> list[Tensor | None]:
    """Return the gradients of vectors, NaN where an instance that is NaN has a cotangent."""
    bad = u.isnan().any(-1)
    failed = bad & (cotangent != 0.0).any(-1)
    if bool(bad.any()):
        rows, u = rows.without(bad), u.masked_fill(bad[:, None], 0.0)
        cotangent = cotangent.masked_fill(bad[:, None], 0.0)
    if len(rows.x) == 0:
        return [torch.zeros_like(rows.x), torch.zeros_like(rows.x[:, 0]), rows.alpha, rows.alpha]
    parts: list[tuple[Tensor | None, ...]] = []
    for where, block in rows.blocks():
        if kernels is None:
            parts.append(vector_derivative(penalty, block.wide(), u[where], cotangent[where]))
        else:
            parts.append((*pull_by_kernel(penalty, block, u[where], cotangent[where], weights, kernels), None))
    grads = [
        None if part[0] is None else torch.cat([p for p in part if p is not None]) for part in zip(*parts, strict=True)
    ]
    for grad in grads:
        if grad is not None:
            grad[failed] = torch.nan
    return grads


def mapped(
    penalty: AbstractPenalty, given: Given, u: Tensor, cotangent: Tensor, wanted: tuple[bool, ...], cores: int
) -> list[Tensor | None]:
    """Return the gradients without looking at a value, which ``vmap`` does not allow."""
    x, weights, alpha, _ = given
    assert x is not None
    assert alpha is not None
    grads: tuple[Tensor, ...]
    if cores == 2:
        batch = u.shape[:-1]
        points = x.expand(batch + x.shape[-2:]).reshape(-1, *x.shape[-2:])
        scaled = None if weights is None else weights.expand(batch + x.shape[-1:]).reshape(-1, x.shape[-1])
        rows = Rows(points, scaled, alpha.expand(batch).reshape(-1, 1).double())
        flat = vector_derivative(penalty, rows, u.reshape(-1, u.shape[-1]), cotangent.reshape(-1, u.shape[-1]))
        cores_of = (x.shape[-2:], x.shape[-1:], torch.Size(), torch.Size())
        grads = tuple(g.reshape(batch + core) for g, core in zip(flat, cores_of, strict=True))
    else:
        scale = alpha[..., None]
        t = (x - u[..., None].to(x.dtype)) / scale
        curvature = weighted(penalty.curvature(t), weights)
        factor = cotangent[..., None] / curvature.sum(-1, keepdim=True)
        moved = penalty.shape_slope(t) if isinstance(penalty, Barron) else torch.zeros_like(t)
        shapes = (weighted(moved, weights) * scale * factor).sum(-1)
        points = curvature * factor
        grads = (points, penalty.slope(t) * scale * factor, -(points * t).sum(-1), shapes)
    return [
        g.sum_to_size(p.shape).to(p.dtype) if want and p is not None else None
        for g, p, want in zip(grads, given, wanted, strict=True)
    ]


def tracked(
    name: str, given: Given, y: Tensor, cotangent: Tensor, wanted: tuple[bool, ...], cores: int
) -> list[Tensor | None] | None:
    """Return the gradients as torch functions of all they depend on, the solution too; None if nothing is tracked."""
    with torch.enable_grad():
        # aliases: a derivative at a fixed solution must not follow the solution back to the points
        aliases = [None if p is None else p.view_as(p) for p in given]
        x, weights, alpha, shape = aliases
        assert x is not None
        assert alpha is not None
        asked = [
            p if want and p is not None and p.requires_grad else None for p, want in zip(aliases, wanted, strict=True)
        ]
        there = [p for p in asked if p is not None]
        if not there:
            return None
        u = y.view_as(y)
        squares, scale = (x - u[..., None]).square(), alpha[..., None]
        squares = squares.sum(-2) if cores == 2 else squares
        costs = penalty_of(name).cost(squares, scale) if shape is None else barron_cost(squares, scale, shape)
        (slope,) = torch.autograd.grad(weighted(costs, weights).sum(), u, create_graph=True)
        along = _solved(slope, u, cotangent, cores)
        found = iter(torch.autograd.grad(slope, there, -along, create_graph=True, allow_unused=True))
    return [None if p is None else next(found) for p in asked]


def _solved(slope: Tensor, u: Tensor, cotangent: Tensor, cores: int) -> Tensor:
    """Return the cotangent times the inverse of the second derivative."""
    if cores == 1:
        (curvature,) = torch.autograd.grad(slope.sum(), u, create_graph=True)
        return cotangent / curvature
    entries = (slope[..., i].sum() for i in range(slope.shape[-1]))
    columns = [torch.autograd.grad(entry, u, create_graph=True)[0] for entry in entries]
    along: Tensor = torch.linalg.solve(torch.stack(columns, -1), cotangent)
    return along
