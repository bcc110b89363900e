"""The projection onto a product of cones, its derivative at a point, and its second derivative."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._curves import Curved
from ._groups import Group, groups_of
from ._pattern import Cones
from ._spectral import SecondOrder, Semidefinite, Slopes, slopes

Spectrum = SecondOrder | Semidefinite | Curved


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

    def margin(self, v: Tensor, cones: Cones) -> Tensor:
        """Return the size of the eigenvalue of v that is nearest to zero, (batch,); infinite without any."""
        rows = v[:, cones.zero : cones.zero + cones.nonnegative].abs()
        sizes = [
            rows,
            *(spectrum.margins() for _, spectrum in self.parts),
            torch.full_like(v[:, :1].sum(1, True), torch.inf),
        ]
        return torch.cat(sizes, 1).amin(1)

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


def _spectrum(group: Group, v: Tensor, near: Tensor, hint: Tensor | None) -> Spectrum:
    part = group.take(v)
    if group.kind == "second_order":
        return SecondOrder(part)
    if group.kind == "semidefinite":
        return Semidefinite(part, group.side)
    exponents = group.exponents if group.kind == "power" else None
    return Curved(part, exponents, near, None if hint is None else group.take(hint))


def project(cones: Cones, v: Tensor, hint: Tensor | None = None) -> Tensor:
    """Return the projections of v (batch, m) onto K.

    Args:
        cones: K.
        v: the points.
        hint: points near the projections, or None.
    """
    out = torch.empty_like(v)
    none = v.new_zeros(1, 1)
    for group in groups_of(cones):
        if group.kind == "zero":
            out[:, : cones.zero] = 0.0
        elif group.kind == "nonnegative":
            rows = slice(cones.zero, cones.zero + cones.nonnegative)
            out[:, rows] = v[:, rows].clamp_min(0.0)
        else:
            group.put(out, _spectrum(group, v, none, hint).project())
    return out


def faces(cones: Cones, v: Tensor, near: Tensor, hint: Tensor | None = None) -> Faces:
    """Return the derivative of the projection at v (batch, m).

    Args:
        cones: K.
        v: the points.
        near: eigenvalues within this of zero vanish, (batch,).
        hint: points near the projections, or None.
    """
    kept, lost = torch.zeros_like(v), torch.ones_like(v)
    weak = torch.zeros_like(v, dtype=torch.bool)
    parts = []
    for group in groups_of(cones):
        if group.kind == "zero":
            continue
        if group.kind == "nonnegative":
            rows = slice(cones.zero, cones.zero + cones.nonnegative)
            found = slopes(v[:, rows], v[:, rows], near[:, None])
            kept[:, rows], lost[:, rows], weak[:, rows] = found
            continue
        spectrum = _spectrum(group, v, near[:, None], hint)
        found = _slopes(spectrum, near)
        for into, values in zip((kept, lost, weak), found, strict=True):
            group.put(into, values)
        parts.append((group, spectrum))
    return Faces(kept, lost, weak, tuple(parts))


def _slopes(spectrum: Spectrum, near: Tensor) -> Slopes:
    return spectrum.slopes(near[:, None] if isinstance(spectrum, Curved) else near[:, None, None])


def bend(cones: Cones, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the second derivative of the projection at v along a and b, (batch, m) each.

    It is symmetric in a, b and the vector that it is multiplied with: the projection is the gradient of a function.
    """
    out = torch.zeros_like(v)
    none = v.new_zeros(1, 1)
    for group in groups_of(cones):
        if group.kind not in ("zero", "nonnegative"):
            spectrum = _spectrum(group, v, none, None)
            group.put(out, spectrum.bend(group.take(a), group.take(b)))
    return out
