"""A Pyomo model with its algebra translated: what the solvers of this plugin are given."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._arithmetic import TorchArithmetic
from ._program import Program


@dataclass(frozen=True, eq=False)
class Counted:
    """A component, or one of its elements, as a tensor: a scalar, or a vector in the order of the index set."""

    name: str
    scalar: bool
    elements: tuple[Any, ...]

    @property
    def core(self) -> str:
        """Its core dimensions in a gufunc signature."""
        return "()" if self.scalar else f"({len(self.elements)})"


@dataclass(frozen=True)
class Row:
    """Where one scalar constraint of a problem comes from: a Pyomo constraint, and which side of it."""

    name: str
    side: str


@dataclass(frozen=True, eq=False)
class PyomoModel:
    """A Pyomo model of its own, the places of variables and parameters in it, and its algebra as programs.

    Attributes:
        model: belongs to this value alone; not to be modified.
        parameters: in the order of the problem's signature.
        variables: likewise; all unknowns of the model.
        objective: the objective in the model's own sense; None for a feasibility problem.
        maximize: whether the model maximises.
        equality: values that must vanish.
        inequality: values that must not be positive.
        equalities: which constraint each equality is.
        inequalities: which side of which constraint each inequality is.
        bounds_vary: whether the bounds of the variables belong to an instance, and not to the model.
    """

    model: Any
    parameters: tuple[Counted, ...]
    variables: tuple[Counted, ...]
    objective: Program | None
    maximize: bool
    equality: Program
    inequality: Program
    equalities: tuple[Row, ...]
    inequalities: tuple[Row, ...]
    bounds_vary: bool = False

    @property
    def signature(self) -> str:
        """The gufunc signature of the problem."""
        return f"{','.join(c.core for c in self.parameters)}->{','.join(c.core for c in self.variables)}"

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """The shape of each variable."""
        return tuple(torch.Size(() if c.scalar else (len(c.elements),)) for c in self.variables)

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return a vector of all unknowns as a tuple with one tensor for each variable."""
        return split(flat, self.shapes)


def split(flat: Tensor, shapes: tuple[torch.Size, ...]) -> tuple[Tensor, ...]:
    """Return a vector cut into tensors of these shapes."""
    pieces = flat.split([shape.numel() for shape in shapes])
    return tuple(piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))


@dataclass(frozen=True, eq=False)
class Function:
    """A program as a function ``(u, *parameters)`` of one instance; ``scalar`` for an objective."""

    program: Program
    scalar: bool = False

    def __call__(self, u: Any, *parameters: Tensor) -> Tensor:
        """Return the values, (rows,), or () for an objective."""
        flat = _joined(u if isinstance(u, tuple) else (u,))
        values = self.program.run(TorchArithmetic(flat), flat, _joined(parameters, flat))
        if not self.program.degrees.any():
            # conditions on the parameters alone; they still belong to the variables that a solver looks for
            values = values + 0.0 * flat.sum()
        return values[0] if self.scalar else values


@dataclass(frozen=True, eq=False)
class BoundFunction:
    """A program as bounds ``(*parameters) -> (bound of each variable, ...)``."""

    program: Program
    shapes: tuple[torch.Size, ...]

    def __call__(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the bounds of every variable."""
        flat = _joined(parameters)
        return split(self.program.run(TorchArithmetic(flat), flat[:0], flat), self.shapes)


def _joined(tensors: tuple[Tensor, ...], like: Tensor | None = None) -> Tensor:
    if not tensors:
        return torch.zeros(0, dtype=torch.float64) if like is None else like[:0]
    return tensors[0].reshape(-1) if len(tensors) == 1 else torch.cat([t.reshape(-1) for t in tensors])
