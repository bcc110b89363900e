"""Pooling of vectors: descents that never go up and end inside the hull of the points, from several starts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._kernels import Kernels, pools_of
from ._penalties import AbstractPenalty, Barron, TruncatedQuadratic, summed, weighted
from ._problem import CONVEX
from ._rows import Rows

MOST_STEPS = 200
"""Steps of a descent; Newton's method needs a few, the weighted mean some dozens."""


@dataclass(frozen=True)
class Descent:
    """Where descents from one start stand: ``u`` (rows, m), its objective, the weighted mean there, what is settled.

    Attributes:
        u: the points.
        value: the objective in units of alpha, (rows,).
        mean: of the points, with the weights ``rho'(t) / t`` that they have at ``u``, (rows, m).
        newton: what Newton's method proposes instead, (rows, m).
    """

    u: Tensor
    value: Tensor
    mean: Tensor
    newton: Tensor


def pool_vectors(
    penalty: AbstractPenalty, rows: Rows, starts: int, sample: int, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """Return the lowest of the minima that descents reach, (rows, m), and the length of their last steps over alpha.

    A descent moves to the weighted mean of the points, by which the objective never rises for these penalties, or
    where Newton's method does better, as that says; its last step is to the mean, which is inside the hull.

    Args:
        penalty: the penalty.
        rows: points (rows, m, n).
        starts: how many points to start from besides the mean and the median, if there may be several minima.
        sample: of how many points, evenly spaced, these are the best.
        kernels: take over sums over the points.
    """
    x = rows.x
    mean = weighted(x, None if rows.weights is None else rows.weights[:, None]).sum(-1) / rows.total[:, None].to(
        x.dtype
    )
    begins = [mean] if penalty.name in CONVEX else [mean, x.median(-1).values, *_best(penalty, rows, starts, sample)]
    best, value, step = _descend(penalty, rows, begins[0], kernels)
    tie = 10.0 * torch.finfo(x.dtype).eps * rows.total
    for begin in begins[1:]:
        u, other, last = _descend(penalty, rows, begin, kernels)
        better = other < value - tie
        best, value, step = (
            torch.where(better[:, None] if a.ndim > 1 else better, b, a)
            for a, b in ((best, u), (value, other), (step, last))
        )
    return best, step


def _best(penalty: AbstractPenalty, rows: Rows, starts: int, sample: int) -> list[Tensor]:
    """Return the points of a sample with the lowest objectives, the best first, each (rows, m)."""
    n = rows.x.shape[-1]
    some = rows.x[:, :, :: -(-n // sample)]
    distance = torch.cdist(some.mT, rows.x.mT) * rows.unit[:, :, None]
    values = weighted(penalty.value(distance), None if rows.weights is None else rows.weights[:, None]).sum(-1)
    order = values.argsort(dim=-1, stable=True)[:, :starts]
    return [some.gather(-1, i[:, None, None].expand(-1, some.shape[1], 1))[:, :, 0] for i in order.unbind(-1)]


def _descend(penalty: AbstractPenalty, rows: Rows, u: Tensor, kernels: Kernels | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the end of a descent (rows, m), its objective and the length of its last step over alpha, (rows,)."""
    eps, alpha = torch.finfo(rows.x.dtype).eps, rows.alpha[:, 0].to(rows.x.dtype)
    here = _look(penalty, rows, u, kernels)
    done = torch.zeros_like(alpha, dtype=torch.bool)
    last = torch.full_like(alpha, torch.inf)
    for _ in range(MOST_STEPS):
        there = _look(penalty, rows, torch.where(done[:, None], here.u, here.newton), kernels)
        risen = ~(there.value <= here.value + eps * here.value.abs())
        if bool((risen & ~done).any()):
            there = _look(penalty, rows, torch.where((risen & ~done)[:, None], here.mean, there.u), kernels)
        step = (there.u - here.u).norm(dim=-1) / alpha
        last = torch.where(done, last, step)
        short = step <= 8.0 * eps * (1.0 + there.u.norm(dim=-1) / alpha)
        here, done = there, done | short
        if bool(done.all()):
            break
    return here.mean, here.value, torch.minimum(last, (here.mean - here.u).norm(dim=-1) / alpha)


def _look(penalty: AbstractPenalty, rows: Rows, u: Tensor, kernels: Kernels | None) -> Descent:
    smooth = not isinstance(penalty, TruncatedQuadratic)
    if kernels is None:
        value, mass, pulled, hessian = _sums(penalty, rows, u, smooth)
    else:
        value, mass, pulled, hessian = kernels.look(pools_of(penalty, rows), u, smooth)
    total = mass[:, None]
    mean = u + pulled / total
    lost = (mass <= 0).nonzero()[:, 0]
    if len(lost):
        mean[lost] = _nearest(rows[lost], u[lost])
    if hessian is None:
        return Descent(u, value, mean, mean)
    hessian.diagonal(dim1=-2, dim2=-1).add_(total)
    factor, info = torch.linalg.cholesky_ex(hessian)
    step = torch.cholesky_solve((total * (mean - u))[:, :, None], factor)[:, :, 0]
    usable = ((info == 0) & step.isfinite().all(-1))[:, None]
    return Descent(u, value, mean, torch.where(usable, u + step, mean))


def _sums(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, hessian: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return what :meth:`Kernels.look` does."""
    z = rows.x - u[:, :, None]
    t = z.square().sum(1).sqrt_().mul_(rows.unit)
    value = summed(penalty.value(t), rows.weights)
    weight, bend = _second(penalty, t, rows.weights)
    pulled = torch.einsum("rmn,rn->rm", z, weight)
    return value, weight.sum(-1), pulled, _products(z, bend, rows.unit) if hessian else None


def _nearest(rows: Rows, u: Tensor) -> Tensor:
    """Return the nearest point that counts, (rows, m): where all weights vanish there is no mean of them."""
    distance = (rows.x - u[:, :, None]).square().sum(1)
    if rows.weights is not None:
        distance.masked_fill_(rows.weights <= 0, torch.inf)
    nearest = distance.argmin(-1)[:, None, None].expand(-1, rows.x.shape[1], 1)
    return rows.x.gather(-1, nearest)[:, :, 0]


def _second(penalty: AbstractPenalty, t: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return ``w rho'(t) / t`` and ``w (rho''(t) - rho'(t) / t) / t^2``, (rows, n): the Hessian is made of these."""
    weight = penalty.weight(t)
    bend = torch.where(t > 0, (penalty.curvature(t) - weight) / t.square().clamp_min(1e-30), 0.0)
    return weighted(weight, weights), weighted(bend, weights)


def _products(z: Tensor, bend: Tensor, unit: Tensor) -> Tensor:
    """Return ``sum bend t t'``, (rows, m, m), with ``t = z / alpha``."""
    scaled = z * unit[:, :, None]
    return (scaled * bend[:, None]) @ scaled.mT


def pull_by_kernel(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor, wanted: bool, kernels: Kernels
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the first three gradients of :func:`vector_derivative`, that for weights only if it is ``wanted``."""
    pools = pools_of(penalty, rows)
    _, mass, _, hessian = kernels.look(pools, u, True)
    assert hessian is not None
    hessian.diagonal(dim1=-2, dim2=-1).add_(mass[:, None])
    v, usable = _solved(hessian, mass[:, None], cotangent.to(hessian.dtype))
    points, weights, alpha = kernels.pull_vectors(pools, u, v, usable, wanted)
    return points, weights, alpha[:, None]


def _solved(hessian: Tensor, total: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cotangent times the inverse, or over the total where that is not positive, and whether it is."""
    factor, info = torch.linalg.cholesky_ex(hessian)
    v = torch.cholesky_solve(cotangent[:, :, None], factor)[:, :, 0]
    usable = (info == 0) & v.isfinite().all(-1)
    return torch.where(usable[:, None], v, cotangent / total), usable


def vector_derivative(
    penalty: AbstractPenalty, rows: Rows, u: Tensor, cotangent: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients for points, weights, alpha and shape of every row; looks at no value, for ``vmap``.

    With ``t_i = (x_i - u) / alpha``, ``k_i = w_i rho' / |t_i|`` and ``c_i = w_i (rho'' - rho' / |t_i|) / |t_i|^2``,
    the Hessian is ``H = sum k_i I + c_i t_i t_i'``. For ``v`` with ``H v`` the cotangent,

        x_i: k_i v + c_i (t_i'v) t_i,   w_i: k_i / w_i (x_i - u)'v,   alpha: - sum over i of t_i' times that of x_i.

    Where H is not positive definite, the points share as in the weighted mean that the solution is: ``H = sum k_i I``.

    Args:
        penalty: the penalty.
        rows: points (rows, m, n).
        u: (rows, m).
        cotangent: (rows, m).

    Returns:
        (rows, m, n), (rows, n), (rows, 1), (rows, 1).
    """
    z = rows.x - u.to(rows.x.dtype)[:, :, None]
    scaled = z * rows.unit[:, :, None]
    t = scaled.square().sum(1).sqrt()
    plain, _ = _second(penalty, t, None)
    weight, bend = _second(penalty, t, rows.weights)
    hessian, total = _products(z, bend, rows.unit), weight.sum(-1, keepdim=True)
    hessian.diagonal(dim1=-2, dim2=-1).add_(total)
    v, usable = _solved(hessian, total, cotangent.to(z.dtype))
    bend = torch.where(usable[:, None], bend, 0.0)
    along = torch.einsum("rmn,rm->rn", scaled, v)
    points = v[:, :, None] * weight[:, None] + scaled * (bend * along)[:, None]
    alpha = -(points * scaled).sum((1, 2))[:, None]
    shape = torch.zeros_like(alpha)
    if isinstance(penalty, Barron):
        moved = torch.where(t > 0, penalty.shape_slope(t) / t.clamp_min(1e-30), 0.0)
        shape = (weighted(moved, rows.weights) * along).sum(-1, keepdim=True) / rows.unit
    return points, plain * along / rows.unit, alpha, shape
