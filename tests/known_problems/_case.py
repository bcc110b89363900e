"""One problem with its known solution, and how an answer is measured against it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import argminlayer as al

from ._numbers import normal

FOUR_POINT = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Offsets and weights of the central difference of fourth order."""


@dataclass(frozen=True)
class Case:
    """A problem, parameters, and its solution as a function of the parameters of ONE instance.

    Attributes:
        name: what the problem is.
        problem: the problem.
        parameters: float64, with any leading dimensions.
        known: ``(*x) -> u`` for one instance; autograd gives the true derivative unless ``differences``.
        differences: the derivative is taken by central differences of ``known``.
        floor: gradients smaller than this are compared absolutely.
        either_sign: the solution is known up to its sign.
        single: expected accuracy in float32, None where float32 cannot resolve the problem.
    """

    name: str
    problem: al.Problem
    parameters: tuple[Tensor, ...]
    known: Callable[..., Any]
    differences: bool = False
    floor: float = 1e-3
    either_sign: bool = False
    single: float | None = 1e-4
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions of the parameters."""
        dims = self.problem.signature.inputs
        return torch.broadcast_shapes(*(p.shape[: p.ndim - len(d)] for p, d in zip(self.parameters, dims, strict=True)))

    def solution(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the known solution of the whole batch, as a tuple of variables."""
        each = [as_tuple(self.known(*instance)) for instance in self.instances(parameters)]
        return tuple(torch.stack(parts).reshape(self.batch_shape + parts[0].shape) for parts in zip(*each, strict=True))

    def instances(self, parameters: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        """Return the parameters of each instance of the batch."""
        dims = self.problem.signature.inputs
        full = [
            p.expand(self.batch_shape + p.shape[p.ndim - len(d) :]).flatten(0, len(self.batch_shape) - 1)
            if self.batch_shape
            else p[None]
            for p, d in zip(parameters, dims, strict=True)
        ]
        return zip(*full, strict=True)

    def answer(self) -> tuple[Tensor, ...]:
        """Return the known solution at the parameters, computed once."""
        if "answer" not in self.cache:
            self.cache["answer"] = tuple(part.detach() for part in self.solution(*self.parameters))
        found: tuple[Tensor, ...] = self.cache["answer"]
        return found

    def cotangents(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Return random cotangents of the solution."""
        return tuple(normal(100 + seed, *part.shape) for part in self.answer())

    def gradients(self, seed: int = 0) -> tuple[Tensor, ...]:
        """Return the true vector-Jacobian product with :meth:`cotangents`, computed once."""
        key = f"gradients {seed}"
        if key not in self.cache:
            method = self._differences if self.differences else self._autograd
            self.cache[key] = method(self.cotangents(seed))
        found: tuple[Tensor, ...] = self.cache[key]
        return found

    def _autograd(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = tuple(p.clone().requires_grad_() for p in self.parameters)
        return torch.autograd.grad(self.solution(*leaves), leaves, cotangents, materialize_grads=True)

    def _differences(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found = []
        for index, parameter in enumerate(self.parameters):
            gradient = torch.zeros_like(parameter).flatten()
            for entry in range(parameter.numel()):
                step = 1e-3 * max(1.0, abs(float(parameter.flatten()[entry])))
                for offset, weight in FOUR_POINT:
                    moved = [p.clone() for p in self.parameters]
                    moved[index].view(-1)[entry] += offset * step
                    value = self.solution(*moved)
                    total = sum((c * v).sum() for c, v in zip(cotangents, value, strict=True))
                    gradient[entry] += weight / step * total
            found.append(gradient.reshape(parameter.shape))
        return tuple(found)

    def value_error(self, value: Any) -> float:
        """Return the largest error of a solution, relative to the largest entry of each variable."""
        pairs = zip(as_tuple(value), self.signed(self.answer(), value), strict=True)
        return max(relative(got, want, 1e-3) for got, want in pairs)

    def gradient_error(self, value: Any, parameters: tuple[Tensor, ...], seed: int = 0) -> float:
        """Return the largest error of the vector-Jacobian product, relative to the largest entry for each parameter."""
        cotangents = self.signed(self.cotangents(seed), value)
        typed = tuple(c.to(v.dtype) for c, v in zip(cotangents, as_tuple(value), strict=True))
        found = torch.autograd.grad(as_tuple(value), parameters, typed, retain_graph=True, materialize_grads=True)
        return max(relative(got, want, self.floor) for got, want in zip(found, self.gradients(seed), strict=True))

    def signed(self, tensors: tuple[Tensor, ...], value: Any) -> tuple[Tensor, ...]:
        """Return tensors of the shape of the solution with the sign that ``value`` has against the known one."""
        if not self.either_sign:
            return tensors
        sign = (as_tuple(value)[0].detach() * self.answer()[0]).sum(-1, keepdim=True).sign()
        return tuple(sign * tensor for tensor in tensors)


def relative(got: Tensor, want: Tensor, floor: float) -> float:
    """Return the largest error relative to the largest entry, NaN counting as infinite."""
    error = (got.detach().double() - want).abs().amax() / want.abs().amax().clamp_min(floor)
    return float(torch.nan_to_num(error, nan=torch.inf))


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def as_variables(parts: tuple[Tensor, ...]) -> Any:
    """Return variables as the library takes them: a tensor when there is one, else the tuple."""
    return parts if len(parts) > 1 else parts[0]
