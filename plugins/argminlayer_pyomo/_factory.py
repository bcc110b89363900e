"""Solvers by their names in Pyomo's ``SolverFactory``, which runs them in its own way."""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from threading import Lock
from typing import Any

import pyomo.environ as pyo
import torch
from pyomo.common.errors import ApplicationError, PyomoException
from pyomo.common.tempfiles import TempfileManager
from pyomo.opt import TerminationCondition as Condition
from torch import Tensor

import argminlayer as al

from ._instances import Instance, loaded, multipliers, solve_instances, values
from ._solvers import Highs, Named


def why_not_available(name: str, executable: str | None) -> str | None:
    """Return why Pyomo cannot run a solver, None when it can."""
    try:
        _import_registering_package(name)
        if name not in pyo.SolverFactory and shutil.which(executable or name) is None:
            near = difflib.get_close_matches(name, pyo.SolverFactory)
            meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            return f"Pyomo knows no solver {name!r}, and there is no program of this name on the PATH{meant}"
        there = bool(_factory(name, executable).available(exception_flag=False))
    except (ApplicationError, PyomoException, OSError) as error:
        return f"Pyomo's solver {name!r} cannot run: {error}"
    return None if there else f"Pyomo's solver {name!r} is not installed, or its licence or executable is missing"


def solve_batch(solver: Named | Highs, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
    """Solve every instance, one after another."""
    return solve_instances(problem, start, functools.partial(_solve_one, solver))


def _solve_one(solver: Named | Highs, instance: Instance) -> al.Point:
    name = solver.solver if isinstance(solver, Named) else "highs"
    factory = _factory(name, solver.executable if isinstance(solver, Named) else None)
    limit = {} if solver.time_limit is None else {"timelimit": solver.time_limit}
    point = functools.partial(al.Point, torch.from_numpy(instance.start))
    try:
        with _running, loaded(instance) as model, _own_files(), _suffix(model) as duals:
            results = factory.solve(model, load_solutions=False, **limit)
            condition = results.solver.termination_condition
            status = _STATUS.get(condition, al.Status.BREAKDOWN)
            message = f"{name} by Pyomo: {condition}"
            if status not in _WITH_A_POINT:
                return point(status, message=message)
            if len(results.solution) == 0:
                return point(status if status != al.Status.SOLVED else al.Status.BREAKDOWN, message=message)
            model.solutions.load_from(results)
            found = values(instance.model)
            if not isinstance(solver, Highs):
                return al.Point(found, status, message=message)
            nu, lam = multipliers(instance.model, {data.name: float(dual) for data, dual in duals.items()})
            return al.Point(found, status, nu, lam, message=message)
    except (ApplicationError, PyomoException, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        return point(al.Status.BREAKDOWN, message=f"{name} by Pyomo raised {type(error).__name__}: {error}")
    except subprocess.TimeoutExpired as error:
        return point(al.Status.TIME_LIMIT, message=f"{name} by Pyomo: {error}")


_WITH_A_POINT = (al.Status.SOLVED, al.Status.NOT_STATIONARY, al.Status.MAX_ITERATIONS, al.Status.TIME_LIMIT)
_STATUS = {
    Condition.optimal: al.Status.SOLVED,
    Condition.locallyOptimal: al.Status.SOLVED,
    Condition.globallyOptimal: al.Status.SOLVED,
    Condition.feasible: al.Status.NOT_STATIONARY,
    Condition.infeasible: al.Status.INFEASIBLE,
    Condition.unbounded: al.Status.UNBOUNDED,
    Condition.infeasibleOrUnbounded: al.Status.INFEASIBLE,
    Condition.maxIterations: al.Status.MAX_ITERATIONS,
    Condition.maxEvaluations: al.Status.MAX_ITERATIONS,
    Condition.maxTimeLimit: al.Status.TIME_LIMIT,
}


_running = Lock()
"""Pyomo captures the output of the whole process while a solver runs, and keeps one stack of temporary files."""


def _factory(name: str, executable: str | None) -> Any:
    _import_registering_package(name)
    return pyo.SolverFactory(name, **({} if executable is None else {"executable": executable}))


def _import_registering_package(name: str) -> None:
    """Import ``pyomo_NAME`` if there is such a package: it registers a solver when it is imported."""
    package = f"pyomo_{name}"
    if package.isidentifier() and importlib.util.find_spec(package) is not None:
        importlib.import_module(package)


@contextlib.contextmanager
def _own_files() -> Iterator[None]:
    """Remove the temporary files of a solve, also when it raises: Pyomo itself then leaves them."""
    own = TempfileManager.push()
    try:
        yield
    finally:
        while TempfileManager.context() is not own:
            TempfileManager.pop()
        TempfileManager.pop()


@contextlib.contextmanager
def _suffix(model: Any) -> Iterator[Any]:
    """Give the model a place for duals while it is solved."""
    there = model.component("dual")
    if there is not None:
        model.del_component(there)
    model.add_component("dual", pyo.Suffix(direction=pyo.Suffix.IMPORT))
    try:
        yield model.component("dual")
    finally:
        model.del_component("dual")
        if there is not None:
            model.add_component("dual", there)
