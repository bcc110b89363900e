"""Variables that only name an affine expression in a quadratic objective, replaced by the expression.

CVXPY states ``sum_squares(F x - g)`` with a new variable ``t = F x - g`` and as many equalities. Without them a program
has fewer variables and hardly any equalities, which makes solving and differentiating it several times faster. The
products F'F that come in their place are computed in torch, and differentiated by it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

import argminlayer as al

from ._parameters import Matrix

Array = np.ndarray[Any, Any]
Blocks = tuple[Any, ...]
FEW = 3
"""Rows with so many entries and fewer are always multiplied out."""
DENSE = 0.5
"""From this share of entries on F is multiplied as a dense matrix."""
GROWTH = 2.0
"""How many more entries the products may have than what they replace."""


@dataclass(frozen=True, eq=False)
class Squares:
    """What takes the place of variables t with ``t = g - F x`` and the objective ``1/2 t'diag(p)t + l't``.

    Attributes:
        shape: of F where it is multiplied as a dense matrix; None where entry by entry.
        left: for each product of two entries of a row the first, by position among the entries; None for a dense F.
        right: the second.
        spread: from values of rows to values of entries; None for a dense F.
        upper: from products to values of P.
        into: from columns of a dense F, or from entries, to variables.
    """

    shape: tuple[int, int] | None
    left: Matrix | None
    right: Matrix | None
    spread: Matrix | None
    upper: Matrix
    into: Matrix

    def __call__(self, F: Tensor, p: Tensor, g: Tensor, linear: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is added to the values of P, to q and to the constant."""
        force = p * g + linear
        constant = (0.5 * p * g * g + linear * g).sum(-1, keepdim=True)
        if self.left is None or self.right is None or self.spread is None:
            F = F.unflatten(-1, self.shape)
            products = (F.mT @ (p[..., None] * F)).flatten(-2)
            pull = (F.mT @ force[..., None])[..., 0]
        else:
            products = self.left.times(F) * self.right.times(F * self.spread.times(p))
            pull = F * self.spread.times(force)
        return self.upper.times(products), -self.into.times(pull), constant


@dataclass(frozen=True, eq=False)
class Replaced:
    """A program without the variables that were replaced.

    Attributes:
        pattern: of the program.
        blocks: affine maps: P, q, A, b and the constant of what is kept, then F, p, g and l of each of the squares.
        squares: what takes the place of the variables.
        columns: the new position of each variable, -1 where it is gone.
        rows: the new position of each row, -1 where it is gone.
    """

    pattern: al.ConePattern
    blocks: Blocks
    squares: tuple[Squares, ...]
    columns: Array
    rows: Array


def replace_squares(pattern: al.ConePattern, blocks: Blocks, columns: Array, rows: Array) -> Replaced:
    """Replace variables that appear in one equality, with a constant factor, and in the objective by a square.

    Args:
        pattern: of the program.
        blocks: affine maps to P, q, A, b and the constant, the last column of each the constant part.
        columns: variables that must stay.
        rows: rows that must stay.
    """
    named = _named(pattern, blocks[2], columns, rows)
    gone = {"column": np.zeros(pattern.size, dtype=bool), "row": np.zeros(pattern.cones.rows, dtype=bool)}
    parts = []
    for chosen in _groups(pattern, named):
        gone["column"][pattern.A_columns[chosen]] = True
        gone["row"][pattern.A_rows[chosen]] = True
        parts.append(chosen)
    column, row = (np.where(out, -1, np.cumsum(~out) - 1) for out in gone.values())
    if not parts:
        return Replaced(pattern, blocks, (), column, row)
    P_kept, A_kept = ~gone["column"][pattern.P_columns], ~gone["row"][pattern.A_rows]
    P, q, A, b, constant = blocks
    made = [_square(pattern, blocks, chosen, column) for chosen in parts]
    places = [(column[pattern.P_rows[P_kept]], column[pattern.P_columns[P_kept]]), *(place for _, _, place in made)]
    cones = pattern.cones
    smaller = al.ConePattern(
        int((~gone["column"]).sum()),
        al.Cones(
            cones.zero - int(gone["row"].sum()),
            cones.nonnegative,
            cones.second_order,
            cones.semidefinite,
            cones.exponential,
            cones.power,
        ),
        np.concatenate([place[0] for place in places]),
        np.concatenate([place[1] for place in places]),
        row[pattern.A_rows[A_kept]],
        column[pattern.A_columns[A_kept]],
    )
    kept = (P[P_kept], q[~gone["column"]], A[A_kept], b[~gone["row"]], constant)
    return Replaced(
        smaller, kept + sum((own for _, own, _ in made), ()), tuple(square for square, _, _ in made), column, row
    )


def _named(pattern: al.ConePattern, A: Any, columns: Array, rows: Array) -> Array:
    """Return the entries of A that are the only ones of their columns, one at most in each row."""
    alone = np.zeros(pattern.size, dtype=bool)
    apart = pattern.P_rows != pattern.P_columns
    alone[pattern.P_rows[~apart]] = True
    for places in (pattern.P_rows[apart], pattern.P_columns[apart], columns):
        alone[places] = False
    alone &= np.bincount(pattern.A_columns, minlength=pattern.size) == 1
    free = np.arange(pattern.cones.rows) < pattern.cones.zero
    free[rows] = False
    varying = np.diff(sp.csr_array(A[:, :-1]).indptr) > 0
    entries = np.flatnonzero(~varying & alone[pattern.A_columns] & free[pattern.A_rows])
    _, first = np.unique(pattern.A_rows[entries], return_index=True)
    chosen: Array = entries[first]
    return chosen


