"""What never changes between the calls of a cone program: the cones of the rows, and where matrices have entries."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import ProblemError

Array = NDArray[Any]
FEW = 4
"""Largest number of equalities of a program that counts as separable."""


@dataclass(frozen=True)
class Cones:
    """A product of cones, in the order of the rows of ``A x + s = b, s in K``.

    Attributes:
        zero: number of rows with ``s = 0``.
        nonnegative: number of rows with ``s >= 0``.
        second_order: dimensions of cones ``{(t, x): |x| <= t}``.
        semidefinite: sides k of cones of positive semidefinite matrices; each has k(k+1)/2 rows, the lower triangle by
            columns, with the entries off the diagonal times the square root of two (the order of SCS).
        exponential: number of cones ``{(x, y, z): y exp(x / y) <= z, y > 0}`` and their closure, three rows each.
        power: exponents a, between 0 and 1, of cones ``{(x, y, z): x^a y^(1-a) >= |z|, x, y >= 0}``, three rows each.

    Raises:
        ProblemError: a negative size, or an exponent that is not between 0 and 1.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Make the sizes plain numbers, and refuse those that no cone has."""
        for name in ("zero", "nonnegative", "exponential"):
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "second_order", tuple(map(int, self.second_order)))
        object.__setattr__(self, "semidefinite", tuple(map(int, self.semidefinite)))
        object.__setattr__(self, "power", tuple(map(float, self.power)))
        for name in ("zero", "nonnegative", "exponential"):
            if getattr(self, name) < 0:
                raise ProblemError(f"the number of {name} rows or cones must not be negative, as {getattr(self, name)}")
        for name in ("second_order", "semidefinite"):
            if any(size < 1 for size in getattr(self, name)):
                raise ProblemError(f"the sizes of {name} cones must be at least 1, but they are {getattr(self, name)}")
        if not all(0.0 < a < 1.0 for a in self.power):
            raise ProblemError(f"the exponents of power cones must lie between 0 and 1, but they are {self.power}")

    @property
    def rows(self) -> int:
        """Number of rows, m."""
        return self.zero + self.nonnegative + sum(size for *_, size in self._curved())

    @property
    def is_linear(self) -> bool:
        """Whether there are only zero and nonnegative cones, so that the program is a quadratic or linear one."""
        return not (self.second_order or self.semidefinite or self.exponential or self.power)

    def blocks(self) -> Iterator[tuple[str, int, float]]:
        """Yield kind, first row and detail of every cone that is neither zero nor nonnegative.

        The detail is the dimension, the side or the exponent; for exponential cones it is 0.
        """
        row = self.zero + self.nonnegative
        for kind, detail, size in self._curved():
            yield kind, row, detail
            row += size

    def _curved(self) -> Iterator[tuple[str, float, int]]:
        yield from (("second_order", size, size) for size in self.second_order)
        yield from (("semidefinite", side, side * (side + 1) // 2) for side in self.semidefinite)
        yield from (("exponential", 0.0, 3) for _ in range(self.exponential))
        yield from (("power", a, 3) for a in self.power)


@dataclass(frozen=True, eq=False)
class Columnwise:
    """A sparse matrix in compressed columns, without its values.

    Attributes:
        pointers: where each column begins, (columns + 1,).
        indices: the row of every entry, in the order of rows within a column.
        order: the values given, in the order of their places.
        first: where in that order each entry begins, if some have the same place; otherwise None.
    """

    pointers: Array
    indices: Array
    order: Array
    first: Array | None

    @classmethod
    def of(cls, rows: Array, columns: Array, shape: tuple[int, int]) -> "Columnwise":
        """Compress the columns of entries at places (rows, columns)."""
        keys = columns * shape[0] + rows
        order = np.argsort(keys, kind="stable")
        distinct, first = np.unique(keys[order], return_index=True)
        counts = np.bincount(distinct // max(shape[0], 1), minlength=shape[1])
        pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        indices = (distinct % max(shape[0], 1)).astype(np.int32)
        return cls(pointers, indices, order, None if len(distinct) == len(keys) else first)

    def values(self, given: Array) -> Array:
        """Return the values (..., entries) of the compressed matrix, those with the same place added up."""
        ordered: Array = given[..., self.order]
        return ordered if self.first is None else np.add.reduceat(ordered, self.first, -1)


class Places(NamedTuple):
    """Where the entries of P and A are, as tensors; ``off`` says which entries of P are off the diagonal."""

    P_rows: Tensor
    P_columns: Tensor
    A_rows: Tensor
    A_columns: Tensor
    off: Tensor


@dataclass(frozen=True, eq=False)
class ConePattern:
    """Sizes, cones and places of the entries of ``min 1/2 x'Px + q'x  s.t.  A x + s = b, s in K``.

    Attributes:
        size: number of variables, n.
        cones: K.
        P_rows: rows of the entries of P, of its upper triangle only; empty for a linear objective.
        P_columns: their columns.
        A_rows: rows of the entries of A.
        A_columns: their columns.

    The values of a call come in the same order; entries with the same place add up.

    Raises:
        ProblemError: places outside of the matrices, or below the diagonal of P.
    """

    size: int
    cones: Cones
    P_rows: Array
    P_columns: Array
    A_rows: Array
    A_columns: Array

    def __post_init__(self) -> None:
        """Check the places."""
        n, m = self.size, self.cones.rows
        for name, rows, columns, height in (
            ("P", self.P_rows, self.P_columns, n),
            ("A", self.A_rows, self.A_columns, m),
        ):
            rows, columns = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
            object.__setattr__(self, f"{name}_rows", rows)
            object.__setattr__(self, f"{name}_columns", columns)
            if rows.ndim != 1 or rows.shape != columns.shape:
                raise ProblemError(f"{name} has rows of shape {rows.shape}, but columns of shape {columns.shape}")
            if len(rows) and not (0 <= rows.min() and rows.max() < height and 0 <= columns.min() and columns.max() < n):
                raise ProblemError(f"{name} is ({height}, {n}), but some of its entries lie outside")
        if (self.P_rows > self.P_columns).any():
            raise ProblemError("P has entries below its diagonal; give those of the upper triangle only")

    @cached_property
    def is_separable(self) -> bool:
        """Whether P is diagonal and full, and rows have one entry each, but for a few equalities."""
        zero, n = self.cones.zero, self.size
        if not self.cones.is_linear or zero > FEW or len(self.P_rows) != n:
            return False
        diagonal = (self.P_rows == self.P_columns).all() and len(np.unique(self.P_rows)) == n
        single = np.bincount(self.A_rows, minlength=self.cones.rows)[zero:] == 1
        return bool(diagonal and single.all())

    @cached_property
    def places(self) -> Places:
        """The places of the entries as tensors."""
        P_rows, P_columns, A_rows, A_columns = map(
            torch.from_numpy, (self.P_rows, self.P_columns, self.A_rows, self.A_columns)
        )
        return Places(P_rows, P_columns, A_rows, A_columns, P_rows != P_columns)

    @cached_property
    def P_columnwise(self) -> Columnwise:
        """The upper triangle of P in compressed columns."""
        return Columnwise.of(self.P_rows, self.P_columns, (self.size, self.size))

    @cached_property
    def A_columnwise(self) -> Columnwise:
        """A in compressed columns."""
        return Columnwise.of(self.A_rows, self.A_columns, (self.cones.rows, self.size))
