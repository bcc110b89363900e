"""The two arithmetics that a program is carried out in: torch tensors, and CasADi's symbolic vectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._program import Index, Vector

ELEMENTWISE = (
    *("multiply", "divide", "power", "power of", "exponential", "minimum", "maximum", "where"),
    *("at most zero", "below zero", "equals zero", "and"),
    *("abs", "sqrt", "exp", "log", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("asinh", "acosh", "atanh", "ceil", "floor"),
)
"""The elementwise operations of a program. A comparison gives 1 where it holds and 0 elsewhere."""


class TorchArithmetic:
    """Vectors are torch tensors; differentiable, and mapped by ``torch.vmap``."""

    def __init__(self, like: Tensor):
        self._like = like

    def constant(self, values: Vector) -> Tensor:
        """Return known numbers as a tensor."""
        return torch.from_numpy(values).to(self._like)

    def take(self, vector: Tensor, index: Index) -> Tensor:
        """Return some entries; the derivative adds up where an entry is taken more than once."""
        return vector.index_select(0, torch.from_numpy(index).to(self._like.device))

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return vectors one after the other."""
        return torch.cat(list(vectors))

    def add_rows(self, vector: Tensor, coefficients: Vector, rows: Index, constants: Vector) -> Tensor:
        """Return ``constants`` plus ``coefficients * vector`` added up by row."""
        weighted = vector if np.all(coefficients == 1.0) else vector * self.constant(coefficients)
        size = len(constants)
        length = len(rows) // size if size else 0
        # rows of equal length need no scatter
        if length * size == len(rows) and np.array_equal(rows, np.repeat(np.arange(size), length)):
            sums = weighted if length == 1 else weighted.reshape(size, length).sum(-1)
            return sums + self.constant(constants) if np.any(constants) else sums
        return self.constant(constants).index_add(0, torch.from_numpy(rows).to(self._like.device), weighted)

    def apply(self, operation: str, setting: float | None, operands: Sequence[Tensor]) -> Tensor:
        """Return an elementwise operation."""
        result: Tensor
        if operation == "power":
            result = operands[0].square() if setting == 2.0 else torch.pow(operands[0], setting)  # type: ignore[arg-type]
        elif operation == "exponential":
            result = torch.pow(setting, operands[0])  # type: ignore[arg-type]
        elif operation in _TORCH:
            result = _TORCH[operation](*operands)
        else:
            result = getattr(torch, operation)(*operands)
        return result


_TORCH: dict[str, Callable[..., Tensor]] = {
    "multiply": torch.mul,
    "divide": torch.div,
    "power of": torch.pow,
    "where": lambda condition, yes, no: torch.where(condition > 0.5, yes, no),
    "at most zero": lambda x: (x <= 0).to(x.dtype),
    "below zero": lambda x: (x < 0).to(x.dtype),
    "equals zero": lambda x: (x == 0).to(x.dtype),
    "and": torch.mul,
}


class CasadiArithmetic:
    """Vectors are CasADi's symbolic columns, of the kind MX or SX that the program is given."""

    def constant(self, values: Vector) -> Any:
        """Return known numbers."""
        import casadi

        return casadi.DM(values)

    def take(self, vector: Any, index: Index) -> Any:
        """Return some entries as a column, also of a vector of length one."""
        import casadi

        return casadi.vec(vector[index.tolist()])

    def join(self, vectors: Sequence[Any]) -> Any:
        """Return vectors one after the other."""
        import casadi

        return casadi.vertcat(*vectors)

    def add_rows(self, vector: Any, coefficients: Vector, rows: Index, constants: Vector) -> Any:
        """Return ``constants`` plus the product of a sparse matrix and the vector."""
        import casadi

        shape = len(constants), len(rows)
        matrix = casadi.DM.triplet(rows.tolist(), list(range(len(rows))), casadi.DM(coefficients), *shape)
        return casadi.mtimes(matrix, vector) + casadi.DM(constants)

    def apply(self, operation: str, setting: float | None, operands: Sequence[Any]) -> Any:
        """Return an elementwise operation."""
        import casadi

        if operation == "power":
            return operands[0] * operands[0] if setting == 2.0 else operands[0] ** setting
        if operation == "exponential":
            return setting ** operands[0]
        if operation == "where":
            condition, yes, no = operands
            return casadi.if_else(condition, yes, no)
        plain = {"multiply": "times", "divide": "rdivide", "power of": "power", "and": "times", "abs": "fabs"}
        plain |= {"minimum": "fmin", "maximum": "fmax"}
        comparison = {"at most zero": casadi.le, "below zero": casadi.lt, "equals zero": casadi.eq}
        if operation in comparison:
            return comparison[operation](operands[0], 0.0)
        return getattr(casadi, plain.get(operation, operation))(*operands)
