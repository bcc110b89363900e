"""The solver classes: what each takes, and which programs it suits. No back end is imported here."""

import abc
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import argminlayer as al

SMALL = 120
"""Up to this many variables an active-set method is the fastest."""
DENSE = 600
"""Up to this many variables dense linear algebra is cheap."""


@dataclass(frozen=True)
class AbstractQP(al.AbstractQuadraticSolver):
    """Options that all these solvers share.

    Attributes:
        tol: tolerance of the back end, in its own measure. The engine polishes and certifies afterwards.
        max_iter: iterations of one instance, None for the back end's own limit.
        time_limit: seconds for one instance, None for no limit.
        threads: instances solved at the same time where the back end releases Python's lock; None for one per core.
    """

    tol: float = 1e-9
    max_iter: int | None = None
    time_limit: float | None = None
    threads: int | None = None

    module: ClassVar[str]
    """What must be installed beside qpsolvers."""
    backend: ClassVar[str]
    """What qpsolvers calls it."""
    sparse_only: ClassVar[bool] = False
    """Whether it takes sparse matrices only."""
    strictly_convex: ClassVar[bool] = False
    """Whether it needs a definite P."""

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if not self.tol > 0:
            raise al.SolverError(f"{self.name}: tol must be positive, not {self.tol!r}; 1e-9 is usual")
        if self.max_iter is not None and self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1 or None, not {self.max_iter!r}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise al.SolverError(f"{self.name}: time_limit must be positive seconds or None, not {self.time_limit!r}")
        if self.threads is not None and self.threads < 1:
            raise al.SolverError(f"{self.name}: threads must be at least 1 or None, not {self.threads!r}")

    def available(self) -> al.Availability:
        """Return whether qpsolvers and the back end are installed."""
        for module in ("qpsolvers", self.module):
            if importlib.util.find_spec(module) is None:
                return al.Availability.of_module(module, extra="qp")
        return al.Availability(True)

    def refuses(self, form: al.QuadraticForm) -> str | None:
        """Return why the programs cannot be solved. Refuse indefinite P, and singular ones where that is needed."""
        reason = super().refuses(form)
        if reason is None and self.strictly_convex and not form.definite.all():
            return "needs a positive definite P, and some P is singular or absent"
        return reason

    def solve_quadratic(self, form: al.QuadraticForm) -> al.QuadraticAnswer:
        """Solve every program."""
        from ._backend import solve_through_qpsolvers

        return solve_through_qpsolvers(self, form)

    @abc.abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the back end's own settings."""

    def _limits(self, iterations: str, seconds: str | None = None) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        if self.max_iter is not None:
            limits[iterations] = self.max_iter
        if self.time_limit is not None and seconds is not None:
            limits[seconds] = self.time_limit
        return limits


@dataclass(frozen=True)
class DAQP(AbstractQP):
    """A dual active-set method: small dense programs, solved to rounding.

    Reference: Arnstrom, Bemporad and Axehill, *A dual active-set solver for embedded quadratic programming*, 2022.
    """

    name: ClassVar[str] = "qp.daqp"
    module: ClassVar[str] = "daqp"
    backend: ClassVar[str] = "daqp"

    tol: float = 1e-10

    def solve_quadratic(self, form: al.QuadraticForm) -> al.QuadraticAnswer:
        """Solve every program, without qpsolvers between, which costs more than a small program."""
        from ._daqp import solve_batch

        return solve_batch(self, form)

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 30 for small definite programs."""
        if form.definite.all():
            return 30.0 if form.size <= SMALL else 21.0
        return 22.0 if form.size <= SMALL else 12.0

    def settings(self) -> Mapping[str, Any]:
        """Return DAQP's settings."""
        return {"primal_tol": self.tol, **self._limits("iter_limit", "time_limit")}


@dataclass(frozen=True)
class PIQP(AbstractQP):
    """A proximal interior-point method: semidefinite and larger programs, dense or sparse.

    Reference: Schwan, Jiang, Kuhn and Jones, *PIQP: a proximal interior-point quadratic programming solver*, 2023.
    """

    name: ClassVar[str] = "qp.piqp"
    module: ClassVar[str] = "piqp"
    backend: ClassVar[str] = "piqp"

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 28."""
        del form
        return 28.0

    def settings(self) -> Mapping[str, Any]:
        """Return PIQP's settings."""
        return {"eps_abs": self.tol, "eps_rel": self.tol, **self._limits("max_iter")}


