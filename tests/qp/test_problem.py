"""``QuadraticProgram`` as a problem like any other, and reading one from qpsolvers."""

import copy
import pickle

import numpy as np
import pytest
import qpsolvers
import scipy.sparse as sp
import torch
from quadratic_programs import dense, gradients, randn, solve, weights, worst

import argminlayer as al
from argminlayer._bound import bind
from argminlayer._qp_extract import form_of

BLOCKS = dense(seed=3)
PROGRAM = al.QuadraticProgram(G=True, h=True, A=True, b=True)


@pytest.mark.parametrize("solver", ["qp.daqp", "qp.piqp", "scipy.slsqp", "scipy.trust-constr", "auto"])
def test_any_solver_of_smooth_problems_takes_it_with_the_same_gradient(solver):
    given = {name: block.clone().requires_grad_() for name, block in BLOCKS.items()}
    value = al.solve(PROGRAM, *given.values(), solver=solver).value
    assert worst(value, solve(BLOCKS, solver="qp.daqp")) < 1e-7
    found = torch.autograd.grad((value * weights(value)).sum(), tuple(given.values()))
    for gradient, expected in zip(found, gradients(BLOCKS, solver="qp.daqp").values(), strict=True):
        assert worst(gradient, expected) < 1e-7


def test_argmin_and_layers_take_the_short_way_and_give_the_same():
    expected = solve(BLOCKS, solver="qp.daqp")
    assert torch.equal(al.argmin(PROGRAM, *BLOCKS.values(), solver="qp.daqp"), expected)
    layer = al.ArgminLayer(PROGRAM, solver="qp.daqp")
    assert torch.equal(layer(*BLOCKS.values()), expected)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(*BLOCKS.values()), expected)
    assert worst(layer(*BLOCKS.values(), solver="scipy.slsqp"), expected) < 1e-7


def test_multipliers_of_a_program_are_those_of_a_general_solver():
    one, other = (al.solve(PROGRAM, *BLOCKS.values(), solver=s).multipliers for s in ("qp.daqp", "scipy.slsqp"))
    assert worst(one.equality, other.equality) < 1e-6
    assert worst(one.inequality, other.inequality) < 1e-6


def test_blocks_may_be_constants():
    program = al.QuadraticProgram(P=BLOCKS["P"][0], q=True, G=BLOCKS["G"][0], h=BLOCKS["h"][0], lower=-2.0)
    assert str(program.signature) == "(5)->(5)"
    value = al.argmin(program, BLOCKS["q"], solver="qp.daqp")
    shared = {name: BLOCKS[name][0] for name in ("P", "G", "h")}
    expected = al.qp(**shared, q=BLOCKS["q"], lower=-2.0, solver="qp.daqp")
    assert worst(value, expected) < 1e-12
    assert worst(al.solve(program, BLOCKS["q"], solver="scipy.slsqp").value, expected) < 1e-7
    single = al.argmin(program, BLOCKS["q"].float(), solver="qp.daqp")
    assert single.dtype == torch.float32


