"""Clauses of error messages: near matches, and which extra installs a missing package."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

import argminlayer as al

_PACKAGES = {"matplotlib": "matplotlib", "pandas": "pandas", "sklearn": "scikit-learn"}


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a clause that offers the names closest to ``name``, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


@contextlib.contextmanager
def explained_imports(purpose: str) -> Iterator[None]:
    """Explain what to install when an import inside the block finds no package.

    Args:
        purpose: what the package is for, the subject of the message.

    Raises:
        ExperimentError: scikit-learn, pandas or matplotlib is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = _PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise al.ExperimentError(
            f"{purpose} needs {package}, which is not installed: pip install 'argminlayer[bilevel]'"
        ) from error
