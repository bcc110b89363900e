"""SciPy's solvers pass the suite that every plugin passes, and keep what is promised of them in particular."""

import importlib.util

import joblib
import pytest
import torch

import argminlayer as al
import argminlayer_scipy
from argminlayer._bound import bind
from argminlayer._start import first_start
from argminlayer.testing import KNOWN_PROBLEMS, SolverConformance

SOLVERS = [kind() for kind in argminlayer_scipy.argminlayer_solvers()]
BY_NAME = {known.name: known for known in KNOWN_PROBLEMS}
WITH_MULTIPLIERS = [
    known for known in KNOWN_PROBLEMS if known.problem.objective is not None and known.problem.constraints - {"bounds"}
]


class TestLBFGS(SolverConformance):
    solver = argminlayer_scipy.LBFGS()


class TestNewton(SolverConformance):
    solver = argminlayer_scipy.Newton()


class TestSLSQP(SolverConformance):
    solver = argminlayer_scipy.SLSQP()


class TestTrustConstr(SolverConformance):
    # Enough for every problem here; where there is no feasible point all of them are spent.
    solver = argminlayer_scipy.TrustConstr(max_iter=200)


class TestLeastSquares(SolverConformance):
    solver = argminlayer_scipy.LeastSquares()


class TestRoot(SolverConformance):
    solver = argminlayer_scipy.Root()


def test_no_solver_of_the_plugin_escapes_the_suite():
    suites = (TestLBFGS, TestNewton, TestSLSQP, TestTrustConstr, TestLeastSquares, TestRoot)
    assert {type(suite.solver) for suite in suites} == set(map(type, SOLVERS))


def supported_by(solver):
    """Return a known problem that takes the solver some iterations."""
    return next(k for k in KNOWN_PROBLEMS if k.far and solver.supports(bind(k.problem, k.parameters)) is None)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_a_solve_that_takes_too_long_ends_with_the_status_time_limit(solver):
    known = supported_by(solver)
    options = {"time_limit": 1e-9}
    solution = al.solve(known.problem, *known.parameters, solver=solver, options=options, throw=False)
    assert solution.status.tolist() == [al.Status.TIME_LIMIT] * 3
    assert set(solution.messages) == {"the time limit was reached"}
    with pytest.raises(al.SolveFailed, match=r"TIME_LIMIT .*What to try: raise `time_limit`"):
        al.solve(known.problem, *known.parameters, solver=solver, options=options)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_a_time_limit_that_is_not_reached_changes_nothing(solver):
    known = supported_by(solver)
    plain = al.argmin(known.problem, *known.parameters, solver=solver)
    limited = al.argmin(known.problem, *known.parameters, solver=solver, options={"time_limit": 600.0})
    assert torch.equal(limited, plain)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_parallel_solves_equal_serial_ones(backend):
    known = BY_NAME["disc"]
    serial = al.solve(known.problem, *known.parameters, solver="scipy.slsqp")
    options = {"n_jobs": 2, "backend": backend}
    parallel = al.solve(known.problem, *known.parameters, solver="scipy.slsqp", options=options)
    # another process evaluates the functions before they are recorded, and rounds in another order
    torch.testing.assert_close(parallel.value, serial.value, rtol=0, atol=1e-9)
    torch.testing.assert_close(parallel.multipliers.inequality, serial.multipliers.inequality, rtol=0, atol=1e-8)
    assert bool((parallel.iterations > 0).all())
    assert len(parallel.messages) == len(serial.messages)


class CountingBackend(joblib.parallel.BACKENDS["threading"]):
    """Threads that count how often they are asked for."""

    uses = 0

    def configure(self, *arguments, **options):
        CountingBackend.uses += 1
        return super().configure(*arguments, **options)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setitem(joblib.parallel.BACKENDS, "counting", CountingBackend)
    monkeypatch.setattr(CountingBackend, "uses", 0)
    return CountingBackend


