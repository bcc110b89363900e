"""Which plugins are installed, what each provides, and what is wrong with those that were left out.

pluggy's own loader stops at the first plugin that fails and silently skips the second of two that share a name, so
entry points are loaded here, one at a time: a broken plugin is kept as a failure and harms no other.
"""

import importlib
import importlib.metadata
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ._errors import ArgminError, PluginError, ProblemError
from ._experiment import AbstractExperiment
from ._plugin import Contribution, EntryPoint, LoadedPlugin, distribution_of, read_plugin
from ._problem import Problem
from ._solver import AbstractSolver

GROUP = "argminlayer"
DISABLE_VARIABLE = "ARGMINLAYER_DISABLE_PLUGINS"


@dataclass(frozen=True, eq=False)
class Registry:
    """Everything the installed plugins provide.

    Attributes:
        plugins: those that loaded, by name.
        solvers: a solver with its default options for each name.
        experiments: an experiment class for each name.
        readers: for each plugin that reads models, its hook.
        writers: for each suffix of a file that a plugin writes, its function.
        failures: for each plugin that was left out, what is wrong with it; ``__cause__`` is the original exception.
        disabled: installed plugins that are switched off.
    """

    plugins: tuple[LoadedPlugin, ...]
    solvers: Mapping[str, AbstractSolver]
    experiments: Mapping[str, type[AbstractExperiment]]
    readers: Mapping[str, Callable[..., Problem | None]]
    writers: Mapping[str, Callable[..., None]]
    failures: Mapping[str, PluginError]
    disabled: tuple[str, ...]

    def read_model(
        self, model: Any, parameters: Any = None, variables: Any = None, options: Mapping[str, Any] | None = None
    ) -> Problem | None:
        """Return the problem of the first plugin, in the order of names, that reads the model; None if none does.

        Raises:
            ArgminError: the plugin that recognises the model refuses it, or takes no options.
            PluginError: a plugin broke on the model, and no other reads it.
        """
        broken: PluginError | None = None
        told = dict(options or {})
        for name, reader in self.readers.items():
            try:
                problem = reader(model=model, parameters=parameters, variables=variables, options=told)
            except ArgminError:
                raise
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything; the next plugin is asked
                broken = broken or _reading_failed(name, model, error)
            else:
                if problem is not None:
                    _refuse_unread(name, reader, told)
                    return problem
        if broken is not None:
            raise broken
        return None


def load() -> Registry:
    """Return what is installed. Plugins are imported on the first call and never again, until :func:`reload`.

    Raises:
        PluginError: two plugins share a name, or a plugin asks for the plugins while it is being imported.
    """
    return _INSTALLED.get()


def reload() -> Registry:
    """Look again at what is installed, for notebooks and tests; modules already imported are not imported anew."""
    _INSTALLED.forget()
    importlib.invalidate_caches()
    return load()


def disabled_names() -> frozenset[str]:
    """Return the plugin names in ``ARGMINLAYER_DISABLE_PLUGINS``: comma separated, or ``all``."""
    return frozenset(filter(None, map(str.strip, os.environ.get(DISABLE_VARIABLE, "").split(","))))


def load_from(entries: Iterable[EntryPoint], disabled: Iterable[str] = ()) -> Registry:
    """Load plugins from their entry points, in the order of their names.

    A plugin that fails in any way is left out as a whole and kept in ``failures``.

    Args:
        entries: the entry points.
        disabled: names not to load, ``"all"`` for none at all.

    Raises:
        PluginError: two entry points that are not disabled have the same name.
    """
    off = frozenset(disabled)
    ordered = sorted(entries, key=lambda entry: entry.name)
    active = [entry for entry in ordered if not off & {entry.name, "all"}]
    _refuse_duplicates(active)
    found: list[Contribution] = []
    failures: dict[str, PluginError] = {}
    for entry in active:
        try:
            contribution = read_plugin(entry)
            _refuse_taken_names(contribution, found)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is kept and reported
            failures[entry.name] = _failure(entry, error)
        else:
            found.append(contribution)
    return Registry(
        plugins=tuple(contribution.plugin for contribution in found),
        solvers=MappingProxyType({s.name: s for contribution in found for s in contribution.solvers}),
        experiments=MappingProxyType({e.name: e for contribution in found for e in contribution.experiments}),
        readers=MappingProxyType({c.plugin.name: c.reader for c in found if c.reader is not None}),
        writers=MappingProxyType({suffix: writer for c in reversed(found) for suffix, writer in c.writers}),
        failures=MappingProxyType(failures),
        disabled=tuple(sorted({entry.name for entry in ordered} - {entry.name for entry in active})),
    )


class _Installed:
    """The registry of what is installed, loaded once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._registry: Registry | None = None
        self._loading = False

    def get(self) -> Registry:
        with self._lock:
            if self._loading:
                raise PluginError(
                    "a plugin asks for the installed plugins while it is being imported; importing a plugin must not "
                    "solve anything, so move that call into a function"
                )
            if self._registry is None:
                self._loading = True
                try:
                    self._registry = load_from(importlib.metadata.entry_points(group=GROUP), disabled_names())
                finally:
                    self._loading = False
            return self._registry

    def forget(self) -> None:
        with self._lock:
            self._registry = None


_INSTALLED = _Installed()


def _refuse_duplicates(entries: list[EntryPoint]) -> None:
    for first, second in itertools.pairwise(entries):
        if first.name == second.name:
            raise PluginError(
                f"two installed plugins are called {first.name!r}: {first.value} of {distribution_of(first)} and "
                f"{second.value} of {distribution_of(second)}; uninstall one of them, or switch both off with "
                f"{DISABLE_VARIABLE}={first.name}"
            )


def _refuse_taken_names(contribution: Contribution, found: list[Contribution]) -> None:
    """Raise if a name of the contribution is used twice in it, or by a plugin already found."""
    for kind in ("solvers", "experiments"):
        names = getattr(contribution.plugin, kind)
        owners = {name: other.plugin for other in found for name in getattr(other.plugin, kind)}
        for name in names:
            if names.count(name) > 1:
                raise PluginError(f"two of its {kind} are called {name!r}; rename one")
            if name in owners:
                raise PluginError(
                    f"{name!r}, one of its {kind}, is already provided by the plugin {owners[name].name!r} of "
                    f"{owners[name].distribution}; rename it"
                )


def _failure(entry: EntryPoint, error: BaseException) -> PluginError:
    reason = str(error).rstrip(".") if isinstance(error, ArgminError) else f"{type(error).__name__}: {error}"
    failure = PluginError(
        f"the plugin {entry.name!r} ({entry.value}) of {distribution_of(entry)} was left out: {reason}. Update or "
        f"uninstall that distribution, or switch the plugin off with {DISABLE_VARIABLE}={entry.name}"
    )
    failure.__cause__ = error
    return failure


def _refuse_unread(name: str, reader: Any, options: Mapping[str, Any]) -> None:
    if options and not any("options" in hook.argnames for hook in reader.get_hookimpls()):
        raise ProblemError(f"the plugin {name!r} reads this model, but takes no options: leave {sorted(options)} out")


def _reading_failed(name: str, model: Any, error: Exception) -> PluginError:
    failure = PluginError(
        f"the plugin {name!r} broke on a model of type {type(model).__module__}.{type(model).__qualname__}: "
        f"{type(error).__name__}: {error}. Report this to its authors, or switch the plugin off with "
        f"{DISABLE_VARIABLE}={name}"
    )
    failure.__cause__ = error
    return failure
