"""The hooks a plugin may implement: functions that return what the plugin provides.

A plugin is a module named by an entry point of the group ``argminlayer``::

    [project.entry-points.argminlayer]
    mine = "my_package"

The name on the left is the plugin's name and the prefix of its solvers' names. Hooks are decorated with
``al.hookimpl``, may leave out arguments they do not need, and must not import a back end::

    import argminlayer as al

    @al.hookimpl
    def argminlayer_solvers():
        return [MySolver]
"""

# mypy: disable-error-code="empty-body"
# pluggy reads the signature of a specification and never calls it.

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ._bound import BoundProblem
    from ._experiment import AbstractExperiment
    from ._problem import Problem
    from ._solver import AbstractSolver

PROJECT = "argminlayer"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def argminlayer_solvers() -> "Sequence[type[AbstractSolver]]":
    """Return the solver classes of the plugin.

    Each is a subclass of :class:`argminlayer.AbstractSolver` that can be called without arguments, and whose ``name``
    is ``"<entry point>.<solver>"``::

        @al.hookimpl
        def argminlayer_solvers():
            return [LBFGS, SLSQP]        # LBFGS.name == "scipy.lbfgs"
    """


@hookspec(firstresult=True)
def argminlayer_read_model(model: Any, parameters: Any, variables: Any, options: Mapping[str, Any]) -> "Problem | None":
    """Return the problem that a foreign model states, or None when the model is not of a kind this plugin reads.

    Plugins are asked in the order of their names until one returns a problem. One that recognises the model but
    cannot turn it into a problem raises :class:`argminlayer.ProblemError`, which says why; nobody else is asked then.

    Args:
        model: what was given in place of a problem, for example a ``cvxpy.Problem``.
        parameters: which objects of the model are the parameters, in the order they are passed; None if not given.
        variables: which objects of the model are the variables, in the order they are returned; None if not given.
            They are the first variables of the problem; what else the model minimises over follows, and the layer
            does not return it.
        options: what else the user said of how the model is to be read, as keywords of the layer, such as
            ``gp=True``. A plugin raises :class:`argminlayer.ProblemError` for those that it does not know; one whose
            hook leaves this argument out takes none.

    Example::

        @al.hookimpl
        def argminlayer_read_model(model, parameters, variables):
            if not type(model).__module__.startswith("cvxpy."):    # a test that does not import CVXPY
                return None
            from ._backend import read
            return read(model, parameters, variables)
    """


@hookspec
def argminlayer_writers() -> "Sequence[tuple[str, Callable[[BoundProblem, Path], None]]]":
    """Return the kinds of files in which the plugin writes problems, for ``argminlayer export``.

    Each is a pair of a suffix and a function, which receives a bound problem of one instance and the path. Of two
    plugins that write the same kind of file the first by name does. A function raises
    :class:`argminlayer.ArgminError` for a problem that it cannot write::

        @al.hookimpl
        def argminlayer_writers():
            return [(".nl", write_nl)]
    """


@hookspec
def argminlayer_experiments() -> "Sequence[type[AbstractExperiment]]":
    """Return the experiment classes of the plugin, run by ``argminlayer run NAME``.

    Each is a frozen dataclass that subclasses :class:`argminlayer.AbstractExperiment`, with a default for every field.
    Its ``name`` must be free::

        @al.hookimpl
        def argminlayer_experiments():
            return [RidgePenalty]        # RidgePenalty.name == "bilevel"
    """
