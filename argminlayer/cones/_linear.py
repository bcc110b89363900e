"""Solvers of quadratic programs as solvers of cone programs with zero and nonnegative cones only."""

from dataclasses import dataclass

import numpy as np
import torch

from .._qp_form import QuadraticForm, quadratic_form
from .._qp_solver import AbstractQuadraticSolver
from .._solver import Availability
from ._form import ConeForm
from ._matrices import Matrices
from ._solver import AbstractConeSolver, ConeAnswer


@dataclass(frozen=True)
class LinearCones(AbstractConeSolver):
    """A solver of quadratic programs, which are cone programs with zero and nonnegative cones.

    Attributes:
        solver: of quadratic programs.
    """

    solver: AbstractQuadraticSolver

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the solver."""
        return self.solver.name

    def available(self) -> Availability:
        """Return whether its back end is installed."""
        return self.solver.available()

    def refuses(self, form: ConeForm) -> str | None:
        """Return why the programs cannot be solved: curved cones, or what the solver says."""
        if not form.pattern.cones.is_linear:
            return "solves quadratic programs, but some cones are curved"
        return self.solver.refuses(_quadratic(form))

    def suits(self, form: ConeForm) -> float:
        """Return how well the solver suits the programs."""
        return self.solver.suits(_quadratic(form))

    def solve_cones(self, form: ConeForm, start: ConeAnswer | None = None) -> ConeAnswer:
        """Solve every program of a batch."""
        del start
        answer = self.solver.solve_quadratic(_quadratic(form))
        moved = Matrices.of(form.pattern, torch.from_numpy(form.P), torch.from_numpy(form.A))
        slack = form.b - moved.A_times(torch.from_numpy(np.ascontiguousarray(answer.value))).numpy()
        return ConeAnswer(answer.value, slack, answer.multipliers, answer.status, answer.iterations, answer.messages)


def _quadratic(form: ConeForm) -> QuadraticForm:
    P, q, A, b = (torch.from_numpy(part) for part in (form.P, form.q, form.A, form.b))
    zero, batch = form.pattern.cones.zero, torch.Size([form.batch])
    dense = Matrices.of(form.pattern, P, A)
    blocks = {"q": q}
    if dense.P is not None:
        blocks["P"] = dense.P
    for names, rows in ((("A", "b"), slice(0, zero)), (("G", "h"), slice(zero, b.shape[1]))):
        if b[:, rows].shape[1]:
            blocks |= dict(zip(names, (dense.A[:, rows], b[:, rows]), strict=True))
    return quadratic_form({name: block.contiguous() for name, block in blocks.items()}, batch)
