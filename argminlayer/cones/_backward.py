"""The derivative of cone programs, in every mode torch has: one KKT system per derivative."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._autodiff import derivative_wanted, inside_transform, nested_forward_mode
from .._backward import KKT
from .._errors import NotDifferentiable
from ._certificate import largest, units
from ._faces import Faces
from ._followed import Setting, folded, solve_followed
from ._form import ConeForm
from ._matrices import A_outer, A_product, A_pulled, P_outer, P_product
from ._pattern import ConePattern
from ._policy import ruled
from ._programs import AnySystem
from ._search import ConeFound

Find = Callable[[ConeForm], ConeFound]


@dataclass
class Record:
    """What a solve leaves beside its tensors, for the solution and for a derivative in eager mode."""

    found: ConeFound | None = None
    systems: dict[tuple[bool, float], AnySystem] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConeTask:
    """One call, without its tensors.

    Attributes:
        pattern: of the programs.
        find: solves a form; raises if that is what failures ask for.
        batch: number of instances.
        shape: of the batch.
        rule: how weak activity and singular systems are treated.
        throw: raise where a cotangent meets an instance without a derivative.
        record: what the forward pass leaves behind.
    """

    pattern: ConePattern
    find: Find
    batch: int
    shape: torch.Size
    rule: KKT
    throw: bool
    record: Record = field(default_factory=Record)


def cone_argmin(task: ConeTask, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return minimisers (batch, n) and multipliers (batch, m), NaN where there are none, differentiable in the data."""
    node = _Cone if inside_transform() else _EagerCone
    found: tuple[Tensor, Tensor] = node.apply(task, P, q, A, b)  # type: ignore[no-untyped-call]
    return found


