"""How parameters and variables are laid out: leading dimensions as a flat batch, variables as one flat vector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._errors import ProblemError
from ._solution import Variables

WORKING_DTYPE = torch.float64
"""Problems are solved, certified and differentiated in this precision whatever that of the parameters."""


@dataclass(frozen=True)
class Layout:
    """How parameters and variables are laid out: leading dimensions flattened to a batch, variables to one vector."""

    batch_shape: torch.Size
    shapes: tuple[torch.Size, ...]
    shared: tuple[bool, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def batch(self) -> int:
        """Number of instances."""
        return self.batch_shape.numel()

    @property
    def size(self) -> int:
        """Number of variables of one instance, n."""
        return sum(shape.numel() for shape in self.shapes)

    def unflatten(self, flat: Tensor) -> Variables:
        """Return the variables held in the last dimension of ``flat`` (..., n), a tuple when there are several."""
        lead = flat.shape[:-1]
        if len(self.shapes) == 1:
            return flat.reshape(lead + self.shapes[0])
        pieces = flat.split([shape.numel() for shape in self.shapes], dim=-1)
        return tuple(piece.reshape(lead + shape) for piece, shape in zip(pieces, self.shapes, strict=True))

    def flatten(self, variables: Any, what: str) -> Tensor:
        """Return variables with common leading dimensions (that broadcast) as one tensor (..., n) in working precision.

        Raises:
            ProblemError: wrong number or shapes of variables; ``what`` names them.
        """
        given = variables if isinstance(variables, tuple) else (variables,)
        if len(given) != len(self.shapes):
            raise ProblemError(
                f"{what} has {len(given)} variables, but the signature has {len(self.shapes)}: give a tuple with one "
                "entry for each"
            )
        pieces = [self._core(v, shape, what) for v, shape in zip(given, self.shapes, strict=True)]
        lead = torch.broadcast_shapes(*(piece.shape[:-1] for piece in pieces))
        return torch.cat([piece.expand(lead + piece.shape[-1:]) for piece in pieces], dim=-1)

    def _core(self, value: Any, shape: torch.Size, what: str) -> Tensor:
        try:
            tensor = torch.as_tensor(value, dtype=WORKING_DTYPE, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ProblemError(
                f"{what} must be a tensor or a number for each variable, not of type {type(value).__name__}"
            ) from error
        if tensor.is_inference():
            tensor = tensor.clone()
        if tensor.ndim < len(shape):
            tensor = tensor.expand(shape) if tensor.ndim == 0 else tensor
        lead = tensor.ndim - len(shape)
        if lead < 0 or tensor.shape[lead:] != shape:
            raise ProblemError(
                f"{what} has shape {tuple(tensor.shape)}, but the variable has shape {tuple(shape)}; leading "
                f"dimensions may only be those of the batch, {tuple(self.batch_shape)}"
            )
        return tensor.reshape((*tensor.shape[:lead], shape.numel()))

    def prepare(self, parameters: Sequence[Tensor], core_ndims: Sequence[int]) -> tuple[Tensor, ...]:
        """Return parameters as (batch, *core), or (*core) when shared by the batch, floats in working precision.

        Differentiable: the gradient of a shared or broadcast parameter is the sum over the instances that use it.
        """
        return tuple(
            self._prepare_one(parameter, core, shared)
            for parameter, core, shared in zip(parameters, core_ndims, self.shared, strict=True)
        )

    def _prepare_one(self, parameter: Tensor, core_ndim: int, shared: bool) -> Tensor:
        core = parameter.shape[parameter.ndim - core_ndim :]
        working = parameter.to(WORKING_DTYPE) if parameter.is_floating_point() else parameter
        if shared:
            return working.reshape(core)
        return working.expand(self.batch_shape + core).reshape((self.batch, *core))


def floats_of(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the parameters that are floats: those that can be differentiated in."""
    return tuple(p for p in parameters if p.is_floating_point())


def fill_floats(parameters: tuple[Tensor, ...], floats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the parameters with those that are floats replaced in turn."""
    found = iter(floats)
    return tuple(next(found) if p.is_floating_point() else p for p in parameters)
