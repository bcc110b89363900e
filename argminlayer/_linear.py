"""Symmetric indefinite linear systems, batched: factorise once, solve often, and know the inertia."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SINGULAR = 1e-11
"""An equilibrated matrix whose smallest singular value is estimated below this is called singular."""
NULL = 1e-9
"""Eigenvalues of a singular matrix below this, relative to its largest, count as zero."""


@dataclass(frozen=True)
class SymmetricFactor:
    """``D K D = L B L'`` (Bunch and Kaufman) of a batch of symmetric matrices, ``D`` chosen so that rows have size 1.

    Bunch-Kaufman rather than LU: half the work, the inertia for free, and torch's batched LU can hang on a CPU.

    Attributes:
        factor: packed ``L`` and ``B``, (batch, N, N).
        pivots: as LAPACK's sytrf returns them, (batch, N).
        scale: diagonal of ``D``, (batch, N).
        inverse: (batch, N, N) generalized inverses where some matrix of the batch is singular, else (batch, 0, 0).
        negative: number of negative eigenvalues, (batch,).
        kernel: orthonormal vectors whose span the matrix annihilates, (batch, N, d), padded with zeros; d is 0 when
            every matrix of the batch is regular.
    """

    factor: Tensor
    pivots: Tensor
    scale: Tensor
    inverse: Tensor
    negative: Tensor
    kernel: Tensor

    @classmethod
    def of(cls, matrix: Tensor, leading: int) -> "SymmetricFactor":
        """Factorise ``matrix`` (batch, N, N), of which both triangles are given.

        A singular matrix gets its generalized inverse: the solution of a consistent system of least norm, measured
        without weights in the first ``leading`` unknowns.
        """
        scale = _block_scale(matrix, leading)
        for _ in range(3 if matrix.numel() else 0):
            size = (matrix.abs() * (scale[..., :, None] * scale[..., None, :])).amax(-1)
            scale = scale / torch.where(size > 0, size, 1.0).sqrt()
        factor, pivots, _ = torch.linalg.ldl_factor_ex(matrix * (scale[..., :, None] * scale[..., None, :]))
        empty = matrix[..., :0]
        plain = cls(factor, pivots, scale, empty[..., :0, :], _negative_pivots(factor, pivots), empty)
        if matrix.numel() == 0 or bool((plain.smallest_singular_value() > SINGULAR).all()):
            return plain
        return plain._generalized(matrix, leading)

    def _generalized(self, matrix: Tensor, leading: int) -> "SymmetricFactor":
        """Return the factor with generalized inverses, by eigendecomposition with scales that keep the metric."""
        scale = _block_scale(matrix, leading)
        values, vectors = torch.linalg.eigh(matrix * (scale[..., :, None] * scale[..., None, :]))
        null = values.abs() <= NULL * values.abs().amax(-1, keepdim=True)
        reciprocal = torch.where(null, 0.0, 1.0 / torch.where(null, 1.0, values))
        scaled = scale[..., None] * vectors
        inverse = (scaled * reciprocal[..., None, :]) @ scaled.mT
        return replace(self, inverse=inverse, negative=((values < 0) & ~null).sum(-1), kernel=_gathered(scaled, null))

    def select(self, index: Tensor) -> "SymmetricFactor":
        """Return the factors of the matrices in ``index``."""
        return SymmetricFactor(*(getattr(self, field.name)[index] for field in fields(self)))

    def solve(self, rhs: Tensor) -> Tensor:
        """Return ``K^{-1} rhs`` for ``rhs`` (batch, N, k), of least norm where ``K`` is singular."""
        if self.inverse.shape[-1]:
            return self.inverse @ rhs
        scale = self.scale[..., None]
        solved: Tensor = torch.linalg.ldl_solve(self.factor, self.pivots, scale * rhs)
        return scale * solved

    def smallest_singular_value(self) -> Tensor:
        """Return an estimate, from above, of the smallest singular value of each ``D K D``, (batch,).

        Two steps of inverse iteration from a few fixed directions; the largest singular value is about one. Zero where
        the factor is exactly singular.
        """
        size = self.scale.shape[-1]
        if size == 0:
            return torch.ones_like(self.scale.sum(-1))
        probes = _probes(size, self.scale)
        probes = probes.expand(*self.scale.shape, probes.shape[-1])
        for _ in range(3):
            probes = probes / torch.linalg.vector_norm(probes, dim=-2, keepdim=True).clamp_min(1e-300)
            probes = torch.linalg.ldl_solve(self.factor, self.pivots, probes)
        growth = torch.linalg.vector_norm(probes, dim=-2).amax(-1)
        return torch.where(growth.isfinite() & (growth > 0), 1.0 / growth, 0.0)


def _block_scale(matrix: Tensor, leading: int) -> Tensor:
    """Return the scale that makes the leading block of size one and the rows below it of length one, (batch, N).

    One factor for the whole leading block: a norm of its unknowns keeps its meaning.
    """
    if leading == 0:
        return matrix.new_ones(matrix.shape[:-1])
    size = matrix[..., :leading, :leading].abs().flatten(-2).amax(-1)
    common = torch.where(size > 0, size, 1.0).rsqrt()[..., None]
    lengths = torch.linalg.vector_norm(matrix[..., leading:, :leading], dim=-1) * common
    below = torch.where(lengths > 0, 1.0 / torch.where(lengths > 0, lengths, 1.0), 1.0)
    return torch.cat([common.expand(*common.shape[:-1], leading), below], dim=-1)


def _gathered(vectors: Tensor, wanted: Tensor) -> Tensor:
    """Return the columns that are wanted, of length one, padded with zeros to the largest count of the batch."""
    count = int(wanted.sum(-1).max())
    order = torch.argsort(wanted.to(torch.int8), dim=-1, descending=True, stable=True)[..., None, :count]
    columns = vectors.gather(-1, order.expand(*vectors.shape[:-1], count))
    length = torch.linalg.vector_norm(columns, dim=-2, keepdim=True).clamp_min(1e-300)
    return torch.where(wanted[..., None, :].gather(-1, order), columns / length, 0.0)


def _negative_pivots(factor: Tensor, pivots: Tensor) -> Tensor:
    """Return how many eigenvalues of each factorised matrix are negative, (batch,): Sylvester's law of inertia.

    A 2 x 2 pivot of the Bunch-Kaufman factorisation has one eigenvalue of each sign.
    """
    single = pivots > 0
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    return (single & (diagonal < 0)).sum(-1) + (~single).sum(-1) // 2


def _probes(size: int, like: Tensor) -> Tensor:
    index = torch.arange(1, size + 1, dtype=like.dtype, device=like.device)
    return torch.stack([torch.ones_like(index), torch.cos(1.618 * index), torch.sin(2.718 * index + 1.0)], dim=-1)
