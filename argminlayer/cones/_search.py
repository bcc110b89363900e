"""Solving a batch of cone programs: choose a solver, judge and refine its answers, prove what has no solution."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _registry
from .._errors import SolverError
from .._qp_search import SOLVED, check_shapes, why_unsolved
from .._qp_solver import AbstractQuadraticSolver
from .._registry import Registry
from .._select import AUTO, FALLBACKS, called, requested, with_options
from .._solution import Status
from .._solver import AbstractSolver
from ._certificate import Measured, Programs, largest, measure, units
from ._form import ConeForm
from ._infeasible import Ask, proves_infeasible, proves_unbounded
from ._linear import LinearCones
from ._pattern import Array
from ._programs import AnySystem, matrices_of
from ._refine import refine
from ._solver import AbstractConeSolver, ConeAnswer
from ._unattained import settled


@dataclass(frozen=True, eq=False)
class ConeFound:
    """What was found for every instance.

    Attributes:
        programs: the batch.
        point: the refined points and their residuals.
        status: (batch,).
        iterations: (batch,).
        messages: the solver's own words.
        solver: who solved, or the names of those tried.
        seconds: wall time.
        system: the KKT systems at the points, if they are at hand.
    """

    programs: Programs
    point: Measured
    status: Array
    iterations: Array
    messages: tuple[str, ...]
    solver: str
    seconds: float = 0.0
    system: AnySystem | None = None


def programs_of(form: ConeForm) -> Programs:
    """Return the numbers of a form as tensors."""
    P, q, A, b = (torch.from_numpy(part) for part in (form.P, form.q, form.A, form.b))
    return Programs.of(form.pattern.cones, matrices_of(form.pattern, P, A), q, b)


def cone_family(solver: str | AbstractSolver | None) -> tuple[AbstractConeSolver, ...]:
    """Return the solvers of cone programs that a request stands for, none when it stands for others."""
    request = requested(solver)
    if isinstance(request, AbstractSolver):
        return _as_cone_solver(request)
    registry = _registry.load()
    found = called(request, registry.solvers)
    return _family(registry, request) if found is None else _as_cone_solver(found)


def _as_cone_solver(solver: AbstractSolver) -> tuple[AbstractConeSolver, ...]:
    if isinstance(solver, AbstractQuadraticSolver):
        return (LinearCones(solver),)
    return (solver,) if isinstance(solver, AbstractConeSolver) else ()


@functools.lru_cache(maxsize=256)
def _family(registry: Registry, request: str) -> tuple[AbstractConeSolver, ...]:
    named = [s for name, s in registry.solvers.items() if request in (AUTO, name.partition(".")[0]) and s.available()]
    if request == AUTO and any(isinstance(one, AbstractConeSolver) for one in named):
        # others are asked with dense matrices, which would cost more than solving
        named = [one for one in named if isinstance(one, AbstractConeSolver)]
    return tuple(solver for one in named for solver in _as_cone_solver(one))


def choose_cones(
    form: ConeForm, family: tuple[AbstractConeSolver, ...], options: Mapping[str, Any] | None
) -> tuple[AbstractConeSolver, ...]:
    """Return the solvers to try in turn, the best suited first.

    Raises:
        SolverError: none can be used, or the options are wrong.
    """
    reasons = {solver.name: missing(solver) or solver.refuses(form) for solver in family}
    usable = [solver for solver in family if not reasons[solver.name]]
    if not usable:
        listing = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SolverError(
            f"no solver of cone programs can be used ({listing or 'none is installed'}); pip install "
            "'argminlayer[cvxpy]' brings some"
        )
    usable.sort(key=lambda solver: (-solver.suits(form), solver.name))
    if options:
        best = usable[0]
        return (
            LinearCones(with_options(best.solver, options))
            if isinstance(best, LinearCones)
            else with_options(best, options),
        )
    return tuple(usable[: FALLBACKS + 1])


@functools.lru_cache(maxsize=256)
def missing(solver: AbstractConeSolver) -> str:
    """Return what must be installed, nothing where all is."""
    return solver.available().reason


def search_cones(form: ConeForm, chain: tuple[AbstractConeSolver, ...], start: ConeAnswer | None = None) -> ConeFound:
    """Solve every instance with the first solver, and what it leaves unsolved and unproved with the next ones."""
    began = time.perf_counter()
    finite = _finite(form)
    if not finite.all():
        best = _apart(form, finite, chain, start)
    else:
        best = _attempt(form, programs_of(form), chain[0], start)
        if best.status.any():
            best = _continued(form, best, chain)
    return replace(best, seconds=time.perf_counter() - began)


def _finite(form: ConeForm) -> Array:
    """Return which instances consist of numbers, (batch,)."""
    fine = np.ones(form.batch, dtype=bool)
    for part in (form.P, form.q, form.A, form.b):
        if not np.isfinite(part.sum()):
            fine &= np.isfinite(part).all(1)
    return fine


def _apart(form: ConeForm, finite: Array, chain: tuple[AbstractConeSolver, ...], start: ConeAnswer | None) -> ConeFound:
    """Solve programs without entries in the place of those that are not finite, and say of these what they are."""
    P, q, A, b = (
        np.where(finite[:, None] if len(part) > 1 else np.isfinite(part).all(), part, 0.0)
        for part in (form.P, form.q, form.A, form.b)
    )
    found = search_cones(ConeForm(form.pattern, P, q, A, b, form.batch), chain, start)
    return replace(found, status=np.where(finite, found.status, int(Status.NOT_FINITE)))


def _attempt(
    form: ConeForm, programs: Programs, solver: AbstractConeSolver, start: ConeAnswer | None = None
) -> ConeFound:
    answer, point, near = _asked(form, programs, solver, start)
    failed = ~(point.worst <= SOLVED).numpy()
    status = np.zeros(form.batch, dtype=np.int64)
    ask = functools.partial(_ask, solver)
    if failed.any():
        status = np.where(failed, why_unsolved(answer.status, point.feasibility.numpy(), point.worst.numpy()), status)
        status = _explained(form, programs, answer, status, ask)
    system = None
    if not (form.pattern.cones.is_linear or failed.all()):
        if near is None:
            near = system = programs.matrices.system(point.faces(programs.cones), point.gamma, weak_active=True)
        said, point = settled(form, programs, point, near, ask)
        status = np.where(failed, status, said)
    return ConeFound(programs, point, status, answer.iterations, answer.messages, solver.name, system=system)


def _asked(
    form: ConeForm, programs: Programs, solver: AbstractConeSolver, start: ConeAnswer | None = None
) -> tuple[ConeAnswer, Measured, AnySystem | None]:
    """Return what a solver answers, what refinement makes of it, and KKT systems near there if they are at hand."""
    answer = _called(form, solver, start)
    x, s, z = (torch.from_numpy(np.ascontiguousarray(part)) for part in answer[:3])
    gamma = units(s, z, 1.0 + largest(x), programs.force(programs.matrices.P_times(x)))
    return answer, *refine(programs, measure(programs, x, s - gamma[:, None] * z, gamma, s))


def _called(form: ConeForm, solver: AbstractConeSolver, start: ConeAnswer | None) -> ConeAnswer:
    answer = solver.solve_cones(form, start)
    n, m = form.pattern.size, form.pattern.cones.rows
    check_shapes(solver, answer, {"value": n, "slack": m, "multipliers": m}, form.batch)
    return answer


def _ask(solver: AbstractConeSolver, other: ConeForm) -> tuple[Tensor, Tensor]:
    """Return x and z of other programs by a solver, or by others where it refuses them; zeros where all do."""
    able = [s for s in (solver, *cone_family(AUTO)) if not (missing(s) or s.refuses(other))]
    if not able:
        return torch.zeros(other.batch, other.pattern.size), torch.zeros(other.batch, other.pattern.cones.rows)
    _, point, _ = _asked(other, programs_of(other), able[0])
    return point.x, point.z


def _explained(form: ConeForm, programs: Programs, answer: ConeAnswer, status: Array, ask: Ask) -> Array:
    """Prove instances that are not solved infeasible or unbounded where they are."""
    status = np.array(status)
    for code, proves, offered in (
        (Status.INFEASIBLE, proves_infeasible, answer.multipliers),
        (Status.UNBOUNDED, proves_unbounded, answer.value),
    ):
        open_ = np.flatnonzero((status != Status.SOLVED) & (status != Status.INFEASIBLE))
        if len(open_):
            part = programs.select(torch.from_numpy(open_))
            proved = proves(form.select(open_), part, np.ascontiguousarray(offered)[open_], ask)
            status[open_[proved]] = code
    return status


_DECIDED = (Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED)


def _continued(form: ConeForm, best: ConeFound, chain: tuple[AbstractConeSolver, ...]) -> ConeFound:
    for solver in chain[1:]:
        open_ = np.flatnonzero(~np.isin(best.status, _DECIDED))
        if not len(open_):
            break
        trial = _attempt(form.select(open_), best.programs.select(torch.from_numpy(open_)), solver)
        best = _merged(best, trial, open_)
    return best


def _merged(best: ConeFound, trial: ConeFound, index: Array) -> ConeFound:
    """Return what is best where the trial is of the instances in ``index`` and won some."""
    wins = np.isin(trial.status, _DECIDED)
    to, of = torch.from_numpy(index[wins]), torch.from_numpy(np.flatnonzero(wins))
    status, iterations, words = np.array(best.status), np.array(best.iterations), list(best.messages)
    status[index[wins]], iterations[index[wins]] = trial.status[wins], trial.iterations[wins]
    for i, message in zip(index[wins], np.array(trial.messages, dtype=object)[wins], strict=True):
        words[i] = message
    point = best.point.merged(to, trial.point.select(of))
    return ConeFound(best.programs, point, status, iterations, tuple(words), f"{best.solver}, {trial.solver}")
