"""Instances without a derivative: kept away from the derivatives of the others, and marked NaN in their own.

A failed instance may have functions that are not finite, and zero times infinity would reach a parameter that the whole
batch shares. So derivatives are taken with the data of a sound instance in its place, and thrown away.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ._backward import Node

T = TypeVar("T")


@dataclass(frozen=True)
class Isolation:
    """Which instances are sound, (batch,), and which parameters the batch shares."""

    sound: Tensor
    shared: tuple[bool, ...]

    @property
    def stand_in(self) -> Tensor:
        """For each instance its own position, or that of a sound one, (batch,)."""
        own = torch.arange(self.sound.shape[0], device=self.sound.device)
        return torch.where(self.sound, own, self.sound.to(torch.int8).argmax())

    def node(self, node: Node) -> Node:
        """Return the node with sound instances in the places of the others."""
        index = self.stand_in
        names = ("z", "nu", "lam", "zeta", "at_lower", "at_upper")
        adjoints = tuple(replace(adjoint, index=adjoint.index[index]) for adjoint in node.adjoints)
        return replace(node, adjoints=adjoints, **{name: getattr(node, name)[index] for name in names})

    def parameters(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the parameters with those of sound instances in the places of the others."""
        index = self.stand_in
        return tuple(p if shared else p[index] for p, shared in zip(parameters, self.shared, strict=True))

    def cotangents(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the cotangents, zero for instances that are not sound."""
        return tuple(torch.where(self.sound[:, None], c, 0.0) for c in cotangents)

    def pulled(self, gradients: tuple[Tensor | None, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """Return the gradients with NaN where a cotangent reached an instance that is not sound."""
        touched = torch.stack([(c != 0).any(-1) for c in cotangents]).any(0)
        mark = torch.where(~self.sound & touched, torch.nan, 0.0)
        return tuple(
            None if g is None else self._marked(g, mark, shared)
            for g, shared in zip(gradients, self.shared, strict=True)
        )

    def _marked(self, gradient: Tensor, mark: Tensor, shared: bool) -> Tensor:
        gradient = torch.where(self.sound.any(), gradient, 0.0)
        if shared:
            return gradient + mark.sum()
        trailing = (1,) * (gradient.ndim - 1)
        return torch.where(self.sound.reshape(-1, *trailing), gradient, mark.reshape(-1, *trailing))

    def pushed(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the tangents of the solution, NaN for instances that are not sound."""
        masks = (self.sound.reshape(-1, *(1,) * (dot.ndim - 1)) for dot in tangents)
        return tuple(torch.where(mask, dot, torch.nan) for mask, dot in zip(masks, tangents, strict=True))

    def tangents(self, tangents: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return tangents of the parameters that belong to the stand-ins."""
        index = self.stand_in
        pairs = zip(tangents, self.shared, strict=True)
        return tuple(t if t is None or shared else t[index] for t, shared in pairs)
