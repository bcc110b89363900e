"""Gradient and Jacobian, the two derivatives everything is made of, in autograd and inside torch.func transforms."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters


def gradient(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the partial derivatives of a scalar function in each of its inputs, all else held constant.

    Differentiable again when grad is enabled. Inside a ``torch.func`` transform, where autograd's own calls are not
    allowed, ``torch.func.grad`` does the same at about twice the cost.
    """
    if inside_transform():
        partials: tuple[Tensor, ...] = torch.func.grad(function, argnums=tuple(range(len(inputs))))(*inputs)
        return partials
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = tuple(_alias(tensor, create_graph) for tensor in inputs)
        value = function(*aliases)
        if not value.requires_grad:
            return tuple(map(torch.zeros_like, inputs))
        return torch.autograd.grad(value, aliases, create_graph=create_graph, materialize_grads=True)


def jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``function(z)`` (batch, r) and its derivative (batch, r, n), for instances that do not meet.

    Differentiable again when grad is enabled.

    Args:
        function: (batch, n) -> (batch, r), row b of the result depending on row b of the argument only.
        z: (batch, n).
    """
    if inside_transform():
        values, pull = torch.func.vjp(function, z)[:2]
        if values.shape[1] == 0:
            return values, values.new_zeros(*values.shape, z.shape[-1])
        return values, torch.func.vmap(pull)(_basis(values))[0].transpose(0, 1)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        alias = _alias(z, create_graph)
        values = function(alias)
        derivative = _rows(values, alias, create_graph)
    return (values, derivative) if create_graph else (values.detach(), derivative)


F = TypeVar("F", bound=Callable[..., Any])


def entry(function: F) -> F:
    """Make a public function run as in eager mode with autograd at hand, wherever it is called.

    ``torch.compile`` breaks the graph there instead of tracing into solvers, and inference mode, in which nothing can
    be differentiated, becomes no_grad.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    # outermost, so that a compiled model meets one break and nothing that it could trace in part
    wrapped: Any = torch.compiler.disable(run)
    return cast(F, wrapped)


def derivative_wanted() -> bool:
    """Return whether what is computed now may be differentiated: grad is enabled, or a transform runs."""
    return torch.is_grad_enabled() or inside_transform()


def inside_transform() -> bool:
    """Return whether a ``torch.func`` transform (grad, vjp, jvp, vmap, ...) is running this code."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def nested_forward_mode() -> bool:
    """Return whether a forward-mode transform runs inside another."""
    levels = retrieve_all_functorch_interpreters() if inside_transform() else []
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in levels) > 1


def without_saved_tensor_hooks() -> AbstractContextManager[Any]:
    """Return a context in which what autograd saves is kept as it is, whatever the hooks of the caller.

    Checkpointing counts what a module saves; the graphs that a solver builds and drops again are none of it.
    """
    autograd: Any = torch._C._autograd
    if not autograd._saved_tensors_hooks_is_enabled():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_itself, _itself)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def without_finished_levels(tensor: Tensor) -> Tensor:
    """Return a tensor without the wrappers of transforms that have ended, which say of it what no longer holds.

    The function that ``torch.func.vjp`` returns is called when its transform has ended.
    """
    plain: Tensor = torch._C._functorch.unwrap_if_dead(tensor)
    return plain


def _rows(values: Tensor, z: Tensor, create_graph: bool) -> Tensor:
    batch, count = values.shape
    if count == 0 or batch == 0 or not values.requires_grad:
        return z.new_zeros(batch, count, z.shape[-1])
    if count == 1:
        (row,) = torch.autograd.grad(
            values, z, torch.ones_like(values), create_graph=create_graph, materialize_grads=True
        )
        return row[:, None, :]
    (stacked,) = torch.autograd.grad(
        values, z, _basis(values), create_graph=create_graph, is_grads_batched=True, allow_unused=True
    )
    if stacked is None:
        return z.new_zeros(batch, count, z.shape[-1])
    return stacked.transpose(0, 1)


def _basis(values: Tensor) -> Tensor:
    batch, count = values.shape
    identity = torch.eye(count, dtype=values.dtype, device=values.device)
    return identity[:, None, :].expand(count, batch, count)


def _alias(tensor: Tensor, create_graph: bool) -> Tensor:
    """Return a tensor equal to the one given, whose partial derivative is not mixed with that of its history."""
    return tensor.clone() if create_graph and tensor.requires_grad else tensor.detach().requires_grad_()
