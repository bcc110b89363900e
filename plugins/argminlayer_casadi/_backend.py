"""The primitives of the algebra in CasADi's MX: column vectors, exact derivatives, sparse constant matrices."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import casadi as ca
import numpy as np
from torch import Tensor

import argminlayer as al

Vector = Any
"""A column of ``casadi.MX``; CasADi publishes no types."""

_UNARY: dict[str, Callable[[Vector], Vector]] = {
    name: getattr(ca, name)
    for name in (
        *("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
        *("asinh", "acosh", "atanh", "erf", "sign", "floor", "ceil"),
    )
} | {
    "neg": lambda x: -x,
    "abs": ca.fabs,
    "logsumexp": ca.logsumexp,
    # either branch is smooth where it is taken, so that second derivatives are right at zero too
    "softplus": lambda x: ca.if_else(x > 0, x + ca.log1p(ca.exp(-x)), ca.log1p(ca.exp(x))),
}
_BINARY: dict[str, Callable[[Vector, Vector], Vector]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "max": ca.fmax,
    "min": ca.fmin,
    "atan2": ca.atan2,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}


class CasADiBackend(al.algebra.Backend[Vector]):
    """MX expressions: one node for each operator, whatever the number of entries."""

    functions = frozenset(_UNARY) | frozenset(_BINARY)

    def constant(self, numbers: Tensor) -> Vector:
        return ca.MX(ca.DM(numbers.numpy()))

    def gather(self, vector: Vector, index: np.ndarray[Any, np.dtype[np.int64]]) -> Vector:
        if vector.shape[0] == 1:
            return ca.repmat(vector, len(index), 1)
        first, count = (int(index[0]), len(index)) if len(index) else (0, 0)
        step = int(index[1]) - first if count > 1 else 1
        if count and step > 0 and (index == np.arange(first, first + step * count, step)).all():
            return vector[first : first + step * (count - 1) + 1 : step]
        return vector[index.tolist()]

    def concatenate(self, vectors: Sequence[Vector]) -> Vector:
        return ca.vertcat(*vectors)

    def unary(self, function: str, x: Vector) -> Vector:
        return _UNARY[function](x)

    def binary(self, function: str, x: Vector, y: Vector) -> Vector:
        return _BINARY[function](x, y)

    def power(self, x: Vector, exponent: float) -> Vector:
        if exponent == 2.0:
            return x * x
        return x ** (int(exponent) if exponent.is_integer() else exponent)

    def sum_rows(self, x: Vector, rows: int, columns: int) -> Vector:
        return ca.sum1(x) if rows == 1 else ca.sum1(ca.reshape(x, columns, rows)).T

    def matmul(self, a: Vector | Tensor, b: Vector | Tensor, rows: int, inner: int, columns: int) -> Vector:
        if columns == 1:
            return ca.mtimes(_matrix(a, rows, inner), _column(b))
        if rows == 1:
            return ca.mtimes(_matrix(b, inner, columns).T, _column(a))
        return flat(ca.mtimes(_matrix(a, rows, inner), _matrix(b, inner, columns)))

    def where(self, condition: Vector, x: Vector, y: Vector) -> Vector:
        return ca.if_else(condition, x, y)

    @property
    def rules(self) -> Mapping[str, al.algebra.Rule]:  # type: ignore[override]
        """What CasADi does better than the common rules: systems whose matrix depends on the variables."""
        return _RULES


def _matrix(x: Vector | Tensor, rows: int, columns: int) -> Vector:
    """Return a matrix held in C order; one of numbers keeps only what is not zero."""
    if isinstance(x, Tensor):
        return ca.sparsify(ca.DM(x.reshape(rows, columns).numpy()))
    return ca.reshape(x, columns, rows).T


def _column(x: Vector | Tensor) -> Vector:
    return ca.DM(x.reshape(-1).numpy()) if isinstance(x, Tensor) else x


def flat(matrix: Vector) -> Vector:
    """Return the entries of a matrix in C order."""
    return ca.vec(matrix.T)


def _square(machine: al.algebra.Machine[Vector], x: Any) -> tuple[Vector, int]:
    value = machine.value(x)
    if len(value.shape) != 2:
        raise al.algebra.Unsupported("works on a stack of matrices that depend on the variables; write a loop")
    return _matrix(value.data, *value.shape), value.shape[0]


def _solve(machine: al.algebra.Machine[Vector], a: Mapping[str, Any]) -> Any:
    matrix, size = _square(machine, a["A"])
    right = machine.value(a["B"])
    if not a["left"]:
        raise al.algebra.Unsupported("solves from the right with a matrix that depends on the variables; transpose it")
    columns = right.shape.numel() // size
    solution = ca.solve(matrix, _matrix(right.data, size, columns))
    return al.algebra.Value(flat(solution), right.shape), None, None, None


def _inverse(machine: al.algebra.Machine[Vector], a: Mapping[str, Any]) -> Any:
    matrix, size = _square(machine, a["A"])
    return al.algebra.Value(flat(ca.solve(matrix, ca.DM.eye(size))), machine.value(a["A"]).shape), None


def _determinant(machine: al.algebra.Machine[Vector], a: Mapping[str, Any]) -> Any:
    shape = machine.value(a["A"]).shape[:-2]
    determinant = ca.det(_square(machine, a["A"])[0])
    if a["target"] == "_linalg_det":
        return al.algebra.Value(determinant, shape), None, None
    logarithm = ca.log(ca.fabs(determinant))
    return al.algebra.Value(ca.sign(determinant), shape), al.algebra.Value(logarithm, shape), None, None


def _cumulative_sum(machine: al.algebra.Machine[Vector], a: Mapping[str, Any]) -> Any:
    value = machine.floats(a["self"])
    if len(value.shape) != 1:
        return machine.scan(machine.add, value, int(a["dim"]))
    return al.algebra.Value(ca.cumsum(value.data), value.shape)


_RULES: Mapping[str, al.algebra.Rule] = MappingProxyType(
    {
        "_linalg_solve_ex": _solve,
        "linalg_inv_ex": _inverse,
        "_linalg_det": _determinant,
        "_linalg_slogdet": _determinant,
        "cumsum": _cumulative_sum,
    }
)
