"""KKT systems as dense matrices: exact in every case, at a cost that grows with the cube of the number of variables."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._kkt import AbstractSystem, ActiveSet, Vector
from ._linear import SymmetricFactor, select_factor


@dataclass(frozen=True)
class DenseSystem(AbstractSystem):
    """The KKT matrices of a batch with their symmetric indefinite factors.

    Attributes:
        hessian: H, (batch, n, n).
        equality: A, (batch, p, n).
        rows: (batch, k) positions of the active inequalities, k the largest count in the batch.
        used: (batch, k) whether a position is active, or fills up the row.
        inequality: G at these positions, (batch, k, n), zero where not used.
        active: the active set.
        fill: diagonal that stands for eliminated variables, (batch, n), zero for the others.
        factor: of the matrix with ``n + p + k`` unknowns.
    """

    hessian: Tensor
    equality: Tensor
    rows: Tensor
    used: Tensor
    inequality: Tensor
    active: ActiveSet
    fill: Tensor
    factor: SymmetricFactor

    @classmethod
    def of(
        cls,
        hessian: Tensor,
        equality: Tensor,
        inequality: Tensor,
        active: ActiveSet,
        compliance: Tensor | None = None,
    ) -> "DenseSystem":
        """Build and factorise the matrices.

        Args:
            hessian: (batch, n, n).
            equality: (batch, p, n).
            inequality: Jacobian of all inequalities, (batch, q, n).
            active: the active set.
            compliance: d >= 0 for rows ``G u - d b = inequality``, (batch, q), zero by default.
        """
        rows, used, gathered = gather_active(inequality, active.inequality)
        free = (~active.fixed).to(hessian.dtype)
        constraints = torch.cat([equality, gathered], dim=1) * free[:, None, :]
        # eliminated variables get a diagonal of the size of the Hessian, so as not to change the scale of the matrix
        size = hessian.abs().flatten(1).amax(-1, keepdim=True) if hessian.numel() else free[:, :1]
        fill = torch.where(size > 0, size, 1.0) * (1.0 - free)
        top = hessian * free[:, :, None] * free[:, None, :] + torch.diag_embed(fill)
        give = torch.where(used, 0.0 if compliance is None else compliance.gather(-1, rows), 1.0).to(hessian.dtype)
        corner = torch.cat([equality.new_zeros(equality.shape[:2]), -give], dim=1)
        matrix = torch.cat(
            [torch.cat([top, constraints.mT], dim=2), torch.cat([constraints, torch.diag_embed(corner)], dim=2)], dim=1
        )
        factor = SymmetricFactor.of(matrix, hessian.shape[-1])
        return cls(hessian, equality, rows, used, gathered, active, fill, factor)

    def solve(self, right: Vector) -> Vector:
        """See :meth:`AbstractSystem.solve`."""
        top, equality, inequality, bound = right
        fixed, used = self.active.fixed[..., None], self.used[..., None]
        held = torch.where(fixed, -bound, 0.0)
        gathered = inequality.gather(1, self._positions(inequality))
        lifted = [
            torch.where(fixed, self.fill[..., None] * held, top - self.hessian @ held),
            equality - self.equality @ held,
            torch.where(used, gathered - self.inequality @ held, 0.0),
        ]
        sizes = [part.shape[1] for part in lifted]
        u, a, b = self.factor.solve(torch.cat(lifted, dim=1)).split(sizes, dim=1)
        force = self.hessian @ u + self.equality.mT @ a + self.inequality.mT @ b - top
        return u, a, self._scatter(b), torch.where(fixed, force, 0.0)

    def select(self, index: Tensor) -> "DenseSystem":
        """See :meth:`AbstractSystem.select`."""
        moved = {
            name: getattr(self, name)[index] for name in ("hessian", "equality", "rows", "used", "inequality", "fill")
        }
        return replace(self, active=self.active.select(index), factor=select_factor(self.factor, index), **moved)

    @property
    def kernel(self) -> Vector:
        """See :attr:`AbstractSystem.kernel`."""
        n, p, k = self.hessian.shape[-1], self.equality.shape[1], self.rows.shape[1]
        u, a, b = self.factor.kernel.split([n, p, k], dim=1)
        return u, a, self._scatter(b), torch.zeros_like(u)

    @property
    def negative(self) -> Tensor:
        """See :attr:`AbstractSystem.negative`."""
        constraints = self.equality.shape[1] + self.rows.shape[1]
        return self.factor.negative - constraints + self.redundant

    def _positions(self, values: Tensor) -> Tensor:
        return self.rows[..., None].expand(*self.rows.shape, values.shape[-1])

    def _scatter(self, values: Tensor) -> Tensor:
        """Return (batch, k, c) values at their places among all inequalities, zero elsewhere."""
        batch, _, columns = values.shape
        full = values.new_zeros(batch, self.active.inequality.shape[-1], columns)
        return full.scatter(1, self._positions(values), values * self.used[..., None])


def gather_active(inequality: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (batch, k) of the active rows, which of them are used, and the rows, zero where not used."""
    k = int(active.sum(-1).max()) if active.numel() else 0
    rows = torch.argsort(active.to(torch.int8), dim=-1, descending=True, stable=True)[:, :k]
    used = active.gather(-1, rows)
    index = rows[..., None].expand(*rows.shape, inequality.shape[-1])
    return rows, used, inequality.gather(1, index) * used[..., None]
