"""The primitives of the algebra in terms of CVXPY, and the operators that have convex forms of their own."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

import argminlayer as al

from . import _atoms
from ._affine import entries_of
from ._arithmetic import Terms
from ._numbers import Index, Numbers
from ._rules import RULES
from ._terms import Term

LARGEST = 2_000_000
"""Products of variables that are looked at for a quadratic form, at most."""


class ConvexBackend(al.algebra.Backend[Term]):
    """Vectors of terms; what is affine stays a sparse map, what is quadratic stays a sum of products."""

    functions = al.algebra.UNARY | al.algebra.BINARY | {"softplus"}
    rules = RULES

    def __init__(self, terms: Terms):
        self.terms = terms

    def constant(self, numbers: Tensor) -> Term:
        return self.terms.number(numbers.numpy())

    def gather(self, vector: Term, index: Index) -> Term:
        return self.terms.take(vector, index)

    def concatenate(self, vectors: Sequence[Term]) -> Term:
        return self.terms.join(vectors)

    def unary(self, function: str, x: Term) -> Term:
        return self.terms.negative(x) if function == "neg" else _atoms.function_of(self.terms, function, x)

    def binary(self, function: str, x: Term, y: Term) -> Term:
        terms = self.terms
        if function == "add":
            return terms.add(x, y)
        if function == "sub":
            return terms.add(x, terms.negative(y), "sub")
        if function == "mul":
            return terms.multiply(x, y)
        if function == "div":
            return _atoms.quotient(terms, x, y)
        return _atoms.pairwise(terms, function, x, y)

    def power(self, x: Term, exponent: float) -> Term:
        return _atoms.power(self.terms, x, exponent)

    def sum_rows(self, x: Term, rows: int, columns: int) -> Term:
        return self.terms.sum_rows(x, rows, columns)

    def matmul(self, a: Term | Tensor, b: Term | Tensor, rows: int, inner: int, columns: int) -> Term:
        left, right = self._numbers(a), self._numbers(b)
        if right is None and left is not None and not isinstance(b, Tensor):
            i, k, places = _entries(left, rows, inner)
            j = np.arange(columns)
            targets, sources = ((part[:, None] * columns + j).reshape(-1) for part in (i, k))
            return self.terms.map(b, targets, sources, left.take(np.repeat(places, columns)), rows * columns)
        if right is not None and not isinstance(a, Tensor):
            k, j, places = _entries(right, inner, columns)
            i = np.arange(rows)
            targets = (i[:, None] * columns + j).reshape(-1)
            sources = (i[:, None] * inner + k).reshape(-1)
            return self.terms.map(a, targets, sources, right.take(np.tile(places, rows)), rows * columns)
        assert not isinstance(a, Tensor)
        assert not isinstance(b, Tensor)
        if rows * columns * inner > LARGEST:
            raise al.algebra.Unsupported(f"multiplies matrices of variables, {rows} x {inner} and {inner} x {columns}")
        i, j, k = (part.reshape(-1) for part in np.indices((rows, columns, inner)))
        products = self.terms.multiply(self.terms.take(a, i * inner + k), self.terms.take(b, k * columns + j))
        return self.terms.sum_rows(products, rows * columns, inner)

    def _numbers(self, factor: Term | Tensor) -> Numbers | None:
        if isinstance(factor, Tensor):
            return self.terms.program.constant(factor.reshape(-1).numpy())
        return factor.affine.offset if factor.is_number else None

    def where(self, condition: Term, x: Term, y: Term) -> Term:
        if not condition.is_number:
            raise al.algebra.Unsupported(
                "chooses by a condition on the variables, which is neither convex nor concave: write the pieces with "
                "torch.maximum, torch.abs or torch.relu"
            )
        chosen, terms = condition.affine.offset, self.terms
        other = chosen.program.constant([1.0]) + -chosen
        return terms.add(terms.scale(x, chosen), terms.scale(y, other))


def _entries(matrix: Numbers, rows: int, columns: int) -> tuple[Index, Index, Index]:
    """Return rows, columns and places of the entries of a matrix; those of a constant that are not zero."""
    known = np.ones((rows, columns)) if matrix.constant is None else matrix.constant.reshape(rows, columns)
    return entries_of(known)
