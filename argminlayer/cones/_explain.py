"""What can be said of a cone program and of the solvers that may serve it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .. import _registry
from .._qp_solver import AbstractQuadraticSolver
from .._select import AUTO, Choice, Verdict, requested
from .._solver import AbstractSolver
from ._call import bind_cones, serving
from ._form import ConeForm
from ._linear import LinearCones
from ._pattern import Cones
from ._program import ConeProgram
from ._search import choose_cones, cone_family
from ._solver import AbstractConeSolver


def explain_cones(
    problem: ConeProgram, parameters: Sequence[Any], solver: str | AbstractSolver | None
) -> tuple[str, str, tuple[Verdict, ...], Choice | None]:
    """Return words on a program and its class, a verdict on every installed solver, and the choice."""
    bound = bind_cones(problem, parameters)
    form = bound.form
    verdicts = tuple(_verdict(s, form) for s in _registry.load().solvers.values())
    pattern = problem.pattern
    size = f"{'maximise' if problem.maximize else 'minimise'}, {pattern.size} variables, {pattern.cones.rows} rows"
    words = f"{size}, {f'batch of {form.batch}' if bound.shape else 'one instance'}"
    kind = "quadratic" if len(pattern.P_rows) else "linear"
    program = f"cone program ({kind} objective; {_cones(pattern.cones)})"
    quadratic = serving(bound, solver)
    if quadratic:
        why = f"{quadratic[0].name}, for as a quadratic program it has one solution"
        return words, program, verdicts, Choice(quadratic, why)
    if requested(solver) == AUTO and all(v.reason for v in verdicts):
        return words, program, verdicts, None
    chain = choose_cones(form, cone_family(solver), None)
    why = f"{chain[0].name}, suiting {chain[0].suits(form):g}"
    if len(chain) > 1:
        why += f"; for instances it does not solve: {', then '.join(s.name for s in chain[1:])}"
    return words, program, verdicts, Choice(chain, why)


def _verdict(solver: AbstractSolver, form: ConeForm) -> Verdict:
    candidate = LinearCones(solver) if isinstance(solver, AbstractQuadraticSolver) else solver
    if not isinstance(candidate, AbstractConeSolver):
        return Verdict(solver, "does not solve cone programs", 0.0)
    try:
        reason = candidate.available().reason or candidate.refuses(form)
        return Verdict(solver, reason or None, 0.0 if reason else candidate.suits(form))
    except Exception as error:  # noqa: BLE001 - a broken plugin is reported and harms no other
        return Verdict(solver, f"its plugin is broken: {type(error).__name__}: {error}", 0.0)


def _cones(cones: Cones) -> str:
    """Return cones in words: ``"3 zero rows, 2 second-order cones of 4 rows"``."""
    parts = [
        f"{count} {name} rows" for name, count in (("zero", cones.zero), ("nonnegative", cones.nonnegative)) if count
    ]
    sizes = (
        ("second-order cones of {} rows", cones.second_order),
        ("semidefinite cones of side {}", cones.semidefinite),
        ("power cones of exponent {:g}", cones.power),
    )
    for words, details in sizes:
        parts += [f"{count} {words.format(detail)}" for detail, count in Counter(details).items()]
    if cones.exponential:
        parts.append(f"{cones.exponential} exponential cones")
    return ", ".join(parts) or "no constraints"
