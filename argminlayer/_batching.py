"""Folding a dimension mapped by ``torch.vmap`` into the leading batch of a node's tensors."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ._layout import Layout


def widen(tensor: Tensor, dim: int | None, size: int, repeat: int | None = None) -> Tensor:
    """Return a tensor with the mapped dimension folded into its leading batch, repeated ``repeat`` times if shared."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    if repeat is not None:
        moved = moved[:, None].expand(size, repeat, *moved.shape[1:])
    return moved.reshape(moved.shape[0] * moved.shape[1], *moved.shape[2:])


def widen_parameters(
    layout: Layout, parameters: Sequence[Tensor], dims: Sequence[int | None], size: int
) -> tuple[Layout, list[Tensor]]:
    """Return the layout of the wider batch and the parameters prepared for it; what all share is shared still."""
    pairs = list(zip(parameters, dims, layout.shared, strict=True))
    wide = [t if s and d is None else widen(t, d, size, layout.batch if s else None) for t, d, s in pairs]
    shared = tuple(s and d is None for _, d, s in pairs)
    return replace(layout, batch_shape=torch.Size((size, *layout.batch_shape)), shared=shared), wide


def unfold(tensor: Tensor, size: int, batch: int) -> Tensor:
    """Return a tensor whose leading batch was widened with the mapped dimension in front again."""
    return tensor.reshape(size, batch, *tensor.shape[1:])
