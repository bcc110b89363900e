"""The Birkhoff polytope: matrices without negative entries whose rows and columns sum to one."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._function import AbstractSelfAdjoint
from ._set import checked

STEPS = 100
"""Newton steps at most, at each scale; 5 to 15 are usual."""
FAR = 36
"""Entries above ``2^FAR`` are scaled down: the nearest point has long been the best permutation, or a mean of some."""
LINE_SEARCH = 8
"""Quarterings of a step before it is given up for the half-steps alone."""


@dataclass(frozen=True)
class BirkhoffSet(AbstractSelfAdjoint):
    """``u >= 0, u 1 = 1, u' 1 = 1``. Parameters: x (n,n).

    The nearest point is ``max(x + a 1' + 1 b', 0)``, where a and b solve the dual, a concave and piecewise quadratic
    problem without constraints: half-steps that are exact in a and in b alternate with steps of Newton's method.
    """

    name: ClassVar[str] = "birkhoff"
    cores = (2,)
    signature = "(n,n)->(n,n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """Sums of rows and columns, one of which says nothing new and is left out, and bounds."""
        return {"equality": _sums, "lower": 0.0, "start": _uniform}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., n, n), computed in float64, and an empty state."""
        n = x.shape[-1]
        good = x.isfinite().all((-2, -1)).reshape(-1)
        wide = torch.where(good[:, None, None], x.reshape(-1, n, n), 0.0).double()
        exponent = torch.frexp(wide.abs().amax((-2, -1), keepdim=True)).exponent.double()
        y, missing = _newton(wide * torch.exp2((FAR - exponent).clamp_max(0.0)))
        good = good & (missing <= 1e-9)
        why = "its points must be finite, and of a size that float64 resolves beside one"
        y = checked(y.reshape(x.shape), good.reshape(x.shape[:-2]), throw, why)
        return y.to(x.dtype), torch.ones_like(x[..., 0, :1])

    def along(self, dx: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the nearest to dx of the matrices on the support of y whose sums are zero."""
        del x
        support = (y > 0).double()
        size = y.shape[-1]
        inner = support * dx.double()
        shift = _solve(_counts(support), torch.cat([inner.sum(-1), inner.sum(-2)], dim=-1))
        return (support * (inner - shift[..., :size, None] - shift[..., None, size:])).to(dx.dtype)


def _newton(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest points of (b, n, n), and how far their sums are from one, (b,).

    Large entries make the dual nearly piecewise linear: it is solved for entries divided by powers of four first.
    """
    b = torch.zeros_like(x[:, 0])
    levels = max(0, math.ceil(math.log(max(1.0, float(x.abs().amax())), 4.0))) if x.numel() else 0
    for level in range(levels, -1, -1):
        y, missing, b = _ascend(x / 4.0**level, 4.0 * b if level < levels else b)
    return y, missing


def _ascend(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest points, how far their sums are from one, and the dual of the columns, beginning with b."""
    for _ in range(STEPS):
        a = _threshold(x + b[:, None, :])
        b = _threshold((x + a[:, :, None]).mT)
        dual = torch.cat([a, b], dim=-1)
        y, slope, value = _dual(x, dual)
        missing = slope.abs().amax(-1)
        if bool((missing <= 1e-13 * (1.0 + x.abs().amax((-2, -1)))).all()):
            break
        step = _solve(_counts((y > 0).to(x.dtype)), slope)
        length = torch.ones_like(value)
        for _ in range(LINE_SEARCH):
            trial = dual + length[:, None] * step
            rises = _dual(x, trial)[2] >= value + 1e-4 * length * (slope * step).sum(-1)
            if bool(rises.all()):
                break
            length = torch.where(rises, length, 0.25 * length)
        b = torch.where(rises[:, None], trial, dual)[:, x.shape[-1] :]
    return y, missing, b


def _threshold(x: Tensor) -> Tensor:
    """Return the number that makes ``sum_j max(x_ij + a_i, 0) = 1`` for every row of (b, n, n): an exact half-step."""
    descending = x.sort(-1, descending=True).values
    counts = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    thresholds: Tensor = (descending.cumsum(-1) - 1.0) / counts
    return -thresholds.amax(-1)


def _dual(x: Tensor, dual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the primal point, gradient and value of the dual."""
    n = x.shape[-1]
    y = (x + dual[..., :n, None] + dual[..., None, n:]).clamp_min(0.0)
    slope = 1.0 - torch.cat([y.sum(-1), y.sum(-2)], dim=-1)
    return y, slope, dual.sum(-1) - 0.5 * y.square().sum((-2, -1))


def _counts(support: Tensor) -> Tensor:
    """Return the matrix of the dual's Newton steps: how many entries of the support rows and columns share."""
    rows = torch.cat([torch.diag_embed(support.sum(-1)), support], dim=-1)
    return torch.cat([rows, torch.cat([support.mT, torch.diag_embed(support.sum(-2))], dim=-1)], dim=-2)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution of least norm; rows without support move by themselves."""
    empty = (matrix.diagonal(dim1=-2, dim2=-1) == 0).to(matrix.dtype)
    filled = matrix + torch.diag_embed(empty)
    inverse: Tensor = torch.linalg.pinv(filled, hermitian=True, rtol=1e-12)
    return (inverse @ right.unsqueeze(-1)).squeeze(-1)


def _sums(u: Tensor, x: Tensor) -> Tensor:
    del x
    return torch.cat([u.sum(1) - 1.0, u.sum(0)[:-1] - 1.0])


def _uniform(x: Tensor) -> Tensor:
    return torch.full_like(x, 1.0 / x.shape[-1])
