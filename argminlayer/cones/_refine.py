"""From a solver's accuracy to rounding: semismooth Newton steps on the projection equations."""

from torch import Tensor

from ._certificate import Measured, Programs, measure
from ._faces import faces
from ._system import System

TIGHT = 1e-12
"""A point whose residual is below this is not refined."""
ROUNDS = 12
"""Newton steps, at most."""
LENGTHS = (1.0, 0.5, 0.1)
"""Parts of a Newton step that are tried until one reduces the residual."""


def refine(programs: Programs, point: Measured) -> Measured:
    """Improve points whose residual is not tight, by steps that each reduce it.

    With ``v = s - gamma z`` a solution is a root of ``P x + q + A'(Pi(v) - v) / gamma`` and ``A x + Pi(v) - b``.

    Reference: Qi and Sun, *A nonsmooth version of Newton's method*, 1993; Ali, Wong and Kolter, *A semismooth Newton
    method for fast, generic convex programming*, 2017.
    """
    for _ in range(ROUNDS):
        open_ = ((point.worst > TIGHT) & point.worst.isfinite()).nonzero()[:, 0]
        if not len(open_):
            break
        whole = len(open_) == len(point.worst)
        part, here = (programs, point) if whole else (programs.select(open_), point.select(open_))
        there = _stepped(part, here)
        improved = there.worst < here.worst
        point = there if whole else point.merged(open_, there)
        if not bool((improved & (there.worst < 0.5 * here.worst)).any()):
            break
    return point


def _stepped(programs: Programs, point: Measured) -> Measured:
    """Take a Newton step, or a part of it, where that reduces the residual."""
    dx, dv = newton(programs, point)
    best = point
    for length in LENGTHS:
        trial = measure(programs, point.x + length * dx, point.v + length * dv, point.gamma, point.s)
        best = best.better(trial, (best.worst == point.worst) & (trial.worst < point.worst))
        if bool((best.worst < point.worst).all()):
            break
    return best


def newton(programs: Programs, point: Measured) -> tuple[Tensor, Tensor]:
    """Return the Newton step in x and in v."""
    at = faces(programs.cones, point.v, point.near, point.s)
    system = System.of(programs.matrices, at, point.gamma, weak_active=True)
    steps = system.solve(-point.slope[..., None], -point.gap[..., None])
    dx, dz = steps.a[..., 0], steps.e[..., 0]
    ds = -point.gap - programs.matrices.A_times(dx)
    return dx, ds - point.gamma[:, None] * dz
