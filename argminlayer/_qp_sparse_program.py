"""Sparse quadratic programs, what a solver makes of them, and a batch that shares its matrices."""

from typing import Any, NamedTuple

import numpy as np

from ._qp_form import Array
from ._solution import Status


class SparseProgram(NamedTuple):
    """``min 1/2 u'Pu + q'u  s.t.  low <= (u, A u, G u) <= high`` of one instance, with SciPy's sparse matrices.

    Attributes:
        P: symmetric, (n, n), in compressed columns.
        q: (n,).
        rows: A above G, (p + m, n), in compressed columns.
        low: (s,), s = n + p + m with bounds, p + m without.
        high: (s,).
        equalities: p.
        bounded: whether the rows begin with those of u itself.
    """

    P: Any
    q: Array
    rows: Any
    low: Array
    high: Array
    equalities: int
    bounded: bool

    @property
    def size(self) -> int:
        """Number of variables, n."""
        return len(self.q)

    @property
    def offset(self) -> int:
        """Number of rows that belong to bounds: n or 0."""
        return self.size if self.bounded else 0

    @property
    def finite(self) -> bool:
        """Whether the vectors consist of numbers, sides apart, which may be infinite where there is none."""
        sides = (self.low < np.inf) & (self.high > -np.inf)
        return bool(np.isfinite(self.q).all() and sides.all())

    def values(self, u: Array) -> Array:
        """Return the values of all rows, (s,)."""
        found: Array = self.rows @ u
        return np.concatenate([u, found]) if self.bounded else found

    def slope(self, u: Array, y: Array) -> Array:
        """Return the gradient of the Lagrangian, (n,)."""
        found: Array = self.P @ u + self.q + self.rows.T @ y[self.offset :]
        return found + y[: self.offset] if self.bounded else found


class SparsePrograms(NamedTuple):
    """The programs of a batch, which share their matrices."""

    programs: list[SparseProgram]

    @property
    def offset(self) -> int:
        """Number of rows that belong to bounds."""
        return self.programs[0].offset

    @property
    def equalities(self) -> int:
        """Number of equalities."""
        return self.programs[0].equalities

    @property
    def low(self) -> Array:
        """Lower sides of the rows, (batch, s)."""
        return np.stack([program.low for program in self.programs])

    @property
    def high(self) -> Array:
        """Upper sides of the rows, (batch, s)."""
        return np.stack([program.high for program in self.programs])

    def objective(self, u: Array) -> Array:
        """Return the objectives (batch,) at points (batch, n)."""
        return np.array([p.q @ v + 0.5 * v @ (p.P @ v) for p, v in zip(self.programs, u, strict=True)])


class SparseAnswer(NamedTuple):
    """What a solver returns for a sparse program: u (n,), multipliers (s,), what it thinks, and its own words."""

    value: Array
    multipliers: Array
    status: Status
    message: str
