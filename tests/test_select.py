"""Which solver a problem gets: asked for by name, by plugin, from outside, or chosen and explained."""

import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import argminlayer as al
from argminlayer import _registry

DOUBLE = torch.float64
X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=DOUBLE)


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


PROJECT = al.Problem(half_square, "(n)->(n)")
SIMPLEX = al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0)
SYSTEM = al.Problem(None, "(n)->(n)", equality=lambda u, x: u**3 + u - x)
SCIPY = ("lbfgs", "least-squares", "newton", "root", "slsqp", "trust-constr")


def refused(kind, function, *arguments, **keywords):
    with pytest.raises(kind) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


@dataclass(frozen=True)
class Fake(al.AbstractSolver):
    """Takes one Newton step, which solves a projection; what else it does is up to its fields."""

    name: ClassVar[str] = "fake.one"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities()
    rank: float = 0.0
    tol: float = 1e-6

    def available(self):
        return al.Availability(True)

    def preference(self, problem):
        return self.rank

    def solve(self, problem, start):
        _, slope = problem.gradient(start)
        return al.Candidate(start - slope, torch.zeros(problem.batch, dtype=torch.int64))


@dataclass(frozen=True)
class Missing(Fake):
    """Its back end is not installed."""

    name: ClassVar[str] = "fake.missing"
    rank: float = 99.0

    def available(self):
        return al.Availability.of_module("surely_not_installed", extra="surely")

    def solve(self, problem, start):
        raise AssertionError("it is not installed")


@dataclass(frozen=True)
class Broken(Fake):
    """Breaks when it is asked whether it supports a problem."""

    name: ClassVar[str] = "fake.broken"

    def supports(self, problem):
        raise ZeroDivisionError("no support")


@dataclass(frozen=True)
class Idle(Fake):
    """Solves nothing."""

    name: ClassVar[str] = "fake.idle"

    def solve(self, problem, start):
        status = torch.full((problem.batch,), int(al.Status.BREAKDOWN))
        return al.Candidate(start, status, messages=("gave up",) * problem.batch)


def install(monkeypatch, *solvers, failures=None):
    """Let these solvers be all that is installed."""
    registry = replace(_registry.load_from([]), solvers={s.name: s for s in solvers}, failures=failures or {})
    monkeypatch.setattr(_registry, "load", lambda: registry)


@pytest.fixture
def only_scipy(monkeypatch):
    """Let SciPy's solvers be all that is installed: what else is depends on who runs the tests."""
    install(monkeypatch, *(s for name, s in _registry.load().solvers.items() if name.startswith("scipy.")))


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"), [("scipy.lbfg", "'scipy.lbfgs'"), ("sippy", "'scipy'"), ("slsqp", "'scipy.slsqp'")]
)
@pytest.mark.usefixtures("only_scipy")
def test_an_unknown_solver_is_refused_with_near_matches_and_what_is_installed(name, near):
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver=name)
    assert message.startswith(f"there is no solver {name!r}. Did you mean ")
    assert near in message.partition("?")[0]
    assert message.partition("Installed: ")[2] == ", ".join(f"scipy.{method}" for method in SCIPY) + "."


@pytest.mark.usefixtures("only_scipy")
def test_a_name_like_no_other_gets_no_guess():
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver="gurobi")
    assert message.startswith("there is no solver 'gurobi'. Installed: scipy.lbfgs")


def test_a_name_of_a_plugin_that_failed_to_load_says_so(monkeypatch):
    install(monkeypatch, Fake(), failures={"casadi": al.PluginError("no libipopt")})
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver="casadi.ipopt")
    assert "Installed: fake.one." in message
    assert "The plugin 'casadi' is installed but failed to load: no libipopt" in message


def test_nothing_installed_is_said_in_words(monkeypatch):
    install(monkeypatch)
    assert "Installed: none." in refused(al.SolverError, al.argmin, PROJECT, X, solver="scipy")
    assert "no installed solver can solve the problem" in refused(al.SolverError, al.argmin, PROJECT, X)


