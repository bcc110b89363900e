"""A problem whose answer is known in closed form, so that its derivatives are known too."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._problem import Problem

Answer = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class KnownProblem:
    """A problem, parameters for a small batch, and the solution as a torch function of the parameters.

    The closed form is written for one instance, like the problem; autograd turns it into the Jacobian of the solution
    without the implicit function theorem. No instance sits at a kink, and none does if a parameter of the first one
    is shared by all.

    Attributes:
        name: what the tests call it.
        problem: the problem.
        parameters: float64, each with one leading batch dimension before its core dimensions.
        answer: ``(*x) ->`` the minimiser of one instance, a tuple for several variables.
        multipliers: ``(*x) -> (nu, lambda)`` of one instance, flat, in the sign of :class:`argminlayer.Multipliers`.
        unsolvable: instances without a feasible point; their answer is ignored.
        far: whether one iteration from the start ends far from the answer, whatever the solver.
    """

    name: str
    problem: Problem
    parameters: tuple[Tensor, ...]
    answer: Answer
    multipliers: Callable[..., tuple[Tensor, Tensor]]
    unsolvable: frozenset[int] = frozenset()
    far: bool = False

    @property
    def batch(self) -> int:
        """Number of instances."""
        return len(self.parameters[0])

    @property
    def kinds(self) -> tuple[frozenset[str], str]:
        """The kinds of constraint and the kind of objective."""
        return self.problem.constraints, self.problem.objective_kind

    def instance(self, index: int) -> tuple[Tensor, ...]:
        """Return the parameters of one instance, without a batch dimension."""
        return tuple(parameter[index] for parameter in self.parameters)

    def values(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the answers for parameters of which some are shared by the batch, (batch, *core) per variable."""
        return _stacked(_as_tuple(self.answer(*x)) for x in self._instances(parameters))

    def forces(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the multipliers for parameters of which some are shared by the batch: (batch, p) and (batch, q)."""
        return _stacked(self.multipliers(*x) for x in self._instances(parameters))

    def scaled(self, factor: float) -> "KnownProblem":
        """Return the same problem with its constraints multiplied by ``factor``: the multipliers divide by it.

        A negative factor flips the equalities, and leaves the side of the inequalities with its magnitude.
        """
        problem, size = self.problem, abs(factor)
        equality, inequality, forces = problem.equality, problem.inequality, self.multipliers

        def multipliers(*x: Tensor) -> tuple[Tensor, Tensor]:
            nu, lam = forces(*x)
            return nu / factor, lam / size

        return replace(
            self,
            name=f"{self.name} times {factor:g}",
            problem=replace(
                problem,
                equality=None if equality is None else _times(factor, equality),
                inequality=None if inequality is None else _times(size, inequality),
            ),
            multipliers=multipliers,
        )

    def _instances(self, parameters: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
        cores = map(len, self.problem.signature.inputs)
        columns = [
            parameter if parameter.ndim > core else itertools.repeat(parameter)
            for parameter, core in zip(parameters, cores, strict=True)
        ]
        if not any(isinstance(column, Tensor) for column in columns):
            return iter([parameters])
        return zip(*columns, strict=False)


def _times(factor: float, function: Answer) -> Answer:
    def scaled(*arguments: object) -> tuple[Tensor, ...]:
        return tuple(factor * part for part in _as_tuple(function(*arguments)))

    return scaled


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _stacked(rows: Iterator[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))
