"""The KKT system of a batch: which constraints are active, the symmetric matrix, and solves with it.

At a point with multipliers the conditions ``grad L = 0, h = 0, g_active = 0, u_fixed = bound`` have the derivative

    [ H  A' G' -E']        H: Hessian of the Lagrangian (n, n)       A: Jacobian of h (p, n)
    [ A  0  0   0 ]        G: Jacobian of the active g (k, n)        E: rows of the identity, variables at a bound
    [ G  0  0   0 ]
    [-E  0  0   0 ]

(Gould, Hartley and Campbell 2021, eqs. 24 and 26-28, in our signs). Inactive rows do not enter; variables at a bound
are eliminated, so that only ``n + p + k`` unknowns remain. H itself may be singular: only the whole matrix must not be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._linear import SymmetricFactor, symmetric_solve
from ._measures import apply


@dataclass(frozen=True)
class ActiveSet:
    """Which inequalities and bounds of each instance hold with equality.

    Attributes:
        rows: (batch, k) positions of the active inequalities, k the largest count in the batch.
        used: (batch, k) whether a position is active, or fills up the row.
        at_lower: (batch, n) variables held at their lower bound.
        at_upper: (batch, n) variables held at their upper bound.
    """

    rows: Tensor
    used: Tensor
    at_lower: Tensor
    at_upper: Tensor

    @classmethod
    def of(cls, inequality: Tensor, at_lower: Tensor, at_upper: Tensor) -> "ActiveSet":
        """Gather the active inequalities given as a mask (batch, q)."""
        k = int(inequality.sum(-1).max()) if inequality.numel() else 0
        order = torch.argsort(inequality.to(torch.int8), dim=-1, descending=True, stable=True)[:, :k]
        return cls(order, inequality.gather(-1, order), at_lower, at_upper & ~at_lower)

    @property
    def fixed(self) -> Tensor:
        """Which variables are held at a bound, (batch, n)."""
        return self.at_lower | self.at_upper

    @property
    def count(self) -> Tensor:
        """Number of active inequalities and bounds, (batch,)."""
        return self.used.sum(-1) + self.fixed.sum(-1)

    def gather(self, values: Tensor) -> Tensor:
        """Return the active entries of (batch, q), or rows of (batch, q, n), zero where a position is not used."""
        if values.ndim == 2:
            return values.gather(-1, self.rows) * self.used
        index = self.rows[..., None].expand(*self.rows.shape, values.shape[-1])
        return values.gather(1, index) * self.used[..., None]

    def scatter(self, values: Tensor, count: int) -> Tensor:
        """Return (batch, k) values at their places among all ``count`` inequalities, zero elsewhere."""
        return values.new_zeros(values.shape[0], count).scatter(-1, self.rows, values * self.used)

    def bound(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the bound that each held variable sits at, zero for the others; differentiable."""
        held = torch.where(self.at_lower, lower, upper)
        return torch.where(self.fixed, held, torch.zeros_like(held))


@dataclass(frozen=True)
class KKTSystem:
    """The KKT matrix of every instance with its factor.

    Attributes:
        hessian: H, (batch, n, n).
        equality: A, (batch, p, n).
        inequality: G of the active inequalities, (batch, k, n).
        active: the active set.
        matrix: the reduced matrix, (batch, n + p + k, n + p + k).
        factor: its factor.
    """

    hessian: Tensor
    equality: Tensor
    inequality: Tensor
    active: ActiveSet
    matrix: Tensor
    factor: SymmetricFactor

    @classmethod
    def assemble(
        cls,
        hessian: Tensor,
        equality: Tensor,
        inequality: Tensor,
        active: ActiveSet,
        factor: SymmetricFactor | None = None,
    ) -> "KKTSystem":
        """Build and factorise the matrix, reusing ``factor`` when it belongs to the same numbers.

        Args:
            hessian: (batch, n, n).
            equality: (batch, p, n).
            inequality: Jacobian of all inequalities, (batch, q, n).
            active: the active set.
            factor: a factor computed before, for the same matrix.
        """
        rows = active.gather(inequality)
        free = (~active.fixed).to(hessian.dtype)
        constraints = torch.cat([equality, rows], dim=1) * free[:, None, :]
        # eliminated variables get a diagonal of the size of the Hessian, so as not to change the scale of the matrix
        size = hessian.detach().abs().flatten(1).amax(-1, keepdim=True) if hessian.numel() else free[:, :1]
        fill = torch.where(size > 0, size, 1.0) * (1.0 - free)
        top = hessian * free[:, :, None] * free[:, None, :] + torch.diag_embed(fill)
        unused = torch.cat([equality.new_zeros(equality.shape[:2]), -(~active.used).to(hessian.dtype)], dim=1)
        matrix = torch.cat(
            [torch.cat([top, constraints.mT], dim=2), torch.cat([constraints, torch.diag_embed(unused)], dim=2)], dim=1
        )
        return cls(
            hessian, equality, rows, active, matrix, factor or SymmetricFactor.of(matrix.detach(), hessian.shape[-1])
        )

    def solve(self, top: Tensor, equality: Tensor, inequality: Tensor, held: Tensor) -> tuple[Tensor, ...]:
        """Solve ``H u + A'a + G'b - E'c = top``, ``A u = equality``, ``G u = inequality``, ``u = held`` where fixed.

        Args:
            top: (batch, n).
            equality: (batch, p).
            inequality: (batch, k), ignored at positions not used.
            held: (batch, n), zero where a variable is free.

        Returns:
            u (batch, n), a (batch, p), b (batch, k), c (batch, n) with zeros where a variable is free.
        """
        n, p = self.hessian.shape[-1], self.equality.shape[1]
        fixed = self.active.fixed
        fill = self.matrix.detach().diagonal(dim1=-2, dim2=-1)[:, :n]
        lifted = torch.where(fixed, fill * held, top - apply(self.hessian, held))
        right = torch.cat(
            [
                lifted,
                equality - apply(self.equality, held),
                torch.where(self.active.used, inequality - apply(self.inequality, held), 0.0),
            ],
            dim=-1,
        )
        u, a, b = symmetric_solve(self.factor, self.matrix, right).split([n, p, self.inequality.shape[1]], dim=-1)
        force = apply(self.hessian, u) + apply(self.equality.mT, a) + apply(self.inequality.mT, b) - top
        return u, a, b, torch.where(fixed, force, 0.0)

    @property
    def freedom(self) -> Tensor:
        """Return how many independent directions the solution may move in without leaving the KKT conditions."""
        inside = self.factor.kernel[:, : self.hessian.shape[-1]]
        return (torch.linalg.svdvals(inside) > 1e-6).sum(-1) if inside.numel() else self._none

    @property
    def redundant(self) -> Tensor:
        """Return how many active constraints depend on the others: their gradients are combinations of theirs."""
        kernel = self.factor.kernel
        return (kernel != 0).any(-2).sum(-1) - self.freedom if kernel.numel() else self._none

    @property
    def _none(self) -> Tensor:
        return torch.zeros_like(self.factor.negative)

    @property
    def extra_negative(self) -> Tensor:
        """Return how many negative eigenvalues the Hessian has on the tangent space of the active constraints."""
        return self.factor.negative - (self.equality.shape[1] + self.inequality.shape[1]) + self.redundant

    @property
    def tangent(self) -> Tensor:
        """Return the dimension of the tangent space of the active constraints."""
        return self.hessian.shape[-1] - self.active.count - self.equality.shape[1] + self.redundant
