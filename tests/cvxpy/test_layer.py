"""``CvxpyLayer`` and ``ArgminLayer`` as users of cvxpylayers call them: shapes, batches, dtypes, errors, copies."""

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy_problems import PROBLEMS, value_of

import argminlayer as al
from argminlayer_cvxpy import PIQP, SCS, Clarabel, CvxpyLayer, Named
from argminlayer_cvxpy._layer import _choose


@pytest.fixture(scope="module")
def problem():
    x, A, b = cp.Variable(4, name="x"), cp.Parameter((6, 4), name="A"), cp.Parameter(6, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [cp.norm(x) <= 1]), [A, b], [x]


@pytest.fixture(scope="module")
def layer(problem):
    return CvxpyLayer(*problem)


@pytest.fixture
def given():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(5, 6, 4, generator=draw), torch.randn(6, generator=draw)


def test_outputs_are_a_tuple_in_the_dtype_of_the_parameters(layer, given):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        A, b = (tensor.to(dtype, copy=True).requires_grad_() for tensor in given)
        outputs = layer(A, b)
        assert isinstance(outputs, tuple)
        assert (outputs[0].shape, outputs[0].dtype) == ((5, 4), dtype)
        outputs[0].sum().backward()
        assert (A.grad.dtype, b.grad.dtype) == (dtype, dtype)
    single = layer(given[0][0], given[1])
    torch.testing.assert_close(single[0], layer(*given)[0][0])


def test_leading_dimensions_broadcast(layer, given):
    A, b = given
    expected = layer(A, b)[0]
    torch.testing.assert_close(layer(A, b[None])[0], expected)
    torch.testing.assert_close(layer(A, b.expand(5, 6))[0], expected)
    assert layer(A[:1], b[None])[0].shape == (1, 4)
    assert layer(A[:, None], torch.stack([b, -b]))[0].shape == (5, 2, 4)
    torch.testing.assert_close(layer(A[:, None], torch.stack([b, -b]))[0][:, 0], expected)


def test_an_empty_batch_has_an_empty_solution(layer, given):
    A = given[0][:0].requires_grad_()
    (found,) = layer(A, given[1])
    assert found.shape == (0, 4)
    found.sum().backward()
    assert A.grad.shape == A.shape


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda A, b: (A,), "1 parameter was given, but the signature"),
        (lambda A, b: (A, b, b), "3 parameters were given, but the signature"),
        (lambda A, b: (A.mT, b), r"parameter 0 \('A'\) has shape \(5, 4, 6\)"),
        (lambda A, b: (A, b[:4]), r"parameter 1 \('b'\) has shape \(4,\)"),
        (lambda A, b: (A, b[0]), r"parameter 1 \('b'\) has shape \(\)"),
        (lambda A, b: (A, b.expand(4, 6)), r"do not broadcast: 0 \('A'\): \(5,\), 1 \('b'\): \(4,\)"),
        (lambda A, b: (A, b.double()), "the parameters have different dtypes"),
        (lambda A, b: (A, b * 1j), r"parameter 1 \('b'\) is complex"),
        (lambda A, b: (A * torch.nan, b), r"parameter 0 \('A'\) is not finite: nan at batch index \(0,\)"),
        (lambda A, b: (A, "b"), r"parameter 1 \('b'\) is of type str"),
    ],
)
def test_tensors_that_do_not_fit_are_a_value_error_that_names_them(layer, given, change, words):
    with pytest.raises(ValueError, match=words):
        layer(*change(*given))


def test_parameters_by_keyword_are_refused_and_arrays_become_tensors(layer, given):
    A, b = given
    with pytest.raises(TypeError, match="unexpected keyword argument 'b'"):
        layer(A, b=b)
    found = layer(A.numpy(), b.numpy())[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer(A, b)[0])


def test_layers_are_copied_and_pickled(layer, given):
    expected = layer(*given)[0]
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(*given)[0], expected)


def test_layers_live_inside_models_whose_solver_is_chosen_from_outside(problem, given):
    model = torch.nn.Sequential()
    model.add_module("fit", CvxpyLayer(*problem))
    al.set_solver(model, {"fit.layer": "cvxpy.scs"})
    torch.testing.assert_close(model.fit(*given)[0], CvxpyLayer(*problem)(*given)[0], rtol=1e-4, atol=1e-5)


