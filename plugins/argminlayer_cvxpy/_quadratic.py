"""Vectors of quadratics: sums of products of affine entries, their matrices, and factors of these."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._affine import Affine, joined, terms_of
from ._numbers import Index, Numbers

ROUNDING = 1e-10
"""An eigenvalue this far below zero, over the largest in size, is zero up to rounding."""
CHUNK = 20_000_000
"""Numbers held at once while the matrices of a batch are formed."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A vector whose entry r is the sum of ``weights_t left_t right_t`` over the terms t with ``targets_t = r``.

    Attributes:
        size: k.
        targets: (t,), nondecreasing.
        weights: (t,).
        left: (t,) affine entries.
        right: (t,) affine entries.
        squares: (t,), whether left and right are the same entry.
    """

    size: int
    targets: Index
    weights: Numbers
    left: Affine
    right: Affine
    squares: NDArray[np.bool_]

    @cached_property
    def starts(self) -> Index:
        """Where the terms of every entry begin, and where the last ones end."""
        return np.searchsorted(self.targets, np.arange(self.size + 1))

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for vectors that are equal whatever the variables and the parameters."""
        return self.size, self.targets.tobytes(), self.weights.step, self.left.identity, self.right.identity

    def terms(self, chosen: Index, targets: Index, size: int) -> "Quadratic":
        """Return some terms, at other targets (nondecreasing)."""
        left = self.left.take(chosen)
        right = left if self.right is self.left else self.right.take(chosen)
        return Quadratic(size, targets, self.weights.take(chosen), left, right, self.squares[chosen])

    def take(self, index: Index) -> "Quadratic":
        """Return the entries at some positions."""
        if len(index) == self.size and (index == np.arange(self.size)).all():
            return self
        chosen, targets = terms_of(self.starts, index)
        return self.terms(chosen, targets, len(index))

    def spread(self, size: int) -> "Quadratic":
        """Return a vector of this length, for one of length one or of that length."""
        return self if self.size == size else self.take(np.zeros(size, dtype=np.int64))

    def scaled(self, factor: Numbers) -> "Quadratic":
        """Return the product with numbers, entry by entry; a vector of length one stands for all."""
        wide = self.spread(max(self.size, factor.size))
        of_term = factor if factor.size == 1 else factor.take(wide.targets)
        return Quadratic(wide.size, wide.targets, wide.weights * of_term, wide.left, wide.right, wide.squares)

    def mapped(self, targets: Index, sources: Index, weights: Numbers, size: int) -> "Quadratic":
        """Return the product of a sparse matrix and this vector; arguments as for :meth:`Affine.mapped`."""
        order = np.argsort(targets, kind="stable")
        targets, weights = targets[order], weights.take(order)
        chosen, entries = terms_of(self.starts, sources[order])
        picked = self.terms(chosen, targets[entries], size)
        return Quadratic(
            size, picked.targets, picked.weights * weights.take(entries), picked.left, picked.right, picked.squares
        )

    def placed(self, index: Index, size: int) -> "Quadratic":
        """Return a longer vector with these entries at increasing positions, and zeros elsewhere."""
        return Quadratic(size, index[self.targets], self.weights, self.left, self.right, self.squares)


def added(parts: Sequence[Quadratic], size: int) -> Quadratic:
    """Return the sum of vectors of one length."""
    targets = np.concatenate([part.targets for part in parts])
    order = np.argsort(targets, kind="stable")
    weights = parts[0].weights.program.concatenate([part.weights for part in parts])
    left, right = joined([part.left for part in parts]), joined([part.right for part in parts])
    squares = np.concatenate([part.squares for part in parts])
    whole = Quadratic(size, targets, weights, left, right, squares)
    return whole.terms(order, targets[order], size)


def product(left: Affine, right: Affine) -> tuple[Affine, Quadratic | None]:
    """Return the product entry by entry of vectors of one length, as an affine and a quadratic part."""
    size = left.size
    if left.is_number or right.is_number:
        return (right.scaled(left.offset) if left.is_number else left.scaled(right.offset)), None
    has_left, has_right = (np.diff(part.starts) > 0 for part in (left, right))
    affine = Affine.of(left.program.constant(np.zeros(size)))
    for one, other, mask in ((left, right, ~has_right), (right, left, has_right & ~has_left)):
        index = np.flatnonzero(mask)
        if len(index):
            affine = affine + _placed(one.take(index).scaled(other.offset.take(index)), index, size)
    both = np.flatnonzero(has_left & has_right)
    if not len(both):
        return affine, None
    quadratic = _products(left.take(both), right.take(both))
    return affine, Quadratic(size, both[quadratic.targets], *_parts(quadratic))


def _placed(affine: Affine, index: Index, size: int) -> Affine:
    return Affine(size, index[affine.rows], affine.columns, affine.coefficients, affine.offset.add_up(index, size))


def _parts(quadratic: Quadratic) -> tuple[Numbers, Affine, Affine, NDArray[np.bool_]]:
    return quadratic.weights, quadratic.left, quadratic.right, quadratic.squares


def _products(left: Affine, right: Affine) -> Quadratic:
    size, program = left.size, left.program
    targets = np.arange(size)
    if left.identity == right.identity:
        return Quadratic(size, targets, program.constant(np.ones(size)), left, left, np.ones(size, dtype=np.bool_))
    if _multiples(left, right):
        variables = Affine(
            size, left.rows, left.columns, program.constant(np.ones(size)), program.constant(np.zeros(size))
        )
        weights = left.coefficients * right.coefficients
        return Quadratic(size, targets, weights, variables, variables, np.ones(size, dtype=np.bool_))
    return Quadratic(size, targets, program.constant(np.ones(size)), left, right, np.zeros(size, dtype=np.bool_))


