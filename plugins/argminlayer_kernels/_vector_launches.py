"""The kernels of robust pooling of vectors as functions of tensors."""

from typing import Any

import torch
from torch import Tensor

MOST_CHANNELS = 128
"""Channels of a vector; their products are kept on the chip."""
PART = 1024
"""Points that one program has, a power of two."""
AREA = 8192
"""Entries of a block of vectors."""


class VectorKernels:
    """Points (rows, m, n), weights (rows, n) or None, alpha (rows,); the protocol says what each function returns."""

    def look(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        hessian: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Sum over parts of the points, and over the parts."""
        from . import _vector_kernels as kernels

        rows, m, n = x.shape
        grid, given = (rows, -(-n // PART)), _given(x, weights, alpha)
        sums, pulls = (torch.empty(*grid, size, device=x.device) for size in (2, m))
        products = torch.empty(*grid, m, m, device=x.device) if hessian else sums
        options = _options(x, weights, penalty)
        u = u.float().contiguous()
        kernels.look[grid](*given, u, sums, pulls, products, shape, m, n, HESSIAN=hessian, **options)
        value, mass = sums.sum(1).unbind(-1)
        return value, mass, pulls.sum(1), products.sum(1) if hessian else None

    def pull_vectors(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        v: Tensor,
        usable: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Write the gradients in one pass."""
        from . import _vector_kernels as kernels

        rows, m, n = x.shape
        grid, given = (rows, -(-n // PART)), _given(x, weights, alpha)
        points, alphas = torch.empty_like(x), torch.empty(*grid, device=x.device)
        counts = torch.empty(rows, n, dtype=x.dtype, device=x.device) if wanted else None
        vectors = (part.float().contiguous() for part in (u, v, usable))
        outputs = (points, points if counts is None else counts, alphas)
        kernels.pull[grid](*given, *vectors, *outputs, shape, m, n, WEIGHTS=wanted, **_options(x, weights, penalty))
        return points, counts, alphas.sum(1)


def _given(x: Tensor, weights: Tensor | None, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert x.is_contiguous()
    assert weights is None or weights.is_contiguous()
    return x, x if weights is None else weights, alpha.float().contiguous()


def _options(x: Tensor, weights: Tensor | None, penalty: str) -> dict[str, Any]:
    """Return the penalty, the sizes of a block and the warps of a launch for points like x (rows, m, n)."""
    import triton

    channels = max(16, triton.next_power_of_2(x.shape[1]))
    block = max(16, min(AREA // channels, triton.next_power_of_2(x.shape[2]), 128, PART))
    sizes = {"PART": PART, "CHANNELS": channels, "BLOCK": block, "num_warps": 8 if channels > 64 else 4}
    return {"PENALTY": penalty, "WEIGHTED": weights is not None, **sizes}
