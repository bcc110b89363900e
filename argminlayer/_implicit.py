"""The one autograd function: attaches a solved batch to the graph of its parameters."""

from typing import Any

import torch
from torch import Tensor

from ._backward import AbstractBackward, Node


class _Implicit(torch.autograd.Function):
    """Identity on (z, nu, lambda, zeta); the backward is the rule's."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(tensor.clone() for tensor in inputs[2:6])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.rule, ctx.node = inputs[0], inputs[1]
        ctx.save_for_backward(*output, *inputs[6:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients = ctx.rule.vjp(ctx.node, saved[:4], saved[4:], cotangents)
        return (*(None,) * 6, *gradients)


def attach_gradient(
    rule: AbstractBackward, node: Node, point: tuple[Tensor, ...], parameters: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return (z, nu, lambda, zeta) as differentiable functions of the parameters."""
    attached: tuple[Tensor, ...] = _Implicit.apply(rule, node, *point, *parameters)  # type: ignore[no-untyped-call]
    return attached
