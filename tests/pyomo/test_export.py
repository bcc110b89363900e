"""Problems as files: .nl and Python source, solved again by others, and every way in which writing can fail."""

import runpy
import subprocess

import pyomo.environ as pyo
import pytest
import torch
from typer.testing import CliRunner

import argminlayer as al
from argminlayer.cli import app
from argminlayer_pyomo._solvers import executable_of

STATED = """
import pyomo.environ as pyo
import torch
import argminlayer as al

problem = al.Problem(
    lambda u, x: (u - x).square().sum() + torch.logsumexp(u, 0) + torch.where(u[0] > 0, 2 * u[0], u[0]),
    "(n)->(n)",
    equality=lambda u, x: u.sum() - x.exp().sum(),
    inequality=lambda u, x: torch.stack([(u - 1).square().sum() - 9, u.abs().amax() - 5]),
    lower=-2.0,
)
model = pyo.ConcreteModel()
model.x = pyo.Param([1, 2, 3], initialize=0.0, mutable=True)
model.u = pyo.Var([1, 2, 3], bounds=(-2, 5), initialize=1.0)
model.twice = pyo.Expression(expr=model.u[1] * pyo.sin(model.u[2]))
distance = sum((model.u[i] - model.x[i]) ** 2 for i in (1, 2, 3))
model.o = pyo.Objective(expr=-distance - model.twice**2 - model.twice, sense=pyo.maximize)
model.c = pyo.Constraint(expr=(0.5, model.u[1] + model.u[3], 7))
model.d = pyo.Constraint(expr=model.u[2] + model.u[3] == 1 + model.x[1])
read = al.ArgminLayer(model, parameters=[model.x], variables=[model.u]).problem
parameters = (torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64),)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "stated.py").write_text(STATED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(name, to):
    return CliRunner().invoke(app, ["export", f"stated.py:{name}", "--to", str(to)])


def solution_of(name):
    stated = runpy.run_path("stated.py")
    return al.solve(stated[name], *stated["parameters"], solver="scipy")


@pytest.mark.parametrize("name", ["problem", "read"])
def test_python_source_builds_a_model_with_the_same_solution(folder, name):
    result = export(name, folder / "written.py")
    assert result.exit_code == 0, result.output
    assert "`parameters` of stated.py" in result.output
    assert f"wrote {folder / 'written.py'}" in result.output
    m = runpy.run_path(str(folder / "written.py"))["m"]
    solver = pyo.SolverFactory("ipopt", executable=executable_of("pounce"))
    solver.solve(m)
    expected = solution_of(name)
    values = torch.tensor([v.value for v in m.x.values()], dtype=torch.float64)
    torch.testing.assert_close(values, expected.value, rtol=1e-5, atol=1e-5)
    assert pyo.value(m.objective) == pytest.approx(float(expected.objective), rel=1e-6)


def test_the_params_of_the_source_can_be_changed(folder):
    export("read", folder / "written.py")
    m = runpy.run_path(str(folder / "written.py"))["m"]
    before = pyo.value(m.objective)
    m.p[2] = 5.0
    assert pyo.value(m.objective) != before


@pytest.mark.parametrize("name", ["problem", "read"])
def test_an_nl_file_is_solved_by_a_solver_that_knows_nothing_of_us(folder, name):
    assert export(name, folder / "written.nl").exit_code == 0
    command = [executable_of("pounce"), "written", "-AMPL", "print_level=0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    solution = (folder / "written.sol").read_text()
    assert "objno 0 0" in solution
    lines = solution.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("objno"))
    found = sorted(float(line) for line in lines[at - 3 : at])
    assert found == pytest.approx(sorted(solution_of(name).value.tolist()), rel=1e-5, abs=1e-5)


def fails(name, to):
    result = export(name, to)
    assert result.exit_code == 2
    return " ".join(result.output.split())


def test_a_kind_of_file_that_nobody_writes_is_refused_with_those_that_are(folder):
    message = fails("problem", "model.mod")
    assert "no installed plugin writes '.mod' ('model.mod')." in message
    assert "Kinds of files that can be written: .nl, .py" in message


def test_a_folder_that_is_not_there_is_named(folder):
    assert "cannot be written: No such file or directory; choose another folder" in fails("problem", "no/model.nl")


def test_a_batch_is_refused(folder):
    (folder / "stated.py").write_text(STATED + "parameters = (torch.zeros(2, 3, dtype=torch.float64),)\n")
    assert "the parameters state 2 instances; a file holds one: leave out the batch" in fails("problem", "model.nl")


def test_what_pyomo_cannot_say_is_refused_and_leaves_no_file(folder):
    (folder / "stated.py").write_text(
        "import torch, argminlayer as al\nproblem = al.Problem(lambda u, x: torch.erf(u - x).sum(), '(n)->(n)')\n"
    )
    assert "`erf` needs the function 'erf'" in fails("problem", "model.nl")
    assert not (folder / "model.nl").exists()
