"""The KKT system of a batch: which constraints are active, and what a factorised system of any form can answer.

At a point with multipliers the conditions ``grad L = 0, h = 0, g_active = 0, u_fixed = bound`` have the derivative

    [ H  A' G' -E']        H: Hessian of the Lagrangian (n, n)       A: Jacobian of h (p, n)
    [ A  0  0   0 ]        G: Jacobian of the active g (k, n)        E: rows of the identity, variables at a bound
    [ G  0  0   0 ]
    [-E  0  0   0 ]

(Gould, Hartley and Campbell 2021, eqs. 24 and 26-28, in our signs). Inactive rows do not enter; variables at a bound
are eliminated. H itself may be singular: only the whole matrix must not be.
"""

import abc
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor, Tensor]
"""Parts in u (batch, n, c), nu (batch, p, c), lambda (batch, q, c) and zeta (batch, n, c), for c columns at once."""


@dataclass(frozen=True)
class ActiveSet:
    """Which inequalities and bounds of each instance hold with equality.

    Attributes:
        inequality: (batch, q) inequalities that are active.
        at_lower: (batch, n) variables held at their lower bound.
        at_upper: (batch, n) variables held at their upper bound, none of which is held at its lower bound.
    """

    inequality: Tensor
    at_lower: Tensor
    at_upper: Tensor

    @property
    def fixed(self) -> Tensor:
        """Which variables are held at a bound, (batch, n)."""
        return self.at_lower | self.at_upper

    @property
    def count(self) -> Tensor:
        """Number of active inequalities and bounds, (batch,)."""
        return self.inequality.sum(-1) + self.fixed.sum(-1)

    def bound(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the bound that each held variable sits at, zero for the others; differentiable."""
        held = torch.where(self.at_lower, lower, upper)
        return torch.where(self.fixed, held, torch.zeros_like(held))

    def select(self, index: Tensor) -> "ActiveSet":
        """Return the active sets of the instances in ``index``."""
        return ActiveSet(self.inequality[index], self.at_lower[index], self.at_upper[index])


@dataclass(frozen=True)
class ActiveRows:
    """The active inequalities of each instance gathered into as few rows as the instance with most of them needs.

    Attributes:
        positions: (batch, k) of the active inequalities, k the largest count in the batch.
        used: (batch, k) whether a position is active, or fills up the row.
        total: number of all inequalities, q.
    """

    positions: Tensor
    used: Tensor
    total: int

    @classmethod
    def of(cls, active: Tensor) -> "ActiveRows":
        """Return the rows of a mask (batch, q)."""
        k = int(active.sum(-1).max()) if active.numel() else 0
        positions = torch.argsort(active.to(torch.int8), dim=-1, descending=True, stable=True)[:, :k]
        return cls(positions, active.gather(-1, positions), active.shape[-1])

    @property
    def count(self) -> int:
        """Number of rows, k."""
        return self.positions.shape[1]

    def gather(self, values: Tensor) -> Tensor:
        """Return (batch, q, c) values at the positions, (batch, k, c), zero where not used."""
        if self.count == 0:
            return values[:, :0]
        return values.gather(1, self._index(values)) * self.used[..., None]

    def scatter(self, values: Tensor) -> Tensor:
        """Return (batch, k, c) values at their places among all inequalities, zero elsewhere."""
        full = values.new_zeros(values.shape[0], self.total, values.shape[-1])
        if self.count == 0:
            return full
        return full.scatter(1, self._index(values), values * self.used[..., None])

    def select(self, index: Tensor) -> "ActiveRows":
        """Return the rows of the instances in ``index``."""
        return ActiveRows(self.positions[index], self.used[index], self.total)

    def _index(self, values: Tensor) -> Tensor:
        return self.positions[..., None].expand(*self.positions.shape, values.shape[-1])


class AbstractSystem(abc.ABC):
    """A factorised KKT matrix of every instance, in whatever form suits its structure.

    Attributes:
        active: the active set it was built for.
    """

    active: ActiveSet

    @abc.abstractmethod
    def solve(self, right: Vector) -> Vector:
        """Solve ``H u + A'a + G'b - E'c = top``, ``A u = equality``, ``G u = inequality``, ``-E u = bound``.

        Args:
            right: top, equality, inequality (ignored where not active) and bound (ignored where not fixed).

        Returns:
            u, a, b with zeros where not active, c with zeros where a variable is free. Of least norm in u where the
            matrix is singular.
        """

    def select(self, index: Tensor) -> Self:
        """Return the systems of the instances in ``index``, a vector of positions in the batch.

        A system is a dataclass: its tensors are indexed, and parts that can select are asked to.
        """
        parts = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        moved = {
            name: part[index] if isinstance(part, Tensor) else part.select(index)
            for name, part in parts.items()
            if hasattr(part, "select")
        }
        return replace(self, **moved)  # type: ignore[type-var]

    @property
    @abc.abstractmethod
    def kernel(self) -> Vector:
        """Vectors that the matrix annihilates, one in a column, padded with zeros; no columns when it is regular."""

    @property
    @abc.abstractmethod
    def negative(self) -> Tensor:
        """Number of negative eigenvalues of the Hessian on the tangent space of the active constraints, (batch,)."""

    @property
    def freedom(self) -> Tensor:
        """Number of independent directions the solution may move in without leaving the KKT conditions, (batch,)."""
        inside = self.kernel[0]
        if not inside.numel():
            return torch.zeros_like(self.active.count)
        sizes: Tensor = torch.linalg.svdvals(inside)
        return (sizes > 1e-6).sum(-1)

    @property
    def redundant(self) -> Tensor:
        """Number of active constraints that depend on the others: their gradients are combinations of theirs."""
        vectors = torch.cat(self.kernel[:3], dim=1)
        if not vectors.numel():
            return torch.zeros_like(self.active.count)
        return (vectors != 0).any(1).sum(-1) - self.freedom

    @property
    def tangent(self) -> Tensor:
        """Dimension of the tangent space of the active constraints, (batch,)."""
        n, p = self.active.at_lower.shape[-1], self.kernel[1].shape[1]
        return n - self.active.count - p + self.redundant
