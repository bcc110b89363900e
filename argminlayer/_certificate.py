"""Judging a point: scaled KKT residuals, the active set with its margin, and the second-order check."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._factorise import factorise
from ._kkt import AbstractSystem, ActiveSet
from ._matrices import AbstractMatrix, Jacobian
from ._measures import finite, largest, smallest
from ._multipliers import recover
from ._redundancy import stays_consistent
from ._solution import Certificate, PointKind, Status
from ._structure import hessian_of, jacobian_of

Matrices = tuple[AbstractMatrix, Jacobian, Jacobian]
"""The Hessian of the Lagrangian and the Jacobians of equalities and inequalities."""
FLOOR = 1e-30
"""Only keeps the forces of a problem without any from being divided by; everything else is relative."""
HUGE = 1e8
"""Multipliers whose forces exceed those of the objective by this much leave nothing of it in double precision."""
STRIDE = 0.1
"""How far, over ``1 + |u|``, the rate of change of the gradient is measured."""
EXACT = 1e-9
"""A slack or multiplier below this, scaled, is zero at a refined point."""


@dataclass(frozen=True)
class KKTPoint:
    """A point with multipliers, its KKT system and what was measured there. All tensors have a leading batch.

    Attributes:
        z: variables, (batch, n).
        nu: multipliers of the equalities, (batch, p).
        lam: multipliers of the inequalities, zero where inactive, (batch, q).
        zeta: ``z_lo - z_up``, zero where no bound is active, (batch, n).
        matrices: the Hessian of the Lagrangian and the Jacobians of equalities and inequalities.
        system: the KKT system of the active constraints.
        step: Newton step of (z, nu, lam) on the KKT conditions.
        weak: weakly active inequalities (batch, q), lower bounds (batch, n) and upper bounds (batch, n).
        certificate: the residuals.
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    matrices: Matrices
    system: AbstractSystem
    step: tuple[Tensor, Tensor, Tensor]
    weak: tuple[Tensor, ...]
    certificate: Certificate

    @property
    def residual(self) -> Tensor:
        """Return the largest scaled residual of each instance, infinite where something is not finite."""
        c = self.certificate
        worst = torch.stack([c.stationarity, c.feasibility, c.complementarity, c.dual_feasibility]).amax(0)
        return torch.nan_to_num(worst, nan=torch.inf)


@dataclass(frozen=True)
class _Group:
    """Inequalities, or bounds of one kind: scaled distance ``slack`` and scaled multiplier ``pull``, (batch, r)."""

    slack: Tensor
    pull: Tensor

    def weak(self, accuracy: float | Tensor) -> Tensor:
        return torch.maximum(self.slack.abs(), self.pull.abs()) < accuracy

    def active(self, accuracy: float) -> Tensor:
        return (self.pull > self.slack.clamp_min(0.0)) | (self.slack < -EXACT) | self.weak(accuracy)


def measure(
    bound: BoundProblem, z: Tensor, nu: Tensor | None = None, lam: Tensor | None = None, *, accuracy: float = 1e-7
) -> KKTPoint:
    """Measure the KKT conditions at ``z``; recover the multipliers when they are not given.

    Let the slack of an inequality be its distance to first order over ``1 + |u|``, and its pull the length of
    ``lambda_i grad g_i`` over the size of the forces of the problem. It is active when its pull exceeds its slack, and
    weakly active when both are below ``accuracy``: neither depends on the units of the objective or the constraint.

    Args:
        bound: the problem.
        z: (batch, n).
        nu: (batch, p) in our sign; given together with ``lam`` or not at all.
        lam: (batch, q).
        accuracy: below this a slack or a pull counts as zero.
    """
    value, descent = bound.gradient(z)
    # outside its domain a function may have a finite gradient
    descent = torch.where(value.isfinite()[:, None], descent, torch.nan)
    h, A = jacobian_of(bound, "equality", z)
    g, G = jacobian_of(bound, "inequality", z)
    extent = 1.0 + z.abs().amax(-1, keepdim=True) if z.shape[-1] else z.new_ones(z.shape[0], 1)
    slack, below, above = -g / (G.scale() * extent), (z - bound.lower) / extent, (bound.upper - z) / extent
    nu, lam = _multipliers(bound, (descent, A, G), (slack, below, above), nu, lam)
    hessian = hessian_of(bound, z, nu, lam)
    force = _force(bound, z, descent, hessian, extent)
    push = (descent + A.pull(nu) + G.pull(lam)) / force
    # between equal bounds a variable is held whatever the force on it
    held = bound.lower == bound.upper
    groups = (
        _Group(slack, lam * G.lengths() / force),
        _Group(below, torch.where(held, torch.inf, push)),
        _Group(above, torch.where(held, torch.inf, -push)),
    )
    system = _assemble(groups, (hessian, A, G), accuracy)
    lam = torch.where(system.active.inequality, lam, 0.0)
    slope = descent + A.pull(nu) + G.pull(lam)
    step = _newton_step(bound, system, z, slope, h, g)
    error = torch.nan_to_num(largest(step[0] / extent), nan=torch.inf)
    weak = tuple(group.weak(error.clamp_min(accuracy)[:, None]) for group in groups)
    conditions = (slope / force, h / A.scale(), extent)
    matrices = (hessian, A, G)
    certificate = _certificate(bound, (system, matrices), groups, conditions, (z, nu, lam), error, weak)
    zeta = torch.where(system.active.fixed, slope, 0.0)
    return KKTPoint(z, nu, lam, zeta, matrices, system, step, weak, certificate)


