"""From a solver's accuracy to rounding: semismooth Newton steps on the projection equations."""

from torch import Tensor

from ._certificate import Measured, Programs, measure
from ._programs import AnySystem

TIGHT = 1e-12
"""A point whose residual is below this is not refined."""
ROUNDS = 12
"""Factorisations, at most."""
CHORDS = 3
"""Steps with one factorisation, at most: from near the solution the second step, too, gains many digits."""
GAIN = 0.01
"""Residual over the one before at which a factorisation is good for another step."""
LENGTHS = (1.0, 0.5, 0.1)
"""Parts of a Newton step that are tried until one reduces the residual."""


def refine(programs: Programs, point: Measured) -> tuple[Measured, AnySystem | None]:
    """Improve points whose residual is not tight, by steps that each reduce it.

    Returns the points, and the KKT systems from shortly before if the last steps concerned all of them.

    With ``v = s - gamma z`` a solution is a root of ``P x + q + A'(Pi(v) - v) / gamma`` and ``A x + Pi(v) - b``.

    Reference: Qi and Sun, *A nonsmooth version of Newton's method*, 1993; Ali, Wong and Kolter, *A semismooth Newton
    method for fast, generic convex programming*, 2017.
    """
    system = None
    for _ in range(ROUNDS):
        open_ = ((point.worst > TIGHT) & point.worst.isfinite()).nonzero()[:, 0]
        if not len(open_):
            break
        whole = len(open_) == len(point.worst)
        part, here = (programs, point) if whole else (programs.select(open_), point.select(open_))
        there, last = _descended(part, here)
        system = last if whole else None
        point = there if whole else point.merged(open_, there)
        if not bool((there.worst < 0.5 * here.worst).any()):
            break
    return point, system


def _descended(programs: Programs, point: Measured) -> tuple[Measured, AnySystem]:
    """Take steps with one factorisation while they gain enough."""
    system = programs.matrices.system(point.faces(programs.cones), point.gamma, weak_active=True)
    for _ in range(CHORDS):
        before, point = point.worst, _stepped(programs, point, system)
        if bool((point.worst <= TIGHT).all()) or not bool((point.worst <= GAIN * before).any()):
            break
    return point, system


def _stepped(programs: Programs, point: Measured, system: AnySystem) -> Measured:
    """Take a Newton step, or a part of it, where that reduces the residual."""
    dx, dv = _newton(programs, point, system)
    best = point
    for length in LENGTHS:
        trial = measure(programs, point.x + length * dx, point.v + length * dv, point.gamma, point.s)
        best = best.better(trial, (best.worst == point.worst) & (trial.worst < point.worst))
        if bool((best.worst < point.worst).all()):
            break
    return best


def _newton(programs: Programs, point: Measured, system: AnySystem) -> tuple[Tensor, Tensor]:
    """Return the Newton step in x and in v."""
    steps = system.solve(-point.slope[..., None], -point.gap[..., None])
    dx, dz = steps.a[..., 0], steps.e[..., 0]
    ds = -point.gap - programs.matrices.A_times(dx)
    return dx, ds - point.gamma[:, None] * dz