@pytest.mark.parametrize("solver", [3, Fake, ["scipy"]])
def test_a_solver_that_is_neither_name_nor_value_is_shown(solver):
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver=solver)
    assert message.startswith("solver must be a name or ")
    assert repr(solver) in message


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "solver", "reason", "kind"),
    [
        (SIMPLEX, "scipy.newton", "does not handle bounds and equalities", "smooth objective, 2 variables, 1 equality"),
        (SIMPLEX, "scipy.lbfgs", "does not handle equalities", "bounds, batch of 3"),
        (PROJECT, "scipy.root", "does not handle a general objective", "unconstrained, batch of 3"),
        (SYSTEM, "scipy.newton", "does not handle equalities", "feasibility, 2 variables, 2 equalities"),
        (al.Problem(None, "(n)->(n)", equality=lambda u, x: (u - x)[:1]), "scipy.root", "as many equations", "1 eq"),
    ],
)
def test_a_solver_that_does_not_fit_gives_its_reason_and_the_class_of_the_problem(problem, solver, reason, kind):
    message = refused(al.SolverError, al.argmin, problem, X, solver=solver)
    assert message.startswith(f"solver {solver!r} cannot be used: ")
    for piece in (reason, kind, "`al.explain(problem, *parameters)`"):
        assert piece in message


def test_a_solver_value_is_held_to_its_capabilities_as_well():
    message = refused(al.SolverError, al.argmin, SIMPLEX, X, solver=Fake())
    assert "solver 'fake.one' cannot be used: does not handle bounds and equalities" in message


def test_a_plugin_none_of_whose_solvers_fits_gives_every_reason(monkeypatch):
    install(monkeypatch, Fake(), Missing())
    message = refused(al.SolverError, al.argmin, SIMPLEX, X, solver="fake")
    assert message.startswith("no solver of the plugin 'fake' can solve the problem (smooth objective, 2 variables")
    assert "fake.one: does not handle bounds and equalities" in message
    assert "fake.missing: needs the package" in message


@pytest.mark.parametrize("solver", [Missing(), "fake.missing"])
def test_a_missing_back_end_is_named_with_the_extra_that_installs_it(monkeypatch, solver):
    install(monkeypatch, Fake(), Missing())
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver=solver)
    assert "solver 'fake.missing' cannot be used: needs the package 'surely_not_installed'" in message
    assert "pip install 'argminlayer[surely]'" in message


def test_automatic_choice_passes_over_a_missing_back_end(monkeypatch):
    install(monkeypatch, Missing(), Fake())
    assert al.solve(PROJECT, X).solver == "fake.one"


def test_automatic_choice_passes_over_a_broken_solver_and_says_what_broke(monkeypatch):
    install(monkeypatch, Broken(rank=99.0), Fake())
    assert al.solve(PROJECT, X).solver == "fake.one"
    assert "fake.broken  no: its plugin is broken: ZeroDivisionError: no support" in str(al.explain(PROJECT, X))


def test_parallel_solves_without_joblib_name_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver="scipy.slsqp", options={"n_jobs": 2})
    assert "pip install 'argminlayer[parallel]'" in message


# --- options ----------------------------------------------------------------------------------------------------------


def test_an_unknown_option_is_refused_with_a_near_match_and_all_options():
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver="scipy.slsqp", options={"max_iters": 3})
    assert message.startswith("solver 'scipy.slsqp' has no option 'max_iters'. Did you mean 'max_iter'?")
    assert message.endswith("Its options: tol, max_iter, time_limit, n_jobs, backend")


def test_automatic_choice_checks_options_against_the_solver_it_picks():
    message = refused(al.SolverError, al.argmin, PROJECT, X, options={"maxiter": 3})
    assert message.startswith("solver 'scipy.newton' has no option 'maxiter'. Did you mean 'max_iter'?")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_iter": 0}, "max_iter must be at least 1, not 0"),
        ({"tol": -1.0}, "tol must be positive, not -1.0"),
        ({"time_limit": 0.0}, "time_limit must be positive seconds or None, not 0.0"),
        ({"n_jobs": 0}, "n_jobs must be a positive number, or -1 for all cores, not 0"),
        ({"max_iter": "3"}, "max_iter"),
    ],
)
def test_an_option_outside_its_range_is_refused_with_its_value(options, text):
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver="scipy.slsqp", options=options)
    assert "scipy.slsqp" in message
    assert text in message


def test_options_replace_fields_and_leave_the_installed_solver_alone(monkeypatch):
    install(monkeypatch, Fake())
    al.solve(PROJECT, X, options={"tol": 1e-3})
    assert _registry.load().solvers["fake.one"].tol == 1e-6


# --- what a solver returns --------------------------------------------------------------------------------------------


