"""How exact derivatives of first and second order are at solutions given with an error, in either precision."""

from collections.abc import Callable

import known_problems as known
import pytest
import torch
from torch import Tensor

import argminlayer as al

SMOOTH = [case for case in known.CASES if not case.differences]
SINGLE = [case for case in known.CASES if case.single is not None]


def given(case: known.Case, error: float, dtype: torch.dtype) -> Callable[..., tuple[Tensor, ...]]:
    """Return the node as a function of its parameters, its value off by an error in every entry."""
    moved = (
        part + error * (1 + part.abs().amax()) * known.normal(5 + i, *part.shape).sign()
        for i, part in enumerate(case.answer())
    )
    value = known.as_variables(tuple(part.to(dtype) for part in moved))
    return lambda *x: known.as_tuple(al.attach(case.problem, value, *x))


def second_derivative(
    case: known.Case, function: Callable[..., tuple[Tensor, ...]], dtype: torch.dtype
) -> list[Tensor]:
    """Return the derivative of the vector-Jacobian product along a direction, in every parameter."""
    leaves = tuple(p.to(dtype).requires_grad_() for p in (q.clone() for q in case.parameters))
    cotangents = tuple(c.to(dtype) for c in case.cotangents())
    slopes = torch.autograd.grad(function(*leaves), leaves, cotangents, materialize_grads=True, create_graph=True)
    along = [(g * known.normal(60 + i, *g.shape).to(dtype)).sum() for i, g in enumerate(slopes)]
    total = torch.stack(along).sum()
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(total, leaves, materialize_grads=True))


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.name)
def test_a_solution_given_with_an_error_in_single_precision_has_the_known_derivative(case: known.Case) -> None:
    parameters = tuple(p.float().requires_grad_() for p in (q.clone() for q in case.parameters))
    value = given(case, 1e-6, torch.float32)(*parameters)
    assert case.gradient_error(known.as_variables(value), parameters) < case.single  # type: ignore[operator]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_a_solution_given_with_an_error_has_the_known_second_derivative(case: known.Case) -> None:
    # each case in one of the precisions: single where it is small and resolves the problem
    small = case.single is not None and sum(p.numel() for p in case.parameters) <= 12
    dtype, tolerance = (torch.float32, 10 * (case.single or 1.0)) if small else (torch.float64, 1e-6)
    expected = second_derivative(case, case.solution, torch.float64)
    found = second_derivative(case, given(case, 1e-6, dtype), dtype)
    size = max(case.floor, *(float(part.abs().max()) for part in expected if part.numel()))
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).abs().max()) <= tolerance * size


@pytest.mark.parametrize("case", SMOOTH[::3], ids=lambda case: case.name)
def test_the_second_derivative_at_an_exact_solution_is_the_known_one(case: known.Case) -> None:
    expected = second_derivative(case, case.solution, torch.float64)
    found = second_derivative(case, given(case, 0.0, torch.float64), torch.float64)
    size = max(case.floor, *(float(part.abs().max()) for part in expected if part.numel()))
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-7 * size
