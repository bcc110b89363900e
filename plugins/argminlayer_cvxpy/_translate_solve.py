"""Solving ordinary problems as cone programs: models kept, parameters mapped to data for a batch, answers read back."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

import argminlayer as al

from ._numbers import Array, Index
from ._read import read
from ._translate_model import Model, Refusal, Variant, agreeing, build, data_of

VARIANTS = 32
"""Models of one recorded problem that are kept, for parameters of different signs."""


@dataclass(eq=False)
class _Variants:
    """The models of one recorded problem, the one used last first."""

    known: list["_Solvable | Refusal"] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def assign(
        self, problem: al.BoundProblem, algebra: al.algebra.Algebra, data: Tensor
    ) -> Iterator[tuple["_Solvable | Refusal", Tensor]]:
        """Yield models, or refusals, with the instances of the data that they are about."""
        left = torch.arange(len(data))
        with self.lock:
            for variant in tuple(self.known):
                if not len(left):
                    break
                mine = agreeing(_decided(variant), data[left])
                if bool(mine.any()):
                    yield variant, left[mine]
                    left = left[~mine]
                    self._keep(variant)
            while len(left):
                first = left[:1]
                alone = replace(algebra, values=algebra.values[first], instances=algebra.instances[first])
                built = build(problem, alone, data[first[0]])
                variant = _solvable(built) if isinstance(built, Model) else built
                mine = agreeing(built, data[left])
                # an instance agrees with what was decided on it, unless it holds what is no number
                mine[0] = True
                yield variant, left[mine]
                left = left[~mine]
                self._keep(variant)

    def _keep(self, variant: "_Solvable | Refusal") -> None:
        self.known = [variant, *(other for other in self.known if other is not variant)][:VARIANTS]


@dataclass(frozen=True, eq=False)
class _Solvable:
    """A model with the cone program that it stands for."""

    model: Model

    @cached_property
    def cones(self) -> al.ConeProgram:
        """The cone program; its variables are those of the problem, then the multipliers, those of bounds last."""
        model = self.model
        held = (constraint for constraint, _, _ in model.bounds)
        duals = [constraint.dual_variables[0] for constraint in (*model.equality, *model.inequality, *held)]
        return read(model.problem, [parameter for parameter, _ in self.parameters], [model.variable, *duals])

    @cached_property
    def parameters(self) -> tuple[tuple[Any, Any], ...]:
        """Those that the problem depends on."""
        there = {parameter.id for parameter in self.model.problem.parameters()}
        return tuple(pair for pair in self.model.parameters if pair[0].id in there)

    def arguments(self, data: Tensor) -> list[Tensor]:
        """Return the parameters of the cone program for data (instances, n_p + 2n), differentiable; shared ones (k)."""
        values = self.model.program.run(data, [numbers for _, numbers in self.parameters])
        shaped = (v.reshape(-1, *p.shape) for v, (p, _) in zip(values, self.parameters, strict=True))
        return [value[0] if len(value) == 1 else value for value in shaped]

    def form(self, data: Tensor) -> al.ConeForm:
        """Return the cone programs of some instances: data (instances, n_p + 2n)."""
        with torch.no_grad():
            parts = self.cones.data(*self.arguments(data))
        P, q, A, b, *_ = (part.numpy() if part.ndim > 1 else part.numpy()[None] for part in parts)
        return al.ConeForm(self.cones.pattern, P, q, A, b, len(data))

    def recover(self, answer: al.ConeAnswer) -> tuple[Tensor, ...]:
        """Return z, nu, lambda and z_lo - z_up of an answer, with a leading batch."""
        assert self.cones.recover is not None
        return self.parts(self.cones.recover(torch.from_numpy(answer.value), torch.from_numpy(answer.multipliers)))

    def parts(self, variables: Any) -> tuple[Tensor, ...]:
        """Return z (..., n), nu (..., p), lambda (..., q) and z_lo - z_up (..., n), of the program's variables."""
        model = self.model
        z, *duals = variables if isinstance(variables, tuple) else (variables,)
        flat = [dual.reshape(*z.shape[:-1], -1) for dual in duals]
        p, q = len(model.equality), len(model.inequality)
        none = z.new_zeros(*z.shape[:-1], 0)
        zeta = torch.zeros_like(z)
        for dual, (_, index, sense) in zip(flat[p + q :], model.bounds, strict=True):
            # of lower <= u, u <= upper, and lower = u, whose multiplier pushes the other way
            zeta = zeta.index_add(-1, torch.from_numpy(index), dual if sense > 0 else -dual)
        return z, torch.cat([none, *flat[:p]], -1), torch.cat([none, *flat[p : p + q]], -1), zeta


def _solvable(model: Model) -> _Solvable | Refusal:
    """Return a model with its cone program, or why it has none."""
    solvable = _Solvable(model)
    try:
        assert solvable.cones is not None
    except al.ArgminError as error:
        return Refusal(str(error), model.decisions, model.program)
    return solvable


def _decided(variant: "_Solvable | Refusal") -> Variant:
    return variant.model if isinstance(variant, _Solvable) else variant


@dataclass(frozen=True, eq=False)
class Group:
    """Instances that share a model, or the reason why they have none.

    Attributes:
        variant: the model or the reason.
        instances: positions in the flattened batch.
        data: what the numbers of the model are computed from, (instances, n_p + 2n).
        follow: ``(prepared parameters) ->`` data, differentiable.
    """

    variant: _Solvable | Refusal
    instances: Index
    data: Tensor
    follow: Callable[[Sequence[Tensor]], Tensor]

    @cached_property
    def form(self) -> al.ConeForm:
        """The cone programs of the instances."""
        assert isinstance(self.variant, _Solvable)
        return self.variant.form(self.data)


