"""The solver classes: what each declares, and when automatic choice prefers it. SciPy itself is not imported here."""

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

import argminlayer as al

SMALL = 300
"""Up to this many variables forming the Hessian is cheap."""
DENSE = 1000
"""Up to this many variables SLSQP, whose quadratic programs are dense, is faster than trust-constr."""


@dataclass(frozen=True)
class AbstractSciPy(al.AbstractSolver):
    """Options that all SciPy solvers share.

    Attributes:
        tol: SciPy's termination tolerance (of the gradient, the step or the objective, as the method has it). The
            engine refines and certifies afterwards, whatever its value.
        max_iter: iterations of one instance.
        time_limit: seconds for one instance, None for no limit.
        n_jobs: instances solved at the same time, as in joblib; 1 needs no joblib, -1 means all cores.
        backend: joblib backend: ``"threading"``, ``"loky"`` (processes), or one registered with joblib such as
            ``"dask"`` or ``"ray"``; None for the one set by ``joblib.parallel_config``, or joblib's default.
    """

    tol: float = 1e-10
    max_iter: int = 1000
    time_limit: float | None = None
    n_jobs: int = 1
    backend: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if not self.tol > 0:
            raise al.SolverError(f"{self.name}: tol must be positive, not {self.tol!r}; 1e-10 is usual")
        if self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1, not {self.max_iter!r}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise al.SolverError(f"{self.name}: time_limit must be positive seconds or None, not {self.time_limit!r}")
        if self.n_jobs == 0:
            raise al.SolverError(f"{self.name}: n_jobs must be a positive number, or -1 for all cores, not 0")

    def available(self) -> al.Availability:
        """Return whether joblib is there when it is needed; SciPy is a base dependency."""
        if self.n_jobs == 1 and self.backend is None:
            return al.Availability(True)
        return al.Availability.of_module("joblib", extra="parallel")

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance, ``n_jobs`` at a time."""
        from ._backend import solve_batch

        return solve_batch(self, problem, start)

    @abc.abstractmethod
    def preference(self, problem: al.BoundProblem) -> float:
        """Return how well the method suits the problem."""


@dataclass(frozen=True)
class LBFGS(AbstractSciPy):
    """L-BFGS-B: gradients only, bounds; for large unconstrained problems and for bounds.

    Reference: Byrd, Lu, Nocedal and Zhu, *A limited memory algorithm for bound constrained optimization*, 1995.
    """

    name: ClassVar[str] = "scipy.lbfgs"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(constraints=frozenset({"bounds"}))

    max_iter: int = 15000
    memory: int = 20

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 15; Newton is preferred for small unconstrained problems."""
        del problem
        return 15.0


@dataclass(frozen=True)
class Newton(AbstractSciPy):
    """Newton's method in a trust region: exact Hessian (``trust-exact``), or products only (``trust-krylov``).

    Attributes:
        method: ``"auto"`` forms the Hessian up to a few hundred variables.

    Reference: Conn, Gould and Toint, *Trust Region Methods*, 2000, sec. 7.3; Gould, Lucidi, Roma and Toint, 1999.
    """

    name: ClassVar[str] = "scipy.newton"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(requires=frozenset({"hessian"}))

    method: Literal["auto", "trust-exact", "trust-krylov", "newton-cg"] = "auto"

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 20 for small problems."""
        return 20.0 if problem.size <= SMALL else 10.0


@dataclass(frozen=True)
class SLSQP(AbstractSciPy):
    """Sequential least-squares quadratic programming: small dense problems with any constraints.

    Reference: Kraft, *A software package for sequential quadratic programming*, 1988.
    """

    name: ClassVar[str] = "scipy.slsqp"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth", "least-squares", "none"}),
    )

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 10, less for large problems, whose quadratic programs are dense."""
        return 10.0 if problem.size <= DENSE else 4.0


@dataclass(frozen=True)
class TrustConstr(AbstractSciPy):
    """Byrd-Omojokun SQP and an interior point in a trust region, with exact Hessians: larger constrained problems.

    Reference: Byrd, Hribar and Nocedal, *An interior point algorithm for large-scale nonlinear programming*, 1999.
    """

    name: ClassVar[str] = "scipy.trust-constr"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth", "least-squares", "none"}),
        requires=frozenset({"hessian"}),
    )

    max_iter: int = 2000

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 6: slower than SLSQP on small problems."""
        del problem
        return 6.0


@dataclass(frozen=True)
class LeastSquares(AbstractSciPy):
    """Trust-region reflective Gauss-Newton for declared least squares with bounds, and for feasibility problems.

    A feasibility problem ``h = 0, g <= 0`` is solved as ``min |h|^2 + |max(g, 0)|^2`` within the bounds.

    Reference: Branch, Coleman and Li, *A subspace, interior, and conjugate gradient method for large-scale
    bound-constrained minimization problems*, 1999.
    """

    name: ClassVar[str] = "scipy.least-squares"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"least-squares", "none"}),
    )

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse constraints other than bounds beside an objective."""
        reason = super().supports(problem)
        constraints = problem.problem.constraints - {"bounds"}
        if reason is None and problem.problem.objective_kind == "least-squares" and constraints:
            return f"handles only bounds beside a least-squares objective, not {' and '.join(sorted(constraints))}"
        return reason

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 30 for declared least squares, 15 for feasibility."""
        return 30.0 if problem.problem.objective_kind == "least-squares" else 15.0


@dataclass(frozen=True)
class Root(AbstractSciPy):
    """Powell's hybrid method for as many equations as unknowns.

    Reference: Powell, *A hybrid method for nonlinear equations*, 1970 (MINPACK hybrj).
    """

    name: ClassVar[str] = "scipy.root"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality"}), objectives=frozenset({"none"}), requires=frozenset({"square"})
    )

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse systems that are not square."""
        reason = super().supports(problem)
        if reason is None and problem.equalities != problem.size:
            return f"needs as many equations as unknowns, not {problem.equalities} and {problem.size}"
        return reason

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 20: made for square systems."""
        del problem
        return 20.0


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [LBFGS, Newton, SLSQP, TrustConstr, LeastSquares, Root]
