"""The conformance suite of solvers of cone programs: programs with known answers, one for each kind of cone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from .._solution import Status
from ..cones import AbstractConeSolver, ConeAnswer, ConeForm, ConePattern, Cones
from ..cones._pattern import Array

ACCURACY = 1e-4
"""What is asked of a solver before refinement, which does the rest."""


@dataclass(frozen=True, eq=False)
class KnownCones:
    """A cone program, a batch of one, with its solution and multipliers.

    Attributes:
        form: the program.
        value: (n,).
        multipliers: (m,).
    """

    form: ConeForm
    value: Array
    multipliers: Array


def form_of(P: Array, q: Array, A: Array, b: Array, cones: Cones) -> ConeForm:
    """Return the form of one dense program; zeros of P and A are no entries."""
    upper, rows = np.nonzero(np.triu(P)), np.nonzero(A)
    pattern = ConePattern(len(q), cones, *upper, *rows)
    return ConeForm(pattern, P[upper][None], q[None], A[rows][None], b[None], 1)


def _linear() -> KnownCones:
    # min -x1 - 2 x2  s.t.  x1 + x2 = 1,  x >= 0
    A = np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    cones = Cones(zero=1, nonnegative=2)
    form = form_of(np.zeros((2, 2)), np.array([-1.0, -2.0]), A, np.array([1.0, 0.0, 0.0]), cones)
    return KnownCones(form, np.array([0.0, 1.0]), np.array([2.0, 1.0, 0.0]))


def _quadratic() -> KnownCones:
    # min 1/2 |x - (2, -1)|^2  s.t.  x1 <= 1
    form = form_of(np.eye(2), np.array([-2.0, 1.0]), np.array([[1.0, 0.0]]), np.ones(1), Cones(nonnegative=1))
    return KnownCones(form, np.array([1.0, -1.0]), np.array([1.0]))


def _second_order() -> KnownCones:
    # min c'x  s.t.  |x| <= 1
    c = np.array([3.0, -4.0, 12.0])
    A = np.vstack([np.zeros(3), -np.eye(3)])
    form = form_of(np.zeros((3, 3)), c, A, np.array([1.0, 0.0, 0.0, 0.0]), Cones(second_order=(4,)))
    return KnownCones(form, -c / 13.0, np.array([13.0, *c]))


def _semidefinite() -> KnownCones:
    # min <C, X>  s.t.  tr X = 1, X psd; in svec coordinates, the lower triangle by columns
    k = 4
    C = np.array([[2.0, 1.0, 0.0, -0.5], [1.0, 3.0, 0.7, 0.2], [0.0, 0.7, 1.0, 0.4], [-0.5, 0.2, 0.4, 2.5]])
    values, vectors = np.linalg.eigh(C)
    identity = svec(np.eye(k))
    A = np.vstack([identity, -np.eye(len(identity))])
    b = np.concatenate([[1.0], np.zeros(len(identity))])
    form = form_of(np.zeros((len(identity),) * 2), svec(C), A, b, Cones(zero=1, semidefinite=(k,)))
    smallest = np.outer(vectors[:, 0], vectors[:, 0])
    return KnownCones(form, svec(smallest), np.concatenate([[-values[0]], svec(C - values[0] * np.eye(k))]))


def _exponential() -> KnownCones:
    # min z  s.t.  x = 1, y = 2,  y exp(x / y) <= z
    A = np.vstack([np.eye(2, 3), -np.eye(3)])
    form = form_of(np.zeros((3, 3)), np.array([0.0, 0.0, 1.0]), A, np.array([1.0, 2.0, 0, 0, 0]), _EXPONENTIAL)
    u, v = -np.exp(0.5), -np.exp(0.5) * 0.5
    return KnownCones(form, np.array([1.0, 2.0, 2.0 * np.exp(0.5)]), np.array([u, v, u, v, 1.0]))


def _power() -> KnownCones:
    # max z  s.t.  x = 2, y = 3,  x^0.3 y^0.7 >= |z|
    A = np.vstack([np.eye(2, 3), -np.eye(3)])
    cones = Cones(zero=2, power=(0.3,))
    form = form_of(np.zeros((3, 3)), np.array([0.0, 0.0, -1.0]), A, np.array([2.0, 3.0, 0, 0, 0]), cones)
    z = 2.0**0.3 * 3.0**0.7
    slopes = np.array([0.3 * z / 2.0, 0.7 * z / 3.0])
    return KnownCones(form, np.array([2.0, 3.0, z]), np.concatenate([slopes, slopes, [-1.0]]))


_EXPONENTIAL = Cones(zero=2, exponential=1)
_KNOWN: dict[str, Callable[[], KnownCones]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "second-order": _second_order,
    "semidefinite": _semidefinite,
    "exponential": _exponential,
    "power": _power,
}


def svec(matrix: Array) -> Array:
    """Return the lower triangle of a symmetric matrix by columns, entries off the diagonal times the root of two."""
    columns, rows = np.triu_indices(len(matrix))
    entries: Array = matrix[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    return entries


def box(low: list[float], high: list[float], costs: list[list[float]]) -> ConeForm:
    """Return ``min q'x  s.t.  low <= x1 <= high, x2 >= -1``, with the costs of x in every instance."""
    A = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    b = np.stack([-np.array(low), np.array(high), np.ones(len(low))], axis=1)
    rows = np.nonzero(A)
    none = np.zeros(0, dtype=np.int64)
    pattern = ConePattern(2, Cones(nonnegative=3), none, none, *rows)
    return ConeForm(pattern, np.zeros((1, 0)), np.array(costs), A[rows][None], b, len(low))


