"""The direct solver of pooling problems: torch on any device."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import argminlayer as al

from ._penalties import Quadratic, penalty_of
from ._problem import STRUCTURE, unpack

PROVED = 1e-6
"""Gap up to which a minimum counts as global, as a part of the total weight."""


@dataclass(frozen=True)
class Robust(al.AbstractDirectSolver):
    """Global minima of robust pooling, every instance on its own, with their derivative.

    Numbers: the mean in one pass; Huber and pseudo-Huber by Newton's method, bracketed; the truncated quadratic by
    enumeration; Welsch and the others that are not convex by bounds on cells, which prove the minimum global. Vectors:
    the best of several descents.
    """

    name: ClassVar[str] = "pooling.robust"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        structures=frozenset({STRUCTURE}), batched=True, devices=frozenset({"cpu", "cuda", "mps", "xpu"})
    )
    direct_preference: ClassVar[float] = 10.0

    def available(self) -> al.Availability:
        """Return that it is: it needs nothing but torch."""
        return al.Availability(True)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return 40: made for the structure, and global."""
        del problem
        return 40.0

    def refuses(self, structure: al.Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Refuse integers, and several shapes at once."""
        if not all(p.is_floating_point() for p in parameters):
            return "needs floating-point parameters"
        _, _, shape = unpack(structure.data["penalty"], structure.data["weighted"], parameters[1:])
        return None if shape is None or shape.numel() == 1 else "needs one shape for the whole batch"

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the pooled values; see :class:`argminlayer.AbstractDirectSolver`."""
        from ._scalar import Pool, mean

        data = structure.data
        x, name = parameters[0], data["penalty"]
        weights, alpha, shape = unpack(name, data["weighted"], parameters[1:])
        plain = name == Quadratic.name and weights is None and alpha.ndim == 0
        # inside vmap no value can be looked at, but in the function that is mapped as a whole
        if plain and torch._C._functorch.peek_interpreter_stack() is None:
            return mean(x, alpha, throw)
        pooled: Tensor = Pool.apply(x, weights, alpha, shape, name, throw)[0]  # type: ignore[no-untyped-call]
        return pooled

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse several shapes at once."""
        reason = super().supports(problem)
        structure = problem.problem.structure
        return reason or (None if structure is None else self.refuses(structure, problem.parameters))

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve the batch in double precision; the start is not needed."""
        from ._scalar import as_rows, minimise

        del start
        structure = problem.problem.structure
        assert structure is not None
        name = structure.data["penalty"]
        weights, alpha, shape = unpack(name, structure.data["weighted"], problem.parameters[1:])
        x = problem.parameters[0].expand(problem.batch, -1)
        rows, _ = as_rows(x, weights, alpha)
        u, gap = minimise(penalty_of(name, shape), rows)
        status = torch.where(gap <= PROVED, int(al.Status.SOLVED), int(al.Status.NOT_A_MINIMUM))
        messages = tuple(
            f"the objective is within {g:.1e} of the global minimum, per unit of weight" for g in gap.tolist()
        )
        return al.Candidate(value=u[:, None], status=status, messages=messages)
