"""Multipliers for a warm start: those that come closest to making the start a stationary point."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from ._model import Array, Program

ACTIVE = 1e-4
"""Distance from a constraint or bound, relative to the point, within which it may exert a force."""


def estimated_forces(
    program: Program, point: Array, parameters: Array, bounds: tuple[Array, Array], equalities: int
) -> tuple[Array, Array]:
    """Return multipliers of bounds (n,) and constraints (m,) that minimise ``|∇f + J'λ + z|`` at a point.

    Those of inequalities and bounds that are not active there are zero, and so are those of the wrong sign.

    Args:
        program: the program.
        point: (n,).
        parameters: (n_p,).
        bounds: lower and upper, (n,) each.
        equalities: how many of the constraints are equalities; they come first.

    Reference: Wächter and Biegler, 2006, sec. 3.6 (equation 36 for the equalities).
    """
    slope, constraints, jacobian = program.linearization(point, parameters)
    slope, constraints = (np.array(part.full())[:, 0] for part in (slope, constraints))
    rows = sp.csc_matrix(jacobian.sparse())
    near = ACTIVE * (1.0 + np.abs(point).max(initial=0.0))
    low, high = (np.abs(point - bound) <= near for bound in bounds)
    acting = (np.arange(len(constraints)) < equalities) | (constraints >= -near)
    held = np.flatnonzero(low | high)
    unit = sp.csc_matrix((np.ones(len(held)), (held, np.arange(len(held)))), shape=(len(point), len(held)))
    system = sp.hstack([rows[acting].T, unit], format="csc")
    force, pull = np.zeros(len(constraints)), np.zeros(len(point))
    if system.shape[1]:
        found = scipy.sparse.linalg.lsmr(system, -slope, atol=1e-10, btol=1e-10)[0]
        force[acting], pull[held] = np.split(found, [int(acting.sum())])
    force[equalities:] = np.maximum(force[equalities:], 0.0)
    pull = np.where(low & ~high, np.minimum(pull, 0.0), np.where(high & ~low, np.maximum(pull, 0.0), pull))
    return pull, force