def test_the_approximate_rules_and_policies_take_the_way_of_general_problems():
    given = BLOCKS["q"].clone().requires_grad_()
    blocks = BLOCKS | {"q": given}
    value = solve(blocks, solver="qp.daqp", backward=al.KKT(singular="minimum-norm"))
    (found,) = torch.autograd.grad((value * weights(value)).sum(), given)
    assert worst(found, gradients(BLOCKS, solver="qp.daqp")["q"]) < 1e-7


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        ({"G": True}, al.ProblemError, "G is given without h"),
        ({"b": True}, al.ProblemError, "b is given without A"),
        ({"P": None, "q": None}, al.ProblemError, "at least one of P, q, G and A"),
        (
            {"P": torch.zeros(3, 3, requires_grad=True)},
            al.ProblemError,
            "the constant block 'P' uses a captured tensor",
        ),
        ({"P": torch.zeros(2, 3, 3)}, al.SignatureError, r"constant block 'P' has shape \(2, 3, 3\), but it needs 2"),
        ({"P": torch.zeros(3, 3), "q": torch.zeros(4)}, al.SignatureError, "dimension 'n' is 4, but another block"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_in_words(blocks, error, message):
    with pytest.raises(error, match=message):
        al.QuadraticProgram(**blocks)


def test_an_indefinite_program_is_refused_by_name_in_the_ordinary_way_too():
    P = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    q = torch.tensor([0.3, -0.2], dtype=torch.float64)
    program = al.QuadraticProgram(lower=-1.0, upper=1.0)
    with pytest.raises(al.SolverError, match=r"its eigenvalues range from -0\.5 to 1"):
        al.solve(program, P, q, solver="qp.daqp")
    assert al.solve(program, P, q).value.tolist() == pytest.approx([-0.3, 1.0])


def fit(u, x, C):
    return 0.5 * (C @ u - x).square().sum() + u.sum()


PROVED = al.Problem(
    fit,
    "(m),(m,n)->(n)",
    equality=lambda u, x, C: u.sum() - 1,
    inequality=lambda u, x, C: u[0] - 2 * u[1] - 0.1 * x[0],
    lower=0.0,
)


@pytest.mark.parametrize("shared", [False, True])
def test_torch_functions_that_are_proved_quadratic_are_solved_as_programs(shared):
    x, C = randn(1, 4, 5), randn(2, 5, 3) if shared else randn(2, 4, 5, 3)
    for solver in ("qp.daqp", "qp", "auto"):
        given = x.clone().requires_grad_()
        solution = al.solve(PROVED, given, C, solver=solver)
        assert solution.solver == "qp.daqp"
        (found,) = torch.autograd.grad((solution.value * weights(solution.value)).sum(), given)
        other = x.clone().requires_grad_()
        value = al.solve(PROVED, other, C, solver="scipy.slsqp").value
        (expected,) = torch.autograd.grad((value * weights(value)).sum(), other)
        assert worst(solution.value, value) < 1e-7
        assert worst(found, expected) < 1e-6


def test_blocks_that_no_instance_changes_are_extracted_once():
    form = form_of(bind(PROVED, (randn(1, 4, 5), randn(2, 5, 3))))
    assert {name: len(getattr(form, name)) for name in ("P", "q", "rows", "cholesky")} == {
        "P": 1,
        "q": 4,
        "rows": 1,
        "cholesky": 1,
    }


def test_a_maximisation_and_a_linear_program_are_recognised():
    best = al.Problem(lambda u, c: c @ u - u.square().sum(), "(n)->(n)", upper=1.0, maximize=True)
    c = randn(3, 4)
    assert worst(al.solve(best, c, solver="qp").value, (c / 2.0).clamp_max(1.0)) < 1e-9
    flat = al.Problem(lambda u, c: c @ u, "(n)->(n)", lower=0.0, upper=1.0)
    assert al.solve(flat, c).solver == "qp.highs"
    assert worst(al.solve(flat, c).value, (c < 0).double()) < 1e-9


def test_what_is_not_quadratic_is_refused_with_what_it_is():
    smooth = al.Problem(lambda u, x: (u - x).exp().sum() + u @ u, "(n)->(n)")
    with pytest.raises(al.SolverError, match="is made for quadratic programs, and this is a nonlinear program"):
        al.solve(smooth, randn(1, 3), solver="qp.daqp")
    opaque = al.Problem(lambda u, x: (u - x).square().sum() if u[0] > 0 else (u - x).square().sum() * 2, "(n)->(n)")
    with pytest.raises(al.SolverError, match="no algebra that says so"):
        al.solve(opaque, randn(1, 3), solver="qp.daqp")


def foreign(make=np.asarray):
    return qpsolvers.Problem(
        make(np.eye(3)), np.array([1.0, -2.0, 0.3]), A=make(np.ones((1, 3))), b=np.ones(1), lb=np.zeros(3)
    )


@pytest.mark.parametrize("make", [np.asarray, sp.csc_matrix])
def test_a_problem_of_qpsolvers_becomes_a_layer(make):
    expected = torch.as_tensor(qpsolvers.solve_problem(foreign(), solver="daqp").x)
    assert worst(al.ArgminLayer(foreign(make))(), expected) < 1e-9
    layer = al.ArgminLayer(foreign(make), parameters=["q", "lb"])
    q = torch.tensor([[1.0, -2.0, 0.3], [0.0, 0.0, 0.0]], dtype=torch.float64)
    value = layer(q, torch.zeros(3, dtype=torch.float64))
    assert worst(value[0], expected) < 1e-9
    assert worst(value[1], torch.full((3,), 1 / 3, dtype=torch.float64)) < 1e-9


def test_what_a_problem_of_qpsolvers_does_not_have_is_refused():
    with pytest.raises(
        al.ProblemError, match=r"has no array 'G' to be a parameter; it has \['P', 'q', 'A', 'b', 'lb'\]"
    ):
        al.ArgminLayer(foreign(), parameters=["G"])
    with pytest.raises(al.ProblemError, match="one variable"):
        al.ArgminLayer(foreign(), variables=["x"])
