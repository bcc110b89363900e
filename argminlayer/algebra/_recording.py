"""What a recording consists of: operators with their arguments, places and lines, and what their results depend on."""

import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload


class Taint(IntEnum):
    """What a recorded value depends on."""

    CONSTANT = 0
    PARAMETER = 1
    VARIABLE = 2


class Location(NamedTuple):
    """Where an operator was called: the problem's function, and the user's line."""

    role: str
    file: str = ""
    line: int = 0
    function: str = ""

    def __str__(self) -> str:
        if not self.line:
            return self.role
        name = "" if self.function.startswith("<") else f" ({self.function!r})"
        code = linecache.getline(self.file, self.line).strip()
        return f"{self.role}{name}, line {self.line} of {Path(self.file).name}" + (f", `{code}`" if code else "")


@dataclass(frozen=True, slots=True)
class Ref:
    """The place of a tensor among the arguments of a recorded operator."""

    index: int


@dataclass(frozen=True, eq=False)
class Operation:
    """One recorded call of an ATen operator.

    Attributes:
        target: the operator.
        args: positional arguments, tensors replaced by :class:`Ref`, lists by tuples.
        kwargs: keyword arguments likewise, as pairs.
        outputs: the values it produces; None for one that is no tensor.
        taint: what its result depends on.
        location: where it was called.
    """

    target: OpOverload
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    outputs: tuple[int | None, ...]
    taint: Taint
    location: Location

    @property
    def name(self) -> str:
        """The name of the operator without its overload, ``"add"``."""
        return operator_name(self.target)

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """The values it reads."""
        return (*references(self.args), *(i for _, value in self.kwargs for i in references(value)))

    def run(self, find: Callable[[int], Tensor]) -> tuple[Any, ...]:
        """Call the operator in torch on the values that ``find`` returns."""
        result = self.target(*fill(self.args, find), **{key: fill(value, find) for key, value in self.kwargs})
        return tuple(result) if isinstance(result, tuple | list) else (result,)


class Guard(NamedTuple):
    """A value read while recording: where it differs, the functions may take another path."""

    operation: Operation
    value: Any


@dataclass(eq=False)
class Recording:
    """What was recorded. A value is known by its index into the lists.

    Attributes:
        operations: in the order in which they were called.
        guards: what the path through the functions depended on.
        tensors: each value as it was while recording.
        shapes: its shape.
        taints: what it depends on.
        inputs: the variables, then the parameters.
        outputs: what the recorded function returned.
    """

    operations: list[Operation] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    taints: list[Taint] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


def operator_name(target: OpOverload) -> str:
    """Return the name of an operator without namespace and overload."""
    return target._schema.name.removeprefix("aten::")


def references(argument: Any) -> Iterator[int]:
    """Yield the values that a recorded argument refers to."""
    if isinstance(argument, Ref):
        yield argument.index
    elif isinstance(argument, tuple):
        for part in argument:
            yield from references(part)


def fill(argument: Any, find: Callable[[int], Any]) -> Any:
    """Return a recorded argument with every :class:`Ref` replaced."""
    if isinstance(argument, Ref):
        return find(argument.index)
    if isinstance(argument, tuple):
        return [fill(part, find) for part in argument]
    return argument
