"""Scalar functions of a model, translated together into one program."""

import math
from typing import Any

import pyomo.environ as pyo

import argminlayer as al

from ._model import Row
from ._program import Program, Recorder, Scalar
from ._translate import Leaf, Translator

SATISFIED = 1e-8
"""By how much a constraint between numbers may be violated."""


class Rows:
    """Scalar functions that are translated together, and what each is called."""

    def __init__(self, leaf: Leaf):
        self._recorder = Recorder()
        self._translator = Translator(self._recorder, leaf)
        self._values: list[Scalar] = []
        self._sides: list[tuple[Any, Any]] = []
        self.rows: list[Row] = []

    def translate(self, expression: Any, where: str) -> Scalar:
        """Return the value of an expression."""
        return self._translator.translate(expression, where)

    def add(self, value: Scalar, row: Row) -> None:
        """Append a function."""
        self._values.append(value)
        self.rows.append(row)

    def difference(self, left: Any, right: Any, row: Row, where: str) -> None:
        """Append ``left - right``, unless it is a number that meets the constraint."""
        small, large = self.translate(left, where), self.translate(right, where)
        value = self._recorder.add([small, self._recorder.scale(-1.0, large)])
        if row.side == "equality" and not isinstance(value, float) and not self.touches_variables(value):
            raise al.ProblemError(f"{where} is an equation between parameters alone; it leaves them no freedom")
        if not isinstance(value, float):
            self.add(value, row)
            self._sides.append((left, right))
        elif not (abs(value) if row.side == "equality" else value) <= SATISFIED:
            raise al.ProblemError(f"{where} has no variable that is not fixed, and is violated by {abs(value):.3g}")

    @property
    def tree(self) -> int:
        """Number of operations of all functions, written as trees."""
        return self._translator.tree

    def stated(self) -> list[float]:
        """Return the differences as Pyomo itself evaluates them at the values in the model, NaN where it cannot."""
        pairs = ([pyo.value(side, exception=False) for side in sides] for sides in self._sides)
        return [math.nan if None in pair else float(pair[0] - pair[1]) for pair in pairs]

    def program(self, variables: int) -> Program:
        """Return the program of all functions."""
        return self._recorder.program(self._values, variables)

    def touches_variables(self, value: Scalar) -> bool:
        """Say whether a value depends on the variables."""
        return self._recorder.degree(value) > 0
