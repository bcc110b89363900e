"""What is said of quadratic programs that failed: the solution as far as it goes, and sentences on bad numbers."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ._qp_certificate import EXACT
from ._qp_form import Array, QuadraticForm
from ._qp_search import QuadraticFound
from ._solution import Certificate, Multipliers, PointKind, Solution


class Programs(Protocol):
    """What is asked of the programs of a batch, dense or sparse, to speak of their solutions."""

    @property
    def offset(self) -> int:
        """Number of rows that belong to bounds: n or 0."""

    @property
    def equalities(self) -> int:
        """Number of equalities."""

    @property
    def low(self) -> Array:
        """Lower sides of the rows, (1 or batch, s)."""

    @property
    def high(self) -> Array:
        """Upper sides of the rows, (1 or batch, s)."""

    def objective(self, u: Array) -> Array:
        """Return the objectives (batch,) at points (batch, n)."""


def solution_of(programs: Programs, found: QuadraticFound, shape: torch.Size) -> Solution:
    """Return everything that was found, detached, with NaN for the instances that failed."""
    solved = torch.from_numpy(found.status == 0)[:, None]
    value, y = torch.from_numpy(found.value), torch.from_numpy(found.multipliers)
    known, forces = torch.where(solved, value, torch.nan), torch.where(solved, y, torch.nan)
    first = programs.offset + programs.equalities
    bounds, nu, lam = forces.split([programs.offset, programs.equalities, y.shape[1] - first], 1)
    bounds = bounds if programs.offset else torch.zeros_like(value)

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(shape + flat.shape[1:])

    return Solution(
        value=shaped(known),
        multipliers=Multipliers(
            shaped(nu), shaped(lam), shaped((-bounds).clamp_min(0.0)), shaped(bounds.clamp_min(0.0))
        ),
        status=shaped(torch.from_numpy(found.status.astype(np.int64))),
        objective=shaped(torch.from_numpy(programs.objective(known.numpy()))),
        certificate=_certificate(programs.low == programs.high, found).reshape(shape),
        iterate=shaped(value),
        iterations=shaped(torch.from_numpy(found.iterations.astype(np.int64))),
        solver=found.solver,
        messages=found.messages,
        seconds=found.seconds,
    )


def _certificate(equal: Array, found: QuadraticFound) -> Certificate:
    residuals, batch = found.residuals, len(found.status)
    pull = np.abs(residuals.pull)
    margin = np.where(equal, np.inf, np.maximum(residuals.slack, pull)).min(-1, initial=np.inf)
    zero = np.zeros(batch, dtype=np.int64)
    fields = {
        "stationarity": residuals.stationarity,
        "feasibility": residuals.feasibility,
        "complementarity": residuals.complementarity,
        "dual_feasibility": np.zeros(batch),
        "error": residuals.worst,
        "margin": margin,
        "active": (residuals.active & ~equal).sum(-1),
        "weakly_active": (~equal & (np.maximum(np.abs(residuals.slack), pull) < EXACT)).sum(-1),
        "kind": zero + int(PointKind.MINIMUM),
        "redundant": zero,
        "freedom": zero,
        "consistent": zero == 0,
        "regular": zero == 0,
        "smooth": zero == 0,
        "regularised": np.zeros(batch),
        "gap": np.full(batch, np.inf),
    }
    return Certificate(**{name: torch.from_numpy(np.ascontiguousarray(field)) for name, field in fields.items()})


def not_finite_message(form: QuadraticForm, shape: torch.Size) -> str:
    """Return a sentence on the first number that is not finite, where it is and what to do."""
    n, p = form.size, form.equalities
    bad_low = np.isnan(form.low) | (form.low == np.inf)
    bad_high = np.isnan(form.high) | (form.high == -np.inf)
    o = form.offset
    suspects = [
        ("P", form.P, None if form.P is None else ~np.isfinite(form.P)),
        ("q", form.q, ~np.isfinite(form.q)),
        ("A", form.rows[:, :p], ~np.isfinite(form.rows[:, :p])),
        ("G", form.rows[:, p:], ~np.isfinite(form.rows[:, p:])),
        ("lower", form.low[:, :o], bad_low[:, :o]),
        ("upper", form.high[:, :o], bad_high[:, :o]),
        ("b", form.low[:, o : o + p], bad_low[:, o : o + p]),
        ("h", form.high[:, o + p :], bad_high[:, o + p :]),
    ]
    for name, values, bad in suspects:
        if values is None or bad is None or not bad.any():
            continue
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = ""
        if len(values) > 1:
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(first[0]), shape))
            where = f" at batch index {index},"
        return (
            f"block {name!r} is not finite: {values[first]}{where} entry {first[1:]}; clean the inputs, or pass "
            "`throw=False` to lose only the instances concerned"
        )
    raise AssertionError(f"all {n} variables and their rows are finite")
