"""Judging answers of cone programs: residuals at points that lie on the cones and are complementary by construction."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ._faces import Faces, Spectra
from ._groups import groups_of
from ._pattern import Cones
from ._programs import AnyMatrices

SMALL = 1e-3
"""Slacks and multipliers that are all smaller than this, beside the size of the program, are taken for so large."""


@dataclass(frozen=True, eq=False)
class Programs:
    """The numbers of a batch of programs as tensors.

    Attributes:
        cones: K.
        matrices: P and A.
        q: (1 or batch, n).
        b: (1 or batch, m).
        lengths: of the rows of A, the longest within each curved cone; (1 or batch, m).
        largest: the largest diagonal entry of P, (1 or batch,).
    """

    cones: Cones
    matrices: AnyMatrices
    q: Tensor
    b: Tensor
    lengths: Tensor
    largest: Tensor

    @classmethod
    def of(cls, cones: Cones, matrices: AnyMatrices, q: Tensor, b: Tensor) -> "Programs":
        """Measure the rows."""
        lengths = matrices.lengths()
        for group in groups_of(cones):
            if group.kind not in ("zero", "nonnegative"):
                part = group.take(lengths)
                group.put(lengths, part.amax(-1, keepdim=True).expand_as(part))
        return cls(cones, matrices, q, b, torch.where(lengths > 0, lengths, 1.0), matrices.largest())

    def force(self, Px: Tensor) -> Tensor:
        """Return the size of the forces of the objective where P x (batch, n) is as given, one without any, (batch,).

        Where x goes to infinity along directions without curvature they do not grow with it.
        """
        force = torch.maximum(torch.maximum(largest(self.q), self.largest), largest(Px))
        return torch.where(force > 0, force, 1.0)

    def select(self, index: Tensor) -> "Programs":
        """Return the programs of the instances in ``index``."""
        q, b, lengths, largest = (
            part if len(part) == 1 else part[index] for part in (self.q, self.b, self.lengths, self.largest)
        )
        return Programs(self.cones, self.matrices.select(index), q, b, lengths, largest)


@dataclass(frozen=True, eq=False)
class Measured:
    """Points and their residuals. With ``s = Pi(v)`` and ``gamma z = s - v`` nothing but two equations can be amiss.

    Attributes:
        x: (batch, n).
        v: ``s - gamma z``, (batch, m).
        s: slacks, (batch, m).
        z: multipliers, (batch, m).
        gamma: the unit of the multipliers, which makes them as large as the slacks, (batch,).
        slope: ``P x + q + A'z``, (batch, n).
        gap: ``A x + s - b``, (batch, m).
        stationarity: the largest slope over the size of the forces of the problem, (batch,).
        feasibility: the largest gap over the length of its row and ``1 + |x|``, (batch,).
        worst: the larger of the two, or how far better points lie, over ``1 + |x|``, where such are in sight; infinite
            where something is not a number.
        spectra: v decomposed, if that is at hand.
    """

    x: Tensor
    v: Tensor
    s: Tensor
    z: Tensor
    gamma: Tensor
    slope: Tensor
    gap: Tensor
    stationarity: Tensor
    feasibility: Tensor
    worst: Tensor
    spectra: Spectra | None = None

    @property
    def tensors(self) -> dict[str, Any]:
        """All that has a row for each instance."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "spectra"}

    def decomposed(self, cones: Cones) -> Spectra:
        """Return v decomposed, as it was for its projection where that is known."""
        return Spectra.of(cones, self.v, self.s) if self.spectra is None else self.spectra

    def faces(self, cones: Cones) -> Faces:
        """Return the derivative of the projection at v."""
        return self.decomposed(cones).faces()

    def select(self, index: Tensor) -> "Measured":
        """Return the points of the instances in ``index``."""
        return Measured(**{name: part[index] for name, part in self.tensors.items()})

    def merged(self, index: Tensor, other: "Measured") -> "Measured":
        """Return the points with those in ``index`` replaced."""
        its = other.tensors
        return Measured(**{name: part.index_copy(0, index, its[name]) for name, part in self.tensors.items()})

    def better(self, other: "Measured", wins: Tensor) -> "Measured":
        """Return the points of ``other`` where it wins (batch,), these elsewhere."""
        if bool(wins.all()):
            return other
        parts, its = self.tensors, other.tensors
        wide = wins[:, None]
        mixed: dict[str, Any] = {k: torch.where(wide if t.ndim > 1 else wins, its[k], t) for k, t in parts.items()}
        return Measured(**mixed)


def measure(programs: Programs, x: Tensor, v: Tensor, gamma: Tensor, hint: Tensor | None = None) -> Measured:
    """Measure points x (batch, n) with ``v = s - gamma z`` (batch, m).

    Args:
        programs: the batch.
        x: (batch, n).
        v: (batch, m).
        gamma: (batch,).
        hint: slacks near those of v, or None.
    """
    sound = x.isfinite().all(1) & v.isfinite().all(1)
    if not bool(sound.all()):
        x, v = (torch.where(sound[:, None], part, 0.0) for part in (x, v))
    spectra = Spectra.of(programs.cones, v, hint)
    s = spectra.project()
    z = (s - v) / gamma[:, None]
    matrices = programs.matrices
    Px = matrices.P_times(x)
    slope = Px + programs.q + matrices.A_pulled(z)
    gap = matrices.A_times(x) + s - programs.b
    extent = 1.0 + largest(x)
    stationarity = largest(slope) / programs.force(Px)
    feasibility = largest(gap / programs.lengths) / extent
    worst = torch.maximum(stationarity, feasibility)
    worst = torch.where(sound & worst.isfinite(), worst, torch.inf)
    return Measured(x, v, s, z, gamma, slope, gap, stationarity, feasibility, worst, spectra)


def units(s: Tensor, z: Tensor, extent: Tensor, force: Tensor) -> Tensor:
    """Return the unit of the multipliers, a power of two that makes them about as large as the slacks, (batch,).

    Args:
        s: slacks, (batch, m).
        z: multipliers, (batch, m).
        extent: the size of the variables: slacks that are small beside it are not what the unit goes by, for they may
            be a solver's error, all of them.
        force: the size of the forces of the objective, likewise for multipliers.
    """
    above, below = largest(s), largest(z)
    above, below = torch.maximum(above, SMALL * extent), torch.maximum(below, SMALL * force)
    fine = (above > 0) & (below > 0) & above.isfinite() & below.isfinite()
    ratio = torch.where(fine, above, 1.0) / torch.where(fine, below, 1.0)
    return torch.exp2(torch.log2(ratio).round())


def largest(values: Tensor) -> Tensor:
    """Return the largest size of the entries of (batch, c), zero where there are none."""
    return values.abs().amax(1) if values.shape[1] else values.new_zeros(len(values))
