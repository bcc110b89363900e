"""The check that a model that was read computes what Pyomo computes, at two points."""

import math
from collections.abc import Sequence

import pyomo.environ as pyo
import torch

import argminlayer as al

from ._arithmetic import TorchArithmetic
from ._model import PyomoModel
from ._rows import Rows

LARGEST_TREE = 1_000_000
"""Operations that Pyomo may take for a check. Named expressions that are read twice at every step have many more."""
TOLERANCE = 1e-8
"""Largest relative difference between a program and Pyomo's own evaluation."""


def verify(model: PyomoModel, functions: Sequence[Rows]) -> None:
    """Compare the translated functions with Pyomo's values at the start and at another point.

    Without values of all parameters there is nothing to compare with, and what takes
    Pyomo too long is left out. The values in the model are left as they were.

    Raises:
        ProblemError: they differ; names the first constraint that does.
    """
    variables, parameters = ([e for c in group for e in c.elements] for group in (model.variables, model.parameters))
    values = [pyo.value(element, exception=False) for element in parameters]
    if None in values:
        return
    p = torch.tensor(values, dtype=torch.float64)
    programs = [(rows, rows.program(len(variables))) for rows in functions if rows.tree <= LARGEST_TREE]
    before = [element.value for element in variables]
    start = torch.tensor([0.5 if value is None else value for value in before], dtype=torch.float64)
    try:
        for u in (start, 1.01 * start + 1e-3):
            for element, value in zip(variables, u.tolist(), strict=True):
                element.set_value(value, skip_validation=True)
            for rows, program in programs:
                _compare(rows, rows.stated(), program.run(TorchArithmetic(u), u, p).tolist())
    finally:
        for element, value in zip(variables, before, strict=True):
            element.set_value(value, skip_validation=True)


def _compare(rows: Rows, stated: Sequence[float], found: Sequence[float]) -> None:
    scale = 1.0 + max((abs(value) for value in stated if math.isfinite(value)), default=0.0)
    for row, expected, value in zip(rows.rows, stated, found, strict=True):
        if math.isfinite(expected) and not abs(value - expected) <= TOLERANCE * scale:
            raise al.ProblemError(
                f"{row.name} has the value {expected!r} in Pyomo, but {value!r} in its translation; this is a fault of "
                "the plugin: please report the model"
            )
