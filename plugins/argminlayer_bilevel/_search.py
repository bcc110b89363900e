"""Searches of the upper problem: find the log mu where the hypergradient dJ/d log mu changes from minus to plus."""

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import argminlayer as al

from ._errors import near_matches
from ._ridge import Evaluation

SECANT = "secant"
LONGEST_STEP = 2.0
"""Of the secant search in log mu, while it looks for a change of sign: a valley narrower than this may be missed."""
NEIGHBOURHOOD = (1e-3, 0.5)
"""How far away in log mu an evaluation may be to tell the curvature: nearer it is rounding, farther another place."""
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # One step for each call, as the others; a line search, without which it creeps where the loss is concave; and no
    # tolerances of its own, which are absolute, so that the rules decide when to stop.
    "lbfgs": {
        "max_iter": 1,
        "max_eval": 25,
        "line_search_fn": "strong_wolfe",
        "tolerance_grad": 0.0,
        "tolerance_change": 0.0,
    },
    # Its shortest step, 1e-6 if not told, must not bound the accuracy.
    "rprop": {"step_sizes": (1e-12, 50.0)},
}
_NOT_FOR_ONE_NUMBER = {"muon", "optimizer", "sparseadam"}


class Outcome(enum.StrEnum):
    """How a search ended."""

    MINIMUM = "minimum"
    LOWER_LIMIT = "lower limit"
    UPPER_LIMIT = "upper limit"
    FLAT = "flat"
    OUT_OF_SOLVES = "out of solves"


@dataclass(frozen=True)
class Rules:
    """What binds every search.

    Attributes:
        limits: smallest and largest mu.
        tolerance: relative accuracy of mu at which to stop.
        max_solves: lower solves that may be made from one start.
        rate: learning rate of the torch optimizers.
    """

    limits: tuple[float, float]
    tolerance: float
    max_solves: int
    rate: float

    def clip(self, log_mu: float) -> float:
        """Return ``log_mu`` inside the limits."""
        low, high = map(math.log, self.limits)
        return min(max(log_mu, low), high)


@dataclass(frozen=True)
class Trace:
    """A search from one start: its lower solves in order, and how it ended."""

    start: float
    steps: tuple[Evaluation, ...]
    outcome: Outcome

    @property
    def found(self) -> Evaluation:
        """The end of a search that ended by itself, otherwise the lowest loss that it met."""
        if self.outcome in (Outcome.FLAT, Outcome.OUT_OF_SOLVES):
            return min(self.steps, key=lambda step: step.loss)
        return self.steps[-1]


class _OutOfSolves(Exception):
    """Ends a search from within the optimizer that asks for one more evaluation."""


@dataclass
class _Path:
    """The evaluations of a search, and what they say about where it stands."""

    evaluate: Callable[[float], Evaluation]
    rules: Rules
    steps: list[Evaluation] = field(default_factory=list)

    @property
    def last(self) -> Evaluation:
        return self.steps[-1]

    def to(self, log_mu: float) -> Evaluation:
        if len(self.steps) == self.rules.max_solves:
            raise _OutOfSolves
        self.steps.append(self.evaluate(self.rules.clip(log_mu)))
        return self.last

    def secant_step(self) -> float:
        """Return the step from the last evaluation to a minimum as the last two see it, infinite if they see none."""
        before, last = self.steps[-2:]
        rise, run = last.slope - before.slope, last.log_mu - before.log_mu
        return -last.slope * run / rise if rise * run > 0 else math.inf

    def distance(self) -> float:
        """Return how far in log mu the last evaluation is from a minimum, infinite if none is seen.

        That is the hypergradient over its slope towards the nearest evaluation of :data:`NEIGHBOURHOOD`. Unlike a small
        hypergradient it does not depend on the scale of the loss, and does not take a flat stretch for a minimum: where
        a loss levels off as mu or 1/mu, the distance is above one, or there is none.
        """
        nearest, farthest = NEIGHBOURHOOD
        runs = ((abs(step.log_mu - self.last.log_mu), step) for step in self.steps)
        near = [(run, step) for run, step in runs if nearest <= run <= farthest]
        if not near:
            return math.inf
        _, other = min(near, key=lambda pair: pair[0])
        curvature = (self.last.slope - other.slope) / (self.last.log_mu - other.log_mu)
        return abs(self.last.slope) / curvature if curvature > 0 else math.inf

    def at_limit(self) -> Outcome | None:
        """Return which limit of mu the loss falls towards at the last evaluation, if that is on it."""
        if self.last.slope > 0 and self.last.log_mu == self.rules.clip(-math.inf):
            return Outcome.LOWER_LIMIT
        if self.last.slope < 0 and self.last.log_mu == self.rules.clip(math.inf):
            return Outcome.UPPER_LIMIT
        return None


