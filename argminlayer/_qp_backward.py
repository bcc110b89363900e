"""The derivative of quadratic programs, in every mode torch has: one KKT system on the active rows per derivative."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._autodiff import derivative_wanted, inside_transform, nested_forward_mode
from ._errors import NotDifferentiable
from ._qp_form import Array, QuadraticForm, factorised, quadratic_form
from ._qp_kkt import ActiveRows, solve_form, solve_kkt
from ._qp_search import QuadraticFound
from ._quadratic import CORE

Run = Callable[[QuadraticForm], QuadraticFound]
SLOTS = tuple(CORE)
SIDES = {"h": "G", "b": "A"}


@dataclass(frozen=True)
class QuadraticTask:
    """One call, without its tensors.

    Attributes:
        run: solves a form; raises if that is what failures ask for.
        batch_shape: of the whole call.
        throw: raise where a cotangent meets an instance without a derivative.
        sizes: n, and the numbers of rows p and m.
        bounded: whether there are bounds.
        record: what the forward pass leaves behind.
    """

    run: Run
    batch_shape: torch.Size
    throw: bool
    sizes: tuple[int, int, int]
    bounded: bool
    record: "Record"

    @property
    def offset(self) -> int:
        """Number of rows that belong to bounds."""
        return self.sizes[0] if self.bounded else 0


@dataclass
class Record:
    """What a solve leaves beside its tensors, for a derivative in eager mode.

    Attributes:
        sound: whether all instances were solved.
        form: the programs.
        found: what was found, with NaN for what failed.
        side: (batch, s), as :func:`_forward` returns it.
    """

    sound: bool = False
    form: QuadraticForm | None = None
    found: QuadraticFound | None = None
    side: Array = field(default_factory=lambda: np.zeros((0, 0)))


def quadratic_argmin(task: QuadraticTask, blocks: dict[str, Tensor]) -> Tensor:
    """Return the minimisers (*batch, n) of float64 blocks, NaN where there is none, differentiable in the blocks."""
    tensors = tuple(map(blocks.get, SLOTS))
    value: Tensor
    if inside_transform():
        value = _Quadratic.apply(task, *tensors)[0]  # type: ignore[no-untyped-call]
    elif _tracked(blocks):
        value = _EagerQuadratic.apply(task, *tensors)[0]  # type: ignore[no-untyped-call]
    else:
        value = _forward(task, tensors)[0]
    return value


def _tracked(blocks: dict[str, Tensor]) -> bool:
    """Return whether autograd follows any of the blocks, in reverse or in forward mode."""
    if torch.is_grad_enabled():
        for block in blocks.values():
            if block.requires_grad:
                return True
    return any(torch.autograd.forward_ad.unpack_dual(block).tangent is not None for block in blocks.values())


def _forward(task: QuadraticTask, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Solve; return the minimisers, NaN where there is none, the multipliers, and the sides of the active rows.

    The sides (batch, s) are 1 where a row is active at its high side, -1 at its low side, 0 where it is not active.
    """
    record = task.record
    form = quadratic_form({n: t for n, t in zip(SLOTS, tensors, strict=True) if t is not None}, task.batch_shape)
    found = task.run(form)
    value, y, active = found.value, found.multipliers, found.residuals.active
    record.sound = not found.status.any()
    if not record.sound:
        solved = (found.status == 0)[:, None]
        value, y, active = np.where(solved, value, np.nan), np.where(solved, y, 0.0), active & solved
        found = found._replace(value=value, multipliers=y)
    record.form, record.found = form, found
    record.side = side = np.where(found.residuals.at_high, active, -1 * active)
    outputs = (
        torch.from_numpy(value.reshape(*task.batch_shape, form.size)),
        torch.from_numpy(y),
        torch.from_numpy(side),
    )
    device = next(t.device for t in tensors if t is not None)
    return outputs if device.type == "cpu" else (outputs[0].to(device), outputs[1].to(device), outputs[2].to(device))


