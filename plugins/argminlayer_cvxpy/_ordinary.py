"""Ordinary problems, written as torch functions, for solvers of cone programs. CVXPY is not imported here."""

from typing import ClassVar

from torch import Tensor

import argminlayer as al

NONSMOOTH = 22.0
"""Preference for problems with kinks, which cones express exactly and smooth methods do not."""
SMOOTH = 6.0
"""Preference for smooth ones, for which methods without a canonical form are faster."""


class AbstractOrdinary(al.AbstractConeSolver):
    """A solver of cone programs that also takes every problem whose algebra CVXPY proves to be convex."""

    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth", "least-squares", "none"}),
        requires=frozenset({"algebra", "convex"}),
        batched=True,
    )

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse what cannot be recorded, and what disciplined convex programming does not prove to be convex."""
        reason = super().supports(problem)
        if reason is not None:
            return reason
        from ._translate_solve import refusal

        return refusal(self, problem)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 22 for problems with kinks and 6 for smooth ones, a little more for the solver that suits better."""
        from ._translate_solve import suits

        return (NONSMOOTH if problem.kinks else SMOOTH) + 0.01 * suits(self, problem)

    def preference_limit(self, problem: al.BoundProblem) -> float:
        """Return 1 more than the preference of the least suited solver."""
        return (NONSMOOTH if problem.kinks else SMOOTH) + 1.0

    def proves(self, problem: al.BoundProblem) -> str:
        """Return that a problem is convex, if every instance is."""
        from ._translate_solve import is_proved

        return "convex, proved by DCP" if is_proved(problem) else ""

    def restate(self, problem: al.BoundProblem) -> tuple[al.Restatement, ...]:
        """Return a problem as cone programs."""
        from ._translate_solve import restate

        return restate(self, problem)

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve every instance as a cone program; its multipliers are those of the problem."""
        from ._translate_solve import solve

        return solve(self, problem, start)
