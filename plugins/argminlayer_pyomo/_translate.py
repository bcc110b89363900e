"""Pyomo expressions to recorded algebra: what each kind of expression means, and which kinds are refused."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyomo.core.expr as ex
from pyomo.common.numeric_types import native_numeric_types
from pyomo.core.base.expression import NamedExpressionData
from pyomo.core.expr.visitor import StreamBasedExpressionVisitor

import argminlayer as al

from ._program import Recorder, Scalar

Leaf = Callable[[Recorder, Any], Scalar]
Rule = Callable[[Recorder, Any, Sequence[Any]], Scalar]


class Translator(StreamBasedExpressionVisitor):  # type: ignore[misc]
    """Translates expressions one after the other into the same recorder; named and shared ones only once.

    Args:
        recorder: takes the operations.
        leaf: ``(recorder, variable or parameter data) ->`` what it stands for.
    """

    def __init__(self, recorder: Recorder, leaf: Leaf):
        super().__init__()
        self._recorder, self._leaf = recorder, leaf
        self._known: dict[int, Scalar] = {}
        self._sizes: dict[int, int] = {}
        self._entered: list[int] = []
        self.tree = 0
        """Operations of the expressions so far, written as trees: what evaluating them costs Pyomo."""
        self._where = ""

    def translate(self, expression: Any, where: str) -> Scalar:
        """Return the value of an expression.

        Raises:
            ProblemError: an expression that is not supported; ``where`` names the component it belongs to.
        """
        self._where = where
        descend, value = self.beforeChild(None, expression, 0)
        result: Scalar = self.walk_expression(expression) if descend else value
        return result

    def beforeChild(self, node: Any, child: Any, index: int) -> tuple[bool, Any]:
        """Answer leaves and what is known already; descend into the rest."""
        del node, index
        if child.__class__ in native_numeric_types:
            return False, float(child)
        if not child.is_expression_type():
            return False, self._leaf(self._recorder, child)
        known = self._known.get(id(child))
        self.tree += self._sizes.get(id(child), 0)
        return known is None, known

    def enterNode(self, node: Any) -> tuple[Any, list[Any]]:
        """Note where a named expression begins; return its operands, and where their values go."""
        if isinstance(node, NamedExpressionData):
            self._entered.append(self.tree)
        return node.args, []

    def exitNode(self, node: Any, data: Sequence[Any]) -> Scalar:
        """Return the value of an operation on values."""
        rule = _rule(node.__class__)
        if rule is None:
            raise al.ProblemError(
                f"{self._where} contains {node.__class__.__name__} ({str(node)[:80]}), which cannot be translated; "
                "rewrite it with arithmetic and Pyomo's intrinsic functions"
            )
        try:
            value = rule(self._recorder, node, data)
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise al.ProblemError(f"{self._where} cannot be evaluated: {error} in {str(node)[:80]}") from error
        self.tree += 1
        if isinstance(node, NamedExpressionData):
            self._sizes[id(node)] = self.tree - self._entered.pop()
            value = value if isinstance(value, float) else self._recorder.materialise(value)
            self._known[id(node)] = value
        return value


def _fold(recorder: Recorder, operation: str, values: Sequence[Scalar]) -> Scalar:
    """Apply a binary operation from left to right."""
    nodes = [recorder.materialise(value) for value in values]
    return functools.reduce(lambda a, b: recorder.node(operation, (a, b)), nodes)


def _elementwise(operation: str) -> Rule:
    """Return the rule of an operation that stands for itself."""

    def rule(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
        if all(isinstance(value, float) for value in data):
            return float(node._apply_operation(data))
        return _fold(recorder, operation, data)

    return rule


def _unary(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
    if isinstance(data[0], float):
        return float(node._apply_operation(data))
    return recorder.node(node.getname(), (recorder.materialise(data[0]),))


def _absolute(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
    del node
    return abs(data[0]) if isinstance(data[0], float) else recorder.node("abs", (recorder.materialise(data[0]),))


def _compare(recorder: Recorder, operation: str, left: Scalar, right: Scalar) -> Scalar:
    """Return 1 or 0 for a comparison of two values."""
    gap = recorder.add([left, recorder.scale(-1.0, right)])
    return recorder.node(operation, (recorder.materialise(gap),))


def _inequality(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
    return _compare(recorder, "below zero" if node.strict else "at most zero", *data)


def _ranged(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
    sides = zip(node._strict, data[:-1], data[1:], strict=True)
    return _fold(
        recorder, "and", [_compare(recorder, "below zero" if s else "at most zero", a, b) for s, a, b in sides]
    )


def _choice(recorder: Recorder, node: Any, data: Sequence[Any]) -> Scalar:
    del node
    condition, *branches = (recorder.materialise(value) for value in data)
    return recorder.node("where", (condition, *branches))


_RULES: Mapping[type, Rule] = {
    ex.SumExpressionBase: lambda recorder, node, data: recorder.add(data),
    ex.NegationExpression: lambda recorder, node, data: recorder.scale(-1.0, data[0]),
    ex.ProductExpression: lambda recorder, node, data: recorder.multiply(*data),
    ex.DivisionExpression: lambda recorder, node, data: recorder.divide(*data),
    ex.PowExpression: lambda recorder, node, data: recorder.power(*data),
    ex.AbsExpression: _absolute,
    ex.UnaryFunctionExpression: _unary,
    ex.MinExpression: _elementwise("minimum"),
    ex.MaxExpression: _elementwise("maximum"),
    ex.Expr_ifExpression: _choice,
    ex.InequalityExpression: _inequality,
    ex.EqualityExpression: lambda recorder, node, data: _compare(recorder, "equals zero", *data),
    ex.RangedExpression: _ranged,
    NamedExpressionData: lambda recorder, node, data: data[0],
}


@functools.cache
def _rule(kind: type) -> Rule | None:
    """Return the rule of a class of expressions: its own, or that of the class it refines."""
    return next((_RULES[base] for base in kind.__mro__ if base in _RULES), None)
