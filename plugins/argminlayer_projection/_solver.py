"""The direct solver of projections: nearest points and derivatives by the rules of their sets, on any device."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import argminlayer as al

from ._set import STRUCTURE, AbstractSet


@dataclass(frozen=True)
class ExactProjection(al.AbstractDirectSolver):
    """Nearest points of the sets of this plugin, exact to rounding, in the precision of the points."""

    name: ClassVar[str] = "projection.exact"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth"}),
        structures=frozenset({STRUCTURE}),
        requires=frozenset({"the structure projection"}),
        batched=True,
        devices=frozenset({"cpu", "cuda"}),
    )

    def available(self) -> al.Availability:
        """Return true: torch is all it needs."""
        return al.Availability(True)

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse problems of other structures, and sets of other plugins."""
        reason = super().supports(problem)
        if reason is None and problem.problem.structure is not None and _rule(problem.problem.structure) is None:
            return f"does not know the set {problem.problem.structure.data.get('set')!r}"
        return reason

    def preference(self, problem: al.BoundProblem) -> float:
        """Return the highest: it is made for these problems."""
        del problem
        return 30.0

    def refuses(self, structure: al.Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Return why the parameters are not served directly: not floats, or of different dtypes."""
        if _rule(structure) is None:
            return f"does not know the set {structure.data.get('set')!r}"
        dtype = parameters[0].dtype
        if not dtype.is_floating_point:
            return f"needs points of floats, not of {dtype}"
        if any(p.dtype != dtype for p in parameters[1:]):
            return "needs parameters of one dtype"
        return None

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the nearest points with their derivative; see :class:`argminlayer.AbstractDirectSolver`."""
        rule = _rule(structure)
        assert rule is not None
        return rule.project(*parameters, throw=throw)

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Return the nearest points, to be certified."""
        structure = problem.problem.structure
        rule = None if structure is None else _rule(structure)
        assert rule is not None
        with torch.no_grad():
            y = rule.project(*(p.to(start) for p in problem.parameters), throw=False)
        value = y.expand(problem.layout.batch_shape.numel(), *problem.layout.shapes[0]).reshape(start.shape)
        solved = value.isfinite().all(-1)
        status = torch.where(solved, int(al.Status.SOLVED), int(al.Status.INFEASIBLE))
        return al.Candidate(torch.where(solved[:, None], value, start), status)


def _rule(structure: al.Structure) -> AbstractSet | None:
    rule = structure.data.get("rule")
    return rule if isinstance(rule, AbstractSet) else None
