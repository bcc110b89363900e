"""What a solver is: a frozen value that declares what it can do, and turns a bound problem and a start into a point."""

import abc
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._solution import Status

CONSTRAINTS = frozenset({"equality", "inequality", "bounds"})
OBJECTIVES = frozenset({"smooth", "least-squares", "none"})


@dataclass(frozen=True)
class Capabilities:
    """What a solver handles; whatever is not listed is refused before the solver is called.

    Attributes:
        constraints: kinds of constraint, a subset of ``{"equality", "inequality", "bounds"}``.
        objectives: kinds of objective: ``"smooth"``, ``"least-squares"`` (as :func:`argminlayer.least_squares`
            declares) and ``"none"`` (feasibility and roots).
        structures: names of the structures it is made for; empty for a solver of general problems.
        requires: what it needs beyond values and gradients: ``"hessian"``, ``"square"``, ... For the reader: what it
            cannot do without is refused by ``supports``.
        batched: whether it solves a batch at once rather than one instance after another.
        devices: device types of the tensors it takes without a copy. For the reader: others are copied.
    """

    constraints: frozenset[str] = frozenset()
    objectives: frozenset[str] = frozenset({"smooth", "least-squares"})
    structures: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    batched: bool = False
    devices: frozenset[str] = frozenset({"cpu"})

    def __post_init__(self) -> None:
        """Refuse misspelt kinds."""
        for name, given, known in (
            ("constraints", self.constraints, CONSTRAINTS),
            ("objectives", self.objectives, OBJECTIVES),
        ):
            if given - known:
                raise ValueError(f"unknown {name} {sorted(given - known)} in Capabilities; known: {sorted(known)}")


@dataclass(frozen=True)
class Availability:
    """Whether a solver's back end is installed; false with a reason that says what to install."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        """Return whether the solver can run here."""
        return self.ok

    @classmethod
    def of_module(cls, module: str, extra: str) -> "Availability":
        """Return whether ``module`` can be imported, without importing it; ``extra`` is the one that installs it."""
        if _installed(module.partition(".")[0]):
            return cls(True)
        return cls(False, f"needs the package {module!r}: pip install 'argminlayer[{extra}]'")


_found: set[tuple[str, object]] = set()


def _installed(package: str) -> bool:
    """Return whether a package is installed; one that was found is not looked for again.

    A search of the path takes longer than a small solve, and automatic choice would search for every solver at every
    call. The finder is part of what is remembered, so that another one in its place is asked anew.
    """
    key = (package, importlib.util.find_spec)
    if key not in _found and importlib.util.find_spec(package) is not None:
        _found.add(key)
    return key in _found


@dataclass(frozen=True)
class Candidate:
    """What a solver returns: a point, which the certificate then judges. All tensors are float64.

    Attributes:
        value: (batch, n).
        status: int tensor (batch,) of :class:`argminlayer.Status` codes. ``SOLVED`` means "the solver thinks so"; any
            other code explains the failure if the certificate finds one.
        equality: multipliers nu in our sign, (batch, p), or None: then they are recovered.
        inequality: multipliers lambda, (batch, q), or None. Given together with ``equality``, or not at all.
        iterations: (batch,), -1 where unknown.
        messages: the solver's own words for each instance.
        gap: how far, at most, the objective lies above its global minimum, (batch,), from a solver that proves it;
            infinite where it does not.
    """

    value: Tensor
    status: Tensor
    equality: Tensor | None = None
    inequality: Tensor | None = None
    iterations: Tensor | None = None
    messages: tuple[str, ...] = ()
    gap: Tensor | None = None


@dataclass(frozen=True)
class Point:
    """What a solver of one instance returns; :func:`solve_each` stacks them.

    Attributes:
        value: (n,).
        status: how it ended.
        equality: multipliers (p,) in our sign, or None.
        inequality: multipliers (q,), or None.
        iterations: -1 where unknown.
        message: the solver's own words.
    """

    value: Tensor
    status: Status
    equality: Tensor | None = None
    inequality: Tensor | None = None
    iterations: int = -1
    message: str = ""


class AbstractSolver(abc.ABC):
    """A solver. Subclasses are frozen dataclasses whose fields are the solver's typed options.

    A solver writes no derivative code: it returns a point, and multipliers if it has them; the engine certifies and
    differentiates. A solver's word for success is never taken.

    Attributes:
        name: ``"scipy.slsqp"``; the part before the first dot is the name of the entry point that provides it.
        capabilities: what it handles.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    @classmethod
    def called(cls, name: str) -> "AbstractSolver | None":
        """Return the solver that ``solver="plugin:name"`` asks for, where a plugin reaches others by their own names.

        None, unless a class overrides it.
        """
        del name
        return None

    @abc.abstractmethod
    def available(self) -> Availability:
        """Return whether the back end is installed, without importing it."""

    def supports(self, problem: BoundProblem) -> str | None:
        """Return why the problem cannot be solved, or None when it can. Extend it; do not loosen it."""
        return refusal(self.capabilities, problem)

    def preference(self, problem: BoundProblem) -> float:
        """Return how well the solver suits a problem that it supports; automatic choice takes the highest.

        By convention 0 is a general fallback, 10 fits the class of the problem, 20 its size too, and 30 its structure.
        """
        del problem
        return 0.0

    def preference_limit(self, problem: BoundProblem) -> float:
        """Return what :meth:`preference` does not exceed, found at no cost; infinite where that is not known.

        Automatic choice does not ask a solver for more where enough others are better: neither whether it supports the
        problem, for which some build a model of it, nor to import what it needs for that.
        """
        del problem
        return math.inf

    def proves(self, problem: BoundProblem) -> str:
        """Return what the solver proves of a problem that it supports, ``"convex, proved by DCP"``; else nothing.

        :func:`argminlayer.explain` adds it to the class of the problem.
        """
        del problem
        return ""

    @abc.abstractmethod
    def solve(self, problem: BoundProblem, start: Tensor) -> Candidate:
        """Solve every instance from ``start`` (batch, n), float64. Must not modify its inputs nor keep state."""


