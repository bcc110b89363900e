"""The one autograd function: solves, and is differentiated by a backward rule in every mode that torch has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._adjoint import Adjoint
from ._autodiff import (
    derivative_wanted,
    inside_transform,
    nested_forward_mode,
    without_finished_levels,
    without_saved_tensor_hooks,
)
from ._backward import AbstractBackward, Anchor, Node, envelope_jvp, envelope_vjp, refuse
from ._batching import unfold, widen, widen_parameters
from ._errors import NotDifferentiable
from ._functions import Functions
from ._isolate import Isolation
from ._kkt import AbstractSystem
from ._layout import Layout
from ._problem import Problem
from ._solution import Certificate
from ._trees import build, count_tensors, tensors_of


@dataclass(frozen=True)
class Outcome:
    """What comes out of a solve, all tensors with a leading batch; the first five carry derivatives.

    Attributes:
        z: the solution, (batch, n), NaN where there is none.
        nu: multipliers of the equalities, (batch, p).
        lam: multipliers of the inequalities, (batch, q).
        zeta: ``z_lo - z_up``, (batch, n).
        objective: in the sense of a minimisation, (batch,).
        anchor: where derivatives are taken: for the exact rule the refined point, which a value given by the caller
            may miss by its own error.
        accepted: instances that have a solution, (batch,).
        differentiable: accepted instances that the backward rule differentiates, (batch,).
        status: (batch,).
        iterate: (batch, n), failed instances included.
        iterations: (batch,).
        certificate: the certificate.
        at_lower: variables held at their lower bound at the solution or in a system of the rule, (batch, n).
        at_upper: the same of their upper bound, (batch, n).
        index: which of the KKT systems in the record belongs to each instance, (batch,).
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    objective: Tensor
    anchor: Anchor
    accepted: Tensor
    differentiable: Tensor
    status: Tensor
    iterate: Tensor
    iterations: Tensor
    certificate: Certificate
    at_lower: Tensor
    at_upper: Tensor
    index: Tensor


PRIMAL_DUAL = 4
DIFFERENTIABLE = 5


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
        systems: the KKT systems of the rule at the anchors. They are no tensors that transforms could wrap: what is
            wrapped is the outcome's ``index``, which says where each instance finds its own.
    """

    mapped: bool = True
    failure: str = ""
    sound: bool = False
    solver: str = ""
    messages: tuple[str, ...] = ()
    seconds: float = 0.0
    systems: tuple[AbstractSystem, ...] = ()


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
    """Parameters to (z, nu, lambda, zeta), the optimal value, and much that has no derivative."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        task, tensors = inputs[0], tuple(t.detach() for t in inputs[1:])
        with without_saved_tensor_hooks():
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
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        task, value_bar = ctx.task, cotangents[PRIMAL_DUAL]
        outcome, parameters = _split(ctx)
        node = _node(task, outcome, parameters)
        gradients: list[tuple[Tensor | None, ...]] = [tuple(None for _ in parameters)]
        if any(bar is not None for bar in cotangents[:PRIMAL_DUAL]):
            shapes = (outcome.z, outcome.nu, outcome.lam, outcome.zeta)
            bars = tuple(
                like.new_zeros(()).expand_as(like) if bar is None else bar
                for bar, like in zip(cotangents[:PRIMAL_DUAL], shapes, strict=True)
            )
            gradients.append(_pull(task, outcome, node, parameters, bars))
        if value_bar is not None:
            gradients.append(_pull_value(task, outcome, node, parameters, value_bar))
        return (*(None,) * (1 + task.given), *map(_sum, *gradients))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        if nested_forward_mode():
            raise NotDifferentiable(
                "forward-mode over forward-mode (jvp of jvp, jacfwd of jacfwd) is not possible: torch drops the outer "
                "tangents inside a custom function; take jacfwd of jacrev (torch.func.hessian) or jacrev of jacrev"
            )
        task, dots = ctx.task, tangents[1 + ctx.task.given :]
        outcome, parameters = _split(ctx)
        node = _node(task, outcome, parameters)
        moved: list[Tensor] = []
        for mask, push in ((outcome.differentiable, task.rule.jvp), (outcome.accepted, _push_value)):
            if task.record.sound:
                moved += push(node, parameters, dots)
            else:
                apart = Isolation(mask, task.layout.shared)
                moved += apart.pushed(push(apart.node(node), apart.parameters(parameters), apart.tangents(dots)))
        return (*moved, *(None,) * (_COUNT - DIFFERENTIABLE))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], task: Task, *tensors: Tensor) -> tuple[Any, Any]:
        size, dims = info.batch_size, in_dims[1:]
        layout = task.layout
        given = [widen(t, d, size) for t, d in zip(tensors[: task.given], dims[: task.given], strict=True)]
        wide, prepared = widen_parameters(layout, tensors[task.given :], dims[task.given :], size)
        outputs = _Implicit.apply(replace(task, layout=wide), *given, *prepared)  # type: ignore[no-untyped-call]
        folded = tuple(unfold(t, size, layout.batch) for t in outputs)
        return folded, (0,) * len(folded)


