"""The solver classes: what each declares. Pyomo, CasADi and HiGHS are not imported here."""

import abc
import importlib.util
import shutil
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

import argminlayer as al

from ._vocabulary import is_read, why_not_quadratic, why_not_written

_ANY = frozenset({"equality", "inequality", "bounds"})
_EVERY = frozenset({"smooth", "least-squares", "none"})
Route = Literal["auto", "executable", "casadi", "pounce"]


@dataclass(frozen=True)
class AbstractPyomo(al.AbstractSolver):
    """What all solvers of this plugin share: problems become Pyomo models, unless they are read from one.

    Attributes:
        time_limit: seconds for one instance, None for no limit.
    """

    time_limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if self.time_limit is not None and not self.time_limit > 0:
            raise al.SolverError(f"{self.name}: time_limit must be positive seconds or None, not {self.time_limit!r}")

    def available(self) -> al.Availability:
        """Return whether Pyomo is installed."""
        return al.Availability.of_module("pyomo", extra="pyomo")

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse problems whose functions have no form in Pyomo's language."""
        reason = super().supports(problem)
        return reason if reason is not None or is_read(problem) else why_not_written(problem)

    @abc.abstractmethod
    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance, one after another."""


@dataclass(frozen=True)
class Ipopt(AbstractPyomo):
    """IPOPT, an interior point method for smooth problems, from wherever it is installed.

    Attributes:
        route: where IPOPT comes from. ``"executable"``: the program ``ipopt`` on the PATH, started once for each
            instance. ``"casadi"``: the library inside the wheel of casadi, in this process, with exact sparse
            derivatives that are compiled once for each model. ``"pounce"``: the executable of the package
            pyomo-pounce, a rewrite of IPOPT. ``"auto"``: the first of these that is there. The message of every
            instance says which one ran.
        tol: IPOPT's ``tol``.
        max_iter: IPOPT's ``max_iter``.

    Reference: Waechter and Biegler, *On the implementation of an interior-point filter line-search algorithm for
    large-scale nonlinear programming*, 2006.
    """

    name: ClassVar[str] = "pyomo.ipopt"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=_ANY, objectives=_EVERY, requires=frozenset({"algebra"})
    )

    route: Route = "auto"
    tol: float = 1e-8
    max_iter: int = 3000

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        super().__post_init__()
        if self.route not in (*_ROUTES, "auto"):
            raise al.SolverError(
                f"{self.name}: route must be one of {', '.join((*_ROUTES, 'auto'))}, not {self.route!r}"
            )
        if not self.tol > 0:
            raise al.SolverError(f"{self.name}: tol must be positive, not {self.tol!r}; 1e-8 is usual")
        if self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1, not {self.max_iter!r}")

    def available(self) -> al.Availability:
        """Return whether Pyomo and an IPOPT are installed."""
        pyomo = super().available()
        # the library first: it is asked for at every automatic choice, and the PATH is slow to search
        routes = ("casadi", "executable", "pounce") if self.route == "auto" else (self.route,)
        return pyomo if not pyomo or any(map(_is_there, routes)) else al.Availability(False, _MISSING[self.route])

    def chosen_route(self) -> str | None:
        """Return the route that will be taken, None when what it needs is not installed."""
        wanted = _ROUTES if self.route == "auto" else (self.route,)
        return next((route for route in wanted if _is_there(route)), None)

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse more equalities than unknowns, which IPOPT cannot start with."""
        reason = super().supports(problem)
        if reason is None and problem.equalities > problem.size:
            return f"needs at least as many unknowns as equalities, not {problem.size} and {problem.equalities}"
        return reason

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 27 for problems read from Pyomo and 3 for others, which have to be translated first."""
        return 27.0 if is_read(problem) else 3.0

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance by IPOPT, one after another."""
        from ._ipopt import solve_batch

        return solve_batch(self, problem, start)


@dataclass(frozen=True)
class Highs(AbstractPyomo):
    """HiGHS, a simplex and an active-set method for linear and convex quadratic programs.

    Reference: Huangfu and Hall, *Parallelizing the dual revised simplex method*, 2018.
    """

    name: ClassVar[str] = "pyomo.highs"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=_ANY, objectives=_EVERY, requires=frozenset({"algebra", "linear constraints"})
    )

    def available(self) -> al.Availability:
        """Return whether Pyomo and highspy are installed."""
        pyomo = super().available()
        return al.Availability.of_module("highspy", extra="pyomo") if pyomo else pyomo

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse what is no linear or quadratic program."""
        reason = super().supports(problem)
        return reason if reason is not None else why_not_quadratic(problem)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 26 for problems read from Pyomo and 3 for others, which have to be translated first."""
        return 26.0 if is_read(problem) else 3.0

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance by HiGHS, one after another."""
        from ._factory import solve_batch

        return solve_batch(self, problem, start)


@dataclass(frozen=True)
class Named(AbstractPyomo):
    """Any solver that is registered with Pyomo: ``solver="pyomo:gurobi"``, ``"pyomo:scip"``, ``"pyomo:baron"``, ...

    Attributes:
        solver: the name under which Pyomo's ``SolverFactory`` knows it.
        executable: the program to run, for a solver that is one and is not on the PATH.
    """

    name: ClassVar[str] = "pyomo.solver"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=_ANY, objectives=_EVERY, requires=frozenset({"algebra"})
    )

    solver: str = ""
    executable: str | None = None

    @classmethod
    def called(cls, name: str) -> "Named | None":
        """Return the solver that ``solver="pyomo:NAME"`` asks for."""
        return cls(solver=name)

    def available(self) -> al.Availability:
        """Return whether Pyomo knows a solver of this name, and whether that is installed."""
        pyomo = super().available()
        if not pyomo:
            return pyomo
        if not self.solver:
            return al.Availability(False, "reaches solvers by name: ask for one as solver='pyomo:gurobi'")
        from ._factory import why_not_available

        reason = why_not_available(self.solver, self.executable)
        return al.Availability(reason is None, reason or "")

    def preference(self, problem: al.BoundProblem) -> float:
        """Return -1: it is there to be asked for by name."""
        del problem
        return -1.0

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance through Pyomo's ``SolverFactory``, one after another."""
        from ._factory import solve_batch

        return solve_batch(self, problem, start)


_ROUTES = ("executable", "casadi", "pounce")
_MISSING = {
    "executable": "there is no program `ipopt` on the PATH; install one, or choose route='casadi'",
    "casadi": "needs the package 'casadi': pip install 'argminlayer[pyomo]'",
    "pounce": "needs the package 'pounce-solver': pip install pyomo-pounce",
    "auto": "there is no IPOPT: pip install 'argminlayer[pyomo]' brings the one inside casadi",
}


def executable_of(route: str) -> str | None:
    """Return the program that a route runs, None if it is not installed."""
    if route == "executable":
        return shutil.which("ipopt")
    spec = importlib.util.find_spec("pounce")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = (shutil.which("pounce", path=f"{folder}/bin") for folder in folders)
    return next((path for path in found if path is not None), None)


def _is_there(route: str) -> bool:
    if route == "casadi":
        return bool(al.Availability.of_module("casadi", extra="pyomo"))
    return executable_of(route) is not None
