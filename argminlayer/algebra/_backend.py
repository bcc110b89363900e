"""What a modelling language must provide so that algebra can be written in it: a handful of primitives on vectors."""

import abc
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from ._machine import Machine

V = TypeVar("V")
Index = NDArray[np.int64]
Rule = Callable[["Machine[Any]", Mapping[str, Any]], Any]

UNARY = frozenset(
    {
        *("neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh"),
        *("cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sign", "floor", "ceil"),
    }
)
"""Functions of one argument that have no definition by others."""
BINARY = frozenset({"add", "sub", "mul", "div", "pow", "max", "min", "atan2", "lt", "le", "gt", "ge", "eq", "ne"})
"""Functions of two arguments that have no definition by others. Comparisons are 1 where they hold, else 0."""


class Backend(abc.ABC, Generic[V]):
    """A modelling language, as far as :func:`interpret` needs it.

    A value of the language, of type ``V``, is a vector of expressions: a tensor of any shape, flattened in C order.
    Every method returns a new vector. In methods of several vectors one of length 1 stands for all entries.

    Attributes:
        functions: the functions that ``unary`` and ``binary`` know. Must hold what arithmetic needs (``neg``, ``add``,
            ``sub``, ``mul``, ``div``); of the rest what is missing is composed of others (``softplus``, ``logsumexp``,
            ``max`` of ...) or refused by name.
        rules: ATen operators that the language does better than by the rules of :mod:`argminlayer.algebra`, by name
            (``"logsumexp"``): ``rule(machine, arguments) ->`` the result.
    """

    functions: frozenset[str] = UNARY | BINARY
    rules: Mapping[str, Rule] = MappingProxyType({})

    @abc.abstractmethod
    def constant(self, numbers: Tensor) -> V:
        """Return a vector of numbers (k,), float64."""

    @abc.abstractmethod
    def gather(self, vector: V, index: Index) -> V:
        """Return ``vector[index]``; ``index`` is a vector of positions, which may repeat."""

    @abc.abstractmethod
    def concatenate(self, vectors: Sequence[V]) -> V:
        """Return vectors one after the other; there are at least two."""

    @abc.abstractmethod
    def unary(self, function: str, x: V) -> V:
        """Return a function of every entry; ``function`` is one of ``functions``."""

    @abc.abstractmethod
    def binary(self, function: str, x: V, y: V) -> V:
        """Return a function of entries pairwise; ``function`` is one of ``functions``."""

    @abc.abstractmethod
    def power(self, x: V, exponent: float) -> V:
        """Return every entry to a constant power other than 0 and 1."""

    @abc.abstractmethod
    def sum_rows(self, x: V, rows: int, columns: int) -> V:
        """Return the sums of the rows of a (rows, columns) matrix in C order; ``columns`` is positive."""

    @abc.abstractmethod
    def matmul(self, a: V | Tensor, b: V | Tensor, rows: int, inner: int, columns: int) -> V:
        """Return the product (rows, inner) @ (inner, columns); a factor that is known is a matrix of numbers."""

    @abc.abstractmethod
    def where(self, condition: V, x: V, y: V) -> V:
        """Return x where the condition is 1, y where it is 0; the condition depends on variables or parameters."""

    def opaque(self, inputs: Sequence[V], entries: int) -> V | None:
        """Return what stands for the result of an operator without a rule; None refuses the operator.

        Args:
            inputs: what the operator reads.
            entries: length of its result.
        """
        del inputs, entries
        return None

    def share(self, x: V) -> V:
        """Return a vector that is about to be read several times, in the form in which sharing costs nothing."""
        return x
