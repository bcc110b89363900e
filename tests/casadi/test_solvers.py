"""What is promised of CasADi's solvers in particular: textbook programs, models kept, limits, refusals, many paths."""

import subprocess
import sys

import pytest
import torch

import argminlayer as al
import argminlayer_casadi
from argminlayer._bound import bind
from argminlayer._start import first_start
from argminlayer.testing import KNOWN_PROBLEMS, central_differences

pytest.importorskip("casadi", reason="needs the extra casadi")

DOUBLE = torch.float64
BOTH = ["casadi.ipopt", "casadi.sqp"]
BY_NAME = {known.name: known for known in KNOWN_PROBLEMS}
WITH_MULTIPLIERS = [
    known for known in KNOWN_PROBLEMS if known.problem.objective is not None and known.problem.constraints - {"bounds"}
]


def values(*numbers):
    return torch.tensor(numbers, dtype=DOUBLE)


# Hock and Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, each with a parameter.
TEXTBOOK = {
    "HS 6": (
        al.Problem(
            lambda u, x: (1 - u[0]).square(),
            "()->(2)",
            equality=lambda u, x: 10 * (u[1] - x * u[0].square()),
            start=values(-1.2, 1.0),
        ),
        1.0,
        values(1.0, 1.0),
    ),
    "HS 35": (
        al.Problem(
            lambda u, x: (
                9
                - 8 * u[0]
                - 6 * u[1]
                - 4 * u[2]
                + 2 * u[0] ** 2
                + 2 * u[1] ** 2
                + u[2] ** 2
                + 2 * u[0] * u[1]
                + 2 * u[0] * u[2]
            ),
            "()->(3)",
            inequality=lambda u, x: u[0] + u[1] + 2 * u[2] - x,
            lower=0.0,
            start=values(0.5, 0.5, 0.5),
        ),
        3.0,
        values(4 / 3, 7 / 9, 4 / 9),
    ),
    "HS 43": (
        al.Problem(
            lambda u, x: u[0] ** 2 + u[1] ** 2 + 2 * u[2] ** 2 + u[3] ** 2 - 5 * u[0] - 5 * u[1] - 21 * u[2] + 7 * u[3],
            "()->(4)",
            inequality=lambda u, x: torch.stack(
                [
                    u[0] ** 2 + u[1] ** 2 + u[2] ** 2 + u[3] ** 2 + u[0] - u[1] + u[2] - u[3] - x,
                    u[0] ** 2 + 2 * u[1] ** 2 + u[2] ** 2 + 2 * u[3] ** 2 - u[0] - u[3] - 10,
                    2 * u[0] ** 2 + u[1] ** 2 + u[2] ** 2 + 2 * u[0] - u[1] - u[3] - 5,
                ]
            ),
        ),
        8.0,
        values(0.0, 1.0, 2.0, -1.0),
    ),
    "HS 71": (
        al.Problem(
            lambda u, x: u[0] * u[3] * (u[0] + u[1] + u[2]) + u[2],
            "()->(4)",
            equality=lambda u, x: u.square().sum() - 40,
            inequality=lambda u, x: x - u.prod(),
            lower=1.0,
            upper=5.0,
            start=values(1.0, 5.0, 5.0, 1.0),
        ),
        25.0,
        values(1.0, 4.742999637, 3.821149979, 1.379408293),
    ),
    "HS 78": (
        al.Problem(
            lambda u, x: u.prod(),
            "()->(5)",
            equality=lambda u, x: torch.stack(
                [u.square().sum() - x, u[1] * u[2] - 5 * u[3] * u[4], u[0] ** 3 + u[1] ** 3 + 1]
            ),
            start=values(-2.0, 1.5, 2.0, -1.0, -1.0),
        ),
        10.0,
        values(-1.717143, 1.595709, 1.827247, -0.7636413, -0.7636450),
    ),
}


