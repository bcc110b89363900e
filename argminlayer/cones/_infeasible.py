"""Proofs that a cone program has no solution: a Farkas vector, or a direction in which it falls without limit.

What a back end offers is verified, and where it offers nothing that holds, it is asked for the projections

    infeasible:  minimise 1/2 |r|^2  s.t.  A x - r + s = b,  s in K,       whose multipliers y = r obey
                 A'y = 0,  y in K*,  b'y = -|r|^2;
    unbounded:   minimise 1/2 |d|^2 + q'd  s.t.  P d = 0,  A d + s = 0,  s in K,   with q'd = -|d|^2.

Both programs always have a solution, and prove nothing where it is zero.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ._certificate import Programs, largest
from ._faces import project
from ._form import ConeForm
from ._pattern import Array, ConePattern

Ask = Callable[[ConeForm], tuple[Tensor, Tensor]]
PROOF = 1e-7
"""How far a certificate may miss its linear conditions, over its gain."""


def proves_infeasible(form: ConeForm, programs: Programs, offered: Array, ask: Ask) -> Array:
    """Return which instances have no feasible point, (batch,).

    Args:
        form: the programs that were not solved.
        programs: the same as tensors.
        offered: multipliers (batch, m), which may be Farkas vectors.
        ask: solves other programs; returns x and z.
    """
    proved = _is_farkas(programs, torch.from_numpy(offered))
    left = np.flatnonzero(~proved)
    if len(left) and form.pattern.cones.rows:
        _, y = ask(_farkas_form(form.select(left)))
        proved[left] = _is_farkas(programs.select(torch.from_numpy(left)), y)
    return proved


def proves_unbounded(form: ConeForm, programs: Programs, offered: Array, ask: Ask) -> Array:
    """Return which instances fall without limit along a direction that meets no constraint, (batch,)."""
    proved = _is_descent(programs, torch.from_numpy(offered))
    left = np.flatnonzero(~proved)
    if len(left):
        d, _ = ask(_descent_form(form.select(left)))
        proved[left] = _is_descent(programs.select(torch.from_numpy(left)), d)
    return proved


def _is_farkas(programs: Programs, y: Tensor) -> Array:
    """Say where ``A'y = 0``, y in K* and ``b'y < 0``: no x has ``b - A x`` in K."""
    fine = y.isfinite().all(1)
    y = torch.where(fine[:, None], y, 0.0)
    size = largest(y)[:, None]
    y = y / torch.where(size > 0, size, 1.0)
    y = y + project(programs.cones, -y)
    terms = programs.b * y
    gain = -terms.sum(1)
    pulled = largest(programs.matrices.A_pulled(y))
    found: Array = (fine & (gain > PROOF * terms.abs().sum(1)) & (pulled <= PROOF * gain)).numpy()
    return found


def _is_descent(programs: Programs, d: Tensor) -> Array:
    """Say where ``q'd < 0`` along a direction with ``P d = 0`` and ``-A d`` in K."""
    fine = d.isfinite().all(1)
    d = torch.where(fine[:, None], d, 0.0)
    size = largest(d)[:, None]
    d = d / torch.where(size > 0, size, 1.0)
    terms = programs.q * d
    moved = -programs.matrices.A_times(d)
    against = largest((moved - project(programs.cones, moved)) / programs.lengths)
    curved = largest(programs.matrices.P_times(d)) / torch.where(programs.largest > 0, programs.largest, 1.0)
    gain = -terms.sum(1)
    found: Array = (fine & (gain > PROOF * terms.abs().sum(1)) & (torch.maximum(against, curved) <= PROOF)).numpy()
    return found


def _farkas_form(form: ConeForm) -> ConeForm:
    pattern = form.pattern
    n, m = pattern.size, pattern.cones.rows
    residual = np.arange(n, n + m)
    wider = ConePattern(
        n + m,
        pattern.cones,
        residual,
        residual,
        np.concatenate([pattern.A_rows, np.arange(m)]),
        np.concatenate([pattern.A_columns, residual]),
    )
    A = np.concatenate([form.A, np.full((len(form.A), m), -1.0)], 1)
    scale = abs(form.b).max(1, keepdims=True, initial=0.0)
    b = form.b / np.where(scale > 0, scale, 1.0)
    return ConeForm(wider, np.ones((1, m)), np.zeros((1, n + m)), A, b, form.batch)


def _descent_form(form: ConeForm) -> ConeForm:
    scale = abs(form.q).max(1, keepdims=True, initial=0.0)
    none = np.zeros((1, form.pattern.size))
    return _recession_form(form, form.q / np.where(scale > 0, scale, 1.0), none[:, :0])


def level_form(form: ConeForm, d: Array) -> ConeForm:
    """Return the programs of the nearest directions to d (batch, n) with ``P d = 0``, ``q'd = 0``, ``-A d`` in K."""
    scale = abs(form.q).max(1, keepdims=True, initial=0.0)
    return _recession_form(form, -d, form.q / np.where(scale > 0, scale, 1.0))


def _recession_form(form: ConeForm, linear: Array, level: Array) -> ConeForm:
    """Return ``min 1/2 |d|^2 + linear'd`` over ``P d = 0``, ``-A d`` in K and, unless it is empty, ``level'd = 0``."""
    pattern, cones = form.pattern, form.pattern.cones
    n, diagonal = pattern.size, np.arange(pattern.size)
    off = pattern.P_rows != pattern.P_columns
    # rows without entries are none: a back end may crash on them
    used, place = np.unique(np.concatenate([pattern.P_rows, pattern.P_columns[off]]), return_inverse=True)
    columns = diagonal[: level.shape[1]]
    more = len(used) + bool(len(columns))
    wider = ConePattern(
        n,
        replace(cones, zero=cones.zero + more),
        diagonal,
        diagonal,
        np.concatenate([place, 0 * columns + len(used), pattern.A_rows + more]),
        np.concatenate([pattern.P_columns, pattern.P_rows[off], columns, pattern.A_columns]),
    )
    parts = (form.P, form.P[:, off], level, form.A)
    length = max(map(len, parts))
    A = np.concatenate([np.broadcast_to(part, (length, part.shape[1])) for part in parts], 1)
    return ConeForm(wider, np.ones((1, n)), linear, A, np.zeros((1, more + cones.rows)), form.batch)
