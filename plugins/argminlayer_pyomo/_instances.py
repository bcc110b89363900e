"""Instances of a bound problem as a Pyomo model and the numbers that belong into it."""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

import argminlayer as al

from ._model import PyomoModel
from ._program import Vector
from ._vocabulary import is_read
from ._write import build

TINY = 1e-4
"""Objectives whose gradient at the start is smaller than this are scaled up."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One instance.

    Attributes:
        model: the model, which other instances share.
        parameters: (k,) values of all its parameters.
        start: (n,).
        lower: (n,), ``-inf`` where there is no bound.
        upper: (n,).
        scale: what the objective is to be multiplied by, 1 unless its gradient is tiny: tolerances are absolute.
    """

    model: PyomoModel
    parameters: Vector
    start: Vector
    lower: Vector
    upper: Vector
    scale: float = 1.0


def solve_instances(problem: al.BoundProblem, start: Tensor, solve_one: Callable[[Instance], al.Point]) -> al.Candidate:
    """Solve a batch with a solver of single instances, one after another."""
    points: dict[int, al.Point] = {}
    scales = _scales(problem, start)
    for model, parameters, position in models(problem):
        lower, upper = (bound[position].cpu().numpy() for bound in (problem.lower, problem.upper))
        begin = start[position].detach().cpu().numpy()
        if np.any(lower > upper):
            message = "a lower bound exceeds its upper bound"
            points[position] = al.Point(torch.from_numpy(begin), al.Status.INFEASIBLE, message=message)
        else:
            points[position] = solve_one(Instance(model, parameters, begin, lower, upper, scales[position]))
    return al.stack_points([points[i] for i in range(problem.batch)], problem, start)


def _scales(problem: al.BoundProblem, start: Tensor) -> list[float]:
    if problem.problem.objective is None:
        return [1.0] * problem.batch
    size = problem.gradient(start)[1].abs().amax(-1)
    tiny = (size > 0) & (size < TINY)
    scales: list[float] = torch.where(tiny, 1.0 / size, 1.0).tolist()
    return scales


def models(problem: al.BoundProblem) -> Iterator[tuple[PyomoModel, Vector, int]]:
    """Yield model and parameters of every instance, and its position in the batch."""
    structure = problem.problem.structure
    if structure is not None and is_read(problem):
        for i in range(problem.batch):
            row = [p if s else p[i] for p, s in zip(problem.parameters, problem.layout.shared, strict=True)]
            flat = torch.cat([p.reshape(-1).to(torch.float64) for p in row]) if row else torch.zeros(0)
            yield structure.data["model"], flat.cpu().numpy(), i
        return
    for algebra in al.algebra.record(problem):
        model = _written.get(algebra.key, functools.partial(build, problem, algebra))
        for values, i in zip(algebra.values.cpu().numpy(), algebra.instances.tolist(), strict=True):
            yield model, values, i


_written: al.algebra.ModelCache[PyomoModel] = al.algebra.ModelCache()


@contextmanager
def loaded(instance: Instance) -> Iterator[Any]:
    """Lend the model, with the values of an instance put in, to one thread at a time.

    Raises:
        ValueError: a value is outside the domain that the model declares for a Param.
    """
    held = instance.model
    with _lock:
        lock = _locks.setdefault(held, Lock())
    with lock:
        for element, value in zip(_elements(held.parameters), instance.parameters.tolist(), strict=True):
            if element.is_variable_type():
                element.set_value(value, skip_validation=True)
            else:
                element.set_value(value)
        for element, value in zip(_elements(held.variables), instance.start.tolist(), strict=True):
            element.set_value(value, skip_validation=True)
        if held.bounds_vary:
            _set_bounds(instance)
        yield held.model


def _set_bounds(instance: Instance) -> None:
    limits = zip(instance.lower.tolist(), instance.upper.tolist(), strict=True)
    for element, (lower, upper) in zip(_elements(instance.model.variables), limits, strict=True):
        element.setlb(lower if math.isfinite(lower) else None)
        element.setub(upper if math.isfinite(upper) else None)


def values(model: PyomoModel) -> Tensor:
    """Return the values of all unknowns, as they stand in the model."""
    return torch.tensor([element.value for element in _elements(model.variables)], dtype=torch.float64)


def multipliers(model: PyomoModel, duals: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Return multipliers in our signs from duals by the names of the constraints.

    Pyomo's dual is the derivative of the objective, in its own sense, in the right-hand side: minus the multiplier of
    ``body = rhs`` when minimising. The dual of a range belongs to the side that its sign says.
    """
    sense = 1.0 if model.maximize else -1.0
    equality = [sense * duals.get(row.name, 0.0) for row in model.equalities]
    side = {"upper": sense, "lower": -sense}
    inequality = [max(side[row.side] * duals.get(row.name, 0.0), 0.0) for row in model.inequalities]
    return torch.tensor(equality, dtype=torch.float64), torch.tensor(inequality, dtype=torch.float64)


def _elements(components: Any) -> Iterator[Any]:
    return (element for component in components for element in component.elements)


_locks: "WeakKeyDictionary[PyomoModel, Lock]" = WeakKeyDictionary()
_lock = Lock()
