"""Problems with known solutions and derivatives, through CasADi."""

import known_problems as known
import pytest

import argminlayer as al

pytest.importorskip("casadi", reason="needs the extra casadi")


EVERY = [pytest.param("casadi.ipopt", case, id=f"ipopt-{case.name}") for case in known.CASES]
CONSTRAINED = [
    pytest.param("casadi.sqp", case, id=f"sqp-{case.name}") for case in known.CASES if case.problem.constraints
]


@pytest.mark.parametrize(("solver", "case"), [*EVERY, *CONSTRAINED])
def test_the_known_solution_and_derivative_are_found(solver, case):
    parameters = tuple(p.clone().requires_grad_() for p in case.parameters)
    value = al.argmin(case.problem, *parameters, solver=solver)
    assert case.value_error(value) < 1e-8
    assert case.gradient_error(value, parameters) < 1e-6
