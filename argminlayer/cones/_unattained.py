"""Infima that are approached and not attained, such as those of ``-log x``, ``e^x`` and ``1/x``: points run away.

The residuals of such points are as small as one likes: the derivative of ``-log x`` is 1e-13 at ``x = 1e13``. But then
there are directions d along which feasible points stay feasible and the objective stays as it is,

    P d = 0,   q'd = 0,   -A d in K,

and at a solution the Lagrangian is as it is along them, too, ``z'A d = 0``: the slack moves on the face that z exposes
and not across the curvature of its cone. Where there is such a direction that moves a slack across, or along which the
Lagrangian falls, over the length of x, by no small part of the objective, other points are better, and farther away.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .._qp_search import SOLVED
from .._solution import Status
from ._certificate import Measured, Programs, largest
from ._faces import Faces, project
from ._form import ConeForm
from ._infeasible import Ask, level_form
from ._pattern import Array
from ._programs import AnySystem

FAR = 1e-3
"""A Newton step from a refined point that is longer than this, over ``1 + |x|``, makes it suspect of running away."""
FALL = 3e-3
"""Part of the objective that is no error any more."""
ROUNDED = 2e-13
"""What the objective is taken for at least, over the size of its forces and ``1 + |x|``."""
ACROSS = 1e-3
"""A direction moves a slack across if it does so by this part of its length and of the longest row of the cone."""
LEFT = 0.1
"""Part of a suspected direction that its projection onto the directions above must keep."""
LEVEL = 1e-10
"""How far a direction may miss the conditions above; smaller forces than this are taken for none."""


def settled(form: ConeForm, programs: Programs, point: Measured, system: AnySystem, ask: Ask) -> tuple[Array, Measured]:
    """Return the status (batch,) of refined points whose residuals are small, and the points with what is worse.

    ``UNBOUNDED`` where the infimum is not attained, ``NOT_STATIONARY`` where better points are far away.

    Args:
        form: the programs.
        programs: the same as tensors.
        point: the points.
        system: the KKT systems there, or where the last steps to them were taken.
        ask: solves other programs; returns x and z.
    """
    status, worst = torch.zeros(form.batch, dtype=torch.int64), point.worst.clone()
    near = point.worst <= SOLVED
    amiss = near & _amiss(programs, point)
    step = system.solve(-point.slope[..., None], -point.gap[..., None]).a[..., 0]
    length = largest(step) / (1.0 + largest(point.x))
    far = near & (length > FAR)
    if bool(far.any()):
        far &= amiss | _falls(programs, point, step)
        status[far], worst[far] = int(Status.NOT_STATIONARY), length[far]
    for some, direction in ((far, step), _downhill(programs, point, system, near), (amiss, point.x)):
        index = (some & (status != Status.UNBOUNDED)).nonzero()[:, 0]
        if len(index):
            part, here, d = programs.select(index), point.select(index), _sized(direction[index])
            nearest, _ = ask(level_form(form.select(index.numpy()), d.numpy()))
            better = _falls(part, here, nearest) | _crosses(part, here.faces(part.cones), nearest) | _amiss(part, here)
            proved = index[better & (largest(nearest) >= LEFT) & _is_level(part, nearest)]
            status[proved], worst[proved] = int(Status.UNBOUNDED), torch.inf
    return status.numpy(), replace(point, worst=worst)


def _downhill(programs: Programs, point: Measured, system: AnySystem, near: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what double precision takes for freedom leads to better points, (batch,), and how, (batch, n)."""
    free = near & (system.freedom > 0)
    if not bool(free.any()):
        return free, point.x
    null, _ = system.null
    down = -(null @ (null.mT @ _sized(point.slope)[..., None]))[..., 0]
    return free & (_falls(programs, point, down) | _crosses(programs, system.faces, down)), down


def _amiss(programs: Programs, point: Measured) -> Tensor:
    """Say where slopes and gaps that are small beside x are not beside the objective, (batch,)."""
    error = (point.z * point.gap).sum(1).abs() + (point.slope * point.x).sum(1).abs()
    return error > FALL * _worth(programs, point)


def _falls(programs: Programs, point: Measured, d: Tensor) -> Tensor:
    """Say where the Lagrangian falls along directions (batch, n), over the length of x, (batch,)."""
    return -largest(point.x) * (point.slope * _sized(d)).sum(1) > FALL * _worth(programs, point)


def _worth(programs: Programs, point: Measured) -> Tensor:
    """Return the size of the objective, (batch,)."""
    Px = programs.matrices.P_times(point.x)
    terms = ((Px * point.x).sum(1), (programs.q * point.x).sum(1), (programs.b * point.z).sum(1))
    return torch.stack(terms).abs().sum(0) + ROUNDED * programs.force(Px) * (1.0 + largest(point.x))


def _crosses(programs: Programs, faces: Faces, d: Tensor) -> Tensor:
    """Say where directions (batch, n) move a slack across the curvature of its cone, (batch,)."""
    turned = faces.rotate(programs.matrices.A_times(_sized(d))[..., None])[..., 0] / programs.lengths
    return largest(torch.where((faces.kept > 0) & (faces.lost > 0), turned, 0.0)) > ACROSS


def _is_level(programs: Programs, d: Tensor) -> Tensor:
    """Say where ``P d = 0``, ``q'd = 0`` and ``-A d`` in K, (batch,)."""
    d = _sized(d)
    moved = -programs.matrices.A_times(d)
    against = largest((moved - project(programs.cones, moved)) / programs.lengths)
    curved = largest(programs.matrices.P_times(d)) / torch.where(programs.largest > 0, programs.largest, 1.0)
    uphill = (_sized(programs.q) * d).sum(1).abs()
    return torch.stack(torch.broadcast_tensors(against, curved, uphill)).amax(0) <= LEVEL


def _sized(d: Tensor) -> Tensor:
    """Return vectors (batch, n) with largest entries of size one, or zeros."""
    size = largest(d)[:, None]
    return d / torch.where(size > 0, size, 1.0)
