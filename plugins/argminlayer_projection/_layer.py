"""What all projection layers share: the dimension they work along, and parameters that are numbers or tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import argminlayer as al

from ._set import AbstractSet

Size = float | Tensor
"""A parameter of a set: a number, or a tensor with the batch dimensions before its own, which may require grad."""


class AbstractProjection(al.ArgminLayer):
    """A layer that maps points to the nearest points of a set.

    Parameters of the set that are given as ``nn.Parameter`` are learned; tensors are buffers, which may require grad
    and then receive it; numbers are constants. Each may be replaced in a call.

    Args:
        rule: the set.
        sizes: its parameters, by name, in the order of the problem's.
        dim: the dimension of a point's entries, for sets of vectors.
        solver: as for :class:`argminlayer.ArgminLayer`.
        throw: raise where a point is not finite or a set is empty; otherwise such instances are NaN.
    """

    def __init__(
        self,
        rule: AbstractSet,
        sizes: Mapping[str, Size],
        *,
        dim: int = -1,
        solver: str | al.AbstractSolver | None = None,
        throw: bool = True,
    ):
        super().__init__(rule.problem(), solver=solver, throw=throw)
        self.dim = dim
        self._sizes = tuple(sizes)
        self._cores = tuple(map(len, self.problem.signature.inputs[1:]))
        for name, value in sizes.items():
            if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(  # type: ignore[override]
        self, x: Tensor, *sizes: Size, solver: str | al.AbstractSolver | None = None, start: Any = None
    ) -> Tensor:
        """Return the nearest points.

        Args:
            x: the points, with any leading dimensions.
            *sizes: replace the first parameters of the set for this call.
            solver: for this call only.
            start: for this call only; solvers other than the exact one begin there.

        Raises:
            ProblemError: a point is not finite, or a set is empty (only with ``throw``).
        """
        given = (*sizes, *(getattr(self, name) for name in self._sizes[len(sizes) :]))
        last = x if self.dim == -1 else x.movedim(self.dim, -1)
        parameters = (_parameter(size, core, last) for size, core in zip(given, self._cores, strict=True))
        y = super().forward(last, *parameters, solver=solver, start=start)
        return y if self.dim == -1 else y.movedim(-1, self.dim)  # type: ignore[union-attr, return-value]

    def extra_repr(self) -> str:
        """Return the set and its parameters."""
        rule = self.problem.structure.data["rule"] if self.problem.structure is not None else None
        values = (getattr(self, name) for name in self._sizes)
        shown = (f"shape {tuple(v.shape)}" if isinstance(v, Tensor) and v.ndim else f"{_number(v):g}" for v in values)
        sizes = ", ".join(f"{name}={text}" for name, text in zip(self._sizes, shown, strict=True))
        return f"{rule}, {sizes}, dim={self.dim}, solver={self.solver!r}"


def _parameter(size: Size, core: int, x: Tensor) -> Tensor:
    """Return a parameter of the set as a tensor like x; a number stands for every entry of a vector."""
    if not isinstance(size, Tensor):
        return torch.full(x.shape[x.ndim - core :], size, dtype=x.dtype, device=x.device)
    size = size.to(x)
    return size.expand(x.shape[x.ndim - core :]) if size.ndim < core else size


def _number(size: Size) -> float:
    return float(size.detach()) if isinstance(size, Tensor) else float(size)