def _multiples(left: Affine, right: Affine) -> bool:
    """Say whether both are multiples of the same single variable, entry by entry."""
    single = len(left.rows) == left.size == len(right.rows) and (left.columns == right.columns).all()
    return bool(single) and left.offset.is_constant(0.0) and right.offset.is_constant(0.0)


@dataclass(frozen=True, eq=False)
class Form:
    """One quadratic as ``x'Hx + g'x + c`` in the variables that occur.

    Attributes:
        columns: (n,), the variables.
        matrix: H, symmetric, (n n).
        slope: g, (n).
        constant: c, (1).
    """

    columns: Index
    matrix: Numbers
    slope: Numbers
    constant: Numbers

    @classmethod
    def of(cls, quadratic: Quadratic) -> "Form":
        """Return the form of a vector of length one."""
        left, right = quadratic.left, quadratic.right
        columns = np.union1d(left.columns, right.columns)
        n = len(columns)
        places = [(part.rows, np.searchsorted(columns, part.columns)) for part in (left, right)]
        program = quadratic.weights.program

        flat = [torch.from_numpy(rows * n + where) for rows, where in places]

        def form(weights: Tensor, *parts: Tensor) -> Tensor:
            batch = max(part.shape[0] for part in (weights, *parts))
            rows = [part.expand(batch, -1) for part in (weights, *parts)]
            step = max(1, CHUNK // max(1, 2 * quadratic.left.size * n))
            pieces = [_form_of([row[i : i + step] for row in rows], flat, n) for i in range(0, batch, step)]
            return torch.cat(pieces)

        key = ("form", *(place.tobytes() for pair in places for place in pair), columns.tobytes())
        inputs = (quadratic.weights, left.coefficients, left.offset, right.coefficients, right.offset)
        whole = program.apply(key, form, inputs, n * n + n + 1)
        split = (np.arange(n * n), n * n + np.arange(n), np.array([n * n + n]))
        return cls(columns, *(whole.take(index) for index in split))

    @property
    def variables(self) -> Affine:
        """The variables that occur, x."""
        n, program = len(self.columns), self.matrix.program
        return Affine(n, np.arange(n), self.columns, program.constant(np.ones(n)), program.constant(np.zeros(n)))

    @property
    def point(self) -> Affine:
        """The variables that occur, and 1."""
        return joined([self.variables, Affine.of(self.matrix.program.constant([1.0]))])

    @property
    def homogeneous(self) -> Numbers:
        """The matrix of the form in x and 1, (n + 1)²."""
        n = len(self.columns)
        whole = self.matrix.program.concatenate([self.matrix, self.slope * _half(self.slope), self.constant])
        side = n * n + np.arange(n)
        square = np.block([[np.arange(n * n).reshape(n, n), side[:, None]], [side[None], np.array([[n * n + n]])]])
        return whole.take(square.reshape(-1))


def _half(like: Numbers) -> Numbers:
    return like.program.constant([0.5])


def _form_of(rows: list[Tensor], places: list[Tensor], n: int) -> Tensor:
    weights, left, a, right, b = rows
    batch, terms = weights.shape
    dense = [
        weights.new_zeros(batch, terms * n).index_add(1, place, values).reshape(batch, terms, n)
        for values, place in zip((left, right), places, strict=True)
    ]
    product = (weights[..., None] * dense[0]).mT @ dense[1]
    slope = ((weights * b)[:, None] @ dense[0] + (weights * a)[:, None] @ dense[1])[:, 0]
    symmetric = 0.5 * (product + product.mT).reshape(batch, n * n)
    return torch.cat([symmetric, slope, (weights * a * b).sum(1, keepdim=True)], dim=1)


def eigenvalue_range(matrix: Numbers) -> Numbers:
    """Return the smallest and the largest eigenvalue of a symmetric matrix (n n), zero where that is rounding."""
    n = math.isqrt(matrix.size)

    def found(flat: Tensor) -> Tensor:
        ends = torch.linalg.eigvalsh(flat.nan_to_num().reshape(-1, n, n))[:, [0, -1]]
        return torch.where(ends.abs() <= ROUNDING * n * ends.abs().amax(1, keepdim=True), 0.0, ends)

    return matrix.program.apply(("eigenvalues", n), found, (matrix,), 2)


def factor(matrix: Numbers, sign: float) -> Numbers:
    """Return R (n n) with ``R'R = sign H`` for a semidefinite H (n n).

    Its first two derivatives are those of a factor of H, also where H is singular, as long as H keeps its rank: a step
    ``dR`` with ``R'dR + dR'R = E`` is ``R^(+T) (E - P E P / 2)``, where P projects onto the range of ``R'``.
    """
    n = math.isqrt(matrix.size)

    def found(flat: Tensor) -> Tensor:
        matrices = sign * flat.nan_to_num().reshape(-1, n, n)
        if not bool(torch.linalg.cholesky_ex(matrices.detach())[1].any()):
            upper: Tensor = torch.linalg.cholesky(matrices).mT
            return upper.reshape(-1, n * n)
        values, vectors = torch.linalg.eigh(matrices.detach())
        kept = values > ROUNDING * n * values.amax(1, keepdim=True)
        sizes = torch.where(kept, values, 1.0).sqrt() * kept
        root: Tensor = sizes[:, :, None] * vectors.mT
        inverse = torch.where(kept, 1.0 / torch.where(kept, sizes, 1.0), 0.0)[:, :, None] * vectors.mT
        projector = (vectors * kept[:, None]) @ vectors.mT
        for _ in range(2):  # each step is right to one order more
            error = matrices - root.mT @ root
            root = root + inverse @ (error - 0.5 * projector @ error @ projector)
        return root.reshape(-1, n * n)

    return matrix.program.apply(("factor", n, sign), found, (matrix,), n * n)
