"""What a solve returns: values, multipliers, statuses and certificates in the shapes, dtype and sense of the caller."""

import copy

import numpy as np
import pytest
import torch

import argminlayer as al

DOUBLE = torch.float64


def double(*entries):
    return torch.tensor(entries, dtype=DOUBLE)


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


PROJECT = al.Problem(half_square, "(n)->(n)")
PLANE = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1)
X = double([1.0, 2.0, 3.0], [0.5, -1.0, 0.0])


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (2, 1, 3)])
def test_every_field_has_the_shape_of_the_batch(batch):
    problem = al.Problem(
        lambda u, x: half_square(u[0], x) + u[1].square(),
        "(n)->(n),()",
        equality=lambda u, x: u[0].sum() - 1,
        inequality=lambda u, x: torch.stack([u[1] - 1, -u[1] - 1]),
        lower=(-5.0, None),
    )
    solution = al.solve(problem, torch.ones(*batch, 3, dtype=DOUBLE))
    first, second = solution.value
    assert (first.shape, second.shape) == ((*batch, 3), batch)
    multipliers = solution.multipliers
    assert (multipliers.equality.shape, multipliers.inequality.shape) == ((*batch, 1), (*batch, 2))
    assert [t.shape for t in multipliers.lower] == [t.shape for t in multipliers.upper] == [(*batch, 3), batch]
    assert [t.shape for t in solution.iterate] == [(*batch, 3), batch]
    for field in ("status", "ok", "objective", "iterations"):
        assert getattr(solution, field).shape == batch
    for name, field in vars(solution.certificate).items():
        assert field.shape == batch, name
    assert len(solution.messages) == torch.Size(batch).numel()


def test_a_matrix_shaped_variable_keeps_its_shape():
    x = torch.arange(12, dtype=DOUBLE).reshape(2, 2, 3)
    problem = al.Problem(half_square, "(m,n)->(m,n)", lower=1.0)
    solution = al.solve(problem, x)
    torch.testing.assert_close(solution.value, x.clamp_min(1.0))
    torch.testing.assert_close(solution.multipliers.lower, (1.0 - x).clamp_min(0.0))


SEVERAL_EQUALITIES = {
    "a tuple": lambda u, x: (u.sum() - 1, u[0] - u[1]),
    "a list": lambda u, x: [u.sum() - 1, u[0] - u[1]],
    "a vector": lambda u, x: torch.stack([u.sum() - 1, u[0] - u[1]]),
    "a matrix": lambda u, x: torch.stack([u.sum() - 1, u[0] - u[1]])[:, None],
    "a tuple of vectors": lambda u, x: (torch.stack([u.sum() - 1]), (u[0] - u[1])[None, None]),
}


@pytest.mark.parametrize("form", SEVERAL_EQUALITIES)
@pytest.mark.parametrize("x", [X[0], X])
def test_several_equalities_may_be_returned_in_any_form(form, x):
    x = x.clone().requires_grad_()
    solution = al.solve(al.Problem(half_square, "(n)->(n)", equality=SEVERAL_EQUALITIES[form]), x)
    normals = double([1.0, 1.0, 1.0], [1.0, -1.0, 0.0])
    inverse = torch.linalg.inv(normals @ normals.T)
    nu = (x @ normals.T - double(1.0, 0.0)) @ inverse
    torch.testing.assert_close(solution.multipliers.equality, nu)
    torch.testing.assert_close(solution.value, x - nu @ normals)
    (gradient,) = torch.autograd.grad(solution.value[..., 2].sum(), x)
    torch.testing.assert_close(gradient, (torch.eye(3) - normals.T @ inverse @ normals)[2].expand(x.shape))


def test_equalities_of_a_matrix_variable_are_flattened_by_rows():
    x = torch.arange(6, dtype=DOUBLE).reshape(2, 3)
    problem = al.Problem(half_square, "(m,n)->(m,n)", equality=lambda u, x: u[:, :2] - 1)
    assert al.solve(problem, x).multipliers.equality.tolist() == pytest.approx([-1.0, 0.0, 2.0, 3.0], abs=1e-8)


def test_equalities_that_repeat_each_other_have_the_solution_of_those_that_do_not():
    x = double([1.0, 2.0], [3.0, -1.0]).requires_grad_()
    solution = al.solve(al.Problem(half_square, "(m,n)->(m,n)", equality=lambda u, x: u - u.flip(1)), x)
    torch.testing.assert_close(solution.value, x.mean(1, keepdim=True).expand(2, 2))
    (gradient,) = torch.autograd.grad(solution.value[0, 0], x)
    torch.testing.assert_close(gradient, double([0.5, 0.5], [0.0, 0.0]))


