"""Entries in order, eigenvalues and singular values: sums of the largest are convex, sums of the smallest concave."""

from dataclasses import dataclass
from typing import Any, Literal

import cvxpy as cp
import numpy as np

import argminlayer as al

from ._numbers import Index

Kind = Literal["entries", "eigenvalues", "singular values"]


@dataclass(frozen=True, eq=False)
class Ordered:
    """Entries of a vector in order, of which only sums of the largest or of the smallest are convex or concave.

    Attributes:
        kind: what is ordered: entries of a vector, eigenvalues or singular values of a matrix.
        base: the vector or the matrix, an expression.
        count: how many there are.
        index: which are meant, by rank: 0 is the largest.
    """

    kind: Kind
    base: Any
    count: int
    index: Index

    def sum(self) -> Any:
        """Return the sum of those that are meant, as an expression.

        Raises:
            Unsupported: they are neither the largest nor the smallest.
        """
        ranks, k = np.sort(self.index), len(self.index)
        largest = bool((ranks == np.arange(k)).all())
        smallest = bool((ranks == np.arange(self.count - k, self.count)).all())
        if largest and smallest:
            return _ALL[self.kind](self.base)
        if largest:
            return _LARGEST[self.kind](self.base, k)
        if smallest and self.kind != "singular values":
            return _SMALLEST[self.kind](self.base, k)
        raise al.algebra.Unsupported(self.refusal)

    @property
    def refusal(self) -> str:
        """Why anything else cannot be done with them."""
        extent = "a sum of the largest is" if self.kind == "singular values" else "a sum of the largest or smallest is"
        return f"works on single {self.kind} in order, of which only {extent} convex or concave: sum them first"


_ALL = {"entries": cp.sum, "eigenvalues": cp.trace, "singular values": cp.normNuc}
_LARGEST = {
    "entries": cp.sum_largest,
    "eigenvalues": lambda matrix, k: cp.lambda_max(matrix) if k == 1 else cp.lambda_sum_largest(matrix, k),
    "singular values": lambda matrix, k: cp.sigma_max(matrix) if k == 1 else _not_alone(k),
}
_SMALLEST = {
    "entries": cp.sum_smallest,
    "eigenvalues": lambda matrix, k: cp.lambda_min(matrix) if k == 1 else cp.lambda_sum_smallest(matrix, k),
}


def _not_alone(k: int) -> Any:
    raise al.algebra.Unsupported(f"sums the {k} largest singular values, where only one or all have a form in CVXPY")
