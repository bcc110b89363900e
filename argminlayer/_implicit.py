"""The one autograd function: solves, and is differentiated by a backward rule in every mode that torch has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._autodiff import derivative_wanted, inside_transform, nested_forward_mode
from ._backward import AbstractBackward, Node, refuse
from ._errors import NotDifferentiable
from ._functions import Functions
from ._isolate import Isolation
from ._kkt import KKTSystem
from ._layout import Layout
from ._problem import Problem
from ._solution import Certificate
from ._trees import build, count_tensors, tensors_of


@dataclass(frozen=True)
class Outcome:
    """What comes out of a solve, all tensors with a leading batch; the first four carry derivatives.

    Attributes:
        z: the solution, (batch, n), NaN where there is none.
        nu: multipliers of the equalities, (batch, p).
        lam: multipliers of the inequalities, (batch, q).
        zeta: ``z_lo - z_up``, (batch, n).
        anchor: where derivatives are taken, (batch, n): the refined point, which a value given by the caller may miss
            by its own error.
        accepted: instances that have a solution, (batch,).
        differentiable: accepted instances that the backward rule differentiates, (batch,).
        status: (batch,).
        objective: in the sense of a minimisation, (batch,).
        iterate: (batch, n), failed instances included.
        iterations: (batch,).
        certificate: the certificate.
        system: the KKT system at the anchor.
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    anchor: Tensor
    accepted: Tensor
    differentiable: Tensor
    status: Tensor
    objective: Tensor
    iterate: Tensor
    iterations: Tensor
    certificate: Certificate
    system: KKTSystem


DIFFERENTIABLE = 4


@dataclass
class Record:
    """What a solve leaves beside its tensors, written once by the forward pass.

    Attributes:
        mapped: whether ``torch.vmap`` maps the problem's functions.
        failure: what to raise when instances failed, empty when none did.
        sound: whether every instance has a derivative.
        solver: who solved.
        messages: the solver's own words, one for each instance of the flattened batch.
        seconds: wall time.
    """

    mapped: bool = True
    failure: str = ""
    sound: bool = False
    solver: str = ""
    messages: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Task:
    """One call of the implicit function, without its tensors.

    Attributes:
        problem: the problem.
        layout: shapes and batch.
        run: ``(problem, layout, prepared parameters, given tensors, record) -> Outcome``.
        rule: the backward rule.
        throw: raise where a cotangent meets an instance without a derivative.
        given: number of tensors (batch, n or other) that are handed to ``run`` beside the parameters.
        record: filled in by the forward pass.
    """

    problem: Problem
    layout: Layout
    run: Callable[[Problem, Layout, tuple[Tensor, ...], tuple[Tensor, ...], Record], Outcome]
    rule: AbstractBackward
    throw: bool
    given: int
    record: Record


def solve_implicitly(task: Task, given: tuple[Tensor, ...], prepared: tuple[Tensor, ...]) -> Outcome:
    """Return the outcome of a task, differentiable in the prepared parameters."""
    constant = (tensor.detach() for tensor in given)
    return build(Outcome, _Implicit.apply(task, *constant, *prepared))  # type: ignore[no-untyped-call]


class _Implicit(torch.autograd.Function):
    """Parameters to (z, nu, lambda, zeta) and much that has no derivative."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        task, tensors = inputs[0], tuple(t.detach() for t in inputs[1:])
        outcome = task.run(task.problem, task.layout, tensors[task.given :], tensors[: task.given], task.record)
        task.record.sound = bool(outcome.differentiable.all())
        return tuple(tensors_of(outcome))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.task = inputs[0]
        prepared = inputs[1 + ctx.task.given :]
        ctx.save_for_backward(*output, *prepared)
        ctx.save_for_forward(*output, *prepared)
        ctx.mark_non_differentiable(*output[DIFFERENTIABLE:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        task, bars = ctx.task, cotangents[:DIFFERENTIABLE]
        outcome, parameters = _split(ctx)
        node = _node(task, outcome)
        if task.record.sound:
            return (*(None,) * (1 + task.given), *task.rule.vjp(node, parameters, bars))
        if task.throw and not inside_transform():
            refuse(node, outcome.certificate, outcome.accepted & ~outcome.differentiable, bars)
        apart = _isolation(task, outcome)
        pulled = task.rule.vjp(apart.node(node), apart.parameters(parameters), apart.cotangents(bars))
        return (*(None,) * (1 + task.given), *apart.pulled(pulled, bars))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        if nested_forward_mode():
            raise NotDifferentiable(
                "forward-mode over forward-mode (jvp of jvp, jacfwd of jacfwd) is not possible: torch drops the outer "
                "tangents inside a custom function; take jacfwd of jacrev (torch.func.hessian) or jacrev of jacrev"
            )
        task, dots = ctx.task, tangents[1 + ctx.task.given :]
        outcome, parameters = _split(ctx)
        apart, node = _isolation(task, outcome), _node(task, outcome)
        if task.record.sound:
            moved = task.rule.jvp(node, parameters, dots)
        else:
            moved = apart.pushed(task.rule.jvp(apart.node(node), apart.parameters(parameters), apart.tangents(dots)))
        return (*moved, *(None,) * (_COUNT - DIFFERENTIABLE))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], task: Task, *tensors: Tensor) -> tuple[Any, Any]:
        size, dims = info.batch_size, in_dims[1:]
        layout = task.layout
        given = [_widen(t, d, size) for t, d in zip(tensors[: task.given], dims[: task.given], strict=True)]
        pairs = zip(tensors[task.given :], dims[task.given :], layout.shared, strict=True)
        prepared = [t if s and d is None else _widen(t, d, size, layout.batch if s else None) for t, d, s in pairs]
        shared = tuple(s and d is None for s, d in zip(layout.shared, dims[task.given :], strict=True))
        wide = replace(layout, batch_shape=torch.Size((size, *layout.batch_shape)), shared=shared)
        outputs = _Implicit.apply(replace(task, layout=wide), *given, *prepared)  # type: ignore[no-untyped-call]
        folded = tuple(t.reshape(size, layout.batch, *t.shape[1:]) for t in outputs)
        return folded, (0,) * len(folded)


def _widen(tensor: Tensor, dim: int | None, size: int, repeat: int | None = None) -> Tensor:
    """Return a tensor with the mapped dimension folded into its leading batch, repeated ``repeat`` times if shared."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    if repeat is not None:
        moved = moved[:, None].expand(size, repeat, *moved.shape[1:])
    return moved.reshape(moved.shape[0] * moved.shape[1], *moved.shape[2:])


def _split(ctx: Any) -> tuple[Outcome, tuple[Tensor, ...]]:
    saved = ctx.saved_tensors
    return build(Outcome, saved[:_COUNT]), saved[_COUNT:]


def _node(task: Task, outcome: Outcome) -> Node:
    accepted = outcome.accepted[:, None]
    z, nu, lam = (torch.where(accepted, t, 0.5) for t in (outcome.z, outcome.nu, outcome.lam))
    # derivatives are taken at the anchor, which moves as the solution does
    z = z + (torch.where(accepted, outcome.anchor, 0.5) - z).detach()
    if not derivative_wanted():
        z, nu, lam = z.detach(), nu.detach(), lam.detach()
    return Node(Functions(task.problem, task.layout, task.record.mapped), z, nu, lam, outcome.system)


def _isolation(task: Task, outcome: Outcome) -> Isolation:
    return Isolation(outcome.differentiable, task.layout.shared)


_COUNT = count_tensors(Outcome)
