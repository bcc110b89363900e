"""Plugins: found through entry points, checked, kept apart, and switched off."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import textwrap
import threading
import time
import types
from dataclasses import dataclass
from typing import ClassVar

import pytest

import argminlayer as al
from argminlayer import _registry
from argminlayer._registry import load_from


@dataclass(frozen=True)
class Solver(al.AbstractSolver):
    """A solver that is never called."""

    name: ClassVar[str] = "good.solver"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities()

    def available(self):
        return al.Availability(True)

    def solve(self, problem, start):
        raise NotImplementedError


@dataclass(frozen=True)
class Experiment(al.AbstractExperiment):
    """An experiment that is never run."""

    name: ClassVar[str] = "study"
    summary: ClassVar[str] = "shows nothing"
    seed: int = 0

    def run(self, progress):
        raise NotImplementedError


def variant(base, **attributes):
    """Return a subclass with other class attributes."""
    return type("Variant", (base,), attributes)


def returning(answer):
    """Return a function that returns the answer."""
    return lambda: answer


def plugin(**hooks):
    """Return a module that implements the hooks given, each a function or a value to return."""
    module = types.ModuleType("fake_plugin")
    for name, answer in hooks.items():
        setattr(module, name, al.hookimpl(answer if callable(answer) else returning(answer)))
    return module


@dataclass(frozen=True)
class Entry:
    """An entry point whose module is already there, or that raises when it is loaded."""

    name: str
    module: object
    distribution: str = "fake-dist"
    group: str = "argminlayer"

    @property
    def value(self):
        return f"fake_{self.name}"

    @property
    def dist(self):
        return types.SimpleNamespace(name=self.distribution, version="1.2")

    def load(self):
        if isinstance(self.module, BaseException):
            raise self.module
        return self.module


GOOD = Entry("good", plugin(argminlayer_solvers=[Solver], argminlayer_experiments=[Experiment]))


def failure(module, name="bad"):
    """Return why a plugin was left out, after checking that the good one beside it was not harmed."""
    registry = load_from([Entry(name, module), GOOD])
    assert list(registry.solvers) == ["good.solver"]
    assert [p.name for p in registry.plugins] == ["good"]
    assert list(registry.failures) == [name]
    return registry.failures[name]


def test_a_plugin_provides_its_solvers_and_experiments():
    registry = load_from([GOOD])
    assert registry.solvers["good.solver"] == Solver()
    assert registry.experiments["study"] is Experiment
    (loaded,) = registry.plugins
    assert (loaded.name, loaded.distribution, loaded.version, loaded.module) == (
        "good",
        "fake-dist",
        "1.2",
        "fake_good",
    )
    assert (loaded.solvers, loaded.experiments, loaded.reads_models) == (("good.solver",), ("study",), False)
    assert not registry.failures


def test_plugins_come_in_the_order_of_their_names_however_they_are_installed():
    readers = [Entry(name, plugin(argminlayer_read_model=lambda model: None)) for name in ("c", "a", "b")]
    assert [p.name for p in load_from(readers).plugins] == ["a", "b", "c"]


def test_the_registry_cannot_be_changed():
    registry = load_from([GOOD])
    with pytest.raises(TypeError):
        registry.solvers["other"] = Solver()
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.solvers = {}


@pytest.mark.parametrize("error", [ImportError("no libfoo"), ValueError("no libfoo"), SystemExit("no libfoo")])
def test_a_plugin_that_breaks_while_it_is_imported_is_kept_by_name_with_its_cause(error):
    kept = failure(error)
    assert isinstance(kept, al.PluginError)
    assert kept.__cause__ is error
    assert str(kept) == (
        f"the plugin 'bad' (fake_bad) of fake-dist was left out: {type(error).__name__}: no libfoo. Update or "
        "uninstall that distribution, or switch the plugin off with ARGMINLAYER_DISABLE_PLUGINS=bad"
    )


def test_an_interrupt_while_plugins_are_imported_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt):
        load_from([Entry("bad", KeyboardInterrupt())])


def test_an_entry_point_without_a_distribution_can_be_reported():
    entry = types.SimpleNamespace(name="bad", value="fake_bad", dist=None, load=lambda: None)
    assert "of an unknown distribution" in str(load_from([entry]).failures["bad"])


def test_a_misspelt_hook_is_an_error_that_offers_the_right_one():
    kept = failure(plugin(argminlayer_solver=[Solver]))
    assert "it implements 'argminlayer_solver', which is not a hook. Did you mean 'argminlayer_solvers'" in str(kept)
    hooks = ("solvers", "read_model", "writers", "experiments")
    assert f"The hooks are {', '.join(f'argminlayer_{hook}' for hook in hooks)}." in str(kept)
    assert "argminlayer_solver" in str(kept.__cause__.__cause__)


def test_a_misspelt_argument_of_a_hook_is_an_error():
    kept = failure(plugin(argminlayer_read_model=lambda modell: None))
    assert "modell" in str(kept)


def test_a_hook_without_its_decorator_is_an_error():
    module = plugin(argminlayer_experiments=[Experiment])
    module.argminlayer_solvers = lambda: [Solver]
    assert "its function argminlayer_solvers is not decorated with @argminlayer.hookimpl" in str(failure(module))


@pytest.mark.parametrize("module", [types.ModuleType("empty"), None], ids=["module", "none"])
def test_a_plugin_without_any_hook_is_an_error(module):
    assert "it implements no hook; decorate at least one of argminlayer_solvers" in str(failure(module))


class NeedsAnArgument(Solver):
    """A solver with an option that has no default."""

    name: ClassVar[str] = "bad.solver"

    def __init__(self, tolerance):
        self.tolerance = tolerance


class NoCapabilities(al.AbstractSolver):
    """A solver that does not say what it handles."""

    name: ClassVar[str] = "bad.solver"
    available = Solver.available
    solve = Solver.solve


class Unfinished(al.AbstractSolver):
    """A solver that cannot be called."""

    name: ClassVar[str] = "bad.solver"


BAD_SOLVER = variant(Solver, name="bad.solver")
BROKEN_SOLVERS = {
    "nothing": (None, "argminlayer_solvers returned None; return a list of classes"),
    "one class": (Solver, "argminlayer_solvers returned <class .*; return a list of classes"),
    "an instance": ([Solver()], r"argminlayer_solvers returned Solver\(\); return subclasses of"),
    "another class": ([Experiment], "argminlayer_solvers returned <class .*; return subclasses of"),
    "unfinished": ([Unfinished], "its class Unfinished is abstract; it lacks available, solve"),
    "another prefix": ([Solver], "its solver Solver has the name 'good.solver'; write 'bad.<solver>'"),
    "no prefix": ([variant(Solver, name="bad")], "has the name 'bad'; write 'bad.<solver>'"),
    "no name": ([variant(Solver, name=None)], "has the name None; write 'bad.<solver>'"),
    "no capabilities": ([NoCapabilities], "its solver 'bad.solver' has no capabilities"),
    "no default": ([NeedsAnArgument], "'bad.solver' cannot be made without arguments .*tolerance.*give every option a"),
    "twice": ([BAD_SOLVER, BAD_SOLVER], "two of its solvers are called 'bad.solver'; rename one"),
}


@pytest.mark.parametrize("case", BROKEN_SOLVERS)
def test_a_solver_that_breaks_the_contract_is_reported(case):
    answer, message = BROKEN_SOLVERS[case]
    kept = failure(plugin(argminlayer_solvers=lambda: answer))
    with pytest.raises(al.PluginError, match=message):
        raise kept


@dataclass(frozen=True)
class NoDefault(Experiment):
    """An experiment with a setting that must be given."""

    name: ClassVar[str] = "other"
    data: str = dataclasses.field(kw_only=True)


@dataclass(frozen=True)
class Reserved(Experiment):
    """An experiment with a setting that the command line needs itself."""

    name: ClassVar[str] = "other"
    output: str = ""


class Plain(al.AbstractExperiment):
    """An experiment without settings that can be read."""

    name: ClassVar[str] = "other"
    summary: ClassVar[str] = "shows nothing"
    run = Experiment.run


class NoSummary(al.AbstractExperiment):
    """An experiment that does not say what it shows."""

    name: ClassVar[str] = "other"
    run = Experiment.run


BROKEN_EXPERIMENTS = {
    "another class": ([Solver], "argminlayer_experiments returned <class .*; return subclasses of"),
    "abstract": ([al.AbstractExperiment], "its class AbstractExperiment is abstract; it lacks run"),
    "a path": ([variant(Experiment, name="a/b")], "has the name 'a/b'; use letters, digits"),
    "an option": ([variant(Experiment, name="--help")], "has the name '--help'; use letters, digits"),
    "no summary": ([NoSummary], "its experiment 'other' has no summary; say in one line"),
    "not a dataclass": ([Plain], "Plain is not a dataclass; decorate it with @dataclass"),
    "no default": ([NoDefault], "the field 'data' of NoDefault has no default"),
    "reserved": ([Reserved], "its experiment 'other' has the field 'output', which is taken by the command line"),
}


@pytest.mark.parametrize("case", BROKEN_EXPERIMENTS)
def test_an_experiment_that_breaks_the_contract_is_reported(case):
    answer, message = BROKEN_EXPERIMENTS[case]
    kept = failure(plugin(argminlayer_experiments=answer))
    with pytest.raises(al.PluginError, match=message):
        raise kept


def test_a_plugin_is_left_out_as_a_whole_when_one_of_its_names_is_taken():
    late = Entry(
        "late", plugin(argminlayer_solvers=[variant(Solver, name="late.solver")], argminlayer_experiments=[Experiment])
    )
    registry = load_from([late, GOOD])
    assert list(registry.solvers) == ["good.solver"]
    assert "'study', one of its experiments, is already provided by the plugin 'good' of fake-dist; rename it" in str(
        registry.failures["late"]
    )


def test_two_plugins_of_one_name_are_an_error_that_names_both_distributions():
    other = dataclasses.replace(GOOD, distribution="other-dist")
    expected = (
        "two installed plugins are called 'good': fake_good of fake-dist and fake_good of other-dist; uninstall one of "
        "them, or switch both off with ARGMINLAYER_DISABLE_PLUGINS=good"
    )
    with pytest.raises(al.PluginError, match=expected):
        load_from([GOOD, other])
    assert load_from([GOOD, other], disabled=["good"]).disabled == ("good",)


def test_plugins_can_be_switched_off_one_by_one_or_all_and_are_not_imported_then():
    broken = Entry("broken", ImportError("must not be imported"))
    registry = load_from([GOOD, broken], disabled=["broken", "not-there"])
    assert registry.disabled == ("broken",)
    assert not registry.failures
    registry = load_from([GOOD, broken], disabled=["all"])
    assert registry.disabled == ("broken", "good")
    assert not registry.plugins


def test_the_variable_that_switches_plugins_off_holds_names_separated_by_commas(monkeypatch):
    monkeypatch.setenv("ARGMINLAYER_DISABLE_PLUGINS", " scipy, qp ,,")
    assert _registry.disabled_names() == {"scipy", "qp"}
    monkeypatch.delenv("ARGMINLAYER_DISABLE_PLUGINS")
    assert _registry.disabled_names() == set()


PROBLEM = al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)")


def reader(function):
    """Return a plugin that reads models with the function given."""
    return plugin(argminlayer_read_model=function)


def refuses(model):
    raise al.ProblemError("this model is not convex")


def breaks(model):
    raise KeyError("objective")


def test_a_model_is_read_by_the_first_plugin_that_recognises_it():
    seen = []
    entries = [
        Entry("a", reader(lambda model: seen.append(model))),
        Entry("b", reader(lambda model, parameters, variables: seen.append((parameters, variables)) or PROBLEM)),
        Entry("c", reader(lambda model: seen.append("too far"))),
    ]
    registry = load_from(entries)
    assert [p.reads_models for p in registry.plugins] == [True, True, True]
    assert registry.read_model("a model", ["x"], ["y"]) is PROBLEM
    assert seen == ["a model", (["x"], ["y"])]


def test_a_reader_gets_the_options_it_asks_for_and_one_that_takes_none_refuses_them():
    seen = []
    registry = load_from([Entry("a", reader(lambda model, options: seen.append(options) or PROBLEM))])
    assert registry.read_model("a model", options={"gp": True}) is PROBLEM
    assert seen == [{"gp": True}]
    plain = load_from([Entry("a", reader(lambda model: PROBLEM))])
    with pytest.raises(al.ProblemError, match=r"'a' reads this model, but takes no options: leave \['gp'\] out"):
        plain.read_model("a model", options={"gp": True})


def test_a_model_that_nobody_recognises_is_no_problem():
    assert load_from([GOOD, Entry("a", reader(lambda model: None))]).read_model("a model") is None


def test_a_plugin_that_recognises_a_model_may_refuse_it_for_all():
    registry = load_from([Entry("a", reader(refuses)), Entry("b", reader(lambda model: PROBLEM))])
    with pytest.raises(al.ProblemError, match="this model is not convex"):
        registry.read_model("a model")


def test_a_plugin_that_breaks_on_a_model_does_not_keep_others_from_reading_it():
    registry = load_from([Entry("a", reader(breaks)), Entry("b", reader(lambda model: PROBLEM))])
    assert registry.read_model("a model") is PROBLEM


def test_a_plugin_that_breaks_on_a_model_nobody_else_reads_is_named():
    registry = load_from([Entry("a", reader(breaks)), Entry("b", reader(lambda model: None))])
    expected = "the plugin 'a' broke on a model of type builtins.str: KeyError: 'objective'. Report this"
    with pytest.raises(al.PluginError, match=expected) as caught:
        registry.read_model("a model")
    assert isinstance(caught.value.__cause__, KeyError)


@dataclass(frozen=True)
class SlowEntry(Entry):
    """An entry point that takes a while and counts how often it is loaded."""

    loads: list = dataclasses.field(default_factory=list)

    def load(self):
        self.loads.append(threading.get_ident())
        time.sleep(0.05)
        return self.module


@pytest.fixture
def install(monkeypatch):
    """Return a function that replaces what is installed."""

    def replace(*entries):
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: entries)
        _registry._INSTALLED.forget()

    yield replace
    monkeypatch.undo()
    _registry._INSTALLED.forget()


def test_plugins_are_loaded_once_until_asked_again(install):
    entry = SlowEntry("good", GOOD.module)
    install(entry)
    first = _registry.load()
    assert _registry.load() is first
    assert len(entry.loads) == 1
    assert _registry.reload() is not first
    assert len(entry.loads) == 2


def test_threads_that_ask_at_once_get_one_registry(install):
    entry = SlowEntry("good", GOOD.module)
    install(entry)
    found = []
    threads = [threading.Thread(target=lambda: found.append(_registry.load())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entry.loads) == 1
    assert all(registry is found[0] for registry in found)


def test_duplicates_are_reported_each_time(install):
    install(GOOD, GOOD)
    for _ in range(2):
        with pytest.raises(al.PluginError, match="two installed plugins are called 'good'"):
            _registry.load()


def test_a_plugin_that_asks_for_the_plugins_while_it_is_imported_is_reported(install):
    class Impatient(Entry):
        def load(self):
            return _registry.load()

    install(Impatient("bad", None), GOOD)
    registry = _registry.load()
    assert "a plugin asks for the installed plugins while it is being imported" in str(registry.failures["bad"])
    assert list(registry.solvers) == ["good.solver"]


OUTSIDER = """
    from dataclasses import dataclass
    from typing import ClassVar

    import argminlayer as al


    @dataclass(frozen=True)
    class Outside(al.AbstractSolver):
        name: ClassVar[str] = "outside.solver"
        capabilities: ClassVar[al.Capabilities] = al.Capabilities()

        def available(self):
            return al.Availability.of_module("outsider_back_end", extra="outsider")

        def solve(self, problem, start):
            from . import back_end


    @al.hookimpl
    def argminlayer_solvers():
        return [Outside]
