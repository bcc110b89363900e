"""The one direction of data: bind parameters, choose a solver, solve, certify, attach the backward."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._backward import KKT, AbstractBackward, Node
from ._bound import BoundProblem, bind, non_finite
from ._certificate import judge, measure, refine
from ._errors import ProblemError, SolveFailed
from ._implicit import attach_gradient
from ._layout import WORKING_DTYPE
from ._problem import Problem
from ._search import Found, search, substitute
from ._select import choose
from ._solution import Multipliers, Solution, Status, Variables
from ._solver import AbstractSolver
from ._start import flat_value

ATTACH_TOLERANCE = 1e-5
"""Scaled residual that a value given in float64 may have."""
ATTACH_TOLERANCE_SINGLE = 1e-3
"""Scaled residual that a value given in a shorter float may have."""


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
        ``throw=False`` failed instances are NaN.
    """
    return solve(
        problem, *parameters, solver=solver, start=start, backward=backward, options=options, throw=throw
    ).value


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
        The :class:`Solution`; ``value`` and ``multipliers`` are differentiable.

    Raises:
        SolveFailed: some instance was not solved (only with ``throw``); the exception holds the solution.
        SignatureError: parameters do not fit the signature.
        ProblemError: the problem breaks its contract; with ``throw``, also NaN or infinite parameters.
        SolverError: the solver is unknown, not installed, or refuses the problem.
        NotDifferentiable: raised by the backward pass where the derivative is not determined (only with ``throw``).
    """
    began = time.perf_counter()
    bound, tensors = bind(problem, parameters)
    finite = _check_finite(bound, throw)
    choice = choose(bound, solver, options)
    found = search(substitute(bound, finite), choice, problem.start if start is None else start)
    status = torch.where(finite, found.status, int(Status.NOT_FINITE))
    found = replace(found, status=status, seconds=time.perf_counter() - began)
    return _finish(Attachment(bound, tensors, backward, throw), found, found.point.z, status == Status.SOLVED)


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
    point that is no minimum keeps its gradient (paper 002, sec. 3.2) and has the status ``NOT_A_MINIMUM``.

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
    began = time.perf_counter()
    bound, tensors = bind(problem, parameters)
    _check_finite(bound, throw=True)
    z = flat_value(bound, value, "the value")
    nu, lam = _given_multipliers(bound, multipliers)
    given = measure(bound, z, nu, lam)
    claimed = torch.zeros(bound.batch, dtype=torch.int64, device=z.device)
    status = judge(given, _attach_tolerance(value), claimed)
    found = Found(
        point=replace(refine(bound, given), certificate=given.certificate),
        status=status,
        objective=bound.objective(z),
        iterations=torch.full_like(claimed, -1),
        messages=("",) * bound.batch,
        solver="the given value",
        seconds=time.perf_counter() - began,
    )
    stationary = (status == Status.SOLVED) | (status == Status.NOT_A_MINIMUM)
    return _finish(Attachment(bound, tensors, backward, throw), found, z, stationary)


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


def _check_finite(bound: BoundProblem, throw: bool) -> Tensor:
    finite, message = non_finite(bound)
    if throw and message is not None:
        raise ProblemError(message)
    return finite


def _given_multipliers(bound: BoundProblem, given: Multipliers | None) -> tuple[Tensor | None, Tensor | None]:
    if given is None:
        return None, None
    flat = []
    for name, count in (("equality", bound.equalities), ("inequality", bound.inequalities)):
        tensor = getattr(given, name).detach().to(WORKING_DTYPE)
        if tensor.shape[-1:] != (count,):
            raise ProblemError(
                f"the multipliers of the {name} constraints have shape {tuple(tensor.shape)}, but there are {count} "
                f"constraints; the last dimension must be {count}"
            )
        flat.append(tensor.expand(*bound.layout.batch_shape, count).reshape(bound.batch, count))
    return flat[0], flat[1]


def _attach_tolerance(value: Any) -> float:
    tensors = value if isinstance(value, tuple) else (value,)
    single = any(isinstance(t, Tensor) and t.is_floating_point() and t.dtype != WORKING_DTYPE for t in tensors)
    return ATTACH_TOLERANCE_SINGLE if single else ATTACH_TOLERANCE


@dataclass(frozen=True)
class Attachment:
    """What a gradient is attached to: the bound problem, the caller's parameters and the backward rule."""

    bound: BoundProblem
    parameters: tuple[Tensor, ...]
    backward: AbstractBackward
    throw: bool


def _finish(to: Attachment, found: Found, z: Tensor, accepted: Tensor) -> Solution:
    """Attach the gradient and dress everything in the caller's shapes, dtype and sense."""
    bound, point, layout = to.bound, found.point, to.bound.layout
    node = Node(
        functions=bound.functions,
        system=point.system,
        anchor=point.z,
        solved=accepted,
        regular=point.certificate.regular,
        throw=to.throw,
    )
    values = (torch.where(accepted[:, None], t, torch.nan) for t in (z, point.nu, point.lam, point.zeta))
    primal, nu, lam, zeta = (
        t.to(layout.dtype) for t in attach_gradient(to.backward, node, tuple(values), to.parameters)
    )

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(layout.batch_shape + flat.shape[1:])

    solution = Solution(
        value=layout.unflatten(shaped(primal)),
        multipliers=Multipliers(
            equality=shaped(nu),
            inequality=shaped(lam),
            lower=layout.unflatten(shaped(zeta.clamp_min(0.0))),
            upper=layout.unflatten(shaped((-zeta).clamp_min(0.0))),
        ),
        status=shaped(found.status),
        objective=shaped((-found.objective if bound.problem.maximize else found.objective).to(layout.dtype)),
        certificate=point.certificate.reshape(layout.batch_shape),
        iterate=layout.unflatten(shaped(z.to(layout.dtype))),
        iterations=shaped(found.iterations),
        solver=found.solver,
        messages=found.messages,
        seconds=found.seconds,
    )
    if to.throw and not bool(accepted.all()):
        raise SolveFailed(solution.failure() or "", solution)
    return solution
