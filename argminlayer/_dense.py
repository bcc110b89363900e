"""KKT systems as dense matrices: exact in every case, at a cost that grows with the cube of the number of variables."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._kkt import AbstractSystem, ActiveRows, ActiveSet, Vector
from ._linear import SymmetricFactor


@dataclass(frozen=True)
class DenseSystem(AbstractSystem):
    """The KKT matrices of a batch with their symmetric indefinite factors.

    Attributes:
        hessian: H, (batch, n, n).
        equality: A, (batch, p, n).
        rows: where the active inequalities are.
        inequality: G of these, (batch, k, n), zero where not used.
        active: the active set.
        fill: diagonal that stands for eliminated variables, (batch, n), zero for the others.
        factor: of the matrix with ``n + p + k`` unknowns.
    """

    hessian: Tensor
    equality: Tensor
    rows: ActiveRows
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
        rows = ActiveRows.of(active.inequality)
        gathered = rows.gather(inequality)
        free = (~active.fixed).to(hessian.dtype)
        constraints = torch.cat([equality, gathered], dim=1) * free[:, None, :]
        # eliminated variables get a diagonal of the size of the Hessian, so as not to change the scale of the matrix
        size = hessian.abs().flatten(1).amax(-1, keepdim=True) if hessian.numel() else free[:, :1]
        fill = torch.where(size > 0, size, 1.0) * (1.0 - free)
        top = hessian * free[:, :, None] * free[:, None, :] + torch.diag_embed(fill)
        soft = 0.0 if compliance is None else compliance.gather(-1, rows.positions)
        give = torch.where(rows.used, soft, 1.0).to(hessian.dtype)
        corner = torch.cat([equality.new_zeros(equality.shape[:2]), -give], dim=1)
        matrix = torch.cat(
            [torch.cat([top, constraints.mT], dim=2), torch.cat([constraints, torch.diag_embed(corner)], dim=2)], dim=1
        )
        factor = SymmetricFactor.of(matrix, hessian.shape[-1])
        return cls(hessian, equality, rows, gathered, active, fill, factor)

    def solve(self, right: Vector) -> Vector:
        """See :meth:`AbstractSystem.solve`."""
        top, equality, inequality, bound = right
        fixed = self.active.fixed[..., None]
        held = torch.where(fixed, -bound, 0.0)
        lifted = [
            torch.where(fixed, self.fill[..., None] * held, top - self.hessian @ held),
            equality - self.equality @ held,
            self.rows.gather(inequality) - self.inequality @ held,
        ]
        sizes = [part.shape[1] for part in lifted]
        u, a, b = self.factor.solve(torch.cat(lifted, dim=1)).split(sizes, dim=1)
        force = self.hessian @ u + self.equality.mT @ a + self.inequality.mT @ b - top
        return u, a, self.rows.scatter(b), torch.where(fixed, force, 0.0)

    @property
    def kernel(self) -> Vector:
        """See :attr:`AbstractSystem.kernel`."""
        n, p, k = self.hessian.shape[-1], self.equality.shape[1], self.rows.count
        u, a, b = self.factor.kernel.split([n, p, k], dim=1)
        return u, a, self.rows.scatter(b), torch.zeros_like(u)

    @property
    def negative(self) -> Tensor:
        """See :attr:`AbstractSystem.negative`."""
        constraints = self.equality.shape[1] + self.rows.count
        return self.factor.negative - constraints + self.redundant
