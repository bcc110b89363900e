"""Cones of squares: nonnegative numbers, second-order cones and semidefinite matrices, by eigenvalues.

A vector v has eigenvalues and eigenvectors: its entries; ``t - |x|`` and ``t + |x|`` with ``(1, +-x/|x|)``; those of
the matrix. The projection keeps the eigenvectors and takes the positive parts of the eigenvalues. Its derivative is
diagonal in a basis of pairs of eigenvectors, with the divided differences of ``max(., 0)`` for entries,

    d_ij = (p_i + p_j) / (p_i + p_j + n_i + n_j),     p = max(lambda, 0),  n = max(-lambda, 0),

one where both eigenvalues are positive, zero where both are negative, and undetermined where both vanish.

Reference: Malick and Sendov, *Clarke generalized Jacobian of the projection onto the cone of positive semidefinite
matrices*, 2006; Kanzow, Ferenczi and Fukushima, *On the local convergence of semismooth Newton methods for linear and
nonlinear second-order cone programs*, 2009.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = math.sqrt(0.5)


class Slopes(NamedTuple):
    """Eigenvalues d of the derivative of a projection, and what they leave of one.

    Attributes:
        kept: d.
        lost: 1 - d, computed without cancellation.
        weak: where d is undetermined; there ``kept`` and ``lost`` are zero.
    """

    kept: Tensor
    lost: Tensor
    weak: Tensor


def slopes(one: Tensor, other: Tensor, near: Tensor) -> Slopes:
    """Return the divided differences of ``max(., 0)`` for pairs of eigenvalues; those within ``near`` vanish."""
    p = torch.where(one > near, one, 0.0) + torch.where(other > near, other, 0.0)
    n = torch.where(one < -near, -one, 0.0) + torch.where(other < -near, -other, 0.0)
    total = p + n
    weak = total == 0
    total = torch.where(weak, 1.0, total)
    return Slopes(p / total, n / total, weak)


class SecondOrder:
    """Second-order cones at points v (batch, count, size): |x| <= t for (t, x) = v."""

    def __init__(self, v: Tensor):
        self.t, self.x = v[..., 0], v[..., 1:]
        self.length = torch.linalg.vector_norm(self.x, dim=-1)
        self.size = v.shape[-1]
        safe = torch.where(self.length > 0, self.length, 1.0)
        self.unit = self.x / safe[..., None]
        if self.size > 1:
            # any direction serves where x vanishes
            at_zero = (self.length == 0)[..., None]
            first = torch.zeros_like(self.unit)
            first[..., 0] = 1.0
            self.unit = torch.where(at_zero, first, self.unit)

    def project(self) -> Tensor:
        """Return the projections, (batch, count, size)."""
        high, low = self.t + self.length, self.t - self.length
        outside = 0.5 * high.clamp_min(0.0)
        inside = low >= 0
        t = torch.where(inside, self.t, outside)
        return torch.cat([t[..., None], torch.where(inside[..., None], self.x, outside[..., None] * self.unit)], -1)

    def slopes(self, near: Tensor) -> Slopes:
        """Return the eigenvalues of the derivative in the basis of :meth:`rotate`, (batch, count, size)."""
        high, low = self.t + self.length, self.t - self.length
        near = near[:, None, None]
        if self.size == 1:
            return slopes(self.t[..., None], self.t[..., None], near)
        first = torch.stack([high, low], -1)
        second = torch.stack([high, low], -1)
        if self.size > 2:
            wide = (*high.shape, self.size - 2)
            first = torch.cat([first, high[..., None].expand(wide)], -1)
            second = torch.cat([second, low[..., None].expand(wide)], -1)
        return slopes(first, second, near)

    def margins(self) -> Tensor:
        """Return the sizes of the eigenvalues, (batch, 2 count)."""
        eigenvalues: Tensor = torch.cat([self.t + self.length, self.t - self.length], 1)
        return eigenvalues.abs()

    def rotate(self, values: Tensor) -> Tensor:
        """Return Q'V for (batch, count, size, c): along both eigenvectors, then across them."""
        if self.size == 1:
            return values
        t, x = values[..., :1, :], self._reflect(values[..., 1:, :])
        along = x[..., :1, :]
        return torch.cat([ROOT * (t + along), ROOT * (t - along), x[..., 1:, :]], -2)

    def back(self, values: Tensor) -> Tensor:
        """Return QV, the inverse of :meth:`rotate`."""
        if self.size == 1:
            return values
        high, low = values[..., :1, :], values[..., 1:2, :]
        x = self._reflect(torch.cat([ROOT * (high - low), values[..., 2:, :]], -2))
        return torch.cat([ROOT * (high + low), x], -2)

    def _reflect(self, x: Tensor) -> Tensor:
        """Apply the reflection that exchanges the direction of x and the first axis."""
        sign = torch.where(self.unit[..., :1] > 0, -1.0, 1.0)
        # unit - (+-first axis), whichever does not cancel
        normal = torch.cat([self.unit[..., :1] - sign, self.unit[..., 1:]], -1)
        normal = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
        sign = sign[..., None]
        mirrored: Tensor = sign * (x - 2.0 * normal[..., None] * (normal[..., None, :] @ x))
        return mirrored

    def bend(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the second derivative of the projection along a and b, (batch, count, size)."""
        bends = (self.length > self.t.abs()) & (self.length > 0)
        r = torch.where(bends, self.length, 1.0)
        u, ratio = self.unit, self.t / r
        a0, a1, b0, b1 = a[..., 0], a[..., 1:], b[..., 0], b[..., 1:]
        along_a, along_b = (u * a1).sum(-1), (u * b1).sum(-1)
        turn = (b1 - along_b[..., None] * u) / r[..., None]
        change = (b0 - ratio * along_b) / r
        across = (turn * a1).sum(-1)
        x = (
            turn * (a0 - ratio * along_a)[..., None]
            + change[..., None] * (a1 - along_a[..., None] * u)
            - (ratio * across)[..., None] * u
        )
        bent: Tensor = 0.5 * torch.where(bends[..., None], torch.cat([across[..., None], x], -1), 0.0)
        return bent


class Semidefinite:
    """Semidefinite cones at points v (batch, count, k(k+1)/2), triangles of symmetric matrices."""

    def __init__(self, v: Tensor, side: int):
        self.side = side
        self.values, self.vectors = torch.linalg.eigh(matrices(v, side))

    def project(self) -> Tensor:
        """Return the projections, (batch, count, k(k+1)/2)."""
        scaled = self.vectors * self.values.clamp_min(0.0)[..., None, :]
        return triangles(scaled @ self.vectors.mT)

    def slopes(self, near: Tensor) -> Slopes:
        """Return the eigenvalues of the derivative in the basis of :meth:`rotate`, (batch, count, k(k+1)/2)."""
        rows, columns, _ = _triangle(self.side)
        return slopes(self.values[..., rows], self.values[..., columns], near[:, None, None])

    def margins(self) -> Tensor:
        """Return the sizes of the eigenvalues, (batch, k count)."""
        sizes: Tensor = self.values.abs().flatten(1)
        return sizes

    def rotate(self, values: Tensor) -> Tensor:
        """Return Q'V for (batch, count, k(k+1)/2, c): ``U'M U`` of the matrices M in the columns."""
        wide = self.vectors[..., None, :, :]
        return triangles(wide.mT @ matrices(values.mT, self.side) @ wide).mT

    def back(self, values: Tensor) -> Tensor:
        """Return QV, the inverse of :meth:`rotate`."""
        wide = self.vectors[..., None, :, :]
        return triangles(wide @ matrices(values.mT, self.side) @ wide.mT).mT

    def bend(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the second derivative of the projection along a and b, by second divided differences."""
        U = self.vectors
        H, E = (U.mT @ matrices(part, self.side) @ U for part in (a, b))
        inner = torch.einsum("...ikj,...ik,...kj->...ij", self._second_differences(), H, E)
        return triangles(U @ (inner + inner.mT) @ U.mT)

    def _second_differences(self) -> Tensor:
        """Return the second divided differences of ``max(., 0)`` at eigenvalues i, k and j, (batch, count, k, k, k).

        With ``share_ac = 1 / (p_a + n_c)`` for a above and c below zero, and zero else, they are ``n_c share_ac
        share_bc`` for a and b above and c below, and ``p_a share_ab share_ac`` for a above and b and c below.
        """
        p, n = self.values.clamp_min(0.0), (-self.values).clamp_min(0.0)
        mixed = (p[..., :, None] > 0) & (n[..., None, :] > 0)
        gap = p[..., :, None] + n[..., None, :]
        share = torch.where(mixed, 1.0 / torch.where(mixed, gap, 1.0), 0.0)
        down, up = share * n[..., None, :], share * p[..., :, None]
        below = ("ij,kj", "ik,jk", "ki,ji")
        above = ("ji,jk", "ki,kj", "ik,ij")
        terms = [_outer(places, share, down) for places in below] + [_outer(places, share, up) for places in above]
        total: Tensor = torch.stack(terms).sum(0)
        return total


def _outer(places: str, one: Tensor, other: Tensor) -> Tensor:
    first, second = places.split(",")
    return torch.einsum(f"...{first},...{second}->...ikj", one, other)


@functools.lru_cache(maxsize=64)
def _triangle(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, columns and weights of the lower triangle of a matrix, by columns."""
    columns, rows = torch.triu_indices(side, side)
    weights = torch.full(rows.shape, math.sqrt(2.0), dtype=torch.float64)
    return rows, columns, weights.masked_fill_(rows == columns, 1.0)


@functools.lru_cache(maxsize=64)
def _places(side: int) -> tuple[Tensor, Tensor]:
    """Return for every entry of a matrix its place in the triangle, and what its entry there is divided by."""
    rows, columns, weights = _triangle(side)
    place = torch.empty(side, side, dtype=torch.int64)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows))
    return place.flatten(), weights[place]


def matrices(v: Tensor, side: int) -> Tensor:
    """Return the symmetric matrices (..., k, k) of vectors (..., k(k+1)/2)."""
    place, weights = _places(side)
    return v[..., place].reshape(*v.shape[:-1], side, side) / weights


def triangles(symmetric: Tensor) -> Tensor:
    """Return the vectors (..., k(k+1)/2) of symmetric matrices (..., k, k)."""
    rows, columns, weights = _triangle(symmetric.shape[-1])
    return symmetric[..., rows, columns] * weights
