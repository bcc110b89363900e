"""The one direction of data: bind parameters, choose a solver, solve, certify, attach the backward."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ._autodiff import entry
from ._backward import KKT, AbstractBackward, Linearization
from ._bound import BoundProblem, arrange, bind_prepared
from ._certificate import judge, measure
from ._direct import direct_solver
from ._errors import ProblemError, SolveFailed, SolverError
from ._implicit import Outcome, Record, Task, solve_implicitly
from ._kinks import find_kinks
from ._layout import WORKING_DTYPE, Layout
from ._parameters import non_finite
from ._problem import Problem
from ._qp_layer import argmin_quadratic
from ._quadratic import QuadraticProgram
from ._refine import refine
from ._search import Found, search, substitute
from ._select import choose
from ._solution import GIVEN, Certificate, Multipliers, Solution, Status, Variables, failure_text
from ._solver import AbstractSolver
from ._start import flat_value, read_starts, start_points
from .cones import ConeProgram, Request, argmin_cones, restate, solve_cones, solve_restated

ATTACH_TOLERANCE = 1e-4
"""Scaled residual that a value given in float64 may have."""
ATTACH_TOLERANCE_SINGLE = 1e-3
"""Scaled residual that a value given in a shorter float may have."""


@entry
def argmin(
    problem: Problem,
    *parameters: Any,
    solver: str | AbstractSolver | None = None,
    start: Any = None,
    backward: AbstractBackward = KKT(),
    options: Mapping[str, Any] | None = None,
    throw: bool = True,
) -> Variables:
    """Return the minimiser of every instance, differentiable in the parameters; arguments as for :func:`solve`.

    Returns:
        (..., *core) in the dtype and on the device of the parameters, a tuple for several variables. With
        ``throw=False`` failed instances are NaN. Where the problem declares a structure that an
        :class:`AbstractDirectSolver` serves, and neither a start nor another backward rule is asked for, that solver's
        own solution and derivative are returned.
    """
    if isinstance(problem, ConeProgram):
        return argmin_cones(problem, parameters, solver, start, backward, options, throw)
    if isinstance(problem, QuadraticProgram) and start is None and backward == KKT():
        found = argmin_quadratic(problem, parameters, solver, options, throw)
        if found is not None:
            return found
    elif isinstance(problem, Problem) and problem.structure is not None and start is None and backward == KKT():
        direct = direct_solver(problem, parameters, solver, options)
        if direct is not None:
            return direct.direct(problem.structure, parameters, throw)
    return solve(
        problem, *parameters, solver=solver, start=start, backward=backward, options=options, throw=throw
    ).value


@entry
def solve(
    problem: Problem,
    *parameters: Any,
    solver: str | AbstractSolver | None = None,
    start: Any = None,
    backward: AbstractBackward = KKT(),
    options: Mapping[str, Any] | None = None,
    throw: bool = True,
) -> Solution:
    """Solve every instance, certify the answers and attach the gradient.

    Args:
        problem: the problem.
        *parameters: tensors that fit its signature; leading dimensions broadcast to the batch.
        solver: a name (``"scipy.slsqp"``), a plugin (``"scipy"``: it picks among its own), a solver value, or
            ``"auto"``. Without it: :func:`use_solver`, then ``ARGMINLAYER_SOLVER``, then ``"auto"``.
        start: replaces the problem's ``start``; also a :class:`Solution` to go on from.
        backward: the backward rule.
        options: fields of the solver to replace, ``{"max_iter": 500}``.
        throw: raise if an instance fails. Otherwise failed instances have NaN in ``value`` and multipliers, their
            status says why, and their gradient is NaN where a cotangent reaches them, while the others are unharmed.

    Returns:
        The :class:`Solution`; ``value``, ``multipliers`` and ``objective`` are differentiable.

    Raises:
        SolveFailed: some instance was not solved (only with ``throw``); the exception holds the solution.
        SignatureError: parameters do not fit the signature.
        ProblemError: the problem breaks its contract; with ``throw``, also NaN or infinite parameters.
        SolverError: the solver is unknown, not installed, or refuses the problem.
        NotDifferentiable: raised by the backward pass where the derivative is not determined (only with ``throw``).
    """
    _check_settings(backward, options)
    if isinstance(problem, ConeProgram):
        return solve_cones(problem, parameters, solver, start, backward, options, throw)
    layout, prepared = arrange(problem, parameters, start)
    request = Request(problem, solver, backward, options, throw, solve)
    restated = restate(request, layout, prepared)
    if restated is not None:
        return solve_restated(request, restated, layout, prepared)
    starts, given = read_starts(layout, problem.start if start is None else start)

    def find(bound: BoundProblem, given: tuple[Tensor, ...]) -> tuple[Found, Tensor]:
        choice = choose(bound, solver, options)
        found = search(bound, choice, None if starts is None else start_points(bound, starts, given))
        return found, found.point.z

    run = _runner(find, backward, throw, (Status.SOLVED,))
    return _finish(Task(problem, layout, run, backward, throw, len(given), Record()), given, prepared)


@entry
def certify(
    problem: Problem,
    value: Any,
    *parameters: Any,
    multipliers: Multipliers | None = None,
    backward: AbstractBackward = KKT(),
    throw: bool = False,
) -> Solution:
    """Judge a value found anywhere, and attach the gradient where it is a solution.

    The residuals are measured at ``value`` itself. Derivatives are taken at the refined point: a few Newton steps on
    the KKT conditions remove the error of ``value``, so that the gradient is that of the exact solution. A stationary
    point that is no minimum keeps its gradient (Gould et al. 2016, sec. 3.2) and has the status ``NOT_A_MINIMUM``.

    Args:
        problem: the problem.
        value: (..., *core), a tuple for several variables.
        *parameters: tensors that fit the signature.
        multipliers: if known; otherwise recovered.
        backward: the backward rule.
        throw: raise unless every instance is at least a stationary, feasible point.

    Raises:
        SolveFailed: a value is not stationary or not feasible (only with ``throw``).
    """
    _check_settings(backward, None)
    layout, prepared = arrange(problem, parameters, value)
    given = (flat_value(layout, value, "the value"), *_flat_multipliers(layout, multipliers))
    tolerance = _tolerance(value)

    def find(bound: BoundProblem, given: tuple[Tensor, ...]) -> tuple[Found, Tensor]:
        z, *forces = given
        _check_multipliers(bound, forces)
        point = measure(bound, z, *forces)
        refined = refine(bound, point)
        status = judge(point, tolerance, torch.zeros(bound.batch, dtype=torch.int64, device=z.device))
        found = Found(
            point=replace(refined, certificate=_at_given(point.certificate, refined.certificate)),
            status=status,
            objective=bound.objective(z),
            iterations=torch.full_like(status, -1),
            messages=("",) * bound.batch,
            solver=GIVEN,
            gap=refined.certificate.gap,
        )
        return found, z

    run = _runner(find, backward, throw, (Status.SOLVED, Status.NOT_A_MINIMUM))
    return _finish(Task(problem, layout, run, backward, throw, len(given), Record()), given, prepared)


def attach(
    problem: Problem,
    value: Any,
    *parameters: Any,
    multipliers: Multipliers | None = None,
    backward: AbstractBackward = KKT(),
    throw: bool = True,
) -> Variables:
    """Return ``value``, found anywhere, with the gradient of the argmin attached; see :func:`certify`.

    Raises:
        SolveFailed: a value is not stationary or not feasible (only with ``throw``; otherwise it becomes NaN).
    """
    return certify(problem, value, *parameters, multipliers=multipliers, backward=backward, throw=throw).value


def _check_settings(backward: AbstractBackward, options: Mapping[str, Any] | None) -> None:
    if not isinstance(backward, AbstractBackward):
        raise ProblemError(f"backward must be a backward rule such as al.KKT(), not {backward!r}")
    if options is not None and not isinstance(options, Mapping):
        raise SolverError(f"options must be a mapping such as {{'max_iter': 500}}, not {options!r}")


def _at_given(given: Certificate, refined: Certificate) -> Certificate:
    """Return the residuals of the given point, with the active set and its regularity as refinement found them."""
    residuals = ("stationarity", "feasibility", "complementarity", "dual_feasibility", "error")
    return replace(refined, **{name: getattr(given, name) for name in residuals})


def _flat_multipliers(layout: Layout, given: Multipliers | None) -> tuple[Tensor, ...]:
    if given is None:
        return ()
    if not isinstance(given, Multipliers):
        raise ProblemError(f"multipliers must be al.Multipliers, such as a solution's, not {type(given).__name__}")
    shapes = ((tensor, layout.batch_shape + tensor.shape[-1:]) for tensor in (given.equality, given.inequality))
    return tuple(t.to(WORKING_DTYPE).expand(shape).reshape(layout.batch, shape[-1]) for t, shape in shapes)


def _check_multipliers(bound: BoundProblem, forces: Sequence[Tensor]) -> None:
    counts = (("equality", bound.equalities), ("inequality", bound.inequalities))
    for (name, count), force in zip(counts, forces, strict=False):
        if force.shape[-1] != count:
            raise ProblemError(
                f"the multipliers of the {name} constraints have {force.shape[-1]} entries, but there are {count} "
                "constraints"
            )


def _tolerance(value: Any) -> float:
    tensors = value if isinstance(value, tuple) else (value,)
    single = any(isinstance(t, Tensor) and t.is_floating_point() and t.dtype != WORKING_DTYPE for t in tensors)
    return ATTACH_TOLERANCE_SINGLE if single else ATTACH_TOLERANCE


def _runner(
    find: Callable[[BoundProblem, tuple[Tensor, ...]], tuple[Found, Tensor]],
    backward: AbstractBackward,
    throw: bool,
    good: tuple[Status, ...],
) -> Callable[[Problem, Layout, tuple[Tensor, ...], tuple[Tensor, ...], Record], Outcome]:
    """Return the forward pass around ``find``: bind, set aside what is not finite, find, note who found what.

    Args:
        find: ``(bound problem, given tensors) ->`` what was found, and the value (batch, n) to return.
        backward: linearises what was found.
        throw: raise on parameters that are not finite.
        good: statuses of instances that have a solution.
    """

    def run(
        problem: Problem, layout: Layout, prepared: tuple[Tensor, ...], given: tuple[Tensor, ...], record: Record
    ) -> Outcome:
        began = time.perf_counter()
        bound = bind_prepared(problem, layout, prepared)
        finite, message = non_finite(bound)
        if throw and message is not None:
            raise ProblemError(message)
        bound = substitute(bound, finite)
        found, z = find(bound, given)
        status = torch.where(finite, found.status, int(Status.NOT_FINITE))
        accepted = torch.isin(status, torch.tensor(good, device=status.device))
        shape, certificate = layout.batch_shape, found.point.certificate
        record.mapped, record.solver, record.messages = bound.functions.mapped, found.solver, found.messages
        record.failure = failure_text(
            accepted.reshape(shape), status.reshape(shape), certificate.reshape(shape), found.solver, found.messages
        )
        record.seconds = time.perf_counter() - began
        point = find_kinks(bound, found.point)
        point = replace(point, certificate=replace(point.certificate, gap=found.gap))
        found = replace(found, status=status, point=point)
        linear = backward.linearize(bound, found.point)
        record.systems = linear.systems
        return _outcome(found, z, accepted, linear)

    return run


def _outcome(found: Found, z: Tensor, accepted: Tensor, linear: Linearization) -> Outcome:
    point = found.point
    known = [torch.where(accepted[:, None], t, torch.nan) for t in (z, point.nu, point.lam, point.zeta)]
    held = [system.active for system in (point.system, *linear.systems)]
    return Outcome(
        z=known[0],
        nu=known[1],
        lam=known[2],
        zeta=known[3],
        anchor=linear.anchor,
        accepted=accepted,
        differentiable=accepted & linear.differentiable & linear.certificate.smooth,
        status=found.status,
        objective=torch.where(accepted, found.objective, torch.nan),
        iterate=z.clone(),
        iterations=found.iterations,
        certificate=linear.certificate,
        at_lower=torch.stack([active.at_lower for active in held]).any(0),
        at_upper=torch.stack([active.at_upper for active in held]).any(0),
        index=torch.arange(len(z), device=z.device),
    )


def _finish(task: Task, given: tuple[Tensor, ...], prepared: tuple[Tensor, ...]) -> Solution:
    """Run a task and dress its outcome in the caller's shapes, dtype and sense."""
    outcome, layout, record = solve_implicitly(task, given, prepared), task.layout, task.record

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(layout.batch_shape + flat.shape[1:])

    z, nu, lam, zeta, iterate = (
        shaped(t.to(layout.dtype)) for t in (outcome.z, outcome.nu, outcome.lam, outcome.zeta, outcome.iterate)
    )
    solution = Solution(
        value=layout.unflatten(z),
        multipliers=Multipliers(
            equality=nu,
            inequality=lam,
            lower=layout.unflatten(zeta.clamp_min(0.0)),
            upper=layout.unflatten((0.0 - zeta).clamp_min(0.0)),
        ),
        status=shaped(outcome.status),
        objective=shaped((-outcome.objective if task.problem.maximize else outcome.objective).to(layout.dtype)),
        certificate=outcome.certificate.reshape(layout.batch_shape),
        iterate=layout.unflatten(iterate),
        iterations=shaped(outcome.iterations),
        solver=record.solver,
        messages=record.messages,
        seconds=record.seconds,
    )
    if task.throw and record.failure:
        raise SolveFailed(record.failure, solution)
    return solution