"""
ASK = """
    import sys
    import argminlayer

    imported = "outsider" in sys.modules
    from argminlayer import _registry

    registry = _registry.load()
    print(imported, "outside.solver" in registry.solvers, registry.disabled, "outsider.back_end" in sys.modules)
    print([(p.distribution, p.version, p.module) for p in registry.plugins if p.name == "outside"])
    print(registry.failures["broken"])
"""


def install_outsider(folder, name, package, source):
    """Write a distribution as an installer leaves it: a package and its metadata."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(textwrap.dedent(source))
    (folder / package / "back_end.py").write_text("raise ImportError('the back end is not needed to list plugins')\n")
    metadata = folder / f"{package}-3.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.1\n")
    (metadata / "entry_points.txt").write_text(f"[argminlayer]\n{name} = {package}\n")


def ask(folder, **environment):
    """Return what a fresh process prints about its plugins when the folder is on its path."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ASK)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_an_installed_outsider_is_found_without_importing_it_early_or_its_back_end(tmp_path):
    install_outsider(tmp_path, "outside", "outsider", OUTSIDER)
    install_outsider(tmp_path, "broken", "broken_outsider", "import a_module_that_is_not_there")
    first, second, third = ask(tmp_path, ARGMINLAYER_DISABLE_PLUGINS="")
    assert first == "False True () False"
    assert second == "[('outside', '3.1', 'outsider')]"
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in third


def test_an_installed_outsider_can_be_switched_off_by_the_environment(tmp_path):
    install_outsider(tmp_path, "outside", "outsider", OUTSIDER)
    install_outsider(tmp_path, "broken", "broken_outsider", "import a_module_that_is_not_there")
    assert ask(tmp_path, ARGMINLAYER_DISABLE_PLUGINS="outside")[0] == "False False ('outside',) False"