# --- empty batches, no parameters, numbers and arrays -----------------------------------------------------------------


@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
@pytest.mark.parametrize("problem", [PROJECT, PLANE, al.Problem(half_square, "(n)->(n)", lower=lambda x: x)])
def test_an_empty_batch_has_an_empty_solution_and_gradient(batch, problem):
    x = torch.zeros(*batch, 3, dtype=DOUBLE, requires_grad=True)
    solution = al.solve(problem, x)
    assert solution.value.shape == (*batch, 3)
    assert solution.status.shape == batch
    assert solution.failure() is None
    assert torch.autograd.grad(solution.value.sum(), x)[0].shape == x.shape


def test_an_empty_batch_gives_a_shared_parameter_a_zero_gradient():
    problem = al.Problem(lambda u, x, s: half_square(u, s * x), "(n),()->(n)")
    shared = double(2.0)[0].requires_grad_()
    y = al.argmin(problem, torch.zeros(0, 3, dtype=DOUBLE), shared)
    assert float(torch.autograd.grad(y.sum(), shared)[0]) == 0.0


def test_a_problem_without_variables_has_an_empty_solution():
    assert al.argmin(PROJECT, torch.zeros(2, 0, dtype=DOUBLE)).shape == (2, 0)


def test_a_problem_without_parameters_is_solved_once():
    problem = al.Problem(lambda u: (u - 3).square().sum(), "->(n)", start=torch.zeros(4))
    y = al.argmin(problem)
    assert y.dtype == torch.get_default_dtype()
    torch.testing.assert_close(y, torch.full((4,), 3.0))


@pytest.mark.parametrize("number", [3, 3.0, np.float64(3.0), torch.tensor(3)])
def test_numbers_are_parameters(number):
    y = al.argmin(al.Problem(half_square, "()->()"), number)
    assert y.dtype == torch.get_default_dtype() or isinstance(number, np.generic)
    assert float(y) == pytest.approx(3.0)


def test_a_number_takes_the_dtype_of_the_tensors():
    problem = al.Problem(lambda u, x, s: half_square(u, s * x), "(n),()->(n)")
    torch.testing.assert_close(al.argmin(problem, double(1.0, 2.0), 0.1), double(0.1, 0.2), rtol=0.0, atol=1e-15)


def test_an_array_is_a_parameter_with_its_own_dtype():
    x = np.array([0.1, 0.2])
    y = al.argmin(PROJECT, x)
    assert y.dtype == DOUBLE
    np.testing.assert_allclose(y, x, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["lower", "upper"])
@pytest.mark.parametrize("bound", [0.1, (0.1,), lambda x: 0.1, np.array([0.1, 0.1])])
def test_a_bound_that_is_a_number_has_all_its_digits(name, bound):
    x = double(0.5, 0.5) if name == "upper" else double(-0.5, -0.5)
    y = al.argmin(al.Problem(half_square, "(n)->(n)", **{name: bound}), x)
    torch.testing.assert_close(y, double(0.1, 0.1), rtol=0.0, atol=1e-15)


def test_integers_are_data_without_a_gradient():
    problem = al.Problem(lambda u, x, k: (u - x[k]).square(), "(n),()->()")
    x = X.clone().requires_grad_()
    y = al.argmin(problem, x, torch.tensor([2, 0]))
    torch.testing.assert_close(y, double(3.0, 0.5))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_booleans_are_data_without_a_gradient():
    problem = al.Problem(lambda u, x, keep: half_square(u, torch.where(keep, x, 0.0)), "(n),(n)->(n)")
    y = al.argmin(problem, X, torch.tensor([True, False, True]))
    torch.testing.assert_close(y, X * double(1.0, 0.0, 1.0))


# --- functions with control flow --------------------------------------------------------------------------------------


def by_sign(u, x):
    return (u - x).square() if x > 0 else (u + 2 * x).square()


def by_rank(u, x):
    order = sorted(range(3), key=x.tolist().__getitem__)
    return (u[order] - x).square().sum()


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_control_flow_on_parameters_is_followed_in_each_instance(batch):
    x = torch.linspace(-1.3, 2.0, torch.Size(batch).numel(), dtype=DOUBLE).reshape(batch).requires_grad_()
    y = al.argmin(al.Problem(by_sign, "()->()"), x)
    torch.testing.assert_close(y, torch.where(x > 0, x, -2 * x))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.where(x > 0, 1.0, -2.0).to(DOUBLE))


