"""Where solvers begin: one start or several, given with the problem or at the call, and starts that do not fit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import argminlayer as al

DOUBLE = torch.float64


def double(*entries):
    return torch.tensor(entries, dtype=DOUBLE)


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


def two_wells(u, x):
    """Minima near plus and minus one; the global one has the sign opposite to that of x."""
    return (u**2 - 1).square() + 0.3 * x * u


WELLS = al.Problem(two_wells, "()->()")
LEFT, RIGHT = -1.0356, 0.9601
PROJECT = al.Problem(half_square, "(n)->(n)")
PAIR = al.Problem(lambda u, x: half_square(u[0], x) + (u[1] - x.sum()).square(), "(n)->(n),()")


@dataclass(frozen=True)
class Stay(al.AbstractSolver):
    """Returns the start: whoever is certified was started at the solution."""

    name: ClassVar[str] = "fake.stay"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"})
    )

    def available(self):
        return al.Availability(True)

    def solve(self, problem, start):
        return al.Candidate(start, torch.zeros(problem.batch, dtype=torch.int64))


def started_at(problem, *parameters, **keywords):
    """Return where a solver is started."""
    return al.solve(problem, *parameters, solver=Stay(), throw=False, **keywords).iterate


def with_start(problem, start):
    return al.Problem(problem.objective, problem.signature, lower=problem.lower, upper=problem.upper, start=start)


def refused(function, *arguments, **keywords):
    with pytest.raises(al.ProblemError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


STARTS = {
    "a tensor": torch.tensor([3.0, 4.0]),
    "an array": np.array([3.0, 4.0]),
    "a function": lambda x: torch.stack([3.0 + 0 * x[0], 4.0 + 0 * x[1]]),
    "a list of one": [torch.tensor([3.0, 4.0])],
    "a tensor for each instance": torch.tensor([[3.0, 4.0]] * 3),
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_may_be_given_with_the_problem_or_at_the_call(kind):
    x = torch.zeros(3, 2, dtype=DOUBLE)
    expected = double([3.0, 4.0]).expand(3, 2)
    torch.testing.assert_close(started_at(with_start(PROJECT, STARTS[kind]), x), expected)
    torch.testing.assert_close(started_at(PROJECT, x, start=STARTS[kind]), expected)


def test_a_number_starts_every_entry():
    assert started_at(PROJECT, torch.zeros(2, 3, dtype=DOUBLE), start=7).tolist() == [[7.0] * 3] * 2


def test_a_start_at_the_call_replaces_that_of_the_problem():
    assert started_at(with_start(PROJECT, 1.0), double(0.0), start=2.0).tolist() == [2.0]
    assert float(al.argmin(with_start(WELLS, -1.0), double(1.0)[0], start=1.0)) == pytest.approx(RIGHT, abs=1e-4)


def test_each_instance_has_its_own_start():
    y = al.argmin(WELLS, double(1.0, 1.0), start=double(1.0, -1.0))
    torch.testing.assert_close(y, double(RIGHT, LEFT), rtol=0.0, atol=1e-4)


def test_a_start_as_a_function_sees_the_parameters_of_its_instance():
    x = double([1.0, 2.0], [3.0, 4.0])
    torch.testing.assert_close(started_at(PROJECT, x, start=lambda x: 2 * x), 2 * x)


def test_a_start_function_with_data_dependent_control_flow_is_followed():
    x = double(1.0, -1.0)
    assert started_at(WELLS, x, start=lambda x: x if x > 0 else 5 * x).tolist() == [1.0, -5.0]


def test_a_start_broadcasts_over_leading_dimensions():
    x = torch.zeros(2, 3, 2, dtype=DOUBLE)
    start = torch.arange(6, dtype=DOUBLE).reshape(3, 2)
    torch.testing.assert_close(started_at(PROJECT, x, start=start), start.expand(2, 3, 2))


def test_several_variables_have_a_tuple_of_starts():
    x = torch.zeros(3, 2, dtype=DOUBLE)
    first, second = started_at(PAIR, x, start=(torch.tensor([1.0, 2.0]), 5.0))
    assert first.tolist() == [[1.0, 2.0]] * 3
    assert second.tolist() == [5.0] * 3


def test_a_start_outside_the_bounds_is_moved_to_them():
    problem = al.Problem(half_square, "(n)->(n)", lower=0.0, upper=1.0)
    assert started_at(problem, double(0.5, 0.5), start=double(-3.0, 9.0)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [({}, 0.0), ({"lower": 2.0}, 3.0), ({"upper": -2.0}, -3.0), ({"lower": 2.0, "upper": 6.0}, 4.0)],
)
def test_without_a_start_solvers_begin_inside_the_bounds(bounds, expected):
    problem = al.Problem(lambda u, x: u.sum() * x.sum(), "()->(2)", **bounds)
    solution = al.solve(problem, double(1.0)[0], solver=Stay(), throw=False)
    assert solution.iterate.tolist() == [expected] * 2


# --- several starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [[1.0, -1.0], [-1.0, 1.0], [lambda x: -x, lambda x: x], [0.9, lambda x: -x / x]])
def test_of_several_starts_the_best_solution_wins_in_each_instance(starts):
    x = double(1.0, -1.0).requires_grad_()
    for y in (al.argmin(WELLS, x, start=starts), al.argmin(with_start(WELLS, starts), x)):
        torch.testing.assert_close(y, double(LEFT, -LEFT), rtol=0.0, atol=1e-4)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, -0.3 / (12 * y.detach() ** 2 - 4))


def test_the_best_of_a_maximisation_is_the_largest():
    problem = al.Problem(lambda u, x: -two_wells(u, x), "()->()", maximize=True)
    solution = al.solve(problem, double(1.0)[0], start=[1.0, -1.0])
    assert float(solution.value) == pytest.approx(LEFT, abs=1e-4)
    assert float(solution.objective) == pytest.approx(-float(two_wells(double(LEFT)[0], 1.0)), abs=1e-6)


@pytest.mark.parametrize("starts", [[2.0, 1.0], [1.0, 2.0]])
def test_a_start_whose_answer_is_not_certified_never_wins(starts):
    # the objective at the start 2 is lower, but it is no solution
    problem = al.Problem(lambda u, x: u**3 / 3 - u**2 / 2 - 0 * x if u < 1.5 else -10 * u, "()->()")
    solution = al.solve(problem, double(0.0)[0], solver=Stay(), start=starts)
    assert float(solution.value) == 1.0


@pytest.mark.parametrize("count", [1, 3])
def test_all_starts_may_fail(count):
    with pytest.raises(al.SolveFailed, match=r"^fake\.stay did not solve 1 of 1 problems"):
        al.argmin(PROJECT, double(1.0, 2.0), solver=Stay(), start=[0.0] * count)


# --- warm starts ------------------------------------------------------------------------------------------------------


def test_a_solution_is_a_start():
    solution = al.solve(WELLS, double(1.0, -1.0), start=double(1.0, -1.0))
    again = al.solve(WELLS, double(1.0, -1.0), start=solution)
    torch.testing.assert_close(again.value, solution.value)
    assert bool((again.iterations <= 1).all())
    assert bool((again.iterations < solution.iterations).all())


def test_a_solution_starts_neighbouring_problems_in_its_own_well():
    solution = al.solve(WELLS, double(1.0), start=1.0)
    assert float(al.argmin(WELLS, double(1.1), start=solution)) == pytest.approx(0.956, abs=2e-3)


def test_a_warm_start_carries_no_gradient():
    x = double(1.0).requires_grad_()
    solution = al.solve(WELLS, x, start=1.0)
    other = double(1.1).requires_grad_()
    y = al.argmin(WELLS, other, start=solution)
    assert torch.autograd.grad(y.sum(), x, allow_unused=True) == (None,)


def test_a_failed_solution_starts_where_it_stopped():
    rosenbrock = al.Problem(lambda u, a: 100 * (u[1] - u[0] ** 2) ** 2 + (a - u[0]) ** 2, "()->(2)")
    a, start = double(1.0), double(-1.2, 1.0)
    stopped = al.solve(rosenbrock, a, start=start, options={"max_iter": 3}, throw=False)
    assert stopped.value.isnan().all()
    torch.testing.assert_close(started_at(rosenbrock, a, start=stopped), stopped.iterate)
    torch.testing.assert_close(al.argmin(rosenbrock, a, start=stopped), double([1.0, 1.0]))


def test_solutions_and_other_starts_may_be_listed_together():
    solution = al.solve(WELLS, double(1.0), start=1.0)
    assert float(al.argmin(WELLS, double(1.0), start=[solution, -1.0])) == pytest.approx(LEFT, abs=1e-4)


def test_a_start_that_requires_grad_is_taken_by_value():
    start = torch.ones(2, dtype=DOUBLE, requires_grad=True)
    x = double(1.0, 2.0).requires_grad_()
    for problem in (with_start(PROJECT, start), with_start(PROJECT, lambda x: start * x)):
        y = al.argmin(problem, x)
        assert torch.autograd.grad(y.sum(), start, allow_unused=True) == (None,)


# --- starts that do not fit -------------------------------------------------------------------------------------------

MISFITS = {
    "another shape": (torch.zeros(3), ("the start has shape (3,)", "the variable has shape (2,)")),
    "another shape from a function": (lambda x: torch.zeros(3), ("the start has shape (3,)", "shape (2,)")),
    "another batch": (torch.zeros(4, 2), ("leading dimensions (4,)", "do not broadcast to the batch (3,)")),
    "two variables": ((torch.zeros(2), torch.zeros(2)), ("the start has 2 variables", "signature has 1")),
    "no variables": ((), ("the start has 0 variables", "signature has 1")),
    "an empty list": ([], ("the list of starts is empty", "None for the default")),
    "nan": (torch.tensor([torch.nan, 0.0]), ("the start has NaN or infinite entries", "finite point")),
    "infinity": (torch.inf, ("the start has NaN or infinite entries", "finite point")),
    "nan from a function": (lambda x: x * torch.nan, ("the start has NaN or infinite entries", "finite point")),
    "a text": ("abc", ("start", "str")),
    "a dictionary": ({}, ("start", "dict")),
    "None in a list": ([None], ("start", "NoneType")),
    "None from a function": (lambda x: None, ("start", "NoneType")),
    "a function of nothing": (lambda: 0.0, ("start", "argument")),
    "a function that raises": (lambda x: x[9], ("start", "IndexError")),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_start_that_does_not_fit_is_refused_with_what_would(kind):
    start, pieces = MISFITS[kind]
    x = torch.zeros(3, 2, dtype=DOUBLE)
    for message in (refused(al.argmin, PROJECT, x, start=start), refused(al.argmin, with_start(PROJECT, start), x)):
        for piece in pieces:
            assert piece in message


# --- sizes that only the start knows ----------------------------------------------------------------------------------


def summing(u, x):
    return (u - x.sum()).square().sum()


@pytest.mark.parametrize("start", [torch.zeros(3), torch.zeros(2, 3), [torch.zeros(3), torch.ones(3)]])
def test_a_size_that_no_parameter_has_comes_from_the_start(start):
    y = al.argmin(al.Problem(summing, "(n)->(k)", start=start), torch.ones(2, 4, dtype=DOUBLE))
    torch.testing.assert_close(y, torch.full((2, 3), 4.0, dtype=DOUBLE))


def test_a_size_that_no_parameter_has_comes_from_a_start_function():
    problem = al.Problem(summing, "(n)->(k)", start=lambda x: x.new_zeros(3))
    torch.testing.assert_close(al.argmin(problem, double(1.0, 1.0)), double(2.0, 2.0, 2.0))


def test_a_size_that_no_parameter_has_comes_from_a_start_at_the_call():
    y = al.argmin(al.Problem(summing, "(n)->(k)"), double(1.0, 1.0), start=torch.zeros(3))
    torch.testing.assert_close(y, double(2.0, 2.0, 2.0))


@pytest.mark.parametrize("start", [None, 0.0])
def test_a_size_that_nothing_tells_is_named_with_its_variable(start):
    message = refused(al.argmin, al.Problem(summing, "(n)->(n),(k)", start=start), double(1.0, 1.0))
    for piece in ("no parameter has the dimension 'k' of variable 1", "(n)->(n),(k)", "as an integer", "`start`"):
        assert piece in message
