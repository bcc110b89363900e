"""Cone and ball of matrices whose projections act on eigenvalues and singular values."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._function import AbstractClosedForm, AbstractSelfAdjoint, Cotangents
from ._lp import LpSet
from ._set import checked


def spectral_derivative(vectors: Tensor, values: Tensor, mapped: Tensor, slopes: Tensor, dx: Tensor) -> Tensor:
    """Return the derivative of ``V diag(f(s)) V'`` along a symmetric ``dx`` (..., n, n).

    The formula of Daleckii and Krein: divided differences of f, its slope where eigenvalues coincide, multiply dx in
    the basis of the eigenvectors. It is finite for repeated eigenvalues, and symmetric.

    Args:
        vectors: V.
        values: s, (..., n).
        mapped: f(s).
        slopes: f'(s), one-sided at kinks.
        dx: the direction.
    """
    gap = values.unsqueeze(-1) - values.unsqueeze(-2)
    close = gap.abs() <= 1e-12 * values.abs().amax(-1, keepdim=True).unsqueeze(-1)
    mean = 0.5 * (slopes.unsqueeze(-1) + slopes.unsqueeze(-2))
    divided = (mapped.unsqueeze(-1) - mapped.unsqueeze(-2)) / torch.where(close, 1.0, gap)
    return vectors @ (torch.where(close, mean, divided) * (vectors.mT @ dx @ vectors)) @ vectors.mT


@dataclass(frozen=True)
class SemidefiniteSet(AbstractSelfAdjoint):
    """Symmetric matrices without negative eigenvalues. Parameters: x (n,n), of which the symmetric part counts."""

    name: ClassVar[str] = "semidefinite"
    cores = (2,)
    signature = "(n,n)->(n,n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """Symmetry, and no negative entry on the diagonal in the basis of the eigenvectors of x."""
        return {"equality": _skew, "inequality": _negative_diagonal}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., n, n), computed in float64, and an empty state."""
        good = _finite(x)
        values, vectors = torch.linalg.eigh(_symmetric(torch.where(good, x, 0.0).double()))
        y = (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
        y = checked(y, good[..., 0, 0], throw, "its points must be finite")
        return y.to(x.dtype), torch.ones_like(x[..., 0, :1])

    def along(self, dx: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the derivative along dx, that of the nearest matrix to the symmetric parts."""
        del y
        good = _finite(x)
        values, vectors = torch.linalg.eigh(_symmetric(torch.where(good, x, 0.0).double()))
        slopes = (values > 0).double()
        moved = spectral_derivative(vectors, values, values.clamp_min(0.0), slopes, _symmetric(dx.double()))
        return torch.where(good, moved, torch.nan).to(dx.dtype)


def _finite(x: Tensor) -> Tensor:
    """Return which matrices are finite, (..., 1, 1)."""
    return x.detach().isfinite().all(-1, keepdim=True).all(-2, keepdim=True)


def _symmetric(x: Tensor) -> Tensor:
    return 0.5 * (x + x.mT)


def _skew(u: Tensor, x: Tensor) -> Tensor:
    row, column = torch.triu_indices(x.shape[0], x.shape[0], offset=1, device=x.device)
    return (u - u.mT)[row, column]


def _negative_diagonal(u: Tensor, x: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(_symmetric(x))[1]
    return -(vectors * (u @ vectors)).sum(0)


@dataclass(frozen=True)
class NuclearBallSet(AbstractClosedForm):
    """Matrices whose singular values sum to at most r. Parameters: x (m,n), r ()."""

    name: ClassVar[str] = "nuclear-ball"
    cores = (2, 0)
    signature = "(m,n),()->(m,n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """The simplex of the diagonal, in the basis of the singular vectors of x."""
        return {"inequality": _diagonal_of_the_ball}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., m, n), computed in float64, and which are on the surface (..., 1)."""
        r = parameters[0].double()
        good = _finite(x)[..., 0, 0] & r.isfinite() & (r >= 0)
        left, values, right = torch.linalg.svd(torch.where(_finite(x), x, 0.0).double(), full_matrices=False)
        short = LpSet(1.0, "ball").project(values, torch.where(good, r, 1.0), throw=False)
        inside = (values.sum(-1) < r)[..., None, None]
        y = torch.where(inside, x.double(), (left * short.unsqueeze(-2)) @ right)
        why = "its points must be finite, and its radius not negative"
        return checked(y, good, throw, why).to(x.dtype), (~inside[..., 0]).to(x.dtype)

    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Cotangents:
        """Pull a cotangent back to x and r."""
        moved, mean, _ = self._derivative(g, state, x, parameters[0])
        return moved, mean

    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push tangents of x and r forward."""
        dx = torch.zeros_like(y) if tangents[0] is None else tangents[0]
        moved, _, facet = self._derivative(dx, state, x, parameters[0])
        return moved if tangents[1] is None else moved + tangents[1][..., None, None] * facet

    def _derivative(self, dx: Tensor, state: Tensor, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the derivative along dx, its share that a moving threshold takes, and the derivative in r.

        Singular values are eigenvalues of ``[[0, x], [x', 0]]``, in pairs of either sign.
        """
        m, n = x.shape[-2:]
        good, held = _finite(x), state.double()
        wide = torch.where(good, x, 0.0).double()
        block = torch.zeros((*wide.shape[:-2], m + n, m + n), dtype=wide.dtype, device=wide.device)
        dilated = _off_diagonal(block, wide)
        values, vectors = torch.linalg.eigh(dilated)
        singular = torch.linalg.svdvals(wide)
        short = LpSet(1.0, "ball").project(singular, r.double(), throw=False)
        threshold = (singular - short).amax(-1, keepdim=True)
        mapped = values.sign() * (values.abs() - threshold).clamp_min(0.0)
        active = (mapped != 0).double()
        along = spectral_derivative(vectors, values, mapped, active, _off_diagonal(block, dx.double()))
        count = (0.5 * active.sum(-1)).clamp_min(1.0)[..., None, None]
        facet = (vectors * mapped.sign().unsqueeze(-2) @ vectors.mT)[..., :m, m:] / count
        mean = (facet * dx).sum((-2, -1), keepdim=True)
        moved = torch.where(held.unsqueeze(-1) > 0, along[..., :m, m:] - mean * facet * count, dx)
        moved = torch.where(good, moved, torch.nan)
        mean = mean * held.unsqueeze(-1)
        return moved.to(dx.dtype), mean[..., 0, 0].to(dx.dtype), (facet * held.unsqueeze(-1)).to(dx.dtype)


def _off_diagonal(block: Tensor, x: Tensor) -> Tensor:
    m = x.shape[-2]
    rows = torch.cat([block[..., :m, :m], x], dim=-1)
    return torch.cat([rows, torch.cat([x.mT, block[..., m:, m:]], dim=-1)], dim=-2)


def _diagonal_of_the_ball(u: Tensor, x: Tensor, r: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    diagonal = (left * (u @ right.mT)).sum(0)
    return torch.cat([-diagonal, (diagonal.sum() - r)[None]])


@dataclass(frozen=True)
class RotationSet(AbstractSelfAdjoint):
    """Rotations: ``u'u = 1, det u = 1``. Parameters: x (n,n)."""

    name: ClassVar[str] = "rotation"
    cores = (2,)
    signature = "(n,n)->(n,n)"

    @property
    def conditions(self) -> dict[str, Any]:
        """Orthogonal columns; solvers begin at a rotation, and stay on its side of the two."""
        return {"equality": _not_orthogonal, "start": _rotation_by_elimination}

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest rotations (..., n, n), computed in float64, and an empty state."""
        good = _finite(x)
        left, _, right = _signed_svd(torch.where(good, x, 0.0).double())
        y = checked(left @ right, good[..., 0, 0], throw, "its points must be finite")
        return y.to(x.dtype), torch.ones_like(x[..., 0, :1])

    def along(self, dx: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the derivative along dx, zero in directions in which the nearest rotation is not unique."""
        del y
        good = _finite(x)
        left, values, right = _signed_svd(torch.where(good, x, 0.0).double())
        turned = left.mT @ dx.double() @ right.mT
        sums = values.unsqueeze(-1) + values.unsqueeze(-2)
        unique = sums > 1e-12 * values[..., :1].unsqueeze(-1)
        turn = torch.where(unique, (turned - turned.mT) / torch.where(unique, sums, 1.0), 0.0)
        return torch.where(good, left @ turn @ right, torch.nan).to(dx.dtype)


def _signed_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``x = U diag(s) V'`` with ``det U V' = 1``; the last of the s may be negative."""
    left, values, right = torch.linalg.svd(x)
    sign = torch.where(torch.linalg.det((left @ right).detach()) < 0, -1.0, 1.0).to(x.dtype)
    last = torch.nn.functional.one_hot(torch.tensor(x.shape[-1] - 1, device=x.device), x.shape[-1]).to(x.dtype)
    flip = 1.0 + (sign.unsqueeze(-1) - 1.0) * last
    return left * flip.unsqueeze(-2), values * flip, right


def _not_orthogonal(u: Tensor, x: Tensor) -> Tensor:
    row, column = torch.triu_indices(x.shape[0], x.shape[0], device=x.device)
    return (u.mT @ u - torch.eye(x.shape[0], dtype=u.dtype, device=u.device))[row, column]


def _rotation_by_elimination(x: Tensor) -> Tensor:
    """Return the rotation of the QR decomposition, a point of the set that is not yet the nearest."""
    factors = torch.linalg.qr(x)
    r: Tensor = factors.R
    q: Tensor = factors.Q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(x.dtype)
    last = torch.nn.functional.one_hot(torch.tensor(x.shape[-1] - 1, device=x.device), x.shape[-1]).to(x.dtype)
    sign: Tensor = torch.linalg.det(q).sign()
    return q * (1.0 + (sign - 1.0) * last)
