"""Which components of a Pyomo model can be part of a problem; all others are refused by name."""

from collections.abc import Mapping
from typing import Any

import pyomo.environ as pyo
from pyomo.core.base.external import ExternalFunction
from pyomo.dae import ContinuousSet

import argminlayer as al

SUPPORTED = frozenset(
    {
        *(pyo.Set, pyo.RangeSet, pyo.SetOf, pyo.Param, pyo.Var, pyo.Expression, pyo.Constraint, pyo.Objective),
        *(pyo.Block, pyo.Suffix, pyo.BuildAction, pyo.BuildCheck, ExternalFunction),
    }
)

_DISCRETISE = "apply pyo.TransformationFactory('dae.collocation') or 'dae.finite_difference' to the model first"
_LOGIC = "logic has no derivative; fix it and write the constraints that follow"
_ADVICE: Mapping[str, str] = {
    "SOSConstraint": "special ordered sets have no derivative; fix the choice and write the constraints that follow",
    "LogicalConstraint": _LOGIC,
    "BooleanVar": _LOGIC,
    "Disjunction": _LOGIC,
    "Disjunct": _LOGIC,
    "DerivativeVar": _DISCRETISE,
    "Integral": _DISCRETISE,
    "ContinuousSet": _DISCRETISE,
    "Complementarity": "write its equations, for example with a smoothed complementarity function",
    "Arc": "apply pyo.TransformationFactory('network.expand_arcs') to the model first",
    "Port": "apply pyo.TransformationFactory('network.expand_arcs') to the model first",
}


def check_components(model: Any) -> None:
    """Refuse active components that are not supported.

    Raises:
        ProblemError: names the first such component, its kind, and what to do.
    """
    for component in model.component_objects(active=True, descend_into=(pyo.Block,)):
        discretised = isinstance(component, ContinuousSet) and component.get_discretization_info()
        if component.ctype in SUPPORTED or discretised:
            continue
        kind = component.ctype.__name__
        advice = _ADVICE.get(kind, "deactivate or replace it")
        raise al.ProblemError(f"the component {component.name} is a {kind}, which is not supported: {advice}")
