"""Whether what a function computes can depend on anything but its arguments, and whether that has changed.

A recorded program may stand for a function only as long as everything the function reads from outside is what it was:
the cells of its closure and the global names it uses. Constants, tensors, functions and modules of mathematics can be
watched; a function that reads anything else is not recorded.
"""

import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONSTANTS = (
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), slice, range,
    torch.dtype, torch.device, torch.Size, np.number,
)  # fmt: skip
"""Values that cannot change."""
FIXED_MODULES = ("torch", "math", "numpy", "builtins", "operator", "functools", "itertools")
"""Modules, with all below them, whose functions and classes are taken to be what they are."""
FIXED_TYPES = (
    type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType,
    np.ufunc, torch._ops.OpOverload, torch._ops.OpOverloadPacket,
)  # fmt: skip
"""Types of what those modules contain."""

Read = Callable[[], Any]


class CannotWatch(Exception):
    """A function reads something whose changes cannot be seen."""


@dataclass(frozen=True)
class Guard:
    """What functions read from outside: how to read it, what it was, and the version of a tensor."""

    watched: tuple[tuple[Read, Any, int], ...]

    @classmethod
    def of(cls, functions: Iterable[Any]) -> "Guard":
        """Return the guard of several functions.

        Raises:
            CannotWatch: one of them reads what may change unseen.
        """
        seen: set[int] = set()
        found = [entry for function in functions for entry in _reads_of(function, seen)]
        return cls(tuple((read, value, _version(value)) for read, value in found))

    def holds(self) -> bool:
        """Return whether everything is as it was."""
        try:
            return all(read() is value and _version(value) == version for read, value, version in self.watched)
        except (KeyError, ValueError):  # a name or a cell was deleted
            return False


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def _reads_of(value: Any, seen: set[int]) -> Iterator[tuple[Read, Any]]:
    """Yield how to read everything that a value leads to."""
    if id(value) in seen or isinstance(value, CONSTANTS) or _is_fixed(value):
        return
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        yield from _reads_of_function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _reads_of(value.__func__, seen)
        yield from _reads_of(value.__self__, seen)
    elif isinstance(value, partial):
        yield from _reads_of((value.func, *value.args, *value.keywords.values()), seen)
    elif isinstance(value, tuple | frozenset):
        for part in value:
            yield from _reads_of(part, seen)
    elif is_dataclass(value) and getattr(type(value), "__dataclass_params__").frozen:  # noqa: B009 - no stub has it
        yield from _reads_of(tuple(getattr(value, field.name) for field in fields(value)), seen)
    elif not (isinstance(value, Tensor) and not value.requires_grad):
        raise CannotWatch(f"it reads a {type(value).__qualname__}")


def _reads_of_function(function: types.FunctionType, seen: set[int]) -> Iterator[tuple[Read, Any]]:
    for cell in function.__closure__ or ():
        try:
            inside = cell.cell_contents
        except ValueError as error:
            raise CannotWatch("a cell of its closure is empty") from error
        yield partial(getattr, cell, "cell_contents"), inside
        yield from _reads_of(inside, seen)
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from _reads_of(defaults, seen)
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            inside = function.__globals__[name]
            yield partial(function.__globals__.__getitem__, name), inside
            yield from _reads_of(inside, seen)


def _global_names(code: types.CodeType) -> set[str]:
    """Return every name that the code, or a function defined in it, may look up outside."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_global_names(constant) for constant in inner))


def _is_fixed(value: Any) -> bool:
    """Say whether a value belongs to a library whose parts stay what they are."""
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | type | None):
        return False
    if isinstance(value, types.ModuleType):
        name = value.__name__
    elif isinstance(value, FIXED_TYPES):
        name = getattr(value, "__module__", None) or "builtins"
    else:
        return False
    return any(name == known or name.startswith(f"{known}.") for known in FIXED_MODULES)
