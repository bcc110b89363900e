"""Redundant active constraints: whether they stay redundant when the parameters move."""

import torch
from torch import Tensor

from ._autodiff import gradient
from ._bound import BoundProblem
from ._kkt import AbstractSystem, ActiveSet
from ._layout import fill_floats, floats_of
from ._measures import largest


def stays_consistent(bound: BoundProblem, z: Tensor, system: AbstractSystem) -> Tensor:
    """Return where redundant active constraints stay redundant as the parameters move, (batch,).

    A combination c of active constraints whose gradients in u cancel must not change with the parameters either,
    d(c'F)/dx = 0: otherwise a small change of the parameters leaves constraints that cannot all be active. Parameters
    shared by the batch are judged for all of its redundant instances at once.
    """
    redundant = system.redundant > 0
    moving = floats_of(bound.parameters)
    if not moving or not bool(redundant.any()):
        return torch.ones_like(redundant)
    _, nus, lams, _ = (part * redundant[:, None, None] for part in system.kernel)
    worst = torch.zeros_like(z[:, 0])
    for nu, lam in zip(nus.unbind(-1), lams.unbind(-1), strict=True):
        change, size = (_pull(bound, z, system.active, w, moving) for w in ((nu, lam), (nu.abs(), lam.abs())))
        worst = torch.maximum(worst, torch.where(change > 1e-7 * size, change / size.clamp_min(1e-300), 0.0))
    return ~redundant | (worst == 0)


def _pull(
    bound: BoundProblem, z: Tensor, active: ActiveSet, weights: tuple[Tensor, Tensor], moving: tuple[Tensor, ...]
) -> Tensor:
    """Return the size of the derivative in the parameters of a combination of active constraints, (batch,)."""
    nu, lam = weights

    def weighted(t: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
        functions = bound.functions
        return (nu * functions.equality(t, parameters)).sum() + (lam * functions.inequality(t, parameters)).sum()

    (normal,) = gradient(lambda t: weighted(t, bound.parameters), z)
    zeta = torch.where(active.fixed, normal, 0.0)

    def combined(*floats: Tensor) -> Tensor:
        parameters, functions = fill_floats(bound.parameters, floats), bound.functions
        held = active.bound(functions.bound("lower", parameters), functions.bound("upper", parameters))
        return weighted(z, parameters) - (zeta * held).sum()

    shared = (s for q, s in zip(bound.parameters, bound.layout.shared, strict=True) if q.is_floating_point())
    sizes = [
        largest(g.reshape(1, -1)).expand(bound.batch) if s else largest(g.reshape(bound.batch, -1))
        for g, s in zip(gradient(combined, *moving), shared, strict=True)
    ]
    return torch.stack(sizes).amax(0)
