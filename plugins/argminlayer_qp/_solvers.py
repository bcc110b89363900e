"""The solver classes: what each takes, and which programs it suits. No back end is imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
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
    tolerances: ClassVar[tuple[str, ...]] = ()
    """What the back end calls its tolerances; without any it solves to rounding."""
    iterations: ClassVar[tuple[str, ...]] = ()
    """What it calls the limit of its iterations."""
    seconds: ClassVar[str] = ""
    """What it calls the limit of its time."""
    fixed: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings that are not for the user."""
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
        for option, limit, there in (
            ("max_iter", self.max_iter, self.iterations),
            ("time_limit", self.time_limit, self.seconds),
        ):
            if limit is not None and not there:
                raise al.SolverError(f"{self.name}: {option} must be None, for {self.backend} has no such limit")
        if self.threads is not None and self.threads < 1:
            raise al.SolverError(f"{self.name}: threads must be at least 1 or None, not {self.threads!r}")

    def available(self) -> al.Availability:
        """Return whether qpsolvers and the back end are installed."""
        found = al.Availability.of_module("qpsolvers", extra="qp")
        return al.Availability.of_module(self.module, extra="qp") if found else found

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

    def solve_sparse(self, program: al.SparseProgram) -> al.SparseAnswer:
        """Solve one program whose matrices are sparse."""
        from ._backend import solve_sparse_program

        return solve_sparse_program(self, program)

    def settings(self) -> dict[str, Any]:
        """Return the back end's own settings."""
        settings: dict[str, Any] = {**self.fixed, **dict.fromkeys(self.tolerances, self.tol)}
        if self.max_iter is not None:
            settings |= dict.fromkeys(self.iterations, self.max_iter)
        if self.time_limit is not None:
            settings[self.seconds] = self.time_limit
        return settings


@dataclass(frozen=True)
class DAQP(AbstractQP):
    """A dual active-set method: small dense programs, solved to rounding.

    Reference: Arnstrom, Bemporad and Axehill, *A dual active-set solver for embedded quadratic programming*, 2022.
    """

    name: ClassVar[str] = "qp.daqp"
    module: ClassVar[str] = "daqp"
    backend: ClassVar[str] = "daqp"
    tolerances: ClassVar[tuple[str, ...]] = ("primal_tol",)
    iterations: ClassVar[tuple[str, ...]] = ("iter_limit",)
    seconds: ClassVar[str] = "time_limit"

    tol: float = 1e-8

    def solve_quadratic(self, form: al.QuadraticForm) -> al.QuadraticAnswer:
        """Solve every program, without qpsolvers between, which costs more than a small program."""
        from ._daqp import solve_batch

        return solve_batch(self, form)

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 30 for small definite programs."""
        if form.definite.all():
            return 30.0 if form.size <= SMALL else 21.0
        return 22.0 if form.size <= SMALL else 12.0


@dataclass(frozen=True)
class PIQP(AbstractQP):
    """A proximal interior-point method: semidefinite and larger programs, dense or sparse.

    Reference: Schwan, Jiang, Kuhn and Jones, *PIQP: a proximal interior-point quadratic programming solver*, 2023.
    """

    name: ClassVar[str] = "qp.piqp"
    module: ClassVar[str] = "piqp"
    backend: ClassVar[str] = "piqp"
    takes_sparse: ClassVar[float] = 20.0
    tolerances: ClassVar[tuple[str, ...]] = (
        "eps_abs",
        "eps_rel",
    )
    iterations: ClassVar[tuple[str, ...]] = ("max_iter",)

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 28."""
        del form
        return 28.0


@dataclass(frozen=True)
class ProxQP(AbstractQP):
    """A proximal augmented Lagrangian method: dense or sparse programs, also with redundant constraints.

    Reference: Bambade, El-Kazdadi, Taylor and Carpentier, *PROX-QP*, 2022.
    """

    name: ClassVar[str] = "qp.proxqp"
    module: ClassVar[str] = "proxsuite"
    backend: ClassVar[str] = "proxqp"
    takes_sparse: ClassVar[float] = 10.0
    tolerances: ClassVar[tuple[str, ...]] = ("eps_abs",)
    iterations: ClassVar[tuple[str, ...]] = ("max_iter",)
    fixed: ClassVar[Mapping[str, Any]] = MappingProxyType({"eps_rel": 0.0})

    def refuses(self, form: al.QuadraticForm) -> str | None:
        """Return why the programs cannot be solved. Refuse linear ones: its multipliers are then far off."""
        return super().refuses(form) or ("does not solve linear programs" if form.linear else None)

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 24, 14 for large programs."""
        return 24.0 if form.size <= DENSE else 14.0


@dataclass(frozen=True)
class Clarabel(AbstractQP):
    """A homogeneous interior-point method: sparse programs.

    Reference: Goulart and Chen, *Clarabel: an interior-point solver for conic programs*, 2024.
    """

    name: ClassVar[str] = "qp.clarabel"
    module: ClassVar[str] = "clarabel"
    backend: ClassVar[str] = "clarabel"
    takes_sparse: ClassVar[float] = 30.0
    tolerances: ClassVar[tuple[str, ...]] = (
        "tol_gap_abs",
        "tol_gap_rel",
        "tol_feas",
    )
    iterations: ClassVar[tuple[str, ...]] = ("max_iter",)
    seconds: ClassVar[str] = "time_limit"
    sparse_only: ClassVar[bool] = True

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 20, 26 for large programs."""
        return 20.0 if form.size <= DENSE else 26.0