@dataclass(frozen=True)
class _Node:
    """A solved batch, flat: tensors with a leading batch, or 1 where blocks are shared."""

    task: QuadraticTask
    raw: dict[str, Tensor]
    u: Tensor
    y: Tensor
    side: Tensor
    solved: Tensor | None

    @classmethod
    def of(cls, ctx: Any) -> "_Node":
        task: QuadraticTask = ctx.task
        *tensors, value, y, side = ctx.saved_tensors
        raw = {name: t for name, t in zip(SLOTS, tensors, strict=True) if t is not None}
        u = value.reshape(-1, task.sizes[0])
        if task.record.sound:
            return cls(task, raw, u, y, side, None)
        solved = ~u.isnan().any(-1)
        return cls(task, raw, torch.where(solved[:, None], u, 0.0), y, side, solved)

    def flat(self, name: str, tensor: Tensor) -> Tensor:
        """Return a block as (1 or batch, *core)."""
        core = len(CORE[name])
        lead = tensor.shape[: tensor.ndim - core]
        if lead.numel() == 1:
            return tensor.reshape(1, *tensor.shape[tensor.ndim - core :])
        wide = tensor.expand(self.task.batch_shape + tensor.shape[tensor.ndim - core :])
        return wide.reshape(self.task.batch_shape.numel(), *tensor.shape[tensor.ndim - core :])

    def hessian(self) -> Tensor | None:
        """Return the symmetric part of P, the identity where there is no solution."""
        if "P" not in self.raw:
            return None
        P = self.flat("P", self.raw["P"])
        P = 0.5 * (P + P.mT)
        if self.solved is None:
            return P
        solved = self.solved if len(P) == len(self.solved) else self.solved.any()[None]
        return torch.where(solved[:, None, None], P, torch.eye(P.shape[-1], dtype=P.dtype, device=P.device))

    def stacked(self, blocks: dict[str, Tensor]) -> Tensor:
        """Return A above G, zeros for what is missing, (1 or batch, p + m, n)."""
        n, p, m = self.task.sizes
        parts = []
        for name, height in (("A", p), ("G", m)):
            if height:
                there = name in blocks
                parts.append(self.flat(name, blocks[name]) if there else self.u.new_zeros(1, height, n))
        if not parts:
            return self.u.new_zeros(1, 0, n)
        width = max(len(part) for part in parts) if all(len(part) for part in parts) else 0
        rows = torch.cat([part.expand(width, *part.shape[1:]) for part in parts], 1)
        return rows if self.solved is None else torch.nan_to_num(rows)


class _Quadratic(torch.autograd.Function):
    """Blocks to the minimiser, the multipliers, and what has no derivative."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return _forward(inputs[0], inputs[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.task = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output)
        ctx.save_for_forward(*inputs[1:], *output)
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        u_bar, y_bar = cotangents[:2]
        if u_bar is None and y_bar is None:
            return (None,) * (1 + len(SLOTS))
        if not derivative_wanted():
            return (None, *_plain_gradients(ctx, u_bar, y_bar))
        node = _Node.of(ctx)
        flat = node.u.new_zeros(node.u.shape) if u_bar is None else u_bar.reshape(node.u.shape)
        d, e = _solve(node, flat, y_bar, refuse=True)
        shapes = [None if t is None else t.shape for t in ctx.saved_tensors[: len(SLOTS)]]
        wanted = [s if need else None for s, need in zip(shapes, ctx.needs_input_grad[1:], strict=True)]
        return (None, *_gradients(node.task, (node.u, node.y, node.side, d, e), wanted))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        if nested_forward_mode():
            raise NotDifferentiable(
                "forward-mode over forward-mode (jvp of jvp, jacfwd of jacfwd) is not possible: torch drops the outer "
                "tangents inside a custom function; take jacfwd of jacrev (torch.func.hessian) or jacrev of jacrev"
            )
        node = _Node.of(ctx)
        dots = {name: t for name, t in zip(SLOTS, tangents[1:], strict=True) if t is not None}
        top, bottom = _moved(node, dots)
        d, e = _solve(node, top, bottom, refuse=False)
        shape = (*node.task.batch_shape, node.task.sizes[0])
        return d.reshape(shape), e, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], task: QuadraticTask, *tensors: Tensor | None) -> Any:
        size, depth = info.batch_size, len(task.batch_shape)
        moved = []
        for name, tensor, dim in zip(SLOTS, tensors, in_dims[1:], strict=True):
            if tensor is not None and dim is not None:
                tensor = tensor.movedim(dim, 0)
                missing = depth + 1 + len(CORE[name]) - tensor.ndim
                tensor = tensor.reshape(size, *(1,) * missing, *tensor.shape[1:])
            moved.append(tensor)
        wide = torch.Size((size, *task.batch_shape))
        outputs = _Quadratic.apply(replace(task, batch_shape=wide), *moved)  # type: ignore[no-untyped-call]
        batch = task.batch_shape.numel()
        folded: list[Tensor] = [outputs[0]]
        dims: list[int | None] = [0]
        for output in outputs[1:]:
            own = len(output) == size * batch and output.ndim > 0
            folded.append(output.reshape(size, batch, *output.shape[1:]) if own else output)
            dims.append(0 if own else None)
        return tuple(folded), tuple(dims)


class _EagerQuadratic(torch.autograd.Function):
    """The same outside of transforms: where torch sees a ``setup_context`` it inspects signatures at every call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _forward(inputs[0], inputs[1:])
        _Quadratic.setup_context(ctx, inputs, output)
        return output

    backward = _Quadratic.backward
    jvp = _Quadratic.jvp


