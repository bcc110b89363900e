"""The data sets: those of scikit-learn that the paper uses, and any CSV file of numbers."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import argminlayer as al

from ._errors import explained_imports, near_matches

Array = NDArray[np.float64]

BUILT_IN = ("iris", "diabetes")
_SHOWN = 5


@dataclass(frozen=True)
class Published:
    """What Pan, Wang and Zhou, sec. 4.3, print for a data set."""

    mu: float
    loss: float
    iterations: str


@dataclass(frozen=True)
class DataSet:
    """A regression problem.

    Attributes:
        name: what to call it, and its figures.
        X: (rows, columns), each column standardised over the whole table: mean 0, population deviation 1.
        y: (rows,), as given.
        per_sample: whether the paper's figures belong to a loss divided by the fold's size; true where there are none.
        published: the paper's figures.
    """

    name: str
    X: Array
    y: Array
    per_sample: bool = True
    published: Published | None = None


def load_all(sources: Sequence[str], target: str | None) -> tuple[DataSet, ...]:
    """Return several data sets.

    Raises:
        ExperimentError: as for :func:`load`, or two have the same name.
    """
    sets = tuple(load(source, target) for source in sources)
    names = [data.name for data in sets]
    for name in names:
        if names.count(name) > 1:
            raise al.ExperimentError(f"two data sets are called {name!r}; name each once, or rename one of two files")
    return sets


def load(source: str, target: str | None) -> DataSet:
    """Return a data set.

    Args:
        source: ``"iris"``, ``"diabetes"`` or the path of a CSV file with a header line.
        target: the column of the CSV file to predict.

    Raises:
        ExperimentError: there is no such data set or file, or it cannot be used; the message says which cell, column
            or setting.
    """
    if source in BUILT_IN:
        return _from_sklearn(source)
    path = Path(source)
    if not (path.suffix or path.exists() or len(path.parts) > 1):
        raise al.ExperimentError(
            f"there is no data set {source!r}.{near_matches(source, BUILT_IN)} Known are {' and '.join(BUILT_IN)}; "
            "anything else is the path of a CSV file"
        )
    return _from_csv(path, target)


def _from_sklearn(name: str) -> DataSet:
    with explained_imports(f"the data set {name!r}"):
        from sklearn import datasets
    if name == "iris":
        bunch = datasets.load_iris()
        X = standardise(bunch.data, bunch.feature_names, name)
        return DataSet(name, X, bunch.target.astype(np.float64), True, Published(345.0, 0.7194, "about 1 million"))
    bunch = datasets.load_diabetes()
    X = standardise(bunch.data, bunch.feature_names, name)
    return DataSet(name, X, bunch.target.astype(np.float64), False, Published(210.147, 0.901, "several thousand"))


def standardise(X: Array, columns: Sequence[str], where: str) -> Array:
    """Return ``X`` (rows, columns) with every column at mean 0 and population standard deviation 1.

    Raises:
        ExperimentError: a column is constant.
    """
    deviation = X.std(axis=0)
    # The deviation of a constant that binary fractions cannot represent is rounding, not zero.
    constant = deviation <= 1e-13 * np.abs(X).max(axis=0)
    if constant.any():
        names = [name for name, flat in zip(columns, constant, strict=True) if flat]
        raise al.ExperimentError(
            f"{_columns(names)} of {where} {'is' if len(names) == 1 else 'are'} constant, so cannot be standardised, "
            "and tells nothing about the target; remove it from the file. (For a constant term, set intercept.)"
        )
    standardised: Array = (X - X.mean(axis=0)) / deviation
    return standardised


def _from_csv(path: Path, target: str | None) -> DataSet:
    frame = _read(path)
    names = [str(name) for name in frame.columns]
    if target is None:
        raise al.ExperimentError(f"{path} needs a target: name the column to predict, one of {_listing(names)}")
    if target not in names:
        commas = " Fields must be separated by commas." if len(names) == 1 else ""
        raise al.ExperimentError(
            f"{path} has no column {target!r} to predict.{near_matches(target, names)} Its columns are "
            f"{_listing(names)}.{commas}"
        )
    if len(names) == 1:
        raise al.ExperimentError(f"{path} has no column besides the target {target!r}; nothing to predict it from")
    numbers = _numbers(frame, path, target)
    y: Array = numbers[target].to_numpy()
    if np.ptp(y) == 0:
        raise al.ExperimentError(f"the target column {target!r} of {path} is constant; there is nothing to fit")
    rest = numbers.drop(columns=target)
    return DataSet(_name(path), standardise(rest.to_numpy(), list(rest.columns), str(path)), y)


def _name(path: Path) -> str:
    """Return the name of a file without its ending, fit to name other files."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "data"


