from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

import argminlayer as al
from argminlayer import _direct, _registry


def problem_of(name):
    structure = None if name is None else al.Structure(name, {"shift": 1.0})
    return al.Problem(lambda u, x: (u - x - 1.0).square().sum(), "(n)->(n)", structure=structure)


@dataclass(frozen=True)
class Direct(al.AbstractDirectSolver):
    """Adds the shift, and half of an option, so that its answer can be told from the certified one."""

    name: ClassVar[str] = "shift.direct"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(structures=frozenset({"shift"}), batched=True)
    direct_preference: ClassVar[float] = 1.0
    extra: float = 0.0

    def available(self):
        return al.Availability(True)

    def refuses(self, structure, parameters):
        return None if parameters[0].dtype == torch.float32 else "needs float32"

    def direct(self, structure, parameters, throw):
        return parameters[0] + structure.data["shift"] + self.extra + 0.25 * self.direct_preference

    def solve(self, problem, start):
        return al.Candidate(problem.parameters[0] + 1.0, torch.zeros(problem.batch, dtype=torch.int64))


@dataclass(frozen=True)
class Better(Direct):
    name: ClassVar[str] = "other.direct"
    direct_preference: ClassVar[float] = 2.0


@dataclass(frozen=True)
class Missing(Direct):
    name: ClassVar[str] = "missing.direct"
    direct_preference: ClassVar[float] = 9.0

    def available(self):
        return al.Availability(False, "not here")


X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.fixture
def installed(monkeypatch):
    solvers = {s.name: s for s in (Direct(), Better(), Missing())}
    registry = replace(_registry.load_from([]), solvers=solvers)
    monkeypatch.setattr(_registry, "load", lambda: registry)


@pytest.mark.parametrize(
    ("solver", "added"),
    [(None, 1.5), ("auto", 1.5), ("shift", 1.25), ("shift.direct", 1.25), ("other", 1.5), (Direct(extra=1.0), 2.25)],
)
def test_a_declared_structure_is_served_by_the_direct_solver_asked_for(installed, solver, added):
    assert torch.equal(al.argmin(problem_of("shift"), X, solver=solver), X + added)
    layer = al.ArgminLayer(problem_of("shift"), solver=solver)
    assert torch.equal(layer(X), X + added)


def test_the_answer_of_a_direct_solver_carries_its_own_gradient(installed):
    x = X.clone().requires_grad_()
    al.argmin(problem_of("shift"), x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_options_reach_the_direct_solver_and_unknown_ones_are_refused(installed):
    found = al.argmin(problem_of("shift"), X, solver="shift", options={"extra": 2.0})
    assert torch.equal(found, X + 3.25)
    with pytest.raises(al.SolverError, match=r"solver 'shift\.direct' has no option 'ekstra'.*'extra'"):
        al.argmin(problem_of("shift"), X, solver="shift", options={"ekstra": 2.0})


def test_layers_can_be_switched_to_a_direct_solver_and_back(installed):
    model = torch.nn.Sequential(al.ArgminLayer(problem_of("shift"), solver="shift"))
    al.set_solver(model, "other")
    assert torch.equal(model(X), X + 1.5)
    with al.use_solver("shift"):
        assert torch.equal(model(X), X + 1.25)


@pytest.mark.parametrize(
    "call",
    [
        lambda: al.argmin(problem_of("shift"), X.double(), solver="shift"),
        lambda: al.argmin(problem_of("shift"), X, start=X, solver="shift"),
        lambda: al.argmin(problem_of("shift"), X, backward=al.KKT(singular="minimum-norm"), solver="shift"),
        lambda: al.solve(problem_of("shift"), X, solver="shift").value,
    ],
    ids=["refused", "start", "rule", "solve"],
)
def test_everything_else_takes_the_certified_way(installed, call):
    assert torch.equal(call().float(), X + 1.0)


def test_a_structure_of_another_name_is_not_served(installed):
    with pytest.raises(al.SolverError, match="is made for problems declared as shift"):
        al.argmin(problem_of("other"), X, solver="shift")


def test_the_direct_solvers_of_a_structure_are_looked_up_once(installed):
    al.argmin(problem_of("shift"), X)
    before = _direct._family.cache_info()
    al.argmin(problem_of("shift"), X)
    after = _direct._family.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
