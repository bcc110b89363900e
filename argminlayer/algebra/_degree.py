"""The degree of objective and constraints in the variables, proved entry by entry: what makes a problem linear."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._backend import BINARY, UNARY, Backend, Index
from ._graph import Algebra
from ._interpret import interpret

Degrees = NDArray[np.int64]

ZERO = -1
"""The degree of an entry that is zero whatever the variables."""
NONLINEAR = 99
"""The degree of what is no polynomial, or of an unknown degree."""
_NAMES = {ZERO: "zero", 0: "constant", 1: "linear", 2: "quadratic"}


@dataclass(frozen=True)
class Degree:
    """Degrees in the variables, for every value of the parameters. A degree is proved; 99 is a proof of nothing.

    Attributes:
        objective: 0, 1, 2, ... or 99; 0 for a feasibility problem.
        equality: (p,), the degree of every equality.
        inequality: (q,), the degree of every inequality.
    """

    objective: int
    equality: Tensor
    inequality: Tensor

    @property
    def constraints(self) -> int:
        """The largest degree of a constraint, 0 if there is none."""
        return max((int(d) for d in (*self.equality, *self.inequality)), default=0)

    @property
    def program(self) -> str:
        """``"linear"``, ``"quadratic"``, ``"quadratically constrained"`` or ``"nonlinear"``, and ``"program"``.

        With at most linear constraints the objective decides; a quadratic one need not be convex.
        """
        if max(self.objective, self.constraints) > 2:
            return "nonlinear program"
        if self.constraints == 2:
            return "quadratically constrained program"
        return "quadratic program" if self.objective == 2 else "linear program"

    def __str__(self) -> str:
        constraints = [("equalities", self.equality), ("inequalities", self.inequality)]
        parts = [f"objective {name_of(self.objective)}"]
        parts += [f"{what} {name_of(int(degrees.max()))}" for what, degrees in constraints if len(degrees)]
        return f"{self.program} ({', '.join(parts)})"


def name_of(degree: int) -> str:
    """Return ``"constant"``, ``"linear"``, ``"quadratic"`` or ``"nonlinear"``."""
    return _NAMES.get(degree, "nonlinear")


def prove_degree(algebra: Algebra) -> Degree:
    """Return the degrees of objective and constraints in the variables.

    Products of entries add degrees, sums take the largest, a function of a constant is constant, and anything else is
    nonlinear. Numbers count where they are zero; parameters are taken to be any number.
    """
    variables = np.ones(algebra.size, dtype=np.int64)
    parameters = np.zeros(algebra.values.shape[1], dtype=np.int64)
    found = interpret(algebra, _DegreeBackend(), variables, parameters if len(parameters) else None)
    objective = 0 if found.objective is None else max(0, int(found.objective[0]))
    return Degree(objective, *(_tensor(vector) for vector in (found.equality, found.inequality)))


def _tensor(degrees: Degrees | None) -> Tensor:
    return torch.zeros(0, dtype=torch.int64) if degrees is None else torch.as_tensor(np.maximum(degrees, 0))


class _DegreeBackend(Backend[Degrees]):
    """Vectors of degrees instead of expressions."""

    functions = UNARY | BINARY | {"softplus"}

    def constant(self, numbers: Tensor) -> Degrees:
        return np.where(numbers.numpy() == 0, ZERO, 0)

    def gather(self, vector: Degrees, index: Index) -> Degrees:
        return vector[index]

    def concatenate(self, vectors: Sequence[Degrees]) -> Degrees:
        return np.concatenate(vectors)

    def unary(self, function: str, x: Degrees) -> Degrees:
        return x if function == "neg" else np.where(x > 0, NONLINEAR, 0)

    def binary(self, function: str, x: Degrees, y: Degrees) -> Degrees:
        if function in ("add", "sub"):
            return np.maximum(x, y)
        if function == "mul":
            return _product(x, y)
        if function == "div":
            return np.where(y > 0, NONLINEAR, x)
        return np.where((x > 0) | (y > 0), NONLINEAR, 0)

    def power(self, x: Degrees, exponent: float) -> Degrees:
        if exponent > 0 and exponent.is_integer():
            return np.where(x == ZERO, ZERO, np.minimum(x * int(exponent), NONLINEAR))
        return np.where(x > 0, NONLINEAR, 0)

    def sum_rows(self, x: Degrees, rows: int, columns: int) -> Degrees:
        largest: Degrees = x.reshape(rows, columns).max(axis=1)
        return largest

    def matmul(self, a: Degrees | Tensor, b: Degrees | Tensor, rows: int, inner: int, columns: int) -> Degrees:
        left, right = (self.constant(f) if isinstance(f, Tensor) else f for f in (a, b))
        left, right = left.reshape(rows, inner), right.reshape(inner, columns)
        found: Degrees = np.full((rows, columns), ZERO)
        for low in np.unique(left):
            for high in np.unique(right):
                if min(low, high) > ZERO:
                    meet = (left == low).astype(np.float64) @ (right == high).astype(np.float64) > 0
                    found = np.where(meet, np.maximum(found, min(low + high, NONLINEAR)), found)
        return found.reshape(rows * columns).astype(np.int64)

    def where(self, condition: Degrees, x: Degrees, y: Degrees) -> Degrees:
        return np.where(condition > 0, NONLINEAR, np.maximum(x, y))

    def opaque(self, inputs: Sequence[Degrees], entries: int) -> Degrees:
        constant = all((degrees <= 0).all() for degrees in inputs)
        return np.full(entries, 0 if constant else NONLINEAR)


def _product(x: Degrees, y: Degrees) -> Degrees:
    return np.where((x == ZERO) | (y == ZERO), ZERO, np.minimum(x + y, NONLINEAR))
