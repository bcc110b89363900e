"""Ordinary problems restated as cone programs, which are certified and differentiated also where functions have kinks.

A kink of a convex function, such as that of ``|u|`` at zero, is no obstacle for its cone program: what jumps there are
multipliers. Problems with functions that may have kinks go this way where the solver chosen offers it.
"""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .. import _registry
from .._autodiff import inside_transform
from .._backward import KKT, AbstractBackward
from .._bound import bind_prepared
from .._errors import SolveFailed
from .._layout import WORKING_DTYPE, Layout
from .._parameters import non_finite
from .._problem import Problem
from .._select import AUTO, choose, requested
from .._solution import Certificate, Multipliers, Solution, Status
from .._solver import AbstractSolver
from ._call import solve_cones
from ._program import ConeProgram
from ._solver import AbstractConeSolver


@dataclass(frozen=True, eq=False)
class Restatement:
    """Some instances of a problem as a cone program.

    Attributes:
        instances: positions in the flattened batch, a vector.
        program: the cone program; None where there is none.
        arguments: ``(prepared parameters of the problem) ->`` the parameters of the program for these instances,
            differentiable.
        parts: ``(variables of the program) ->`` z (..., n), nu (..., p), lambda (..., q) and z_lo - z_up (..., n).
        reason: why there is no program.
        status: what is said of instances without a program.
    """

    instances: Tensor
    program: ConeProgram | None = None
    arguments: Callable[[Sequence[Tensor]], Sequence[Tensor]] = tuple
    parts: Callable[[Any], tuple[Tensor, ...]] = tuple
    reason: str = ""
    status: Status = Status.NOT_CONVEX


@dataclass(frozen=True, eq=False)
class Restated:
    """A problem as cone programs, the solver that restated it, and its numbers p and q of constraints."""

    solver: AbstractConeSolver
    parts: tuple[Restatement, ...]
    equalities: int
    inequalities: int


_smooth: "weakref.WeakSet[Problem]" = weakref.WeakSet()
"""Problems seen without kinks."""


