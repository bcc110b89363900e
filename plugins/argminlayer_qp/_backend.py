"""Translation to qpsolvers and back, one instance at a time."""

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import qpsolvers
import scipy.sparse as sp
from numpy.typing import NDArray

import argminlayer as al

from ._solvers import AbstractQP

Array = NDArray[np.float64]

_SILENCE = threading.Lock()
_BROKEN = (qpsolvers.exceptions.QPError, ValueError, ArithmeticError, RuntimeError)
"""What back ends raise for programs that they cannot solve."""


def solve_through_qpsolvers(solver: AbstractQP, form: al.QuadraticForm) -> al.QuadraticAnswer:
    """Solve every program of a batch, one after another."""
    value, multipliers = np.full((form.batch, form.size), np.nan), np.zeros((form.batch, form.height))
    status, iterations = np.zeros(form.batch, dtype=np.int64), np.full(form.batch, -1, dtype=np.int64)
    words = []
    with _SILENCE, warnings.catch_warnings():
        # how a back end ended is in its status, too; filters of warnings belong to no thread, hence the lock
        warnings.simplefilter("ignore")
        for i in range(form.batch):
            x, y, code, said = _solve_one(solver, Instance(form, i))
            value[i], multipliers[i], status[i] = x, y, int(code)
            words.append(said)
    return al.QuadraticAnswer(value, multipliers, status, iterations, tuple(words))


def solve_sparse_program(solver: AbstractQP, program: al.SparseProgram) -> al.SparseAnswer:
    """Solve one program with SciPy's sparse matrices."""
    o, p = program.offset, program.offset + program.equalities
    kept = np.flatnonzero(np.isfinite(program.high[p:]))
    G, h = sp.csc_matrix(program.rows[program.equalities :][kept]), program.high[p:][kept]
    problem = qpsolvers.Problem(
        sp.csc_matrix(program.P),
        program.q,
        G if len(kept) else None,
        h if len(kept) else None,
        sp.csc_matrix(program.rows[: program.equalities]) if program.equalities else None,
        program.high[o:p] if program.equalities else None,
        program.low[:o] if o else None,
        program.high[:o] if o else None,
    )
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            solution = qpsolvers.solve_problem(problem, solver=solver.backend, **solver.settings())
        except _BROKEN as error:
            n, s = program.size, len(program.low)
            return al.SparseAnswer(np.full(n, np.nan), np.zeros(s), al.Status.BREAKDOWN, f"{error}")
    y = _placed(len(program.low), _proof_or_duals(solution), (o, p, kept))
    x = np.full(program.size, np.nan) if solution.x is None else np.asarray(solution.x, dtype=float)
    said = " ".join(_words(solution.extras))
    return al.SparseAnswer(x, y, al.Status.SOLVED if solution.found else _status(said), said)


def _placed(count: int, parts: tuple[Any, Any, Any], places: tuple[int, int, Any]) -> Array:
    """Return the multipliers of all rows from those of qpsolvers, (y, z, z_box)."""
    found, (o, p, kept) = np.zeros(count), places
    for part, target in zip(parts, (np.arange(o, p), p + kept, np.arange(o)), strict=True):
        if part is not None and len(target) and np.size(part) == len(target):
            found[target] = np.asarray(part, dtype=np.float64).reshape(-1)
    return np.nan_to_num(found)


