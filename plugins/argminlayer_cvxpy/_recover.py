"""From the solution of the cone program to variables and dual variables of the CVXPY problem."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """One variable, or dual variable, as entries of a vector.

    Attributes:
        dual: whether they are entries of z, not of x.
        index: which entry each has, in the order of torch.
        scale: what each is multiplied with, None for ones.
        shape: its shape.
        exponential: whether the vector holds its logarithm.
    """

    dual: bool
    index: Tensor
    scale: Tensor | None
    shape: tuple[int, ...]
    exponential: bool = False

    @classmethod
    def of(cls, dual: bool, index: Array, scale: Array | None = None, exponential: bool = False) -> "Piece":
        """Return the piece for an array of entries in the shape of the variable."""
        factors = None if scale is None else torch.from_numpy(np.asarray(scale, dtype=np.float64).ravel())
        return cls(dual, torch.from_numpy(index.ravel().astype(np.int64)), factors, index.shape, exponential)

    def read(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the variable with the leading dimensions of the vector."""
        source = z if self.dual else x
        values = source[..., self.index.to(source.device)]
        if self.scale is not None:
            values = values * self.scale.to(values)
        values = values.exp() if self.exponential else values
        return values.reshape((*source.shape[:-1], *self.shape))


@dataclass(frozen=True, eq=False)
class Recovery:
    """The function from (x, z) to the variables that are asked for."""

    pieces: tuple[Piece, ...]

    def __call__(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """Return every variable."""
        return tuple(piece.read(x, z) for piece in self.pieces)

    def places(self) -> tuple[Array, Array]:
        """Return the entries of x and of z that are read."""
        read = ([piece.index for piece in self.pieces if piece.dual == dual] for dual in (False, True))
        columns, rows = (np.unique(torch.cat([*found, torch.zeros(0, dtype=torch.int64)]).numpy()) for found in read)
        return columns, rows

    def moved(self, columns: Array, rows: Array) -> "Recovery":
        """Return what reads from vectors whose entries are elsewhere: ``columns[i]`` is the new place of ``x[i]``."""
        x, z = torch.from_numpy(columns), torch.from_numpy(rows)
        return Recovery(tuple(replace(p, index=(z if p.dual else x)[p.index]) for p in self.pieces))

    @property
    def multipliers(self) -> bool:
        """Whether dual variables are among them."""
        return any(piece.dual for piece in self.pieces)
