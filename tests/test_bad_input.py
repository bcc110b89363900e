"""Bad input: what was wrong, with its value, where, what would be right, and what to try."""

import numpy as np
import pytest
import torch
from torch import nn

import argminlayer as al

DOUBLE = torch.float64


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


PROJECT = al.Problem(half_square, "(n)->(n)")
LEAST_SQUARES = al.Problem(lambda u, A, b: (A @ u - b).square().sum(), "(m,n),(m)->(n)")
SPHERE = {"equality": lambda u, x: u @ u - 1}


def double(*entries):
    return torch.tensor(entries, dtype=DOUBLE)


def refused(kind, function, *arguments, **keywords):
    """Return the text of the error that a call raises."""
    with pytest.raises(kind) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def problem_refused(x, objective=half_square, signature="(n)->(n)", **fields):
    """Return the text of the error that solving a problem raises."""
    return refused(al.ProblemError, lambda: al.argmin(al.Problem(objective, signature, **fields), x))


# --- parameters -------------------------------------------------------------------------------------------------------


def test_mixed_dtypes_are_listed_with_their_parameters():
    message = refused(al.ProblemError, al.argmin, LEAST_SQUARES, torch.zeros(3, 2), torch.zeros(3, dtype=DOUBLE))
    for piece in ("different dtypes", "'A'", "torch.float32", "'b'", "torch.float64", "`.to(...)`"):
        assert piece in message


def test_mixed_devices_are_listed_with_their_parameters():
    message = refused(al.ProblemError, al.argmin, LEAST_SQUARES, torch.zeros(3, 2), torch.zeros(3, device="meta"))
    for piece in ("different devices", "'A'", "cpu", "'b'", "meta", "`.to(...)`"):
        assert piece in message


def test_parameters_without_values_are_refused():
    message = refused(al.ProblemError, al.argmin, PROJECT, torch.zeros(3, device="meta"))
    assert "meta" in message


def test_complex_parameters_are_named_and_their_parts_asked_for():
    message = refused(al.ProblemError, al.argmin, PROJECT, torch.zeros(3, dtype=torch.complex64))
    for piece in ("'x'", "complex", "torch.view_as_real"):
        assert piece in message


@pytest.mark.parametrize("value", [None, "abc", np.array(["a"]), {"x": 1.0}])
def test_a_parameter_that_is_no_number_is_named_with_its_type(value):
    message = refused(al.ProblemError, al.argmin, PROJECT, value)
    assert "'x'" in message
    assert type(value).__name__ in message


@pytest.mark.parametrize("solve", [al.argmin, al.solve, al.explain])
@pytest.mark.parametrize("value", [half_square, "abc", None])
def test_something_that_is_no_problem_is_named_with_its_type(solve, value):
    message = refused(al.ProblemError, solve, value, double(1.0))
    assert type(value).__name__ in message
    assert "Problem" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_parameter_that_is_not_finite_is_named_with_its_batch_index(value):
    x = torch.zeros(4, 2, dtype=DOUBLE)
    x[2, 1] = value
    message = refused(al.ProblemError, al.argmin, PROJECT, x)
    for piece in ("'x'", "is not finite", str(value), "batch index (2,)", "entry (1,)", "`throw=False`"):
        assert piece in message


def test_the_batch_index_has_all_leading_dimensions():
    x = torch.zeros(2, 3, 2, dtype=DOUBLE)
    x[1, 2, 0] = torch.nan
    assert "batch index (1, 2), entry (0,)" in refused(al.ProblemError, al.argmin, PROJECT, x)


def test_the_batch_index_is_that_of_the_broadcast_batch():
    A, b = torch.ones(2, 3, 4, 2, dtype=DOUBLE), torch.zeros(3, 4, dtype=DOUBLE)
    b[1, 3] = torch.nan
    message = refused(al.ProblemError, al.argmin, LEAST_SQUARES, A, b)
    assert "'b'" in message
    assert "batch index (0, 1), entry (3,)" in message


def test_a_shared_parameter_that_is_not_finite_concerns_every_instance():
    message = refused(al.ProblemError, al.argmin, LEAST_SQUARES, torch.ones(5, 3, 2), torch.full((3,), torch.nan))
    assert "'b'" in message
    assert "every instance" in message