def test_every_mode_of_torch(layer, given):
    A, b = (tensor.double() for tensor in given)
    expected = layer(A, b)[0]
    mapped = torch.func.vmap(lambda a: layer(a, b)[0])(A)
    torch.testing.assert_close(mapped, expected)
    reverse, forward = (mode(lambda a: layer(a, b)[0])(A[0]) for mode in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(reverse, forward)
    some = (A[:2].clone().requires_grad_(), b.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda *p: layer(*p)[0], some)
    assert torch.autograd.gradgradcheck(lambda *p: layer(*p)[0], some)


def test_programs_without_rows_are_differentiated_in_every_mode():
    x, q = cp.Variable(3), cp.Parameter(3)
    free = al.ArgminLayer(cp.Problem(cp.Minimize(cp.sum_squares(x) - q @ x)), parameters=[q], variables=[x])
    point = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    expected = 0.5 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.jacrev(free)(point), expected)
    torch.testing.assert_close(torch.func.jacfwd(free)(point), expected)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (None, {}, ("auto", None)),
        ("DIFFCP", {"mode": "lsqr", "n_jobs_backward": 1, "n_jobs_forward": -1}, ("auto", None)),
        (None, {"eps": 1e-7}, ("auto", {"tol": 1e-7})),
        ("SCS", {"eps": 1e-7, "max_iters": 99}, (SCS(tol=1e-7, max_iter=99), None)),
        (cp.CLARABEL, {}, (Clarabel(), None)),
        (None, {"solve_method": "Clarabel", "n_jobs_forward": 2}, (Clarabel(threads=2), None)),
        (None, {"acceleration_lookback": 0}, (SCS(settings={"acceleration_lookback": 0}), None)),
        (None, {"tol_feas": 1e-7}, (Clarabel(settings={"tol_feas": 1e-7}), None)),
        ("PIQP", {"max_iters": 7}, (PIQP(max_iter=7), None)),
        ("DAQP", {"iter_limit": 7}, (Named(solver="daqp", settings={"iter_limit": 7}), None)),
        ("cvxpy.osqp", {"eps": 1e-7}, ("cvxpy.osqp", {"tol": 1e-7})),
        (SCS(), {"tol": 1e-7}, (SCS(tol=1e-7), None)),
    ],
)
def test_names_and_settings_of_cvxpylayers_become_ours(name, arguments, expected):
    chosen = _choose(name, arguments)
    assert (chosen.solver, chosen.options or None) == expected


def test_solver_arguments_of_one_call(problem, given):
    layer = CvxpyLayer(*problem, solver_args={"eps": 1e-9})
    expected = layer(*given)[0]
    torch.testing.assert_close(layer(*given, solver_args={"solve_method": "SCS"})[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="Clarabel has no setting 'nonsense'"):
        layer(*given, solver_args={"nonsense": 1})
    torch.testing.assert_close(layer(*given, warm_start=False)[0], expected)
    with pytest.raises(ValueError, match="the layer keeps no solution of its last call"):
        layer(*given, warm_start=True)
    with pytest.raises(ValueError, match="MOREAU is a solver of cvxpylayers' own"):
        CvxpyLayer(*problem, solver="MOREAU")


def test_what_the_constructor_refuses_is_a_value_error(problem):
    stated, parameters, variables = problem
    with pytest.raises(ValueError, match=r"must be a cvxpy\.Problem, not a Minimize"):
        CvxpyLayer(stated.objective, parameters, variables)
    with pytest.raises(ValueError, match="b missing"):
        CvxpyLayer(stated, parameters[:1], variables)
    with pytest.raises(ValueError, match="neither a variable of the problem"):
        CvxpyLayer(stated, parameters, [cp.Variable(2)])
    p, q = cp.Parameter(), cp.Parameter()
    with pytest.raises(ValueError, match="must be DPP"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.norm(variables[0] - p * q))), [p, q], variables)


