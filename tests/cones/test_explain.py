"""Which solver a cone program gets, and what is said of the others."""

import pytest
import torch
from cone_programs import CURVED, RawClarabel, isolated, random_programs

import argminlayer as al

pytest.importorskip("cvxpy", reason="the solvers of cone programs come with the extra cvxpy")
pytest.importorskip("qpsolvers", reason="the solvers of quadratic programs come with the extra qp")


def test_a_curved_program_goes_to_a_solver_of_cones():
    known = random_programs(*CURVED["all"])
    found = al.explain(known.problem, *known.data)
    assert found.problem == "minimise, 14 variables, 27 rows, batch of 3"
    assert found.program == (
        "cone program (quadratic objective; 2 zero rows, 3 nonnegative rows, 1 second-order cones of 3 rows, "
        "1 semidefinite cones of side 4, 1 power cones of exponent 0.4, 2 exponential cones)"
    )
    reasons = {verdict.solver.name: verdict.reason for verdict in found.verdicts}
    assert reasons["qp.daqp"] == "solves quadratic programs, but some cones are curved"
    assert reasons["scipy.slsqp"] == "does not solve cone programs"
    assert reasons["cvxpy.clarabel"] is None
    assert found.choice.chain[0].name == "cvxpy.clarabel"
    assert "choice: cvxpy.clarabel" in str(found)


def test_a_strictly_convex_quadratic_program_goes_to_a_solver_of_that_class():
    known = random_programs(al.Cones(1, 6), 4)
    problem = al.ConeProgram(
        ",".join(f"({t.shape[-1]})" for t in known.data) + "->(4)", known.pattern, lambda *data: data, lambda x, z: (x,)
    )
    found = al.explain(problem, *known.data)
    assert found.choice.why.endswith("for as a quadratic program it has one solution")
    assert found.choice.chain[0].name.startswith("qp.")
    # multipliers are asked for: the cone way
    assert al.explain(known.problem, *known.data).choice.chain[0].name.startswith("cvxpy.")


@pytest.mark.parametrize("solver", ["qp.daqp", "qp.piqp", "qp"])
def test_solvers_of_quadratic_programs_give_multipliers_and_certificates_of_linear_cones(solver):
    known = isolated(al.Cones(2, 6), 5)
    ours, expected = (al.solve(known.problem, *known.data, solver=s) for s in (solver, RawClarabel()))
    for one, other in zip(ours.value, expected.value, strict=True):
        assert torch.allclose(one, other, atol=1e-8)
    assert ours.certificate.error.max() < 1e-11
    assert ours.solver.startswith("qp.")


def test_a_solver_of_quadratic_programs_refuses_curved_cones():
    known = random_programs(*CURVED["second-order"])
    with pytest.raises(al.SolverError, match="solves quadratic programs, but some cones are curved"):
        al.argmin(known.problem, *known.data, solver="qp.daqp")
