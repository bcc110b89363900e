"""Redundant active constraints: whether they stay redundant when the parameters and the solution move."""

import torch
from torch import Tensor

from ._autodiff import gradient
from ._bound import BoundProblem
from ._kkt import AbstractSystem, ActiveSet
from ._layout import fill_floats, floats_of
from ._measures import finite, largest

Weights = tuple[Tensor, Tensor]
"""Of the equalities (batch, p) and of the inequalities (batch, q)."""
CANCELLED = 1e-7
"""What is left of a combination below this, over the size of its terms, is zero."""
ROUNDING = 1e-10
"""Weights of a combination below this, over the largest, are zero."""
SPAN = 16
"""Tangent vectors that a curvature is looked at along, at most."""


def stays_consistent(bound: BoundProblem, z: Tensor, forces: Weights, system: AbstractSystem) -> Tensor:
    """Return where redundant active constraints stay redundant as parameters and solution move, (batch,).

    A combination c of active constraints whose gradients in u cancel must not change with the parameters either,
    d(c'F)/dx = 0: otherwise a small change of the parameters leaves constraints that cannot all be active. Parameters
    shared by the batch are judged for all of its redundant instances at once. And its Hessian must vanish on the
    tangent space: constraints that are tangent to each other but curve apart do not stay active together, and the
    derivative would depend on how the multipliers are shared between them. That does not matter to inequalities
    whose multipliers vanish all, if each could do without the others.

    Args:
        bound: the problem.
        z: (batch, n).
        forces: the multipliers (nu, lambda).
        system: the KKT system.
    """
    redundant = system.redundant > 0
    good = torch.ones_like(redundant)
    if not bool(redundant.any()):
        return good
    for weights in combinations(system):
        good = good & ~_moves(bound, z, system.active, weights)
        left, size = bend(bound, z, system, weights)
        good = good & ((left <= CANCELLED * size) | _slack(weights, forces))
    return good | ~redundant


def combinations(system: AbstractSystem) -> list[Weights]:
    """Return the combinations of active constraints whose gradients cancel, zero where an instance has fewer.

    Weights that are rounding are zero: what has no share must not bring in its curvature.
    """
    _, nus, lams, _ = (part * (system.redundant > 0)[:, None, None] for part in system.kernel)
    least = ROUNDING * largest(nus.flatten(1), lams.flatten(1))[:, None, None]
    nus, lams = (torch.where(part.abs() > least, part, 0.0) for part in (nus, lams))
    return list(zip(nus.unbind(-1), lams.unbind(-1), strict=True))


def bend(bound: BoundProblem, z: Tensor, system: AbstractSystem, weights: Weights) -> tuple[Tensor, Tensor]:
    """Return the size of the Hessian of ``c'F`` along a tangent vector, and that of its terms, (batch,).

    The vector is generic: what vanishes along it vanishes on all of the tangent space.
    """
    nothing = (torch.zeros_like(weights[0]), torch.zeros_like(weights[1]), torch.zeros_like(z))
    tangent = _tangents(z, system, 1)[0]
    along = _hessian_product(bound, z, weights, tangent)
    _, nu, lam, zeta = _solve(system, (along, *nothing))
    (normal,) = gradient(lambda t: _weighted(bound, t, bound.parameters, (nu, lam)), z)
    inside = torch.where(system.active.fixed, 0.0, along - normal + zeta)
    terms = _hessian_product(bound, z, _generic(weights), tangent)
    return largest(inside), torch.maximum(largest(along), largest(terms))


def curvature_sign(bound: BoundProblem, z: Tensor, system: AbstractSystem, weights: Weights) -> Tensor:
    """Return 1, -1 or 0 where the Hessian of ``c'F`` is positive or negative semidefinite on the tangent space, or not.

    Looked at on the span of up to ``SPAN`` generic tangent vectors.
    """
    tangents = _tangents(z, system, min(SPAN, z.shape[-1]))
    products = [_hessian_product(bound, z, weights, t) for t in tangents]
    form = torch.stack([torch.stack([(t * p).sum(-1) for p in products], -1) for t in tangents], -2)
    values: Tensor = torch.linalg.eigvalsh(finite(0.5 * (form + form.mT)))
    least, most = values[..., 0], values[..., -1]
    zero = CANCELLED * torch.maximum(least.abs(), most.abs())
    return torch.where(least >= -zero, 1.0, torch.where(most <= zero, -1.0, 0.0)).to(z)


