"""What a CVXPY parameter demands of its values, checked for every instance of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import argminlayer as al

RELATIVE = 1e-5
"""How far a value may be off, relative to the largest entry: what single precision and difference quotients need."""
ABSOLUTE = 1e-8

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attributes of one parameter.

    Attributes:
        name: what messages call it.
        dimensions: how many dimensions one value has.
        kinds: names of the checks, of :data:`_DEVIATIONS`.
        outside: which entries must vanish, a mask in the shape of a value; None where all may be there.
        bounds: lower and upper bounds of the entries, None without.
    """

    name: str
    dimensions: int
    kinds: tuple[str, ...] = ()
    outside: Array | None = None
    bounds: tuple[Any, Any] | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.kinds) or self.outside is not None or self.bounds is not None

    def check(self, values: Array) -> None:
        """Check values with any leading dimensions. NaN passes: which instances are not finite is reported elsewhere.

        Raises:
            ProblemError: a value that is off by more than rounding explains.
        """
        if not values.size:
            return
        core = tuple(range(values.ndim - self.dimensions, values.ndim))
        with np.errstate(all="ignore"):
            allowed = RELATIVE * np.abs(values).max(core, initial=0.0) + ABSOLUTE
            deviations = self._deviations(values, core)
        for words, deviation in deviations:
            off = deviation > allowed
            if off.any():
                first = tuple(int(i) for i in np.argwhere(off)[0])
                where = f" at batch index {first}" if first else ""
                raise al.ProblemError(
                    f"parameter {self.name}{where} must be {words}, as its CVXPY parameter says, but is off by "
                    f"{deviation[first]:.2g}; project the values, or leave the attribute out of the cp.Parameter"
                )

    def _deviations(self, values: Array, core: tuple[int, ...]) -> list[tuple[str, Array]]:
        found = [(words, measure(values, core)) for words, measure in map(_DEVIATIONS.__getitem__, self.kinds)]
        if self.outside is not None:
            found.append(("zero outside of its sparsity pattern", _largest(np.abs(values) * self.outside, core)))
        if self.bounds is not None:
            low, high = self.bounds
            found.append(("within its bounds", _largest(np.maximum(low - values, values - high), core)))
        return found


def _largest(values: Array, core: tuple[int, ...]) -> Array:
    largest: Array = np.nan_to_num(values.max(core, initial=0.0), nan=0.0)
    return largest


def _asymmetry(values: Array, core: tuple[int, ...]) -> Array:
    return _largest(np.abs(values - np.swapaxes(values, -1, -2)), core)


def _most_negative(values: Array, core: tuple[int, ...]) -> Array:
    """Return minus the smallest eigenvalue where it is negative, beside the asymmetry."""
    usable = np.isfinite(values).all(core, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(np.where(usable, 0.5 * (values + np.swapaxes(values, -1, -2)), 0.0))
    largest: Array = np.maximum(-eigenvalues[..., 0], _asymmetry(values, core))
    return largest


_DEVIATIONS: dict[str, tuple[str, Callable[[Array, tuple[int, ...]], Array]]] = {
    "nonneg": ("nonnegative", lambda v, core: _largest(-v, core)),
    "nonpos": ("nonpositive", lambda v, core: _largest(v, core)),
    "pos": ("positive", lambda v, core: _largest(np.where(v <= 0.0, np.inf, -v), core)),
    "neg": ("negative", lambda v, core: _largest(np.where(v >= 0.0, np.inf, v), core)),
    "symmetric": ("symmetric", _asymmetry),
    "PSD": ("positive semidefinite", _most_negative),
    "NSD": ("negative semidefinite", lambda v, core: _most_negative(-v, core)),
}
"""For each attribute that CVXPY knows: in words, and how far values are off."""


def checked(attributes: Attributes, value: Tensor) -> Tensor:
    """Return the value itself after checking it, also inside of torch's transforms."""
    if not attributes.any:
        return value
    same: Tensor = _Checked.apply(value, attributes)  # type: ignore[no-untyped-call]
    return same


class _Checked(torch.autograd.Function):
    """The identity: its forward sees plain numbers, where functions under ``torch.vmap`` do not."""

    @staticmethod
    def forward(value: Tensor, attributes: Attributes) -> Tensor:
        attributes.check(value.detach().numpy())
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        del ctx
        return gradient, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        del ctx
        return tangent.view_as(tangent)

    @staticmethod
    def vmap(info: Any, in_dims: Any, value: Tensor, attributes: Attributes) -> Any:
        del info
        return _Checked.apply(value.movedim(in_dims[0], 0), attributes), 0  # type: ignore[no-untyped-call]
