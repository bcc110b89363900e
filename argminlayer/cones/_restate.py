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
from .._errors import ProblemError, SolveFailed, SolverError
from .._layout import WORKING_DTYPE, Layout
from .._parameters import non_finite
from .._problem import Problem
from .._select import AUTO, choose, requested
from .._solution import Certificate, Multipliers, Solution, Status, failure_text
from .._solver import AbstractSolver
from .._trees import build, tensors_of
from ._call import solve_cones
from ._mapped import Foldable, mapped
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
    """A problem as cone programs.

    Attributes:
        parts: the programs, for all instances together.
        equalities: p.
        inequalities: q.
        chain: the solver that restated it, and those of automatic choice for what it does not solve.
    """

    parts: tuple[Restatement, ...]
    equalities: int
    inequalities: int
    chain: tuple[AbstractSolver, ...]


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for in a call of :func:`argminlayer.solve`, which ``solve`` is, beside the parameters."""

    problem: Problem
    solver: str | AbstractSolver | None
    backward: AbstractBackward
    options: Mapping[str, Any] | None
    throw: bool
    solve: Callable[..., Solution]


_smooth: "weakref.WeakSet[Problem]" = weakref.WeakSet()
"""Problems seen without kinks."""


def restate(request: Request, layout: Layout, prepared: tuple[Tensor, ...]) -> Restated | None:
    """Return the problem as cone programs, if it may have kinks and the solver chosen offers that; None otherwise.

    Inside ``torch.vmap`` the answer is that of a batch with the first of all that is mapped.
    """
    usual = layout.batch == 0 or not isinstance(request.backward, KKT)
    if usual or request.problem in _smooth or not _may_restate(requested(request.solver)):
        return None

    def plan(*values: Tensor) -> Restated | None:
        return _planned(request, layout, values)

    if not inside_transform():
        return plan(*(p.detach() for p in prepared))
    answers: list[Restated | None] = []
    _Outside.apply(lambda *values: answers.append(plan(*values)), *prepared)  # type: ignore[no-untyped-call]
    return answers[0] if answers else None


class _Outside(torch.autograd.Function):
    """Calls a function on the values that transforms have wrapped, and on the first of those that vmap has."""

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
    def vmap(info: Any, in_dims: Any, call: Callable[..., None], *values: Tensor) -> tuple[Tensor, None]:
        if not info.batch_size:
            return torch.zeros(()), None
        first = (v if dim is None else v.select(dim, 0) for v, dim in zip(values, in_dims[1:], strict=True))
        _Outside.apply(call, *first)  # type: ignore[no-untyped-call]
        return torch.zeros(()), None


def _planned(request: Request, layout: Layout, values: tuple[Tensor, ...]) -> Restated | None:
    problem = request.problem
    bound = bind_prepared(problem, layout, values)
    if not bound.kinks:
        _smooth.add(problem)
        return None
    finite, message = non_finite(bound)
    sound = finite.nonzero()[:, 0]
    if len(sound) == 0 or (request.throw and message is not None):
        return None
    bound = bound if message is None else bound.select(sound)
    chain = choose(bound, request.solver, request.options).chain
    chosen = chain[0]
    parts = chosen.restate(bound) if isinstance(chosen, AbstractConeSolver) else None
    if parts is None:
        return None
    if message is not None:
        parts = (*(_among(part, sound, layout.shared) for part in parts), _not_finite(finite, message))
    return Restated(parts, bound.equalities, bound.inequalities, chain)


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


def solve_restated(request: Request, restated: Restated, layout: Layout, prepared: tuple[Tensor, ...]) -> Solution:
    """Solve the cone programs of a problem, and return their solution as that of the problem.

    Raises:
        SolveFailed: some instance was not solved (only with ``throw``).
    """
    began = time.perf_counter()
    said: list[_Said] = []
    found = build(_Found, mapped(_Finding(request, layout, said, restated), prepared))

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(layout.batch_shape + flat.shape[1:])

    def dressed(flat: Tensor) -> Tensor:
        return shaped(flat.to(layout.dtype))

    zeta, sign = dressed(found.zeta), -1.0 if request.problem.maximize else 1.0
    solution = Solution(
        value=layout.unflatten(dressed(found.z)),
        multipliers=Multipliers(
            equality=dressed(found.nu),
            inequality=dressed(found.lam),
            lower=layout.unflatten(zeta.clamp_min(0.0)),
            upper=layout.unflatten((0.0 - zeta).clamp_min(0.0)),
        ),
        status=shaped(found.status),
        objective=sign * dressed(found.objective),
        certificate=found.certificate.reshape(layout.batch_shape),
        iterate=layout.unflatten(dressed(found.iterate)),
        iterations=shaped(found.iterations),
        solver=said[-1].solver,
        messages=said[-1].messages,
        seconds=time.perf_counter() - began,
    )
    if request.throw and said[-1].failure:
        raise SolveFailed(said[-1].failure, solution)
    return solution


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found for the instances of a problem, flat; the first five carry derivatives."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    objective: Tensor
    status: Tensor
    iterate: Tensor
    iterations: Tensor
    certificate: Certificate


@dataclass(frozen=True)
class _Said:
    """Who solved, its words for each instance, and a sentence on those that failed."""

    solver: str
    messages: tuple[str, ...]
    failure: str


@dataclass(frozen=True, eq=False)
class _Finding(Foldable):
    """Prepared parameters to what is found.

    Attributes:
        request: what is asked for.
        layout: of the batch, which grows where ``torch.vmap`` folds what it maps into it.
        said: gets what is no tensor.
        restated: the problem as cone programs, where that is known already.
    """

    request: Request
    layout: Layout
    said: list[_Said]
    restated: Restated | None = None

    @property
    def results(self) -> tuple[bool, ...]:
        return (False,) * 5

    @property
    def shared(self) -> tuple[bool, ...]:
        return self.layout.shared

    @property
    def batch(self) -> int:
        return self.layout.batch

    def widened(self, size: int, shared: tuple[bool, ...]) -> "_Finding":
        layout = replace(self.layout, batch_shape=torch.Size((size, *self.layout.batch_shape)), shared=shared)
        return replace(self, layout=layout, restated=None)

    def __call__(self, *prepared: Tensor) -> tuple[Tensor, ...]:
        request, layout = self.request, self.layout
        restated = restate(request, layout, prepared) if self.restated is None else self.restated
        if restated is None:
            raise ProblemError(
                "the parameters of no instance can be used, or the first of those that torch.vmap maps has kinks and "
                "the others have none; call with leading batch dimensions instead"
            )
        pieces = [_solve_part(part, restated, request, layout, prepared) for part in restated.parts]
        order = torch.argsort(torch.cat([part.instances for part in restated.parts]))
        tensors = (torch.cat(each)[order] for each in zip(*(tensors_of(piece) for piece, _ in pieces), strict=True))
        found, words = build(_Found, tensors), [word for _, words in pieces for word in words]
        names, words = [restated.chain[0].name], [words[i] for i in order.tolist()]
        for other in restated.chain[1:]:
            left = (~torch.isin(found.status, torch.tensor(_DECIDED))).nonzero()[:, 0]
            trial = _handed_on(request, layout, prepared, other, left) if len(left) else None
            if trial is not None:
                names.append(other.name)
                found = _merged(request, layout, found, trial, left, words)
        self.said.append(_Said(", ".join(names), tuple(words), self._failure(found, names, words)))
        return tuple(tensors_of(found))

    def _failure(self, found: _Found, names: list[str], words: list[str]) -> str:
        shape = self.layout.batch_shape
        status, certificate = found.status.reshape(shape), found.certificate.reshape(shape)
        return failure_text(status == Status.SOLVED, status, certificate, ", ".join(names), tuple(words))


_DECIDED = (Status.SOLVED, Status.INFEASIBLE, Status.UNBOUNDED, Status.NOT_FINITE)
"""What no other solver is asked about."""


def _handed_on(
    request: Request, layout: Layout, prepared: tuple[Tensor, ...], solver: AbstractSolver, left: Tensor
) -> Solution | None:
    """Return what another solver makes of some instances, None if it refuses them."""
    values = tuple(p if shared else p[left] for p, shared in zip(prepared, layout.shared, strict=True))

    def solved(throw: bool) -> Solution:
        return request.solve(request.problem, *values, solver=solver, backward=request.backward, throw=throw)

    try:
        return solved(request.throw)
    except SolverError:
        return None
    except SolveFailed:
        return solved(False)


def _merged(request: Request, layout: Layout, found: _Found, trial: Solution, left: Tensor, words: list[str]) -> _Found:
    """Return what was found with the instances in ``left`` that another solver decided, and take its words."""
    wins = torch.isin(trial.status.reshape(-1), torch.tensor(_DECIDED)).nonzero()[:, 0]
    for i in wins.tolist():
        words[int(left[i])] = trial.messages[i]
    pairs = zip(tensors_of(found), tensors_of(_flat(request, layout, trial, len(left))), strict=True)
    return build(_Found, (one.index_copy(0, left[wins], other[wins].to(one.dtype)) for one, other in pairs))


def _flat(request: Request, layout: Layout, solution: Solution, count: int) -> _Found:
    """Return a solution of ``count`` instances flat."""
    forces = solution.multipliers

    def vectors(variables: Any) -> Tensor:
        return layout.flatten(variables, "a solution").reshape(count, layout.size)

    return _Found(
        z=vectors(solution.value),
        nu=forces.equality.reshape(count, -1),
        lam=forces.inequality.reshape(count, -1),
        zeta=vectors(forces.lower) - vectors(forces.upper),
        objective=(-solution.objective if request.problem.maximize else solution.objective).reshape(count),
        status=solution.status.reshape(count),
        iterate=vectors(solution.iterate),
        iterations=solution.iterations.reshape(count),
        certificate=solution.certificate.reshape(torch.Size([count])),
    )


def _solve_part(
    part: Restatement, restated: Restated, request: Request, layout: Layout, prepared: tuple[Tensor, ...]
) -> tuple[_Found, tuple[str, ...]]:
    count, solver, backward = len(part.instances), restated.chain[0], request.backward
    if part.program is None:
        return _refused(part, restated, layout, prepared)
    arguments = part.arguments(prepared)
    try:
        found = solve_cones(part.program, arguments, solver, None, backward, None, request.throw)
    except SolveFailed:
        # the failure is reported for the whole batch, with the instances of the problem
        found = solve_cones(part.program, arguments, solver, None, backward, None, False)

    def wide(tensor: Tensor) -> Tensor:
        lead = found.status.ndim
        return tensor if lead else tensor.expand(count, *tensor.shape)

    z, nu, lam, zeta = (wide(piece) for piece in part.parts(found.value))
    certificate = Certificate(**{f.name: wide(getattr(found.certificate, f.name)) for f in fields(Certificate)})
    messages = found.messages if len(found.messages) == count else found.messages * count
    flat = _Found(
        z=z,
        nu=nu,
        lam=lam,
        zeta=zeta,
        objective=wide(found.objective),
        status=wide(found.status),
        iterate=wide(part.parts(found.iterate)[0]),
        iterations=wide(found.iterations),
        certificate=certificate,
    )
    return flat, messages


def _refused(
    part: Restatement, restated: Restated, layout: Layout, prepared: tuple[Tensor, ...]
) -> tuple[_Found, tuple[str, ...]]:
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
    lost = _Found(
        z=_Lost.apply(layout, part.instances, *prepared),  # type: ignore[no-untyped-call]
        nu=full(restated.equalities),
        lam=full(restated.inequalities),
        zeta=full(layout.size),
        status=kinds["int"] + int(part.status),
        objective=full(1)[:, 0],
        iterate=full(layout.size),
        iterations=kinds["int"] - 1,
        certificate=Certificate(**measured),
    )
    return lost, (part.reason,) * count


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
