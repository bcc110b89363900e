"""Functions that need the values of their arguments under ``torch.vmap``, which then calls them once for all it maps.

What is mapped is folded into the leading batch of the arguments. Derivatives that are mapped, as in the ``vmap`` of a
``grad``, are functions of the same kind; each calls the function anew.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._autodiff import without_finished_levels
from .._batching import unfold, widen
from .._layout import fill_floats, floats_of


class Foldable(abc.ABC):
    """A differentiable function of tensors (batch, ...), or (...) where the batch shares them, to a tuple of such."""

    @property
    @abc.abstractmethod
    def batch(self) -> int:
        """Number of instances."""

    @property
    @abc.abstractmethod
    def shared(self) -> tuple[bool, ...]:
        """Which arguments are shared by the batch."""

    @property
    @abc.abstractmethod
    def results(self) -> tuple[bool, ...]:
        """Which results are shared by the batch, of those with derivatives, which come first."""

    @property
    def separate(self) -> bool:
        """Whether arguments that are mapped along must be given apart, because results belong to them."""
        return False

    @abc.abstractmethod
    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the results."""

    @abc.abstractmethod
    def widened(self, size: int, shared: tuple[bool, ...]) -> "Foldable":
        """Return the function for batches that are ``size`` times as large."""

    def unfolded(self, results: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
        """Return results of a widened function with the mapped dimension in front."""
        return tuple(unfold(result, size, self.batch) for result in results)


@dataclass(frozen=True, eq=False)
class _Derivative(Foldable):
    """A derivative of a function in those of its arguments that are floats."""

    function: Foldable
    floats: tuple[bool, ...]

    @property
    def batch(self) -> int:
        return self.function.batch

    @property
    def separate(self) -> bool:
        return True

    @property
    def moving(self) -> tuple[bool, ...]:
        """Which arguments that are floats are shared by the batch."""
        return tuple(s for s, is_float in zip(self.function.shared, self.floats, strict=True) if is_float)

    def widened(self, size: int, shared: tuple[bool, ...]) -> "_Derivative":
        return replace(self, function=self.function.widened(size, shared[: len(self.floats)]))


class _Pull(_Derivative):
    """The vector-Jacobian product of a function: arguments and cotangents to gradients of those that are floats."""

    @property
    def shared(self) -> tuple[bool, ...]:
        return self.function.shared + self.function.results

    @property
    def results(self) -> tuple[bool, ...]:
        return self.moving

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        arguments, cotangents = tensors[: len(self.floats)], tensors[len(self.floats) :]
        pull = torch.func.vjp(_in_floats(self.function, arguments), *floats_of(arguments))[1]
        gradients: tuple[Tensor, ...] = pull(cotangents)
        return gradients

    def unfolded(self, results: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
        apart = super().unfolded(results, size)
        return tuple(g.sum(1) if shared else g for g, shared in zip(apart, self.results, strict=True))


class _Push(_Derivative):
    """The Jacobian-vector product of a function: arguments, and tangents of those that are floats, to tangents."""

    @property
    def shared(self) -> tuple[bool, ...]:
        return self.function.shared + self.moving

    @property
    def results(self) -> tuple[bool, ...]:
        return self.function.results

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        tensors = tuple(t.contiguous() for t in tensors)  # forward mode refuses tensors that are expanded
        arguments, tangents = tensors[: len(self.floats)], tensors[len(self.floats) :]
        pushed: tuple[Tensor, ...] = torch.func.jvp(
            _in_floats(self.function, arguments), floats_of(arguments), tangents
        )[1]
        return pushed

    def unfolded(self, results: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
        return self.function.unfolded(results, size)


def _in_floats(function: Foldable, arguments: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function of the arguments that are floats, to the results that have derivatives."""
    return lambda *floats: function(*fill_floats(arguments, floats))[: len(function.results)]


def mapped(function: Foldable, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Call a function, once for everything that surrounding ``torch.vmap`` map."""
    if not any(map(_is_mapped, tensors)):
        return function(*tensors)
    found: tuple[Tensor, ...] = _Mapped.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return found


def _is_mapped(tensor: Tensor) -> bool:
    """Return whether ``torch.vmap`` maps a tensor, perhaps under the wrappers of derivatives."""
    wrappers: Any = torch._C._functorch
    while wrappers.is_functorch_wrapped_tensor(tensor):
        if wrappers.is_batchedtensor(tensor):
            return True
        tensor = wrappers.get_unwrapped(tensor)
    return False


class _Mapped(torch.autograd.Function):
    """A call inside ``torch.vmap``."""

    @staticmethod
    def forward(function: Foldable, *tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *tensors = inputs
        ctx.floats = tuple(t.is_floating_point() for t in tensors)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        fixed = output[len(ctx.function.results) :]
        ctx.fixed = len(fixed)
        ctx.mark_non_differentiable(*fixed)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = tuple(map(without_finished_levels, ctx.saved_tensors))
        moving = cotangents[: len(cotangents) - ctx.fixed]
        pulled = iter(mapped(_Pull(ctx.function, ctx.floats), (*tensors, *moving)))
        return None, *(next(pulled) if is_float else None for is_float in ctx.floats)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = tuple(map(without_finished_levels, ctx.saved_tensors))
        dots = (
            torch.zeros_like(t) if dot is None else dot
            for t, dot, is_float in zip(tensors, tangents[1:], ctx.floats, strict=True)
            if is_float
        )
        return (*mapped(_Push(ctx.function, ctx.floats), (*tensors, *dots)), *(None,) * ctx.fixed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Foldable, *tensors: Tensor) -> tuple[Any, Any]:
        size, dims = info.batch_size, in_dims[1:]
        shared = tuple(s and d is None and not function.separate for s, d in zip(function.shared, dims, strict=True))
        wide = (
            t if now else widen(t, d, size, function.batch if was else None)
            for t, d, was, now in zip(tensors, dims, function.shared, shared, strict=True)
        )
        results = function.unfolded(mapped(function.widened(size, shared), tuple(wide)), size)
        return results, (0,) * len(results)