class Instance:
    """One program as qpsolvers states it; rows without a finite side are left out.

    Attributes:
        form: the batch.
        index: which instance.
        equal: rows of A.
        kept: rows of G with a finite right-hand side.
    """

    def __init__(self, form: al.QuadraticForm, index: int):
        self.form, self.index = form, index
        self.low, self.high = _at(form.low, index), _at(form.high, index)
        self.rows = _at(form.rows, index)
        self.first = form.offset + form.equalities
        self.kept = np.flatnonzero(np.isfinite(self.high[self.first :]))

    def problem(self, sparse: bool) -> qpsolvers.Problem:
        """Return the program, its matrices sparse or dense."""
        form, p, o = self.form, self.form.equalities, self.form.offset
        make = sp.csc_matrix if sparse else np.asarray
        P = np.zeros((form.size, form.size)) if form.P is None else _at(form.P, self.index)
        G = self.rows[p:][self.kept]
        h = self.high[self.first :][self.kept]
        if sparse and not (p or o or len(h)):
            # without any row qpsolvers hands some programs to a least-squares routine of low accuracy
            G, h = np.zeros((1, form.size)), np.ones(1)
        return qpsolvers.Problem(
            make(P),
            _at(form.q, self.index),
            make(G) if len(h) else None,
            h if len(h) else None,
            make(self.rows[:p]) if p else None,
            self.high[o : o + p] if p else None,
            self.low[:o] if o else None,
            self.high[:o] if o else None,
        )

    def finite(self) -> bool:
        """Return whether the matrices and the objective consist of numbers."""
        P = None if self.form.P is None else _at(self.form.P, self.index)
        arrays = (P, _at(self.form.q, self.index), self.rows)
        return all(np.isfinite(array).all() for array in arrays if array is not None)


def _solve_one(solver: AbstractQP, instance: Instance) -> tuple[Array, Array, al.Status, str]:
    n, s = instance.form.size, instance.form.height
    if not instance.finite():
        return np.full(n, np.nan), np.zeros(s), al.Status.NOT_FINITE, "not asked: the program is not finite"
    if np.any(instance.low > instance.high):
        return np.full(n, np.nan), np.zeros(s), al.Status.INFEASIBLE, "not asked: a lower bound exceeds its upper bound"
    problem = instance.problem(solver.sparse_only)
    try:
        solution = qpsolvers.solve_problem(problem, solver=solver.backend, **solver.settings())
    except _BROKEN as error:
        return np.full(n, np.nan), np.zeros(s), al.Status.BREAKDOWN, f"{type(error).__name__}: {error}"
    x = np.full(n, np.nan) if solution.x is None or np.size(solution.x) != n else np.asarray(solution.x, dtype=float)
    y = _placed(s, _proof_or_duals(solution), (instance.form.offset, instance.first, instance.kept))
    said = " ".join(_words(solution.extras))
    return x, y, al.Status.SOLVED if solution.found else _status(said), said


def _proof_or_duals(solution: qpsolvers.Solution) -> tuple[Any, Any, Any]:
    """Return (y, z, z_box): a certificate of infeasibility where the back end keeps one apart, else multipliers."""
    proof = solution.extras.get("prim_inf_cert")
    if solution.found or proof is None or not np.all(np.isfinite(np.asarray(proof, dtype=float))):
        return solution.y, solution.z, solution.z_box
    problem = solution.problem
    m = 0 if problem.G is None else problem.G.shape[0]
    p = 0 if problem.A is None else problem.A.shape[0]
    return proof[m : m + p], proof[:m], proof[m + p :]


def _words(extras: dict[str, Any]) -> Iterator[str]:
    for name in ("status", "info"):
        found = extras.get(name)
        if isinstance(found, dict):
            found = found.get("status")
        yield str(getattr(found, "status", found) or "")


def _status(said: str) -> al.Status:
    """Return what a back end says of its failure; it explains, and is never taken for a proof."""
    low = said.lower().replace("_", " ")
    for word, status in (
        ("dual inf", al.Status.UNBOUNDED),
        ("dualinf", al.Status.UNBOUNDED),
        ("unbounded", al.Status.UNBOUNDED),
        ("infeasible", al.Status.INFEASIBLE),
        ("time", al.Status.TIME_LIMIT),
        ("iter", al.Status.MAX_ITERATIONS),
    ):
        if word in low:
            return status
    return al.Status.BREAKDOWN


def _at(array: Any, index: int) -> Any:
    return array[index if len(array) > 1 else 0]
