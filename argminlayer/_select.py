"""Which solver a problem gets: by name, by plugin, or automatically."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from . import _registry
from ._bound import BoundProblem
from ._errors import SolverError, near_matches
from ._solver import AbstractSolver

S = TypeVar("S", bound=AbstractSolver)

AUTO = "auto"
ENVIRONMENT = "ARGMINLAYER_SOLVER"
FALLBACKS = 2
"""How many further solvers automatic choice may try on the instances that the first does not solve."""

_context: ContextVar["str | AbstractSolver | None"] = ContextVar("argminlayer_solver", default=None)


@contextlib.contextmanager
def use_solver(solver: str | AbstractSolver) -> Iterator[None]:
    """Use ``solver`` for every solve inside the ``with`` block whose call does not name one itself.

    Takes precedence over what layers were built with and over the environment variable ``ARGMINLAYER_SOLVER``; it is
    local to the thread or task.

    Raises:
        SolverError: at entry, when there is no such solver.
    """
    check_name(solver)
    token = _context.set(solver)
    try:
        yield
    finally:
        _context.reset(token)


@dataclass(frozen=True)
class Verdict:
    """What was found about one installed solver for one problem: ``reason`` says why it cannot be used, if so."""

    solver: AbstractSolver
    reason: str | None
    preference: float


@dataclass(frozen=True)
class Choice:
    """Solvers in the order in which they are tried, the later ones on what the earlier ones leave unsolved."""

    chain: tuple[AbstractSolver, ...]
    why: str


def describe(bound: BoundProblem) -> str:
    """Return the class of a problem in a line of words."""
    kind = {"smooth": "smooth objective", "least-squares": "least squares", "none": "feasibility"}
    problem = bound.problem
    parts = [
        ("maximise, " if problem.maximize else "") + kind[problem.objective_kind],
        _count(bound.size, "variable"),
        _count(bound.equalities, "equality", "equalities") if bound.equalities else "",
        _count(bound.inequalities, "inequality", "inequalities") if bound.inequalities else "",
        "bounds" if "bounds" in problem.constraints else "",
        "" if problem.constraints else "unconstrained",
        f"batch of {bound.batch}" if bound.layout.batch_shape else "one instance",
    ]
    return ", ".join(part for part in parts if part)


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def choose(
    bound: BoundProblem, solver: str | AbstractSolver | None, options: Mapping[str, Any] | None = None
) -> Choice:
    """Return the solvers to try.

    Args:
        bound: the problem.
        solver: a solver, its name, the name of a plugin (which then picks among its own), ``"plugin:name"`` for a
            plugin that reaches solvers by names of their own, ``"auto"``, or None for what
            :func:`use_solver` or ``ARGMINLAYER_SOLVER`` say, else ``"auto"``.
        options: fields of the solver to replace.

    Raises:
        SolverError: no such solver, back end missing, problem not supported, or an unknown option.
    """
    request = requested(solver)
    if isinstance(request, AbstractSolver):
        return _single(bound, with_options(request, options))
    solvers = _registry.load().solvers
    found = called(request, solvers)
    if found is not None:
        return _single(bound, with_options(found, options))
    family = [s for name, s in solvers.items() if request in (AUTO, name.partition(".")[0])]
    if not family and request == AUTO:
        raise SolverError(
            "no plugin with solvers is installed or enabled, so no installed solver can solve the problem; "
            "`argminlayer plugins` shows what was found and what failed"
        )
    if not family:
        origin = "" if solver else f" (asked for by the environment variable {ENVIRONMENT})"
        raise SolverError(_unknown(request, solvers, origin))
    return _best(bound, request, family, options)


def requested(solver: str | AbstractSolver | None) -> str | AbstractSolver:
    """Return what is asked for: by the call, else by :func:`use_solver`, the environment, or automatic choice."""
    request = solver or _context.get() or os.environ.get(ENVIRONMENT) or AUTO
    if not isinstance(request, str | AbstractSolver):
        raise SolverError(
            f"solver must be a name or a solver, 'scipy.slsqp' or an instance such as SLSQP(), not {request!r}"
        )
    return request


def layer_solver(call: str | AbstractSolver | None, own: str | AbstractSolver | None) -> str | AbstractSolver | None:
    """Return the solver of a layer's call: the call's, else that of :func:`use_solver`, else the layer's own."""
    return call or _context.get() or own


