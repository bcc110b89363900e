"""Solving a batch of quadratic programs: choose a solver, judge its answers, try the next, prove what has none."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _registry
from ._errors import SolverError
from ._qp_certificate import Residuals, measure
from ._qp_form import Array, QuadraticForm, within_bounds
from ._qp_infeasible import proves_infeasible, proves_unbounded
from ._qp_polish import polish
from ._qp_solver import AbstractQuadraticSolver, QuadraticAnswer
from ._registry import Registry
from ._select import AUTO, FALLBACKS, requested, with_options
from ._solution import Status
from ._solver import AbstractSolver

SOLVED = 1e-6
"""Largest residual of a solution, as for any other problem."""


class QuadraticFound(NamedTuple):
    """What was found for every instance.

    Attributes:
        value: (batch, n).
        multipliers: (batch, s).
        residuals: what was measured there.
        status: (batch,).
        iterations: (batch,).
        messages: the solver's own words.
        solver: who solved, or the names of those tried.
        seconds: wall time.
    """

    value: Array
    multipliers: Array
    residuals: Residuals
    status: Array
    iterations: Array
    messages: tuple[str, ...]
    solver: str
    seconds: float = 0.0


def quadratic_family(solver: str | AbstractSolver | None) -> tuple[AbstractQuadraticSolver, ...]:
    """Return the solvers of quadratic programs that a request stands for, none when it stands for others."""
    request = requested(solver)
    if isinstance(request, AbstractSolver):
        return (request,) if isinstance(request, AbstractQuadraticSolver) else ()
    return _family(_registry.load(), request)


@functools.lru_cache(maxsize=256)
def _family(registry: Registry, request: str) -> tuple[AbstractQuadraticSolver, ...]:
    return tuple(
        solver
        for name, solver in registry.solvers.items()
        if request in (AUTO, name, name.partition(".")[0])
        and isinstance(solver, AbstractQuadraticSolver)
        and (request == name or solver.available())
    )


def choose_quadratic(
    form: QuadraticForm, family: tuple[AbstractQuadraticSolver, ...], options: Mapping[str, Any] | None
) -> tuple[AbstractQuadraticSolver, ...]:
    """Return the solvers to try in turn, the best suited first.

    Raises:
        SolverError: the only one asked for is not installed or refuses the programs, or the options are wrong.
    """
    if len(family) == 1:
        solver = with_options(family[0], options)
        reason = missing(solver) or solver.refuses(form)
        if reason:
            raise SolverError(f"solver {solver.name!r} cannot be used: {reason}")
        return (solver,)
    usable = [solver for solver in family if solver.refuses(form) is None]
    usable.sort(key=lambda solver: (-solver.suits(form), solver.name))
    if options and usable:
        return (with_options(usable[0], options),)
    return tuple(usable[: FALLBACKS + 1])


@functools.lru_cache(maxsize=256)
def missing(solver: AbstractQuadraticSolver) -> str:
    """Return what must be installed, nothing where all is; looked up once, for it takes longer than a small program."""
    return solver.available().reason


def search_quadratic(form: QuadraticForm, chain: tuple[AbstractQuadraticSolver, ...]) -> QuadraticFound:
    """Solve every instance with the first solver, and what it leaves unsolved and unproved with the next ones."""
    began = time.perf_counter()
    best = _attempt(form, chain[0])
    if best.status.any():
        best = _continued(form, best, chain)
    return best._replace(seconds=time.perf_counter() - began)


def _continued(form: QuadraticForm, best: QuadraticFound, chain: tuple[AbstractQuadraticSolver, ...]) -> QuadraticFound:
    best = _explained(form, best, chain)
    for solver in chain[1:]:
        open_ = np.flatnonzero(~np.isin(best.status, _DECIDED))
        if len(open_) == 0:
            break
        best = _merged(form, best, _attempt(form.select(open_), solver), open_)
    return best


_DECIDED = (Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED, Status.NOT_FINITE)


def _attempt(form: QuadraticForm, solver: AbstractQuadraticSolver) -> QuadraticFound:
    answer = _called(form, solver)
    value = within_bounds(form, answer.value)
    u, y, residuals = polish(form, value, answer.multipliers, measure(form, value, answer.multipliers))
    status = np.zeros(form.batch, dtype=np.int64)
    failed = ~(residuals.worst <= SOLVED)
    if failed.any():
        status = np.where(failed, why_unsolved(answer.status, residuals.feasibility, residuals.worst), status)
    return QuadraticFound(u, y, residuals, status, answer.iterations, answer.messages, solver.name)


def _called(form: QuadraticForm, solver: AbstractQuadraticSolver) -> QuadraticAnswer:
    answer = solver.solve_quadratic(form)
    check_shapes(solver, answer, {"value": form.size, "multipliers": form.height}, form.batch)
    return answer


def check_shapes(solver: AbstractSolver, answer: Any, widths: Mapping[str, int], batch: int) -> None:
    """Refuse answers with arrays of wrong shapes.

    Raises:
        SolverError: names the array, and its shape.
    """
    shapes: dict[str, tuple[int, ...]] = {name: (batch, width) for name, width in widths.items()}
    for name, shape in (shapes | {"status": (batch,)}).items():
        found = np.shape(getattr(answer, name))
        if found != shape:
            raise SolverError(
                f"solver {solver.name!r} returned {name} of shape {found} instead of {shape}; this is a fault of the "
                "plugin that provides it"
            )


def why_unsolved(claimed: Array, feasibility: Array, worst: Array) -> Array:
    """Return what the solver says of the instances that are not solved, or what is wrong with its answers, (batch,).

    That an instance is infeasible or unbounded is not believed; it is proved, or not said.

    Args:
        claimed: what the solver thinks.
        feasibility: residuals of the constraints.
        worst: the largest residuals.
    """
    known = np.isin(claimed, (Status.MAX_ITERATIONS, Status.TIME_LIMIT, Status.BREAKDOWN))
    seen = np.where(feasibility <= SOLVED, int(Status.NOT_STATIONARY), int(Status.NOT_FEASIBLE))
    seen = np.where(np.isfinite(worst), seen, int(Status.BREAKDOWN))
    return np.where(known, claimed, seen)


def _explained(
    form: QuadraticForm, found: QuadraticFound, chain: tuple[AbstractQuadraticSolver, ...]
) -> QuadraticFound:
    """Prove instances that are not solved infeasible or unbounded where they are."""
    status = np.where(form.finite() | (found.status == Status.SOLVED), found.status, int(Status.NOT_FINITE))
    open_ = np.flatnonzero((status != Status.SOLVED) & (status != Status.NOT_FINITE))
    part = form.select(open_)
    infeasible = proves_infeasible(part, found.multipliers[open_], chain)
    unbounded = np.zeros(len(open_), dtype=bool)
    rest = np.flatnonzero(~infeasible)
    if len(rest):
        unbounded[rest] = proves_unbounded(part.select(rest), found.value[open_][rest], chain)
    status[open_[infeasible]] = Status.INFEASIBLE
    status[open_[unbounded]] = Status.UNBOUNDED
    return found._replace(status=status)


def _merged(form: QuadraticForm, best: QuadraticFound, trial: QuadraticFound, index: Array) -> QuadraticFound:
    wins = trial.status == Status.SOLVED
    to = index[wins]
    u, y, status, iterations = (np.array(a) for a in (best.value, best.multipliers, best.status, best.iterations))
    u[to], y[to], status[to], iterations[to] = (
        a[wins] for a in (trial.value, trial.multipliers, trial.status, trial.iterations)
    )
    words = list(best.messages)
    for i, won in zip(index, wins, strict=True):
        if won:
            words[i] = trial.messages[int(np.flatnonzero(index == i)[0])]
    residuals = measure(form, u, y) if len(to) else best.residuals
    return QuadraticFound(u, y, residuals, status, iterations, tuple(words), f"{best.solver}, {trial.solver}")


def search_apart(
    form: QuadraticForm,
    usable: Array,
    chain_of: Callable[[QuadraticForm], tuple[AbstractQuadraticSolver, ...]],
) -> QuadraticFound:
    """Solve the usable instances (batch,); the others are not convex and left out."""
    index = np.flatnonzero(usable)
    status = np.full(form.batch, int(Status.NOT_CONVEX))
    u, y = np.zeros((form.batch, form.size)), np.zeros((form.batch, form.height))
    iterations, words, name = np.full(form.batch, -1), [""] * form.batch, ""
    if len(index):
        part = form.select(index)
        found = search_quadratic(part, chain_of(part))
        u[index], y[index], status[index] = found.value, found.multipliers, found.status
        iterations[index], name = found.iterations, found.solver
        for i, message in zip(index, found.messages, strict=True):
            words[i] = message
    return QuadraticFound(u, y, measure(form, u, y), status, iterations, tuple(words), name)