def test_a_joblib_backend_is_chosen_by_its_name(counting):
    known = BY_NAME["ball"]
    value = al.argmin(
        known.problem, *known.parameters, solver="scipy.slsqp", options={"n_jobs": 2, "backend": "counting"}
    )
    assert counting.uses > 0
    torch.testing.assert_close(value, known.values(*known.parameters)[0])


def test_without_a_backend_that_of_the_joblib_context_is_used(counting):
    known = BY_NAME["ball"]
    with joblib.parallel_config(backend="counting"):
        al.argmin(known.problem, *known.parameters, solver="scipy.slsqp", options={"n_jobs": 2})
    assert counting.uses > 0


def test_without_joblib_only_parallel_solves_are_refused(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "joblib" else found(name))
    known = BY_NAME["ball"]
    al.argmin(known.problem, *known.parameters, solver="scipy.slsqp")
    with pytest.raises(al.SolverError, match=r"needs the package 'joblib': pip install 'argminlayer\[parallel\]'"):
        al.argmin(known.problem, *known.parameters, solver=argminlayer_scipy.SLSQP(n_jobs=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, r"scipy.slsqp: tol must be positive, not 0.0; 1e-10 is usual"),
        ({"tol": float("nan")}, r"scipy.slsqp: tol must be positive, not nan"),
        ({"max_iter": 0}, r"scipy.slsqp: max_iter must be at least 1, not 0"),
        ({"time_limit": -1.0}, r"scipy.slsqp: time_limit must be positive seconds or None, not -1.0"),
        ({"n_jobs": 0}, r"scipy.slsqp: n_jobs must be a positive number, or -1 for all cores, not 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(al.SolverError, match=message):
        argminlayer_scipy.SLSQP(**options)
    with pytest.raises(al.SolverError, match=message):
        al.argmin(BY_NAME["ball"].problem, *BY_NAME["ball"].parameters, solver="scipy.slsqp", options=options)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("quadratic", "scipy.newton"),
        ("box", "scipy.lbfgs"),
        ("sphere", "scipy.slsqp"),
        ("ball", "scipy.slsqp"),
        ("every kind of constraint", "scipy.slsqp"),
        ("linear fit", "scipy.least-squares"),
        ("fit within bounds", "scipy.least-squares"),
        ("fit with an equality", "scipy.slsqp"),
        ("cube roots", "scipy.root"),
        ("root with room", "scipy.least-squares"),
    ],
)
def test_the_plugin_picks_a_solver_by_the_kind_of_problem(name, chosen):
    known = BY_NAME[name]
    assert al.solve(known.problem, *known.parameters, solver="scipy").solver == chosen


def test_an_unconstrained_problem_of_many_variables_goes_to_lbfgs():
    problem = al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)")
    assert al.solve(problem, torch.ones(400, dtype=torch.float64), solver="scipy").solver == "scipy.lbfgs"


@pytest.mark.parametrize("method", ["trust-exact", "trust-krylov", "newton-cg"])
def test_every_variant_of_newton_finds_the_same(method):
    known = BY_NAME["valley"]
    value = al.argmin(known.problem, *known.parameters, solver="scipy.newton", options={"method": method})
    torch.testing.assert_close(value, known.values(*known.parameters)[0])


@pytest.mark.parametrize("known", WITH_MULTIPLIERS, ids=lambda known: known.name)
@pytest.mark.parametrize("solver", [argminlayer_scipy.SLSQP(), argminlayer_scipy.TrustConstr()], ids=lambda s: s.name)
def test_the_multipliers_of_the_solver_agree_with_those_recovered_at_the_solution(solver, known):
    bound = bind(known.problem, known.parameters)
    candidate = solver.solve(bound, first_start(bound))
    value = al.argmin(known.problem, *known.parameters, solver=solver)
    recovered = al.certify(known.problem, value, *known.parameters).multipliers
    torch.testing.assert_close(candidate.equality, recovered.equality, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(candidate.inequality, recovered.inequality, rtol=1e-3, atol=1e-3)
