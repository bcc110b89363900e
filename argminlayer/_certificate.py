"""Judging a point: scaled KKT residuals, the active set with its margin, the second-order check, and refinement."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._autodiff import gradient
from ._bound import BoundProblem
from ._kkt import ActiveSet, KKTSystem
from ._multipliers import recover_multipliers
from ._solution import Certificate, PointKind, Status

FLOOR = 1e-30
"""Only keeps the forces of a problem without any from being divided by; everything else is relative."""
CONVERGED = 1e-12
"""A point whose estimated error is below this is not refined any further."""
REACH = 1e-2
"""Refinement that would move a point further than this, over ``1 + |u|``, is no refinement and is not done."""
HUGE = 1e8
"""Multipliers whose forces exceed those of the objective by this much leave nothing of it in double precision."""
STRIDE = 0.1
"""How far, over ``1 + |u|``, the rate of change of the gradient is measured."""
EXACT = 1e-9
"""A slack or multiplier below this, scaled, is zero at a refined point."""
ROUNDS = 4
"""Newton steps of a refinement, at most."""


@dataclass(frozen=True)
class KKTPoint:
    """A point with multipliers, its KKT system and what was measured there. All tensors have a leading batch.

    Attributes:
        z: variables, (batch, n).
        nu: multipliers of the equalities, (batch, p).
        lam: multipliers of the inequalities, zero where inactive, (batch, q).
        zeta: ``z_lo - z_up``, zero where no bound is active, (batch, n).
        system: the KKT system of the active constraints.
        step: Newton step of (z, nu, lam) on the KKT conditions.
        certificate: the residuals.
    """

    z: Tensor
    nu: Tensor
    lam: Tensor
    zeta: Tensor
    system: KKTSystem
    step: tuple[Tensor, Tensor, Tensor]
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
    _, descent = bound.gradient(z)
    h, A = bound.equality(z)
    g, G = bound.inequality(z)
    extent = 1.0 + z.abs().amax(-1, keepdim=True) if z.shape[-1] else z.new_ones(z.shape[0], 1)
    slack, below, above = -g / (_length(G) * extent), (z - bound.lower) / extent, (bound.upper - z) / extent
    nu, lam = _multipliers(bound, (descent, A, G), (slack, below, above), nu, lam)
    hessian = bound.hessian(z, nu, lam)
    force = _force(bound, z, descent, hessian, extent)
    push = (descent + _apply(A.mT, nu) + _apply(G.mT, lam)) / force
    groups = (
        _Group(slack, lam * torch.linalg.vector_norm(G, dim=-1) / force),
        _Group(below, push),
        _Group(above, -push),
    )
    system = _assemble(groups, _finite(hessian), _finite(A), _finite(G), accuracy)
    lam = lam * system.active.scatter(torch.ones_like(system.active.used, dtype=lam.dtype), lam.shape[-1])
    slope = descent + _apply(A.mT, nu) + _apply(G.mT, lam)
    step = _newton_step(bound, system, z, slope, h, g)
    certificate = _certificate(bound, system, groups, (slope / force, h, extent), z, step[0], accuracy)
    zeta = torch.where(system.active.fixed, slope, 0.0)
    return KKTPoint(z, nu, lam, zeta, system, step, certificate)


def _multipliers(
    bound: BoundProblem,
    rows: tuple[Tensor, Tensor, Tensor],
    slacks: tuple[Tensor, Tensor, Tensor],
    nu: Tensor | None,
    lam: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the multipliers given, or recovered ones: where none are given, or where rounding would drown them."""
    (descent, A, G), (slack, below, above) = rows, slacks
    if bound.problem.objective is None:
        return A.new_zeros(A.shape[:2]), G.new_zeros(G.shape[:2])
    if nu is not None and lam is not None:
        huge = _largest(_length(A) * nu, _length(G) * lam) > HUGE * _largest(descent)
        if not bool(huge.any()):
            return nu, lam
    found = recover_multipliers(_finite(descent), _finite(A), _finite(G), _finite(slack), below, above)
    if nu is None or lam is None:
        return found
    return torch.where(huge[:, None], found[0], nu), torch.where(huge[:, None], found[1], lam)


