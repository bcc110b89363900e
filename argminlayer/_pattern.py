"""Where a matrix known by its products has entries, and how few products determine them.

Columns that share no row can be told apart in one product (Curtis, Powell and Reid 1974). So the pattern is found by
halving: blocks of columns whose rows are known are split, the halves coloured so that no two of one colour share a row,
and one product with random entries for each colour tells the rows of each half. A matrix with few entries in a row
takes a number of products that grows with the logarithm of its size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Coloring:
    """The pattern of a matrix with its columns in colours: no two columns of one colour share a row.

    Attributes:
        rows: row of each entry.
        columns: column of each entry.
        colors: colour of each column.
        count: number of colours.
        shape: numbers of rows and columns.
    """

    rows: Indices
    columns: Indices
    colors: Indices
    count: int
    shape: tuple[int, int]

    @property
    def seeds(self) -> Values:
        """The directions whose products hold all entries, (count, columns)."""
        seeds: Values = (np.arange(self.count)[:, None] == self.colors).astype(np.float64)
        return seeds


def discover(product: Callable[[Values], Values], rows: int, columns: int, limit: int) -> Coloring | None:
    """Return the pattern of a matrix from its products, None if they would be more than ``limit`` at once.

    Args:
        product: directions (c, columns) to products (c, rows).
        rows: number of rows.
        columns: number of columns.
        limit: of colours.
    """
    draw = np.random.default_rng(0)
    blocks: list[Indices] = [np.arange(columns)]
    supports: list[Indices] = [np.arange(rows)]
    while True:
        halves = [half for block in blocks for half in np.array_split(block, min(2, len(block)))]
        inherited = [s for s, block in zip(supports, blocks, strict=True) for _ in range(min(2, len(block)))]
        colors, count = _color(inherited, rows)
        if count > limit:
            return None
        seeds = np.zeros((count, columns))
        for half, color in zip(halves, colors, strict=True):
            seeds[color, half] = draw.uniform(0.5, 1.5, len(half))
        touched = product(seeds) != 0
        supports = [s[touched[color, s]] for s, color in zip(inherited, colors, strict=True)]
        finished = all(len(half) == 1 for half in halves)
        keep = [i for i, support in enumerate(supports) if len(support)]
        blocks, supports = [halves[i] for i in keep], [supports[i] for i in keep]
        if finished:
            return coloring([int(block[0]) for block in blocks], supports, (rows, columns))


def coloring(columns: list[int], supports: list[Indices], shape: tuple[int, int]) -> Coloring:
    """Return the pattern whose ``columns`` have the rows ``supports``, coloured."""
    found, count = _color(supports, shape[0])
    colors = np.full(shape[1], -1, dtype=np.int64)
    colors[columns] = found
    rows = np.concatenate([np.empty(0, dtype=np.int64), *supports])
    repeated = np.repeat(np.array(columns, dtype=np.int64), [len(s) for s in supports])
    return Coloring(rows, repeated, colors, count, shape)


def merge(first: Coloring, second: Coloring) -> Coloring:
    """Return the pattern of all entries of two."""
    entries = np.unique(
        np.stack([np.r_[first.columns, second.columns], np.r_[first.rows, second.rows]], axis=1), axis=0
    )
    columns, starts = np.unique(entries[:, 0], return_index=True)
    return coloring(columns.tolist(), np.split(entries[:, 1], starts[1:]), first.shape)


def components(pattern: Coloring) -> list[list[int]]:
    """Return the groups of indices that the entries of a symmetric pattern connect."""
    neighbours: list[list[int]] = [[] for _ in range(pattern.shape[1])]
    for row, column in zip(pattern.rows.tolist(), pattern.columns.tolist(), strict=True):
        if row != column:
            neighbours[column].append(row)
            neighbours[row].append(column)
    groups, seen = [], [False] * len(neighbours)
    for start in range(len(neighbours)):
        if seen[start]:
            continue
        seen[start], group, stack = True, [], [start]
        while stack:
            index = stack.pop()
            group.append(index)
            fresh = [other for other in neighbours[index] if not seen[other]]
            for other in fresh:
                seen[other] = True
            stack.extend(set(fresh))
        groups.append(sorted(group))
    return groups


def _color(supports: list[Indices], rows: int) -> tuple[list[int], int]:
    """Give each support a colour, greedily, so that no two of one colour share a row."""
    taken: list[Mask] = []
    colors = []
    for support in supports:
        color = next((c for c, mask in enumerate(taken) if not mask[support].any()), len(taken))
        if color == len(taken):
            taken.append(np.zeros(rows, dtype=np.bool_))
        taken[color][support] = True
        colors.append(color)
    return colors, len(taken)
