"""The machine that rules are written for: tensors of expressions, movement of data, broadcasting, reductions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ._backend import Backend

V = TypeVar("V")


class Unsupported(Exception):
    """What was asked for has no algebraic form; the message completes the sentence "operator `x` ..."."""


@dataclass(frozen=True, eq=False)
class Value(Generic[V]):
    """A tensor of expressions.

    Attributes:
        data: the entries in C order, in the backend's form.
        shape: its shape.
        boolean: whether the entries are 0 or 1.
        square: the value whose square root this one is, if it is one.
    """

    data: V
    shape: torch.Size
    boolean: bool = False
    square: "Value[V] | None" = None


class Machine(Generic[V]):
    """Operations on values, in terms of the primitives of a backend. Known tensors stay tensors as long as possible."""

    def __init__(self, backend: Backend[V]):
        self.backend = backend

    # Values

    def value(self, x: Any) -> Value[V]:
        """Return a tensor or a number as a value."""
        if isinstance(x, Value):
            return x
        tensor = dense(torch.as_tensor(x, dtype=torch.float64 if isinstance(x, float) else None))
        data = self.backend.constant(tensor.reshape(-1).to(torch.float64))
        return Value(data, tensor.shape, tensor.dtype == torch.bool)

    def constant(self, number: float) -> Value[V]:
        """Return a number as a value of shape ()."""
        return self.value(torch.tensor(number, dtype=torch.float64))

    def floats(self, x: Any) -> Value[V]:
        """Return a value whose entries are numbers, for arithmetic."""
        found = self.value(x)
        return Value(found.data, found.shape) if found.boolean else found

    # Movement of data

    def move(self, operator: Callable[..., Any], *tensors: Any) -> Any:
        """Return what an operator that only moves entries makes of values.

        The operator runs on tensors of positions instead of the values; what comes out says which entry goes where.
        Position 0 stands for zero.

        Args:
            operator: takes integer tensors in place of the values, and returns one tensor or several.
            *tensors: values, tensors or numbers.
        """
        values = [self.value(t) for t in tensors]
        zeros = [None if isinstance(t, Value) else dense(torch.as_tensor(t)) == 0 for t in tensors]
        positions, offset = [], 1
        for value, zero in zip(values, zeros, strict=True):
            count = value.shape.numel()
            position = torch.arange(offset, offset + count).reshape(value.shape)
            positions.append(position if zero is None else torch.where(zero, 0, position))
            offset += count
        try:
            moved = operator(*positions)
        except NotImplementedError:  # some operators move floats only
            moved = operator(*(position.to(torch.float64) for position in positions))
        boolean = all(value.boolean for value in values)
        if isinstance(moved, tuple | list):
            return tuple(self._collect(values, one, boolean) for one in moved)
        return self._collect(values, moved, boolean)

    def moved(self, operator: Callable[..., Tensor], *tensors: Any) -> Value[V]:
        """Return :meth:`move` of an operator that returns one tensor."""
        value: Value[V] = self.move(operator, *tensors)
        return value

    def _collect(self, values: list[Value[V]], positions: Tensor, boolean: bool) -> Value[V]:
        index = positions.reshape(-1).to(torch.int64).numpy()
        shape = positions.shape
        pools: list[V] = []
        low, shift = 1, 0
        mapped = np.zeros_like(index)
        if index.size == 0 or (index == 0).any():
            pools.append(self.backend.constant(torch.zeros(1, dtype=torch.float64)))
            shift = 1
        for value in values:
            count = value.shape.numel()
            here = (index >= low) & (index < low + count)
            if here.any():
                mapped[here] = index[here] - low + shift
                pools.append(value.data)
                shift += count
            low += count
        pool = pools[0] if len(pools) == 1 else self.backend.concatenate(pools)
        if index.size == shift and (mapped == np.arange(shift)).all():
            return Value(pool, shape, boolean)
        return Value(self.backend.gather(pool, mapped), shape, boolean)

    def expand(self, x: Value[V], shape: Sequence[int]) -> Value[V]:
        """Return a value broadcast to a shape."""
        return x if x.shape == torch.Size(shape) else self.moved(lambda p: p.expand(shape), x)

    def reshape(self, x: Value[V], shape: Sequence[int]) -> Value[V]:
        """Return the same entries in another shape."""
        return Value(x.data, torch.Size(shape), x.boolean, x.square)

    # Functions of entries

    def unary(self, function: str, x: Any) -> Value[V]:
        """Return a function of every entry."""
        if function not in self.backend.functions:
            raise Unsupported(f"needs the function {function!r}, which this modelling language does not have")
        x = self.floats(x)
        return Value(self.backend.unary(function, x.data), x.shape)

    def binary(self, function: str, x: Any, y: Any) -> Value[V]:
        """Return a function of entries pairwise, broadcast."""
        if function not in self.backend.functions:
            raise Unsupported(f"needs the function {function!r}, which this modelling language does not have")
        x, y = self.value(x), self.value(y)
        shape = torch.broadcast_shapes(x.shape, y.shape)
        boolean = function in COMPARISONS
        return Value(self.backend.binary(function, self._operand(x, shape), self._operand(y, shape)), shape, boolean)

    def _operand(self, x: Value[V], shape: torch.Size) -> V:
        if x.shape.numel() == 1:
            return x.data if shape.numel() else self.expand(x, shape).data
        return self.expand(x, shape).data

    def add(self, x: Any, y: Any) -> Value[V]:
        """Return x + y."""
        return self.binary("add", x, y)

    def sub(self, x: Any, y: Any) -> Value[V]:
        """Return x - y."""
        return self.binary("sub", x, y)

    def mul(self, x: Any, y: Any) -> Value[V]:
        """Return x * y; the square of a square root is what is under it."""
        if x is y and isinstance(x, Value):
            return self.power(x, 2.0)
        return self.binary("mul", x, y)

    def div(self, x: Any, y: Any) -> Value[V]:
        """Return x / y; division by known numbers is multiplication."""
        if isinstance(y, int | float) and y != 0:
            return self.binary("mul", x, 1.0 / y) if math.frexp(y)[0] in (0.5, -0.5) else self.binary("div", x, y)
        return self.binary("div", x, y)

    def power(self, x: Any, exponent: float) -> Value[V]:
        """Return x to a constant power."""
        base = self.floats(x)
        if exponent == 0:
            return self.value(torch.ones(base.shape, dtype=torch.float64))
        if exponent == 1:
            return base
        if exponent == 2 and base.square is not None:
            return base.square
        if exponent == -1:
            return self.binary("div", self.constant(1.0), base)
        if exponent == 0.5:
            return self.unary("sqrt", base)
        return Value(self.backend.power(base.data, float(exponent)), base.shape)

    def root(self, x: Value[V]) -> Value[V]:
        """Return the square root of a value that is nowhere negative."""
        return Value(self.unary("sqrt", x).data, x.shape, square=x)

    def where(self, condition: Any, x: Any, y: Any) -> Value[V]:
        """Return x where the condition holds, else y; a known condition only moves data."""
        if isinstance(condition, Tensor):
            mask = dense(condition).bool()
            return self.moved(lambda p, q: torch.where(mask, p, q), x, y)
        condition = self.truth(condition)
        x, y = self.floats(x), self.floats(y)
        shape = torch.broadcast_shapes(condition.shape, x.shape, y.shape)
        return Value(self.backend.where(*(self.expand(v, shape).data for v in (condition, x, y))), shape)

    def truth(self, x: Any) -> Value[V]:
        """Return 1 where x is not zero, else 0."""
        x = self.value(x)
        return x if x.boolean else self.binary("ne", x, 0.0)

    # Reductions

    def rows(self, x: Any, dims: Sequence[int] | int | None, keepdim: bool) -> tuple[Value[V], int, torch.Size]:
        """Return a value with the reduced dimensions last, as a matrix, the number of columns, and the result's shape.

        Args:
            x: a value.
            dims: what is reduced; all for None and for an empty sequence.
            keepdim: whether reduced dimensions stay with size 1.
        """
        x = self.floats(x)
        rank = len(x.shape)
        given = [dims] if isinstance(dims, int) else list(dims or range(rank))
        reduced = sorted({d % rank for d in given}) if rank else []
        kept = [d for d in range(rank) if d not in reduced]
        columns = math.prod(x.shape[d] for d in reduced)
        count = math.prod(x.shape[d] for d in kept)
        matrix = x
        if [*kept, *reduced] != list(range(rank)):
            matrix = self.moved(lambda p: p.permute(*kept, *reduced), x)
        shape = [1 if d in reduced else x.shape[d] for d in range(rank)] if keepdim else [x.shape[d] for d in kept]
        return self.reshape(matrix, (count, columns)), columns, torch.Size(shape)

    def sum(self, x: Any, dims: Sequence[int] | int | None = None, keepdim: bool = False) -> Value[V]:
        """Return the sum over dimensions."""
        matrix, columns, shape = self.rows(x, dims, keepdim)
        if columns == 1:
            return self.reshape(matrix, shape)
        if columns == 0:
            return self.value(torch.zeros(shape, dtype=torch.float64))
        return Value(self.backend.sum_rows(matrix.data, matrix.shape[0], columns), shape)

    def fold(self, function: str, x: Any, dims: Sequence[int] | int | None = None, keepdim: bool = False) -> Value[V]:
        """Return ``max``, ``min`` or ``mul`` over dimensions, pairwise in a tree."""
        matrix, columns, shape = self.rows(x, dims, keepdim)
        if columns == 0:
            raise Unsupported(f"takes the {function} of nothing")
        while (width := matrix.shape[1]) > 1:
            half = width // 2
            left, right = (self._columns(matrix, slice(a, a + half)) for a in (0, half))
            paired = self.binary(function, left, right)
            matrix = paired if width % 2 == 0 else self.concatenate([paired, self._columns(matrix, slice(-1, None))])
        return self.reshape(matrix, shape)

    def _columns(self, matrix: Value[V], part: slice) -> Value[V]:
        return self.moved(lambda p: p[:, part], matrix)

    def concatenate(self, matrices: Sequence[Value[V]]) -> Value[V]:
        """Return matrices side by side."""
        return self.moved(lambda *p: torch.cat(p, dim=1), *matrices)

    def scan(self, combine: Callable[[Any, Any], Value[V]], x: Any, dim: int) -> Value[V]:
        """Return what ``combine`` accumulates along a dimension, such as :meth:`add` the cumulative sum."""
        whole = self.floats(x)
        if not whole.shape or whole.shape[dim] == 0:
            return whole
        slices = self.move(lambda p: p.unbind(dim), whole)
        totals = [slices[0]]
        for part in slices[1:]:
            totals.append(combine(totals[-1], part))
        return self.moved(lambda *p: torch.stack(p, dim=dim), *totals)

    def logsumexp(self, x: Any, dims: Sequence[int] | int | None, keepdim: bool = False) -> Value[V]:
        """Return log sum exp over dimensions."""
        if "logsumexp" not in self.backend.functions:
            return self.unary("log", self.sum(self.unary("exp", x), dims, keepdim))
        matrix, _, shape = self.rows(x, dims, keepdim)
        rows = [self.backend.unary("logsumexp", row.data) for row in self.move(lambda p: p.unbind(0), matrix)]
        return Value(rows[0] if len(rows) == 1 else self.backend.concatenate(rows), shape)

    # Products

    def matmul(self, a: Any, b: Any) -> Value[V]:
        """Return the product of matrices, vectors or stacks of matrices, as torch.matmul does."""
        if len(a.shape) == 1 and len(b.shape) == 1:
            return self.sum(self.mul(a, b))
        if len(a.shape) == 1:
            return self._squeezed(self.matmul(self._matrix(a, (1, -1)), b), -2)
        if len(b.shape) == 1:
            return self._squeezed(self.matmul(a, self._matrix(b, (-1, 1))), -1)
        if len(a.shape) == 2 and len(b.shape) == 2:
            return self._product(a, b)
        return self._stacked_product(a, b)

    def _matrix(self, x: Any, shape: tuple[int, int]) -> Any:
        if isinstance(x, Tensor):
            return dense(x).reshape(shape)
        return self.reshape(x, [x.shape.numel() if s == -1 else s for s in shape])

    def _squeezed(self, x: Value[V], dim: int) -> Value[V]:
        shape = list(x.shape)
        del shape[dim]
        return self.reshape(x, shape)

    def _product(self, a: Any, b: Any) -> Value[V]:
        (rows, inner), columns = a.shape, b.shape[1]
        shape = torch.Size((rows, columns))
        if inner == 0 or shape.numel() == 0:
            return self.value(torch.zeros(shape, dtype=torch.float64))
        left, right = (self._factor(x) for x in (a, b))
        return Value(self.backend.matmul(left, right, rows, inner, columns), shape)

    def _factor(self, x: Any) -> Any:
        return dense(x).to(torch.float64) if isinstance(x, Tensor) else self.floats(x).data

    def _stacked_product(self, a: Any, b: Any) -> Value[V]:
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        shape = torch.Size((*lead, a.shape[-2], b.shape[-1]))
        if a.shape[-2] == 1 or b.shape[-1] == 1:
            columns = self.moved(lambda p: p.mT, self.value(b)) if b.shape[-1] != 1 else self._swapped(b)
            return self.reshape(self.sum(self.mul(a, columns), -1), shape)
        stacks = [self._stack(x, lead) for x in (a, b)]
        products = [self._product(p, q) for p, q in zip(*stacks, strict=True)]
        if not products:
            return self.value(torch.zeros(shape, dtype=torch.float64))
        return self.moved(lambda *p: torch.stack(p).reshape(shape), *products)

    def _swapped(self, b: Any) -> Value[V]:
        b = self.value(b)
        return self.reshape(b, (*b.shape[:-2], 1, b.shape[-2]))

    def _stack(self, x: Any, lead: torch.Size) -> list[Any]:
        shape = (*lead, *x.shape[-2:])
        if isinstance(x, Tensor):
            return list(x.expand(shape).reshape(-1, *x.shape[-2:]).unbind(0))
        return list(self.move(lambda p: p.expand(shape).reshape(-1, *x.shape[-2:]).unbind(0), x))

    # Sums over equal indices

    def scatter_sum(self, base: Any, targets: Tensor, source: Any) -> Value[V]:
        """Return ``base`` with the entries of ``source`` added at flat positions, which may repeat.

        Args:
            base: a value.
            targets: for every entry of ``source``, its flat position in ``base``.
            source: a value.
        """
        base, source = self.value(base), self.value(source)
        flat = targets.reshape(-1).cpu().numpy()
        count = base.shape.numel()
        width = int(np.bincount(flat, minlength=1).max()) if flat.size else 0
        if width == 0 or count == 0:
            return self.floats(base)
        order = np.argsort(flat, kind="stable")
        first = np.searchsorted(flat[order], flat[order])
        table = torch.zeros((count, width), dtype=torch.int64)
        table[flat[order], np.arange(flat.size) - first] = torch.as_tensor(order) + 1
        picked = self.moved(lambda p: torch.cat([p.new_zeros(1), p.reshape(-1)])[table], source)
        return self.add(base, self.reshape(self.sum(picked, 1), base.shape))


COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def boolean(x: Value[V]) -> Value[V]:
    """Return a value whose entries are known to be 0 or 1."""
    return Value(x.data, x.shape, boolean=True)


def known(x: Any, what: str) -> Tensor:
    """Return an argument that must be known when the model is built.

    Raises:
        Unsupported: it depends on variables or parameters.
    """
    if isinstance(x, Value):
        raise Unsupported(f"has {what} that depends on the variables")
    return dense(torch.as_tensor(x))


def dense(tensor: Tensor) -> Tensor:
    """Return a known tensor on the CPU, without its graph, and strided."""
    return (tensor if tensor.layout == torch.strided else tensor.to_dense()).detach().cpu()
