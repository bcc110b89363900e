"""The KKT system of a cone program at its solution, factorised for a batch.

With the derivative ``Q diag(d) Q'`` of the projection at ``v = s - z``, small changes obey

    [ P        A'Q S ] [a]   [top        ]
    [ S Q'A   -diag(d) ] [f] = [S Q' bottom],     S = diag(sqrt(1 - d)),   dz = Q S f,   dx = a.

It is symmetric, and bounded for every d between 0 (a row that holds) and 1 (a row that may move freely, and drops out).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ._faces import Faces
from ._factor import Factor

AT_ONCE = 2**23
"""Numbers in the matrices of the instances that are factorised at once."""
MISSED = 1e-7
"""Part of a right-hand side, over its size, that a singular system may leave unsolved."""


class Steps(NamedTuple):
    """The solution of KKT systems.

    Attributes:
        a: of the variables, (batch, n, c).
        e: of the multipliers, (batch, m, c).
        missed: where the matrix is singular and the right-hand side out of its reach, (batch, c).
    """

    a: Tensor
    e: Tensor
    missed: Tensor


@dataclass(frozen=True, eq=False)
class System:
    """Factorised KKT matrices of a batch.

    Attributes:
        factor: of the matrices, their rows scaled.
        scale: by which rows and columns are multiplied, (batch, n + k).
        faces: the derivative of the projection.
        slant: S, (batch, m).
        place: which rows are kept, (batch, k).
        used: whether such a place is used, (batch, k).
        gamma: of every instance: multipliers are counted in this many units, (batch,).
        size: n.
    """

    factor: Factor
    scale: Tensor
    faces: Faces
    slant: Tensor
    place: Tensor
    used: Tensor
    gamma: Tensor
    size: int

    @classmethod
    def of(
        cls, P: Tensor | None, A: Tensor, faces: Faces, gamma: Tensor, weak_active: bool, shift: float = 0.0
    ) -> "System":
        """Assemble and factorise.

        Args:
            P: (1 or batch, n, n), None for zero.
            A: (1 or batch, m, n).
            faces: the derivative of the projection at ``s - gamma z``.
            gamma: (batch,).
            weak_active: whether rows that are weakly active hold.
            shift: what is added to the diagonal of P.
        """
        batch, m = faces.kept.shape
        n = A.shape[-1]
        kept, lost = decided(faces, weak_active)
        slant = lost.sqrt()
        holds = lost > 0
        k = int(holds.sum(1).max()) if holds.numel() else 0
        place = torch.argsort(holds.to(torch.int8), dim=1, descending=True, stable=True)[:, :k]
        used = holds.gather(1, place)
        rows = faces.rotate(A).expand(batch, m, n).gather(1, place[..., None].expand(batch, k, n))
        rows = rows * (slant.gather(1, place) * used)[..., None]
        diagonal = torch.where(used, kept.gather(1, place), 1.0)
        P = None if P is None else P * gamma[:, None, None]
        if shift:
            added = shift * gamma[:, None, None] * torch.eye(n, dtype=rows.dtype)
            P = added if P is None else P + added
        common, below = _scales(P, rows, diagonal)
        K = rows.new_zeros(batch, n + k, n + k)
        if P is not None:
            K[:, :n, :n] = P * (common * common)[:, None, None]
        rows = rows * (common[:, None] * below)[..., None]
        K[:, n:, :n] = rows
        K[:, :n, n:] = rows.mT
        K[:, n:, n:].diagonal(dim1=1, dim2=2).copy_(-diagonal * below * below)
        scale = torch.cat([common[:, None].expand(batch, n), below], 1)
        return cls(Factor.of(K, n), scale, faces, slant, place, used, gamma, n)

    def solve(self, top: Tensor, bottom: Tensor) -> Steps:
        """Solve ``P a + A'e = top`` and ``A a - W e = bottom`` for (batch, n, c) and (batch, m, c)."""
        gamma = self.gamma[:, None, None]
        turned = self.faces.rotate(bottom) * self.slant[..., None]
        index = self.place[..., None].expand(*self.place.shape, top.shape[-1])
        right = torch.cat([gamma * top, turned.gather(1, index) * self.used[..., None]], 1) * self.scale[..., None]
        found = self.factor.solve(right)
        missed = torch.zeros_like(top[:, 0], dtype=torch.bool)
        if self.factor.kernel.shape[-1]:
            left = (self.factor.kernel.mT @ right).abs().amax(1)
            missed = left > MISSED * right.abs().amax(1)
        a, f = (found * self.scale[..., None]).split([self.size, self.place.shape[1]], 1)
        return Steps(a, self._multipliers(f) / gamma, missed)

    def _multipliers(self, f: Tensor) -> Tensor:
        """Return ``Q S f`` for the kept rows f (batch, k, c)."""
        index = self.place[..., None].expand(*self.place.shape, f.shape[-1])
        spread = f.new_zeros(len(f), self.slant.shape[1], f.shape[-1]).scatter(1, index, f * self.used[..., None])
        return self.faces.back(spread * self.slant[..., None])

    @property
    def null(self) -> tuple[Tensor, Tensor]:
        """What the system takes to zero: variables (batch, n, d) and multipliers (batch, m, d), padded with zeros."""
        a, f = (self.factor.kernel * self.scale[..., None]).split([self.size, self.place.shape[1]], 1)
        return a, self._multipliers(f)

    @property
    def freedom(self) -> Tensor:
        """Number of independent directions in which the solution may move, (batch,)."""
        inside = self.factor.kernel[:, : self.size]
        if not inside.numel():
            return torch.zeros(len(self.scale), dtype=torch.int64)
        sizes: Tensor = torch.linalg.svdvals(inside)
        return (sizes > 1e-6).sum(-1)

    @property
    def redundant(self) -> Tensor:
        """Number of independent directions in which the multipliers alone may move, (batch,)."""
        return (self.factor.kernel != 0).any(1).sum(-1) - self.freedom


def decided(faces: Faces, weak_active: bool) -> tuple[Tensor, Tensor]:
    """Return d and 1 - d, with weakly active rows taken for active or not, (batch, m) each."""
    if weak_active:
        return faces.kept, torch.where(faces.weak, 1.0, faces.lost)
    return torch.where(faces.weak, 1.0, faces.kept), faces.lost


def _scales(P: Tensor | None, rows: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Return what brings P to size one, (batch,), and then each row below it, (batch, k)."""
    batch, _, n = rows.shape
    common = rows.new_ones(batch)
    if P is not None and n:
        size = P.abs().amax((1, 2))
        common = torch.where(size > 0, size, 1.0).rsqrt()
    lengths = rows.abs().amax(2) * common[:, None] if n else torch.zeros_like(diagonal)
    size = torch.maximum(lengths, diagonal.sqrt())
    return common, torch.where(size > 0, 1.0 / torch.where(size > 0, size, 1.0), 1.0)
