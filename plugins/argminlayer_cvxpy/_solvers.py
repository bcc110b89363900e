"""The solver classes: what each declares. CVXPY and the back ends are not imported here."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import argminlayer as al

from ._ordinary import AbstractOrdinary


@dataclass(frozen=True)
class AbstractCvxpy(AbstractOrdinary):
    """Options that all solvers of this plugin share.

    Attributes:
        tol: tolerance of the back end, in its own measure; the engine refines and certifies afterwards. None for the
            back end's own.
        max_iter: iterations of one instance, None for the back end's own limit.
        time_limit: seconds for one instance, None for no limit.
        threads: instances solved at the same time; None for one per core.
        settings: the back end's own settings under its own names, such as ``{"acceleration_lookback": 0}``.
    """

    tol: float | None = 1e-9
    max_iter: int | None = None
    time_limit: float | None = None
    threads: int | None = None
    settings: Mapping[str, Any] | None = field(default=None, hash=False)

    module: ClassVar[str]
    """What must be installed."""
    tolerances: ClassVar[tuple[str, ...]] = ()
    """What the back end calls its tolerances."""
    iterations: ClassVar[str] = ""
    """What it calls the limit of its iterations; empty without one."""
    seconds: ClassVar[str] = ""
    """What it calls the limit of its time; empty without one."""
    curved: ClassVar[frozenset[str]] = frozenset()
    """The kinds of cones that it knows beside zero and nonnegative ones."""

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if self.tol is not None and not self.tol > 0:
            raise al.SolverError(f"{self.name}: tol must be positive or None, not {self.tol!r}; 1e-9 is usual")
        if self.max_iter is not None and self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1 or None, not {self.max_iter!r}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise al.SolverError(f"{self.name}: time_limit must be positive seconds or None, not {self.time_limit!r}")
        if self.threads is not None and self.threads < 1:
            raise al.SolverError(f"{self.name}: threads must be at least 1 or None, not {self.threads!r}")
        for option, limit, there in (
            ("max_iter", self.max_iter, self.iterations),
            ("time_limit", self.time_limit, self.seconds),
        ):
            if limit is not None and not there:
                raise al.SolverError(f"{self.name}: {option} must be None, for this back end has no such limit")

    def available(self) -> al.Availability:
        """Return whether CVXPY and the back end are installed."""
        cvxpy = al.Availability.of_module("cvxpy", extra="cvxpy")
        if not cvxpy or self.module in _BROUGHT:
            return cvxpy and al.Availability.of_module(self.module, extra="cvxpy")
        if importlib.util.find_spec(self.module) is None:
            return al.Availability(False, f"needs the package {self.module!r} and a licence: pip install {self.module}")
        return al.Availability(True)

    def refuses(self, form: al.ConeForm) -> str | None:
        """Return why the programs cannot be solved: cones that the back end does not know."""
        strange = sorted({kind for kind, _, _ in form.pattern.cones.blocks()} - self.curved)
        return f"does not know {' and '.join(strange)} cones" if strange else None

    def suits(self, form: al.ConeForm) -> float:
        """Return 10."""
        del form
        return 10.0

    def back_end_settings(self) -> dict[str, Any]:
        """Return the back end's settings: tolerance and limits under its names, then those given as they are."""
        chosen: dict[str, Any] = {} if self.tol is None else dict.fromkeys(self.tolerances, self.tol)
        if self.max_iter is not None:
            chosen[self.iterations] = self.max_iter
        if self.time_limit is not None:
            chosen[self.seconds] = self.time_limit
        return {**chosen, **(self.settings or {})}


_BROUGHT = frozenset({"cvxpy", "clarabel", "scs", "ecos", "osqp", "highspy", "piqp"})
"""What the extra of this plugin installs."""
_ALL = frozenset({"second_order", "semidefinite", "exponential", "power"})


