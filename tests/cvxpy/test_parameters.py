"""The map from parameters to data: against CVXPY's own numbers, in batches, and in every mode of autograd."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from cvxpy_problems import PROBLEMS, assign, value_of

import argminlayer as al
from argminlayer_cvxpy._read import read


def reading(name, seed=0, squares=True):
    """Return a problem, its cone program, and random values of its parameters."""
    problem, _ = PROBLEMS[name]()
    generator = np.random.default_rng(seed)
    program = read(problem, None, None, gp=name == "geometric", squares=squares)
    return problem, program, [value_of(p, generator) for p in problem.parameters()]


def tensors(values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


def dense(pattern, P, A):
    n, m = pattern.size, pattern.cones.rows
    upper = sp.coo_array((P.numpy(), (pattern.P_rows, pattern.P_columns)), shape=(n, n)).toarray()
    return upper, sp.coo_array((A.numpy(), (pattern.A_rows, pattern.A_columns)), shape=(m, n)).toarray()


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_data_are_those_that_cvxpy_gives_to_scs(name):
    problem, program, values = reading(name, squares=False)
    assign(problem.parameters(), values)
    solver = cp.SCS if problem.constraints or name != "quadratic form" else cp.CLARABEL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY reads its own sparse parameters in a way that it warns of
        data, _, inverse = problem.get_problem_data(solver, gp=name == "geometric")
    P, q, A, b, constant = program.data(*tensors(values))
    upper, rows = dense(program.pattern, P, A)
    expected = np.zeros_like(upper) if data.get("P") is None else np.triu(data["P"].toarray())
    np.testing.assert_allclose(upper, expected, atol=1e-12)
    np.testing.assert_allclose(q, data["c"], atol=1e-12)
    np.testing.assert_allclose(rows, data["A"].toarray() if rows.size else rows, atol=1e-12)
    np.testing.assert_allclose(b, data["b"] if b.numel() else b, atol=1e-12)
    np.testing.assert_allclose(constant.item(), inverse[-1]["offset"], atol=1e-12)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_batch_has_the_data_of_its_members_and_shares_what_does_not_vary(name):
    problem, program, values = reading(name)
    generator = np.random.default_rng(1)
    parameters = problem.parameters()
    for varying in range(len(parameters)):
        several = np.stack([value_of(parameters[varying], generator) for _ in range(3)])
        batch = [several if i == varying else value for i, value in enumerate(values)]
        found = program.data(*tensors(batch))
        for k in range(3):
            one = program.data(*tensors([several[k] if i == varying else v for i, v in enumerate(values)]))
            for block, expected in zip(found, one, strict=True):
                torch.testing.assert_close(block[k] if block.ndim > expected.ndim else block, expected)
        moved = program.data(*tensors([several[1] if i == varying else v for i, v in enumerate(values)]))
        still = program.data(*tensors([several[0] if i == varying else v for i, v in enumerate(values)]))
        for block, first, second in zip(found, still, moved, strict=True):
            assert block.ndim > first.ndim or torch.equal(first, second)


def test_leading_dimensions_broadcast():
    _, program, (A, b, weight) = reading("lasso")
    order = [p.split("'")[1] for p in program.parameter_names]
    given = {"A": torch.tensor(A), "b": torch.tensor(b), "weight": torch.tensor(weight)}
    given["A"] = given["A"].expand(2, 1, 3, 4) * torch.tensor([1.0, 2.0])[:, None, None, None]
    given["b"] = given["b"] * torch.arange(3.0)[:, None]
    P, q, rows, right, constant = program.data(*[given[name].double() for name in order])
    assert P.shape[:-1] == (2, 3)
    assert q.shape[:-1] == (2, 3)
    assert (rows.ndim, right.ndim) == (1, 1)
    assert constant.shape == (2, 3)


@pytest.mark.parametrize("name", ["lasso", "ball", "all matrices", "geometric"])
def test_the_map_is_differentiable_in_every_mode(name):
    _, program, values = reading(name)
    given = tuple(t.requires_grad_() for t in tensors(values))

    def data(*parameters):
        return torch.cat([block.flatten() for block in program.data(*parameters)])

    assert torch.autograd.gradcheck(data, given, check_forward_ad=True)
    if name == "geometric":
        assert torch.autograd.gradgradcheck(data, given)
    everything = tuple(range(len(given)))
    backward, forward = (jac(data, everything)(*given) for jac in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(backward, forward)
    stacked = tuple(torch.stack([t, t * 1.5]) for t in given)
    mapped = torch.func.vmap(data)(*stacked)
    torch.testing.assert_close(mapped, torch.stack([data(*(t[i] for t in stacked)) for i in range(2)]))


def test_the_gradient_of_a_symmetric_parameter_is_symmetric():
    _, program, (C,) = reading("semidefinite, side 4")
    given = torch.tensor(C, requires_grad=True)
    weights = torch.randn(program.pattern.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (program.data(given)[1] * weights).sum().backward()
    assert torch.equal(given.grad, given.grad.mT)
    assert given.grad.abs().min() > 0


@pytest.mark.parametrize("name", ["lasso", "matrix", "moving bounds", "special variables"])
def test_sums_of_squares_without_variables_of_their_own_have_the_same_solution(name):
    problem, program, values = reading(name)
    _, whole, _ = reading(name, squares=False)
    assert program.pattern.size < whole.pattern.size
    solutions = [al.solve(each, *tensors(values)) for each in (program, whole)]
    one, other = ((s.value if isinstance(s.value, tuple) else (s.value,)) for s in solutions)
    for value, expected in zip(one, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(solutions[0].objective, solutions[1].objective, rtol=1e-8, atol=1e-8)
    assign(problem.parameters(), values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.CLARABEL)
    assert solutions[0].objective.item() == pytest.approx(problem.value, rel=1e-5, abs=1e-6)


def test_variables_that_are_returned_and_rows_whose_multipliers_are_stay():
    x, t, A, b = cp.Variable(2), cp.Variable(3), cp.Parameter((3, 2)), cp.Parameter(3)
    named = t == A @ x - b
    problem = cp.Problem(cp.Minimize(cp.sum_squares(t) + cp.sum(x)), [named])
    given = tensors([np.random.default_rng(0).standard_normal(p.shape) for p in (A, b)])
    outputs = [read(problem, [A, b], wanted) for wanted in ([x], [x, t], [x, named.dual_variables[0]])]
    sizes = [program.pattern.size for program in outputs]
    assert sizes[0] < min(sizes[1:])
    solutions = [al.argmin(program, *given) for program in outputs]
    for solution in solutions[1:]:
        torch.testing.assert_close(solution[0], solutions[0], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(solutions[1][1], given[0] @ solutions[0] - given[1])
    torch.testing.assert_close(solutions[2][1], -2.0 * solutions[1][1], rtol=1e-7, atol=1e-9)


def test_a_matrix_of_640000_parameters_is_read_without_anything_that_grows_faster():
    # Seconds and megabytes are in benchmarks/cvxpy_layers.py.
    A, b, x = cp.Parameter((800, 800)), cp.Parameter(800), cp.Variable(800)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0])
    given = torch.ones(800, 800, dtype=torch.float64), torch.ones(800, dtype=torch.float64)
    whole, program = (read(problem, [A, b], [x], squares=squares) for squares in (False, True))
    for each in (whole, program):
        blocks = each.data.affine.blocks
        assert sum(block.data.nbytes + block.indices.nbytes + block.indptr.nbytes for block in blocks) < 20e6
    P, _, rows, _, _ = whole.data(*given)
    assert (P.numel(), rows.numel()) == (800, 800 * 800 + 2 * 800)
    P, _, rows, _, _ = program.data(*given)
    assert (P.numel(), rows.numel()) == (800 * 801 // 2, 800)


@pytest.mark.parametrize(
    ("attribute", "wrong", "words"),
    [
        ({"nonneg": True}, -1.0, "nonnegative"),
        ({"nonpos": True}, 1.0, "nonpositive"),
        ({"pos": True}, 0.0, "positive"),
        ({"neg": True}, 0.0, "negative"),
        ({"symmetric": True}, [[0.0, 1.0], [2.0, 0.0]], "symmetric"),
        ({"PSD": True}, [[1.0, 0.0], [0.0, -1.0]], "positive semidefinite"),
        ({"NSD": True}, [[1.0, 0.0], [0.0, -1.0]], "negative semidefinite"),
        ({"diag": True}, [[1.0, 1.0], [0.0, 1.0]], "zero outside of its sparsity pattern"),
        ({"sparsity": ([0], [1])}, [[1.0, 1.0], [0.0, 0.0]], "zero outside of its sparsity pattern"),
        ({"bounds": [-1.0, 2.0]}, 3.0, "within its bounds"),
    ],
)
def test_values_that_the_parameter_of_cvxpy_refuses_are_refused_with_their_batch_index(attribute, wrong, words):
    shape = () if np.ndim(wrong) == 0 else (2, 2)
    p, x = cp.Parameter(shape, name="p", **attribute), cp.Variable(shape, name="x")
    program = read(cp.Problem(cp.Minimize(cp.sum_squares(x - p))), [p], [x])
    good = torch.tensor(value_of(p, np.random.default_rng(0)) if "bounds" not in attribute else 0.5)
    batch = torch.stack([good, torch.tensor(wrong, dtype=torch.float64), good])
    with pytest.raises(al.ProblemError, match=rf"parameter p at batch index \(1,\) must be {words}, as its CVXPY"):
        program.data(batch)
    with pytest.raises(al.ProblemError, match="parameter p at batch index"):
        torch.func.vmap(lambda v: program.data(v)[1])(batch)
    program.data(batch[::2] + (0.0 if "pos" in attribute or "neg" in attribute else 1e-9))
    program.data(torch.full_like(good, torch.nan))
