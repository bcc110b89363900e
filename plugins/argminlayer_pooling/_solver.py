"""The direct solver of pooling problems: torch on any device."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import argminlayer as al

from ._kernels import Kernels
from ._penalties import Quadratic, penalty_of
from ._problem import STRUCTURE, unpack

SETTLED = 1e-6
"""Last step of a descent, in units of alpha, up to which it has arrived."""
PROVED = 1e-6
"""Gap up to which a minimum counts as global, as a part of the total weight."""


@dataclass(frozen=True)
class Robust(al.AbstractDirectSolver):
    """Global minima of robust pooling, every instance on its own, with their derivative.

    Numbers: the mean in one pass; Huber and pseudo-Huber by Newton's method, bracketed; the truncated quadratic by
    enumeration; Welsch and the others that are not convex by bounds on cells, which prove the minimum global. Vectors:
    the best of several descents.

    Attributes:
        starts: points from which vectors are pooled, besides mean and median, where there may be several minima.
        sample: of how many points, evenly spaced, these are the ones of lowest objective.
    """

    name: ClassVar[str] = "pooling.robust"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        objectives=frozenset({"smooth"}),
        structures=frozenset({STRUCTURE}),
        requires=frozenset({f"the structure {STRUCTURE}"}),
        batched=True,
        devices=frozenset({"cpu", "cuda", "mps", "xpu"}),
    )
    direct_preference: ClassVar[float] = 10.0

    starts: int = 4
    sample: int = 64

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        if self.starts < 0 or self.sample < 1:
            raise al.SolverError(
                f"{self.name}: starts must not be negative and sample at least 1, not {self.starts} and {self.sample}"
            )

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
        return self.pool(structure, parameters, throw)

    def pool(
        self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool, kernels: Kernels | None = None
    ) -> Tensor:
        """Return the pooled values; ``kernels`` of another plugin may take over the sums over the points."""
        from ._function import Options, Pool
        from ._scalar import mean

        data = structure.data
        x, name = parameters[0], data["penalty"]
        weights, alpha, shape = unpack(name, data["weighted"], parameters[1:])
        plain = name == Quadratic.name and weights is None and alpha.ndim == 0 and not data["vectors"]
        # inside vmap no value can be looked at, but in the function that is mapped as a whole
        if plain and torch._C._functorch.peek_interpreter_stack() is None:
            return mean(x, alpha, throw)
        pooled: Tensor = Pool.apply(  # type: ignore[no-untyped-call]
            x, weights, alpha, shape, Options(name, data["vectors"], throw, self.starts, self.sample, kernels)
        )[0]
        return pooled

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse several shapes at once."""
        reason = super().supports(problem)
        structure = problem.problem.structure
        return reason or (None if structure is None else self.refuses(structure, problem.parameters))

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Solve the batch in double precision; the start is not needed."""
        from ._function import as_rows, pool_blocks
        from ._scalar import minimise

        del start
        structure = problem.problem.structure
        assert structure is not None
        data = structure.data
        weights, alpha, shape = unpack(data["penalty"], data["weighted"], problem.parameters[1:])
        cores = 2 if data["vectors"] else 1
        x = problem.parameters[0]
        rows, _ = as_rows(x.expand(problem.batch, *x.shape[-cores:]), weights, alpha, cores)
        penalty = penalty_of(data["penalty"], shape)
        if data["vectors"]:
            value, rest = pool_blocks(penalty, rows, self.starts, self.sample)
            gap = None
            said, solved = "the last step of the descent was {0:.1e} alpha", rest <= SETTLED
        else:
            value, rest = minimise(penalty, rows)
            value, gap = value[:, None], rest * rows.total
            said, solved = "the objective is within {0:.1e} of the global minimum, per unit of weight", rest <= PROVED
        status = torch.where(solved, int(al.Status.SOLVED), int(al.Status.MAX_ITERATIONS))
        return al.Candidate(value=value, status=status, messages=tuple(map(said.format, rest.tolist())), gap=gap)