@dataclass(frozen=True)
class Clarabel(AbstractCvxpy):
    """A homogeneous interior-point method for all cones, and for quadratic objectives as they are.

    Reference: Goulart and Chen, *Clarabel: an interior-point solver for conic programs with quadratic objectives*,
    2024.
    """

    name: ClassVar[str] = "cvxpy.clarabel"
    module: ClassVar[str] = "clarabel"
    tolerances: ClassVar[tuple[str, ...]] = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    iterations: ClassVar[str] = "max_iter"
    seconds: ClassVar[str] = "time_limit"
    curved: ClassVar[frozenset[str]] = _ALL

    tol: float | None = 1e-8

    def suits(self, form: al.ConeForm) -> float:
        """Return 30."""
        del form
        return 30.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program; where to begin makes no difference to an interior-point method."""
        del start
        from ._clarabel import solve

        return solve(self, form)


@dataclass(frozen=True)
class SCS(AbstractCvxpy):
    """A splitting method for all cones: large programs to moderate accuracy. It begins where it is told to.

    Reference: O'Donoghue, *Operator splitting for a homogeneous embedding of the linear complementarity problem*, 2021.
    """

    name: ClassVar[str] = "cvxpy.scs"
    module: ClassVar[str] = "scs"
    tolerances: ClassVar[tuple[str, ...]] = ("eps_abs", "eps_rel")
    iterations: ClassVar[str] = "max_iters"
    seconds: ClassVar[str] = "time_limit_secs"
    curved: ClassVar[frozenset[str]] = _ALL

    tol: float | None = 1e-8

    def suits(self, form: al.ConeForm) -> float:
        """Return 20."""
        del form
        return 20.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program."""
        from ._scs import solve

        return solve(self, form, start)


@dataclass(frozen=True)
class ECOS(AbstractCvxpy):
    """An interior-point method for second-order and exponential cones; quadratic objectives are lifted to cones.

    Reference: Domahidi, Chu and Boyd, *ECOS: an SOCP solver for embedded systems*, 2013.
    """

    name: ClassVar[str] = "cvxpy.ecos"
    module: ClassVar[str] = "ecos"
    tolerances: ClassVar[tuple[str, ...]] = ("abstol", "reltol", "feastol")
    iterations: ClassVar[str] = "max_iters"
    curved: ClassVar[frozenset[str]] = frozenset({"second_order", "exponential"})

    tol: float | None = 1e-10

    def suits(self, form: al.ConeForm) -> float:
        """Return 18."""
        del form
        return 18.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program; where to begin makes no difference to an interior-point method."""
        del start
        from ._ecos import solve

        return solve(self, form)


@dataclass(frozen=True)
class OSQP(AbstractCvxpy):
    """A splitting method for linear and quadratic programs. It begins where it is told to.

    Reference: Stellato, Banjac, Goulart, Bemporad and Boyd, *OSQP: an operator splitting solver for quadratic
    programs*, 2020.
    """

    name: ClassVar[str] = "cvxpy.osqp"
    module: ClassVar[str] = "osqp"
    tolerances: ClassVar[tuple[str, ...]] = ("eps_abs", "eps_rel")
    iterations: ClassVar[str] = "max_iter"
    seconds: ClassVar[str] = "time_limit"

    tol: float | None = 1e-8

    def suits(self, form: al.ConeForm) -> float:
        """Return 16."""
        del form
        return 16.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program."""
        from ._osqp import solve

        return solve(self, form, start)