def returning(**fields):
    """Return a solver whose candidate has other fields than a sound one."""

    @dataclass(frozen=True)
    class Odd(Fake):
        name: ClassVar[str] = "fake.odd"

        def solve(self, problem, start):
            return replace(super().solve(problem, start), **{k: make(start) for k, make in fields.items()})

    return Odd()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"value": lambda z: z[:, :1]}, "value of shape (3, 1) instead of (3, 2)"),
        ({"value": lambda z: z[0]}, "value of shape (2,) instead of (3, 2)"),
        ({"status": lambda z: torch.tensor(0)}, "status of shape () instead of (3,)"),
        ({"equality": lambda z: z, "inequality": lambda z: z[:, :0]}, "equality of shape (3, 2) instead of (3, 0)"),
        ({"equality": lambda z: z[:, :0], "inequality": lambda z: z}, "inequality of shape (3, 2) instead of (3, 0)"),
        ({"iterations": lambda z: torch.zeros(7)}, "iterations of shape (7,) instead of (3,)"),
        ({"value": lambda z: np.zeros((3, 2))}, "value"),
        ({"status": lambda z: torch.full((3,), 77)}, "status"),
        ({"messages": lambda z: ("one",)}, "messages"),
    ],
)
def test_a_solver_that_returns_something_malformed_is_named_as_faulty(fields, text):
    message = refused(al.SolverError, al.argmin, PROJECT, X, solver=returning(**fields))
    assert message.startswith("solver 'fake.odd' returned ")
    assert text in message
    assert "this is a fault of the plugin that provides it" in message


def test_a_solver_that_returns_no_candidate_is_named_as_faulty():
    @dataclass(frozen=True)
    class Nothing(Fake):
        def solve(self, problem, start):
            return None

    message = refused(al.SolverError, al.argmin, PROJECT, X, solver=Nothing())
    for piece in ("fake.one", "NoneType", "Candidate"):
        assert piece in message


def test_a_solver_that_raises_is_named_and_its_exception_is_kept():
    @dataclass(frozen=True)
    class Raising(Fake):
        def solve(self, problem, start):
            raise KeyError("boom")

    with pytest.raises(al.SolverError, match=r"fake\.one.*KeyError.*boom") as caught:
        al.argmin(PROJECT, X, solver=Raising())
    assert isinstance(caught.value.__cause__, KeyError)


def test_the_word_of_a_solver_for_success_is_not_taken():
    message = refused(al.SolveFailed, al.argmin, PROJECT, X, solver=returning(value=lambda z: z + 9.0))
    assert message.startswith(
        "fake.odd did not solve 3 of 3 problems; the first is at batch index (0,): NOT_STATIONARY"
    )


def test_the_word_of_a_solver_for_failure_does_not_spoil_a_solution():
    solver = returning(status=lambda z: torch.full((3,), int(al.Status.BREAKDOWN)))
    torch.testing.assert_close(al.argmin(PROJECT, X, solver=solver), X)


def test_nan_from_a_solver_is_a_failure_of_that_instance_alone():
    def one_lost(z):
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, X)

    solution = al.solve(PROJECT, X, solver=returning(value=one_lost), start=0.0, throw=False)
    assert solution.status.tolist() == [0, al.Status.NOT_FINITE, 0]
    assert solution.value[1].isnan().all()


def test_what_a_solver_says_of_a_failure_is_passed_on():
    message = refused(al.SolveFailed, al.argmin, PROJECT, X, solver=Idle())
    assert "BREAKDOWN" in message
    assert "the solver said: gave up" in message
    assert al.Status.BREAKDOWN.advice in message


# --- automatic choice -------------------------------------------------------------------------------------------------


def test_automatic_choice_takes_the_highest_preference(monkeypatch):
    @dataclass(frozen=True)
    class Second(Fake):
        name: ClassVar[str] = "other.two"

    install(monkeypatch, Fake(rank=1.0), Second(rank=2.0))
    assert al.solve(PROJECT, X).solver == "other.two"
    assert al.solve(PROJECT, X, solver="fake").solver == "fake.one"


def test_automatic_choice_falls_back_on_what_is_left_unsolved_and_names_both(monkeypatch):
    install(monkeypatch, Idle(rank=9.0), Fake())
    solution = al.solve(PROJECT, X)
    assert solution.solver == "fake.idle, fake.one"
    torch.testing.assert_close(solution.value, X)


def test_a_solver_asked_for_by_name_has_no_fallback(monkeypatch):
    install(monkeypatch, Idle(rank=9.0), Fake())
    assert refused(al.SolveFailed, al.argmin, PROJECT, X, solver="fake.idle").startswith("fake.idle did not solve 3")


def test_a_plugin_picks_the_solver_by_the_kind_of_problem():
    assert al.solve(PROJECT, X, solver="scipy").solver == "scipy.newton"
    assert al.solve(SIMPLEX, X, solver="scipy").solver == "scipy.slsqp"
    assert al.solve(SYSTEM, X, solver="scipy").solver == "scipy.root"
    least_squares = al.least_squares(lambda u, x: u - x, "(n)->(n)")
    assert al.solve(least_squares, X, solver="scipy").solver == "scipy.least-squares"
    assert al.solve(al.Problem(half_square, "(n)->(n)", lower=0.0), X, solver="scipy").solver == "scipy.lbfgs"