class ConeConformance:
    """The laws of solvers of cone programs. Subclass it and set ``solver``.

    A program that the solver refuses needs a reason; all that it does not refuse it must solve, with multipliers.
    """

    solver: ClassVar[AbstractConeSolver]

    def solved(self, form: ConeForm) -> ConeAnswer:
        """Return the answer, with the shapes that the contract names."""
        answer = self.solver.solve_cones(form)
        n, m = form.pattern.size, form.pattern.cones.rows
        assert np.shape(answer.value) == (form.batch, n)
        assert np.shape(answer.slack) == np.shape(answer.multipliers) == (form.batch, m)
        assert np.shape(answer.status) == np.shape(answer.iterations) == (form.batch,)
        assert len(answer.messages) == form.batch
        return answer

    @pytest.mark.parametrize("name", _KNOWN)
    def test_solutions_and_multipliers_are_the_known_ones(self, name: str) -> None:
        """Signs, scales and the orders of rows are those of the convention."""
        known = _KNOWN[name]()
        reason = self.solver.refuses(known.form)
        if reason is not None:
            assert reason.strip(), "a refusal says why"
            return
        answer = self.solved(known.form)
        assert answer.status.tolist() == [Status.SOLVED], answer.messages
        np.testing.assert_allclose(answer.value[0], known.value, atol=ACCURACY)
        np.testing.assert_allclose(answer.multipliers[0], known.multipliers, atol=10 * ACCURACY)
        _, _, A, b = known.form.instance(0)
        np.testing.assert_allclose(A @ answer.value[0] + answer.slack[0], b, atol=ACCURACY)

    def test_failed_instances_are_reported_and_harm_no_other(self) -> None:
        """Instances that are infeasible, unbounded or no numbers are not called solved, and the others are solved."""
        form = box([0.0, 2.0, 0.0, np.nan, 0.5], [1.0] * 5, [[1.0, 1.0], [1, 1], [1, -1], [1, 1], [1.0, 2.0]])
        answer = self.solved(form)
        status = answer.status.tolist()
        assert status[0] == status[4] == Status.SOLVED, answer.messages
        assert Status.SOLVED not in status[1:4], answer.messages
        np.testing.assert_allclose(answer.value[[0, 4]], [[0.0, -1.0], [0.5, -1.0]], atol=ACCURACY)

    def test_a_batch_has_the_answers_of_its_members(self) -> None:
        """Values shared by the batch are those of every instance."""
        form = box([0.0, 0.25, -1.0], [1.0, 2.0, 3.0], [[1.0, 1.0], [-1.0, 1.0], [1.0, 0.5]])
        together = self.solved(form)
        for i in range(form.batch):
            alone = self.solved(form.select(np.array([i])))
            np.testing.assert_allclose(together.value[i], alone.value[0], atol=ACCURACY)
            np.testing.assert_allclose(together.multipliers[i], alone.multipliers[0], atol=10 * ACCURACY)

    def test_inputs_are_left_as_they_were(self) -> None:
        """Neither values nor the pattern are written to, and no state is kept."""
        form = box([0.0, 0.5], [1.0, 2.0], [[1.0, 1.0], [-1.0, 1.0]])
        before = [part.copy() for part in (form.P, form.q, form.A, form.b)]
        first = self.solved(form)
        for part, kept in zip((form.P, form.q, form.A, form.b), before, strict=True):
            np.testing.assert_array_equal(part, kept)
        np.testing.assert_array_equal(self.solved(form).value, first.value)

    def test_an_answer_to_begin_from_does_not_change_the_solution(self) -> None:
        """Wherever it begins, broken answers included, the solver ends at the solution."""
        form = box([0.0], [1.0], [[1.0, 1.0]])
        first = self.solved(form)
        for start in (first, first._replace(value=np.full_like(first.value, np.nan))):
            answer = self.solver.solve_cones(form, start)
            assert answer.status.tolist() == [Status.SOLVED]
            np.testing.assert_allclose(answer.value, first.value, atol=ACCURACY)
