"""The kernels of robust pooling of vectors as functions of tensors."""

from typing import Any

import torch
from torch import Tensor

from ._pools import Pools, given

MOST_CHANNELS = 128
"""Channels of a vector; their products are kept on the chip."""
PART = 1024
"""Points that one program has, a power of two."""
AREA = 8192
"""Entries of a block of vectors."""


class VectorKernels:
    """Functions of pools of vectors (rows, m, n); the protocol of the structure's owner says what they return."""

    def look(self, pools: Pools, u: Tensor, hessian: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Sum over parts of the points, and over the parts."""
        from . import _vector_kernels as kernels

        rows, m, n = pools.x.shape
        grid = rows, -(-n // PART)
        sums, pulls = (torch.empty(*grid, size, device=u.device) for size in (2, m))
        products = torch.empty(*grid, m, m, device=u.device) if hessian else sums
        outputs, options = (sums, pulls, products), _options(pools)
        u = u.float().contiguous()
        kernels.look[grid](*given(pools), u, *outputs, pools.shape, m, n, HESSIAN=hessian, **options)
        value, mass = sums.sum(1).unbind(-1)
        return value, mass, pulls.sum(1), products.sum(1) if hessian else None

    def pull_vectors(
        self, pools: Pools, u: Tensor, v: Tensor, usable: Tensor, wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Write the gradients in one pass."""
        from . import _vector_kernels as kernels

        rows, m, n = pools.x.shape
        grid = rows, -(-n // PART)
        points, alphas = torch.empty_like(pools.x), torch.empty(*grid, device=u.device)
        weights = points.new_empty(rows, n) if wanted else None
        vectors = (part.float().contiguous() for part in (u, v, usable))
        outputs, options = (points, points if weights is None else weights, alphas), _options(pools)
        kernels.pull[grid](*given(pools), *vectors, *outputs, pools.shape, m, n, WEIGHTS=wanted, **options)
        return points, weights, alphas.sum(1)


def _options(pools: Pools) -> dict[str, Any]:
    """Return the penalty, the sizes of a block and the warps of a launch."""
    import triton

    _, m, n = pools.x.shape
    channels = max(16, triton.next_power_of_2(m))
    block = max(16, min(AREA // channels, triton.next_power_of_2(n), 128, PART))
    sizes = {"PART": PART, "CHANNELS": channels, "BLOCK": block, "num_warps": 8 if channels > 64 else 4}
    return {"PENALTY": pools.penalty, "WEIGHTED": pools.weights is not None, **sizes}