@dataclass(frozen=True)
class OSQP(AbstractQP):
    """An operator-splitting method: large sparse programs.

    Reference: Stellato, Banjac, Goulart, Bemporad and Boyd, *OSQP: an operator splitting solver*, 2020.
    """

    name: ClassVar[str] = "qp.osqp"
    module: ClassVar[str] = "osqp"
    backend: ClassVar[str] = "osqp"
    takes_sparse: ClassVar[float] = 25.0
    tolerances: ClassVar[tuple[str, ...]] = (
        "eps_abs",
        "eps_rel",
    )
    iterations: ClassVar[tuple[str, ...]] = ("max_iter",)
    seconds: ClassVar[str] = "time_limit"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-7
    max_iter: int | None = 20000

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 16."""
        del form
        return 16.0


@dataclass(frozen=True)
class SCS(AbstractQP):
    """An operator-splitting conic method: very large programs at moderate accuracy.

    Reference: O'Donoghue, *Operator splitting for a homogeneous embedding of the linear complementarity problem*, 2021.
    """

    name: ClassVar[str] = "qp.scs"
    module: ClassVar[str] = "scs"
    backend: ClassVar[str] = "scs"
    takes_sparse: ClassVar[float] = 8.0
    tolerances: ClassVar[tuple[str, ...]] = (
        "eps_abs",
        "eps_rel",
    )
    iterations: ClassVar[tuple[str, ...]] = ("max_iters",)
    seconds: ClassVar[str] = "time_limit_secs"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-7

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 8."""
        del form
        return 8.0


@dataclass(frozen=True)
class HIGHS(AbstractQP):
    """Simplex for linear programs, an active-set method for quadratic ones.

    Reference: Huangfu and Hall, *Parallelizing the dual revised simplex method*, 2018.
    """

    name: ClassVar[str] = "qp.highs"
    module: ClassVar[str] = "highspy"
    backend: ClassVar[str] = "highs"
    takes_sparse: ClassVar[float] = 5.0
    tolerances: ClassVar[tuple[str, ...]] = (
        "primal_feasibility_tolerance",
        "dual_feasibility_tolerance",
    )
    iterations: ClassVar[tuple[str, ...]] = (
        "simplex_iteration_limit",
        "qp_iteration_limit",
    )
    seconds: ClassVar[str] = "time_limit"
    sparse_only: ClassVar[bool] = True

    tol: float = 1e-9

    def suits(self, form: al.QuadraticForm) -> float:
        """Return 29 for linear programs, whose vertices it finds exactly, else 6."""
        return 29.0 if form.linear else 6.0


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


@dataclass(frozen=True)
class Separable(al.AbstractConeSolver):
    """Newton's method on the dual of separable programs with few equalities, a batch at once: simplices and boxes.

    Attributes:
        max_iter: Newton steps.

    Reference: Kiwiel, *Breakpoint searching algorithms for the continuous quadratic knapsack problem*, 2008.
    """

    name: ClassVar[str] = "qp.separable"
    capabilities: ClassVar[al.Capabilities] = replace(al.AbstractConeSolver.capabilities, batched=True)

    max_iter: int = 100

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1, not {self.max_iter!r}")

    def available(self) -> al.Availability:
        """Return that it is: it needs NumPy only."""
        return al.Availability(True)

    def refuses(self, form: al.ConeForm) -> str | None:
        """Return why the programs cannot be solved. Refuse programs that are not separable and strictly convex."""
        from ._separable import FEW, shape_of

        if shape_of(form.pattern) is None:
            return f"needs a diagonal P, bounds, and up to {FEW} equalities"
        if not (form.P > 0).all() or (form.A[:, form.pattern.A_rows >= form.pattern.cones.zero] == 0).any():
            return "needs a positive diagonal P and bounds whose coefficients are not zero"
        return None

    def suits(self, form: al.ConeForm) -> float:
        """Return 40: it is made for these programs, and takes the batch at once."""
        del form
        return 40.0

    def solve_cones(self, form: al.ConeForm, start: al.ConeAnswer | None = None) -> al.ConeAnswer:
        """Solve every program."""
        del start
        from ._separable import solve

        return solve(form, self.max_iter)


@al.hookimpl
def argminlayer_solvers() -> Sequence[type[al.AbstractSolver]]:
    """Return the solvers of quadratic programs."""
    return [DAQP, PIQP, ProxQP, Clarabel, OSQP, SCS, HIGHS, Quadprog, Separable]


@al.hookimpl
def argminlayer_read_model(model: Any, parameters: Any, variables: Any) -> al.Problem | None:
    """Return the problem that a ``qpsolvers.Problem`` states."""
    if not type(model).__module__.startswith("qpsolvers."):
        return None
    from ._model import read_problem

    return read_problem(model, parameters, variables)
