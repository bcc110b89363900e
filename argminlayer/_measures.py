"""Sizes of batched vectors and rows, with answers for those that are empty, zero or not finite."""

import torch
from torch import Tensor


def largest(*values: Tensor) -> Tensor:
    """Return the largest absolute entry of each instance of several (batch, ...) together, zero when there is none."""
    joined = torch.cat([v.abs() for v in values], dim=-1)
    return joined.amax(-1) if joined.shape[-1] else joined.sum(-1)


def smallest(*values: Tensor) -> Tensor:
    """Return the smallest entry of each instance of several (batch, r) together, infinite when there is none."""
    joined = torch.cat(values, dim=-1)
    return joined.amin(-1) if joined.shape[-1] else torch.full_like(joined.sum(-1), torch.inf)


def length(rows: Tensor) -> Tensor:
    """Return the length of each row, one for a row of zeros."""
    norm = torch.linalg.vector_norm(rows, dim=-1)
    return torch.where(norm > 0, norm, 1.0)


def finite(tensor: Tensor) -> Tensor:
    """Return the tensor with zeros where it is NaN or infinite."""
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return ``matrix @ vector`` for (batch, r, n) and (batch, n)."""
    return (matrix @ vector[..., None])[..., 0]
