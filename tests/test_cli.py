"""The command line: listings, experiments, explanations, and errors without tracebacks."""

import io
import json
import textwrap
import types
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import rich.console
import rich.progress
import torch
from typer.testing import CliRunner

import argminlayer as al
from argminlayer import _registry, cli


class Solver(al.AbstractSolver):
    """A solver that is never called."""

    capabilities: ClassVar[al.Capabilities] = al.Capabilities(constraints=frozenset({"equality", "bounds"}))

    def solve(self, problem, start):
        raise NotImplementedError


class Ready(Solver):
    """A solver whose back end is installed."""

    name: ClassVar[str] = "fake.ready"

    def available(self):
        return al.Availability(True)


class Missing(Solver):
    """A solver whose back end is not installed."""

    name: ClassVar[str] = "fake.missing"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities()

    def available(self):
        return al.Availability(False, "needs the package 'acme': pip install 'argminlayer[acme]'")


class Confused(Solver):
    """A solver that does not know."""

    name: ClassVar[str] = "fake.confused"

    def available(self):
        raise OSError("acme.so is damaged")


class Picture:
    """What is used of a figure."""

    def savefig(self, file, **options):
        file.write(b"picture")


@dataclass(frozen=True)
class Study(al.AbstractExperiment):
    """An experiment that reports its settings."""

    name: ClassVar[str] = "study"
    summary: ClassVar[str] = "reports its settings"
    seed: int = field(default=0, metadata={"help": "of the random numbers"})
    data: str = "iris"
    shuffle: bool = False
    fail: str = ""

    def run(self, progress):
        if self.fail == "wrong data":
            raise al.ExperimentError("the data has 3 rows, fewer than 5 folds; pass --folds 3 or less")
        if self.fail == "bug":
            raise ZeroDivisionError("a bug")
        if self.fail == "dict":
            return {}
        total = sum(progress.track(range(3), "adding [up]"))
        progress.log("added [up]")
        table = al.Table("found [here]", ("seed", "data"), ((str(self.seed), self.data * 40),))
        records = {"total": total, "shuffle": self.shuffle, "undefined": float("nan")}
        return al.Result(records, (table,), {"curve": Picture}, ("a [note]",))


def returning(answer):
    """Return a function that returns the answer."""
    return lambda: answer


def plugin(**hooks):
    """Return a module that implements hooks, each returning the value given."""
    module = types.ModuleType("fake_plugin")
    for name, answer in hooks.items():
        setattr(module, name, al.hookimpl(returning(answer)))
    return module


def entry(name, module):
    """Return an entry point whose module is already there."""
    dist = types.SimpleNamespace(name=f"{name}-dist", version="1.2")
    return types.SimpleNamespace(name=name, value=f"{name}_module", dist=dist, load=lambda: module)


FAKE = entry("fake", plugin(argminlayer_solvers=[Ready, Missing, Confused], argminlayer_experiments=[Study]))
BROKEN = entry("broken", plugin(argminlayer_solver=[]))


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch):
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "ARGMINLAYER_DISABLE_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs the command line in an empty folder, with the fake plugin installed."""
    monkeypatch.chdir(tmp_path)
    installed(monkeypatch, FAKE)
    return lambda *arguments, **options: CliRunner().invoke(cli.app, arguments, **options)


def installed(monkeypatch, *entries):
    """Replace what is installed."""
    monkeypatch.setattr(_registry, "load", lambda: _registry.load_from(entries, _registry.disabled_names()))


