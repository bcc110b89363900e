"""Problems with known solutions and derivatives, by every route: solved, attached, in batches, in single precision."""

from typing import Any

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

CASES = known.CASES
CONSTRAINED = [case for case in CASES if case.problem.constraints]
IN_SINGLE = [case for case in CASES if case.single]
ONE_SIDED = [case for case in CASES if case.problem.constraints & {"inequality", "bounds"}]


def every(cases: Any = CASES) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def leaves(case: Any, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(p.to(dtype).requires_grad_() for p in (q.clone() for q in case.parameters))


def moved(case: Any, size: float, seed: int = 7) -> Any:
    """The known solution, off by random errors of a size relative to it."""
    parts = case.answer()
    return known.as_variables(
        tuple(p + size * (1 + p.abs().amax()) * known.normal(seed + i, *p.shape) for i, p in enumerate(parts))
    )


def inward(case: Any, solution: al.Solution) -> tuple[Tensor, ...]:
    """Unit directions along which the forces of the active inequalities and bounds push into the feasible set."""
    forces = []
    answers = zip(*(_flat(case, part) for part in case.answer()), strict=True)
    lam = solution.multipliers.inequality.detach()
    lam = lam.expand(*case.batch_shape, lam.shape[-1]).flatten(0, -2) if case.batch_shape else lam[None]
    for index, (instance, parts) in enumerate(zip(case.instances(case.parameters), answers, strict=True)):
        u = tuple(part.clone().requires_grad_() for part in parts)
        total = sum((0 * part).sum() for part in u)
        if case.problem.inequality is not None:
            g = case.problem.inequality(known.as_variables(u), *instance)
            total = total + lam[index] @ g.reshape(-1)
        forces.append(torch.autograd.grad(total, u))
    sides = zip(*(known.as_tuple(getattr(solution.multipliers, side)) for side in ("lower", "upper")), strict=True)
    total = [torch.stack(parts) for parts in zip(*forces, strict=True)]
    pushes = [(low - up).detach() - force.reshape(low.shape) for force, (low, up) in zip(total, sides, strict=True)]
    length = max(float(push.abs().max()) for push in pushes)
    return tuple(push / (length or 1.0) for push in pushes)


def _flat(case: Any, tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, *tensor.shape[len(case.batch_shape) :])


@every()
@pytest.mark.parametrize("solver", ["auto", "scipy"])
def test_the_solver_chosen_finds_the_known_solution_and_derivative(case: Any, solver: str) -> None:
    parameters = leaves(case)
    solution = al.solve(case.problem, *parameters, solver=solver)
    assert bool(solution.ok.all())
    assert solution.status.shape == case.batch_shape
    assert case.value_error(solution.value) < 1e-8
    assert case.gradient_error(solution.value, parameters) < 1e-6


@every(CONSTRAINED)
@pytest.mark.parametrize("solver", ["slsqp", "trust-constr"])
def test_each_constrained_solver_finds_the_known_solution_and_derivative(case: Any, solver: str) -> None:
    parameters = leaves(case)
    value = al.argmin(case.problem, *parameters, solver=f"scipy.{solver}")
    assert case.value_error(value) < 1e-8
    assert case.gradient_error(value, parameters) < 1e-6


@every()
@pytest.mark.parametrize("error", [0.0, 1e-8, 1e-6])
def test_a_solution_attached_with_an_error_has_the_known_derivative(case: Any, error: float) -> None:
    parameters = leaves(case)
    given = moved(case, error)
    value = al.attach(case.problem, given, *parameters)
    assert all(torch.equal(*pair) for pair in zip(known.as_tuple(value), known.as_tuple(given), strict=True))
    for seed in range(2):
        assert case.gradient_error(value, parameters, seed) < 1e-7


@every(CONSTRAINED)
@pytest.mark.parametrize("error", [0.0, 1e-8, 1e-6])
def test_a_solution_attached_with_multipliers_has_the_known_derivative(case: Any, error: float) -> None:
    parameters = leaves(case)
    multipliers = al.certify(case.problem, known.as_variables(case.answer()), *case.parameters).multipliers
    value = al.attach(case.problem, moved(case, error, seed=20), *parameters, multipliers=multipliers)
    assert case.gradient_error(value, parameters) < 1e-7


@every(ONE_SIDED)
@pytest.mark.parametrize("error", [1e-8, 1e-6])
def test_a_solution_from_the_feasible_side_has_the_known_derivative(case: Any, error: float) -> None:
    parameters = leaves(case)
    solution = al.certify(case.problem, known.as_variables(case.answer()), *case.parameters)
    parts = zip(case.answer(), inward(case, solution), strict=True)
    inside = tuple(part + error * (1 + part.abs().amax()) * push for part, push in parts)
    value = al.attach(case.problem, known.as_variables(inside), *parameters)
    assert case.gradient_error(value, parameters) < 1e-7


@every()
def test_a_point_that_is_far_off_is_refused_or_has_the_right_derivative(case: Any) -> None:
    parameters = leaves(case)
    try:
        value = al.attach(case.problem, moved(case, 1e-2), *parameters)
    except al.SolveFailed:
        return
    assert case.gradient_error(value, parameters) < 1e-4


@every([case for case in ONE_SIDED if case.batch_shape])
def test_a_batch_of_mixed_active_sets_equals_its_elements(case: Any) -> None:
    whole = known.as_tuple(al.argmin(case.problem, *case.parameters))
    for index, instance in enumerate(case.instances(case.parameters)):
        single = known.as_tuple(al.argmin(case.problem, *instance))
        for batched, alone in zip(whole, single, strict=True):
            assert known.relative(_flat(case, batched)[index], alone, 1e-3) < 1e-9


@every(IN_SINGLE)
def test_single_precision_parameters_give_single_precision_answers(case: Any) -> None:
    parameters = leaves(case, torch.float32)
    value = al.argmin(case.problem, *parameters)
    assert {part.dtype for part in known.as_tuple(value)} == {torch.float32}
    assert case.value_error(value) < case.single
    assert case.gradient_error(value, parameters) < case.single


@every(IN_SINGLE)
def test_a_solution_attached_in_single_precision_has_the_known_derivative(case: Any) -> None:
    parameters = leaves(case, torch.float32)
    rounded = known.as_variables(tuple(part.float() for part in case.answer()))
    value = al.attach(case.problem, rounded, *parameters)
    assert case.gradient_error(value, parameters) < case.single