def _solve(node: _Node, top: Tensor, bottom: Tensor | None, refuse: bool) -> tuple[Tensor, Tensor]:
    """Solve the KKT system; where there is no solution or no derivative the result is NaN, or refused."""
    poison, task = None, node.task
    if node.solved is not None:
        met = (top != 0).any(-1) if bottom is None else (top != 0).any(-1) | (bottom != 0).any(-1)
        poison = torch.where(met & ~node.solved, torch.nan, 0.0)[:, None]
        top = torch.where(node.solved[:, None], top, 0.0)
    rows, P = node.stacked(node.raw), node.hessian()
    below = torch.zeros_like(node.y) if bottom is None else bottom
    d, e = _KKT.apply(task.offset, P, rows, node.side != 0, top[..., None], below[..., None])  # type: ignore[no-untyped-call]
    d, e = d[..., 0], e[..., 0]
    if refuse and task.throw and not inside_transform():
        lost = d.isnan().any(-1) if node.solved is None else d.isnan().any(-1) & node.solved
        _refuse(task, lost.numpy(force=True))
    return (d, e) if poison is None else (d + poison, e + poison)


def _plain_gradients(ctx: Any, u_bar: Tensor | None, y_bar: Tensor | None) -> list[Tensor | None]:
    """Return the gradients of the blocks where nobody differentiates them again, with the arrays of the solve."""
    task: QuadraticTask = ctx.task
    blocks = ctx.saved_tensors[: len(SLOTS)]
    form, found = task.record.form, task.record.found
    assert form is not None
    assert found is not None
    shapes = [t.shape if need else None for t, need in zip(blocks, ctx.needs_input_grad[1:], strict=True)]
    side = task.record.side
    top = np.zeros((form.batch, form.size)) if u_bar is None else u_bar.numpy(force=True).reshape(form.batch, -1)
    bottom = None if y_bar is None else y_bar.numpy(force=True)
    if task.record.sound:
        d, e = _plain_steps(task, form, side != 0, top, bottom)
        u = found.value
    else:
        d, e, u = _steps_of_the_solved(task, form, side != 0, top, bottom)
    device = next(t.device for t in blocks if t is not None)
    gradients = (
        None if g is None else torch.from_numpy(np.ascontiguousarray(g))
        for g in _gradients(task, (u, found.multipliers, side, d, e), shapes)
    )
    return [g if g is None or device.type == "cpu" else g.to(device) for g in gradients]


def _plain_steps(
    task: QuadraticTask, form: QuadraticForm, mask: Array, top: Array, bottom: Array | None
) -> tuple[Array, Array]:
    steps = solve_form(form, mask, top, bottom)
    if steps.freedom is None:
        return steps.d, steps.e
    lost = (steps.freedom > 0) & (top.any(-1) if bottom is None else top.any(-1) | bottom.any(-1))
    if task.throw:
        _refuse(task, lost)
    return np.where(lost[:, None], np.nan, steps.d), np.where(lost[:, None], np.nan, steps.e)


def _steps_of_the_solved(
    task: QuadraticTask, form: QuadraticForm, mask: Array, top: Array, bottom: Array | None
) -> tuple[Array, Array, Array]:
    """Return the steps with NaN where a cotangent meets an instance without a solution, and the solutions or zero."""
    assert task.record.found is not None
    value = task.record.found.value
    solved = np.asarray(np.isfinite(value).all(-1))
    met = top.any(-1) if bottom is None else top.any(-1) | bottom.any(-1)
    d, e = (np.where((met & ~solved)[:, None], np.nan, np.zeros((form.batch, w))) for w in (form.size, form.height))
    index = solved.nonzero()[0]
    if len(index):
        part = form.select(index)
        d[index], e[index] = _plain_steps(
            task, part, mask[index], top[index], None if bottom is None else bottom[index]
        )
    return d, e, np.where(solved[:, None], value, 0.0)