def _groups(pattern: al.ConePattern, named: Array) -> Iterator[Array]:
    """Yield those of the named variables that are worth replacing, in groups that are multiplied in one way."""
    if not len(named):
        return
    sizes = np.bincount(pattern.A_rows, minlength=pattern.cones.rows)[pattern.A_rows[named]] - 1
    few = sizes <= FEW
    if few.any():
        yield named[few]
    if not few.all():
        many, lengths = named[~few], sizes[~few]
        width = len(np.unique(pattern.A_columns[_others(pattern, many)]))
        dense = lengths.sum() >= DENSE * len(many) * width
        products = width * (width + 1) / 2 if dense else (lengths * (lengths + 1) / 2).sum()
        if products <= GROWTH * (lengths.sum() + 2 * len(many)):
            yield many


def _others(pattern: al.ConePattern, chosen: Array) -> Array:
    """Return the entries of A beside some in their rows."""
    rows = np.zeros(pattern.cones.rows, dtype=bool)
    rows[pattern.A_rows[chosen]] = True
    rest = rows[pattern.A_rows]
    rest[chosen] = False
    found: Array = np.flatnonzero(rest)
    return found


def _square(
    pattern: al.ConePattern, blocks: Blocks, chosen: Array, column: Array
) -> tuple[Squares, Blocks, tuple[Array, Array]]:
    """Return what takes the place of a group, its affine maps, and the places of its products in P."""
    P, q, A, b, _ = blocks
    count, size = len(chosen), int((column >= 0).sum())
    at, t = pattern.A_rows[chosen], pattern.A_columns[chosen]
    factor = 1.0 / A[chosen][:, [A.shape[1] - 1]].toarray()[:, 0]
    position = np.zeros(pattern.cones.rows, dtype=np.int64)
    position[at] = np.arange(count)
    others = _others(pattern, chosen)
    others = others[np.argsort(position[pattern.A_rows[others]], kind="stable")]
    row, place = position[pattern.A_rows[others]], column[pattern.A_columns[others]]
    scaled = A[others].multiply(factor[row][:, None]).tocsr()
    p, g = _diagonal(pattern, P, t), b[at].multiply(factor[:, None]).tocsr()
    used = np.unique(place)
    if len(others) and len(others) >= DENSE * count * len(used):
        where = row * len(used) + np.searchsorted(used, place)
        scatter = sp.csr_array(
            (np.ones(len(others)), (where, np.arange(len(others)))), (count * len(used), len(others))
        )
        i, j = np.triu_indices(len(used))
        square = Squares(
            shape=(count, len(used)),
            left=None,
            right=None,
            spread=None,
            upper=Matrix(_picks(i * len(used) + j, len(used) ** 2)),
            into=Matrix(_picks(used, size).T),
        )
        return square, (scatter @ scaled, p, g, q[t]), (used[i], used[j])
    first, second = _pairs(np.bincount(row, minlength=count))
    low, high = np.minimum(place[first], place[second]), np.maximum(place[first], place[second])
    distinct, of = np.unique(low * size + high, return_inverse=True)
    # off the diagonal the two orders of a pair fall together in the upper triangle; on it both count
    twice = np.where((first != second) & (low == high), 2.0, 1.0)
    square = Squares(
        shape=None,
        left=Matrix(_picks(first, len(others))),
        right=Matrix(_picks(second, len(others))),
        spread=Matrix(_picks(row, count)),
        upper=Matrix(sp.csr_array((twice, (of, np.arange(len(of)))), (len(distinct), len(of)))),
        into=Matrix(_picks(place, size).T),
    )
    return square, (scaled, p, g, q[t]), (distinct // size, distinct % size)


def _diagonal(pattern: al.ConePattern, P: Any, t: Array) -> Any:
    """Return the affine maps to the diagonal entries of P at some variables."""
    entries = np.flatnonzero(pattern.P_rows == pattern.P_columns)
    gather = sp.csr_array(
        (np.ones(len(entries)), (pattern.P_rows[entries], entries)), (pattern.size, len(pattern.P_rows))
    )
    return gather[t] @ P


def _picks(positions: Array, width: int) -> Any:
    """Return the matrix that takes entries by position."""
    return sp.csr_array((np.ones(len(positions)), (np.arange(len(positions)), positions)), (len(positions), width))


def _pairs(lengths: Array) -> tuple[Array, Array]:
    """Return all pairs i <= j of entries of the same row, for rows one after another."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    found = [np.zeros((2, 0), dtype=np.int64)]
    for length in np.unique(lengths):
        i, j = np.triu_indices(length)
        begin = starts[lengths == length]
        found.append(np.stack([(begin[:, None] + i).ravel(), (begin[:, None] + j).ravel()]))
    first, second = np.concatenate(found, axis=1)
    return first, second


def together(parts: list[Tensor]) -> Tensor:
    """Join values of P with whatever leading dimensions."""
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, -1) for part in parts], -1)