def search(name: str, evaluate: Callable[[float], Evaluation], start: float, rules: Rules) -> Trace:
    """Search for a minimum of the validation loss.

    Args:
        name: ``"secant"``, or a ``torch.optim`` optimizer in any case.
        evaluate: loss and hypergradient of a log mu.
        start: first mu.
        rules: limits, accuracy and budget.

    Raises:
        ExperimentError: there is no such search.
    """
    method = _secant if name == SECANT else _descent(name)
    path = _Path(evaluate, rules)
    try:
        outcome = method(path, math.log(start))
    except _OutOfSolves:
        outcome = Outcome.OUT_OF_SOLVES
    return Trace(start, tuple(path.steps), outcome)


def check_search(name: str) -> None:
    """Refuse a search that does not exist.

    Raises:
        ExperimentError: with near matches and all that there are.
    """
    known = [SECANT, *optimizers()]
    if name != SECANT and name.lower() not in known:
        raise al.ExperimentError(
            f"there is no search {name!r}.{near_matches(name.lower(), known)} Known are {', '.join(known)}"
        )


def _secant(path: _Path, start: float) -> Outcome:
    """Step downhill until the hypergradient changes sign, then close in by secant steps, or halves where they fail.

    The bracket keeps a hypergradient below zero at its lower end and above zero at its upper end, so that what it
    closes in on is a minimum, never a maximum.
    """
    path.to(start)
    ends = _bracket(path)
    if isinstance(ends, Outcome):
        return ends
    low, high = sorted(ends, key=lambda end: end.log_mu)
    while min(path.distance(), high.log_mu - low.log_mu) > path.rules.tolerance:
        before, last = path.steps[-2:]
        step = path.secant_step()
        target = last.log_mu + step
        # A step that does not halve the one before may be creeping along a flat side of the bracket.
        if not (low.log_mu < target < high.log_mu and abs(step) < 0.5 * abs(last.log_mu - before.log_mu)):
            target = 0.5 * (low.log_mu + high.log_mu)
        trial = path.to(target)
        low, high = (trial, high) if trial.slope < 0 else (low, trial)
    return Outcome.MINIMUM


def _bracket(path: _Path) -> tuple[Evaluation, Evaluation] | Outcome:
    """Step downhill from the last evaluation; return the two between which the hypergradient changes sign."""
    downhill = -math.copysign(1.0, path.last.slope)
    length = 0.5 * LONGEST_STEP
    while path.last.slope != 0.0:
        limit = path.at_limit()
        if limit is not None:
            return limit
        before = path.last
        here = path.to(before.log_mu + downhill * length)
        if here.slope * downhill > 0:
            return before, here
        length = LONGEST_STEP
    return Outcome.FLAT


def _descent(name: str) -> Callable[[_Path, float], Outcome]:
    """Return the search by a torch optimizer of log mu, on the loss over the first loss."""
    check_search(name)
    optimizer_class, options = optimizers()[name.lower()], _OPTIONS.get(name.lower(), {})

    def descent(path: _Path, start: float) -> Outcome:
        log_mu = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = optimizer_class([log_mu], lr=path.rules.rate, **options)

        def closure() -> Any:
            here = path.to(log_mu.item())
            scale = path.steps[0].loss or 1.0
            log_mu.grad = torch.full_like(log_mu, here.slope / scale)
            return torch.full_like(log_mu, here.loss / scale)

        while True:
            optimizer.step(closure)
            if path.last.slope == 0.0:
                return Outcome.FLAT
            limit = path.at_limit()
            if limit is not None:
                return limit
            if path.distance() <= path.rules.tolerance:
                return Outcome.MINIMUM
            with torch.no_grad():
                log_mu.fill_(path.rules.clip(log_mu.item()))

    return descent


def optimizers() -> Mapping[str, Callable[..., torch.optim.Optimizer]]:
    """Return the optimizers of torch that can move a single number, by their names in lower case."""
    classes = (value for value in vars(torch.optim).values() if isinstance(value, type))
    named = {c.__name__.lower(): c for c in classes if issubclass(c, torch.optim.Optimizer)}
    return {name: c for name, c in sorted(named.items()) if name not in _NOT_FOR_ONE_NUMBER}