# --- precedence -------------------------------------------------------------------------------------------------------


def used(**keywords):
    return al.solve(PROJECT, X, **keywords).solver


def test_the_environment_chooses_where_nothing_else_does(monkeypatch):
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "scipy.lbfgs")
    assert used() == "scipy.lbfgs"
    assert used(solver="scipy.slsqp") == "scipy.slsqp"
    assert used(solver="auto") == "scipy.newton"


def test_an_empty_environment_variable_chooses_nothing(monkeypatch):
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "")
    assert used() == "scipy.newton"


def test_use_solver_goes_before_the_environment_and_after_the_call(monkeypatch):
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "scipy.lbfgs")
    with al.use_solver("scipy.slsqp"):
        assert used() == "scipy.slsqp"
        assert used(solver="scipy.trust-constr") == "scipy.trust-constr"
    assert used() == "scipy.lbfgs"


def test_use_solver_takes_a_solver_value():
    with al.use_solver(Fake()):
        assert used() == "fake.one"


def test_the_innermost_use_solver_counts_and_the_outer_one_comes_back():
    with al.use_solver("scipy.slsqp"):
        with al.use_solver("scipy.lbfgs"):
            assert used() == "scipy.lbfgs"
        assert used() == "scipy.slsqp"
    assert used() == "scipy.newton"


def test_use_solver_ends_with_its_block_even_if_that_raises():
    with pytest.raises(KeyError), al.use_solver("scipy.slsqp"):
        raise KeyError("inside")
    assert used() == "scipy.newton"


def test_use_solver_is_local_to_its_thread():
    seen = []
    with al.use_solver("scipy.slsqp"):
        thread = threading.Thread(target=lambda: seen.append(used()))
        thread.start()
        thread.join()
        assert used() == "scipy.slsqp"
    assert seen == ["scipy.newton"]


def layer_used(layer, **keywords):
    """Return which solver a layer's call asks for, by making that solver fail."""
    with pytest.raises(al.SolveFailed) as caught:
        layer(X[:, 0], **keywords)
    return caught.value.solution.solver


ROSENBROCK = al.Problem(
    lambda u, a: 100 * (u[1] - u[0] ** 2) ** 2 + (a - u[0]) ** 2, "()->(2)", start=torch.tensor([-1.2, 1.0])
)


def test_a_layer_asks_the_call_then_use_solver_then_itself_then_the_environment(monkeypatch):
    @dataclass(frozen=True)
    class Environment(Idle):
        name: ClassVar[str] = "fake.environment"

    @dataclass(frozen=True)
    class Own(Idle):
        name: ClassVar[str] = "fake.own"

    @dataclass(frozen=True)
    class Block(Idle):
        name: ClassVar[str] = "fake.block"

    @dataclass(frozen=True)
    class Call(Idle):
        name: ClassVar[str] = "fake.call"

    install(monkeypatch, Environment(), Own(), Block(), Call())
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "fake.environment")
    layer, plain = al.ArgminLayer(ROSENBROCK, solver="fake.own"), al.ArgminLayer(ROSENBROCK)
    assert layer_used(plain) == "fake.environment"
    assert layer_used(layer) == "fake.own"
    with al.use_solver("fake.block"):
        assert layer_used(plain) == "fake.block"
        assert layer_used(layer) == "fake.block"
        assert layer_used(layer, solver="fake.call") == "fake.call"
    assert layer_used(layer) == "fake.own"


def test_an_unknown_solver_from_the_environment_is_traced_to_it(monkeypatch):
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "nonsense")
    message = refused(al.SolverError, al.argmin, PROJECT, X)
    assert message.startswith(
        "there is no solver 'nonsense' (asked for by the environment variable ARGMINLAYER_SOLVER)"
    )


def test_an_unknown_solver_is_refused_where_use_solver_is_entered():
    with (
        pytest.raises(al.SolverError, match=r"there is no solver 'sipy'\. Did you mean 'scipy'"),
        al.use_solver("sipy"),
    ):
        raise AssertionError("the block must not be entered")


# --- explain ----------------------------------------------------------------------------------------------------------


class Costly(Fake):
    """Knows at no cost how well it suits at most, and counts how often it is asked for more."""

    name: ClassVar[str] = "fake.costly"
    asked: ClassVar[list[float]] = []

    def preference_limit(self, problem):
        return self.rank

    def supports(self, problem):
        self.asked.append(self.rank)
        return super().supports(problem)


