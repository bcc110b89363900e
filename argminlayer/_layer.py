"""Argmin nodes as torch modules, and the choice of their solvers from outside."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from . import _registry
from ._argmin import argmin
from ._autodiff import entry
from ._backward import KKT, AbstractBackward
from ._errors import ProblemError, SolverError, near_matches
from ._problem import Problem
from ._select import check_name, layer_solver
from ._solution import Variables
from ._solver import AbstractSolver


class ArgminLayer(nn.Module):
    """One argmin as a layer: ``layer(*parameters)`` returns the minimiser, differentiable in the parameters.

    Args:
        problem: a :class:`Problem`, or a model that an installed plugin can read.
        solver: as for :func:`argminlayer.solve`; may be changed later by :func:`set_solver`.
        backward: the backward rule.
        options: fields of the solver to replace.
        throw: raise when an instance fails; otherwise failed instances are NaN.
        parameters: for a model: which of its components are the layer's parameters.
        variables: for a model: which of its components are returned; the problem has the others after them.
        **reading: for a model: what else its plugin is to know, such as ``gp=True`` for geometric programs of CVXPY.

    Raises:
        ProblemError: not a problem, and no plugin reads it.
        TypeError: keywords for a model, but a problem is given.
        SolverError: the solver's name is unknown.
    """

    def __init__(
        self,
        problem: Any,
        *,
        solver: str | AbstractSolver | None = None,
        backward: AbstractBackward = KKT(),
        options: Mapping[str, Any] | None = None,
        throw: bool = True,
        parameters: Sequence[Any] | None = None,
        variables: Sequence[Any] | None = None,
        **reading: Any,
    ):
        super().__init__()
        check_name(solver)
        self.problem = _as_problem(problem, parameters, variables, reading)
        self.returned = None if variables is None else len(variables)
        self.solver = solver
        self.backward = backward
        self.options = dict(options or {})
        self.throw = throw

    @entry
    def forward(self, *parameters: Any, solver: str | AbstractSolver | None = None, start: Any = None) -> Variables:
        """Return the minimiser for these parameters.

        Args:
            *parameters: tensors that fit the problem's signature, with any leading dimensions.
            solver: for this call only.
            start: for this call only.
        """
        chosen = layer_solver(solver, self.solver)
        value = argmin(
            self.problem,
            *parameters,
            solver=chosen,
            start=start,
            backward=self.backward,
            options=self.options if chosen is self.solver else None,
            throw=self.throw,
        )
        if self.returned is None or isinstance(value, Tensor):
            return value
        return value[0] if self.returned == 1 else value[: self.returned]

    def extra_repr(self) -> str:
        """Return the signature and the solver."""
        name = self.solver.name if isinstance(self.solver, AbstractSolver) else self.solver
        return f"{self.problem.signature}, solver={name!r}"


def _as_problem(
    model: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None, reading: Mapping[str, Any]
) -> Problem:
    if isinstance(model, Problem):
        if reading:
            raise TypeError(f"ArgminLayer of a Problem got unexpected keyword arguments: {', '.join(reading)}")
        if parameters is not None or variables is not None:
            raise ProblemError("parameters= and variables= belong to a model; a Problem has them in its signature")
        return model
    problem = _registry.load().read_model(model, parameters, variables, reading)
    if isinstance(problem, Problem):
        return problem
    readers = ", ".join(plugin.name for plugin in _registry.load().plugins if plugin.reads_models) or "none"
    raise ProblemError(
        f"a {type(model).__module__}.{type(model).__qualname__} is not an argminlayer.Problem, and no installed plugin "
        f"reads it (plugins that read models: {readers}); write it as a Problem or install the plugin of its library"
    )


def set_solver(model: nn.Module, solvers: str | AbstractSolver | Mapping[str, str | AbstractSolver]) -> None:
    """Choose solvers for the argmin layers inside a model, in place.

    Args:
        model: any module.
        solvers: one solver for all argmin layers, or a mapping from the names of layers in ``model.named_modules()``.

    Raises:
        SolverError: no such layer, a name that is not an argmin layer, or an unknown solver.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, ArgminLayer)}
    chosen = solvers if isinstance(solvers, Mapping) else dict.fromkeys(layers, solvers)
    if not layers:
        raise SolverError(f"the model {type(model).__name__} contains no ArgminLayer")
    for name, solver in chosen.items():
        if name not in layers:
            raise SolverError(
                f"the model has no ArgminLayer {name!r}.{near_matches(name, layers)} Its argmin layers: "
                f"{', '.join(map(repr, layers))}"
            )
        check_name(solver)
    for name, solver in chosen.items():
        layers[name].solver = solver
        layers[name].options = {}