def test_a_function_that_leaves_torch_for_its_parameters_is_followed_in_each_instance():
    x = double([3.0, 1.0, 2.0], [0.0, 5.0, -1.0]).requires_grad_()
    y = al.argmin(al.Problem(by_rank, "(n)->(n)"), x)
    order = x.argsort(dim=-1)
    torch.testing.assert_close(y, torch.zeros_like(x).scatter(-1, order, x))
    weights = double(1.0, 10.0, 100.0)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(gradient, weights[order])


def test_control_flow_in_constraints_and_bounds_is_followed_too():
    problem = al.Problem(
        half_square,
        "()->()",
        inequality=lambda u, x: u - 1 if x > 0 else -u - 1,
        upper=lambda x: 0.5 if x > 5 else torch.inf,
    )
    torch.testing.assert_close(al.argmin(problem, double(3.0, -3.0, 0.5, 9.0)), double(1.0, -1.0, 0.5, 0.5))


def test_control_flow_on_the_variables_is_allowed_where_it_is_smooth():
    def huber_like(u, x):
        return half_square(u, x) if u.norm() < 1e6 else u.norm()

    torch.testing.assert_close(al.argmin(al.Problem(huber_like, "(n)->(n)"), X), X)


def test_a_shared_parameter_gets_the_sum_through_control_flow():
    problem = al.Problem(lambda u, x, s: (u - s * x).square() if x > 0 else (u + s * x).square(), "(),()->()")
    x, s = double(1.0, -2.0, 3.0), double(2.0)[0].requires_grad_()
    y = al.argmin(problem, x, s)
    torch.testing.assert_close(y, 2 * x.abs())
    assert float(torch.autograd.grad(y.sum(), s)[0]) == pytest.approx(6.0)


# --- dtype, device, sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_have_the_dtype_of_the_parameters(dtype):
    x = X.clone().to(dtype).requires_grad_()
    solution = al.solve(PLANE, x)
    for tensor in (solution.value, solution.objective, solution.iterate, solution.multipliers.equality):
        assert tensor.dtype == dtype
        assert tensor.device == x.device
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    assert gradient.dtype == dtype
    assert solution.status.dtype == torch.int64
    assert solution.certificate.stationarity.dtype == DOUBLE


def test_single_precision_parameters_are_solved_in_double_precision():
    x = X.float()
    exact = al.argmin(PLANE, x.double())
    torch.testing.assert_close(al.argmin(PLANE, x), exact.float(), rtol=0.0, atol=1e-7)


def test_parameters_are_left_untouched():
    x = X.clone()
    al.solve(PLANE, x)
    assert torch.equal(x, X)


def test_nothing_is_differentiated_that_needs_no_gradient():
    assert not al.argmin(PLANE, X).requires_grad
    with torch.no_grad():
        assert not al.argmin(PLANE, X.clone().requires_grad_()).requires_grad


def test_a_solve_in_inference_mode_is_an_ordinary_solve():
    with torch.inference_mode():
        x = X.clone()
        solution = al.solve(PLANE, x)
        assert al.certify(PLANE, solution.value, x).ok.all()
    torch.testing.assert_close(solution.value, al.argmin(PLANE, X), rtol=0.0, atol=0.0)


def test_a_maximum_has_its_own_objective_and_the_multipliers_of_the_minimisation():
    maximise = al.Problem(lambda u, x: -half_square(u, x), "(n)->(n)", equality=PLANE.equality, maximize=True)
    found, mirrored = al.solve(maximise, X), al.solve(PLANE, X)
    torch.testing.assert_close(found.value, mirrored.value)
    torch.testing.assert_close(found.objective, -mirrored.objective)
    torch.testing.assert_close(found.multipliers.equality, mirrored.multipliers.equality)


@pytest.mark.parametrize(
    ("problem", "x", "field", "expected"),
    [
        (PLANE, double(1.0, 2.0), "equality", [1.0]),
        (al.Problem(half_square, "(n)->(n)", equality=lambda u, x: 1 - u.sum()), double(1.0, 2.0), "equality", [-1.0]),
        (al.Problem(half_square, "()->()", inequality=lambda u, x: u - 1), double(3.0)[0], "inequality", [2.0]),
        (al.Problem(half_square, "()->()", inequality=lambda u, x: u - 1), double(0.0)[0], "inequality", [0.0]),
        (al.Problem(half_square, "(n)->(n)", lower=1.0), double(-2.0, 5.0), "lower", [3.0, 0.0]),
        (al.Problem(half_square, "(n)->(n)", upper=1.0), double(-2.0, 5.0), "upper", [0.0, 4.0]),
    ],
)
def test_multipliers_have_the_signs_of_the_lagrangian(problem, x, field, expected):
    found = getattr(al.solve(problem, x).multipliers, field)
    assert found.tolist() == pytest.approx(expected, abs=1e-7)


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", al.Status)
def test_every_status_but_solved_has_advice(status):
    assert bool(status.advice) == (status is not al.Status.SOLVED)