def numbered(number):
    return type(f"Fake{number}", (Fake,), {"name": f"fake.number-{number}"})(rank=float(number))


@pytest.mark.parametrize(("rank", "asked"), [(0.5, False), (1.0, True), (2.5, True)])
def test_solvers_that_cannot_be_among_the_best_are_not_asked_whether_they_support_a_problem(monkeypatch, rank, asked):
    costly = Costly(rank=rank)
    install(monkeypatch, costly, *map(numbered, (1, 2, 3)))
    monkeypatch.setattr(Costly, "asked", [])
    solution = al.solve(PROJECT, X)
    assert solution.solver == "fake.number-3"
    assert Costly.asked == [rank] * asked
    choice = al.explain(PROJECT, X).choice
    assert f"the highest of {4 if asked else 'the'} usable solvers" in choice.why
    assert [s.name for s in choice.chain].count("fake.costly") == (rank >= 1.0)


def test_automatic_choice_imports_no_back_end_that_it_does_not_come_to():
    pytest.importorskip("casadi", reason="the third solver of the choice")
    code = (
        "import sys, torch, argminlayer as al;"
        "x = torch.ones(2, dtype=torch.float64);"
        "al.solve(al.Problem(lambda u, x: (u - x).square().sum() + u.pow(4).sum(), '(n)->(n)', lower=0.0), x);"
        "print('cvxpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.usefixtures("only_scipy")
def test_an_explanation_lists_every_solver_with_its_reason_and_the_choice():
    lines = str(al.explain(SIMPLEX, X)).splitlines()
    assert lines == [
        "problem: smooth objective, 2 variables, 1 equality, bounds, batch of 3",
        "class: quadratic program (objective quadratic, equalities linear)",
        "solvers:",
        "  scipy.slsqp          usable, preference 10",
        "  scipy.trust-constr   usable, preference 6",
        "  scipy.lbfgs          no: does not handle equalities",
        "  scipy.least-squares  no: does not handle a general objective",
        "  scipy.newton         no: does not handle bounds and equalities",
        "  scipy.root           no: does not handle bounds",
        "choice: scipy.slsqp, preference 10, the highest of 2 usable solvers; for instances it does not solve: "
        "scipy.trust-constr",
    ]


@pytest.mark.parametrize(
    ("problem", "parameters", "text"),
    [
        (PROJECT, (X[0],), "smooth objective, 2 variables, unconstrained, one instance"),
        (al.Problem(half_square, "()->()", maximize=True), (X[0, 0],), "maximise, smooth objective, 1 variable, "),
        (SYSTEM, (X,), "feasibility, 2 variables, 2 equalities, batch of 3"),
        (al.least_squares(lambda u, x: u - x, "(n)->(n)"), (X,), "least squares, 2 variables, unconstrained"),
        (
            al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: torch.cat([u, -u]) - 1),
            (X.expand(4, 3, 2),),
            "4 inequalities, batch of 12",
        ),
    ],
)
def test_an_explanation_begins_with_the_class_of_the_problem(problem, parameters, text):
    first = str(al.explain(problem, *parameters)).splitlines()[0]
    assert first.startswith("problem: ")
    assert text in first


def test_an_explanation_follows_what_is_asked_for(monkeypatch):
    assert al.explain(PROJECT, X, solver="scipy.lbfgs").choice.why == "scipy.lbfgs, as asked"
    with al.use_solver("scipy.slsqp"):
        assert al.explain(PROJECT, X).choice.chain[0].name == "scipy.slsqp"
    monkeypatch.setenv("ARGMINLAYER_SOLVER", "scipy.trust-constr")
    assert al.explain(PROJECT, X).choice.chain[0].name == "scipy.trust-constr"


def test_an_explanation_without_a_usable_solver_has_no_choice(monkeypatch):
    install(monkeypatch, Fake(), Missing())
    explanation = al.explain(SIMPLEX, X)
    assert explanation.choice is None
    assert str(explanation).endswith("choice: no installed solver can solve this")
    assert "pip install 'argminlayer[surely]'" in str(explanation)


def test_an_explanation_without_any_solver_says_so(monkeypatch):
    install(monkeypatch)
    assert "  none installed" in str(al.explain(PROJECT, X)).splitlines()


def test_an_explanation_of_an_unknown_solver_is_an_error():
    assert "there is no solver 'gurobi'" in refused(al.SolverError, al.explain, PROJECT, X, solver="gurobi")