def _refuse(task: QuadraticTask, lost: Array) -> None:
    """Raise where a derivative is asked for and not determined.

    Raises:
        NotDifferentiable: names the first instance.
    """
    if not lost.any():
        return
    shape = task.batch_shape
    index = tuple(int(i) for i in np.unravel_index(int(lost.argmax()), shape)) if len(lost) == shape.numel() else ()
    where = f" at batch index {index}" if index else ""
    raise NotDifferentiable(
        f"{int(lost.sum())} of {shape.numel()} solutions have no derivative; the first{where}: the solution is not "
        "isolated, for P is singular on the directions that the active constraints leave open (in a linear program: "
        "another vertex is as good); add a regulariser, or take the derivative of least norm with "
        '`backward=al.KKT(singular="minimum-norm")`. Pass `throw=False` to get NaN gradients for these instances only'
    )


def _gradients(task: QuadraticTask, found: tuple[Any, ...], shapes: list[torch.Size | None]) -> list[Any]:
    """Return the gradients of the blocks: those of ``-d'(Pu + q + R'y) - e'(R u - side)`` with d and e constant.

    Args:
        task: the call.
        found: u, y, side, d and e, tensors or arrays: what follows reads the same for both.
        shapes: of the blocks whose gradient is wanted, None for the others.
    """
    u, y, side, d, e = found
    o, p = task.offset, task.offset + task.sizes[1]
    P, q, G, h, A, b, lower, upper = shapes
    against = -d
    return [
        None if P is None else _outer(task, P, 0.5 * against, u, 0.5 * u, against),
        None if q is None else _summed(task, q, against, 1),
        None if G is None else _outer(task, G, y[:, p:], against, -e[:, p:], u),
        None if h is None else _summed(task, h, e[:, p:], 1),
        None if A is None else _outer(task, A, y[:, o:p], against, -e[:, o:p], u),
        None if b is None else _summed(task, b, e[:, o:p], 1),
        None if lower is None else _summed(task, lower, e[:, :o] * (side[:, :o] < 0), 1),
        None if upper is None else _summed(task, upper, e[:, :o] * (side[:, :o] > 0), 1),
    ]


