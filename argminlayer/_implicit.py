"""The one autograd function: solves, and is differentiated by a backward rule in every mode that torch has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from ._autodiff import inside_transform
from ._backward import AbstractBackward, Node, refuse_singular
from ._functions import Functions
from ._kkt import KKTSystem
from ._layout import Layout
from ._problem import Problem
from ._solution import Certificate

T = TypeVar("T")


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
        solved: whether every instance is accepted.
        sound: whether every instance has a derivative, too.
        solver: who solved.
        messages: the solver's own words, one for each instance of the flattened batch.
        seconds: wall time.
    """

    mapped: bool = True
    solved: bool = False
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
    return _rebuild(_Implicit.apply(task, *constant, *prepared))  # type: ignore[no-untyped-call]


class _Implicit(torch.autograd.Function):
    """Parameters to (z, nu, lambda, zeta) and much that has no derivative."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        task, tensors = inputs[0], tuple(t.detach() for t in inputs[1:])
        outcome = task.run(task.problem, task.layout, tensors[task.given :], tensors[: task.given], task.record)
        task.record.solved = bool(outcome.accepted.all())
        task.record.sound = bool((outcome.accepted & outcome.certificate.regular).all())
        return tuple(_tensors(outcome))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.task = inputs[0]
        prepared = inputs[1 + ctx.task.given :]
        ctx.save_for_backward(*output, *prepared)
        ctx.save_for_forward(*output, *prepared)
        ctx.mark_non_differentiable(*output[DIFFERENTIABLE:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        task = ctx.task
        outcome, parameters = _split(ctx)
        node = _node(task, outcome)
        if task.throw and not task.record.sound and not inside_transform():
            refuse_singular(node, ~outcome.accepted | outcome.certificate.regular, cotangents[:DIFFERENTIABLE])
        pulled = task.rule.vjp(node, parameters, cotangents[:DIFFERENTIABLE])
        return (*(None,) * (1 + task.given), *pulled)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        outcome, parameters = _split(ctx)
        dots = ctx.task.rule.jvp(_node(ctx.task, outcome), parameters, tangents[1 + ctx.task.given :])
        return (*dots, *(None,) * (_COUNT - DIFFERENTIABLE))

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
    return _rebuild(saved[:_COUNT]), saved[_COUNT:]


def _node(task: Task, outcome: Outcome) -> Node:
    accepted = outcome.accepted[:, None]
    z, nu, lam = (torch.where(accepted, t, 0.5) for t in (outcome.z, outcome.nu, outcome.lam))
    # derivatives are taken at the anchor, which moves as the solution does
    z = z + (torch.where(accepted, outcome.anchor, 0.5) - z).detach()
    if not torch.is_grad_enabled():
        z, nu, lam = z.detach(), nu.detach(), lam.detach()
    bad = ~(outcome.accepted & outcome.certificate.regular)
    return Node(Functions(task.problem, task.layout, task.record.mapped), z, nu, lam, outcome.system, bad)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors inside nested dataclasses, in the order of their fields."""
    if isinstance(value, Tensor):
        yield value
    else:
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _structure(kind: type) -> list[type]:
    hints = get_type_hints(kind)
    return [hints[field.name] for field in fields(kind)]


def _count(kind: type) -> int:
    return 1 if kind is Tensor else sum(map(_count, _structure(kind)))


def _build(kind: type[T], tensors: Iterator[Tensor]) -> T:
    """Return the inverse of :func:`_tensors` for an instance of ``kind``."""
    parts = [next(tensors) if inner is Tensor else _build(inner, tensors) for inner in _structure(kind)]
    return kind(*parts)


def _rebuild(tensors: tuple[Tensor, ...]) -> Outcome:
    return _build(Outcome, iter(tensors))


_COUNT = _count(Outcome)
