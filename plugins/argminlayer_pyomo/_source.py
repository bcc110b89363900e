"""A Pyomo model as Python source that builds it anew."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyomo.core.expr as ex
import pyomo.environ as pyo
from pyomo.common.numeric_types import native_numeric_types
from pyomo.core.base.expression import NamedExpressionData
from pyomo.core.expr.visitor import StreamBasedExpressionVisitor

import argminlayer as al

from ._model import PyomoModel

_HEADER = '''"""A Pyomo model written by argminlayer; its mutable Params `p` hold the parameters."""

import pyomo.environ as pyo

m = pyo.ConcreteModel()
m.x = pyo.Var(range({variables}), initialize={start})
m.p = pyo.Param(range({count}), mutable=True, domain=pyo.Reals, initialize={parameters})
'''


def source_of(held: PyomoModel) -> str:
    """Return Python source for a model with the values that are in it now: ``x``, ``p``, constraints and objective."""
    variables, parameters = ([e for c in group for e in c.elements] for group in (held.variables, held.parameters))
    writer = _Writer(variables, parameters)
    lines = [
        line
        for data in held.model.component_data_objects(pyo.Constraint, active=True, descend_into=True)
        for line in writer.constraint(data)
    ]
    objectives = held.model.component_data_objects(pyo.Objective, active=True, descend_into=True)
    for data in objectives:
        sense = "pyo.maximize" if data.sense == pyo.maximize else "pyo.minimize"
        lines.append(f"m.objective = pyo.Objective(expr={writer.text(data.expr)}, sense={sense})")
    bounds = [line for i, data in enumerate(variables) for line in writer.bounds(f"m.x[{i}]", data)]
    header = _HEADER.format(
        variables=len(variables),
        start=_numbers(variables),
        count=len(parameters),
        parameters=_numbers(parameters),
    )
    shared = [f"m.shared = pyo.Expression(range({len(writer.shared)}))", *writer.shared] if writer.shared else []
    return "\n".join([header, *bounds, *shared, "m.constraint = pyo.ConstraintList()", *lines, ""])


def _numbers(elements: Sequence[Any]) -> str:
    return repr({i: float(e.value) for i, e in enumerate(elements) if e.value is not None})


class _Writer(StreamBasedExpressionVisitor):  # type: ignore[misc]
    """Writes expressions as source; named ones once each, in ``shared``."""

    def __init__(self, variables: Iterable[Any], parameters: Iterable[Any]):
        super().__init__()
        self.shared: list[str] = []
        self._names = {id(v): f"m.x[{i}]" for i, v in enumerate(variables)}
        self._names |= {id(p): f"m.p[{i}]" for i, p in enumerate(parameters)}

    def constraint(self, data: Any) -> list[str]:
        """Return the lines of a constraint, the first its name as a comment."""
        lower, body, upper = data.to_bounded_expression()
        if data.equality:
            text = f"{self.text(body)} == {self.text(upper)}"
        else:
            text = f"({self.text(lower)}, {self.text(body)}, {self.text(upper)})"
        return [f"# {data.name}", f"m.constraint.add({text})"]

    def bounds(self, name: str, data: Any) -> list[str]:
        """Return the lines that set the bounds of a variable, or fix it."""
        if data.fixed:
            return [f"{name}.fix({data.value!r})"]
        sides = (("setlb", data.lower), ("setub", data.upper))
        return [f"{name}.{side}({self.text(bound)})" for side, bound in sides if bound is not None]

    def text(self, expression: Any) -> str:
        """Return the source of an expression, a number or None."""
        if expression is None:
            return "None"
        descend, text = self.beforeChild(None, expression, 0)
        written: str = self.walk_expression(expression) if descend else text
        return written

    def beforeChild(self, node: Any, child: Any, index: int) -> tuple[bool, Any]:
        """Answer leaves and what is written already."""
        del node, index
        if child.__class__ in native_numeric_types:
            return False, repr(float(child))
        name = self._names.get(id(child))
        if name is None and not child.is_expression_type():
            name = repr(float(pyo.value(child)))
        return name is None, name

    def exitNode(self, node: Any, data: Sequence[str]) -> str:
        """Return the source of an operation."""
        rule = _rule(node.__class__)
        if rule is None:
            raise al.ProblemError(
                f"{node.__class__.__name__} cannot be written as Python source; export to .nl instead"
            )
        text = rule(node, data)
        if isinstance(node, NamedExpressionData):
            name = self._names[id(node)] = f"m.shared[{len(self.shared)}]"
            self.shared.append(f"{name} = {text}")
            return name
        return text


_Rule = Callable[[Any, Sequence[str]], str]


def _infix(sign: str) -> _Rule:
    return lambda node, data: f"({f' {sign} '.join(data)})"


def _range(node: Any, data: Sequence[str]) -> str:
    del node
    return f"pyo.inequality({', '.join(data)})"


_RULES: Mapping[type, _Rule] = {
    ex.SumExpressionBase: _infix("+"),
    ex.NegationExpression: lambda node, data: f"(-{data[0]})",
    ex.ProductExpression: _infix("*"),
    ex.DivisionExpression: _infix("/"),
    ex.PowExpression: _infix("**"),
    ex.AbsExpression: lambda node, data: f"abs({data[0]})",
    ex.UnaryFunctionExpression: lambda node, data: f"pyo.{node.getname()}({data[0]})",
    ex.Expr_ifExpression: lambda node, data: f"pyo.Expr_if(IF_={data[0]}, THEN_={data[1]}, ELSE_={data[2]})",
    ex.InequalityExpression: lambda node, data: f"({data[0]} {'<' if node.strict else '<='} {data[1]})",
    ex.EqualityExpression: _infix("=="),
    ex.RangedExpression: _range,
    NamedExpressionData: lambda node, data: data[0],
}


@functools.cache
def _rule(kind: type) -> _Rule | None:
    return next((_RULES[base] for base in kind.__mro__ if base in _RULES), None)
