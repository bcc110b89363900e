"""KKT systems whose Hessian is block-diagonal, perhaps plus a low rank: solved by a Schur complement of a few rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._kkt import AbstractSystem, ActiveRows, ActiveSet, Vector
from ._linear import SymmetricFactor
from ._matrices import BlockMatrix, block_product

CONDITION = 1e-9
"""Blocks whose eigenvalues span more than this leave too little of the Schur complement in double precision."""


@dataclass(frozen=True)
class SchurSystem(AbstractSystem):
    """``H = B + V C V'`` with rows ``R = (V', A, G_active)``: solved with ``B^{-1}`` and ``S = R B^{-1} R' + E``.

    V enters as rows of its own, whose multipliers are ``C V'u``; E is ``C^{-1}`` for them and zero for constraints.
    Nothing of size n x n is formed.

    Attributes:
        hessian: H.
        equality: A, (batch, p, n).
        rows: where the active inequalities are.
        inequality: G of these, (batch, k, n), zero where not used.
        active: the active set.
        held: whether any variable is held at a bound.
        fill: diagonal that stands for variables held at a bound, (batch, 1).
        inverse: of the blocks of the free variables, (batch, blocks, size, size).
        border: R, columns of variables held at a bound zero, (batch, r + p + k, n).
        lifted: ``B^{-1} R'``, (batch, n, r + p + k).
        factor: of S.
        blocks_negative: number of negative eigenvalues of B, (batch,).
    """

    hessian: BlockMatrix
    equality: Tensor
    rows: ActiveRows
    inequality: Tensor
    active: ActiveSet
    held: bool
    fill: Tensor
    inverse: Tensor
    border: Tensor
    lifted: Tensor
    factor: SymmetricFactor
    blocks_negative: Tensor

    @classmethod
    def of(cls, hessian: BlockMatrix, equality: Tensor, inequality: Tensor, active: ActiveSet) -> "SchurSystem | None":
        """Factorise; None where some block is too near to singular.

        Args:
            hessian: H.
            equality: A, (batch, p, n).
            inequality: Jacobian of all inequalities, (batch, q, n).
            active: the active set.
        """
        rows = ActiveRows.of(active.inequality)
        gathered = rows.gather(inequality)
        held = bool(active.fixed.any())
        inverse, negative, fill = _invert(hessian, active.fixed if held else None)
        if inverse is None:
            return None
        border = torch.cat([hessian.low.mT, equality, gathered], dim=1)
        if held:
            border = torch.where(active.fixed[:, None], 0.0, border)
        lifted = hessian.grouping.vector(block_product(inverse, hessian.grouping.blocks(border.mT)))
        edge = torch.cat([hessian.sign, torch.zeros_like(equality[..., 0]), (~rows.used).to(border.dtype)], dim=1)
        complement = border @ lifted + torch.diag_embed(edge)
        factor = SymmetricFactor.of(0.5 * (complement + complement.mT), 0)
        return cls(hessian, equality, rows, gathered, active, held, fill, inverse, border, lifted, factor, negative)

    def solve(self, right: Vector) -> Vector:
        """See :meth:`AbstractSystem.solve`."""
        top, equality, inequality, bound = right
        inequality = self.rows.gather(inequality)
        if self.held:
            fixed = self.active.fixed[..., None]
            held = torch.where(fixed, -bound, 0.0)
            top = torch.where(fixed, self.fill[..., None] * held, top - self.hessian.times(held))
            equality, inequality = equality - self.equality @ held, inequality - self.inequality @ held
        grouping = self.hessian.grouping
        u = grouping.vector(block_product(self.inverse, grouping.blocks(top)))
        low, p = self.hessian.low.shape[-1], self.equality.shape[1]
        y = u.new_zeros(u.shape[0], self.border.shape[1], u.shape[-1])
        if self.border.shape[1]:
            wanted = torch.cat([u.new_zeros(u.shape[0], low, u.shape[-1]), equality, inequality], dim=1)
            y = self.factor.solve(self.border @ u - wanted)
            # the product of long thin matrices is slow as a matrix product
            thin = y.shape[1] == y.shape[2] == 1
            u = torch.addcmul(u, self.lifted, y, value=-1.0) if thin else u - self.lifted @ y
        a, b = y[:, low : low + p], y[:, low + p :]
        return u, a, self.rows.scatter(b), self._force(right[0], u, a, b)

    def _force(self, top: Tensor, u: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if not self.held:
            return u.new_zeros(()).expand_as(u)
        force = self.hessian.times(u) + self.equality.mT @ a + self.inequality.mT @ b - top
        return torch.where(self.active.fixed[..., None], force, 0.0)

    @property
    def kernel(self) -> Vector:
        """See :attr:`AbstractSystem.kernel`."""
        y, low, p = self.factor.kernel, self.hessian.low.shape[-1], self.equality.shape[1]
        u = -self.lifted @ y
        return u, y[:, low : low + p], self.rows.scatter(y[:, low + p :]), torch.zeros_like(u)

    @property
    def negative(self) -> Tensor:
        """See :attr:`AbstractSystem.negative`; inertia is additive over Schur complements (Haynsworth 1968)."""
        size, low = self.border.shape[1], self.hessian.low.shape[-1]
        vectors = self.factor.kernel
        nullity = (vectors != 0).any(1).sum(-1) if vectors.numel() else torch.zeros_like(self.factor.negative)
        positive = size - self.factor.negative - nullity
        signs = (self.hessian.sign > 0).sum(-1)
        return self.blocks_negative + positive - signs - (size - low) + self.redundant


def _invert(hessian: BlockMatrix, fixed: Tensor | None) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return inverse blocks, None if one is too near to singular, number of negative eigenvalues, and the filling.

    Variables held at a bound are cut out. Their diagonal, and that of places that only fill up a block, becomes the
    largest entry of the instance, which changes neither condition nor inertia.
    """
    blocks, cut = hessian.blocks, None
    fill = blocks.abs().flatten(1).amax(-1)[:, None, None]
    if fixed is not None:
        cut = hessian.grouping.blocks(fixed[..., None].to(blocks.dtype))[..., 0]
    if not hessian.grouping.trivial:
        padding = hessian.grouping.padding.to(blocks.dtype)
        cut = padding.expand(blocks.shape[:-1]) if cut is None else cut + padding
    if cut is not None:
        kept = 1.0 - cut
        blocks = blocks * kept[..., None] * kept[..., None, :] + torch.diag_embed(cut * fill)
    values, vectors = (blocks[..., 0], None) if blocks.shape[-1] == 1 else torch.linalg.eigh(blocks)
    sizes = values.abs().flatten(1)
    negative = (values < 0).flatten(1).sum(-1)
    if not bool((sizes.amin(-1) > CONDITION * sizes.amax(-1)).all()):
        return None, negative, fill[..., 0]
    if vectors is None:
        return 1.0 / blocks, negative, fill[..., 0]
    return (vectors / values[..., None, :]) @ vectors.mT, negative, fill[..., 0]