@pytest.mark.parametrize("cone", [False, True])
def test_failed_instances_are_named_and_the_others_keep_values_and_gradients(cone):
    low, high, c, u = cp.Parameter(), cp.Parameter(), cp.Parameter(2), cp.Variable(2)
    box = [u[0] >= low, u[0] <= high, u[1] >= -1]
    constraints = [*box, cp.norm(u) <= 10 + u[1] * 2] if cone else box
    problem = cp.Problem(cp.Minimize(c @ u + 0.5 * cp.square(u[0] - 3)), constraints)
    given = (
        torch.tensor([0.0, 2.0, 0.0, torch.nan], dtype=torch.float64, requires_grad=True),
        torch.tensor(1.0, dtype=torch.float64),
        torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=torch.float64),
    )
    layer = CvxpyLayer(problem, [low, high, c], [u])
    with pytest.raises(
        al.SolveFailed, match=r"2 of 3 problems; the first is at batch index \(1,\): INFEASIBLE"
    ) as caught:
        layer(given[0][:3], given[1], given[2][:3])
    assert caught.value.solution.status.tolist() == [0, al.Status.INFEASIBLE, al.Status.UNBOUNDED]
    with pytest.raises(ValueError, match=r"not finite: nan at batch index \(3,\)"):
        layer(*given)
    kept = al.ArgminLayer(problem, parameters=[low, high, c], variables=[u], throw=False)
    found = kept(*given)
    np.testing.assert_allclose(found[0].detach(), [1.0, -1.0], atol=1e-7)
    assert found[1:].isnan().all()
    (gradient,) = torch.autograd.grad(found[0].sum(), given[0])
    assert gradient.tolist() == [0.0] * 4
    solution = al.solve(kept.problem, *given, throw=False)
    assert solution.status.tolist() == [0, al.Status.INFEASIBLE, al.Status.UNBOUNDED, al.Status.NOT_FINITE]


def test_logarithms_without_a_bound_have_no_solution():
    X, price, weight = cp.Variable((2, 2), symmetric=True), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(price * cp.trace(X) - weight * cp.log_det(X) + X[0, 0]))
    layer = al.ArgminLayer(problem, parameters=[price, weight], variables=[X], throw=False)
    p = torch.tensor([0.5, 0.0], dtype=torch.float64, requires_grad=True)
    found = layer(p, torch.tensor(1.0, dtype=torch.float64))
    np.testing.assert_allclose(found[0].detach(), np.diag([1 / 1.5, 2.0]), atol=1e-8)
    assert found[1].isnan().all()
    (gradient,) = torch.autograd.grad(found.sum(), p)
    assert abs(gradient[0].item() + 1 / 1.5**2 + 4.0) < 1e-7
    assert gradient[1].isnan()
    status = al.solve(layer.problem, p, torch.tensor(1.0, dtype=torch.float64), throw=False).status
    assert status.tolist() == [al.Status.SOLVED, al.Status.UNBOUNDED]


def test_an_answer_that_is_cut_short_is_not_taken_for_a_solution():
    problem, _ = PROBLEMS["semidefinite, side 10"]()
    cut = CvxpyLayer(problem, problem.parameters(), problem.variables(), "CLARABEL", solver_args={"max_iters": 1})
    with pytest.raises(al.SolveFailed, match="MAX_ITERATIONS"):
        cut(torch.tensor(value_of(problem.parameters()[0], np.random.default_rng(0))))


def test_a_geometric_program_and_its_parameters(given):
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b"), cp.Parameter(name="c")
    problem = cp.Problem(cp.Minimize(1 / (x * y * z)), [a * (x * y + x * z + y * z) <= b, x >= y**c])
    layer = CvxpyLayer(problem, parameters=[a, b, c], variables=[x, y, z], gp=True)
    values = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.0, 1.0, 0.5))
    for parameter, value in zip((a, b, c), values, strict=True):
        parameter.value = value.item()
    problem.solve(cp.CLARABEL, gp=True, tol_gap_abs=1e-12, tol_gap_rel=1e-12)
    for output, variable in zip(layer(*values), (x, y, z), strict=True):
        assert output.item() == pytest.approx(variable.value, abs=1e-6)
    assert torch.autograd.gradcheck(lambda *p: torch.stack(layer(*p)), values)
    with pytest.raises(ValueError, match="parameter a must be positive"):
        layer(-values[0], values[1], values[2])


def test_solutions_are_where_the_next_solve_begins(problem, given):
    layer = al.ArgminLayer(problem[0], parameters=problem[1], variables=problem[2], solver="cvxpy.scs")
    cold = al.solve(layer.problem, *given, solver="cvxpy.scs")
    warm = al.solve(layer.problem, *given, solver="cvxpy.scs", start=cold)
    assert int(warm.iterations.max()) < int(cold.iterations.min())
    torch.testing.assert_close(layer(*given, start=cold), cold.value)


def test_objectives_have_the_sense_of_the_problem():
    x, c = cp.Variable(2), cp.Parameter(2)
    stated = cp.Problem(cp.Maximize(c @ x - cp.norm(x) ** 2 + cp.sum(c)), [x <= 3])
    c.value = np.array([1.0, -2.0])
    stated.solve(solver=cp.CLARABEL)
    solution = al.solve(al.ArgminLayer(stated).problem, torch.tensor(c.value))
    assert solution.objective.item() == pytest.approx(stated.value, abs=1e-6)
