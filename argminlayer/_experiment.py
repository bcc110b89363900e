"""Experiments as values: a frozen configuration in, records, tables and figures out; saving what came out."""

import abc
import dataclasses
import importlib.metadata
import io
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ._errors import ExperimentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What experiments and figures may be called, because files and folders are called after them."""


class Progress(Protocol):
    """How an experiment tells how far it is. It must not print."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Iterate over ``iterable`` and show how much is done.

        Args:
            iterable: what is worked through; calls may be nested.
            description: what is being done, in a few words.
            total: number of items, for an iterable that has no length.
        """
        ...

    def log(self, message: str) -> None:
        """Show a line of text."""
        ...


class SilentProgress:
    """A :class:`Progress` that shows nothing, for tests and scripts."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Iterate over ``iterable``."""
        del description, total
        return iter(iterable)

    def log(self, message: str) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        title: what it shows.
        columns: headings.
        rows: cells as text, one for each column.

    Raises:
        ExperimentError: a row has more or fewer cells than there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Check that every row fits the columns."""
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ExperimentError(
                    f"row {index} of the table {self.title!r} has {len(row)} cells, but there are "
                    f"{len(self.columns)} columns: {', '.join(self.columns)}"
                )


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        records: the numbers, by name: numbers, text, None, and (nested) lists and mappings of these. NumPy arrays and
            tensors are saved as lists. They are the ``records`` of ``results.json``, where NaN and infinities are null.
        tables: what to print.
        figures: functions that draw a figure, by the name of its file; called only when figures are wanted.
        notes: sentences to print below the tables.

    Raises:
        ExperimentError: a figure's name is not fit for a file.
    """

    records: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names of the figures."""
        for name in self.figures:
            if not FILE_NAME.fullmatch(name):
                raise ExperimentError(
                    f"the figure name {name!r} is not fit for a file; use letters, digits, '-', '_' and '.'"
                )


class AbstractExperiment(abc.ABC):
    """An experiment of a plugin, run by ``argminlayer run NAME``.

    Concrete experiments are frozen dataclasses. The fields are the settings, the seed among them: each has a default,
    a type that can be written on a command line (``str``, ``int``, ``float``, ``bool``, ``Path``, ``Literal``, tuples
    of these, unions of these and None), and says what it is in ``metadata={"help": ...}``. An experiment that cannot
    run with its data or settings raises :class:`argminlayer.ExperimentError`.

    Attributes:
        name: what to write after ``argminlayer run``.
        summary: what it shows, in one line.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abc.abstractmethod
    def run(self, progress: Progress) -> Result:
        """Run the experiment. Equal settings give equal records, up to times.

        Raises:
            ExperimentError: it cannot run with its data or settings.
        """


def prepare_folder(folder: Path) -> None:
    """Make a folder for results, before anything expensive is run.

    Raises:
        ExperimentError: the folder cannot be made or written to.
    """
    probe = _beside(folder / "results.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def save(result: Result, folder: Path, experiment: AbstractExperiment, seconds: float) -> tuple[Path, ...]:
    """Write ``results.json`` and one PNG for each figure, and return their paths.

    Each file is complete or absent: it is written beside its place and moved there. ``results.json`` is strict JSON
    with the keys ``experiment``, ``settings``, ``records``, ``tables``, ``notes``, ``versions`` and ``seconds``.

    Args:
        result: what to write.
        folder: where to, an existing folder.
        experiment: what was run; its fields become ``settings``.
        seconds: how long it took.

    Raises:
        ExperimentError: the records hold something that has no form in JSON, a file cannot be written, or matplotlib
            is not installed.
    """
    report = {
        "experiment": experiment.name,
        "settings": {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment)},  # type: ignore[arg-type]
        "records": result.records,
        "tables": [dataclasses.asdict(table) for table in result.tables],
        "notes": result.notes,
        "versions": {
            "argminlayer": version("argminlayer"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        "seconds": seconds,
    }
    text = json.dumps(_plain(report, "results"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    written = [_write(folder / "results.json", text.encode())]
    written += [_write(folder / f"{name}.png", _png(name, draw)) for name, draw in result.figures.items()]
    return tuple(written)


def version(distribution: str) -> str:
    """Return the version of an installed distribution, ``"unknown"`` if it runs from a source tree."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _png(name: str, draw: "Callable[[], Figure]") -> bytes:
    image = io.BytesIO()
    try:
        draw().savefig(image, format="png", dpi=150, bbox_inches="tight")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise ExperimentError(
            f"the figure {name!r} needs matplotlib, which is not installed: pip install matplotlib. "
            "The numbers are in results.json."
        ) from error
    return image.getvalue()


def _write(path: Path, content: bytes) -> Path:
    partial = _beside(path)
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _unwritable(path: Path, error: OSError) -> ExperimentError:
    return ExperimentError(
        f"cannot write results to {path}: {error.strerror}; pass --output with a folder that you can write to"
    )


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` in terms of what strict JSON has; ``where`` names it in an error."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, tensors
        return _plain(value.tolist(), where)
    raise ExperimentError(
        f"{where} is a {type(value).__name__}, which has no form in JSON; records hold numbers, text, None, lists and "
        "mappings with text keys"
    )


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ExperimentError(f"{where} has the key {key!r}; the keys of records are text, so write {str(key)!r}")
    return key
