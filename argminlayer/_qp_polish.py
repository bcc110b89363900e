"""From a solver's accuracy to rounding: steps on the KKT conditions of an active set that corrects itself."""

import numpy as np

from ._qp_certificate import Residuals, measure, row_values, slope
from ._qp_form import Array, QuadraticForm
from ._qp_kkt import solve_form

TIGHT = 1e-13
"""A point whose residual is below this is not polished."""
ROUNDS = 8
"""Steps of a polish, at most."""


def polish(form: QuadraticForm, u: Array, y: Array, found: Residuals) -> tuple[Array, Array, Residuals]:
    """Improve points with multipliers where their residual is not tight; return the best points and their residuals.

    A step solves the KKT system of the rows taken for active; rows whose multiplier then has the wrong sign leave, rows
    that are then violated enter: the primal-dual active-set method, which from near the solution takes a step or two.

    Reference: Hintermueller, Ito and Kunisch, *The primal-dual active set strategy as a semismooth Newton method*,
    2003.
    """
    worst = found.worst
    if (worst <= TIGHT).all():
        return u, y, found
    loose = np.flatnonzero((worst > TIGHT) & np.isfinite(worst))
    if len(loose) == 0:
        return u, y, found
    part = form.select(loose)
    v, w, residuals = u[loose], y[loose], measure(part, u[loose], y[loose])
    best_v, best_w, best = v, w, residuals.worst
    equal = part.low == part.high
    high, low = _wanted(residuals, v, np.broadcast_to(equal, w.shape))
    for _ in range(ROUNDS):
        v, w = _step(part, v, w, high, low)
        residuals = measure(part, v, w)
        better = residuals.worst < best
        best_v, best_w = np.where(better[:, None], v, best_v), np.where(better[:, None], w, best_w)
        best = np.where(better, residuals.worst, best)
        before = high, low
        high, low = _corrected(residuals, np.broadcast_to(equal, w.shape), high, low)
        if bool((best <= TIGHT).all()) or (not better.any() and all(map(np.array_equal, before, (high, low)))):
            break
    u, y = u.copy(), y.copy()
    u[loose], y[loose] = best_v, best_w
    return u, y, measure(form, u, y)


def _wanted(residuals: Residuals, u: Array, equal: Array) -> tuple[Array, Array]:
    active = residuals.active & np.isfinite(residuals.slack) & np.isfinite(u).all(-1, keepdims=True)
    pulled = np.abs(residuals.pull) > np.abs(residuals.slack)
    high = active & ~equal & np.where(pulled, residuals.pull > 0, residuals.at_high)
    return high | equal, active & ~equal & ~high


def _corrected(residuals: Residuals, equal: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Return the rows to take for active next, at their high and at their low sides."""
    outside = residuals.slack < 0
    pull = residuals.pull
    stays_high = (high & (pull > 0)) | (outside & residuals.at_high & ~high)
    stays_low = (low & (pull < 0)) | (outside & ~residuals.at_high & ~low)
    return stays_high | equal, stays_low & ~equal & ~stays_high


def _step(form: QuadraticForm, u: Array, y: Array, high: Array, low: Array) -> tuple[Array, Array]:
    mask = high | low
    y = np.where(mask, y, 0.0)
    side = np.where(high, form.high, np.where(low, form.low, 0.0))
    top = np.nan_to_num(-slope(form, u, y))
    gap = np.nan_to_num(np.where(mask, side - row_values(form, u), 0.0))
    steps = solve_form(form, mask, top, gap)
    return u + steps.d, y + steps.e
