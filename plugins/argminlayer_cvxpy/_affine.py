"""Affine vectors: sparse maps of the variables whose coefficients are numbers that depend on the parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from ._numbers import Index, Numbers, Program


@dataclass(frozen=True, eq=False)
class Affine:
    """The vector ``A x + b`` for every instance; which entries of A may differ from zero is known, and sorted.

    Attributes:
        size: k.
        rows: (t,), nondecreasing.
        columns: (t,), increasing within a row.
        coefficients: (t,), the entries of A.
        offset: (k,), b.
    """

    size: int
    rows: Index
    columns: Index
    coefficients: Numbers
    offset: Numbers

    @classmethod
    def variables(cls, program: Program, first: int, size: int) -> "Affine":
        """Return the variables ``first, first + 1, ...`` themselves."""
        one, zero = program.constant(np.ones(size)), program.constant(np.zeros(size))
        return cls(size, np.arange(size), first + np.arange(size), one, zero)

    @classmethod
    def of(cls, numbers: Numbers) -> "Affine":
        """Return numbers as a vector without variables."""
        none = np.zeros(0, dtype=np.int64)
        return cls(numbers.size, none, none, numbers.program.constant(np.zeros(0)), numbers)

    @property
    def program(self) -> Program:
        """Where its numbers are computed."""
        return self.offset.program

    @property
    def is_number(self) -> bool:
        """Whether no variable occurs."""
        return len(self.rows) == 0

    @cached_property
    def starts(self) -> Index:
        """Where every row begins among the terms, and where the last one ends."""
        return np.searchsorted(self.rows, np.arange(self.size + 1))

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for vectors that are equal whatever the variables and the parameters."""
        numbers = (self.coefficients.step, self.offset.step)
        return self.size, self.rows.tobytes(), self.columns.tobytes(), *numbers

    def take(self, index: Index) -> "Affine":
        """Return the entries at some positions."""
        if len(index) == self.size and (index == np.arange(self.size)).all():
            return self
        terms, rows = terms_of(self.starts, index)
        return Affine(len(index), rows, self.columns[terms], self.coefficients.take(terms), self.offset.take(index))

    def spread(self, size: int) -> "Affine":
        """Return a vector of this length, for one of length one or of that length."""
        return self if self.size == size else self.take(np.zeros(size, dtype=np.int64))

    def __add__(self, other: "Affine") -> "Affine":
        """Return the sum; a vector of length one is added to all."""
        size = max(self.size, other.size)
        left, right = self.spread(size), other.spread(size)
        if right.is_number or left.is_number:
            some = left if right.is_number else right
            return Affine(size, some.rows, some.columns, some.coefficients, left.offset + right.offset)
        rows = np.concatenate([left.rows, right.rows])
        columns = np.concatenate([left.columns, right.columns])
        coefficients = self.program.concatenate([left.coefficients, right.coefficients])
        return gathered(size, rows, columns, coefficients, left.offset + right.offset)

    def __neg__(self) -> "Affine":
        """Return the negative."""
        return Affine(self.size, self.rows, self.columns, -self.coefficients, -self.offset)

    def scaled(self, factor: Numbers) -> "Affine":
        """Return the product with numbers, entry by entry; a vector of length one stands for all."""
        size = max(self.size, factor.size)
        wide = self.spread(size)
        of_term = factor if factor.size == 1 else factor.take(wide.rows)
        return Affine(size, wide.rows, wide.columns, wide.coefficients * of_term, wide.offset * factor)

    def mapped(self, targets: Index, sources: Index, weights: Numbers, size: int) -> "Affine":
        """Return the product of a sparse matrix and this vector.

        Args:
            targets: the row of every entry of the matrix.
            sources: its column.
            weights: its value.
            size: number of rows.
        """
        if not (np.diff(targets) >= 0).all():
            order = np.argsort(targets, kind="stable")
            targets, sources, weights = targets[order], sources[order], weights.take(order)
        if self._are_variables:
            columns = self.columns[sources]
            if (np.diff(targets * (int(columns.max(initial=0)) + 1) + columns) > 0).all():
                return Affine(size, targets, columns, weights, self.program.constant(np.zeros(size)))
        terms, entries = terms_of(self.starts, sources)
        coefficients = self.coefficients.take(terms) * weights.take(entries)
        offset = (self.offset.take(sources) * weights).add_up(targets, size)
        return gathered(size, targets[entries], self.columns[terms], coefficients, offset)

    @cached_property
    def _are_variables(self) -> bool:
        """Whether every entry is a variable by itself."""
        single = len(self.rows) == self.size and bool((self.rows == np.arange(self.size)).all())
        return single and self.coefficients.is_constant(1.0) and self.offset.is_constant(0.0)

    def terms_of_product(self, sources: Index) -> int:
        """Return how many terms :meth:`mapped` has to add up."""
        return int((self.starts[sources + 1] - self.starts[sources]).sum())


def joined(parts: Sequence[Affine]) -> Affine:
    """Return vectors one after the other."""
    program = parts[0].program
    shifts = np.cumsum([0, *(part.size for part in parts)])
    rows = np.concatenate([part.rows + shift for part, shift in zip(parts, shifts[:-1], strict=True)])
    columns = np.concatenate([part.columns for part in parts])
    numbers = (program.concatenate([getattr(p, name) for p in parts]) for name in ("coefficients", "offset"))
    return Affine(int(shifts[-1]), rows, columns, *numbers)


def gathered(size: int, rows: Index, columns: Index, coefficients: Numbers, offset: Numbers) -> Affine:
    """Return a vector of terms in any order, those of the same place added up."""
    width = int(columns.max()) + 1 if len(columns) else 1
    places, where = np.unique(rows * width + columns, return_inverse=True)
    coefficients = coefficients.add_up(where.reshape(-1), len(places))
    if coefficients.constant is not None and (coefficients.constant == 0).any():
        kept = np.flatnonzero(coefficients.constant)
        places, coefficients = places[kept], coefficients.take(kept)
    return Affine(size, places // width, places % width, coefficients, offset)


def terms_of(starts: Index, index: Index) -> tuple[Index, Index]:
    """Return the terms of the rows in ``index``, one row after the other, and for each its place in ``index``."""
    lengths = starts[index + 1] - starts[index]
    places = np.repeat(np.arange(len(index)), lengths)
    ends = np.cumsum(lengths)
    within = np.arange(len(places)) - np.repeat(ends - lengths, lengths)
    return starts[index][places] + within, places


def entries_of(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[Index, Index, Index]:
    """Return rows, columns and flat places of the entries of a matrix that are not zero."""
    rows, columns = np.nonzero(matrix)
    return rows, columns, rows * matrix.shape[1] + columns


def sparse(affine: Affine, width: int) -> scipy.sparse.csr_array:
    """Return the matrix of a vector whose coefficients are constants."""
    return scipy.sparse.csr_array((affine.coefficients.constant, (affine.rows, affine.columns)), (affine.size, width))
