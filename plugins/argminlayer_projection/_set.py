"""What a set to project on is: a frozen value that states its problem and computes nearest points and derivatives."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

import argminlayer as al

STRUCTURE = "projection"
"""The name of the structure that every problem of this plugin declares."""


def half_squared_distance(u: Tensor, x: Tensor, *size: Tensor) -> Tensor:
    """Return ``1/2 |u - x|^2`` of one instance, whatever the size of the set."""
    del size
    return 0.5 * (u - x).square().sum()


class AbstractSet(abc.ABC):
    """A set, or a family of sets with parameters, and the map to its nearest points.

    Concrete sets are frozen dataclasses whose fields are the options that are not differentiated. They are the data of
    the structure ``"projection"`` of their problem: ``{"set": name, **fields, "rule": self}``, by which other plugins
    recognise what they have kernels for.

    Attributes:
        name: the value of the key ``"set"``.
    """

    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def signature(self) -> str:
        """Core dimensions of the point and the set's parameters, and of the nearest point."""

    @property
    @abc.abstractmethod
    def conditions(self) -> dict[str, Any]:
        """Constraints, bounds and start of the problem, as arguments of :class:`argminlayer.Problem`."""

    @property
    def objective(self) -> Callable[..., Tensor]:
        """What the nearest point minimises."""
        return half_squared_distance

    @abc.abstractmethod
    def project(self, x: Tensor, *parameters: Tensor, throw: bool = True) -> Tensor:
        """Return the nearest points, differentiable.

        Args:
            x: the points, (..., *core).
            *parameters: of the set; leading dimensions broadcast with those of ``x``.
            throw: raise where an instance is not finite, or its set is empty; otherwise such an instance is NaN.

        Raises:
            ProblemError: see ``throw``.
        """

    def problem(self) -> al.Problem:
        """Return the ordinary problem, which any solver solves."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        structure = al.Structure(STRUCTURE, {"set": self.name, **fields, "rule": self})
        return al.Problem(self.objective, self.signature, structure=structure, **self.conditions)


def checked(y: Tensor, good: Tensor, throw: bool, why: str) -> Tensor:
    """Return nearest points with NaN in the instances that have none.

    Args:
        y: (..., *core).
        good: which instances have a nearest point, (...).
        throw: raise instead.
        why: what is wrong with the others, and what would be right.

    Raises:
        ProblemError: names the first instance.
    """
    shaped = good.reshape(good.shape + (1,) * (y.ndim - good.ndim))
    if inside_transform():  # where nothing can be raised that depends on numbers
        return torch.where(shaped, y, torch.nan)
    if bool(good.all()):
        return y
    if throw:
        index = tuple(int(i) for i in (~good).nonzero()[0])
        where = f" at batch index {index}" if index else ""
        raise al.ProblemError(f"the projection{where} does not exist: {why}, or pass `throw=False` to get NaN there")
    return torch.where(shaped, y, torch.nan)


def inside_transform() -> bool:
    """Return whether a ``torch.func`` transform (grad, vjp, jvp, vmap, ...) is running this code."""
    return torch._C._functorch.peek_interpreter_stack() is not None
