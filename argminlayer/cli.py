"""The command line: what is installed, experiments, and why a solver was chosen.

Results go to standard output; progress and errors go to standard error. The exit code is 2 after an error that
explains itself.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import rich.box
import rich.console
import rich.progress
import rich.table
import typer
from rich.text import Text

from . import _registry
from ._errors import ArgminError, ExperimentError, PluginError, SignatureError, near_matches
from ._experiment import AbstractExperiment, Progress, Result, SilentProgress, Table, prepare_folder, save, version
from ._export import export_problem
from ._plugin import LoadedPlugin
from ._problem_file import DEFAULT_SIZE, read_problem
from ._registry import Registry
from ._settings import Setting, read_settings, settings_of, show
from ._solver import AbstractSolver

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# What is not a terminal has no width: tables are as wide as their cells, and a number is never broken.
_UNLIMITED = 10_000

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Optimization problems as differentiable layers, with any installed solver.",
)


def main() -> None:
    """Run the command line; the console script ``argminlayer``."""
    app()


def _explains_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print an error of ours without a traceback and exit with code 2; any other error is a bug and is shown whole."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ArgminError as error:
            _print_error(error)
            raise typer.Exit(2) from error

    return wrapped


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"argminlayer {version('argminlayer')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del show_version


@app.command()
def plugins() -> None:
    """List the plugins: what loaded, what failed and why."""
    try:
        registry = _registry.load()
    except PluginError as error:
        _print_error(error)
        raise typer.Exit(1) from error
    console = _console()
    columns = ("plugin", "distribution", "module", "solvers", "experiments", "reads models")
    _print_listing(console, "plugins", columns, tuple(map(_plugin_row, registry.plugins)))
    for failure in registry.failures.values():
        _print_line(console, f"failed: {failure}")
    for name in registry.disabled:
        _print_line(console, f"disabled: {name} ({_registry.DISABLE_VARIABLE})")
    installed = [*(p.name for p in registry.plugins), *registry.failures, *registry.disabled]
    for name in sorted(_registry.disabled_names() - {"all", *installed}):
        near = near_matches(name, installed)
        _print_line(console, f"not installed: {name!r} in {_registry.DISABLE_VARIABLE} is not a plugin.{near}")


@app.command()
@_explains_errors
def solvers() -> None:
    """List the solvers: what is usable, what to install, and the constraints each handles."""
    registry = _registry.load()
    console = _console()
    rows = tuple(
        (name, name.partition(".")[0], _usable(solver), _listing(sorted(solver.capabilities.constraints)))
        for name, solver in sorted(registry.solvers.items())
    )
    _print_listing(console, "solvers", ("solver", "plugin", "usable", "constraints"), rows)
    _mention_failures(console, registry)


@app.command(context_settings={"allow_interspersed_args": False})
@_explains_errors
def run(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which experiment.", show_default=False)] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="--OPTION VALUE", help="Its settings, and --output DIR; `NAME --help` lists them."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
) -> None:
    """Run an experiment and save its numbers and figures; without NAME, list the experiments."""
    registry = _registry.load()
    console = _console()
    if name is None or list_:
        rows = tuple((key, experiment.summary) for key, experiment in sorted(registry.experiments.items()))
        _print_listing(console, "experiments", ("experiment", "what it shows"), rows)
        _mention_failures(console, registry)
        return
    experiment_class = _find_experiment(registry, name)
    output = Setting("output", Path, Path("results") / name, "folder for results.json and the figures")
    settings = (*settings_of(experiment_class), output)
    if "--help" in (arguments or ()):
        _print_settings(console, experiment_class, settings)
        return
    values = read_settings(settings, arguments or (), f"the experiment {name!r}")
    folder = values.pop(output.name, output.default)
    _run_experiment(console, experiment_class(**values), folder)


@app.command()
@_explains_errors
def explain(
    target: Annotated[str, typer.Argument(metavar="FILE.py:problem", help="A Python file, and the problem in it.")],
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZE", help=f"Size of a dimension of random parameters (default {DEFAULT_SIZE})."),
    ] = None,
) -> None:
    """Explain which solvers can solve a problem, which one is chosen, and why.

    The parameters are the tuple `parameters` of the same file; without one they are random.
    """
    from . import explain as explain_problem

    stated = read_problem(target, dict(_read_dimension(text) for text in dim or ()))
    console = _console()
    _print_line(console, f"parameters: {stated.origin}")
    _print_line(console, str(explain_problem(stated.problem, *stated.parameters)))


@app.command()
@_explains_errors
def export(
    target: Annotated[str, typer.Argument(metavar="FILE.py:problem", help="A Python file, and the problem in it.")],
    to: Annotated[Path, typer.Option(help="The file to write; its suffix says the kind: model.nl, model.py.")],
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZE", help=f"Size of a dimension of random parameters (default {DEFAULT_SIZE})."),
    ] = None,
) -> None:
    """Write a problem as a file in another language: AMPL's .nl format, or Python source of a Pyomo model.

    The parameters are the tuple `parameters` of the same file; without one they are random.
    """
    stated = read_problem(target, dict(_read_dimension(text) for text in dim or ()))
    export_problem(stated.problem, stated.parameters, to)
    _print_line(_console(), f"parameters: {stated.origin}")
    _print_line(_console(), f"wrote {to}")


def _plugin_row(plugin: LoadedPlugin) -> tuple[str, ...]:
    distribution = f"{plugin.distribution} {plugin.version}"
    reads_models = "yes" if plugin.reads_models else "no"
    provided = _listing(plugin.solvers), _listing(plugin.experiments)
    return (plugin.name, distribution, plugin.module, *provided, reads_models)


def _find_experiment(registry: Registry, name: str) -> type[AbstractExperiment]:
    if name in registry.experiments:
        return registry.experiments[name]
    known = f"The installed experiments are: {_listing(sorted(registry.experiments))}."
    broken = f" {_failures(registry)}." if registry.failures else ""
    raise ExperimentError(f"there is no experiment {name!r}.{near_matches(name, registry.experiments)} {known}{broken}")


def _run_experiment(console: rich.console.Console, experiment: AbstractExperiment, folder: Path) -> None:
    prepare_folder(folder)
    started = time.perf_counter()
    with _progress() as progress:
        result = experiment.run(progress)
    seconds = time.perf_counter() - started
    if not isinstance(result, Result):
        raise PluginError(
            f"the experiment {experiment.name!r} returned a {type(result).__name__}; its `run` must return an "
            "argminlayer.Result"
        )
    for table in result.tables:
        _print_table(console, table)
    for note in result.notes:
        _print_line(console, note)
    for path in save(result, folder, experiment, seconds):
        _print_line(console, f"wrote {path}")
    _print_line(console, f"{experiment.name} took {seconds:.1f} s")


def _usable(solver: AbstractSolver) -> str:
    try:
        availability = solver.available()
    except Exception as error:  # noqa: BLE001 - foreign code; one broken solver must not hide the others
        return f"no: its available() raised {type(error).__name__}: {error}"
    return "yes" if availability else f"no: {availability.reason}"


def _read_dimension(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not name.isidentifier() or not size.isdecimal():
        raise SignatureError(f"--dim {text!r} is not of the form NAME=SIZE, for example --dim n=10")
    return name, int(size)


@dataclass(frozen=True)
class _TerminalProgress:
    """Progress as bars that vanish when they are done; lines of text stay above them."""

    bars: rich.progress.Progress

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        count = total if total is not None else getattr(iterable, "__len__", lambda: None)()
        task = self.bars.add_task(description, total=count)
        try:
            for item in iterable:
                yield item
                self.bars.advance(task)
        finally:
            self.bars.remove_task(task)

    def log(self, message: str) -> None:
        _print_line(self.bars.console, message)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield SilentProgress()
        return
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        yield _TerminalProgress(bars)


def _console() -> rich.console.Console:
    console = rich.console.Console()
    return console if console.is_terminal else rich.console.Console(width=_UNLIMITED)


def _print_line(console: rich.console.Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _print_error(error: ArgminError) -> None:
    rich.console.Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)


def _print_table(console: rich.console.Console, table: Table) -> None:
    printed = rich.table.Table(title=Text(table.title), title_justify="left", box=rich.box.SIMPLE_HEAD)
    for column in table.columns:
        printed.add_column(Text(column), overflow="fold")
    for row in table.rows:
        printed.add_row(*map(Text, row))
    console.print(printed)


def _print_listing(
    console: rich.console.Console, what: str, columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]
) -> None:
    if rows:
        _print_table(console, Table(f"{what}: {len(rows)}", columns, rows))
    else:
        _print_line(console, f"no {what} are installed")


def _print_settings(
    console: rich.console.Console, experiment: type[AbstractExperiment], settings: Iterable[Setting]
) -> None:
    _print_line(console, f"argminlayer run {experiment.name}: {experiment.summary}")
    rows = tuple((setting.usage, show(setting.default), setting.help) for setting in settings)
    _print_table(console, Table("settings", ("option", "default", "meaning"), rows))


def _mention_failures(console: rich.console.Console, registry: Registry) -> None:
    if registry.failures:
        _print_line(console, _failures(registry))


def _failures(registry: Registry) -> str:
    return f"Plugins that failed to load: {', '.join(registry.failures)}; see `argminlayer plugins`"


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
