"""The autograd function of sets whose derivative is known in closed form: reverse, forward, vmap, second order."""

import abc
from typing import Any

import torch
from torch import Tensor

from ._set import AbstractSet, inside_transform

Cotangents = tuple[Tensor | None, ...]


class AbstractClosedForm(AbstractSet):
    """A set whose nearest points are computed outside autograd, and whose derivative is a formula in them.

    All methods take tensors whose leading dimensions are aligned: equally many, those of ``x`` and ``y`` complete,
    those of the parameters of size one where they are shared.
    """

    @property
    def curved(self) -> bool:
        """Whether the derivative depends on the point itself, and not only on the nearest one."""
        return True

    @abc.abstractmethod
    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points, and what the derivative needs to know of each instance, (..., any)."""

    @abc.abstractmethod
    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Cotangents:
        """Pull a cotangent of ``y`` back to ``x`` and the parameters by operations that torch differentiates."""

    @abc.abstractmethod
    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push tangents of ``x`` and the parameters (None means zero) forward to ``y``."""

    def pull_fast(
        self, wanted: tuple[bool, ...], g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor
    ) -> Cotangents:
        """Do as ``pull`` for a first derivative; a hot set has a faster way here."""
        del wanted
        return self.pull(g, y, state, x, *parameters)

    def project(self, x: Tensor, *parameters: Tensor, throw: bool = True) -> Tensor:
        """Return the nearest points, differentiable; see :class:`AbstractSet`."""
        x, *aligned = align(self.cores, x, *parameters)
        function = _Projection if inside_transform() else _EagerProjection
        y: Tensor = function.apply(self, throw, x, *aligned)[0]  # type: ignore[no-untyped-call]
        return y

    @property
    @abc.abstractmethod
    def cores(self) -> tuple[int, ...]:
        """Number of core dimensions of the point and of each parameter."""


class AbstractSelfAdjoint(AbstractClosedForm):
    """A set without parameters whose projection has a symmetric Jacobian: one product pulls back and pushes forward."""

    @abc.abstractmethod
    def along(self, dx: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the product of the Jacobian with ``dx``, by operations that torch differentiates."""

    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Cotangents:
        """Pull a cotangent back to x."""
        return (self.along(g, y, x),)

    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push a tangent of x forward."""
        return torch.zeros_like(y) if tangents[0] is None else self.along(tangents[0], y, x)


def align(cores: tuple[int, ...], x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """Return ``x`` with all leading dimensions of the batch, and the parameters with equally many.

    Args:
        cores: number of core dimensions of each tensor.
        x: the points.
        *parameters: of the set.
    """
    lead = x.ndim - cores[0]
    leads = [p.ndim - core for p, core in zip(parameters, cores[1:], strict=True)]
    if any(leads):
        shapes = (p.shape[:own] for p, own in zip(parameters, leads, strict=True))
        shape = torch.broadcast_shapes(x.shape[:lead], *shapes)
        x, lead = x.expand(shape + x.shape[lead:]), len(shape)
    return x, *(p[(None,) * (lead - own)] for p, own in zip(parameters, leads, strict=True))


class _Projection(torch.autograd.Function):
    """``(x, *parameters) -> (y, state)`` of aligned tensors."""

    @staticmethod
    def forward(rule: AbstractClosedForm, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return rule.solve(throw, x, *parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        rule, _, x, *parameters = inputs
        ctx.rule = rule
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        saved = (*output, x if rule.curved else None, *parameters)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        g = cotangents[0]
        wanted = ctx.needs_input_grad[2:]
        if g is None:
            return (None,) * (2 + len(wanted))
        if torch.is_grad_enabled() or inside_transform():
            pulled = ctx.rule.pull(g, *ctx.saved_tensors)
        else:
            pulled = ctx.rule.pull_fast(wanted, g, *ctx.saved_tensors)
        summed = (
            _sum_to(bar, parameter) if want else None
            for want, bar, parameter in zip(wanted[1:], pulled[1:], ctx.saved_tensors[3:], strict=True)
        )
        return (None, None, pulled[0] if wanted[0] else None, *summed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        return ctx.rule.push(tangents[2:], *ctx.saved_tensors), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], rule: AbstractClosedForm, throw: bool, *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        x, *parameters = (
            t.unsqueeze(0) if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, in_dims[2:], strict=True)
        )
        x = x.expand(info.batch_size, *x.shape[1:])
        return _Projection.apply(rule, throw, x, *parameters), (0, 0)  # type: ignore[no-untyped-call]


class _EagerProjection(torch.autograd.Function):
    """The same outside ``torch.func`` transforms, where torch asks for less and a call costs half as much."""

    @staticmethod
    def forward(ctx: Any, rule: AbstractClosedForm, throw: bool, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        output = rule.solve(throw, *tensors)
        _Projection.setup_context(ctx, (rule, throw, *tensors), output)
        return output

    backward = staticmethod(_Projection.backward)
    jvp = staticmethod(_Projection.jvp)


def _sum_to(cotangent: Tensor | None, parameter: Tensor) -> Tensor | None:
    if cotangent is None or cotangent.shape == parameter.shape:
        return cotangent
    return cotangent.sum_to_size(parameter.shape)
