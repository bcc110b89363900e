"""A batch of cone programs for a back end: matrices with one pattern, threads, and the answers put together."""

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import argminlayer as al

Array = np.ndarray[Any, Any]
WORTHWHILE = 3e5
"""Below so many operations for a batch, handing work to threads costs more than it saves."""
_SILENCE = threading.Lock()


class Program(NamedTuple):
    """One cone program, its matrices by columns in SciPy's form, P its upper triangle."""

    P: Any
    q: Array
    A: Any
    b: Array


class Answer(NamedTuple):
    """What a back end says of one program; None where it has no such vector."""

    value: Any
    slack: Any
    multipliers: Any
    status: al.Status
    iterations: int = -1
    message: str = ""


@dataclass(frozen=True, eq=False)
class Programs:
    """The programs of a batch, one pattern for all.

    Attributes:
        form: the numbers.
        P: values of P by columns, (1 or batch, entries).
        A: values of A by columns.
        b: right-hand sides.
        places: indices and pointers of both.
    """

    form: al.ConeForm
    P: Array
    A: Array
    b: Array
    places: tuple[Any, Any]

    @classmethod
    def of(cls, form: al.ConeForm, pattern: al.ConePattern, order: Array | None) -> "Programs":
        """Arrange the values by columns in a pattern that has row i of the form at ``order[i]``, if that is given."""
        b = form.b
        if order is not None:
            b = np.empty_like(form.b)
            b[:, order] = form.b
        upper, below = pattern.P_columnwise, pattern.A_columnwise
        return cls(form, upper.values(form.P), below.values(form.A), b, (upper, below))

    def __getitem__(self, index: int) -> Program:
        """Return one program, with matrices of its own."""
        n, m = self.form.pattern.size, self.form.pattern.cones.rows
        P, A, b, q = (part[index if len(part) > 1 else 0] for part in (self.P, self.A, self.b, self.form.q))
        upper, rows = self.places
        return Program(
            sp.csc_matrix((P, upper.indices, upper.pointers), shape=(n, n)),
            q,
            sp.csc_matrix((A, rows.indices, rows.pointers), shape=(m, n)),
            b,
        )

    def finite(self, index: int) -> bool:
        """Return whether a program consists of numbers."""
        parts = (self.P, self.A, self.b, self.form.q)
        return all(np.isfinite(part[index if len(part) > 1 else 0]).all() for part in parts)


def solve_each(
    form: al.ConeForm,
    solve_one: Callable[[Program, int], Answer],
    threads: int | None,
    order_of: Callable[[al.Cones], Array | None] | None = None,
    warns: bool = False,
) -> al.ConeAnswer:
    """Solve every program by a function of one, in threads where that pays.

    Args:
        form: the programs.
        solve_one: gets a program and its position in the batch; its vectors of rows are in the same order as the rows
            that it gets. It is called from several threads at the same time.
        threads: how many at most, None for one per core.
        order_of: where the back end wants each row, None where it wants them as they are.
        warns: whether the back end issues warnings of Python. How it ended is in its status, too, so that they are
            silenced; filters of warnings belong to no thread, so that only one such batch is solved at a time.

    Raises:
        SolverError: the back end refuses its settings.
    """
    pattern, order = _arranged(form.pattern, order_of)
    programs = Programs.of(form, pattern, order)
    n, m = form.pattern.size, form.pattern.cones.rows
    value, slack, multipliers = (np.full((form.batch, width), np.nan) for width in (n, m, m))
    status, iterations = np.zeros(form.batch, dtype=np.int64), np.full(form.batch, -1, dtype=np.int64)
    words = [""] * form.batch

    def solve(start: int, stop: int) -> None:
        for i in range(start, stop):
            answer = _asked(programs, solve_one, i)
            for target, found, where in (
                (value, answer.value, slice(None)),
                (slack, answer.slack, slice(None) if order is None else order),
                (multipliers, answer.multipliers, slice(None) if order is None else order),
            ):
                if found is not None:
                    target[i] = np.asarray(found, dtype=np.float64)[where]
            status[i], iterations[i], words[i] = int(answer.status), answer.iterations, answer.message

    operations = float(n + m) * (programs.A.shape[-1] + programs.P.shape[-1] + n)
    with _silence() if warns else contextlib.nullcontext():
        _in_threads(solve, form.batch, threads, operations)
    return al.ConeAnswer(value, slack, multipliers, status, iterations, tuple(words))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.lru_cache(maxsize=64)
def _arranged(
    pattern: al.ConePattern, order_of: Callable[[al.Cones], Array | None] | None
) -> tuple[al.ConePattern, Array | None]:
    """Return the pattern with its rows in a back end's order, and that order; made once, for columns follow from it."""
    order = None if order_of is None else order_of(pattern.cones)
    if order is None:
        return pattern, None
    rows, places = order[pattern.A_rows], (pattern.P_rows, pattern.P_columns)
    return al.ConePattern(pattern.size, pattern.cones, *places, rows, pattern.A_columns), order


def _asked(programs: Programs, solve_one: Callable[[Program, int], Answer], index: int) -> Answer:
    if not programs.finite(index):
        return Answer(None, None, None, al.Status.NOT_FINITE, message="not asked: the program is not finite")
    try:
        return solve_one(programs[index], index)
    except (al.SolverError, TypeError) as error:
        raise al.SolverError(f"the back end refuses its settings: {error}") from error
    except Exception as error:  # noqa: BLE001 - back ends, some of them compiled, raise what they like
        return Answer(None, None, None, al.Status.BREAKDOWN, message=f"{type(error).__name__}: {error}")


def _in_threads(solve: Callable[[int, int], None], batch: int, threads: int | None, operations: float) -> None:
    count = 1 if batch * operations < WORTHWHILE else min(threads or os.cpu_count() or 1, batch)
    if count <= 1:
        solve(0, batch)
        return
    # several parts for each thread: how long programs take differs
    parts = min(batch, 4 * count)
    edges = [batch * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(solve, edges[:-1], edges[1:]))
