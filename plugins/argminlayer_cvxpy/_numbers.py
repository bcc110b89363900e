"""Numbers that depend on the parameters of an instance: short programs of vector operations, run for a whole batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Operation = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Numbers:
    """A vector of numbers of every instance.

    Attributes:
        program: where it is computed.
        step: its place there; equal expressions have equal steps.
        size: k.
        constant: its values (k,), where no parameter decides them; else None.
    """

    program: "Program"
    step: int
    size: int
    constant: Array | None

    def __add__(self, other: "Numbers") -> "Numbers":
        """Return the sum; a vector of length one is added to all."""
        for one, rest in ((self, other), (other, self)):
            if one.is_constant(0.0) and one.size in (1, rest.size):
                return rest
        return self.program.apply("add", torch.add, (self, other), self._wide(other))

    def __mul__(self, other: "Numbers") -> "Numbers":
        """Return the product; a vector of length one multiplies all."""
        for one, rest in ((self, other), (other, self)):
            if one.is_constant(1.0) and one.size in (1, rest.size):
                return rest
            if one.is_constant(0.0):
                return self.program.constant(np.zeros(self._wide(other)))
        return self.program.apply("mul", torch.mul, (self, other), self._wide(other))

    def _wide(self, other: "Numbers") -> int:
        return other.size if self.size == 1 else self.size

    def __neg__(self) -> "Numbers":
        """Return the negative."""
        return self.program.apply("neg", torch.neg, (self,), self.size)

    def inverse(self) -> "Numbers":
        """Return 1 over every number."""
        return self.program.apply("reciprocal", torch.reciprocal, (self,), self.size)

    def take(self, index: Index) -> "Numbers":
        """Return the numbers at some positions."""
        if len(index) == self.size and (index == np.arange(self.size)).all():
            return self
        places = torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))
        return self.program.apply(("take", places.numpy().tobytes()), lambda x: x[:, places], (self,), len(index))

    def add_up(self, targets: Index, size: int) -> "Numbers":
        """Return a vector of length ``size`` with every number added at its target."""
        if len(targets) == size and (targets == np.arange(size)).all():
            return self
        places = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))

        def added(x: Tensor) -> Tensor:
            return x.new_zeros(x.shape[0], size).index_add(1, places, x)

        return self.program.apply(("add up", places.numpy().tobytes(), size), added, (self,), size)

    def is_constant(self, number: float) -> bool:
        """Say whether all of it is this number, whatever the parameters."""
        return self.constant is not None and bool((self.constant == number).all())

    @property
    def sample(self) -> Array:
        """The values (k,) for the instance that the program was written for."""
        return self.program.sample(self)


class Program:
    """Vectors computed from the parameters of an instance, each step once.

    Args:
        parameters: (n_p,), those of the instance that decides where a choice has to be made.
    """

    def __init__(self, parameters: Array):
        self._operations: list[tuple[Operation | None, tuple[int, ...]]] = [(None, ())]
        self._samples: list[Tensor] = [torch.from_numpy(parameters[None])]
        self._constants: dict[int, Tensor] = {}
        self._known: dict[Any, Numbers] = {}
        self.parameters = Numbers(self, 0, len(parameters), None)

    def constant(self, values: Any) -> Numbers:
        """Return numbers that are the same for all instances."""
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
        key = ("constant", array.tobytes())
        found = self._known.get(key)
        if found is None:
            step = self._add(None, (), torch.from_numpy(array[None]))
            self._constants[step] = self._samples[step]
            found = self._known[key] = Numbers(self, step, len(array), array)
        return found

    def apply(self, key: Any, operation: Operation, inputs: Sequence[Numbers], size: int) -> Numbers:
        """Return the result of an operation on vectors.

        Args:
            key: what tells the operation from others.
            operation: takes tensors (instances, k) or (1, k), and returns one.
            inputs: its arguments.
            size: length of its result.
        """
        steps = tuple(x.step for x in inputs)
        known = self._known.get((key, steps))
        if known is not None:
            return known
        with torch.no_grad():
            sample = operation(*(self._samples[s] for s in steps))
        if all(x.constant is not None for x in inputs):
            found = self.constant(sample.expand(1, size)[0].numpy())
        else:
            found = Numbers(self, self._add(operation, steps, sample), size, None)
        self._known[key, steps] = found
        return found

    def concatenate(self, parts: Sequence[Numbers]) -> Numbers:
        """Return vectors one after the other."""
        parts = [part for part in parts if part.size] or [self.constant(np.zeros(0))]
        if len(parts) == 1:
            return parts[0]
        if all(part.constant is not None for part in parts):
            return self.constant(np.concatenate([part.constant for part in parts if part.constant is not None]))

        def joined(*rows: Tensor) -> Tensor:
            batch = max(row.shape[0] for row in rows)
            return torch.cat([row.expand(batch, -1) for row in rows], dim=1)

        return self.apply("concatenate", joined, parts, sum(part.size for part in parts))

    def sample(self, numbers: Numbers) -> Array:
        """Return the values (k,) of the sample instance."""
        row: Array = self._samples[numbers.step].expand(1, numbers.size)[0].numpy()
        return row

    def run(self, parameters: Tensor, wanted: Sequence[Numbers]) -> list[Tensor]:
        """Return the values (instances, k) or (1, k) of some vectors, differentiable in the parameters.

        Args:
            parameters: (instances, n_p).
            wanted: what to compute.
        """
        needed = {numbers.step for numbers in wanted}
        for step in range(len(self._operations) - 1, 0, -1):
            if step in needed:
                needed.update(self._operations[step][1])
        found = {0: parameters}
        for step in sorted(needed - {0}):
            operation, inputs = self._operations[step]
            found[step] = self._constants[step] if operation is None else operation(*(found[i] for i in inputs))
        return [found[numbers.step] for numbers in wanted]

    def _add(self, operation: Operation | None, inputs: tuple[int, ...], sample: Tensor) -> int:
        self._operations.append((operation, inputs))
        self._samples.append(sample)
        return len(self._operations) - 1
