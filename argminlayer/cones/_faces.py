"""The projection onto a product of cones, its derivative at a point, and its second derivative."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._curves import Curved
from ._groups import Group, groups_of
from ._pattern import Cones
from ._spectral import SecondOrder, Semidefinite, slopes

Spectrum = SecondOrder | Semidefinite | Curved
EXACT = 1e-9
"""Eigenvalues within this of zero, over the largest entry of v, count as zero."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The derivative ``Q diag(kept) Q'`` of the projection at points v of a batch.

    Attributes:
        kept: its eigenvalues d, (batch, m).
        lost: ``1 - d``.
        weak: where d is undetermined, because slack and multiplier both vanish; there both are zero.
        parts: the groups of curved cones, with what turns their rows into eigenvectors.
    """

    kept: Tensor
    lost: Tensor
    weak: Tensor
    parts: tuple[tuple[Group, Spectrum], ...]

    def rotate(self, values: Tensor) -> Tensor:
        """Return Q'V for V (1 or batch, m, c)."""
        return self._turned(values, "rotate")

    def back(self, values: Tensor) -> Tensor:
        """Return QV for V (batch, m, c)."""
        return self._turned(values, "back")

    def _turned(self, values: Tensor, way: str) -> Tensor:
        if not self.parts:
            return values
        out = values.expand(self.kept.shape[0], *values.shape[1:]).clone()
        for group, spectrum in self.parts:
            group.put(out, getattr(spectrum, way)(group.take(values)))
        return out


@dataclass(frozen=True, eq=False)
class Spectra:
    """Points v of a batch, decomposed: what their projection and its derivative have in common.

    Attributes:
        cones: K.
        v: the points, (batch, m).
        near: what counts as zero, (batch,).
        parts: the groups of curved cones, decomposed.
    """

    cones: Cones
    v: Tensor
    near: Tensor
    parts: tuple[tuple[Group, Spectrum], ...]

    @classmethod
    def of(cls, cones: Cones, v: Tensor, hint: Tensor | None = None) -> "Spectra":
        """Decompose points.

        Args:
            cones: K.
            v: the points.
            hint: points near the projections, or None.
        """
        near = EXACT * v.abs().amax(1) if v.shape[1] else v.new_zeros(len(v))
        curved = (group for group in groups_of(cones) if group.kind not in ("zero", "nonnegative"))
        return cls(cones, v, near, tuple((group, _spectrum(group, v, near, hint)) for group in curved))

    @property
    def plain(self) -> slice:
        """The nonnegative rows."""
        return slice(self.cones.zero, self.cones.zero + self.cones.nonnegative)

    def project(self) -> Tensor:
        """Return the projections, (batch, m)."""
        out = torch.empty_like(self.v)
        out[:, : self.cones.zero] = 0.0
        out[:, self.plain] = self.v[:, self.plain].clamp_min(0.0)
        for group, spectrum in self.parts:
            group.put(out, spectrum.project())
        return out

    def faces(self) -> Faces:
        """Return the derivative of the projection."""
        v, near = self.v, self.near
        kept, lost = torch.zeros_like(v), torch.ones_like(v)
        weak = torch.zeros_like(v, dtype=torch.bool)
        rows = v[:, self.plain]
        for into, values in zip((kept, lost, weak), slopes(rows, rows, near[:, None]), strict=True):
            into[:, self.plain] = values
        for group, spectrum in self.parts:
            for into, values in zip((kept, lost, weak), spectrum.slopes(near), strict=True):
                group.put(into, values)
        return Faces(kept, lost, weak, self.parts)

    def margin(self) -> Tensor:
        """Return the size of the eigenvalue that is nearest to zero, (batch,); infinite without any."""
        sizes = [self.v[:, self.plain].abs(), *(spectrum.margins() for _, spectrum in self.parts)]
        return torch.cat([*sizes, torch.full_like(self.near[:, None], torch.inf)], 1).amin(1)

    def bend(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the second derivative of the projection along a and b, (batch, m) each.

        It is symmetric in a, b and the vector that it is multiplied with: the projection is the gradient of a function.
        """
        out = torch.zeros_like(self.v)
        for group, spectrum in self.parts:
            group.put(out, spectrum.bend(group.take(a), group.take(b)))
        return out


def _spectrum(group: Group, v: Tensor, near: Tensor, hint: Tensor | None) -> Spectrum:
    part = group.take(v)
    if group.kind == "second_order":
        return SecondOrder(part)
    if group.kind == "semidefinite":
        return Semidefinite(part, group.side)
    exponents = group.exponents if group.kind == "power" else None
    return Curved(part, exponents, near[:, None], None if hint is None else group.take(hint))


def project(cones: Cones, v: Tensor) -> Tensor:
    """Return the projections of v (batch, m) onto K."""
    return Spectra.of(cones, v).project()
