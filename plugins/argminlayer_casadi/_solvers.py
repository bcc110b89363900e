"""The solver classes: what each declares, and when automatic choice prefers it. CasADi itself is not imported here."""

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

import argminlayer as al

SMALL = 100
"""Up to this many variables the dense quadratic programs of SQP are faster than an interior point."""
EVERYTHING = al.Capabilities(
    constraints=frozenset({"equality", "inequality", "bounds"}),
    objectives=frozenset({"smooth", "least-squares", "none"}),
    requires=frozenset({"algebra", "hessian"}),
    batched=True,
)


@dataclass(frozen=True)
class AbstractCasADi(al.AbstractSolver):
    """Options that all CasADi solvers share.

    Attributes:
        tol: the solver's own termination tolerance. The engine refines and certifies afterwards, whatever its value.
        max_iter: iterations of one instance.
        time_limit: seconds for one instance, None for no limit.
        hessian: ``"exact"``, or ``"limited-memory"`` (from gradients only), or ``"auto"``: exact as long as it has at
            most 50 000 nonzeros; the messages of the solution say when it is not.
        expand: write the functions scalar by scalar. Faster for small problems and for those built by Python loops over
            scalars, much slower for vectors; ``"auto"`` decides by the number and the length of the operations.
    """

    tol: float = 1e-8
    max_iter: int = 3000
    time_limit: float | None = None
    hessian: Literal["auto", "exact", "limited-memory"] = "auto"
    expand: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if not self.tol > 0:
            raise al.SolverError(f"{self.name}: tol must be positive, not {self.tol!r}; 1e-8 is usual")
        if self.max_iter < 1:
            raise al.SolverError(f"{self.name}: max_iter must be at least 1, not {self.max_iter!r}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise al.SolverError(f"{self.name}: time_limit must be positive seconds or None, not {self.time_limit!r}")
        for field, known in (("hessian", HESSIANS), ("expand", EXPANSIONS)):
            if getattr(self, field) not in known:
                raise al.SolverError(f"{self.name}: {field} must be one of {known}, not {getattr(self, field)!r}")

    def available(self) -> al.Availability:
        """Return whether CasADi is installed."""
        return al.Availability.of_module("casadi", extra="casadi")

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse functions that cannot be recorded or have no form in CasADi."""
        reason = super().supports(problem)
        if reason is not None:
            return reason
        from ._model import programs

        try:
            programs(problem)
        except al.AlgebraError as error:
            return str(error)
        return None

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance, all through one compiled solver."""
        from ._solve import solve_batch

        return solve_batch(self, problem, start)

    @abc.abstractmethod
    def preference(self, problem: al.BoundProblem) -> float:
        """Return how well the method suits the problem."""


HESSIANS = ("auto", "exact", "limited-memory")
EXPANSIONS = ("auto", "yes", "no")


@dataclass(frozen=True)
class IPOPT(AbstractCasADi):
    """IPOPT, the interior-point line-search method: sparse problems of any size with any constraints.

    Attributes:
        linear_solver: ``"mumps"`` comes with CasADi; ``"spral"`` too; the HSL ones need the user's library.
        warm_start: trust the start: begin with a small barrier and with multipliers estimated there, and do not push
            the point off its bounds. For a ``start`` near the solution, such as that of the last training step.

    Reference: Wächter and Biegler, *On the implementation of an interior-point filter line-search algorithm for
    large-scale nonlinear programming*, 2006.
    """

    name: ClassVar[str] = "casadi.ipopt"
    capabilities: ClassVar[al.Capabilities] = EVERYTHING

    linear_solver: str = "mumps"
    warm_start: bool = False

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse more equalities than variables, and what cannot be recorded."""
        if problem.equalities > problem.size:
            return f"needs at most as many equalities as variables, not {problem.equalities} and {problem.size}"
        return super().supports(problem)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 20 for many variables with constraints, whose sparsity pays; else 9."""
        return 20.0 if problem.size > SMALL and problem.problem.constraints - {"bounds"} else 9.0


@dataclass(frozen=True)
class SQP(AbstractCasADi):
    """Sequential quadratic programming with exact Hessians: small problems and batches of them, in microseconds.

    Attributes:
        qp: the solver of the quadratic programs: ``"qrqp"``, an active-set method, or ``"osqp"``.

    Reference: Nocedal and Wright, *Numerical Optimization*, 2006, algorithm 18.3; Andersson and Rawlings, *Sensitivity
    analysis for nonlinear programming in CasADi*, 2018, for qrqp.
    """

    name: ClassVar[str] = "casadi.sqp"
    capabilities: ClassVar[al.Capabilities] = EVERYTHING

    max_iter: int = 200
    qp: Literal["qrqp", "osqp"] = "qrqp"

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        super().__post_init__()
        if self.qp not in ("qrqp", "osqp"):
            raise al.SolverError(f"{self.name}: qp must be 'qrqp' or 'osqp', not {self.qp!r}")

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 8, less than IPOPT, which is slower on small problems but finds more solutions."""
        return 8.0 if problem.size <= SMALL else 3.0


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [IPOPT, SQP]