def failed(result, *parts):
    """Check that a command ended with an error that explains itself, without a traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith("error: ")
    for part in parts:
        assert part in result.output


def test_the_version_is_shown(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("argminlayer ")


def test_help_lists_the_commands(run):
    result = run("--help")
    assert result.exit_code == 0
    for command in ("plugins", "solvers", "run", "explain"):
        assert command in result.output


def test_plugins_lists_what_loaded_what_failed_and_what_is_off(run, monkeypatch):
    installed(monkeypatch, FAKE, BROKEN, entry("off", None))
    monkeypatch.setenv("ARGMINLAYER_DISABLE_PLUGINS", "off,fke")
    result = run("plugins")
    assert result.exit_code == 0
    assert "plugins: 1" in result.output
    for part in ("fake-dist 1.2", "fake_module", "fake.ready, fake.missing, fake.confused", "study"):
        assert part in result.output
    assert "failed: the plugin 'broken' (broken_module) of broken-dist was left out" in result.output
    assert "Did you mean 'argminlayer_solvers'" in result.output
    assert "disabled: off (ARGMINLAYER_DISABLE_PLUGINS)" in result.output
    assert "not installed: 'fke' in ARGMINLAYER_DISABLE_PLUGINS is not a plugin. Did you mean 'fake'" in result.output


def test_plugins_says_when_there_are_none(run, monkeypatch):
    installed(monkeypatch)
    assert run("plugins").output == "no plugins are installed\n"


def test_two_plugins_of_one_name_make_the_listing_fail(run, monkeypatch):
    installed(monkeypatch, FAKE, FAKE)
    result = run("plugins")
    assert result.exit_code == 1
    assert result.output.startswith("error: two installed plugins are called 'fake'")
    failed(run("solvers"), "two installed plugins are called 'fake'")


def test_solvers_says_what_is_usable_what_to_install_and_what_each_handles(run, monkeypatch):
    installed(monkeypatch, FAKE, BROKEN)
    result = run("solvers")
    assert result.exit_code == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in result.output.splitlines() if "fake." in line}
    assert lines["fake.ready"] == "fake.ready fake yes bounds, equality"
    assert lines["fake.missing"].endswith("no: needs the package 'acme': pip install 'argminlayer[acme]' none")
    assert "no: its available() raised OSError: acme.so is damaged" in lines["fake.confused"]
    assert "Plugins that failed to load: broken; see `argminlayer plugins`" in result.output


@pytest.mark.parametrize("arguments", [("run",), ("run", "--list")])
def test_run_without_a_name_lists_the_experiments(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "study" in result.output
    assert "reports its settings" in result.output


def test_run_prints_and_saves_what_the_experiment_found(run, tmp_path):
    result = run("run", "study", "--seed", "7", "--shuffle", "--output", "out/here")
    assert result.exit_code == 0, result.output
    assert "found [here]" in result.output
    assert "iris" * 40 in result.output
    assert "a [note]" in result.output
    assert "wrote out/here/results.json" in result.output
    assert "wrote out/here/curve.png" in result.output
    assert "adding" not in result.output
    report = json.loads((tmp_path / "out" / "here" / "results.json").read_text())
    assert report["settings"] == {"seed": 7, "data": "iris", "shuffle": True, "fail": ""}
    assert report["records"] == {"total": 3, "shuffle": True, "undefined": None}
    assert 0 <= report["seconds"] < 60
    assert (tmp_path / "out" / "here" / "curve.png").read_bytes() == b"picture"


def test_results_go_to_a_folder_of_the_name_of_the_experiment_by_default(run, tmp_path):
    assert run("run", "study").exit_code == 0
    assert (tmp_path / "results" / "study" / "results.json").exists()


def test_an_experiments_help_lists_its_settings_and_runs_nothing(run, tmp_path):
    result = run("run", "study", "--seed", "1", "--help")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "argminlayer run study: reports its settings" in lines
    assert "--seed int 0 of the random numbers" in lines
    assert "--shuffle / --no-shuffle false" in lines
    assert "--output path results/study folder for results.json and the figures" in lines
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_experiment_offers_near_ones_and_mentions_broken_plugins(run, monkeypatch):
    installed(monkeypatch, FAKE, BROKEN)
    expected = "there is no experiment 'studdy'. Did you mean 'study'? The installed experiments are: study."
    failed(run("run", "studdy"), expected, "Plugins that failed to load: broken")


def test_an_unknown_setting_offers_near_ones_and_lists_all(run):
    expected = "the experiment 'study' has no setting '--sed'. Did you mean '--seed'"
    failed(run("run", "study", "--sed", "3"), expected, "Its settings are --seed, --data, --shuffle, --fail, --output")


def test_a_value_of_the_wrong_type_is_an_error(run):
    failed(run("run", "study", "--seed", "x"), "--seed takes int, not 'x'")


def test_an_experiment_that_cannot_run_with_its_data_says_why(run):
    failed(
        run("run", "study", "--fail", "wrong data"), "the data has 3 rows, fewer than 5 folds; pass --folds 3 or less"
    )


def test_a_bug_in_an_experiment_is_not_hidden(run):
    result = run("run", "study", "--fail", "bug")
    assert isinstance(result.exception, ZeroDivisionError)


def test_an_experiment_that_returns_no_result_is_named(run):
    expected = "the experiment 'study' returned a dict; its `run` must return an argminlayer.Result"
    failed(run("run", "study", "--fail", "dict"), expected)


def test_a_folder_that_cannot_be_written_is_found_before_the_experiment_is_run(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("run", "study", "--output", "file", "--fail", "bug")
    failed(result, "cannot write results to file", "pass --output with a folder that you can write to")


def test_a_terminal_shows_progress_with_nested_bars(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = rich.console.Console(file=io.StringIO(), force_terminal=True, width=80)
    with rich.progress.Progress(console=screen) as bars:
        progress = cli._TerminalProgress(bars)
        for outer in progress.track(range(2), "outer"):
            assert list(progress.track(iter([outer]), "inner")) == [outer]
            assert [task.description for task in bars.tasks] == ["outer"]
            assert bars.tasks[0].total == 2
            assert bars.tasks[0].completed == outer
        progress.log("done [soon]")
        assert bars.tasks == []
    assert "done [soon]" in screen.file.getvalue()


def test_progress_goes_to_standard_error_and_only_on_a_terminal(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    result = run("run", "study")
    assert result.exit_code == 0
    assert "added [up]" in result.stderr
    assert "added [up]" not in result.stdout


@pytest.fixture
def explained(monkeypatch):
    """Return the problems and parameters that were explained."""
    calls = []

    def record(problem, *parameters):
        calls.append((problem, parameters))
        return "because [it] fits"

    monkeypatch.setattr(al, "explain", record)
    return calls


MODEL = """
    import torch
    import argminlayer as al

    problem = al.Problem(lambda u, A, b, t: t * (A @ u - b).square().sum(), "(m,n),(m),()->(n)")
    fixed = al.Problem(lambda u, x: (u - x).square().sum(), "(2)->(2)")
    number = 3