@dataclass(frozen=True)
class PIQP(AbstractCvxpy):
    """A proximal interior-point method: sparse or dense quadratic programs, semidefinite ones included.

    Reference: Schwan, Jiang, Kuhn and Jones, *PIQP: a proximal interior-point quadratic programming solver*, 2023.
    """

    name: ClassVar[str] = "cvxpy.piqp"
    module: ClassVar[str] = "piqp"
    tolerances: ClassVar[tuple[str, ...]] = ("eps_abs", "eps_rel")
    iterations: ClassVar[str] = "max_iter"

    def suits(self, form: al.ConeForm) -> float:
        """Return 35 for quadratic programs, 29 for linear ones."""
        return 35.0 if form.P.shape[-1] else 29.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program; where to begin makes no difference to an interior-point method."""
        del start
        from ._piqp import solve

        return solve(self, form)


@dataclass(frozen=True)
class HIGHS(AbstractCvxpy):
    """A simplex and an active-set method for linear and quadratic programs.

    Reference: Huangfu and Hall, *Parallelizing the dual revised simplex method*, 2018.
    """

    name: ClassVar[str] = "cvxpy.highs"
    module: ClassVar[str] = "highspy"
    tolerances: ClassVar[tuple[str, ...]] = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")
    iterations: ClassVar[str] = "simplex_iteration_limit"
    seconds: ClassVar[str] = "time_limit"

    def suits(self, form: al.ConeForm) -> float:
        """Return 19 for linear programs, 12 for quadratic ones."""
        return 12.0 if form.P.shape[-1] else 19.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program from scratch."""
        del start
        from ._highs import solve

        return solve(self, form)


@dataclass(frozen=True)
class Named(AbstractCvxpy):
    """Any solver that CVXPY knows: ``solver="cvxpy:mosek"``, ``"cvxpy:gurobi"``, ``"cvxpy:cvxopt"``, ...

    Tolerances and limits are its own: pass ``options={"settings": {...}}``, which are given to CVXPY's ``solve``.

    Attributes:
        solver: the name under which CVXPY knows it, in letters of any case.
    """

    name: ClassVar[str] = "cvxpy.solver"
    module: ClassVar[str] = "cvxpy"
    curved: ClassVar[frozenset[str]] = _ALL

    tol: float | None = None
    solver: str = ""

    @classmethod
    def called(cls, name: str) -> "Named | None":
        """Return the solver that ``solver="cvxpy:NAME"`` asks for."""
        return cls(solver=name)

    def available(self) -> al.Availability:
        """Return whether CVXPY knows a solver of this name, and whether that is installed."""
        cvxpy = super().available()
        if not cvxpy:
            return cvxpy
        if not self.solver:
            return al.Availability(False, "reaches solvers by name: ask for one as solver='cvxpy:mosek'")
        from ._general import why_not_installed

        reason = why_not_installed(self.solver)
        return al.Availability(reason is None, reason or "")

    def refuses(self, form: al.ConeForm) -> str | None:
        """Return why the programs cannot be solved."""
        reason = super().refuses(form)
        if reason is None:
            from ._general import why_not_solved

            reason = why_not_solved(self.solver, form)
        return reason

    def suits(self, form: al.ConeForm) -> float:
        """Return -1: it is there to be asked for by name."""
        del form
        return -1.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program through CVXPY, one after another."""
        del start
        from ._general import solve

        return solve(self, form)


@dataclass(frozen=True)
class Mosek(Named):
    """MOSEK, where it is installed with a licence, through CVXPY."""

    name: ClassVar[str] = "cvxpy.mosek"
    module: ClassVar[str] = "mosek"
    solver: str = "MOSEK"

    @classmethod
    def called(cls, name: str) -> None:
        """Leave other names to :class:`Named`."""
        del name

    def suits(self, form: al.ConeForm) -> float:
        """Return 9."""
        del form
        return 9.0


@dataclass(frozen=True)
class Gurobi(Named):
    """Gurobi, where it is installed with a licence, through CVXPY: linear, quadratic and second-order cone programs."""

    name: ClassVar[str] = "cvxpy.gurobi"
    module: ClassVar[str] = "gurobipy"
    curved: ClassVar[frozenset[str]] = frozenset({"second_order"})
    solver: str = "GUROBI"

    @classmethod
    def called(cls, name: str) -> None:
        """Leave other names to :class:`Named`."""
        del name

    def suits(self, form: al.ConeForm) -> float:
        """Return 8."""
        del form
        return 8.0