def test_without_a_batch_nothing_is_said_of_other_instances():
    message = refused(al.ProblemError, al.argmin, PROJECT, double(1.0, torch.nan))
    assert "entry (1,)" in message
    assert "every instance" not in message


# --- problems ---------------------------------------------------------------------------------------------------------


def test_a_problem_with_nothing_to_do_is_refused():
    message = refused(al.ProblemError, al.Problem, None, "(n)->(n)")
    assert "needs an objective, or constraints to satisfy when objective=None" in message


def test_bounds_alone_are_no_feasibility_problem():
    assert "constraints to satisfy" in refused(al.ProblemError, al.Problem, None, "(n)->(n)", lower=0.0)


def test_nothing_to_maximise_is_refused():
    message = refused(al.ProblemError, al.Problem, None, "(n)->(n)", maximize=True, **SPHERE)
    assert "maximize=True needs an objective" in message


def test_least_squares_are_not_maximised():
    message = refused(al.ProblemError, al.least_squares, lambda u, x: u - x, "(n)->(n)", maximize=True)
    assert "the sum of squares is minimised" in message


@pytest.mark.parametrize("name", ["objective", "equality", "inequality"])
def test_a_function_that_is_not_callable_is_shown(name):
    fields = {"objective": half_square, name: 3.5}
    message = refused(al.ProblemError, al.Problem, signature="(n)->(n)", **fields)
    assert f"{name} must be a function (u, *parameters) or None, not 3.5" in message


# --- what functions return --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "found"),
    [
        (lambda u, x: (u - x).square(), "(2,)"),
        (lambda u, x: half_square(u, x)[None], "(1,)"),
        (lambda u, x: (u - x).square()[:, None], "(2, 1)"),
        (lambda u, x: 1.0, "float"),
        (lambda u, x: None, "NoneType"),
        (lambda u, x: (half_square(u, x), u), "tuple"),
    ],
)
def test_an_objective_that_is_no_scalar_tensor_is_refused_with_what_it_is(objective, found):
    message = problem_refused(double(1.0, 2.0), objective)
    assert f"objective must return a scalar tensor of shape () for one instance, not {found}" in message
    assert "`.sum()`" in message


@pytest.mark.parametrize(("dtype", "found"), [(torch.complex128, "complex"), (torch.int64, "int64")])
def test_an_objective_that_is_no_real_number_is_refused_with_its_dtype(dtype, found):
    message = problem_refused(double(1.0, 2.0), lambda u, x: half_square(u, x).to(dtype))
    assert message.startswith("objective ")
    assert found in message


def test_constraints_whose_number_depends_on_the_parameters_are_refused():
    x = double([1.0, 2.0], [-1.0, 2.0])
    message = problem_refused(x, inequality=lambda u, x: u if x[0] > 0 else u[:1])
    assert message.startswith("inequality: a function returned 1 values for instance 1")
    assert "2 for the first: their number may not depend on the parameters" in message


@pytest.mark.parametrize("name", ["equality", "inequality"])
@pytest.mark.parametrize("value", [None, "abc", (None, None)])
def test_a_constraint_that_is_no_tensor_is_refused(name, value):
    message = problem_refused(double(1.0, 2.0), **{name: lambda u, x: value})
    assert message.startswith(f"{name}: it must return a tensor, or a tuple of tensors, not ")
    assert "NoneType" in message or "str" in message


@pytest.mark.parametrize("empty", [lambda u, x: (), lambda u, x: u[:0]])
def test_a_constraint_function_may_return_no_constraint(empty):
    x = double(1.0, 2.0)
    torch.testing.assert_close(al.argmin(al.Problem(half_square, "(n)->(n)", equality=empty), x), x)


def test_a_comparison_instead_of_an_inequality_is_explained():
    message = problem_refused(double(1.0, 2.0), inequality=lambda u, x: u <= 1)
    assert message.startswith("inequality: it returned booleans")
    assert "g(u) <= 0 for inequality, for example `u - 1` instead of `u <= 1`" in message


def detached(u, x):
    return half_square(u.detach(), x)


def as_item(u, x):
    return torch.tensor(half_square(u, x).item(), dtype=DOUBLE)


def through_numpy(u, x):
    return torch.from_numpy(np.square(u.detach().numpy() - x.numpy())).sum()


def without_grad(u, x):
    with torch.no_grad():
        return half_square(u, x)


def through_data(u, x):
    return half_square(u.data, x)


