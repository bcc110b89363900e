"""What a solver of quadratic programs is: NumPy arrays of a batch in, points and multipliers out."""

import abc
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._bound import BoundProblem
from ._qp_extract import form_of, is_declared, not_quadratic
from ._qp_form import Array, QuadraticForm, within_bounds
from ._qp_sparse_program import SparseAnswer, SparseProgram
from ._quadratic import QUADRATIC
from ._solution import Status
from ._solver import AbstractSolver, Candidate, Capabilities, refusal

EASY = 5.0
"""Preference for problems without constraints that were not declared quadratic."""


class QuadraticAnswer(NamedTuple):
    """What a solver of quadratic programs returns; the certificate then judges it.

    Attributes:
        value: (batch, n).
        multipliers: of the rows of the form, in its sign, (batch, s). Where an instance is said to be infeasible they
            may be a Farkas vector.
        status: :class:`Status` codes, (batch,): what the solver thinks.
        iterations: (batch,), -1 where unknown.
        messages: the solver's own words.
    """

    value: Array
    multipliers: Array
    status: Array
    iterations: Array
    messages: tuple[str, ...]


class AbstractQuadraticSolver(AbstractSolver):
    """A solver of convex quadratic programs. Like any solver it brings no derivative, and its word is not taken.

    :func:`argminlayer.qp`, and :func:`argminlayer.argmin` of a :class:`QuadraticProgram`, hand it the arrays of the
    whole batch; :func:`argminlayer.solve` goes the ordinary way through :meth:`solve`.
    """

    takes_sparse: ClassVar[float] = 0.0
    """How well the solver suits large sparse programs; 0 for one that takes dense matrices only."""
    capabilities: ClassVar[Capabilities] = Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth", "least-squares"}),
        structures=frozenset({QUADRATIC}),
        requires=frozenset({"convex"}),
    )

    @abc.abstractmethod
    def solve_quadratic(self, form: QuadraticForm) -> QuadraticAnswer:
        """Solve every program of a batch. Must not modify its arrays nor keep state."""

    def solve_sparse(self, program: SparseProgram) -> SparseAnswer:
        """Solve one sparse program; only solvers with ``takes_sparse`` are asked."""
        raise NotImplementedError(f"{self.name} takes dense matrices only")

    def refuses(self, form: QuadraticForm) -> str | None:
        """Return why the programs cannot be solved, or None. By default indefinite ones are refused."""
        return indefinite_reason(form)

    @abc.abstractmethod
    def suits(self, form: QuadraticForm) -> float:
        """Return how well the solver suits the programs, by size, density and definiteness; the highest is taken."""

    def supports(self, problem: BoundProblem) -> str | None:
        """Return why the problem cannot be solved: it is no convex quadratic program, declared or proved."""
        general = replace(self.capabilities, structures=frozenset())
        return refusal(general, problem) or not_quadratic(problem) or self.refuses(form_of(problem))

    def preference(self, problem: BoundProblem) -> float:
        """Return how well the solver suits the problem; one without constraints is as easy for Newton's method."""
        suits = self.suits(form_of(problem))
        return suits if is_declared(problem) or problem.problem.constraints else min(suits, EASY)

    def solve(self, problem: BoundProblem, start: Tensor) -> Candidate:
        """Solve every instance; the start is of no use to a convex program."""
        form = form_of(problem)
        answer = self.solve_quadratic(form)
        nu_end = form.offset + form.equalities

        def tensor(array: Any) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), device=start.device)

        return Candidate(
            value=tensor(within_bounds(form, answer.value)),
            status=tensor(answer.status.astype(np.int64)),
            equality=tensor(answer.multipliers[:, form.offset : nu_end]),
            inequality=tensor(answer.multipliers[:, nu_end:]),
            iterations=tensor(answer.iterations.astype(np.int64)),
            messages=answer.messages,
        )


def indefinite_reason(form: QuadraticForm) -> str | None:
    """Return a sentence with the eigenvalue range of the first indefinite P, None when all are semidefinite."""
    found = np.flatnonzero(form.indefinite())
    if len(found) == 0:
        return None
    smallest, largest = form.eigenvalue_range(int(found[0]))
    where = f" of instance {found[0]} of the batch" if len(form.definite) > 1 else ""
    return (
        f"solves convex programs only, but P{where} is indefinite: its eigenvalues range from {smallest:.3g} to "
        f"{largest:.3g}; use a solver of smooth problems such as 'scipy.slsqp', or add {-smallest:.3g} to the diagonal"
    )


def claimed(code: Status, batch: int) -> Array:
    """Return a status for every instance."""
    return np.full(batch, int(code), dtype=np.int64)