def test_a_status_is_compared_with_a_whole_batch():
    solution = al.solve(PROJECT, double([1.0], [torch.nan]), throw=False)
    assert (solution.status == al.Status.SOLVED).tolist() == solution.ok.tolist() == [True, False]
    assert al.Status(int(solution.status[1])) is al.Status.NOT_FINITE


def test_a_solved_batch_has_no_failure_to_tell():
    assert al.solve(PROJECT, X).failure() is None


def test_the_failure_of_a_solution_is_the_text_of_the_error():
    x = double([1.0], [torch.inf], [2.0])
    problem = al.Problem(half_square, "(n)->(n)", lower=lambda x: x * 0 + 2.0, upper=1.0)
    solution = al.solve(problem, x[::2], solver="scipy.lbfgs", throw=False)
    with pytest.raises(al.SolveFailed) as caught:
        al.solve(problem, x[::2], solver="scipy.lbfgs")
    assert str(caught.value).partition(" (")[0] == solution.failure().partition(" (")[0]
    assert solution.failure().startswith(
        "scipy.lbfgs did not solve 2 of 2 problems; the first is at batch index (0,): "
    )


def test_a_solve_failed_error_holds_the_solution_of_the_others():
    problem = al.Problem(half_square, "(n)->(n)", lower=lambda x: x, upper=1.0)
    with pytest.raises(al.SolveFailed) as caught:
        al.argmin(problem, double([0.5], [2.0]))
    solution = caught.value.solution
    assert isinstance(solution, al.Solution)
    assert solution.ok.tolist() == [True, False]
    assert float(solution.value[0]) == pytest.approx(0.5)


def test_failed_instances_have_nan_multipliers_and_a_finite_iterate():
    problem = al.Problem(half_square, "(n)->(n)", lower=lambda x: x, upper=1.0)
    solution = al.solve(problem, double([0.5, 0.5], [2.0, 0.5]), throw=False)
    assert solution.multipliers.lower[1].isnan().all()
    assert solution.multipliers.lower[0].isfinite().all()
    assert solution.iterate.isfinite().all()
    assert not solution.iterate.requires_grad


# --- what was measured ------------------------------------------------------------------------------------------------


def test_a_certificate_measures_small_residuals_at_a_solution():
    certificate = al.solve(PLANE, X).certificate
    for field in ("stationarity", "feasibility", "complementarity", "dual_feasibility", "error"):
        assert bool((getattr(certificate, field) < 1e-10).all())
    assert certificate.regular.tolist() == [True, True]
    assert certificate.kind.tolist() == [al.PointKind.MINIMUM] * 2


def test_a_certificate_counts_active_and_weakly_active_constraints():
    problem = al.Problem(half_square, "(n)->(n)", lower=0.0, inequality=lambda u, x: u.sum() - 10)
    certificate = al.solve(problem, double([1.0, -1.0], [-1.0, -1.0], [0.0, 1.0])).certificate
    assert certificate.active.tolist() == [1, 2, 1]
    assert certificate.weakly_active.tolist() == [0, 0, 1]
    assert certificate.margin[2] < 1e-6 < certificate.margin[0]


def test_without_inequalities_and_bounds_the_margin_is_infinite():
    assert al.solve(PLANE, X).certificate.margin.tolist() == [torch.inf, torch.inf]


def test_a_solution_says_who_found_it_and_how_long_that_took():
    solution = al.solve(PLANE, X, solver="scipy.slsqp")
    assert solution.solver == "scipy.slsqp"
    assert solution.seconds > 0
    assert bool((solution.iterations > 0).all())
    assert all(isinstance(message, str) and message for message in solution.messages)


def test_a_certified_value_has_no_solver_and_no_iterations():
    solution = al.certify(PROJECT, X, X)
    assert solution.solver == "the given value"
    assert solution.iterations.tolist() == [-1, -1]
    assert solution.ok.all()


def test_a_value_that_is_no_solution_is_judged_instance_by_instance():
    solution = al.certify(PLANE, double([0.5, 0.5], [2.0, 2.0], [1.0, 0.0]), double([1.0, 1.0], [2.0, 2.0], [1.0, 1.0]))
    assert solution.status.tolist() == [0, al.Status.NOT_FEASIBLE, al.Status.NOT_STATIONARY]


def test_a_solution_without_gradient_can_be_copied():
    solution = al.solve(PLANE, X)
    twin = copy.deepcopy(solution)
    torch.testing.assert_close(twin.value, solution.value)
    assert twin.solver == solution.solver
