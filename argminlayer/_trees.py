"""Nested dataclasses of tensors as flat tuples and back: what autograd and torch.func transforms can see."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from torch import Tensor

T = TypeVar("T")


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors inside nested dataclasses, in the order of their fields."""
    if isinstance(value, Tensor):
        yield value
    else:
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))


def count_tensors(kind: type) -> int:
    """Return how many tensors an instance of a nested dataclass holds."""
    return 1 if kind is Tensor else sum(map(count_tensors, _kinds(kind)))


def build(kind: type[T], tensors: Iterable[Tensor]) -> T:
    """Return an instance of a nested dataclass from its tensors: the inverse of :func:`tensors_of`."""
    built: T = _builder(kind)(iter(tensors))  # type: ignore[arg-type]
    return built


@functools.cache
def _builder(kind: Any) -> Callable[[Iterator[Tensor]], Any]:
    """Return what takes the tensors of an instance from an iterator and makes the instance."""
    takers = [next if inner is Tensor else _builder(inner) for inner in _kinds(kind)]
    return lambda remaining: kind(*[take(remaining) for take in takers])


@functools.cache
def _kinds(kind: Any) -> list[type]:
    hints = get_type_hints(kind)
    return [hints[field.name] for field in fields(kind)]