def _forward(task: ConeTask, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    found = task.find(ConeForm.of(task.pattern, (P, q, A, b), task.batch))
    task.record.found = found
    task.record.systems.clear()
    if found.system is not None and not found.status.any():
        task.record.systems[True, 0.0] = found.system
    x, z = found.point.x, found.point.z
    if not found.status.any():
        return x.clone(), z.clone()
    solved = torch.from_numpy(found.status == 0)[:, None]
    return torch.where(solved, x, torch.nan), torch.where(solved, z, torch.nan)


class _Cone(torch.autograd.Function):
    """Values of P, q, values of A and b to the minimisers and the multipliers."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return _forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.task = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)
        ctx.save_for_forward(*inputs[1:], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor | None, z_bar: Tensor | None) -> tuple[Tensor | None, ...]:
        if x_bar is None and z_bar is None:
            return (None,) * 5
        task: ConeTask = ctx.task
        P, q, A, b, x, z = ctx.saved_tensors
        top = torch.zeros_like(x) if x_bar is None else x_bar
        bottom = torch.zeros_like(z) if z_bar is None else z_bar
        solved = ~x.isnan().any(1)
        x, z = torch.where(solved[:, None], x, 0.0), torch.where(solved[:, None], z, 0.0)
        met = (top != 0).any(1) | (bottom != 0).any(1)
        poison = torch.where(met & ~solved, torch.nan, 0.0)[:, None]
        top, bottom = torch.where(solved[:, None], top, 0.0), torch.where(solved[:, None], bottom, 0.0)
        a, e = (_followed if derivative_wanted() else _plain)(task, (P, A, b, x, z, solved), top, bottom)
        if task.throw and not inside_transform():
            _refuse(task, a.isnan().any(1) & solved)
        gradients = _gradients(task.pattern, (x, z, a + poison, e + poison), ctx.needs_input_grad[1:])
        shaped = (
            g if g is None or len(g) == len(like) else g.sum(0, keepdim=True)
            for g, like in zip(gradients, (P, q, A, b), strict=True)
        )
        return None, *shaped

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        if nested_forward_mode():
            raise NotDifferentiable(
                "forward-mode over forward-mode (jvp of jvp, jacfwd of jacfwd) is not possible: torch drops the outer "
                "tangents inside a custom function; take jacfwd of jacrev (torch.func.hessian) or jacrev of jacrev"
            )
        pattern, (P_dot, q_dot, A_dot, b_dot) = ctx.task.pattern, tangents[1:]
        P, _, A, b, x, z = ctx.saved_tensors
        solved = ~x.isnan().any(1)
        poison = torch.where(solved, 0.0, torch.nan)[:, None]
        x, z = torch.where(solved[:, None], x, 0.0), torch.where(solved[:, None], z, 0.0)
        top, bottom = torch.zeros_like(x), torch.zeros_like(z)
        if P_dot is not None:
            top = top - P_product(pattern, P_dot, x)
        if q_dot is not None:
            top = top - q_dot
        if A_dot is not None:
            top, bottom = top - A_pulled(pattern, A_dot, z), bottom - A_product(pattern, A_dot, x)
        if b_dot is not None:
            bottom = bottom + b_dot
        a, e = _followed(ctx.task, (P, A, b, x, z, solved), top, bottom, pushed=True)
        return a + poison, e + poison

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], task: ConeTask, *tensors: Tensor) -> Any:
        size = info.batch_size
        data = [folded(tensor, dim, size, task.batch) for tensor, dim in zip(tensors, in_dims[1:], strict=True)]
        wide = replace(task, batch=size * task.batch, shape=torch.Size((size, *task.shape)))
        outputs = _Cone.apply(wide, *data)  # type: ignore[no-untyped-call]
        return tuple(output.reshape(size, task.batch, -1) for output in outputs), (0, 0)


class _EagerCone(torch.autograd.Function):
    """The same outside of transforms: where torch sees a ``setup_context`` it inspects signatures at every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _Cone.setup_context(ctx, inputs, output)
        return output

    backward = _Cone.backward
    jvp = _Cone.jvp


def _gradients(pattern: ConePattern, at: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> list[Tensor | None]:
    """Return the gradients of ``-a'(P x + q + A'z) - e'(A x - b)`` in the values of P, q, A and b, each instance's."""
    x, z, a, e = at
    P, q, A, b = wanted
    return [
        -P_outer(pattern, a, x) if P else None,
        -a if q else None,
        -(A_outer(pattern, z, a) + A_outer(pattern, e, x)) if A else None,
        e if b else None,
    ]


def _refuse(task: ConeTask, lost: Tensor) -> None:
    """Raise where a derivative is asked for and not determined.

    Raises:
        NotDifferentiable: names the first instance.
    """
    if not bool(lost.any()):
        return
    flat = int(lost.nonzero()[0])
    index = tuple(int(i) for i in np.unravel_index(flat, task.shape)) if len(lost) == task.shape.numel() else ()
    where = f" at batch index {index}" if index else ""
    raise NotDifferentiable(
        f"{int(lost.sum())} of {len(lost)} solutions of the cone program have no derivative; the first{where}: what "
        "the loss depends on is not determined, for other variables or multipliers are as good; add a regulariser or "
        "remove redundant constraints, or take the derivative of least norm with `backward=al.KKT(singular="
        '"minimum-norm")`. '
        "Pass `throw=False` to get NaN gradients for these instances only"
    )


def _plain(task: ConeTask, at: tuple[Tensor, ...], top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    """Solve where nobody differentiates again, with systems that are kept for the next cotangent."""
    found = task.record.found
    assert found is not None
    solved, point, programs = at[-1], found.point, found.programs
    index = solved.nonzero()[:, 0]
    whole = len(index) == len(solved)
    if not whole:
        point, programs = point.select(index), programs.select(index)
        top, bottom = top[index], bottom[index]
    cache = task.record.systems
    here: list[Faces] = []

    def system(weak_active: bool, shift: float) -> AnySystem:
        key = (weak_active, shift)
        if key not in cache:
            if not here:
                here.append(point.faces(programs.cones))
            cache[key] = programs.matrices.system(here[0], point.gamma, weak_active, shift)
        return cache[key]

    steps = ruled(task.rule, system, top[..., None], bottom[..., None])
    lost = steps.missed
    a, e = (torch.where(lost, torch.nan, part[..., 0]) for part in (steps.a, steps.e))
    if whole:
        return a, e
    return top.new_zeros(at[3].shape).index_copy(0, index, a), top.new_zeros(at[4].shape).index_copy(0, index, e)


def _followed(
    task: ConeTask, at: tuple[Tensor, ...], top: Tensor, bottom: Tensor, pushed: bool = False
) -> tuple[Tensor, Tensor]:
    """Solve so that the result can be differentiated again, in the data and in the solution."""
    P, A, b, x, z, solved = at
    s = b - A_product(task.pattern, A, x)
    force = largest(P_product(task.pattern, P, x) + A_pulled(task.pattern, A, z))
    gamma = units(s.detach(), z.detach(), 1.0 + largest(x).detach(), force.detach())
    v = torch.where(solved[:, None], s - gamma[:, None] * z, torch.nan)
    setting = Setting(task.pattern, task.rule, pushed)
    a, e = solve_followed(setting, P, A, v, gamma, top[..., None], bottom[..., None])
    return a[..., 0], e[..., 0]
