"""The solvers of the plugin on models read in: routes, multipliers, and every way in which a solve can fail."""

import dataclasses
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pyomo.environ as pyo
import pytest
import torch

import argminlayer as al
from argminlayer_pyomo import Highs, Ipopt, Named

ROUTES = ("casadi", "pounce")
DOUBLE = {"dtype": torch.float64}


def quadratic(sense):
    """Return a problem with equality, both sides of a range and an inequality, minimised or maximised."""
    m = pyo.ConcreteModel()
    sign = 1 if sense == pyo.minimize else -1
    m.p = pyo.Param(initialize=3.0, mutable=True)
    m.x = pyo.Var([1, 2], bounds=(0, 10))
    m.total = pyo.Constraint(expr=m.x[1] + m.x[2] == m.p)
    m.least = pyo.Constraint(expr=m.x[1] >= 1)
    m.range = pyo.Constraint(expr=(0.1, m.x[2] - m.x[1], 0.5))
    m.o = pyo.Objective(expr=sign * (m.x[1] ** 2 + 2 * m.x[2] ** 2 + m.x[1]), sense=sense)
    return m


def hard():
    """Return a problem that takes IPOPT tens of iterations: Rosenbrock's valley."""
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=1.0, mutable=True)
    m.x = pyo.Var([1, 2], initialize={1: -1.2, 2: 1.0})
    m.o = pyo.Objective(expr=100 * (m.x[2] - m.x[1] ** 2) ** 2 + (m.p - m.x[1]) ** 2)
    return m


def problem_of(model):
    return al.ArgminLayer(model).problem


def solved(model, p, solver, **options):
    return al.solve(problem_of(model), torch.tensor(p, **DOUBLE), solver=solver, options=options or None, throw=False)


@pytest.mark.parametrize("sense", [pyo.minimize, pyo.maximize], ids=["min", "max"])
@pytest.mark.parametrize("solver", [Ipopt(route="casadi"), Ipopt(route="pounce"), Highs(), Named(solver="highs")])
def test_multipliers_have_our_sign_in_both_senses_and_for_both_sides_of_a_range(sense, solver):
    found = solved(quadratic(sense), [3.0, 4.0], solver)
    assert found.status.tolist() == [0, 0]
    torch.testing.assert_close(found.value, torch.tensor([[1.45, 1.55], [1.95, 2.05]], **DOUBLE))
    torch.testing.assert_close(found.multipliers.equality, torch.tensor([[-5.05], [-6.55]], **DOUBLE))
    expected = torch.tensor([[0.0, 0.0, 1.15], [0.0, 0.0, 1.65]], **DOUBLE)
    torch.testing.assert_close(found.multipliers.inequality, expected)


