"""The central path: from a KKT point outwards to the point where slack times multiplier is a positive number."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._dense import DenseSystem
from ._kkt import ActiveSet
from ._measures import apply, finite, largest, length

FIRST = 1e-6
"""Scaled complementarity to which the path is entered at once; from there it grows tenfold a step."""
CLOSE = 1e-9
"""Scaled residual below which a point counts as on the path."""
ROUNDS = 30
"""Newton steps for one point of the path, at most."""
HALVINGS = 12
"""How often a step that does not reduce the residual is halved."""


@dataclass(frozen=True)
class PathPoint:
    """A point of the central path of every instance.

    Attributes:
        z: variables, (batch, n).
        nu: multipliers of the equalities, (batch, p).
        lam: positive multipliers of the inequalities, zero for those not present, (batch, q).
        force: what holds the fixed variables, (batch, n), zero for the others.
        system: the system ``[H A' G'; A 0 0; G 0 -D]``, ``D = diag(1 / (t lambda^2))``.
        reached: where the conditions hold, (batch,).
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    force: Tensor
    system: DenseSystem
    reached: Tensor


@dataclass(frozen=True)
class _State:
    """A trial point, its conditions and their scaled residual; ``excess`` is ``l - s`` and ``gap`` what l + s lacks."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    slope: Tensor
    h: Tensor
    A: Tensor
    G: Tensor
    excess: Tensor
    gap: Tensor
    residual: Tensor


@dataclass(frozen=True)
class _Scale:
    """Units: of slacks and multipliers (batch, q), of forces (batch, 1) and of lengths (batch, 1)."""

    slack: Tensor
    multiplier: Tensor
    force: Tensor
    extent: Tensor

    @classmethod
    def at(cls, bound: BoundProblem, start: tuple[Tensor, Tensor, Tensor]) -> "_Scale":
        z, nu, lam = start
        rows = length(finite(bound.inequality(z)[1]))
        extent = 1.0 + largest(z)[:, None]
        change = largest(finite(bound.hessian(z, nu, lam)).flatten(1))[:, None] * extent
        force = torch.maximum(largest(bound.gradient(z)[1])[:, None], change).clamp_min(1e-300)
        return cls(1.0 / (rows * extent), rows / force, force, extent)


def follow(bound: BoundProblem, active: ActiveSet, start: tuple[Tensor, Tensor, Tensor], t: float) -> PathPoint:
    """Return the points where ``grad L = 0``, ``h = 0`` and ``-g_i lambda_i = 1/t``, reached from KKT points.

    Complementarity is written, in scaled units, as ``l + s - sqrt((l - s)^2 + 4 mu) = 0``, which says that l and s are
    positive with the product mu and, unlike that product, has a Newton step at points where they are not.

    Args:
        bound: the problem, all of its bounds as inequalities.
        active: the inequalities that are present, and the variables that are held.
        start: z (batch, n), nu (batch, p) and lambda (batch, q) of the KKT points.
        t: the weight of the objective against the logarithms.

    Reference: Chen and Harker, *A non-interior-point continuation method for linear complementarity problems*, 1993.
    """
    scale = _Scale.at(bound, start)
    target = 1.0 / (t * scale.force * scale.extent)
    steps = int(torch.log10(target.amax() / FIRST).ceil().clamp(0, 40)) if len(target) else 0
    state = _evaluated(bound, active, scale, start, target)
    for step in range(steps, -1, -1):
        mu = torch.minimum(target, (target * 10.0**-step).clamp_min(1e-12))
        state = _newton(bound, active, scale, _evaluated(bound, active, scale, (state.z, state.nu, state.lam), mu), mu)
    p = _sides(state.excess, target)[0]
    lam = torch.where(active.inequality, 0.5 * p / scale.multiplier, 0.0)
    compliance = torch.where(active.inequality, 1.0 / (t * lam.square()), 0.0)
    hessian = finite(bound.hessian(state.z, state.nu, lam))
    system = DenseSystem.of(hessian, finite(state.A), finite(state.G), active, compliance)
    force = torch.where(active.fixed, state.slope, 0.0)
    return PathPoint(state.z, state.nu, lam, force, system, state.residual < CLOSE)


def _newton(bound: BoundProblem, active: ActiveSet, scale: _Scale, state: _State, mu: Tensor) -> _State:
    for _ in range(ROUNDS):
        moving = state.residual > 1e-13
        step = _step(bound, active, scale, state, mu)
        state, better = _search(bound, active, scale, state, step, mu, moving)
        if not bool(better.any()):
            return state
    return state


def _step(bound: BoundProblem, active: ActiveSet, scale: _Scale, state: _State, mu: Tensor) -> tuple[Tensor, ...]:
    p, m = _sides(state.excess, mu)
    weight = p * scale.slack
    compliance = finite(m * scale.multiplier / weight)
    hessian = finite(bound.hessian(state.z, state.nu, state.lam))
    system = DenseSystem.of(hessian, finite(state.A), finite(state.G), active, compliance)
    short = finite(state.gap * 0.5 * (p + m) / weight)
    right = (finite(part)[..., None] for part in (-state.slope, -state.h, short, torch.zeros_like(state.z)))
    dz, dnu, dlam, _ = system.solve(tuple(right))  # type: ignore[arg-type]
    return dz[..., 0], dnu[..., 0], dlam[..., 0]


def _search(
    bound: BoundProblem,
    active: ActiveSet,
    scale: _Scale,
    state: _State,
    step: tuple[Tensor, ...],
    mu: Tensor,
    moving: Tensor,
) -> tuple[_State, Tensor]:
    """Return the state after the step, halved where it does not reduce the residual, and where it moved."""
    better, reach = torch.zeros_like(moving), torch.ones_like(state.residual)
    point = (state.z, state.nu, state.lam)
    for _ in range(HALVINGS):
        trial = _evaluated(
            bound, active, scale, tuple(old + reach[:, None] * d for old, d in zip(point, step, strict=True)), mu
        )
        good = moving & ~better & (trial.residual < (1.0 - 0.1 * reach) * state.residual)
        state, better = _chosen(good, trial, state), better | good
        if bool((better | ~moving).all()):
            break
        reach = torch.where(better, reach, 0.5 * reach)
    return state, better


def _evaluated(bound: BoundProblem, active: ActiveSet, scale: _Scale, point: tuple[Tensor, ...], mu: Tensor) -> _State:
    z, nu, lam = point
    lam = torch.where(active.inequality, lam, 0.0)
    h, A = bound.equality(z)
    g, G = bound.inequality(z)
    slope = bound.gradient(z)[1] + apply(A.mT, nu) + apply(G.mT, lam)
    l, s = lam * scale.multiplier, -g * scale.slack  # noqa: E741 - as in the docstring of `follow`
    gap = torch.where(active.inequality, l + s - ((l - s).square() + 4.0 * mu).sqrt(), 0.0)
    free = torch.where(active.fixed, 0.0, slope) / scale.force
    residual = largest(free, h / (length(finite(A)) * scale.extent), gap)
    residual = torch.nan_to_num(residual, nan=torch.inf)
    return _State(z, nu, lam, slope, h, A, G, l - s, gap, residual)


def _sides(excess: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``r + d`` and ``r - d`` for the excess d and ``r = sqrt(d^2 + 4 mu)``, neither by cancellation."""
    large = (excess.square() + 4.0 * mu).sqrt() + excess.abs()
    small = 4.0 * mu / large
    return torch.where(excess > 0, large, small), torch.where(excess > 0, small, large)


def _chosen(mask: Tensor, new: _State, old: _State) -> _State:
    def pick(name: str) -> Tensor:
        a, b = getattr(new, name), getattr(old, name)
        return torch.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return replace(old, **{name: pick(name) for name in vars(old)})