def _outer(task: QuadraticTask, shape: torch.Size, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return ``a b' + c d'`` of every instance in the shape of a block, summed over what shares it."""
    if shape[:-2].numel() == 1:
        return (a.T @ b + c.T @ d).reshape(shape)
    stack = torch.stack if isinstance(a, Tensor) else np.stack
    return _summed(task, shape, stack((a, c), 2) @ stack((b, d), 1), 2)


def _summed(task: QuadraticTask, shape: torch.Size, gradient: Any, core: int) -> Any:
    """Return a gradient (batch, *core) in the shape of a block, summed over what shares it."""
    lead = shape[: len(shape) - core]
    if lead == task.batch_shape:
        return gradient.reshape(shape)
    wide = gradient.reshape(task.batch_shape + shape[len(lead) :])
    extra = len(task.batch_shape) - len(lead)
    axes = tuple(i for i in range(len(task.batch_shape)) if i < extra or lead[i - extra] == 1)
    return wide.sum(axes).reshape(shape) if axes else wide.reshape(shape)


def _moved(node: _Node, dots: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the right-hand side of the KKT system for tangents of the blocks."""
    u = node.u[..., None]
    top = node.u.new_zeros(node.u.shape)
    if "q" in dots:
        top = top - node.flat("q", dots["q"])
    if "P" in dots:
        P = node.flat("P", dots["P"])
        top = top - (0.5 * (P + P.mT) @ u)[..., 0]
    rows = node.stacked({name: dot for name, dot in dots.items() if name in ("A", "G")})
    batch, (n, p, m) = len(node.u), node.task.sizes
    top = top - (node.y[:, None, node.task.offset :] @ rows)[:, 0]
    sides = []
    if node.task.bounded:
        zero = node.u.new_zeros(1, n)
        lower, upper = (node.flat(k, dots[k]) if k in dots else zero for k in ("lower", "upper"))
        sides.append(torch.where(node.side[:, :n] < 0, lower, upper))
    for name, height in (("b", p), ("h", m)):
        sides.append(node.flat(name, dots[name]) if name in dots else node.u.new_zeros(1, height))
    side = torch.cat([part.expand(batch, part.shape[1]) for part in sides], 1)
    moved = (rows @ u)[..., 0]
    moved = torch.cat([moved.new_zeros(batch, node.task.offset), moved.expand(batch, moved.shape[1])], 1)
    return top, torch.where(node.side != 0, side - moved, 0.0)


class _KKT(torch.autograd.Function):
    """The solution of KKT systems as a function of P, the rows and both right-hand sides, of any order.

    With ``w = K^-1 z_bar`` the cotangent of the right-hand side is w and that of the matrix ``-w z'``.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        offset, P, rows, mask, top, bottom = inputs
        cholesky = None
        if P is not None:
            factor, definite, _ = factorised(P.numpy(force=True))
            cholesky = factor.to(P.device) if definite.all() else None
        active = _active(mask)
        steps = solve_kkt(P, cholesky, rows, offset, active, top, bottom)
        if steps.freedom is None:
            return steps.d, steps.e
        met = (top != 0).flatten(1).any(-1) | (bottom != 0).flatten(1).any(-1)
        mark = torch.where(met & (steps.freedom > 0), torch.nan, 0.0)[:, None, None]
        return steps.d + mark, steps.e + mark

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.offset = inputs[0]
        kept = (*inputs[1:4], *output)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, d_bar: Tensor, e_bar: Tensor) -> tuple[Tensor | None, ...]:
        P, rows, mask, d, e = ctx.saved_tensors
        a, c = _KKT.apply(ctx.offset, P, rows, mask, d_bar, e_bar)  # type: ignore[no-untyped-call]
        P_bar = rows_bar = None
        if P is not None and ctx.needs_input_grad[1]:
            P_bar = _folded(-0.5 * (a @ d.mT + d @ a.mT), P)
        if ctx.needs_input_grad[2]:
            rows_bar = _folded(-(e[:, ctx.offset :] @ a.mT + c[:, ctx.offset :] @ d.mT), rows)
        return None, P_bar, rows_bar, None, a, c

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        P, rows, mask, d, e = ctx.saved_tensors
        P_dot, rows_dot, _, top_dot, bottom_dot = tangents[1:]
        top = torch.zeros_like(d) if top_dot is None else top_dot
        bottom = torch.zeros_like(e) if bottom_dot is None else bottom_dot
        if P_dot is not None:
            top = top - 0.5 * (P_dot + P_dot.mT) @ d
        if rows_dot is not None:
            top = top - rows_dot.mT @ e[:, ctx.offset :]
            moved = rows_dot @ d
            moved = torch.cat([moved.new_zeros(moved.shape[0], ctx.offset, moved.shape[2]), moved], 1)
            bottom = bottom - torch.where(mask[..., None], moved, 0.0)
        found: tuple[Tensor, Tensor] = _KKT.apply(ctx.offset, P, rows, mask, top, bottom)  # type: ignore[no-untyped-call]
        return found

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], offset: int, *inputs: Any) -> Any:
        dims, size = in_dims[1:], info.batch_size
        if all(dim is None for dim in dims[:3]):
            return _mapped_columns(offset, inputs, dims, size)
        front: list[Any] = [
            t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs, dims, strict=True)
        ]
        batch = front[-1].shape[1]
        wide = [t if t is None else t.expand(size, batch, *t.shape[2:]).flatten(0, 1) for t in front]
        d, e = _KKT.apply(offset, *wide)  # type: ignore[no-untyped-call]
        return tuple(t.reshape(size, batch, *t.shape[1:]) for t in (d, e)), (0, 0)


def _active(mask: Tensor) -> ActiveRows:
    active = ActiveRows.of_mask(mask.numpy(force=True))
    return ActiveRows(active.index.to(mask.device), active.used.to(mask.device), active.count)


def _mapped_columns(offset: int, inputs: Any, dims: tuple[int | None, ...], size: int) -> Any:
    """Solve for mapped right-hand sides with one factor: they become columns."""
    columns = []
    for tensor, dim in zip(inputs[3:], dims[3:], strict=True):
        front = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        columns.append(front.permute(1, 2, 0, 3).flatten(2))
    d, e = _KKT.apply(offset, *inputs[:3], *columns)  # type: ignore[no-untyped-call]
    return tuple(t.reshape(*t.shape[:2], size, t.shape[2] // size) for t in (d, e)), (2, 2)


def _folded(gradient: Tensor, like: Tensor) -> Tensor:
    return gradient.sum(0, keepdim=True) if len(like) == 1 and len(gradient) > 1 else gradient
