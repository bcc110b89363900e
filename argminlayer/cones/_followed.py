"""KKT systems of cone programs whose solution can be differentiated again, in every mode torch has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._backward import KKT
from .._errors import NotDifferentiable
from ._faces import Spectra
from ._matrices import A_outer, A_product, A_pulled, P_outer, P_product
from ._pattern import ConePattern
from ._policy import ruled
from ._programs import AnySystem, matrices_of
from ._system import Steps

TOUCHED = 1e-7
"""Entries of null vectors below this are rounding."""


def solve_followed(
    setting: "Setting", P: Tensor, A: Tensor, v: Tensor, gamma: Tensor, top: Tensor, bottom: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve ``P a + A'e = top`` and ``A a - W e = bottom``, differentiable in all but gamma.

    Args:
        setting: what does not depend on numbers.
        P: values, (1 or batch, entries).
        A: values, (1 or batch, entries).
        v: ``s - gamma z``, (batch, m); NaN where there is nothing to solve, for which zeros are returned.
        gamma: (batch,).
        top: (batch, n, c).
        bottom: (batch, m, c).

    Returns:
        a (batch, n, c) and e (batch, m, c), NaN where there is no derivative.
    """
    found: tuple[Tensor, Tensor] = _System.apply(setting, P, A, v, gamma, top, bottom)  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True, eq=False)
class Setting:
    """What a system is solved for: derivatives in forward mode leave open what reverse mode refuses."""

    pattern: ConePattern
    rule: KKT
    pushed: bool


class _System(torch.autograd.Function):
    """The solution of KKT systems as a function of P, A, v and both right-hand sides.

    With ``gamma e = -(1 - D) omega`` and ``omega = bottom - A a - gamma e`` the derivative along ``dD`` needs
    ``dD omega`` alone, which is the second derivative of the projection and symmetric in everything it is given.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return _solve(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.setting = inputs[0]
        kept = (*inputs[1:5], inputs[6], *output)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, a_bar: Tensor, e_bar: Tensor) -> tuple[Tensor | None, ...]:
        pattern = ctx.setting.pattern
        P, A, v, gamma, bottom, a, e = ctx.saved_tensors
        al, ep = solve_followed(replace(ctx.setting, pushed=False), P, A, v, gamma, a_bar, e_bar)
        P_bar = A_bar = v_bar = None
        if ctx.needs_input_grad[1]:
            P_bar = _like(-_over_columns(lambda i: P_outer(pattern, al[..., i], a[..., i]), a), P)
        if ctx.needs_input_grad[2]:
            A_bar = _like(
                -_over_columns(
                    lambda i: A_outer(pattern, e[..., i], al[..., i]) + A_outer(pattern, ep[..., i], a[..., i]), a
                ),
                A,
            )
        if ctx.needs_input_grad[3]:

            def turned(i: int) -> Tensor:
                omega = _omega(pattern, A, gamma, bottom[..., i], a[..., i], e[..., i])
                other = _omega(pattern, A, gamma, e_bar[..., i], al[..., i], ep[..., i])
                return _bend(pattern, v, other, omega)

            v_bar = _over_columns(turned, a) / gamma[:, None]
        return None, P_bar, A_bar, v_bar, None, al, ep

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        pattern = ctx.setting.pattern
        P, A, v, gamma, bottom, a, e = ctx.saved_tensors
        P_dot, A_dot, v_dot, _, top_dot, bottom_dot = tangents[1:]
        top = torch.zeros_like(a) if top_dot is None else top_dot
        below = torch.zeros_like(e) if bottom_dot is None else bottom_dot
        if P_dot is not None:
            top = top - _columns(lambda i: P_product(pattern, P_dot, a[..., i]), a)
        if A_dot is not None:
            top = top - _columns(lambda i: A_pulled(pattern, A_dot, e[..., i]), a)
            below = below - _columns(lambda i: A_product(pattern, A_dot, a[..., i]), a)
        turned = None
        if v_dot is not None:
            turned = _columns(
                lambda i: _bend(pattern, v, v_dot, _omega(pattern, A, gamma, bottom[..., i], a[..., i], e[..., i])),
                a,
            )
            scaled = turned / gamma[:, None, None]
            top = top - _columns(lambda i: A_pulled(pattern, A, scaled[..., i]), a)
            below = below - turned
        found = solve_followed(ctx.setting, P, A, v, gamma, top, below)
        return found if turned is None else (found[0], found[1] + turned / gamma[:, None, None])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], setting: Setting, *inputs: Tensor) -> Any:
        dims, size = in_dims[1:], info.batch_size
        if all(dim is None for dim in dims[:4]):
            return _mapped_columns(setting, inputs, dims, size)
        batch = next(t.shape[0 if d is None else int(d == 0)] for t, d in zip(inputs[4:], dims[4:], strict=True))
        values = [folded(t, dim, size, batch) for t, dim in zip(inputs[:2], dims[:2], strict=True)]
        own = [_spread(t, dim, size) for t, dim in zip(inputs[2:], dims[2:], strict=True)]
        a, e = solve_followed(setting, *values, *own)
        return tuple(t.reshape(size, batch, *t.shape[1:]) for t in (a, e)), (0, 0)


def _mapped_columns(setting: Setting, inputs: Any, dims: tuple[int | None, ...], size: int) -> Any:
    """Solve for mapped right-hand sides with one factor: they become columns."""
    columns = []
    for tensor, dim in zip(inputs[4:], dims[4:], strict=True):
        front = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        columns.append(front.permute(1, 2, 0, 3).flatten(2))
    a, e = solve_followed(setting, *inputs[:4], *columns)
    return tuple(t.reshape(*t.shape[:2], size, t.shape[2] // size) for t in (a, e)), (2, 2)


def _solve(
    setting: Setting, P: Tensor, A: Tensor, v: Tensor, gamma: Tensor, top: Tensor, bottom: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve the systems of the instances whose v is a number; zero for the others, NaN where there is no derivative."""
    cones = setting.pattern.cones
    sound = v.isfinite().all(1)
    index = sound.nonzero()[:, 0]
    P, A = (part if len(part) == 1 else part[index] for part in (P, A))
    here, unit = v[index], gamma[index]
    at = Spectra.of(cones, here).faces()
    matrices = matrices_of(setting.pattern, P, A)

    def system(weak_active: bool, shift: float) -> AnySystem:
        return matrices.system(at, unit, weak_active, shift)

    steps = ruled(setting.rule, system, top[index], bottom[index])
    a, e = steps.a, steps.e
    if bool(steps.missed.any()):
        if setting.pushed:
            a, e = _opened(system(setting.rule.degenerate != "inactive", 0.0), steps)
        else:
            lost = steps.missed[:, None]
            a, e = torch.where(lost, torch.nan, a), torch.where(lost, torch.nan, e)
    return torch.zeros_like(top).index_copy(0, index, a), torch.zeros_like(bottom).index_copy(0, index, e)


