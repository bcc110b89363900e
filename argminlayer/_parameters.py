"""Parameters as the caller gives them: conversion to tensors, and what is wrong with them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ._errors import ProblemError
from ._layout import Layout

if TYPE_CHECKING:
    from ._bound import BoundProblem


def read_parameters(parameters: Sequence[Any], names: Sequence[str], sparse: bool = False) -> tuple[Tensor, ...]:
    """Return parameters as tensors of one device, those of floats of one dtype.

    Python numbers and lists take dtype and device of the tensors; NumPy arrays keep their dtype.

    Raises:
        ProblemError: not convertible, mixed dtypes or devices, complex, sparse unless that is allowed, or on the meta
            device.
    """
    labels = names if len(names) == len(parameters) else tuple(map(str, range(len(parameters))))
    typed = [p for p in parameters if isinstance(p, Tensor | np.ndarray | np.generic)]
    tensors = [p for p in typed if isinstance(p, Tensor)]
    device = tensors[0].device if tensors else None
    floats = [t.dtype for t in map(torch.as_tensor, _numeric(typed)) if t.is_floating_point()]
    dtype = floats[0] if floats else torch.get_default_dtype()
    read = tuple(_read(p, label, dtype, device) for p, label in zip(parameters, labels, strict=True))
    _check_alike("dtypes", labels, [str(t.dtype) if t.is_floating_point() else None for t in read])
    _check_alike("devices", labels, [str(t.device) for t in read])
    for label, tensor in zip(labels, read, strict=True):
        if tensor.is_complex():
            raise ProblemError(f"parameter {label} is complex; pass its real and imaginary parts (torch.view_as_real)")
        if tensor.layout != torch.strided and not sparse:
            raise ProblemError(f"parameter {label} is sparse ({tensor.layout}); pass its `.to_dense()`")
        if tensor.is_meta:
            raise ProblemError(f"parameter {label} is on the meta device and has no values; move it to a real device")
    return read


def _numeric(values: Sequence[Any]) -> list[Any]:
    return [v for v in values if isinstance(v, Tensor) or v.dtype.kind in "fiub"]


def _read(value: Any, label: str, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    try:
        if isinstance(value, np.ndarray | np.generic):
            return torch.as_tensor(value, device=device)
        exact = torch.as_tensor(value, dtype=torch.float64 if _holds_floats(value) else None, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise ProblemError(f"parameter {label} is of type {kind}; pass a tensor, a number or an array") from error
    return exact.to(dtype) if exact.is_floating_point() else exact


def _holds_floats(value: Any) -> bool:
    return torch.as_tensor(value).is_floating_point()


def _check_alike(kind: str, labels: Sequence[str], values: list[str | None]) -> None:
    if len({value for value in values if value is not None}) > 1:
        listing = ", ".join(f"{label}: {v}" for label, v in zip(labels, values, strict=True) if v is not None)
        raise ProblemError(
            f"the parameters have different {kind} ({listing}); convert them with `.to(...)` so that all agree"
        )


def non_finite(bound: "BoundProblem") -> tuple[Tensor, str | None]:
    """Return which instances have only finite parameters and bounds that are numbers, and a sentence on the first."""
    layout = bound.layout
    finite = torch.ones(layout.batch, dtype=torch.bool, device=layout.device)
    message = None
    named = zip(bound.problem.parameter_names, bound.parameters, layout.shared, strict=True)
    suspects = [
        *((f"parameter {name}", p, ~p.isfinite(), shared) for name, p, shared in named if p.is_floating_point()),
        ("the lower bound", bound.lower, bound.lower.isnan() | (bound.lower == torch.inf), False),
        ("the upper bound", bound.upper, bound.upper.isnan() | (bound.upper == -torch.inf), False),
    ]
    for name, values, bad, shared in suspects:
        if bool(bad.any()):
            finite &= ~(bad.any() if shared else bad.flatten(1).any(1) if bad.ndim > 1 else bad)
            message = message or _describe(name, values, bad, shared, layout)
    return finite, message


def _describe(name: str, values: Tensor, bad: Tensor, shared: bool, layout: Layout) -> str:
    where = bad.nonzero()[0].tolist()
    value = values[tuple(where)].item()
    core = where if shared else where[1:]
    place = ""
    if shared and layout.batch > 1:
        place = " in every instance (it is shared)"
    elif layout.batch_shape:
        flat = torch.tensor(0 if shared else where[0])
        place = f" at batch index {tuple(int(i) for i in torch.unravel_index(flat, layout.batch_shape))}"
    entry = f"{',' if place else ' at'} entry {tuple(core)}" if core else ""
    return (
        f"{name} is not finite: {value}{place}{entry}; clean the inputs, or pass `throw=False` to lose only the "
        "instances concerned"
    )