def _multipliers(
    bound: BoundProblem,
    rows: tuple[Tensor, Jacobian, Jacobian],
    slacks: tuple[Tensor, Tensor, Tensor],
    nu: Tensor | None,
    lam: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the multipliers given, or recovered ones: where none are given, or where rounding would drown them."""
    (descent, A, G), (slack, below, above) = rows, slacks
    if bound.problem.objective is None:
        return torch.zeros_like(A.lengths()), torch.zeros_like(G.lengths())
    if nu is not None and lam is not None:
        huge = largest(A.scale() * nu, G.scale() * lam) > HUGE * largest(descent)
        if not bool(huge.any()):
            return nu, lam
    found = recover(finite(descent), A, G, finite(slack), below, above)
    if nu is None or lam is None:
        return found
    return torch.where(huge[:, None], found[0], nu), torch.where(huge[:, None], found[1], lam)


def _assemble(groups: tuple[_Group, ...], matrices: Matrices, accuracy: float) -> AbstractSystem:
    """Build the KKT system; where weakly active constraints make it singular, leave them out instead."""
    masks = [group.active(accuracy) for group in groups]
    system = factorise(*matrices, _active_set(masks))
    weak = [group.weak(accuracy) for group in groups]
    drop = torch.stack([w.any(-1) for w in weak]).any(0) & (system.freedom + system.redundant > 0)
    if not bool(drop.any()):
        return system
    masks = [mask & ~(w & drop[:, None]) for mask, w in zip(masks, weak, strict=True)]
    return factorise(*matrices, _active_set(masks))


def system_at(point: KKTPoint, masks: Sequence[Tensor] | None = None, shift: Tensor | None = None) -> AbstractSystem:
    """Return the KKT system of a point with another active set, or with ``shift`` (batch,) on the Hessian's diagonal.

    Args:
        point: the point.
        masks: active inequalities (batch, q), lower and upper bounds (batch, n); those of the point by default.
        shift: what to add.
    """
    hessian, A, G = point.matrices
    shifted = hessian if shift is None else hessian.shifted(shift)
    return factorise(shifted, A, G, point.system.active if masks is None else _active_set(masks))


def _active_set(masks: Sequence[Tensor]) -> ActiveSet:
    inequality, lower, upper = masks
    return ActiveSet(inequality, lower, upper & ~lower)


def _newton_step(
    bound: BoundProblem, system: AbstractSystem, z: Tensor, slope: Tensor, h: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    active = system.active
    held = torch.where(active.fixed, active.bound(bound.lower, bound.upper) - z, 0.0)
    right = (finite(-part)[..., None] for part in (slope, h, g, held))
    dz, dnu, dlam, _ = system.solve(tuple(right))  # type: ignore[arg-type]
    return dz[..., 0], dnu[..., 0], dlam[..., 0]


def _certificate(
    bound: BoundProblem,
    built: tuple[AbstractSystem, Matrices],
    groups: tuple[_Group, ...],
    conditions: tuple[Tensor, Tensor, Tensor],
    at: tuple[Tensor, Tensor, Tensor],
    error: Tensor,
    weak: tuple[Tensor, ...],
) -> Certificate:
    slope, h, extent = conditions
    system, matrices = built
    active = system.active
    masks = (active.inequality, active.at_lower, active.at_upper)
    freedom, consistent = system.freedom, stays_consistent(bound, at[0], at[1:], system)
    wrong = [torch.where(mask, group.pull.clamp_max(0.0), 0.0) for mask, group in zip(masks, groups, strict=True)]
    both = [torch.minimum(group.slack.abs(), group.pull.abs()) for group in groups]
    both = [torch.where(mask, b, 0.0) for mask, b in zip(masks, both, strict=True)]
    return Certificate(
        stationarity=largest(torch.where(active.fixed, 0.0, slope)),
        feasibility=largest(h / extent, *(group.slack.clamp_max(0.0) for group in groups)),
        complementarity=largest(*both),
        dual_feasibility=largest(*wrong),
        error=error,
        margin=smallest(*(torch.maximum(group.slack, group.pull) for group in groups)),
        active=active.count,
        weakly_active=torch.stack([mask.sum(-1) for mask in weak]).sum(0),
        kind=_hidden(_kind(system), system, weak, matrices),
        redundant=system.redundant,
        freedom=freedom,
        consistent=consistent,
        regular=consistent & (freedom == 0),
        regularised=torch.zeros_like(error),
        gap=torch.full_like(error, torch.inf),
        smooth=torch.ones_like(consistent),
    )


def _hidden(kind: Tensor, system: AbstractSystem, weak: tuple[Tensor, ...], matrices: Matrices) -> Tensor:
    """Return the kind, where a minimum is one only as long as its weakly active constraints hold.

    They hold nothing back: a direction of negative curvature that opens without a single one of them, or its opposite,
    is feasible and leads downhill. With several it may be infeasible with either sign, and nothing is decided.
    """
    count = torch.stack([mask.sum(-1) for mask in weak]).sum(0)
    doubtful = (kind == PointKind.MINIMUM) & (count > 0)
    if not bool(doubtful.any()):
        return kind
    active = system.active
    masks = [m & ~w for m, w in zip((active.inequality, active.at_lower, active.at_upper), weak, strict=True)]
    free = factorise(*matrices, _active_set(masks))
    below = doubtful & (free.negative > 0)
    maximum = free.negative >= free.tangent
    named = torch.where(maximum, int(PointKind.MAXIMUM), int(PointKind.SADDLE))
    return torch.where(below, torch.where(count == 1, named, int(PointKind.DEGENERATE)), kind)


def _kind(system: AbstractSystem) -> Tensor:
    extra = system.negative
    kind = torch.where(system.freedom > 0, int(PointKind.DEGENERATE), int(PointKind.MINIMUM))
    kind = torch.where(extra > 0, int(PointKind.SADDLE), kind)
    return torch.where((extra > 0) & (extra >= system.tangent), int(PointKind.MAXIMUM), kind)


def judge(point: KKTPoint, tolerance: float, claimed: Tensor) -> Tensor:
    """Return the status of every instance: ``SOLVED`` when its certificate holds, else the reason why not.

    Args:
        point: the point with its certificate.
        tolerance: what the scaled residuals and the estimated error must not exceed.
        claimed: what the solver said, (batch,); it explains a failure and never makes a success.
    """
    c = point.certificate
    worst = torch.stack([c.stationarity, c.dual_feasibility, c.complementarity, c.error]).amax(0)
    stationary, feasible = worst <= tolerance, c.feasibility <= tolerance
    minimum = (c.kind == PointKind.MINIMUM) | (c.kind == PointKind.DEGENERATE)
    # a solver that speaks of infeasibility at a feasible point explains nothing
    denied = feasible & ((claimed == Status.NOT_FEASIBLE) | (claimed == Status.INFEASIBLE))
    explains = (claimed != Status.SOLVED) & ~denied
    why = torch.where(feasible, int(Status.NOT_STATIONARY), int(Status.NOT_FEASIBLE))
    why = torch.where(explains, claimed, why)
    broken = ~(point.z.isfinite().all(-1) & c.stationarity.isfinite() & c.feasibility.isfinite())
    why = torch.where(broken & (claimed == Status.SOLVED), int(Status.NOT_FINITE), why)
    found = torch.where(minimum, int(Status.SOLVED), int(Status.NOT_A_MINIMUM))
    return torch.where(stationary & feasible & ~broken, found, why)


def _force(bound: BoundProblem, z: Tensor, descent: Tensor, hessian: AbstractMatrix, extent: Tensor) -> Tensor:
    """Return the size of the forces of a problem, (batch, 1): what a gradient must be small against.

    The gradient of the objective at the point, and the rate at which it changes over a tenth of the extent, times the
    extent: at an unconstrained minimum the gradient vanishes. A finite step rather than the Hessian, which near the
    edge of the domain of a logarithm would make any force look small; only where the step leaves the domain it must
    serve. Multipliers do not count: huge ones that cancel would make any point look stationary.
    """
    index = torch.arange(1, bound.size + 1, dtype=z.dtype, device=z.device)
    near = torch.minimum(torch.maximum(z + STRIDE * extent * torch.sin(index), bound.lower), bound.upper)
    change = largest(bound.gradient(near)[1] - descent) / STRIDE
    change = torch.where(change.isfinite(), change, hessian.largest() * extent[:, 0])
    return torch.maximum(largest(descent), change)[:, None] + FLOOR


def locally_infeasible(bound: BoundProblem, z: Tensor) -> Tensor:
    """Return where ``z`` is a stationary point of the squared constraint violation within the bounds, (batch,)."""
    h, A = jacobian_of(bound, "equality", z)
    g, G = jacobian_of(bound, "inequality", z)
    excess = g.clamp_min(0.0)
    slope = A.pull(h) + G.pull(excess)
    held = ((z <= bound.lower) & (slope > 0)) | ((z >= bound.upper) & (slope < 0))
    size = largest(A.scale() * h, G.scale() * excess)
    return (largest(torch.where(held, 0.0, slope)) <= 1e-4 * size) & (size > 0)
