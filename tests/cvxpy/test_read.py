"""Which CVXPY problems are read, in what order, and what is said of those that are not."""

import copy
import pickle
import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest
import torch

import argminlayer as al
from argminlayer import _registry
from argminlayer_cvxpy._read import read


@pytest.fixture
def parts():
    x, A, b = cp.Variable(2, name="x"), cp.Parameter((3, 2), name="A"), cp.Parameter(3, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0]), x, A, b


def test_the_registry_reads_a_problem_of_cvxpy_and_nothing_else(parts):
    problem, x, A, b = parts
    found = _registry.load().read_model(problem, [b, A], [x])
    assert isinstance(found, al.ConeProgram)
    assert str(found.signature) == "(3),(3,2)->(2)"
    assert found.parameter_names == ("0 ('b')", "1 ('A')")
    assert _registry.load().readers["cvxpy"](model="no model", parameters=None, variables=None, options={}) is None


def test_without_names_all_parameters_and_variables_are_taken(parts):
    problem, _, _, _ = parts
    program = read(problem, None, None)
    shapes = [p.shape for p in problem.parameters()]
    assert [tuple(dims) for dims in program.signature.inputs] == shapes
    assert program.signature.outputs == ((2,),)


def test_the_problem_of_the_user_is_left_as_it_was(parts):
    problem, x, A, b = parts
    read(problem, [A, b], [x])
    assert problem._cache.param_prog is None
    assert A.value is None
    A.value, b.value = np.eye(3, 2), np.ones(3)
    problem.solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(x.value, [1.0, 1.0], atol=1e-6)
    read(problem, [A, b], [x])
    np.testing.assert_array_equal(A.value, np.eye(3, 2))


def test_a_program_is_copied_and_pickled_and_needs_no_cvxpy_then(parts, tmp_path):
    problem, x, A, b = parts
    program = read(problem, [A, b], [x])
    given = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    expected = program.data(*given)
    for same in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        for block, other in zip(expected, same.data(*given), strict=True):
            assert torch.equal(block, other)
    (tmp_path / "program").write_bytes(pickle.dumps(program))
    code = (
        f"import pickle, sys; pickle.load(open({str(tmp_path / 'program')!r}, 'rb')); assert 'cvxpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, x, A, b: (q, [A], [x]), r"exactly those of the problem, .*: b missing"),
        (lambda q, x, A, b: (q, [A, b, cp.Parameter(name="c")], [x]), "c not in the problem"),
        (lambda q, x, A, b: (q, [A, b, b], [x]), "one given twice"),
        (lambda q, x, A, b: (q, [A, x], [x]), r"parameters\[1\] is a Variable, not a cp.Parameter"),
        (lambda q, x, A, b: (q, {A, b}, [x]), "must be a list or tuple of cp.Parameter, not a set"),
        (lambda q, x, A, b: (q, [A, b], x), "variables must be a list or tuple"),
        (lambda q, x, A, b: (q, [A, b], [A]), r"variables\[0\] is a Parameter, not a cp.Variable; dual variables are"),
        (lambda q, x, A, b: (q, [A, b], [cp.Variable(name="y")]), r"variables\[0\] \('y'\) is neither a variable"),
        (lambda q, x, A, b: (q, [A, b], []), "no variables to return"),
    ],
)
def test_parameters_and_variables_that_are_not_of_the_problem_are_named(parts, change, words):
    with pytest.raises(al.ProblemError, match=words):
        read(*change(*parts))


def test_problems_that_cannot_be_read_say_why():
    x, p, q = cp.Variable(2, name="x"), cp.Parameter(name="p"), cp.Parameter(name="q")
    refused = {
        "must be DPP": cp.Problem(cp.Minimize(cp.norm(x - p * q)), []),
        "stands in the objective only": cp.Problem(
            cp.Minimize(cp.sum(x)), [cp.quad_form(x, cp.Parameter((2, 2), PSD=True)) <= 1]
        ),
        "not convex by CVXPY's rules": cp.Problem(cp.Maximize(cp.norm(x)), []),
        "i must be integer": cp.Problem(cp.Minimize(cp.sum_squares(cp.Variable(2, integer=True, name="i") - p))),
        "z is complex": cp.Problem(cp.Minimize(cp.norm(cp.Variable(2, complex=True, name="z") - p))),
    }
    for words, problem in refused.items():
        with pytest.raises(al.ProblemError, match=words):
            read(problem, None, None)
    y = cp.Variable(pos=True)
    geometric = cp.Problem(cp.Minimize(y * cp.Parameter(pos=True)), [y * y >= 1, y**-0.5 * y**2 >= 1])
    with pytest.raises(al.ProblemError, match="it is a geometric program: pass gp=True"):
        read(geometric, None, None)
    with pytest.raises(al.ProblemError, match="gp=True, but the problem is not a geometric program"):
        read(cp.Problem(cp.Minimize(cp.norm(x - p)), []), None, None, gp=True)


def test_options_that_nobody_knows_are_refused(parts):
    problem, x, A, b = parts
    with pytest.raises(al.ProblemError, match=r"options gp, canon_backend and squares, not \['pg'\]"):
        al.ArgminLayer(problem, parameters=[A, b], variables=[x], pg=True)
    with pytest.raises(TypeError, match="unexpected keyword arguments: gp"):
        al.ArgminLayer(al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)"), gp=True)


def test_dual_variables_without_rows_of_their_own_are_refused():
    x, W, z = cp.Variable(2), cp.Variable(2), cp.Variable()
    power = cp.PowConeND(W, z, np.array([0.5, 0.5]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - cp.Parameter(2)) + cp.sum(W) - z), [power, W <= 1])
    read(problem, None, [x])
    with pytest.raises(al.ProblemError, match="dual variables of PowConeND constraints cannot be returned"):
        read(problem, None, [power.dual_variables[0]])
