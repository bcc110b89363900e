"""Points as rows of a matrix, worked through in blocks that stay in the processor's cache, each in a fit precision."""

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

import argminlayer as al

BLOCK, LEAST = 1 << 17, 1 << 14
"""Most and fewest entries of a block, for each thread: temporaries stay in the cache, and a call is worth its cost."""
PARTS = 5
"""A block is at most this part of all rows, so that temporaries are small beside them."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""``(x, y, r, w) -> state``: writes the nearest points of the rows of x (b, n) to y. The state (b, 1) is zero where a
row is inside the set and its own nearest point, positive where it is held to the surface, NaN where the row, its radius
or its weights cannot be used."""


def working(dtype: torch.dtype) -> torch.dtype:
    """Return the precision to compute in: that of the tensors, but float32 for shorter floats."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def slices(x: Tensor, parts: int = 1, most: int = BLOCK) -> Iterator[slice]:
    """Yield the blocks of the rows of ``x`` (B, n), at least ``parts`` of them where there is enough to do.

    No rows are one empty block; ``most`` are the entries of a block for each thread.
    """
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1 << 12
    rows, n = x.shape[0], max(1, x.shape[1])
    step = max(1, min(most * threads // n, max(LEAST * threads // n, -(-rows // parts))))
    return (slice(i, i + step) for i in range(0, max(1, rows), step))


def flat(x: Tensor, core: int = 1) -> Tensor:
    """Return ``x`` (..., *core) contiguous, with its leading dimensions flattened to one."""
    if x.ndim == core + 1:
        return x.contiguous()
    shape = x.shape[x.ndim - core :]
    return x.reshape(x.shape[: x.ndim - core].numel(), *shape).contiguous()


def column(parameter: Tensor, lead: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a scalar parameter with aligned leading dimensions as (1, 1) or (B, 1)."""
    if parameter.numel() == 1:
        return parameter.reshape(1, 1).to(dtype)
    return parameter.expand(lead).reshape(-1, 1).to(dtype)


def rowwise(weights: Tensor, lead: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a vector parameter with aligned leading dimensions as (1, n) or (B, n)."""
    n = weights.shape[-1]
    if weights.numel() == n:
        return weights.reshape(1, n).to(dtype)
    return weights.expand(*lead, n).reshape(-1, n).to(dtype)


Parameter = TypeVar("Parameter", Tensor, Tensor | None)


def own(parameter: Parameter, rows: slice | Tensor) -> Parameter:
    """Return a parameter's part for some rows: all of it where it is shared, or None."""
    return parameter if parameter is None or parameter.shape[0] == 1 else parameter[rows]


def extremes(values: Tensor) -> tuple[float, float]:
    """Return the least and the largest of some numbers."""
    if values.numel() == 1:
        only = float(values)
        return only, only
    least, largest = torch.aminmax(values)
    return float(least), float(largest)


def by_rows(
    kernel: Kernel, throw: bool, x: Tensor, r: Tensor, w: Tensor | None = None, *, parts: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the nearest points of rows, and their states.

    Args:
        kernel: of one block.
        throw: raise on rows that are not finite; otherwise they are NaN.
        x: (B, n).
        r: radii, (1, 1) or (B, 1).
        w: weights, (1, n) or (B, n), or None.
        parts: how many blocks at least, more for kernels with many temporaries; 1 for those that see to theirs.

    Raises:
        ProblemError: rows have no entries; or, with ``throw``, one is not finite, or its radius or weights are no use.
    """
    if x.shape[1] == 0:
        raise al.ProblemError("the points to project have no entries; give them at least one, or another `dim`")
    y, dtype = torch.empty_like(x), working(x.dtype)
    if not len(x):
        return y, x.new_zeros(0, 1)
    if parts == 1 and x.dtype == dtype:
        state = kernel(x, y, r, w)
    else:
        state = torch.cat([_one_block(kernel, x[i], y[i], own(r, i), own(w, i)) for i in slices(x, parts)])
    if not math.isfinite(float(state.sum())) and bool(state.isnan().any()):
        bad = state.isnan().flatten()
        if throw:
            raise al.ProblemError(
                f"row {int(bad.nonzero()[0])} of the points to project (in the flattened batch), its radius or its "
                "weights cannot be used: entries must be finite, radii not negative and weights positive; clean the "
                "inputs, or pass `throw=False` to get NaN for such rows only"
            )
        y[bad] = torch.nan
    return y, state


def _one_block(kernel: Kernel, x: Tensor, y: Tensor, r: Tensor, w: Tensor | None) -> Tensor:
    wide = x.to(working(x.dtype))
    found = y if wide.dtype == y.dtype else torch.empty_like(wide)
    state = kernel(wide, found, r, w)
    if found is not y:
        y.copy_(found)
    return state