def _split(ctx: Any) -> tuple[Outcome, tuple[Tensor, ...]]:
    saved = tuple(map(without_finished_levels, ctx.saved_tensors))
    return build(Outcome, saved[:_COUNT]), saved[_COUNT:]


def _node(task: Task, outcome: Outcome, parameters: tuple[Tensor, ...]) -> Node:
    functions = Functions(task.problem, task.layout, task.record.mapped)
    z, nu, lam, zeta = (_anchored(task, outcome, name) for name in ("z", "nu", "lam", "zeta"))
    adjoints = tuple(Adjoint(functions, system, outcome.index) for system in task.record.systems)
    node = Node(functions, z, nu, lam, zeta, outcome.at_lower, outcome.at_upper, adjoints)
    return task.rule.view(node, parameters)


def _anchored(task: Task, outcome: Outcome, name: str) -> Tensor:
    """Return a part of the anchor, which moves as the same part of the solution does."""
    anchor: Tensor = getattr(outcome.anchor, name)
    moving: Tensor = getattr(outcome, name)
    if not task.record.sound:
        accepted = outcome.accepted[:, None]
        anchor, moving = torch.where(accepted, anchor, 0.5), torch.where(accepted, moving, 0.5)
    if not derivative_wanted():
        return anchor
    return anchor + (moving - moving.detach())


def _pull(
    task: Task, outcome: Outcome, node: Node, parameters: tuple[Tensor, ...], bars: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Pull cotangents of solution and multipliers back by the rule; instances it refuses raise or become NaN."""
    if task.record.sound:
        return task.rule.vjp(node, parameters, bars)
    if task.throw and not inside_transform():
        refuse(task.rule, node, outcome.certificate, outcome.accepted & ~outcome.differentiable, bars)
    apart = Isolation(outcome.differentiable, task.layout.shared)
    pulled = task.rule.vjp(apart.node(node), apart.parameters(parameters), apart.cotangents(bars))
    return apart.pulled(pulled, bars)


def _pull_value(
    task: Task, outcome: Outcome, node: Node, parameters: tuple[Tensor, ...], value_bar: Tensor
) -> tuple[Tensor | None, ...]:
    """Pull a cotangent of the optimal value back; it needs a solution, but not that it has a derivative."""
    if task.record.sound:
        return envelope_vjp(node, parameters, value_bar)
    apart, bars = Isolation(outcome.accepted, task.layout.shared), (value_bar[:, None],)
    (weight,) = apart.cotangents(bars)
    return apart.pulled(envelope_vjp(apart.node(node), apart.parameters(parameters), weight[:, 0]), bars)


def _push_value(node: Node, parameters: tuple[Tensor, ...], dots: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    return (envelope_jvp(node, parameters, dots),)


def _sum(*gradients: Tensor | None) -> Tensor | None:
    there = [g for g in gradients if g is not None]
    return torch.stack(there).sum(0) if len(there) > 1 else there[0] if there else None


_COUNT = count_tensors(Outcome)
