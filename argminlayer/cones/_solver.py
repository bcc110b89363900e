"""What a solver of cone programs is: patterns and NumPy values of a batch in, points, slacks and multipliers out."""

import abc
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor

from .._bound import BoundProblem
from .._errors import SolverError
from .._solver import AbstractSolver, Candidate, Capabilities
from ._form import ConeForm
from ._pattern import Array
from ._program import CONE_PROGRAM

if TYPE_CHECKING:
    from ._restate import Restatement


class ConeAnswer(NamedTuple):
    """What a solver of cone programs returns; the certificate then judges it.

    Attributes:
        value: x, (batch, n).
        slack: s, (batch, m).
        multipliers: z, (batch, m). Where an instance is said to be infeasible they may be a proof of it, ``A'z = 0,
            b'z < 0``; where it is said to be unbounded ``value`` may be a direction of descent.
        status: :class:`argminlayer.Status` codes, (batch,): what the solver thinks.
        iterations: (batch,), -1 where unknown.
        messages: the solver's own words.
    """

    value: Array
    slack: Array
    multipliers: Array
    status: Array
    iterations: Array
    messages: tuple[str, ...]


class AbstractConeSolver(AbstractSolver):
    """A solver of convex cone programs. Like any solver it brings no derivative, and its word is not taken.

    :func:`argminlayer.argmin`, :func:`argminlayer.solve` and layers hand it the numbers of the whole batch of a
    :class:`ConeProgram`. A subclass that can state other problems as cone programs extends ``supports`` and ``solve``.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth", "least-squares", "none"}),
        structures=frozenset({CONE_PROGRAM}),
        requires=frozenset({"convex"}),
    )

    @abc.abstractmethod
    def solve_cones(self, form: ConeForm, start: ConeAnswer | None = None) -> ConeAnswer:
        """Solve every program of a batch. Must not modify its arrays nor keep state.

        Args:
            form: the programs.
            start: an answer to begin from; solvers that cannot ignore it.
        """

    def refuses(self, form: ConeForm) -> str | None:
        """Return why the programs cannot be solved (cones that it does not know), or None."""
        del form
        return None

    @abc.abstractmethod
    def suits(self, form: ConeForm) -> float:
        """Return how well the solver suits the programs, by size and cones; the highest is taken."""

    def restate(self, problem: BoundProblem) -> "tuple[Restatement, ...] | None":
        """Return an ordinary problem as cone programs, each for some of its instances; None, unless a class can.

        Problems with functions that may have kinks are then solved, certified and differentiated as these.
        """
        del problem
        return None

    def solve(self, problem: BoundProblem, start: Tensor) -> Candidate:
        """Refuse: cone programs do not come this way, and other problems are not supported.

        Raises:
            SolverError: always.
        """
        raise SolverError(f"solver {self.name!r} solves cone programs only")