def refusal(capabilities: Capabilities, problem: BoundProblem) -> str | None:
    """Return why a solver with these capabilities refuses the problem, or None."""
    present = problem.problem.constraints
    if present - capabilities.constraints:
        missing = " and ".join(_PLURAL[kind] for kind in sorted(present - capabilities.constraints))
        return f"does not handle {missing}"
    kind = problem.problem.objective_kind
    if kind not in capabilities.objectives:
        return _WRONG_OBJECTIVE[kind]
    structure = problem.problem.structure
    if capabilities.structures and (structure is None or structure.name not in capabilities.structures):
        return f"is made for problems declared as {' or '.join(sorted(capabilities.structures))}"
    return None


_PLURAL = {"equality": "equalities", "inequality": "inequalities", "bounds": "bounds"}
_WRONG_OBJECTIVE = {
    "none": "needs an objective (this is a feasibility problem)",
    "smooth": "does not handle a general objective",
    "least-squares": "does not handle least squares",
}


def solve_each(problem: BoundProblem, start: Tensor, solve_one: Callable[[BoundProblem, Tensor], Point]) -> Candidate:
    """Solve a batch with a solver of single instances, one after another.

    Args:
        problem: the batch.
        start: (batch, n).
        solve_one: receives the problem of one instance (a batch of one) and its start (n,).
    """
    single = (problem.select(torch.tensor([i], device=start.device)) for i in range(problem.batch))
    return stack_points([solve_one(one, start[i]) for i, one in enumerate(single)], problem, start)


def stack_points(points: list[Point], problem: BoundProblem, start: Tensor) -> Candidate:
    """Return the points of a batch as one candidate on the device of ``start``."""

    def stacked(name: str, width: int) -> Tensor | None:
        parts = [getattr(point, name) for point in points]
        if any(part is None for part in parts):
            return None
        return torch.stack(parts).to(start) if parts else start.new_zeros(0, width)

    return Candidate(
        value=torch.stack([p.value for p in points]).to(start) if points else start.new_zeros(0, problem.size),
        status=torch.tensor([int(p.status) for p in points], dtype=torch.int64, device=start.device),
        equality=stacked("equality", problem.equalities),
        inequality=stacked("inequality", problem.inequalities),
        iterations=torch.tensor([p.iterations for p in points], dtype=torch.int64, device=start.device),
        messages=tuple(p.message for p in points),
    )