_variants: "al.algebra.ModelCache[_Variants]" = al.algebra.ModelCache(64)
_plans: "WeakKeyDictionary[al.BoundProblem, tuple[Group, ...]]" = WeakKeyDictionary()
_lock = threading.Lock()


def plan(problem: al.BoundProblem) -> tuple[Group, ...]:
    """Return the instances of a problem in groups of one model each.

    Raises:
        AlgebraError: the functions cannot be recorded.
    """
    with _lock:
        known = _plans.get(problem)
    if known is None:
        known = tuple(_groups(problem))
        with _lock:
            _plans[problem] = known
    return known


def _groups(problem: al.BoundProblem) -> Iterator[Group]:
    for algebra in al.algebra.record(problem):
        data, instances = data_of(problem, algebra), algebra.instances.cpu()
        follow = functools.partial(_followed, problem.functions, algebra)
        sense = (problem.problem.objective is None, problem.problem.maximize)
        variants = _variants.get((algebra.key_with_lines, sense), _Variants)
        for variant, index in variants.assign(problem, algebra, data):
            yield Group(variant, instances[index].numpy(), data[index], functools.partial(follow, index))


def _followed(functions: Any, algebra: al.algebra.Algebra, index: Tensor, prepared: Sequence[Tensor]) -> Tensor:
    """Return the data of some instances of an algebra, differentiable in the prepared parameters."""
    bounds = (functions.bound(which, prepared)[algebra.instances] for which in ("lower", "upper"))
    return torch.cat([algebra.prefix(prepared), *bounds], dim=1).cpu()[index]


def restate(solver: al.AbstractConeSolver, problem: al.BoundProblem) -> tuple[al.Restatement, ...]:
    """Return a problem as cone programs."""
    return tuple(_restated(solver, group) for group in plan(problem))


def _restated(solver: al.AbstractConeSolver, group: Group) -> al.Restatement:
    instances, variant, reason = torch.from_numpy(group.instances), group.variant, _reason(solver, group)
    if reason is not None or isinstance(variant, Refusal):
        none = al.Status.NOT_CONVEX if isinstance(variant, Refusal) else al.Status.BREAKDOWN
        return al.Restatement(instances, reason=reason or "", status=none)
    return al.Restatement(
        instances, variant.cones, lambda prepared: variant.arguments(group.follow(prepared)), variant.parts
    )


def refusal(solver: al.AbstractConeSolver, problem: al.BoundProblem) -> str | None:
    """Return why a solver can solve no instance of a problem, or None when it can solve some."""
    try:
        groups = plan(problem)
    except al.AlgebraError as error:
        return str(error)
    reasons = [_reason(solver, group) for group in groups]
    if not reasons or any(reason is None for reason in reasons):
        return None
    return reasons[0]


def _reason(solver: al.AbstractConeSolver, group: Group) -> str | None:
    return group.variant.reason if isinstance(group.variant, Refusal) else solver.refuses(group.form)


def suits(solver: al.AbstractConeSolver, problem: al.BoundProblem) -> float:
    """Return how well a solver suits the cone programs of a problem."""
    return max((solver.suits(g.form) for g in plan(problem) if isinstance(g.variant, _Solvable)), default=0.0)


def is_proved(problem: al.BoundProblem) -> bool:
    """Say whether every instance is convex by the rules of disciplined convex programming."""
    groups = plan(problem)
    return bool(groups) and all(isinstance(group.variant, _Solvable) for group in groups)


def solve(solver: al.AbstractConeSolver, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
    """Solve every instance; those without a model are said not to be convex, with the reason as their message."""
    batch = problem.batch
    value = start.detach().cpu().numpy().copy()
    nu, lam = np.zeros((batch, problem.equalities)), np.zeros((batch, problem.inequalities))
    status, iterations = np.zeros(batch, dtype=np.int64), np.full(batch, -1, dtype=np.int64)
    gap, messages = np.full(batch, np.inf), [""] * batch
    for group in plan(problem):
        where, reason = group.instances, _reason(solver, group)
        if reason is not None or isinstance(group.variant, Refusal):
            none = al.Status.NOT_CONVEX if isinstance(group.variant, Refusal) else al.Status.BREAKDOWN
            status[where] = int(none)
            messages = [reason or "" if i in set(where.tolist()) else words for i, words in enumerate(messages)]
            continue
        answer = solver.solve_cones(group.form)
        found, *forces = (part.numpy() for part in group.variant.recover(answer))
        good = np.isfinite(found).all(1)
        value[where[good]] = found[good]
        nu[where], lam[where] = (np.nan_to_num(force) for force in forces[:2])
        status[where], iterations[where] = answer.status, answer.iterations
        gap[where] = _gap(answer)
        for i, words in zip(where.tolist(), answer.messages, strict=True):
            messages[i] = words
    tensors = (torch.from_numpy(part).to(start.device) for part in (value, status, nu, lam, iterations, gap))
    value_, status_, nu_, lam_, iterations_, gap_ = tensors
    return al.Candidate(
        value=value_,
        status=status_,
        equality=nu_,
        inequality=lam_.clamp_min(0.0),
        iterations=iterations_,
        messages=tuple(messages),
        gap=gap_,
    )


def _gap(answer: al.ConeAnswer) -> Array:
    """Return the duality gap of the solved instances, infinite for the others."""
    gap = np.abs((answer.slack * answer.multipliers).sum(1))
    return np.where((answer.status == int(al.Status.SOLVED)) & np.isfinite(gap), gap, np.inf)