def _tangents(z: Tensor, system: AbstractSystem, count: int) -> list[Tensor]:
    """Return generic vectors of the tangent space of the active constraints, each (batch, n)."""
    index = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    active = torch.zeros_like(system.active.inequality, dtype=z.dtype)
    rest = (z.new_zeros(len(z), system.kernel[1].shape[1]), active, torch.zeros_like(z))
    found = [_solve(system, (torch.sin((k + 1.0) * index).expand_as(z), *rest))[0] for k in range(count)]
    return [t / largest(t).clamp_min(1e-300)[:, None] for t in found]


def _slack(weights: Weights, forces: Weights) -> Tensor:
    """Return where a combination consists of inequalities of both signs, all with the multiplier zero, (batch,)."""
    (nu, lam), held = weights, forces[1] != 0
    free = (nu == 0).all(-1) & ~((lam != 0) & held).any(-1)
    return free & (lam > 0).any(-1) & (lam < 0).any(-1)


def _weighted(bound: BoundProblem, z: Tensor, parameters: tuple[Tensor, ...], weights: Weights) -> Tensor:
    nu, lam = weights
    functions = bound.functions
    return (nu * functions.equality(z, parameters)).sum() + (lam * functions.inequality(z, parameters)).sum()


def _hessian_product(bound: BoundProblem, z: Tensor, weights: Weights, vector: Tensor) -> Tensor:
    def slope_along(t: Tensor) -> Tensor:
        (slope,) = gradient(lambda s: _weighted(bound, s, bound.parameters, weights), t)
        return (slope * vector).sum()

    with torch.enable_grad():
        (product,) = gradient(slope_along, z)
    return product.detach()


def _solve(system: AbstractSystem, right: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    columns = tuple(part[..., None] for part in right)
    return tuple(part[..., 0] for part in system.solve(columns))  # type: ignore[arg-type]


def _generic(weights: Weights) -> Weights:
    """Return weights of about the same size for which terms of either sign do not cancel."""
    nu, lam = (w.abs() * (1.0 + 0.5 * torch.sin(torch.arange(w.shape[-1]).to(w))) for w in weights)
    return nu, lam


def _moves(bound: BoundProblem, z: Tensor, active: ActiveSet, weights: Weights) -> Tensor:
    """Return where the combination changes with the parameters, (batch,)."""
    moving = floats_of(bound.parameters)
    if not moving:
        return torch.zeros_like(z[:, 0], dtype=torch.bool)
    change, size = (_pull(bound, z, active, w, moving) for w in (weights, _generic(weights)))
    return change > CANCELLED * size


def _pull(bound: BoundProblem, z: Tensor, active: ActiveSet, weights: Weights, moving: tuple[Tensor, ...]) -> Tensor:
    """Return the size of the derivative in the parameters of a combination of active constraints, (batch,)."""
    (normal,) = gradient(lambda t: _weighted(bound, t, bound.parameters, weights), z)
    zeta = torch.where(active.fixed, normal, 0.0)

    def combined(*floats: Tensor) -> Tensor:
        parameters, functions = fill_floats(bound.parameters, floats), bound.functions
        held = active.bound(functions.bound("lower", parameters), functions.bound("upper", parameters))
        return _weighted(bound, z, parameters, weights) - (zeta * held).sum()

    shared = (s for q, s in zip(bound.parameters, bound.layout.shared, strict=True) if q.is_floating_point())
    sizes = [
        largest(g.reshape(1, -1)).expand(bound.batch) if s else largest(g.reshape(bound.batch, -1))
        for g, s in zip(gradient(combined, *moving), shared, strict=True)
    ]
    return torch.stack(sizes).amax(0)