@pytest.mark.parametrize("sense", [pyo.minimize, pyo.maximize], ids=["min", "max"])
@pytest.mark.parametrize("solver", [Ipopt(route="casadi"), Ipopt(route="pounce"), Highs()], ids=lambda s: s.name)
def test_the_solver_itself_returns_these_multipliers(sense, solver):
    seen = []

    class Watching(type(solver)):
        def solve(self, problem, start):
            seen.append(super().solve(problem, start))
            return seen[-1]

    options = [field.name for field in dataclasses.fields(solver)]
    watching = Watching(**{field: getattr(solver, field) for field in options})
    solved(quadratic(sense), [3.0], watching)
    torch.testing.assert_close(seen[0].equality, torch.tensor([[-5.05]], **DOUBLE), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[0].inequality, torch.tensor([[0.0, 0.0, 1.15]], **DOUBLE), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_the_message_says_which_route_ran(route):
    (message,) = solved(hard(), [1.0], "pyomo.ipopt", route=route).messages
    assert message.startswith({"casadi": "ipopt in casadi: Solve_Succeeded", "pounce": "pounce executable"}[route])


def test_an_ipopt_on_the_path_is_taken_first(monkeypatch, tmp_path):
    program(tmp_path / "ipopt", f'#!/bin/sh\nexec {executable("pounce")} "$@"\n')
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    (message,) = solved(hard(), [1.0], "pyomo.ipopt").messages
    assert message.startswith(f"ipopt executable {tmp_path / 'ipopt'}: POUNCE")


def executable(route):
    from argminlayer_pyomo._solvers import executable_of

    return executable_of(route)


def program(path, text):
    """Write an executable file."""
    path.write_text(textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_any_ipopt_the_solver_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert Ipopt(route="executable").available().reason == (
        "there is no program `ipopt` on the PATH; install one, or choose route='casadi'"
    )
    monkeypatch.setattr("argminlayer_pyomo._solvers._is_there", lambda route: False)
    assert "pip install 'argminlayer[pyomo]'" in Ipopt().available().reason
    with pytest.raises(al.SolverError, match=r"solver 'pyomo.ipopt' cannot be used: there is no IPOPT"):
        al.argmin(problem_of(hard()), 1.0, solver="pyomo.ipopt")


@pytest.mark.parametrize("route", ROUTES)
def test_too_few_iterations_are_reported(route):
    found = solved(hard(), [1.0, 1.1], "pyomo.ipopt", route=route, max_iter=2)
    assert found.status.tolist() == [al.Status.MAX_ITERATIONS] * 2


def test_a_time_limit_is_kept():
    found = solved(hard(), [1.0], "pyomo.ipopt", route="casadi", time_limit=1e-9)
    assert found.status.tolist() == [al.Status.TIME_LIMIT]
    assert "raise `time_limit`" in al.Status.TIME_LIMIT.advice


@pytest.mark.parametrize("route", ROUTES)
def test_an_infeasible_instance_does_not_harm_the_others(route):
    m = quadratic(pyo.minimize)
    found = solved(m, [3.0, 100.0, 4.0], "pyomo.ipopt", route=route)
    assert found.status.tolist() == [0, al.Status.INFEASIBLE, 0]
    assert found.value[1].isnan().all()


@pytest.fixture
def fake_ipopt(monkeypatch, tmp_path):
    """Return a function that puts a script of this name on the PATH, and watches the folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def install(text):
        (tmp_path / "bin").mkdir(exist_ok=True)
        program(tmp_path / "bin" / "ipopt", text)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    yield install
    assert list(folder.iterdir()) == [], "files were left behind"


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("#!/bin/sh\necho licence expired >&2\nexit 3\n", "BREAKDOWN", "ended with code 3 .*said: licence expired"),
        ("#!/bin/sh\nkill -SEGV $$\n", "BREAKDOWN", "died of signal 11 and left no solution"),
        ("#!/bin/sh\nprintf 'cut\\n\\nOptions\\n' > problem.sol\n", "BREAKDOWN", "solution file"),
        ("#!/bin/sh\nprintf 'cut' > problem.sol\n", "BREAKDOWN", "has no section 'Options'"),
        ("#!/no/such/interpreter\n", "BREAKDOWN", "could not be run"),
    ],
)
def test_a_program_that_breaks_down_is_reported_with_its_words(fake_ipopt, script, status, message):
    fake_ipopt(script)
    found = solved(hard(), [1.0], "pyomo.ipopt", route="executable")
    assert found.status.tolist() == [al.Status[status]]
    with pytest.raises(al.SolveFailed, match=message):
        al.argmin(problem_of(hard()), 1.0, solver=Ipopt(route="executable"))


def test_a_program_that_hangs_is_killed_with_all_it_has_started(fake_ipopt, tmp_path, monkeypatch):
    monkeypatch.setattr("argminlayer_pyomo._executable.GRACE", 0.2)
    fake_ipopt(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\nwait\n")
    found = solved(hard(), [1.0], "pyomo.ipopt", route="executable", time_limit=0.1)
    assert found.status.tolist() == [al.Status.TIME_LIMIT]
    assert "was killed" in found.messages[0]
    child = int((tmp_path / "child").read_text())
    assert not runs(child)


def runs(process):
    """Say whether a process of this number is there and not a zombie."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_interrupted_solve_ends_its_program_and_leaves_nothing(fake_ipopt, monkeypatch):
    fake_ipopt("#!/bin/sh\nsleep 60\n")
    ended = []

    def interrupted(process, timeout=None):
        if not ended:
            ended.append(process)
            raise KeyboardInterrupt
        return original(process, timeout)

    original = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        solved(hard(), [1.0], "pyomo.ipopt", route="executable")
    assert ended[0].poll() is not None


def test_an_interrupt_that_casadi_swallows_ends_the_whole_call(monkeypatch):
    import casadi

    from argminlayer_pyomo import _ipopt

    class Interrupted:
        def __call__(self, **given):
            return {"x": casadi.DM(given["x0"]), "lam_g": casadi.DM(0, 1)}

        def stats(self):
            return {"return_status": "User_Requested_Stop", "iter_count": 1}

    monkeypatch.setattr(_ipopt, "_compile", lambda *given: (Interrupted(), ""))
    with pytest.raises(KeyboardInterrupt):
        solved(hard(), [1.0], "pyomo.ipopt", route="casadi")


def test_a_temporary_folder_that_cannot_be_written_is_named_with_a_way_out(fake_ipopt, monkeypatch, tmp_path):
    fake_ipopt("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    found = solved(hard(), [1.0], "pyomo.ipopt", route="executable")
    assert found.status.tolist() == [al.Status.BREAKDOWN]
    assert "set TMPDIR to a folder that can be written, or choose route='casadi'" in found.messages[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def test_names_with_blanks_and_signs_are_never_read_by_a_shell(fake_ipopt, tmp_path, monkeypatch):
    folder = tmp_path / "bin; touch owned"
    folder.mkdir()
    program(folder / "ipopt", "#!/bin/sh\nexit 3\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    found = solved(hard(), [1.0], "pyomo.ipopt", route="executable")
    assert "ended with code 3" in found.messages[0]
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def folder_of_pyomo(tmp_path):
    """Return the folder in which Pyomo puts its temporary files."""
    from pyomo.common.tempfiles import TempfileManager

    folder = tmp_path / "files"
    folder.mkdir()
    before, TempfileManager.tempdir = TempfileManager.tempdir, str(folder)
    yield folder
    TempfileManager.tempdir = before


def test_a_solver_of_pyomo_that_dies_leaves_no_files(folder_of_pyomo, tmp_path):
    program(tmp_path / "broken", "#!/bin/sh\nif [ $1 = -v ]; then echo 'Ipopt 3.14.0'; exit 0; fi\nexit 7\n")
    found = solved(hard(), [1.0], Named(solver="ipopt", executable=str(tmp_path / "broken")))
    assert found.status.tolist() == [al.Status.BREAKDOWN]
    assert "ipopt by Pyomo raised ApplicationError" in found.messages[0]
    assert list(folder_of_pyomo.iterdir()) == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [1e-9, 1e6])
def test_the_size_of_the_objective_does_not_matter(route, size):
    m = quadratic(pyo.minimize)
    m.o.set_value(size * m.o.expr)
    found = solved(m, [3.0], "pyomo.ipopt", route=route)
    torch.testing.assert_close(found.value, torch.tensor([[1.45, 1.55]], **DOUBLE))
    torch.testing.assert_close(found.multipliers.equality, torch.tensor([[-5.05 * size]], **DOUBLE))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pyomo:gurobbi", r"Pyomo knows no solver 'gurobbi'.*did you mean 'gurobi'"),
        ("pyomo:gurobi", r"Pyomo's solver 'gurobi' is not installed, or its licence or executable is missing"),
        ("pyomo.solver", r"reaches solvers by name: ask for one as solver='pyomo:gurobi'"),
        ("pyomo:", r"there is no solver 'pyomo:'"),
    ],
)
def test_a_name_that_leads_to_no_solver_is_refused(name, message):
    with pytest.raises(al.SolverError, match=message):
        al.argmin(problem_of(hard()), 1.0, solver=name)


@pytest.mark.parametrize("solver", ["pyomo.highs", "pyomo:highs", "pyomo.ipopt"])
def test_an_unbounded_problem_is_reported_as_such(solver):
    m = pyo.ConcreteModel()
    m.p = pyo.Param(initialize=1.0, mutable=True)
    m.x = pyo.Var(bounds=(None, 3))
    m.o = pyo.Objective(expr=m.p * m.x)
    found = solved(m, [1.0, -1.0], solver)
    assert found.status.tolist() == [al.Status.UNBOUNDED, al.Status.SOLVED]
    assert float(found.value[1]) == pytest.approx(3.0)


def test_highs_refuses_what_is_not_quadratic_and_says_where():
    reason = r"needs an objective that is linear or quadratic, and this one is not"
    with pytest.raises(al.SolverError, match=reason):
        al.argmin(problem_of(hard()), 1.0, solver="pyomo.highs")
    m = quadratic(pyo.minimize)
    m.disc = pyo.Constraint(expr=m.x[1] ** 2 + m.x[2] ** 2 <= 9)
    with pytest.raises(al.SolverError, match=r"needs linear constraints, and disc is not"):
        al.argmin(problem_of(m), 3.0, solver="pyomo.highs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 0.0}, "pyomo.ipopt: tol must be positive, not 0.0"),
        ({"max_iter": 0}, "pyomo.ipopt: max_iter must be at least 1, not 0"),
        ({"time_limit": -1.0}, "pyomo.ipopt: time_limit must be positive seconds or None, not -1.0"),
        ({"route": "bus"}, "pyomo.ipopt: route must be one of executable, casadi, pounce, auto, not 'bus'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(al.SolverError, match=message):
        Ipopt(**options)


def test_two_threads_share_a_model_without_meeting():
    problem = problem_of(quadratic(pyo.minimize))
    answers = {}

    def work(p):
        for solver in ("pyomo.ipopt", "pyomo.highs"):
            answers[p, solver] = al.argmin(problem, p, solver=solver)

    threads = [threading.Thread(target=work, args=(2.5 + 0.1 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (p, _), x in answers.items():
        assert float(x.sum()) == pytest.approx(p, rel=1e-6)


def test_the_model_is_compiled_once_for_many_solves(monkeypatch):
    from argminlayer_pyomo import _ipopt

    calls = []
    original = _ipopt._compile
    monkeypatch.setattr(_ipopt, "_compile", lambda *given: calls.append(given) or original(*given))
    problem = problem_of(hard())
    for p in (1.0, 1.1, 1.2):
        al.argmin(problem, p, solver=Ipopt(route="casadi"))
    assert len(calls) == 1


def test_importing_the_plugin_imports_no_modelling_library():
    code = "import argminlayer_pyomo, sys; print(sorted({'pyomo', 'casadi', 'highspy'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
