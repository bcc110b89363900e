"""Judging answers of quadratic programs: scaled KKT residuals and active rows, in NumPy and without derivatives."""

from typing import NamedTuple

import numpy as np

from ._qp_form import Array, QuadraticForm

EXACT = 1e-9
"""A scaled slack or multiplier below this is zero."""


class Residuals(NamedTuple):
    """What was measured at points with multipliers.

    Slacks are distances to a row over ``1 + |u|``. Pulls are the lengths of a row's force over the size of the forces
    of the problem: the larger of |q| and the largest diagonal entry of P times ``1 + |u|``.

    Attributes:
        stationarity: (batch,).
        feasibility: (batch,).
        complementarity: largest of ``min(slack, pull)``, the slack being that of the side to which the multiplier
            belongs, so that a multiplier of the wrong sign counts, (batch,).
        slack: to the nearer side of each row, negative outside, (batch, s).
        pull: signed as the multipliers, (batch, s).
        at_high: whether the higher side of a row is the nearer one, (batch, s).
        worst: the largest of the first three, (batch,); it compares false where something is not a number.
    """

    stationarity: Array
    feasibility: Array
    complementarity: Array
    slack: Array
    pull: Array
    at_high: Array
    worst: Array

    @property
    def active(self) -> Array:
        """Rows that hold with equality: without slack, or with a pull that exceeds it, (batch, s)."""
        found: Array = (self.slack <= EXACT) | (abs(self.pull) > self.slack)
        return found


_largest, _smallest = np.maximum.reduce, np.minimum.reduce


def row_values(form: QuadraticForm, u: Array) -> Array:
    """Return the values (u, A u, G u) of all rows, (batch, s)."""
    values: Array = np.matmul(form.rows, u[..., None])[..., 0]
    return np.concatenate([u, values], 1) if form.bounded else values


def slope(form: QuadraticForm, u: Array, y: Array) -> Array:
    """Return the gradient of the Lagrangian, (batch, n)."""
    total: Array = form.q + np.matmul(y[:, None, form.offset :], form.rows)[:, 0]
    if form.P is not None:
        total += np.matmul(form.P, u[..., None])[..., 0]
    if form.bounded:
        total += y[:, : form.offset]
    return total


def measure(form: QuadraticForm, u: Array, y: Array) -> Residuals:
    """Measure the KKT conditions at points u (batch, n) with multipliers y (batch, s)."""
    extent = 1.0 + _largest(abs(u), 1, keepdims=True, initial=0.0)
    force = np.maximum(_largest(abs(form.q), 1, keepdims=True, initial=0.0), form.largest * extent)
    if not force.all():
        force = np.where(force > 0.0, force, 1.0)
    values, sides = row_values(form, u), (form.low, form.high)
    return scaled(slope(form, u, y), values, sides, y, row_lengths(form), extent, force)


def scaled(
    slope: Array, values: Array, sides: tuple[Array, Array], y: Array, length: Array, extent: Array, force: Array
) -> Residuals:
    """Scale what is measured at a point.

    Args:
        slope: the gradient of the Lagrangian, (batch, n).
        values: of the rows, (batch, s).
        sides: low and high, (1 or batch, s) each.
        y: multipliers, (batch, s).
        length: of the rows, (1 or batch, s).
        extent: ``1 + |u|``, (batch, 1).
        force: the size of the forces of the problem, (batch, 1).
    """
    low, high = sides
    reach = length * extent
    above, below = (high - values) / reach, (values - low) / reach
    pull = y * (length / force)
    toward = np.where(pull > 0.0, above, below)
    slack = np.minimum(above, below)
    stationarity = _largest(abs(slope), 1, initial=0.0) / force[:, 0]
    feasibility = -_smallest(slack, 1, initial=0.0)
    complementarity = _largest(np.minimum(abs(pull), abs(toward)), 1, initial=0.0)
    worst = np.maximum(np.maximum(stationarity, feasibility), complementarity)
    return Residuals(stationarity, feasibility, complementarity, slack, pull, above <= below, worst)


def row_lengths(form: QuadraticForm) -> Array:
    """Return the lengths of the rows, one for rows of zeros, (1 or batch, s)."""
    length = np.sqrt(np.einsum("bij,bij->bi", form.rows, form.rows))
    if not length.all():
        length[length == 0.0] = 1.0
    return np.concatenate([np.ones((len(length), form.size)), length], 1) if form.bounded else length