def restate(
    problem: Problem,
    layout: Layout,
    prepared: tuple[Tensor, ...],
    solver: str | AbstractSolver | None,
    backward: AbstractBackward,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Restated | None:
    """Return the problem as cone programs, if it may have kinks and the solver chosen offers that; None otherwise."""
    usual = layout.batch == 0 or not isinstance(backward, KKT)
    if usual or problem in _smooth or not _may_restate(requested(solver)):
        return None

    def plan(*values: Tensor) -> Restated | None:
        return _planned(problem, layout, values, solver, options, throw)

    if not inside_transform():
        return plan(*(p.detach() for p in prepared))
    answers: list[Restated | None] = []
    _Outside.apply(lambda *values: answers.append(plan(*values)), *prepared)  # type: ignore[no-untyped-call]
    return answers[0] if answers else None


class _Outside(torch.autograd.Function):
    """Calls a function on the values that transforms of derivatives have wrapped; not on those that vmap has."""

    @staticmethod
    def forward(call: Callable[..., None], *values: Tensor) -> Tensor:
        call(*(value.detach() for value in values))
        return torch.zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:
        """Never called: nothing is computed from the result."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        del ctx, tangents
        return torch.zeros(())

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, None]:
        del info, in_dims, inputs
        return torch.zeros(()), None


def _planned(
    problem: Problem,
    layout: Layout,
    values: tuple[Tensor, ...],
    solver: str | AbstractSolver | None,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Restated | None:
    bound = bind_prepared(problem, layout, values)
    if not bound.kinks:
        _smooth.add(problem)
        return None
    finite, message = non_finite(bound)
    sound = finite.nonzero()[:, 0]
    if len(sound) == 0 or (throw and message is not None):
        return None
    bound = bound if message is None else bound.select(sound)
    chosen = choose(bound, solver, options).chain[0]
    parts = chosen.restate(bound) if isinstance(chosen, AbstractConeSolver) else None
    if parts is None:
        return None
    if message is not None:
        parts = (*(_among(part, sound, layout.shared) for part in parts), _not_finite(finite, message))
    assert isinstance(chosen, AbstractConeSolver)
    return Restated(chosen, parts, bound.equalities, bound.inequalities)


def _among(part: Restatement, sound: Tensor, shared: tuple[bool, ...]) -> Restatement:
    """Return a part of the sound instances as one of the whole batch."""

    def arguments(prepared: Sequence[Tensor]) -> Sequence[Tensor]:
        return part.arguments(tuple(p if s else p[sound] for p, s in zip(prepared, shared, strict=True)))

    return replace(part, instances=sound[part.instances], arguments=arguments)


def _not_finite(finite: Tensor, message: str) -> Restatement:
    return Restatement((~finite).nonzero()[:, 0], reason=message, status=Status.NOT_FINITE)


def _may_restate(request: str | AbstractSolver) -> bool:
    if isinstance(request, AbstractSolver):
        return isinstance(request, AbstractConeSolver)
    if request != AUTO and ":" in request:
        return True
    solvers = _registry.load().solvers
    named = [s for name, s in solvers.items() if request in (AUTO, name, name.partition(".")[0])]
    return any(isinstance(s, AbstractConeSolver) and s.available() for s in named)


def solve_restated(
    restated: Restated,
    problem: Problem,
    layout: Layout,
    prepared: tuple[Tensor, ...],
    backward: AbstractBackward,
    throw: bool,
) -> Solution:
    """Solve the cone programs of a problem, and return their solution as that of the problem.

    Raises:
        SolveFailed: some instance was not solved (only with ``throw``).
    """
    began = time.perf_counter()
    pieces = [_solve_part(part, restated, layout, prepared, backward, throw) for part in restated.parts]
    order = torch.argsort(torch.cat([part.instances for part in restated.parts]))
    joined = {name: torch.cat([getattr(piece, name) for piece in pieces])[order] for name in _TENSORS}
    certificate = Certificate(
        **{f.name: torch.cat([getattr(p.certificate, f.name) for p in pieces])[order] for f in fields(Certificate)}
    )
    words = [word for piece in pieces for word in piece.messages]

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(layout.batch_shape + flat.shape[1:])

    def dressed(name: str) -> Tensor:
        return shaped(joined[name].to(layout.dtype))

    zeta, sign = dressed("zeta"), -1.0 if problem.maximize else 1.0
    solution = Solution(
        value=layout.unflatten(dressed("z")),
        multipliers=Multipliers(
            equality=dressed("nu"),
            inequality=dressed("lam"),
            lower=layout.unflatten(zeta.clamp_min(0.0)),
            upper=layout.unflatten((0.0 - zeta).clamp_min(0.0)),
        ),
        status=shaped(joined["status"]),
        objective=sign * dressed("objective"),
        certificate=certificate.reshape(layout.batch_shape),
        iterate=layout.unflatten(dressed("iterate")),
        iterations=shaped(joined["iterations"]),
        solver=restated.solver.name,
        messages=tuple(words[i] for i in order.tolist()),
        seconds=time.perf_counter() - began,
    )
    failure = solution.failure()
    if throw and failure is not None:
        raise SolveFailed(failure, solution)
    return solution


@dataclass(frozen=True, eq=False)
class _Piece:
    """What was found for the instances of one restatement, with a leading batch."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    status: Tensor
    objective: Tensor
    iterate: Tensor
    iterations: Tensor
    certificate: Certificate
    messages: tuple[str, ...]


_TENSORS = tuple(f.name for f in fields(_Piece) if f.name not in ("certificate", "messages"))


def _solve_part(
    part: Restatement,
    restated: Restated,
    layout: Layout,
    prepared: tuple[Tensor, ...],
    backward: AbstractBackward,
    throw: bool,
) -> _Piece:
    count, solver = len(part.instances), restated.solver
    if part.program is None:
        return _refused(part, restated, layout, prepared)
    arguments = part.arguments(prepared)
    try:
        found = solve_cones(part.program, arguments, solver, None, backward, None, throw)
    except SolveFailed:
        # the failure is reported for the whole batch, with the instances of the problem
        found = solve_cones(part.program, arguments, solver, None, backward, None, False)

    def wide(tensor: Tensor) -> Tensor:
        lead = found.status.ndim
        return tensor if lead else tensor.expand(count, *tensor.shape)

    z, nu, lam, zeta = (wide(piece) for piece in part.parts(found.value))
    certificate = Certificate(**{f.name: wide(getattr(found.certificate, f.name)) for f in fields(Certificate)})
    messages = found.messages if len(found.messages) == count else found.messages * count
    return _Piece(
        z=z,
        nu=nu,
        lam=lam,
        zeta=zeta,
        status=wide(found.status),
        objective=wide(found.objective),
        iterate=wide(part.parts(found.iterate)[0]),
        iterations=wide(found.iterations),
        certificate=certificate,
        messages=messages,
    )


def _refused(part: Restatement, restated: Restated, layout: Layout, prepared: tuple[Tensor, ...]) -> _Piece:
    count = len(part.instances)

    def full(width: int, number: float = torch.nan) -> Tensor:
        return torch.full((count, width), number, dtype=WORKING_DTYPE)

    kinds = {"int": torch.zeros(count, dtype=torch.int64), "bool": torch.zeros(count, dtype=torch.bool)}
    measured = {
        f.name: kinds["bool" if f.name in _TRUTHS else "int"]
        if f.name in _TRUTHS | _COUNTS
        else full(1, torch.inf)[:, 0]
        for f in fields(Certificate)
    }
    return _Piece(
        z=_Lost.apply(layout, part.instances, *prepared),  # type: ignore[no-untyped-call]
        nu=full(restated.equalities),
        lam=full(restated.inequalities),
        zeta=full(layout.size),
        status=kinds["int"] + int(part.status),
        objective=full(1)[:, 0],
        iterate=full(layout.size),
        iterations=kinds["int"] - 1,
        certificate=Certificate(**measured),
        messages=(part.reason,) * count,
    )


class _Lost(torch.autograd.Function):
    """NaN for instances of a batch, and NaN as the derivative in their parameters where a cotangent reaches them."""

    @staticmethod
    def forward(layout: Layout, instances: Tensor, *prepared: Tensor) -> Tensor:
        del prepared
        return torch.full((len(instances), layout.size), torch.nan, dtype=WORKING_DTYPE)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.layout, ctx.instances, *prepared = inputs
        ctx.shapes = [p.shape if p.is_floating_point() else None for p in prepared]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        mark = torch.where((cotangent != 0).any(1), torch.nan, 0.0).to(cotangent)
        batch = mark.new_zeros(ctx.layout.batch).index_add(0, ctx.instances, mark)
        gradients = [
            None
            if shape is None
            else (mark.sum() if shared else batch.reshape(-1, *(1,) * (len(shape) - 1))).expand(shape)
            for shape, shared in zip(ctx.shapes, ctx.layout.shared, strict=True)
        ]
        return None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        del tangents
        return torch.full((len(ctx.instances), ctx.layout.size), torch.nan, dtype=WORKING_DTYPE)


_TRUTHS = frozenset({"consistent", "regular", "smooth"})
_COUNTS = frozenset({"active", "weakly_active", "kind", "redundant", "freedom"})
