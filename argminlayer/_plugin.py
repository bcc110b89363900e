"""One plugin: loaded from its entry point, and everything it returns checked against the contract."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pluggy

from . import hookspecs
from ._errors import PluginError, near_matches
from ._experiment import FILE_NAME, AbstractExperiment
from ._problem import Problem
from ._settings import settings_of
from ._solver import AbstractSolver, Capabilities

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("argminlayer_"))
RESERVED_SETTINGS = frozenset({"output", "help"})


class EntryPoint(Protocol):
    """What is used of an ``importlib.metadata.EntryPoint``."""

    @property
    def name(self) -> str:
        """Left of the equals sign."""

    @property
    def value(self) -> str:
        """Right of the equals sign."""

    @property
    def dist(self) -> Any:
        """The distribution that declares it."""

    def load(self) -> Any:
        """Import what ``value`` names."""


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that loaded, and what it provides.

    Attributes:
        name: of its entry point.
        distribution: that declares the entry point.
        version: of that distribution.
        module: the value of the entry point.
        solvers: names of its solvers.
        experiments: names of its experiments.
        reads_models: whether it turns foreign models into problems.
    """

    name: str
    distribution: str
    version: str
    module: str
    solvers: tuple[str, ...]
    experiments: tuple[str, ...]
    reads_models: bool


@dataclass(frozen=True)
class Contribution:
    """What a plugin provides, as objects.

    Attributes:
        plugin: the same by name.
        solvers: with their default options.
        experiments: classes.
        reader: its hook for foreign models, None without one.
        writers: suffixes of the files that it writes, each with its function.
    """

    plugin: LoadedPlugin
    solvers: tuple[AbstractSolver, ...]
    experiments: tuple[type[AbstractExperiment], ...]
    reader: Callable[..., Problem | None] | None
    writers: tuple[tuple[str, Callable[..., None]], ...] = ()


def read_plugin(entry: EntryPoint) -> Contribution:
    """Import a plugin and ask what it provides.

    Raises:
        PluginError: it breaks the contract.
        Exception: whatever the plugin's own code raises.
    """
    # A manager for each plugin: nothing of one that fails can stay behind, and an exception has an owner.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    module = entry.load()
    manager.register(module, name=entry.name)
    _check_hooks(manager, module)
    solvers = tuple(_solver(each, entry.name) for each in _returned(manager.hook.argminlayer_solvers))
    experiments = tuple(_experiment(each) for each in _returned(manager.hook.argminlayer_experiments))
    writers = tuple(_writer(each) for each in _returned(manager.hook.argminlayer_writers))
    reader = manager.hook.argminlayer_read_model
    plugin = LoadedPlugin(
        name=entry.name,
        distribution=distribution_of(entry),
        version=getattr(entry.dist, "version", "unknown"),
        module=entry.value,
        solvers=tuple(solver.name for solver in solvers),
        experiments=tuple(experiment.name for experiment in experiments),
        reads_models=bool(reader.get_hookimpls()),
    )
    return Contribution(plugin, solvers, experiments, reader if plugin.reads_models else None, writers)


def _check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    callers = manager.get_hookcallers(module) or []
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = next(caller.name for caller in callers if not caller.has_spec())
        raise PluginError(
            f"it implements {unknown!r}, which is not a hook.{near_matches(unknown, HOOKS)} The hooks are "
            f"{', '.join(HOOKS)}"
        ) from error
    implemented = {caller.name for caller in callers}
    for hook in HOOKS:
        if hook not in implemented and inspect.isroutine(getattr(module, hook, None)):
            raise PluginError(f"its function {hook} is not decorated with @argminlayer.hookimpl")
    if not implemented:
        raise PluginError(
            f"it implements no hook; decorate at least one of {', '.join(HOOKS)} with @argminlayer.hookimpl"
        )


def _returned(hook: pluggy.HookCaller) -> list[Any]:
    if not hook.get_hookimpls():
        return []
    answers = hook()
    if not answers or not isinstance(answers[0], (list, tuple)):
        answer = answers[0] if answers else None
        raise PluginError(f"{hook.name} returned {answer!r}; return a list of classes")
    return list(answers[0])


def _solver(candidate: Any, prefix: str) -> AbstractSolver:
    if not (inspect.isclass(candidate) and issubclass(candidate, AbstractSolver)):
        raise PluginError(
            f"argminlayer_solvers returned {candidate!r}; return subclasses of argminlayer.AbstractSolver"
        )
    _check_concrete(candidate)
    name = getattr(candidate, "name", None)
    head, _, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
    if head != prefix or not rest:
        raise PluginError(
            f"its solver {candidate.__qualname__} has the name {name!r}; write '{prefix}.<solver>', which begins with "
            "the name of the entry point, itself without dots"
        )
    if not isinstance(getattr(candidate, "capabilities", None), Capabilities):
        raise PluginError(f"its solver {name!r} has no capabilities; set them to an argminlayer.Capabilities")
    return _default_instance(candidate)


def _writer(candidate: Any) -> tuple[str, Callable[..., None]]:
    pair = isinstance(candidate, tuple) and len(candidate) == 2
    if not (pair and isinstance(candidate[0], str) and candidate[0].startswith(".") and callable(candidate[1])):
        raise PluginError(
            f"argminlayer_writers returned {candidate!r}; return pairs of a suffix and a function, ('.nl', write)"
        )
    return candidate[0], candidate[1]


def _experiment(candidate: Any) -> type[AbstractExperiment]:
    if not (inspect.isclass(candidate) and issubclass(candidate, AbstractExperiment)):
        raise PluginError(
            f"argminlayer_experiments returned {candidate!r}; return subclasses of argminlayer.AbstractExperiment"
        )
    _check_concrete(candidate)
    name = getattr(candidate, "name", None)
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
        raise PluginError(
            f"its experiment {candidate.__qualname__} has the name {name!r}; use letters, digits, '-', '_' and '.'"
        )
    if not isinstance(getattr(candidate, "summary", None), str):
        raise PluginError(f"its experiment {name!r} has no summary; say in one line what it shows")
    reserved = RESERVED_SETTINGS & {setting.name for setting in settings_of(candidate)}
    if reserved:
        raise PluginError(
            f"its experiment {name!r} has the field {min(reserved)!r}, which is taken by the command line"
        )
    return candidate


def _check_concrete(candidate: type) -> None:
    missing = sorted(getattr(candidate, "__abstractmethods__", ()))
    if missing:
        raise PluginError(f"its class {candidate.__qualname__} is abstract; it lacks {', '.join(missing)}")


def _default_instance(solver: type[AbstractSolver]) -> AbstractSolver:
    try:
        return solver()
    except TypeError as error:
        raise PluginError(
            f"its solver {solver.name!r} cannot be made without arguments ({error}); give every option a default"
        ) from error


def distribution_of(entry: EntryPoint) -> str:
    """Return the name of the distribution that declares the entry point."""
    return getattr(entry.dist, "name", None) or "an unknown distribution"