def ignoring(u, x):
    return x.sum()


@pytest.mark.parametrize("function", [detached, as_item, through_numpy, without_grad, through_data, ignoring])
@pytest.mark.parametrize("name", ["objective", "equality", "inequality"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_function_that_ignores_or_detaches_the_variables_is_refused(function, name, batch):
    message = problem_refused(torch.ones(*batch, 2, dtype=DOUBLE), **{"objective": half_square, name: function})
    assert message.startswith(f"{name} does not depend on the variables u: it ignores them, or detaches them")
    for cause in ("`.detach()`", "`.item()`", "`torch.no_grad()`", "NumPy"):
        assert cause in message
    assert ("objective=None" in message) == (name == "objective")


def test_a_direct_conversion_to_numpy_is_reported_with_its_cause():
    problem = al.Problem(lambda u, x: torch.as_tensor(np.square(u.numpy()).sum()), "(n)->(n)")
    with pytest.raises(al.ProblemError, match=r"objective raised RuntimeError .*Can't call numpy\(\)") as caught:
        al.argmin(problem, double(1.0, 2.0))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_error_inside_a_function_is_reported_with_name_shapes_and_cause():
    problem = al.Problem(lambda u, A, b: u[7] + A.sum() + b.sum(), "(m,n),(m)->(n)")
    with pytest.raises(al.ProblemError, match="objective raised IndexError") as caught:
        al.argmin(problem, torch.zeros(5, 3, 2, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE))
    for piece in ("(3, 2) float64", "(3,) float64", "index 7 is out of bounds"):
        assert piece in str(caught.value)
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize("function", [lambda u: u.sum(), lambda u, x, z: u.sum() + x.sum() + z.sum()])
@pytest.mark.parametrize("name", ["objective", "equality", "inequality"])
def test_a_function_with_another_number_of_arguments_is_told_how_it_is_called(function, name):
    message = problem_refused(double(1.0, 2.0), **{"objective": half_square, name: function})
    assert message.startswith(f"{name} takes the arguments (u")
    assert "but the signature (n)->(n) has 1 parameter: it is called as (u, x0)" in message


@pytest.mark.parametrize("name", ["lower", "upper"])
def test_a_bound_with_another_number_of_arguments_is_told_how_it_is_called(name):
    message = problem_refused(double(1.0, 2.0), **{name: lambda: 0.0})
    assert name in message
    assert "argument" in message


# --- captured tensors -------------------------------------------------------------------------------------------------

LEAF = torch.ones(2, dtype=DOUBLE, requires_grad=True)
CAPTURED = {"leaf": LEAF, "result": LEAF * 2, "parameter": nn.Parameter(torch.ones(2, dtype=DOUBLE))}
ADVICE = "pass it as a parameter of the problem, or use its `.detach()`"


@pytest.mark.parametrize("kind", CAPTURED)
@pytest.mark.parametrize("name", ["objective", "equality", "inequality"])
def test_a_captured_tensor_that_requires_grad_is_refused(kind, name):
    w = CAPTURED[kind]
    message = problem_refused(
        double(1.0, 2.0), **{"objective": half_square, name: lambda u, x: (w * u - x).square().sum()}
    )
    assert message.startswith(f"{name} uses a captured tensor that requires grad")
    assert ADVICE in message


@pytest.mark.parametrize("kind", CAPTURED)
@pytest.mark.parametrize("name", ["lower", "upper"])
def test_a_bound_that_requires_grad_is_refused_when_the_problem_is_made(kind, name):
    for bound in (CAPTURED[kind], (CAPTURED[kind],)):
        message = refused(al.ProblemError, al.Problem, half_square, "(n)->(n)", **{name: bound})
        assert message.startswith(f"the {name} bound uses a captured tensor that requires grad")
        assert ADVICE in message


@pytest.mark.parametrize("kind", CAPTURED)
@pytest.mark.parametrize("bound", [lambda w, x: w, lambda w, x: w * x, lambda w, x: w[0]])
@pytest.mark.parametrize("name", ["lower", "upper"])
def test_a_bound_function_that_captures_a_tensor_that_requires_grad_is_refused(kind, bound, name):
    w = CAPTURED[kind]
    message = problem_refused(double(1.0, 2.0), **{name: lambda x: bound(w, x)})
    assert message.startswith(f"the {name} bound uses a captured tensor that requires grad")
    assert ADVICE in message


def test_the_weights_of_a_captured_module_are_captured_tensors():
    linear = nn.Linear(2, 2, dtype=DOUBLE)
    assert "captured tensor" in problem_refused(double(1.0, 2.0), lambda u, x: half_square(u, linear(x)))


def test_a_captured_tensor_is_refused_in_a_solve_without_grad_too():
    problem = al.Problem(lambda u, x: half_square(LEAF * u, x), "(n)->(n)")
    with torch.no_grad():
        assert "captured tensor" in refused(al.ProblemError, al.argmin, problem, double(1.0, 2.0))


def test_a_detached_captured_tensor_is_a_constant():
    scale = (2 * LEAF).detach()
    y = al.argmin(al.Problem(lambda u, x: half_square(scale * u, x), "(n)->(n)"), double(1.0, 2.0))
    torch.testing.assert_close(y, double(0.5, 1.0))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_captured_tensor_of_another_dtype_works_where_torch_promotes_it(batch):
    weights = torch.tensor([1.0, 4.0])
    problem = al.Problem(lambda u, x: (weights * (u - x).square()).sum(), "(n)->(n)")
    x = torch.ones(*batch, 2, dtype=DOUBLE)
    torch.testing.assert_close(al.argmin(problem, x), x)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_captured_tensor_of_another_dtype_is_reported_where_torch_refuses_it(dtype):
    A = torch.eye(2)
    message = problem_refused(torch.ones(2, dtype=dtype), lambda u, x: (A @ u - x).square().sum())
    for piece in ("objective raised RuntimeError", "float64", "convert captured tensors with `.to(u.dtype)`"):
        assert piece in message


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lower", "upper"])
def test_a_bound_of_another_shape_is_named_with_both_shapes(name):
    message = problem_refused(double(1.0, 2.0), **{name: torch.zeros(3)})
    for piece in (f"the {name} bound", "(3,)", "does not broadcast", "(2,)"):
        assert piece in message


@pytest.mark.parametrize("name", ["lower", "upper"])
def test_more_bounds_than_variables_are_counted(name):
    message = problem_refused(double(1.0, 2.0), **{name: (0.0, 0.0)})
    for piece in (name, "2 bounds", "1 variable"):
        assert piece in message


def test_a_bound_that_is_no_number_is_named():
    assert "lower" in problem_refused(double(1.0, 2.0), lower="0")


@pytest.mark.parametrize("name", ["lower", "upper"])
@pytest.mark.parametrize("bound", [torch.nan, lambda x: x * torch.nan])
def test_a_bound_that_is_nan_is_named_with_its_entry(name, bound):
    message = problem_refused(double(1.0, 2.0), **{name: bound})
    assert message.startswith(f"the {name} bound is not finite: nan at entry (0,)")


@pytest.mark.parametrize(("name", "bound", "shown"), [("lower", torch.inf, "inf"), ("upper", -torch.inf, "-inf")])
def test_a_bound_that_nothing_can_meet_is_named(name, bound, shown):
    message = problem_refused(double(1.0, 2.0), **{name: bound})
    assert message.startswith(f"the {name} bound is not finite: {shown} at entry (0,)")


def test_an_instance_whose_bound_is_nan_is_lost_alone_when_nothing_is_raised():
    problem = al.Problem(half_square, "(n)->(n)", upper=lambda x: 1.0 / x * x)
    solution = al.solve(problem, double([2.0, 3.0], [0.0, 3.0]), throw=False)
    assert solution.status.tolist() == [0, al.Status.NOT_FINITE]
    torch.testing.assert_close(solution.value[0], double(1.0, 1.0))


# --- failing solves ---------------------------------------------------------------------------------------------------

BALL = al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u @ u + x.sum(), start=0.3)
"""Infeasible where the entries of x have a positive sum."""
QUADRATIC = al.Problem(lambda u, x: (x * u * u).sum(), "(n)->(n)", start=1.0)
"""Unbounded where an entry of x is negative."""
ROSENBROCK = al.Problem(
    lambda u, a: 100 * (u[1] - u[0] ** 2) ** 2 + (a - u[0]) ** 2, "()->(2)", start=double(-1.2, 1.0)
)
BOX = al.Problem(half_square, "(n)->(n)", lower=lambda x: x, upper=1.0)
"""Infeasible where an entry of x exceeds one."""

FAILURES = {
    "constraints without a feasible point": (BALL, double([-1.0, -1.0], [1.0, 1.0], [-2.0, 0.0]), "INFEASIBLE"),
    "a lower bound above the upper": (BOX, double([0.0, 0.0], [2.0, 0.0], [0.5, 0.2]), "INFEASIBLE"),
    "an objective without a minimum": (QUADRATIC, double([1.0, 1.0], [-1.0, 1.0], [2.0, 0.5]), "UNBOUNDED"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_instance_raises_with_solver_counts_index_status_and_advice(name):
    problem, x, status = FAILURES[name]
    with pytest.raises(al.SolveFailed, match="did not solve 1 of 3 problems") as caught:
        al.argmin(problem, x)
    message = str(caught.value)
    advice = al.Status[status].advice
    assert message.startswith(("scipy.", "qp."))
    for piece in ("the first is at batch index (1,)", status, f"What to try: {advice}", "`throw=False`"):
        assert piece in message
    assert caught.value.solution.ok.tolist() == [True, False, True]


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_instance_is_nan_and_the_others_are_solved_when_nothing_is_raised(name):
    problem, x, status = FAILURES[name]
    x = x.clone().requires_grad_()
    solution = al.solve(problem, x, throw=False)
    assert solution.status.tolist() == [0, al.Status[status], 0]
    assert solution.value[1].isnan().all()
    assert solution.value[[0, 2]].isfinite().all()
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    assert gradient[1].isnan().all()
    expected = torch.autograd.grad(al.argmin(problem, x[[0, 2]]).sum(), x)[0]
    torch.testing.assert_close(gradient[[0, 2]], expected[[0, 2]])


def test_the_gradient_of_the_solved_instances_alone_is_finite_everywhere():
    problem, x, _ = FAILURES["constraints without a feasible point"]
    x = x.clone().requires_grad_()
    solution = al.solve(problem, x, throw=False)
    (gradient,) = torch.autograd.grad(solution.value[solution.ok].sum(), x)
    assert gradient.isfinite().all()
    assert gradient[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("start", [None, 0.3])
def test_an_infeasible_instance_is_given_up_in_good_time(start):
    calls = 0

    def counted(u, x):
        nonlocal calls
        calls += 1
        return u @ u + x.sum()

    problem = al.Problem(half_square, "(n)->(n)", inequality=counted, start=start)
    solution = al.solve(problem, double(1.0, 1.0), throw=False)
    assert int(solution.status) == al.Status.INFEASIBLE
    assert calls < 3000


def test_a_failed_instance_under_vmap_raises_with_the_same_words():
    x = double([0.0, 0.0], [2.0, 0.0])
    message = refused(al.SolveFailed, torch.vmap(lambda one: al.argmin(BOX, one)), x)
    for piece in ("did not solve 1 of 2 problems", "INFEASIBLE", "`throw=False`"):
        assert piece in message
    y = torch.vmap(lambda one: al.argmin(BOX, one, throw=False))(x)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


def test_the_advice_for_an_infeasible_problem_recalls_the_signs():
    message = refused(al.SolveFailed, al.argmin, BOX, double(2.0, 0.0))
    assert "`inequality` means g(u) <= 0, and `lower` must not exceed `upper`" in message


def test_maximising_a_convex_function_is_unbounded_and_the_sign_is_questioned():
    problem = al.Problem(half_square, "(n)->(n)", maximize=True)
    message = refused(al.SolveFailed, al.argmin, problem, double(1.0, 2.0))
    assert "UNBOUNDED" in message
    assert "`maximize=True`" in message


@pytest.mark.parametrize("solver", ["auto", "scipy.lbfgs", "scipy.newton", "scipy.slsqp", "scipy.trust-constr"])
def test_a_truncated_solve_raises_and_names_the_limit(solver):
    a = torch.ones(2, 3, dtype=DOUBLE)
    with pytest.raises(al.SolveFailed, match="MAX_ITERATIONS") as caught:
        al.argmin(ROSENBROCK, a, solver=solver, options={"max_iter": 1})
    message = str(caught.value)
    assert "did not solve 6 of 6 problems; the first is at batch index (0, 0)" in message
    assert "raise `max_iter`, loosen `tol`, or pass a better `start`" in message
    assert solver == "auto" or message.startswith(solver)


def test_a_truncated_solve_that_raises_nothing_shows_where_it_stopped():
    a = double(1.0, 1.1).requires_grad_()
    solution = al.solve(ROSENBROCK, a, options={"max_iter": 1}, throw=False)
    assert solution.status.tolist() == [al.Status.MAX_ITERATIONS] * 2
    assert solution.value.isnan().all()
    assert solution.iterate.isfinite().all()
    assert torch.autograd.grad(solution.value.sum(), a)[0].isnan().all()


def test_a_solve_without_a_batch_has_no_index():
    message = refused(al.SolveFailed, al.argmin, ROSENBROCK, double(1.0)[0], options={"max_iter": 1})
    assert "did not solve 1 of 1 problems: MAX_ITERATIONS" in message


def test_a_time_limit_is_reported():
    message = refused(
        al.SolveFailed, al.argmin, ROSENBROCK, double(1.0), solver="scipy.slsqp", options={"time_limit": 1e-9}
    )
    assert "TIME_LIMIT" in message
    assert "raise `time_limit`" in message


def test_an_objective_that_is_not_finite_at_the_start_is_reported():
    problem = al.Problem(lambda u, x: (u - x * u.log()).sum(), "(n)->(n)", start=-1.0)
    message = refused(al.SolveFailed, al.argmin, problem, double(1.0, 2.0))
    assert "NOT_FINITE" in message
    assert "inside the domain of the objective" in message


def test_parameters_that_are_not_finite_lose_only_their_own_instances_when_nothing_is_raised():
    x = torch.arange(12, dtype=DOUBLE).reshape(2, 3, 2)
    x[1, 0, 1] = torch.inf
    x.requires_grad_()
    solution = al.solve(PROJECT, x, throw=False)
    assert solution.status.tolist() == [[0, 0, 0], [al.Status.NOT_FINITE, 0, 0]]
    assert solution.value[1, 0].isnan().all()
    torch.testing.assert_close(solution.value[solution.ok], x[solution.ok])
    (gradient,) = torch.autograd.grad(solution.value[solution.ok].sum(), x)
    torch.testing.assert_close(gradient, solution.ok[..., None].to(DOUBLE).expand(2, 3, 2))


def test_a_shared_parameter_that_is_not_finite_loses_every_instance():
    A, b = torch.ones(5, 3, 2, dtype=DOUBLE), torch.full((3,), torch.nan, dtype=DOUBLE)
    solution = al.solve(LEAST_SQUARES, A, b, throw=False)
    assert solution.status.tolist() == [al.Status.NOT_FINITE] * 5
    assert solution.value.isnan().all()


def test_a_given_value_that_is_no_solution_is_refused_with_what_was_measured():
    message = refused(al.SolveFailed, al.attach, PROJECT, double(2.0, 2.0), double(1.0, 2.0))
    for piece in ("the given value is no solution of 1 of 1 problems", "NOT_STATIONARY", "stationarity", "signs"):
        assert piece in message
    assert "start" not in message


def test_a_given_value_for_parameters_that_are_not_finite_is_lost_alone_when_nothing_is_raised():
    x = double([1.0, torch.nan], [1.0, 2.0])
    solution = al.certify(PROJECT, x.nan_to_num(0.0), x)
    assert solution.status.tolist() == [al.Status.NOT_FINITE, 0]
    assert "batch index (0,), entry (1,)" in refused(al.ProblemError, al.attach, PROJECT, x.nan_to_num(0.0), x)


def test_a_check_finds_a_function_that_detaches_a_part_of_the_variables():
    problem = al.Problem(lambda u, x: half_square(u, x) + (u.detach() * x).sum(), "(n)->(n)")
    report = al.check(problem, double(1.0, 2.0))
    assert not report.ok
    assert "FAIL  derivative of objective in u" in str(report)


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        (torch.zeros(3), ("the value has shape (3,)", "the variable has shape (2,)")),
        ((torch.zeros(2), torch.zeros(2)), ("the value has 2 variables", "signature has 1")),
        (torch.zeros(4, 2), ("the value has leading dimensions (4,)", "do not broadcast to the batch (3,)")),
        ("abc", ("the value", "str")),
    ],
)
def test_a_given_value_of_another_shape_is_refused_with_both_shapes(value, pieces):
    message = refused(al.ProblemError, al.attach, PROJECT, value, torch.zeros(3, 2))
    for piece in pieces:
        assert piece in message


# --- derivatives that do not exist ------------------------------------------------------------------------------------


def gradient_of(problem, x, **keywords):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(al.argmin(problem, x, **keywords).sum(), x)[0]


DEPENDENT = al.Problem(
    half_square, "(2)->(2)", equality=lambda u, x: torch.stack([u.sum() - x.sum(), u.sum() - x.detach().sum()])
)
"""Two equations that agree only for the parameters as they are: they move apart with x."""
FLAT = al.Problem(lambda u, x: (u.sum() - x).square(), "()->(2)")
"""Any point with the sum x is a solution."""


def test_dependent_constraints_raise_in_the_backward_pass_and_name_the_instance():
    x = double([1.0, 2.0], [0.5, 0.0])
    message = refused(al.NotDifferentiable, gradient_of, DEPENDENT, x)
    for piece in ("2 of 2 solutions have no derivative", "batch index (0,)", "LICQ fails", "1 are redundant"):
        assert piece in message
    assert "`throw=False`" in message


def test_a_solution_that_is_not_isolated_raises_in_the_backward_pass_and_offers_what_to_do():
    message = refused(al.NotDifferentiable, gradient_of, FLAT, double(1.0, 2.0))
    for piece in ("2 of 2 solutions", "not isolated", "Hessian of the Lagrangian is singular", "regulariser"):
        assert piece in message
    assert 'backward=al.KKT(singular="minimum-norm")' in message


@pytest.mark.parametrize(("problem", "x"), [(DEPENDENT, double(1.0, 2.0)), (FLAT, double(1.0)[0])])
def test_the_solution_itself_is_returned_where_only_the_derivative_is_missing(problem, x):
    solution = al.solve(problem, x.clone().requires_grad_())
    assert bool(solution.ok)
    assert not bool(solution.certificate.regular)


@pytest.mark.parametrize(("problem", "x"), [(DEPENDENT, double(1.0, 2.0)), (FLAT, double(1.0)[0])])
def test_a_missing_derivative_is_nan_when_nothing_is_raised(problem, x):
    assert gradient_of(problem, x, throw=False).isnan().all()


def test_only_instances_that_a_cotangent_reaches_are_named():
    problem = al.Problem(lambda u, x: (u[0] - x).square() + x * u[1].square(), "()->(2)", start=1.0)
    x = double(1.0, 0.0).requires_grad_()
    y = al.argmin(problem, x)
    (gradient,) = torch.autograd.grad(y[0].sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, double(1.0, 0.0))
    message = refused(al.NotDifferentiable, torch.autograd.grad, y.sum(), x)
    assert "1 of 2 solutions have no derivative; the first at batch index (1,)" in message


def test_an_unknown_policy_for_singular_systems_is_refused():
    with pytest.raises(ValueError, match=r"singular must be 'raise', 'minimum-norm' or .*, not 'ignore'"):
        al.KKT(singular="ignore")


def test_a_sparse_parameter_is_refused_with_what_to_do():
    with pytest.raises(al.ProblemError, match=r"parameter 0 \('x'\) is sparse .* pass its `.to_dense\(\)`"):
        al.argmin(PROJECT, double(1.0, 0.0).to_sparse())


def test_multipliers_of_another_type_are_refused():
    with pytest.raises(al.ProblemError, match=r"multipliers must be al\.Multipliers, such as a solution's, not int"):
        al.attach(PROJECT, double(1.0, 2.0), double(1.0, 2.0), multipliers=3)


def test_a_function_that_changes_its_parameters_in_place_is_refused_before_it_does():
    def changing(u, x):
        return half_square(u, x.mul_(2.0))

    x = double(1.0, 2.0)
    with pytest.raises(al.ProblemError, match="objective changes its parameters in place"):
        al.argmin(al.Problem(changing, "(n)->(n)"), x)
    assert x.tolist() == [1.0, 2.0]


def test_a_point_where_the_objective_is_not_a_number_is_no_solution_though_its_gradient_is_finite():
    problem = al.Problem(lambda u, x: (x - 2.0 + 0.0 * u).log().sum() + u.square().sum(), "(n)->(n)")
    solution = al.certify(problem, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert solution.status == al.Status.NOT_FINITE
