"""Problems with known solutions and derivatives, through CasADi."""

import known_problems as known
import pytest

import argminlayer as al

pytest.importorskip("casadi", reason="needs the extra casadi")


@pytest.mark.parametrize("case", known.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("solver", ["casadi.ipopt", "casadi.sqp"])
def test_the_known_solution_and_derivative_are_found(case, solver):
    parameters = tuple(p.clone().requires_grad_() for p in case.parameters)
    value = al.argmin(case.problem, *parameters, solver=solver)
    assert case.value_error(value) < 1e-8
    assert case.gradient_error(value, parameters) < 1e-6