@pytest.mark.parametrize("name", TEXTBOOK)
@pytest.mark.parametrize("solver", BOTH)
def test_textbook_programs_have_their_optimum_and_their_derivative(name, solver):
    problem, parameter, optimum = TEXTBOOK[name]
    x = torch.tensor(parameter, dtype=DOUBLE, requires_grad=True)
    weights = torch.cos(torch.arange(1.0, 1.0 + len(optimum), dtype=DOUBLE))
    value = al.argmin(problem, x, solver=solver)
    torch.testing.assert_close(value.detach(), optimum, rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(weights @ value, x)
    (difference,) = central_differences(lambda t: weights @ al.argmin(problem, t, solver=solver), x.detach())
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("known", WITH_MULTIPLIERS, ids=lambda known: known.name)
@pytest.mark.parametrize("solver", [argminlayer_casadi.IPOPT(), argminlayer_casadi.SQP()], ids=lambda s: s.name)
def test_the_multipliers_of_the_solver_agree_with_those_recovered_at_the_solution(solver, known):
    bound = bind(known.problem, known.parameters)
    candidate = solver.solve(bound, first_start(bound))
    value = al.argmin(known.problem, *known.parameters, solver=solver)
    recovered = al.certify(known.problem, value, *known.parameters).multipliers
    torch.testing.assert_close(candidate.equality, recovered.equality, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(candidate.inequality, recovered.inequality, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", BOTH)
def test_a_model_is_built_once_for_every_value_of_the_parameters(solver, monkeypatch):
    from argminlayer_casadi import _model

    built = []
    build = _model._build
    monkeypatch.setattr(_model, "_build", lambda *given: built.append(None) or build(*given))
    scale = [1.0 + 0.01 * len(solver)]
    problem = al.Problem(lambda u, x: scale[0] * (u - x).square().sum(), "(n)->(n)", inequality=lambda u, x: u @ u - 1)
    for x in (values(3.0, 4.0), values(1.0, 2.0), values(3.0, 4.0).expand(7, 2)):
        torch.testing.assert_close(al.argmin(problem, x, solver=solver), x / x.norm(dim=-1, keepdim=True))
    assert len(built) == 1
    scale[0] += 1.0
    al.argmin(problem, values(3.0, 4.0), solver=solver)
    assert len(built) == 2


@pytest.mark.parametrize("solver", BOTH)
def test_instances_that_branch_on_parameters_are_solved_along_their_paths(solver):
    def objective(u, x):
        target = x if x.sum() > 0 else -2 * x
        return (u - target).square().sum()

    x = values(1.0, -2.0, 3.0, -4.0)[:, None].expand(4, 2).clone().requires_grad_()
    y = al.argmin(al.Problem(objective, "(n)->(n)"), x, solver=solver)
    factor = torch.where(x.detach() > 0, 1.0, -2.0).to(DOUBLE)
    torch.testing.assert_close(y.detach(), factor * x.detach())
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], factor)


@pytest.mark.parametrize("solver", BOTH)
def test_what_cannot_be_recorded_is_refused_with_its_line(solver):
    def objective(u, x):
        return (u - x).square().sum() if u.sum() > -9 else u.sum()

    with pytest.raises(al.SolverError, match=rf"solver '{solver}' cannot be used: objective \('objective'\), line \d+"):
        al.argmin(al.Problem(objective, "(n)->(n)"), values(1.0, 2.0), solver=solver)
    assert al.explain(al.Problem(objective, "(n)->(n)"), values(1.0, 2.0)).choice is not None


def test_systems_with_a_matrix_of_the_variables_are_solved_by_casadi():
    def objective(u, x):
        matrix = torch.diag(u + 2) + 0.1
        return (
            torch.linalg.solve(matrix, x).sum()
            + torch.logdet(matrix)
            + u.square().sum()
            + torch.linalg.inv(matrix)[0, 0]
        )

    problem = al.Problem(objective, "(n)->(n)")
    x = values(1.0, 2.0, 0.5)
    torch.testing.assert_close(
        al.argmin(problem, x, solver="casadi.ipopt"), al.argmin(problem, x, solver="scipy.newton"), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("solver", BOTH)
def test_a_solve_that_takes_too_long_ends_with_the_status_time_limit(solver):
    problem, parameter, _ = TEXTBOOK["HS 71"]
    solution = al.solve(problem, parameter, solver=solver, options={"time_limit": 1e-9}, throw=False)
    assert solution.status == al.Status.TIME_LIMIT
    assert "time limit" in solution.messages[0]
    with pytest.raises(al.SolveFailed, match="raise `time_limit`"):
        al.solve(problem, parameter, solver=solver, options={"time_limit": 1e-9})
    assert bool(al.solve(problem, parameter, solver=solver, options={"time_limit": 600.0}).ok)


@pytest.mark.parametrize("solver", BOTH)
def test_an_objective_that_is_not_finite_is_named(solver):
    problem = al.Problem(lambda u, x: (u - x).sqrt().sum() + u.square().sum(), "(n)->(n)")
    solution = al.solve(problem, values(10.0, 10.0), solver=solver, throw=False)
    assert solution.status in (al.Status.NOT_FINITE, al.Status.BREAKDOWN)


def test_a_dense_hessian_is_estimated_and_the_message_says_so():
    matrix = torch.cos(torch.arange(300.0, dtype=DOUBLE)[:, None] * torch.arange(5.0, dtype=DOUBLE))
    problem = al.Problem(
        lambda u, x: torch.logsumexp(u, 0) + (u - x).square().sum() + (matrix.T @ u).square().sum(), "(n)->(n)"
    )
    x = torch.sin(torch.arange(300.0, dtype=DOUBLE))
    solution = al.solve(problem, x, solver="casadi.ipopt")
    assert "limited-memory Hessian, because the exact one has 90000 nonzeros" in solution.messages[0]
    exact = al.solve(problem, x, solver="casadi.ipopt", options={"hessian": "exact"})
    assert "limited" not in exact.messages[0]
    torch.testing.assert_close(solution.value, exact.value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["HS 35", "HS 71"])
def test_a_warm_start_near_the_solution_takes_fewer_iterations(name):
    problem, parameter, _ = TEXTBOOK[name]
    first = al.solve(problem, parameter, solver="casadi.ipopt")
    again = al.solve(problem, parameter + 0.01, solver="casadi.ipopt", start=first, options={"warm_start": True})
    assert bool(again.ok)
    assert again.iterations <= first.iterations - 3
    torch.testing.assert_close(again.value, al.argmin(problem, parameter + 0.01, solver="casadi.sqp"))


@pytest.mark.parametrize("qp", ["qrqp", "osqp"])
def test_sqp_has_a_choice_of_quadratic_solver(qp):
    known = BY_NAME["disc"]
    value = al.argmin(known.problem, *known.parameters, solver="casadi.sqp", options={"qp": qp})
    torch.testing.assert_close(value, known.values(*known.parameters)[0], rtol=1e-6, atol=1e-6)


def test_more_equalities_than_variables_are_left_to_others():
    twice = al.Problem(
        lambda u, x: u.square().sum(), "(2)->(2)", equality=lambda u, x: torch.cat([u - x, 2 * u - 2 * x])
    )
    with pytest.raises(al.SolverError, match="needs at most as many equalities as variables, not 4 and 2"):
        al.argmin(twice, values(1.0, 2.0), solver="casadi.ipopt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, "casadi.sqp: tol must be positive, not 0.0; 1e-8 is usual"),
        ({"max_iter": 0}, "casadi.sqp: max_iter must be at least 1, not 0"),
        ({"time_limit": -1.0}, "casadi.sqp: time_limit must be positive seconds or None, not -1.0"),
        ({"hessian": "none"}, r"casadi.sqp: hessian must be one of \('auto', 'exact', 'limited-memory'\), not 'none'"),
        ({"expand": "maybe"}, r"casadi.sqp: expand must be one of \('auto', 'yes', 'no'\), not 'maybe'"),
        ({"qp": "highs"}, "casadi.sqp: qp must be 'qrqp' or 'osqp', not 'highs'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(al.SolverError, match=message):
        argminlayer_casadi.SQP(**options)


INTERRUPTED = """
import os, signal, threading, torch, argminlayer as al
# a shell that runs the tests in the background makes its children ignore interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
def chain(u, x):
    return (100 * (u[1:] - u[:-1] ** 2) ** 2 + (x - u[:-1]) ** 2).sum()
problem = al.Problem(chain, "()->(1500)", start=torch.sin(1.7 * torch.arange(1500, dtype=torch.float64)))
parameters = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
al.solve(problem, parameters, solver="casadi.ipopt", options={"max_iter": 2}, throw=False)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    al.solve(problem, parameters, solver="casadi.ipopt", options={"tol": 1e-300}, throw=False)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_ends_the_whole_call():
    said = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert "interrupted" in said


def test_without_casadi_its_solvers_say_what_to_install():
    code = (
        "import importlib.util, torch, argminlayer as al\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'casadi' else find(name, *more)\n"
        "problem = al.Problem(lambda u, x: (u - x).square().sum(), '(n)->(n)')\n"
        "try:\n"
        "    al.argmin(problem, torch.ones(2), solver='casadi.ipopt')\n"
        "except al.SolverError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "needs the package 'casadi': pip install 'argminlayer[casadi]'" in said