"""


def write(tmp_path, text, name="model.py"):
    (tmp_path / name).write_text(textwrap.dedent(text))


def test_explain_takes_the_problem_of_a_file_with_random_parameters(run, tmp_path, explained):
    write(tmp_path, MODEL)
    for _ in range(2):
        result = run("explain", "model.py:problem", "--dim", "m=5")
        assert result.exit_code == 0, result.output
    assert result.output == "parameters: random normal, seed 0, m = 5, n = 3\nbecause [it] fits\n"
    (problem, parameters), (_, again) = explained
    assert str(problem.signature) == "(m,n),(m),()->(n)"
    assert [tuple(p.shape) for p in parameters] == [(5, 3), (5,), ()]
    assert all(p.dtype == torch.float64 for p in parameters)
    assert all((p == q).all() for p, q in zip(parameters, again, strict=True))


def test_explain_takes_the_parameters_that_the_file_states(run, tmp_path, explained):
    write(tmp_path, MODEL + "    parameters = (torch.ones(2),)\n")
    result = run("explain", "model.py:fixed")
    assert result.output == "parameters: `parameters` of model.py\nbecause [it] fits\n"
    assert explained[0][1][0].tolist() == [1.0, 1.0]


def test_explain_lets_a_file_import_its_neighbours(run, tmp_path, explained):
    write(tmp_path, MODEL, "neighbour_of_the_model.py")
    write(tmp_path, "from neighbour_of_the_model import problem", "importing.py")
    assert run("explain", "importing.py:problem").exit_code == 0
    assert len(explained) == 1


def test_explain_reports_on_every_installed_solver(run, tmp_path, monkeypatch):
    installed(monkeypatch, entry("fake", plugin(argminlayer_solvers=[Ready, Missing])))
    write(tmp_path, MODEL)
    result = run("explain", "model.py:problem")
    assert result.exit_code == 0, result.output
    assert "fake.ready" in result.output
    assert "argminlayer[acme]" in result.output


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["model.py"], ["'model.py' is not of the form FILE.py:name, for example 'model.py:problem'"]),
        (["model:problem"], ["'model:problem' is not of the form FILE.py:name"]),
        (["model.py:2"], ["'model.py:2' is not of the form FILE.py:name"]),
        (["absent.py:problem"], ["there is no file 'absent.py' in"]),
        (["model.py:problm"], ["model.py has no variable 'problm'. Did you mean 'problem'", "are problem, fixed."]),
        (["model.py:number"], ["'number' in model.py is of type int, not an argminlayer.Problem"]),
        (["empty.py:problem"], ["empty.py has no variable 'problem'. There is no problem in it."]),
        (["model.py:problem", "--dim", "n"], ["--dim 'n' is not of the form NAME=SIZE, for example --dim n=10"]),
        (["model.py:problem", "--dim", "k=2"], ["has a dimension 'k'. Its named dimensions are m, n."]),
        (["model.py:fixed", "--dim", "k=2"], ["has a dimension 'k'. It has no named dimensions."]),
        (["model.py:problem", "--dim", "n=0"], ["the size of the dimension 'n' is 0; it must be at least 1"]),
        (["stated.py:problem", "--dim", "n=2"], ["(n) have no effect because stated.py states its own `parameters`"]),
        (["wrong.py:fixed"], ["`parameters` in wrong.py is of type Tensor, not a tuple; write `parameters = (x,)`"]),
    ],
)
def test_explain_says_what_is_wrong_with_its_arguments(run, tmp_path, explained, arguments, parts):
    write(tmp_path, MODEL)
    write(tmp_path, "", "empty.py")
    write(tmp_path, MODEL + "    parameters = (torch.ones(2),)\n", "stated.py")
    write(tmp_path, MODEL + "    parameters = torch.ones(2)\n", "wrong.py")
    failed(run("explain", *arguments), *parts)
    assert explained == []


def test_an_error_in_the_file_itself_is_not_hidden(run, tmp_path):
    write(tmp_path, "1 / 0", "bug.py")
    assert isinstance(run("explain", "bug.py:problem").exception, ZeroDivisionError)


def test_the_console_script_runs_the_application(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["argminlayer", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("argminlayer ")