@dataclass(frozen=True)
class ProxQP(AbstractQP):
    """A proximal augmented Lagrangian method: dense or sparse programs, also with redundant constraints.

    Reference: Bambade, El-Kazdadi, Taylor and Carpentier, *PROX-QP*, 2022.
    """

    name: ClassVar[str] = "qp.proxqp"
    module: ClassVar[str] = "proxsuite"
    backend: ClassVar[str] = "proxqp"

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 24, 14 for large programs."""
        return 24.0 if form.size <= DENSE else 14.0

    def settings(self) -> Mapping[str, Any]:
        """Return ProxQP's settings."""
        return {"eps_abs": self.tol, "eps_rel": 0.0, **self._limits("max_iter")}


@dataclass(frozen=True)
class Clarabel(AbstractQP):
    """A homogeneous interior-point method: sparse programs.

    Reference: Goulart and Chen, *Clarabel: an interior-point solver for conic programs*, 2024.
    """

    name: ClassVar[str] = "qp.clarabel"
    module: ClassVar[str] = "clarabel"
    backend: ClassVar[str] = "clarabel"
    sparse_only: ClassVar[bool] = True

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 20, 26 for large programs."""
        return 20.0 if form.size <= DENSE else 26.0

    def settings(self) -> Mapping[str, Any]:
        """Return Clarabel's settings."""
        return {"tol_gap_abs": self.tol, "tol_gap_rel": self.tol, "tol_feas": self.tol} | self._limits(
            "max_iter", "time_limit"
        )


@dataclass(frozen=True)
class OSQP(AbstractQP):
    """An operator-splitting method: large sparse programs.

    Reference: Stellato, Banjac, Goulart, Bemporad and Boyd, *OSQP: an operator splitting solver*, 2020.
    """

    name: ClassVar[str] = "qp.osqp"
    module: ClassVar[str] = "osqp"
    backend: ClassVar[str] = "osqp"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-7
    max_iter: int | None = 20000

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 16."""
        del form
        return 16.0

    def settings(self) -> Mapping[str, Any]:
        """Return OSQP's settings."""
        return {"eps_abs": self.tol, "eps_rel": self.tol, **self._limits("max_iter", "time_limit")}


@dataclass(frozen=True)
class SCS(AbstractQP):
    """An operator-splitting conic method: very large programs at moderate accuracy.

    Reference: O'Donoghue, *Operator splitting for a homogeneous embedding of the linear complementarity problem*, 2021.
    """

    name: ClassVar[str] = "qp.scs"
    module: ClassVar[str] = "scs"
    backend: ClassVar[str] = "scs"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-7

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 8."""
        del form
        return 8.0

    def settings(self) -> Mapping[str, Any]:
        """Return SCS's settings."""
        return {"eps_abs": self.tol, "eps_rel": self.tol, **self._limits("max_iters", "time_limit_secs")}


@dataclass(frozen=True)
class HIGHS(AbstractQP):
    """Simplex for linear programs, an active-set method for quadratic ones.

    Reference: Huangfu and Hall, *Parallelizing the dual revised simplex method*, 2018.
    """

    name: ClassVar[str] = "qp.highs"
    module: ClassVar[str] = "highspy"
    backend: ClassVar[str] = "highs"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-9

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 29 for linear programs, whose vertices it finds exactly, else 6."""
        return 29.0 if form.linear else 6.0

    def settings(self) -> Mapping[str, Any]:
        """Return HiGHS's settings."""
        tolerances = {"primal_feasibility_tolerance": self.tol, "dual_feasibility_tolerance": self.tol}
        return tolerances | self._limits("simplex_iteration_limit", "time_limit")


@dataclass(frozen=True)
class Quadprog(AbstractQP):
    """The dual active-set method of Goldfarb and Idnani: small dense definite programs.

    Reference: Goldfarb and Idnani, *A numerically stable dual method for strictly convex quadratic programs*, 1983.
    """

    name: ClassVar[str] = "qp.quadprog"
    module: ClassVar[str] = "quadprog"
    backend: ClassVar[str] = "quadprog"
    strictly_convex: ClassVar[bool] = True

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 18 for small programs."""
        return 18.0 if form.size <= SMALL else 9.0

    def settings(self) -> Mapping[str, Any]:
        """Return nothing: quadprog has no settings."""
        return {}


@al.hookimpl
def argminlayer_solvers() -> Sequence[type[al.AbstractSolver]]:
    """Return the solvers of quadratic programs."""
    return [DAQP, PIQP, ProxQP, Clarabel, OSQP, SCS, HIGHS, Quadprog]