def _assemble(groups: tuple[_Group, ...], hessian: Tensor, A: Tensor, G: Tensor, accuracy: float) -> KKTSystem:
    """Build the KKT system; where weakly active constraints make it singular, leave them out instead."""
    masks = [group.active(accuracy) for group in groups]
    system = KKTSystem.assemble(hessian, A, G, ActiveSet.of(*masks))
    weak = [group.weak(accuracy) for group in groups]
    drop = torch.stack([w.any(-1) for w in weak]).any(0) & (system.freedom + system.redundant > 0)
    if not bool(drop.any()):
        return system
    masks = [mask & ~(w & drop[:, None]) for mask, w in zip(masks, weak, strict=True)]
    return KKTSystem.assemble(hessian, A, G, ActiveSet.of(*masks))


def _newton_step(
    bound: BoundProblem, system: KKTSystem, z: Tensor, slope: Tensor, h: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    active = system.active
    held = torch.where(active.fixed, active.bound(bound.lower, bound.upper) - z, 0.0)
    dz, dnu, dlam, _ = system.solve(_finite(-slope), _finite(-h), _finite(-active.gather(g)), _finite(held))
    return dz, dnu, active.scatter(dlam, g.shape[-1])


def _certificate(
    bound: BoundProblem,
    system: KKTSystem,
    groups: tuple[_Group, ...],
    conditions: tuple[Tensor, Tensor, Tensor],
    z: Tensor,
    dz: Tensor,
    accuracy: float,
) -> Certificate:
    slope, h, extent = conditions
    active, either = system.active, bound.lower == bound.upper
    rows = active.scatter(active.used.to(slope.dtype), bound.inequalities) > 0
    masks = (rows, active.at_lower, active.at_upper)
    freedom, consistent = system.freedom, stays_consistent(bound, z, system)
    wrong = [torch.where(mask, group.pull.clamp_max(0.0), 0.0) for mask, group in zip(masks, groups, strict=True)]
    wrong = [wrong[0], *(torch.where(either, 0.0, w) for w in wrong[1:])]
    both = [torch.minimum(group.slack.abs(), group.pull.abs()) for group in groups]
    both = [torch.where(mask, b, 0.0) for mask, b in zip(masks, both, strict=True)]
    error = torch.nan_to_num(_largest(dz / extent), nan=torch.inf)
    blur = error.clamp_min(accuracy)[:, None]
    return Certificate(
        stationarity=_largest(torch.where(active.fixed, 0.0, slope)),
        feasibility=_largest(
            h / (_length(system.equality) * extent), *(group.slack.clamp_max(0.0) for group in groups)
        ),
        complementarity=_largest(*both),
        dual_feasibility=_largest(*wrong),
        error=error,
        margin=_smallest(*(torch.maximum(group.slack, group.pull) for group in groups)),
        active=active.count,
        weakly_active=torch.stack([group.weak(blur).sum(-1) for group in groups]).sum(0),
        kind=_kind(system),
        redundant=system.redundant,
        freedom=freedom,
        consistent=consistent,
        regular=consistent & (freedom == 0),
    )


def _kind(system: KKTSystem) -> Tensor:
    extra = system.extra_negative
    kind = torch.where(system.freedom > 0, int(PointKind.DEGENERATE), int(PointKind.MINIMUM))
    kind = torch.where(extra > 0, int(PointKind.SADDLE), kind)
    return torch.where((extra > 0) & (extra >= system.tangent), int(PointKind.MAXIMUM), kind)


def stays_consistent(bound: BoundProblem, z: Tensor, system: KKTSystem) -> Tensor:
    """Return where redundant active constraints stay redundant as the parameters move, (batch,).

    A combination c of active constraints whose gradients in u cancel must not change with the parameters either,
    d(c'F)/dx = 0: otherwise a small change of the parameters leaves constraints that cannot all be active. Parameters
    shared by the batch are judged for all of its redundant instances at once.
    """
    redundant = system.redundant > 0
    moving = tuple(p for p in bound.parameters if p.is_floating_point())
    if not moving or not bool(redundant.any()):
        return torch.ones_like(redundant)
    kernel = system.factor.kernel * redundant[:, None, None]
    worst = torch.zeros_like(z[:, 0])
    for combination in kernel.unbind(-1):
        change, size = (_pull(bound, z, system, c, moving) for c in (combination, combination.abs()))
        worst = torch.maximum(worst, torch.where(change > 1e-7 * size, change / size.clamp_min(1e-300), 0.0))
    return ~redundant | (worst == 0)


def _pull(bound: BoundProblem, z: Tensor, system: KKTSystem, combination: Tensor, moving: tuple[Tensor, ...]) -> Tensor:
    """Return the size of the derivative in the parameters of a combination of active constraints, (batch,)."""
    n, p, active = bound.size, bound.equalities, system.active
    nu, rows = combination[:, n : n + p], combination[:, n + p :]
    lam = active.scatter(rows, bound.inequalities)
    normal = _apply(system.equality.mT, nu) + _apply(system.inequality.mT, rows)
    zeta = torch.where(active.fixed, normal, 0.0)

    def combined(*floats: Tensor) -> Tensor:
        given = iter(floats)
        parameters = tuple(next(given) if q.is_floating_point() else q for q in bound.parameters)
        functions = bound.functions
        held = active.bound(functions.bound("lower", parameters), functions.bound("upper", parameters))
        total = (nu * functions.equality(z, parameters)).sum() + (lam * functions.inequality(z, parameters)).sum()
        return total - (zeta * held).sum()

    shared = (s for q, s in zip(bound.parameters, bound.layout.shared, strict=True) if q.is_floating_point())
    sizes = [
        _largest(g.reshape(1, -1)).expand(bound.batch) if s else _largest(g.reshape(bound.batch, -1))
        for g, s in zip(gradient(combined, *moving), shared, strict=True)
    ]
    return torch.stack(sizes).amax(0)


def refine(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    """Take Newton steps on the KKT conditions where they reduce the residual and stay near; return the last point.

    Solvers stop at 1e-6 or 1e-8; from there a step or two reach rounding, and the derivative is that of the exact
    solution. An instance whose KKT matrix is singular, or that would move far, is left where it is. What looked weakly
    active at the solver's accuracy is tried as inactive, too, and looked at again at the accuracy reached.
    """
    best = _newton(bound, point)
    if not bool((point.certificate.weakly_active > 0).any()):
        return best
    other = _newton(bound, measure(bound, *_state(point), accuracy=0.0))
    better = (point.certificate.weakly_active > 0) & (10.0 * _total(other) + CONVERGED < _total(best))
    return measure(bound, *_where(better, _state(other), _state(best)), accuracy=EXACT)


def _newton(bound: BoundProblem, point: KKTPoint) -> KKTPoint:
    for _ in range(ROUNDS):
        wanted = _refinable(point)
        if not bool(wanted.any()):
            return point
        moved = _where(wanted, [old + step for old, step in zip(_state(point), point.step, strict=True)], _state(point))
        trial = measure(bound, *moved, accuracy=EXACT)
        better = wanted & (_total(trial) < _total(point))
        if bool((better == wanted).all()):
            point = trial
        elif not bool(better.any()):
            return point
        else:
            return measure(bound, *_where(better, moved, _state(point)), accuracy=EXACT)
    return point


def _refinable(point: KKTPoint) -> Tensor:
    error = point.certificate.error
    return (error > CONVERGED) & (error < REACH)


def _state(point: KKTPoint) -> tuple[Tensor, Tensor, Tensor]:
    return point.z, point.nu, point.lam


def _where(mask: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    z, nu, lam = (torch.where(mask[:, None], a, b) for a, b in zip(new, old, strict=True))
    return z, nu, lam


def _total(point: KKTPoint) -> Tensor:
    return point.residual + torch.nan_to_num(point.certificate.error, nan=torch.inf, posinf=1e300)


def judge(point: KKTPoint, tolerance: float, claimed: Tensor) -> Tensor:
    """Return the status of every instance: ``SOLVED`` when its certificate holds, else the reason why not.

    Args:
        point: the point with its certificate.
        tolerance: what the scaled residuals must not exceed.
        claimed: what the solver said, (batch,); it explains a failure and never makes a success.
    """
    c = point.certificate
    status = torch.full_like(claimed, int(Status.SOLVED))
    near = c.error <= tolerance
    checks = (
        (
            (c.kind == PointKind.SADDLE) | (c.kind == PointKind.MAXIMUM),
            Status.NOT_A_MINIMUM,
        ),
        (
            ~(
                (c.stationarity <= tolerance)
                & (c.dual_feasibility <= tolerance)
                & (c.complementarity <= tolerance)
                & near
            ),
            Status.NOT_STATIONARY,
        ),
        (~(c.feasibility <= tolerance), Status.NOT_FEASIBLE),
    )
    for failed, why in checks:
        status = torch.where(failed, int(why), status)
    feasible = c.feasibility <= tolerance
    denied = feasible & ((claimed == Status.NOT_FEASIBLE) | (claimed == Status.INFEASIBLE))
    explained = (status != Status.SOLVED) & (status != Status.NOT_A_MINIMUM) & (claimed != Status.SOLVED) & ~denied
    status = torch.where(explained, claimed, status)
    broken = ~(point.z.isfinite().all(-1) & c.stationarity.isfinite() & c.feasibility.isfinite())
    return torch.where(broken & (claimed == Status.SOLVED), int(Status.NOT_FINITE), status)


def _force(bound: BoundProblem, z: Tensor, descent: Tensor, hessian: Tensor, extent: Tensor) -> Tensor:
    """Return the size of the forces of a problem, (batch, 1): what a gradient must be small against.

    The gradient of the objective at the point, and the rate at which it changes over a tenth of the extent, times the
    extent: at an unconstrained minimum the gradient vanishes. A finite step rather than the Hessian, which near the
    edge of the domain of a logarithm would make any force look small; only where the step leaves the domain it must
    serve. Multipliers do not count: huge ones that cancel would make any point look stationary.
    """
    index = torch.arange(1, bound.size + 1, dtype=z.dtype, device=z.device)
    near = torch.minimum(torch.maximum(z + STRIDE * extent * torch.sin(index), bound.lower), bound.upper)
    change = _largest(bound.gradient(near)[1] - descent) / STRIDE
    change = torch.where(change.isfinite(), change, _largest(hessian.flatten(1)) * extent[:, 0])
    return torch.maximum(_largest(descent), change)[:, None] + FLOOR


def _largest(*values: Tensor) -> Tensor:
    joined = torch.cat([v.abs() for v in values], dim=-1)
    return joined.amax(-1) if joined.shape[-1] else joined.sum(-1)


def _smallest(*values: Tensor) -> Tensor:
    joined = torch.cat(values, dim=-1)
    return joined.amin(-1) if joined.shape[-1] else torch.full_like(joined.sum(-1), torch.inf)


def _length(rows: Tensor) -> Tensor:
    """Return the length of each row, one for a row of zeros."""
    length = torch.linalg.vector_norm(rows, dim=-1)
    return torch.where(length > 0, length, 1.0)


def _finite(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def locally_infeasible(bound: BoundProblem, z: Tensor) -> Tensor:
    """Return where ``z`` is a stationary point of the squared constraint violation within the bounds, (batch,)."""
    h, A = bound.equality(z)
    g, G = bound.inequality(z)
    violation = torch.cat([h, g.clamp_min(0.0)], dim=-1)
    normals = torch.cat([A, G], dim=1)
    slope = _apply(normals.mT, violation)
    held = ((z <= bound.lower) & (slope > 0)) | ((z >= bound.upper) & (slope < 0))
    size = _largest(_length(normals) * violation)
    return (_largest(torch.where(held, 0.0, slope)) <= 1e-4 * size) & (size > 0)
