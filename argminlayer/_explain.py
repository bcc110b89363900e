"""The explanation of a choice: which installed solvers can solve a problem, why others cannot, which one is used."""

from dataclasses import dataclass
from typing import Any

from . import _registry
from ._autodiff import entry
from ._bound import BoundProblem, bind
from ._errors import AlgebraError
from ._problem import Problem
from ._select import AUTO, Choice, Verdict, choose, describe, requested, verdict_of
from ._solver import AbstractSolver
from .algebra import record
from .cones import ConeProgram, explain_cones


@dataclass(frozen=True)
class Explanation:
    """Which solvers can solve a problem, why the others cannot, and what ``auto`` picks. ``str`` is the report.

    Attributes:
        problem: the kinds and sizes of objective and constraints in words.
        program: the class of the problem, as its algebra proves it: ``"quadratic program (...)"``; or why it has none.
        verdicts: one for each installed solver.
        choice: what would be used, None when nothing can.
        proofs: what solvers prove beside the class: ``"convex, proved by DCP"``.
    """

    problem: str
    program: str
    verdicts: tuple[Verdict, ...]
    choice: Choice | None
    proofs: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max((len(v.solver.name) for v in self.verdicts), default=0)
        lines = [f"problem: {self.problem}", f"class: {self.program}"]
        lines += [f"       {proof}" for proof in self.proofs]
        lines.append("solvers:")
        for verdict in sorted(self.verdicts, key=lambda v: (v.reason is not None, -v.preference, v.solver.name)):
            state = f"no: {verdict.reason}" if verdict.reason else f"usable, preference {verdict.preference:g}"
            lines.append(f"  {verdict.solver.name:<{width}}  {state}")
        if not self.verdicts:
            lines.append("  none installed")
        lines.append(f"choice: {self.choice.why}" if self.choice else "choice: no installed solver can solve this")
        return "\n".join(lines)


@entry
def explain(problem: Problem, *parameters: Any, solver: str | AbstractSolver | None = None) -> Explanation:
    """Return which installed solvers can solve the problem with these parameters, and which one would be used.

    Args:
        problem: the problem.
        *parameters: as for :func:`argminlayer.solve`.
        solver: as for :func:`argminlayer.solve`; without it, what the context, the environment or ``auto`` say.

    Raises:
        SolverError: the solver asked for is unknown, not installed, or does not support the problem.
    """
    if isinstance(problem, ConeProgram):
        return Explanation(*explain_cones(problem, parameters, solver))
    bound = bind(problem, parameters)
    verdicts = tuple(verdict_of(s, bound) for s in _registry.load().solvers.values())
    request = requested(solver)
    found = dict.fromkeys(_proof(verdict.solver, bound) for verdict in verdicts if verdict.reason is None)
    proofs = tuple(filter(None, found))
    if request == AUTO and all(v.reason for v in verdicts):
        return Explanation(describe(bound), _program(bound), verdicts, None, proofs)
    return Explanation(describe(bound), _program(bound), verdicts, choose(bound, solver), proofs)


def _proof(solver: AbstractSolver, bound: BoundProblem) -> str:
    try:
        return solver.proves(bound)
    except Exception:  # noqa: BLE001 - a broken plugin proves nothing and harms no other
        return ""


def _program(bound: BoundProblem) -> str:
    """Return the class that the algebra of a problem proves, or why it has no algebra."""
    try:
        degrees = [algebra.degree for algebra in record(bound)]
    except AlgebraError as error:
        return f"unknown, for it has no algebra: {error}"
    if not degrees:
        return "unknown, for the batch is empty"
    return str(max(degrees, key=lambda degree: max(degree.objective, 2 * degree.constraints)))
