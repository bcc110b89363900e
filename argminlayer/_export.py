"""A problem as a file in another language, written by the plugin that knows the kind of file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import _registry
from ._bound import bind
from ._errors import ArgminError, near_matches
from ._problem import Problem


def export_problem(problem: Problem, parameters: Sequence[Any], path: Path) -> None:
    """Write a problem with the values of its parameters to a file; its suffix says the kind.

    Args:
        problem: the problem.
        parameters: of one instance.
        path: for example ``model.nl``.

    Raises:
        ArgminError: no plugin writes such files, or the file cannot be written.
        ProblemError: several instances.
    """
    writers = _registry.load().writers
    writer = writers.get(path.suffix)
    if writer is None:
        known = ", ".join(sorted(writers)) or "none"
        raise ArgminError(
            f"no installed plugin writes {path.suffix or 'files without a suffix'!r} ({str(path)!r})."
            f"{near_matches(path.suffix, writers)} Kinds of files that can be written: {known}"
        )
    bound = bind(problem, parameters)
    if bound.batch != 1:
        raise ArgminError(f"the parameters state {bound.batch} instances; a file holds one: leave out the batch")
    try:
        writer(bound, path)
    except OSError as error:
        raise ArgminError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