def check_name(solver: str | AbstractSolver | None) -> None:
    """Refuse what is not a solver, and the name of a solver or plugin that is not installed.

    Raises:
        SolverError: with near matches and what is installed.
    """
    if solver is None or isinstance(requested(solver), AbstractSolver):
        return
    solvers = _registry.load().solvers
    is_plugin = any(solver == name.partition(".")[0] for name in solvers)
    if solver != AUTO and not is_plugin and called(str(solver), solvers) is None:
        raise SolverError(_unknown(str(solver), solvers))


def called(name: str, solvers: Mapping[str, AbstractSolver]) -> AbstractSolver | None:
    """Return the solver of a full name, or of a plugin that reaches others by name: ``"plugin:name"``."""
    plugin, _, own = name.partition(":")
    if name in solvers or not own:
        return solvers.get(name)
    family = (type(s) for key, s in solvers.items() if key.partition(".")[0] == plugin)
    return next((found for found in (kind.called(own) for kind in family) if found is not None), None)


def _single(bound: BoundProblem, solver: AbstractSolver) -> Choice:
    verdict = verdict_of(solver, bound)
    if verdict.reason:
        raise SolverError(
            f"solver {solver.name!r} cannot be used: {verdict.reason}; the problem: {describe(bound)}. "
            "`al.explain(problem, *parameters)` lists the solvers that can"
        )
    return Choice((solver,), f"{solver.name}, as asked")


def _best(bound: BoundProblem, request: str, family: list[AbstractSolver], options: Mapping[str, Any] | None) -> Choice:
    verdicts: list[Verdict] = []
    usable: list[Verdict] = []
    for limit, solver in sorted(((_limit(s, bound), s) for s in family), key=lambda pair: -pair[0]):
        if len(usable) > FALLBACKS and usable[FALLBACKS].preference > limit:
            break
        verdicts.append(verdict_of(solver, bound))
        usable = sorted((v for v in verdicts if v.reason is None), key=lambda v: (-v.preference, v.solver.name))
    if not usable:
        listing = "; ".join(f"{v.solver.name}: {v.reason}" for v in verdicts)
        what = "installed solver" if request == AUTO else f"solver of the plugin {request!r}"
        raise SolverError(f"no {what} can solve the problem ({describe(bound)}): {listing}")
    chain = tuple(v.solver for v in usable[: FALLBACKS + 1])
    among = len(usable) if len(verdicts) == len(family) else "the"
    why = f"{chain[0].name}, preference {usable[0].preference:g}, the highest of {among} usable solvers"
    if len(chain) > 1:
        why += f"; for instances it does not solve: {', then '.join(s.name for s in chain[1:])}"
    if options:
        chosen = _single(bound, with_options(chain[0], options)).chain
        return Choice(chosen, f"{chain[0].name} with options {dict(options)}")
    return Choice(chain, why)


def verdict_of(solver: AbstractSolver, bound: BoundProblem) -> Verdict:
    """Return whether a solver can solve a problem, and how well it suits it."""
    try:
        available = solver.available()
        reason = available.reason if not available else solver.supports(bound)
        return Verdict(solver, reason, 0.0 if reason else solver.preference(bound))
    except Exception as error:  # noqa: BLE001 - a broken plugin is reported and harms no other
        return Verdict(solver, f"its plugin is broken: {type(error).__name__}: {error}", 0.0)


def _limit(solver: AbstractSolver, bound: BoundProblem) -> float:
    """Return what the preference of a solver does not exceed."""
    try:
        return solver.preference_limit(bound)
    except Exception:  # noqa: BLE001 - what is wrong with a broken plugin is said of its verdict
        return math.inf


def with_options(solver: S, options: Mapping[str, Any] | None) -> S:
    """Return the solver with some of its options replaced.

    Raises:
        SolverError: it has no such option, or refuses its value.
    """
    if not options:
        return solver
    known = [f.name for f in dataclasses.fields(solver) if f.init]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise SolverError(
                f"solver {solver.name!r} has no option {name!r}.{near_matches(name, known)} Its options: "
                f"{', '.join(known) or 'none'}"
            )
    try:
        replaced: S = dataclasses.replace(solver, **options)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise SolverError(f"solver {solver.name!r} refuses the options {dict(options)}: {error}") from error
    return replaced


def _unknown(name: str, solvers: Mapping[str, AbstractSolver], origin: str = "") -> str:
    families = sorted({solver.partition(".")[0] for solver in solvers})
    known = [*solvers, *families, AUTO]
    installed = ", ".join(sorted(solvers)) or "none"
    failed = _registry.load().failures.get(name.partition(".")[0])
    broken = f" The plugin {name.partition('.')[0]!r} is installed but failed to load: {failed}" if failed else ""
    return f"there is no solver {name!r}{origin}.{near_matches(name, known)} Installed: {installed}.{broken}"
