"""Symmetric indefinite linear systems, batched: factorise once, solve often, differentiate, and know the inertia."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SINGULAR = 1e-11
"""An equilibrated matrix whose smallest singular value is estimated below this is called singular."""


@dataclass(frozen=True)
class SymmetricFactor:
    """``D K D = L B L'`` (Bunch and Kaufman) of a batch of symmetric matrices, ``D`` chosen so that rows have size 1.

    Bunch-Kaufman rather than LU: half the work, the inertia for free, and torch's batched LU can hang on a CPU.

    Attributes:
        factor: packed ``L`` and ``B``, (batch, N, N).
        pivots: as LAPACK's sytrf returns them, (batch, N).
        scale: diagonal of ``D``, (batch, N).
    """

    factor: Tensor
    pivots: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> "SymmetricFactor":
        """Factorise ``matrix`` (batch, N, N), of which both triangles are given."""
        scale = torch.ones_like(matrix[..., 0])
        for _ in range(3):
            size = (matrix.abs() * (scale[..., :, None] * scale[..., None, :])).amax(-1)
            scale = scale / torch.where(size > 0, size, 1.0).sqrt()
        scaled = matrix * (scale[..., :, None] * scale[..., None, :])
        factor, pivots, _ = torch.linalg.ldl_factor_ex(torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0))
        return cls(factor, pivots, scale)

    def solve(self, rhs: Tensor) -> Tensor:
        """Return ``K^{-1} rhs`` for ``rhs`` (batch, N, k); infinite or NaN where ``K`` is exactly singular."""
        scale = self.scale[..., None]
        solved: Tensor = torch.linalg.ldl_solve(self.factor, self.pivots, scale * rhs)
        return scale * solved

    def negative_eigenvalues(self) -> Tensor:
        """Return how many eigenvalues of each matrix are negative, (batch,): Sylvester's law of inertia.

        A 2 x 2 pivot of the Bunch-Kaufman factorisation has one eigenvalue of each sign.
        """
        single = self.pivots > 0
        diagonal = self.factor.diagonal(dim1=-2, dim2=-1)
        return (single & (diagonal < 0)).sum(-1) + (~single).sum(-1) // 2

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


def _probes(size: int, like: Tensor) -> Tensor:
    index = torch.arange(1, size + 1, dtype=like.dtype, device=like.device)
    return torch.stack([torch.ones_like(index), torch.cos(1.618 * index), torch.sin(2.718 * index + 1.0)], dim=-1)


class _SymmetricSolve(torch.autograd.Function):
    """``x = K^{-1} b`` for symmetric ``K`` with a factor at hand.

    ``b_bar = K^{-1} x_bar``, ``K_bar = -b_bar x'``, and ``x_dot = K^{-1} (b_dot - K_dot x)``.
    """

    @staticmethod
    def forward(factor: Tensor, pivots: Tensor, scale: Tensor, matrix: Tensor, rhs: Tensor) -> Tensor:
        return SymmetricFactor(factor, pivots, scale).solve(rhs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4], output)
        ctx.save_for_forward(*inputs[:4], output)

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor) -> tuple[Tensor | None, ...]:
        factor, pivots, scale, matrix, x = ctx.saved_tensors
        b_bar = _apply_solve(factor, pivots, scale, matrix, x_bar)
        return None, None, None, -b_bar @ x.mT if ctx.needs_input_grad[3] else None, b_bar

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        factor, pivots, scale, matrix, x = ctx.saved_tensors
        matrix_dot, rhs_dot = tangents[3:]
        moved = torch.zeros_like(x) if rhs_dot is None else rhs_dot
        if matrix_dot is not None:
            moved = moved - matrix_dot @ x
        return _apply_solve(factor, pivots, scale, matrix, moved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        *lhs, rhs = inputs
        dim = in_dims[4]
        if dim is not None and all(other is None for other in in_dims[:4]):
            columns = rhs.movedim(dim, -1)
            flat = _apply_solve(*lhs, columns.flatten(-2))
            return flat.reshape(columns.shape), columns.ndim - 1
        moved = [
            tensor.movedim(dim, 0) if dim is not None else tensor.expand(info.batch_size, *tensor.shape)
            for tensor, dim in zip(inputs, in_dims, strict=True)
        ]
        flat = _apply_solve(*(tensor.flatten(0, 1) for tensor in moved))
        return flat.reshape(moved[4].shape), 0


def _apply_solve(*inputs: Tensor) -> Tensor:
    solved: Tensor = _SymmetricSolve.apply(*inputs)  # type: ignore[no-untyped-call]
    return solved


def symmetric_solve(factor: SymmetricFactor, matrix: Tensor, rhs: Tensor) -> Tensor:
    """Return ``matrix^{-1} rhs`` through its factor, differentiable any number of times in both.

    Args:
        factor: the factor of ``matrix``.
        matrix: symmetric, (batch, N, N).
        rhs: (batch, N).
    """
    solved = _apply_solve(factor.factor, factor.pivots, factor.scale, matrix, rhs[..., None])
    return solved[..., 0]