def _read(path: Path) -> Any:
    with explained_imports("reading a CSV file"):
        import pandas as pd
    try:
        with warnings.catch_warnings():
            # Otherwise rows that are longer than the header lose their last fields.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, skipinitialspace=True, low_memory=False, index_col=False)
    except pd.errors.EmptyDataError as error:
        raise al.ExperimentError(f"{path} is empty; it needs a header line and rows of numbers") from error
    except OSError as error:
        raise al.ExperimentError(f"cannot read {path}: {error.strerror or error}") from error
    except pd.errors.ParserWarning as error:
        raise al.ExperimentError(
            f"the rows of {path} have more fields than its header; every column needs a name"
        ) from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = str(error).strip()
        raise al.ExperimentError(
            f"{path} is not a CSV file: {reason}. Expected: UTF-8 text, a header line, fields separated by commas"
        ) from error
    nameless = [column + 1 for column, name in enumerate(frame.columns) if str(name).startswith("Unnamed: ")]
    if nameless:
        raise al.ExperimentError(
            f"column {nameless[0]} of {path} has no name in the header; name it, or remove it if it only numbers the "
            "rows"
        )
    if frame.empty:
        raise al.ExperimentError(f"{path} has a header but no rows; it needs at least as many rows as folds")
    return frame.rename(columns=str)


def _numbers(frame: Any, path: Path, target: str) -> Any:
    """Return the table as float64.

    Raises:
        ExperimentError: a cell is text, missing or infinite.
    """
    with explained_imports("reading a CSV file"):
        import pandas as pd
    numbers = frame.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    text = numbers.isna() & frame.notna()
    wrong = [name for name in frame.columns if text[name].any()]
    if target in wrong:
        raise al.ExperimentError(
            f"the target column {target!r} of {path} is not numeric: {_first(frame, text, target)}. Ridge regression "
            "predicts a number: encode classes as 0, 1, 2, ..., or name another target"
        )
    if wrong:
        raise al.ExperimentError(
            f"{_columns(wrong)} of {path} {'is' if len(wrong) == 1 else 'are'} not numeric: "
            f"{_first(frame, text, wrong[0])}. Encode categories as numbers (a 0/1 column for each), or remove "
            f"{'the column' if len(wrong) == 1 else 'these columns'} from the file"
        )
    absent = ~np.isfinite(numbers.to_numpy())
    if absent.any():
        row, column = map(int, np.argwhere(absent)[0])
        raise al.ExperimentError(
            f"{path} has {int(absent.sum())} missing or infinite cell{'s' if absent.sum() > 1 else ''}; the first is "
            f"in row {row + 1} (not counting the header), column {frame.columns[column]!r}. Fill it in, or remove the "
            "row or the column"
        )
    return numbers


def _first(frame: Any, wrong: Any, column: str) -> str:
    row = int(np.argmax(wrong[column].to_numpy()))
    return f"row {row + 1} of {column!r} holds {frame[column].iloc[row]!r}"


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {_listing(names)}"


def _listing(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {rest} more" if rest > 0 else "")
