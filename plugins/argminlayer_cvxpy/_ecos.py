"""ECOS, called directly: second-order and exponential cones, quadratic objectives lifted to a cone."""

from typing import Any

import ecos
import numpy as np
import scipy.sparse as sp

import argminlayer as al

from ._batch import Answer, Array, Program, solve_each
from ._solvers import ECOS

_STATUS = {
    0: al.Status.SOLVED,
    1: al.Status.INFEASIBLE,
    2: al.Status.UNBOUNDED,
    10: al.Status.SOLVED,
    11: al.Status.INFEASIBLE,
    12: al.Status.UNBOUNDED,
    -1: al.Status.MAX_ITERATIONS,
}


def solve(solver: ECOS, form: al.ConeForm) -> al.ConeAnswer:
    """Solve every program of a batch."""
    cones, settings = form.pattern.cones, {"verbose": False, **solver.back_end_settings()}
    quadratic = form.P.shape[-1] > 0

    def solve_one(program: Program, index: int) -> Answer:
        del index
        n, zero = len(program.q), cones.zero
        lifted, sizes = _lifted(program, cones) if quadratic else (program, list(cones.second_order))
        equal, rest = lifted.A[:zero], lifted.A[zero:]
        dims = {"l": cones.nonnegative, "q": sizes, "e": cones.exponential}
        right = {"A": equal.tocsc(), "b": lifted.b[:zero]} if zero else {}
        if not rest.shape[0]:
            # ECOS needs an inequality: 0 x <= 1 is none
            rest, dims, lifted = sp.csc_matrix((1, rest.shape[1])), {"l": 1, "q": [], "e": 0}, _padded(lifted)
        found = ecos.solve(lifted.q, rest.tocsc(), lifted.b[zero:], dims, **right, **settings)
        return _read(found, n, cones)

    return solve_each(form, solve_one, solver.threads, _order, warns=True)


def _order(cones: al.Cones) -> Array | None:
    """Return where each row goes: ECOS has exponential cones as (x, z, y)."""
    if not cones.exponential:
        return None
    order = np.arange(cones.rows)
    for kind, first, _ in cones.blocks():
        if kind == "exponential":
            order[first : first + 3] = first + np.array([0, 2, 1])
    return order


def _lifted(program: Program, cones: al.Cones) -> tuple[Program, list[int]]:
    """Return the program with one more variable t >= 1/2 x'Px in place of the quadratic term.

    With P = L L' that is ``|(sqrt(2) L'x, 1 - t)| <= 1 + t``, a cone after the other second-order ones.
    """
    n = len(program.q)
    values, vectors = np.linalg.eigh((program.P + sp.triu(program.P, 1).T).toarray())
    kept = values > np.finfo(float).eps * n * max(values[-1], 0.0)
    root = vectors[:, kept] * np.sqrt(2.0 * values[kept])
    cone = np.zeros((2 + root.shape[1], n + 1))
    cone[0, n], cone[1, n], cone[2:, :n] = -1.0, 1.0, -root.T
    at = cones.zero + cones.nonnegative + sum(cones.second_order)
    wide = sp.hstack([program.A, sp.csc_matrix((program.A.shape[0], 1))], format="csc")
    A = sp.vstack([wide[:at], sp.csc_matrix(cone), wide[at:]], format="csc")
    ones = np.zeros(len(cone))
    ones[:2] = 1.0
    b = np.concatenate([program.b[:at], ones, program.b[at:]])
    return Program(None, np.append(program.q, 1.0), A, b), [*cones.second_order, len(cone)]


def _padded(program: Program) -> Program:
    return program._replace(b=np.append(program.b, 1.0))


def _read(found: dict[str, Any], n: int, cones: al.Cones) -> Answer:
    at = cones.nonnegative + sum(cones.second_order)
    tail = cones.rows - cones.zero - at
    s, z = (np.concatenate([v[:at], v[len(v) - tail :]]) for v in (found["s"], found["z"]))
    info = found["info"]
    status = _STATUS.get(info["exitFlag"], al.Status.BREAKDOWN)
    multipliers = np.concatenate([found["y"][: cones.zero], z])
    slack = np.concatenate([np.zeros(cones.zero), s])
    return Answer(found["x"][:n], slack, multipliers, status, info["iter"], info["infostring"])
