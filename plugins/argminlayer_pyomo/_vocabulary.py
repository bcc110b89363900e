"""Which functions Pyomo's language has, and whether a problem needs others. Pyomo is not imported here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import argminlayer as al

FUNCTIONS = (al.algebra.UNARY | al.algebra.BINARY) - {"atan2", "erf"}
"""What Pyomo has no function for is composed of others, or refused by name."""

_Count = NDArray[np.bool_]
_reasons: al.algebra.ModelCache[str] = al.algebra.ModelCache(64)


def is_read(problem: al.BoundProblem) -> bool:
    """Say whether a problem is read from a Pyomo model."""
    structure = problem.problem.structure
    return structure is not None and structure.name == "pyomo"


def why_not_quadratic(problem: al.BoundProblem) -> str | None:
    """Return why a problem is no linear or quadratic program, None when it is."""
    structure = problem.problem.structure
    if structure is not None and is_read(problem):
        model = structure.data["model"]
        names = [row.name for row in (*model.equalities, *model.inequalities)]
        objective = 0 if model.objective is None else int(model.objective.degrees.max())
        return _too_high(objective, [*model.equality.degrees, *model.inequality.degrees], names)
    for algebra in al.algebra.record(problem):
        degree = algebra.degree
        names = [f"{kind} {i}" for kind in ("equality", "inequality") for i in range(len(getattr(degree, kind)))]
        reason = _too_high(degree.objective, [*degree.equality.tolist(), *degree.inequality.tolist()], names)
        if reason:
            return reason
    return None


def _too_high(objective: int, constraints: Sequence[int], names: Sequence[str]) -> str | None:
    if objective > 2:
        return "needs an objective that is linear or quadratic, and this one is not"
    bent = next((name for name, degree in zip(names, constraints, strict=True) if degree > 1), None)
    return None if bent is None else f"needs linear constraints, and {bent} is not"


def why_not_written(problem: al.BoundProblem) -> str | None:
    """Return why a torch problem cannot be written in Pyomo's language, None when it can."""
    try:
        return next((reason for reason in map(_why_not, al.algebra.record(problem)) if reason), None)
    except al.AlgebraError as error:
        return str(error)


def _why_not(algebra: al.algebra.Algebra) -> str:
    def dry_run() -> str:
        count = algebra.values.shape[1]
        try:
            al.algebra.interpret(
                algebra, _DryRun(), np.ones(algebra.size, bool), np.ones(count, bool) if count else None
            )
        except al.AlgebraError as error:
            return str(error)
        return ""

    return _reasons.get(algebra.key_with_lines, dry_run)


class _DryRun(al.algebra.Backend[_Count]):
    """A language with Pyomo's functions and vectors of nothing but a length: it finds out what would be refused."""

    functions = FUNCTIONS

    def constant(self, numbers: Tensor) -> _Count:
        return np.ones(len(numbers), bool)

    def gather(self, vector: _Count, index: NDArray[np.int64]) -> _Count:
        return vector[index]

    def concatenate(self, vectors: Sequence[_Count]) -> _Count:
        return np.concatenate(list(vectors))

    def unary(self, function: str, x: _Count) -> _Count:
        return x

    def binary(self, function: str, x: _Count, y: _Count) -> _Count:
        return np.ones(max(len(x), len(y)) if len(x) and len(y) else 0, bool)

    def power(self, x: _Count, exponent: float) -> _Count:
        return x

    def sum_rows(self, x: _Count, rows: int, columns: int) -> _Count:
        return np.ones(rows, bool)

    def matmul(self, a: _Count | Tensor, b: _Count | Tensor, rows: int, inner: int, columns: int) -> _Count:
        return np.ones(rows * columns, bool)

    def where(self, condition: _Count, x: _Count, y: _Count) -> _Count:
        return np.ones(max(len(condition), len(x), len(y)), bool)
