"""The exceptions of the library: each says what was wrong, where, what would be right and what to try."""

import difflib
from collections.abc import Iterable


class ArgminError(Exception):
    """Base class of every error raised by argminlayer."""


class SignatureError(ArgminError, ValueError):
    """A signature cannot be read, or parameters do not fit it."""


class ProblemError(ArgminError, ValueError):
    """A problem is not well formed: its functions, bounds or starts do not do what their contract says."""


class AlgebraError(ArgminError, ValueError):
    """The functions of a problem cannot be turned into algebra; solvers that only evaluate them take it all the same.

    They branch on the variables, leave torch, or call an operator that has no algebraic form.
    """


class SolverError(ArgminError, ValueError):
    """A solver is unknown, not installed, wrongly configured, or does not support the problem."""


class PluginError(ArgminError, RuntimeError):
    """A plugin is broken, has a name that is taken, or implements a hook that does not exist."""


class SolveFailed(ArgminError, RuntimeError):
    """Some instances of a batch were not solved; ``solution`` holds everything that was found.

    Attributes:
        solution: the :class:`argminlayer.Solution` that ``throw=False`` would have returned.
    """

    def __init__(self, message: str, solution: object):
        super().__init__(message)
        self.solution = solution


class NotDifferentiable(ArgminError, RuntimeError):
    """The solution is certified but the KKT system does not determine its derivative."""


class ExperimentError(ArgminError, ValueError):
    """An experiment cannot run with the data or the settings it was given."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a clause that offers the names closest to ``name``, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
