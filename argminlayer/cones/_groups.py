"""Cones of one kind and size, taken together so that all of them are projected at once."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ._pattern import Cones


@dataclass(frozen=True, eq=False)
class Group:
    """Cones of one kind and size.

    Attributes:
        kind: ``"zero"``, ``"nonnegative"``, ``"second_order"``, ``"semidefinite"``, ``"exponential"`` or ``"power"``.
        rows: of the program that belong to each cone, (count, size).
        side: the side of semidefinite cones, else 0.
        exponents: of power cones, (count,).
    """

    kind: str
    rows: Tensor
    side: int
    exponents: Tensor

    @property
    def start(self) -> int | None:
        """The first row if the rows follow each other, else None."""
        flat = self.rows.flatten()
        first = int(flat[0])
        return first if int(flat[-1]) == first + len(flat) - 1 and bool((flat.diff() == 1).all()) else None

    def take(self, values: Tensor) -> Tensor:
        """Return the rows of (batch, m, ...) as (batch, count, size, ...)."""
        count, size = self.rows.shape
        return values[:, self.rows.flatten()].reshape(values.shape[0], count, size, *values.shape[2:])

    def put(self, into: Tensor, values: Tensor) -> None:
        """Write (batch, count, size, ...) to the rows of (batch, m, ...)."""
        into[:, self.rows.flatten()] = values.flatten(1, 2)


@functools.lru_cache(maxsize=256)
def groups_of(cones: Cones) -> tuple[Group, ...]:
    """Return the groups of a product of cones; together they cover its rows."""
    sizes: dict[tuple[str, int], list[int]] = {}
    exponents: list[float] = []
    for kind, row, detail in cones.blocks():
        size = int(detail) if kind in ("second_order", "semidefinite") else 0
        sizes.setdefault((kind, size), []).append(row)
        if kind == "power":
            exponents.append(detail)
    found = []
    if cones.zero:
        found.append(_group("zero", 0, list(range(cones.zero)), 1))
    if cones.nonnegative:
        found.append(_group("nonnegative", 0, list(range(cones.zero, cones.zero + cones.nonnegative)), 1))
    for (kind, size), rows in sizes.items():
        width = {"second_order": size, "semidefinite": size * (size + 1) // 2}.get(kind, 3)
        found.append(_group(kind, size if kind == "semidefinite" else 0, rows, width, exponents))
    return tuple(found)


def _group(kind: str, side: int, first: list[int], width: int, exponents: list[float] | None = None) -> Group:
    rows = torch.tensor(first)[:, None] + torch.arange(width)
    powers = torch.tensor(exponents if kind == "power" and exponents else [], dtype=torch.float64)
    return Group(kind, rows, side, powers)
