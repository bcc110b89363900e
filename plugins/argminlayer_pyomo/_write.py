"""Torch problems as Pyomo models: the primitives of Pyomo's language, and the models built with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyomo.environ as pyo
import torch
from numpy.typing import NDArray
from pyomo.core.expr.numvalue import is_potentially_variable
from torch import Tensor

import argminlayer as al

from ._arithmetic import TorchArithmetic
from ._model import Counted, PyomoModel, Row
from ._program import Program, Recorder, Scalar
from ._rows import Rows
from ._vocabulary import FUNCTIONS

Expressions = NDArray[np.object_]


class PyomoBackend(al.algebra.Backend[Expressions]):
    """Vectors of Pyomo expressions; what is read more than once becomes a named ``Expression`` of the model."""

    functions = FUNCTIONS

    def __init__(self, model: Any):
        self._model = model

    def constant(self, numbers: Tensor) -> Expressions:
        return _vector(numbers.tolist())

    def gather(self, vector: Expressions, index: NDArray[np.int64]) -> Expressions:
        return vector[index]

    def concatenate(self, vectors: Sequence[Expressions]) -> Expressions:
        return np.concatenate(list(vectors))

    def unary(self, function: str, x: Expressions) -> Expressions:
        return _vector([(_UNARY.get(function) or getattr(pyo, function))(entry) for entry in x])

    def binary(self, function: str, x: Expressions, y: Expressions) -> Expressions:
        left, right = np.broadcast_arrays(x, y)
        return _vector([_BINARY[function](a, b) for a, b in zip(left, right, strict=True)])

    def power(self, x: Expressions, exponent: float) -> Expressions:
        whole = int(exponent) if exponent == int(exponent) else exponent
        return _vector([entry**whole for entry in x])

    def sum_rows(self, x: Expressions, rows: int, columns: int) -> Expressions:
        return _vector([pyo.quicksum(row) for row in x.reshape(rows, columns)])

    def matmul(
        self, a: Expressions | Tensor, b: Expressions | Tensor, rows: int, inner: int, columns: int
    ) -> Expressions:
        left, right = _matrix(a, rows, inner), _matrix(b, inner, columns)
        return _vector([_dot(left[i], right[:, j]) for i in range(rows) for j in range(columns)])

    def where(self, condition: Expressions, x: Expressions, y: Expressions) -> Expressions:
        sides = zip(*np.broadcast_arrays(condition, x, y), strict=True)
        return _vector([pyo.Expr_if(IF_=c >= 0.5, THEN_=a, ELSE_=b) for c, a, b in sides])

    def share(self, x: Expressions) -> Expressions:
        return _vector([self._named(entry) for entry in x])

    def _named(self, entry: Any) -> Any:
        """Return an expression by a name: Pyomo writes trees, in which what is not named is repeated."""
        if not (hasattr(entry, "is_expression_type") and entry.is_expression_type()):
            return entry
        if entry.is_named_expression_type():
            return entry
        key = len(self._model.shared)
        self._model.shared[key] = entry
        return self._model.shared[key]


def write(algebra: al.algebra.Algebra) -> Any:
    """Return an algebra as a ``ConcreteModel``.

    It has the variables ``x``, the mutable Params ``p`` (what torch computes from the parameters), the named
    Expressions ``shared``, the constraints ``equality`` and ``inequality`` and the ``objective``, which is minimised.

    Raises:
        AlgebraError: an operator has no form in Pyomo.
    """
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(algebra.size), initialize=dict(enumerate(algebra.point.tolist())))
    values = algebra.values[0].tolist() if len(algebra.values) else []
    model.p = pyo.Param(range(len(values)), initialize=dict(enumerate(values)), mutable=True, domain=pyo.Reals)
    model.shared = pyo.Expression(pyo.NonNegativeIntegers)
    # stands in a constraint without variables, which Pyomo would not take
    model.zero = pyo.Param(initialize=0.0, mutable=True)
    parameters = _vector(list(model.p.values())) if values else None
    found = al.algebra.interpret(algebra, PyomoBackend(model), _vector(list(model.x.values())), parameters)
    nothing = model.zero * model.x[0]
    for name, rows in (("equality", found.equality), ("inequality", found.inequality)):
        bodies = [] if rows is None else [b if is_potentially_variable(b) else b + nothing for b in rows]
        lower = 0.0 if name == "equality" else None
        rule = {i: (lower, body, 0.0) for i, body in enumerate(bodies)}
        model.add_component(name, pyo.Constraint(range(len(bodies)), rule=rule))
    # without an objective some solvers return nothing
    model.objective = pyo.Objective(expr=0.0 if found.objective is None else found.objective[0])
    return model


def translate_back(model: Any, has_objective: bool = True) -> PyomoModel:
    """Return a model of :func:`write` with its algebra as programs."""
    variables, parameters = list(model.x.values()), list(model.p.values())
    places = {id(v): i for i, v in enumerate(variables)} | {id(p): i for i, p in enumerate(parameters)}

    def leaf(recorder: Recorder, data: Any) -> Scalar:
        if data is model.zero:
            return 0.0
        return recorder.variable(places[id(data)]) if data.is_variable_type() else recorder.parameter(places[id(data)])

    def program(bodies: Any) -> Program:
        rows = Rows(leaf)
        for body in bodies:
            rows.add(rows.translate(body, "the model"), Row("", ""))
        return rows.program(len(variables))

    return PyomoModel(
        model=model,
        parameters=(Counted("p", False, tuple(parameters)),),
        variables=(Counted("x", False, tuple(variables)),),
        objective=program([model.objective.expr]) if has_objective else None,
        maximize=False,
        equality=program(c.body for c in model.equality.values()),
        inequality=program(c.body for c in model.inequality.values()),
        equalities=tuple(Row(c.name, "equality") for c in model.equality.values()),
        inequalities=tuple(Row(c.name, "upper") for c in model.inequality.values()),
        bounds_vary=True,
    )


def build(problem: al.BoundProblem, algebra: al.algebra.Algebra) -> PyomoModel:
    """Return an algebra as a Pyomo model with its programs, checked against the torch functions at two points.

    Raises:
        AlgebraError: an operator has no form in Pyomo, or the model does not agree with torch.
    """
    model = translate_back(write(algebra), algebra.outputs[0] is not None)

    def evaluate(z: Tensor, values: Tensor) -> list[Tensor]:
        programs = (model.objective, model.equality, model.inequality)
        arithmetic = TorchArithmetic(z)
        return [z[:0] if p is None or not p.size else p.run(arithmetic, z, values) for p in programs]

    al.algebra.verify(problem, algebra, evaluate)
    return model


def _vector(entries: Sequence[Any]) -> Expressions:
    vector = np.empty(len(entries), dtype=object)
    vector[:] = entries
    return vector


def _matrix(factor: Expressions | Tensor, rows: int, columns: int) -> Expressions:
    entries = factor.reshape(-1).tolist() if isinstance(factor, torch.Tensor) else factor
    return _vector(list(entries)).reshape(rows, columns)


def _dot(left: Expressions, right: Expressions) -> Any:
    pairs = zip(left, right, strict=True)
    return pyo.quicksum(a * b for a, b in pairs if not (_is_zero(a) or _is_zero(b)))


def _is_zero(entry: Any) -> bool:
    return isinstance(entry, float) and entry == 0.0


_UNARY: Mapping[str, Callable[[Any], Any]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "log1p": lambda a: pyo.log(1.0 + a),
    "expm1": lambda a: pyo.exp(a) - 1.0,
    "sign": lambda a: _holds(0.0 < a) - _holds(a < 0.0),
}


def _holds(comparison: Any) -> Any:
    """Return 1 where a comparison holds, else 0: Pyomo does not calculate with comparisons."""
    return float(comparison) if isinstance(comparison, bool) else pyo.Expr_if(IF_=comparison, THEN_=1.0, ELSE_=0.0)


def _not_equal(a: Any, b: Any) -> Any:
    equal = _holds(a == b)
    return 1.0 - equal


_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    # by absolute values: readers of .nl files need not know a choice, and some refuse it
    "max": lambda a, b: 0.5 * (a + b + abs(a - b)),
    "min": lambda a, b: 0.5 * (a + b - abs(a - b)),
    "lt": lambda a, b: _holds(a < b),
    "le": lambda a, b: _holds(a <= b),
    "gt": lambda a, b: _holds(b < a),
    "ge": lambda a, b: _holds(b <= a),
    "eq": lambda a, b: _holds(a == b),
    "ne": _not_equal,
}
