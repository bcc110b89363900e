"""The hooks: solvers, and the reader of Pyomo models. Pyomo itself is not imported here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import argminlayer as al

from ._solvers import Highs, Ipopt, Named


@al.hookimpl
def argminlayer_solvers() -> list[type[al.AbstractSolver]]:
    """Return the solvers of this plugin."""
    return [Ipopt, Highs, Named]


@al.hookimpl
def argminlayer_writers() -> list[tuple[str, Callable[[al.BoundProblem, Path], None]]]:
    """Return the kinds of files that this plugin writes."""
    return [(".nl", _write_nl), (".py", _write_source)]


def _write_nl(problem: al.BoundProblem, path: Path) -> None:
    from ._export import write_nl

    write_nl(problem, path)


def _write_source(problem: al.BoundProblem, path: Path) -> None:
    from ._export import write_source

    write_source(problem, path)


@al.hookimpl
def argminlayer_read_model(
    model: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None
) -> al.Problem | None:
    """Return the problem that a Pyomo model states, None for any other object."""
    if not any(kind.__module__.partition(".")[0] == "pyomo" for kind in type(model).__mro__):
        return None
    from ._read import read

    return read(model, parameters, variables)
