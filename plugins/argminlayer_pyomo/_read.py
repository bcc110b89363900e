"""A Pyomo model as a problem: which of its components are unknowns and parameters, and which are refused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyomo.environ as pyo
import torch
from pyomo.common.gc_manager import PauseGC
from pyomo.common.modeling import unique_component_name
from pyomo.core.base.componentuid import ComponentUID
from torch import Tensor

import argminlayer as al

from ._model import BoundFunction, Counted, Function, PyomoModel, Row
from ._program import Program, Recorder, Scalar
from ._rows import Rows
from ._supported import check_components
from ._verify import verify


def read(model: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None) -> al.Problem:
    """Return the problem that a Pyomo model states, translated once; the model itself is not modified.

    The problem has the variables asked for first, a vector in the order of its index set for an indexed component, and
    after them one vector of all others. Fixed variables, and Params that are not asked for, are constants with the
    values they have now. A variable asked for that is fixed, or that nothing active uses, keeps its value.

    Args:
        model: a ``pyomo.environ.ConcreteModel``.
        parameters: mutable Params or fixed Vars, whole or single elements; None for all mutable Params.
        variables: Vars, whole or single elements; None for all.

    Raises:
        ProblemError: components that are not supported, that are no part of the model, or that have no value.
    """
    if not isinstance(model, pyo.ConcreteModel):
        raise al.ProblemError(
            f"a {type(model).__module__}.{type(model).__name__} cannot be read; pass a pyomo.environ.ConcreteModel "
            "(an AbstractModel becomes one by `create_instance`)"
        )
    check_components(model)
    with PauseGC():
        copy = model.clone()
        _forget_rules(copy)
        chosen = _Chosen.of(model, copy, parameters, variables)
        return _Reading(copy, chosen).problem()


def _forget_rules(model: Any) -> None:
    """Drop the functions that built the components, so that a layer can be pickled whatever they are."""
    for component in model.component_objects():
        for name in _RULES:
            if hasattr(component, name):
                setattr(component, name, None)
        if callable(getattr(component, "_default_val", None)):
            component._default_val = pyo.Param.NoValue


_BOUND = Row("", "bound")
_RULES = ("_rule", "_rule_init", "_rule_bounds", "_validate", "_filter", "_init_values")


@dataclass(frozen=True)
class _Chosen:
    """The components asked for, in the copy of the model: for each its name, whether it is scalar, and its elements."""

    parameters: tuple[Counted, ...]
    variables: tuple[Counted, ...]

    @classmethod
    def of(cls, model: Any, copy: Any, parameters: Sequence[Any] | None, variables: Sequence[Any] | None) -> "_Chosen":
        if parameters is None:
            parameters = [p for p in model.component_objects(pyo.Param, active=True) if p.mutable]
        if variables is None:
            variables = [v for v in model.component_objects(pyo.Var, active=True) if not v.is_reference()]
        return cls(
            _counted(model, copy, parameters, "parameters", _why_no_parameter),
            _counted(model, copy, variables, "variables", _why_no_variable),
        )


def _counted(model: Any, copy: Any, given: Sequence[Any], argument: str, objection: Any) -> tuple[Counted, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise al.ProblemError(f"{argument} must be a list of components such as [model.x], not {given!r}")
    found, seen = [], set()
    for component in given:
        twin = _twin(model, copy, component, argument)
        indexed = twin.is_indexed()
        if twin.ctype is pyo.Param and not twin.parent_component().mutable:
            raise al.ProblemError(f"{twin.name} in {argument} is not mutable; declare it with Param(..., mutable=True)")
        elements = tuple(twin.values()) if indexed else (twin,)
        for element in elements:
            reason = objection(element)
            if reason:
                raise al.ProblemError(f"{element.name} in {argument} {reason}")
            if id(element) in seen:
                raise al.ProblemError(f"{element.name} is in {argument} twice")
            seen.add(id(element))
        if not elements:
            raise al.ProblemError(f"{twin.name} in {argument} has no elements")
        found.append(Counted(twin.name, not indexed, elements))
    return tuple(found)


def _twin(model: Any, copy: Any, component: Any, argument: str) -> Any:
    """Return the component of the copy that corresponds to one of the model."""
    if not hasattr(component, "is_indexed"):
        raise al.ProblemError(
            f"{argument} holds {component!r}; list components of the model, whole (model.x) or single elements "
            "(model.x[1])"
        )
    if component.model() is not model:
        raise al.ProblemError(f"{component.name} in {argument} is not a component of the model {model.name!r}")
    return copy.find_component(ComponentUID(component))


def _why_no_parameter(element: Any) -> str | None:
    if element.ctype is pyo.Var:
        return None if element.fixed else "is a variable that is not fixed; fix it, or list it in variables"
    if element.ctype is not pyo.Param:
        return f"is a {element.ctype.__name__}, not a Param"
    return None


def _why_no_variable(element: Any) -> str | None:
    return None if element.ctype is pyo.Var else f"is a {element.ctype.__name__}, not a Var"


class _Reading:
    """One model while it is translated: the positions of its variables and parameters, and the variables met."""

    def __init__(self, model: Any, chosen: _Chosen):
        self._model, self._chosen = model, chosen
        self._parameters = {id(e): i for i, e in enumerate(e for c in chosen.parameters for e in c.elements)}
        self._variables = [e for c in chosen.variables for e in c.elements]
        self._positions = {id(e): i for i, e in enumerate(self._variables)}
        self._used: set[int] = set()
        for element in self._variables:
            if id(element) in self._parameters:
                raise al.ProblemError(f"{element.name} is in parameters and in variables; choose one")

    def problem(self) -> al.Problem:
        """Translate everything and return the problem."""
        objective, maximize = self._objective()
        equalities, inequalities = self._constraints()
        asked = len([e for c in self._chosen.variables for e in c.elements])
        size = len(self._variables)
        lower, upper = self._bounds()
        start = self._start()
        variables = self._chosen.variables
        if size > asked:
            variables = (*variables, Counted("the other variables", False, tuple(self._variables[asked:])))
        model = PyomoModel(
            model=self._model,
            parameters=self._chosen.parameters,
            variables=variables,
            objective=objective.program(size) if objective else None,
            maximize=maximize,
            equality=equalities.program(size),
            inequality=inequalities.program(size),
            equalities=tuple(equalities.rows),
            inequalities=tuple(inequalities.rows),
        )
        verify(model, [rows for rows in (objective, equalities, inequalities) if rows])
        return al.Problem(
            Function(model.objective, scalar=True) if model.objective else None,
            model.signature,
            equality=Function(model.equality) if model.equality.size else None,
            inequality=Function(model.inequality) if model.inequality.size else None,
            lower=self._as_bound(model, lower),
            upper=self._as_bound(model, upper),
            start=None if start is None else model.split(start),
            maximize=maximize,
            structure=al.Structure("pyomo", {"model": model}),
        )

    def _leaf(self, recorder: Recorder, data: Any) -> Scalar:
        position = self._parameters.get(id(data))
        if position is not None:
            return recorder.parameter(position)
        if not data.is_variable_type():
            return _number(data)
        if data.fixed and id(data) not in self._positions:
            return _number(data)
        if not (data.is_continuous() or data.fixed):
            raise al.ProblemError(
                f"the variable {data.name} is in the domain {data.domain}: integer variables have no derivative. Fix "
                "it, or declare it continuous"
            )
        self._used.add(id(data))
        position = self._positions.get(id(data))
        if position is None:
            position = self._positions[id(data)] = len(self._variables)
            self._variables.append(data)
        return recorder.variable(position)

    def _objective(self) -> tuple["Rows | None", bool]:
        active = list(self._model.component_data_objects(pyo.Objective, active=True, descend_into=True))
        if len(active) > 1:
            names = ", ".join(o.name for o in active)
            raise al.ProblemError(f"the model has {len(active)} active objectives ({names}); deactivate all but one")
        if not active:
            # without an objective some solvers return nothing
            name = unique_component_name(self._model, "objective")
            self._model.add_component(name, pyo.Objective(expr=0.0))
            return None, False
        rows = Rows(self._leaf)
        where = f"the objective {active[0].name}"
        if not rows.touches_variables(rows.translate(active[0].expr, where)):
            return None, False
        rows.difference(active[0].expr, 0.0, Row(active[0].name, "objective"), where)
        return rows, active[0].sense == pyo.maximize

    def _constraints(self) -> tuple["Rows", "Rows"]:
        equalities, inequalities = Rows(self._leaf), Rows(self._leaf)
        for data in self._model.component_data_objects(pyo.Constraint, active=True, descend_into=True):
            lower, body, upper = data.to_bounded_expression()
            name = data.name
            where = f"the constraint {name}"
            if data.equality or (_finite(lower) and _is_number(lower) and _is_number(upper) and lower == upper):
                equalities.difference(body, upper, Row(name, "equality"), where)
                continue
            if _finite(upper):
                inequalities.difference(body, upper, Row(name, "upper"), where)
            if _finite(lower):
                inequalities.difference(lower, body, Row(name, "lower"), where)
        return equalities, inequalities

    def _bounds(self) -> tuple[Program, Program]:
        """Return the bounds as programs of the parameters; those of variables that keep their values meet there."""
        lower, upper = Rows(self._leaf), Rows(self._leaf)
        for data in self._variables:
            kept = data.fixed or id(data) not in self._used
            for rows, bound, absent in ((lower, data.lower, -math.inf), (upper, data.upper, math.inf)):
                value: Scalar = absent
                if kept:
                    value = _number(
                        data,
                        "; nothing active uses it, so that it needs one or is not to be among the variables"
                        if not data.fixed
                        else "",
                    )
                elif bound is not None:
                    value = rows.translate(bound, "a bound")
                rows.add(value, _BOUND)
        return lower.program(len(self._variables)), upper.program(len(self._variables))

    @staticmethod
    def _as_bound(model: PyomoModel, program: Program) -> Any:
        if program.result.groups:
            return BoundFunction(program, model.shapes)
        values = torch.from_numpy(program.result.constants)
        return model.split(values) if bool(values.isfinite().any()) else None

    def _start(self) -> Tensor | None:
        """Return the values that the variables have; where one has none, zero or the bound nearest to it."""
        if all(data.value is None for data in self._variables):
            return None
        default = (min(max(0.0, _bound(data.lb, -math.inf)), _bound(data.ub, math.inf)) for data in self._variables)
        values = [d if v.value is None else v.value for v, d in zip(self._variables, default, strict=True)]
        return torch.tensor(values, dtype=torch.float64)


def _number(data: Any, hint: str = "") -> float:
    value = pyo.value(data, exception=False)
    if value is None:
        raise al.ProblemError(f"{data.name} has no value{hint}; give it one before the model is read")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise al.ProblemError(f"{data.name} has the value {value!r}, which is not a number") from error


def _bound(value: float | None, absent: float) -> float:
    return absent if value is None else float(value)


def _is_number(bound: Any) -> bool:
    return isinstance(bound, int | float)


def _finite(bound: Any) -> bool:
    return bound is not None and not (_is_number(bound) and math.isinf(bound))
