"""Direct solvers: they bring their own derivative, and serve problems of a declared structure without a KKT system."""

import abc
import functools
from typing import Any, ClassVar

from torch import Tensor

from . import _registry
from ._problem import Problem, Structure
from ._registry import Registry
from ._select import AUTO, requested, with_options
from ._solution import Variables
from ._solver import AbstractSolver


class AbstractDirectSolver(AbstractSolver):
    """A solver of named structures that returns a differentiable solution by itself.

    :func:`argminlayer.argmin` and :class:`argminlayer.ArgminLayer` hand it the parameters as they are: nothing is
    bound, converted or certified on the way, so that the overhead of a call is a few microseconds. Everything it claims
    must therefore hold by construction, and its tests hold it to the KKT engine. :func:`argminlayer.solve` goes the
    ordinary way through :meth:`solve`, and certifies the answer.

    Attributes:
        direct_preference: among several that accept the same parameters the one with the highest serves.
    """

    direct_preference: ClassVar[float] = 0.0

    @abc.abstractmethod
    def refuses(self, structure: Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Return why these parameters are not served directly (device, dtype, ...), or None. It must be cheap."""

    @abc.abstractmethod
    def direct(self, structure: Structure, parameters: tuple[Tensor, ...], throw: bool) -> Variables:
        """Return the solution for the caller's parameters, whose leading dimensions broadcast to the batch.

        Args:
            structure: as the problem declares it; its name is one of ``capabilities.structures``.
            parameters: the caller's tensors.
            throw: raise where an instance has no solution; otherwise that instance is NaN.

        Returns:
            The solution in the dtype and on the device of the parameters, differentiable in them.

        Raises:
            SolveFailed: an instance has no solution (only with ``throw``).
            ProblemError: parameters of no use: wrong shapes or, with ``throw``, NaN.
        """


def direct_solver(
    problem: Problem, parameters: tuple[Any, ...], solver: str | AbstractSolver | None, options: Any
) -> AbstractDirectSolver | None:
    """Return the direct solver that serves the call, None when the ordinary way has to.

    Args:
        problem: the problem.
        parameters: the caller's.
        solver: as for :func:`argminlayer.solve`.
        options: fields of the solver to replace.
    """
    structure = problem.structure
    if structure is None or not all(isinstance(p, Tensor) for p in parameters):
        return None
    for candidate in _candidates(structure.name, requested(solver)):
        if candidate.refuses(structure, parameters) is None:
            return with_options(candidate, options)
    return None


def _candidates(structure: str, request: str | AbstractSolver) -> tuple[AbstractDirectSolver, ...]:
    if isinstance(request, str):
        return _family(_registry.load(), structure, request)
    return (request,) if isinstance(request, AbstractDirectSolver) and _serves(request, structure) else ()


@functools.lru_cache(maxsize=256)
def _family(registry: Registry, structure: str, request: str) -> tuple[AbstractDirectSolver, ...]:
    """Return the installed direct solvers of a structure that the request names, the preferred ones first."""
    named = [
        solver
        for name, solver in registry.solvers.items()
        if request in (AUTO, name, name.partition(".")[0])
        and isinstance(solver, AbstractDirectSolver)
        and _serves(solver, structure)
        and solver.available()
    ]
    return tuple(sorted(named, key=lambda s: (-s.direct_preference, s.name)))


def _serves(solver: AbstractSolver, structure: str) -> bool:
    return structure in solver.capabilities.structures