def _opened(system: AnySystem, steps: Steps) -> tuple[Tensor, Tensor]:
    """Return the steps with NaN for what the system leaves open."""
    lost = steps.missed[:, None]
    a, e = (
        torch.where(lost & _touched(null)[..., None], torch.nan, part)
        for part, null in zip((steps.a, steps.e), system.null, strict=True)
    )
    return a, e


def _touched(vectors: Tensor) -> Tensor:
    """Return which entries of vectors (batch, ., d) are not zero in some of them, (batch, .)."""
    size = vectors.abs().amax(1, keepdim=True)
    return (vectors.abs() > TOUCHED * torch.where(size > 0, size, 1.0)).any(-1)


def _omega(pattern: ConePattern, A: Tensor, gamma: Tensor, bottom: Tensor, a: Tensor, e: Tensor) -> Tensor:
    return bottom - A_product(pattern, A, a) - gamma[:, None] * e


def _over_columns(function: Callable[[int], Tensor], like: Tensor) -> Tensor:
    """Return the sum over the columns of ``like`` (batch, n, c) of a function of their number."""
    return torch.stack([function(i) for i in range(like.shape[-1])]).sum(0)


def _columns(function: Callable[[int], Tensor], like: Tensor) -> Tensor:
    return torch.stack([function(i) for i in range(like.shape[-1])], -1)


def _like(gradient: Tensor, shared: Tensor) -> Tensor:
    return gradient.sum(0, keepdim=True) if len(shared) == 1 and len(gradient) > 1 else gradient


def _bend(pattern: ConePattern, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the second derivative of the projection at v along a and b, zero without curved cones."""
    if pattern.cones.is_linear:
        return torch.zeros_like(v)
    found: Tensor = _Bend.apply(pattern, v, a, b)  # type: ignore[no-untyped-call]
    return found


class _Bend(torch.autograd.Function):
    """The second derivative of the projection, which is symmetric and linear in both directions."""

    @staticmethod
    def forward(pattern: ConePattern, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        sound = v.isfinite().all(1)[:, None]
        return torch.where(sound, Spectra.of(pattern.cones, torch.where(sound, v, 0.0)).bend(a, b), 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.pattern = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.needs_input_grad[1]:
            raise NotDifferentiable(_THIRD)
        v, a, b = ctx.saved_tensors
        return None, None, _bend(ctx.pattern, v, bar, b), _bend(ctx.pattern, v, a, bar)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        _, v_dot, a_dot, b_dot = tangents
        if v_dot is not None:
            raise NotDifferentiable(_THIRD)
        v, a, b = ctx.saved_tensors
        found = torch.zeros_like(v)
        if a_dot is not None:
            found = found + _bend(ctx.pattern, v, a_dot, b)
        return found if b_dot is None else found + _bend(ctx.pattern, v, a, b_dot)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], pattern: ConePattern, *inputs: Tensor) -> Any:
        size, dims = info.batch_size, in_dims[1:]
        batch = next(t.shape[0 if d is None else int(d == 0)] for t, d in zip(inputs, dims, strict=True))
        wide = [_spread(t, dim, size) for t, dim in zip(inputs, dims, strict=True)]
        return _bend(pattern, *wide).reshape(size, batch, -1), 0


_THIRD = (
    "third derivatives of programs with curved cones are not available: the second derivative of the projection is a "
    "closed form that is not differentiated again"
)


def folded(tensor: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    """Return a tensor (1 or batch, ...) with a mapped dimension in front of the batch; shared ones stay so."""
    if dim is None:
        return tensor if len(tensor) == 1 else tensor.expand(size, *tensor.shape).flatten(0, 1)
    front = tensor.movedim(dim, 0)
    return front.expand(size, batch, *front.shape[2:]).flatten(0, 1)


def _spread(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Return a tensor (batch, ...) with a mapped dimension in front of the batch."""
    front = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return front.flatten(0, 1)
