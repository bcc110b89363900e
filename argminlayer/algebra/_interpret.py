"""The interpreter: writes algebra in a modelling language, operator by operator."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload

from .._errors import AlgebraError
from . import _pointwise, _reductions, _windows
from ._backend import Backend, Rule
from ._graph import Algebra
from ._machine import Machine, Unsupported, Value
from ._movement import is_movement, move
from ._record import INSTEAD, Where, record_calls
from ._recording import Operation, Taint, fill, operator_name

V = TypeVar("V")
RULES: Mapping[str, Rule] = {**_pointwise.RULES, **_reductions.RULES, **_windows.RULES}


@dataclass(frozen=True)
class Expressions(Generic[V]):
    """Objective and constraints of an algebra in a modelling language.

    Attributes:
        objective: what is minimised, a vector of length 1; None for a feasibility problem.
        equality: what must vanish, a vector of length p; None if p is 0.
        inequality: what must not be positive, a vector of length q; None if q is 0.
        values: every value of the algebra that depends on the variables, by its index.
    """

    objective: V | None
    equality: V | None
    inequality: V | None
    values: Mapping[int, V]


def interpret(algebra: Algebra, backend: Backend[V], variables: V, parameters: V | None) -> Expressions[V]:
    """Write an algebra in a modelling language.

    Args:
        algebra: of :func:`record`.
        backend: the language's primitives.
        variables: the language's variables, a vector of length n.
        parameters: the language's parameters, a vector of length n_p; ``algebra.values`` holds their values. None if
            n_p is 0.

    Raises:
        AlgebraError: an operator has no rule, or needs a function that the language does not have.
    """
    machine = Machine(backend)
    found: dict[int, Any] = dict(algebra.constants)
    found[algebra.variables] = Value(variables, algebra.shapes[algebra.variables])
    if parameters is not None:
        whole = Value(parameters, torch.Size([algebra.values.shape[1]]))
        offset = 0
        for index in algebra.parameters:
            shape, first = algebra.shapes[index], offset
            offset += shape.numel()
            part = machine.move(lambda p, a=first, b=offset: p[a:b], whole)
            found[index] = Value(part.data, shape, boolean=algebra.dtypes[index] == torch.bool)
    uses = _uses(algebra)
    for operation in algebra.operations:
        _step(machine, algebra, operation, found, uses)
    objective, equality, inequality = (
        None if index is None or algebra.shapes[index].numel() == 0 else machine.value(found[index]).data
        for index in algebra.outputs
    )
    values = {index: value.data for index, value in found.items() if isinstance(value, Value)}
    return Expressions(objective, equality, inequality, values)


def _uses(algebra: Algebra) -> dict[int, int]:
    """Return how often each value is read, movement of data aside: it passes its readers on."""
    uses: dict[int, int] = dict.fromkeys((i for i in algebra.outputs if i is not None), 1)
    for operation in reversed(algebra.operations):
        moves = is_movement(operation.name, {})
        weight = max((uses.get(i, 0) for i in operation.outputs if i is not None), default=0) if moves else 1
        for index in operation.inputs:
            uses[index] = uses.get(index, 0) + max(weight, 1)
    return uses


def _step(
    machine: Machine[V], algebra: Algebra, operation: Operation, found: dict[int, Any], uses: Mapping[int, int]
) -> None:
    def find(index: int) -> Any:
        if index not in found:
            raise Unsupported("reads an index that depends on the variables")
        return found[index]

    try:
        args = fill(operation.args, find)
        kwargs = {key: fill(value, find) for key, value in operation.kwargs}
        results = apply(machine, operation.target, args, kwargs)
    except (Unsupported, RuntimeError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        results = _opaque(machine, algebra, operation, found)
        if not results:
            reason = error if isinstance(error, Unsupported) else f"cannot be translated: {error}"
            raise AlgebraError(f"{operation.location}: the operator `{operation.name}` {reason}. {INSTEAD}") from error
    moved = is_movement(operation.name, {})
    for index, result in zip(operation.outputs, results, strict=False):
        if index is None or result is None:
            continue
        if isinstance(result, Value) and uses.get(index, 0) > 1 and not moved:
            result = Value(machine.backend.share(result.data), result.shape, result.boolean, result.square)
        found[index] = result


def _opaque(machine: Machine[V], algebra: Algebra, operation: Operation, found: Mapping[int, Any]) -> tuple[Any, ...]:
    inputs = [machine.value(found[index]).data for index in operation.inputs if index in found]
    shapes = [algebra.shapes[index] for index in operation.outputs if index is not None]
    vectors = [machine.backend.opaque(inputs, shape.numel()) for shape in shapes]
    if any(vector is None for vector in vectors):
        return ()
    values = iter([Value(vector, shape) for vector, shape in zip(vectors, shapes, strict=True)])
    return tuple(None if index is None else next(values) for index in operation.outputs)


def apply(machine: Machine[V], target: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what an operator makes of values and known tensors.

    Raises:
        Unsupported: no rule applies.
    """
    arguments = _named(target, args, kwargs)
    name = operator_name(target)
    if not _any_value(arguments):
        out = target(*args, **kwargs)
    elif (rule := machine.backend.rules.get(name) or RULES.get(name)) is not None:
        out = rule(machine, arguments)
    elif is_movement(name, arguments):
        out = move(machine, target, arguments)
    else:
        out = _lowered(machine, target, args, kwargs)
    return tuple(out) if isinstance(out, tuple | list) else (out,)


def _named(target: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names, defaults = _schema_of(target)
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


@functools.cache
def _schema_of(target: OpOverload) -> tuple[tuple[str, ...], dict[str, Any]]:
    schema = target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return tuple(argument.name for argument in schema), {**defaults, "target": operator_name(target)}


def _any_value(argument: Any) -> bool:
    if isinstance(argument, Mapping):
        return any(_any_value(part) for part in argument.values())
    if isinstance(argument, tuple | list):
        return any(_any_value(part) for part in argument)
    return isinstance(argument, Value)


def _lowered(machine: Machine[V], target: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Write an operator without a rule by the operators that torch decomposes it to."""
    from torch._decomp import decomposition_table

    decomposition = decomposition_table.get(target)
    if decomposition is None:
        raise Unsupported("has no algebraic form")
    values: list[Value[V]] = []
    _mapped((args, kwargs), lambda x: values.append(x) if isinstance(x, Value) else None)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        filled, named = _mapped((args, kwargs), lambda x: next(rest) if isinstance(x, Value) else x)
        out = decomposition(*filled, **named)
        return tuple(out) if isinstance(out, tuple | list) else (out,)

    examples = [_example(value) for value in values]
    try:
        recording = record_calls(call, [(e, Taint.VARIABLE) for e in examples], Where(operator_name(target)))
    except AlgebraError as error:
        raise Unsupported("has no algebraic form") from error
    rest = iter(examples)
    filled, named = _mapped((args, kwargs), lambda x: next(rest) if isinstance(x, Value) else x)
    _compare(target(*filled, **named), [recording.tensors[index] for index in recording.outputs])
    found: dict[int, Any] = dict(zip(recording.inputs, values, strict=True))

    def find(index: int) -> Any:
        return found[index] if index in found else recording.tensors[index]

    for operation in recording.operations:
        inner = {key: fill(value, find) for key, value in operation.kwargs}
        results = apply(machine, operation.target, fill(operation.args, find), inner)
        found.update(
            (i, r) for i, r in zip(operation.outputs, results, strict=False) if i is not None and r is not None
        )
    return tuple(find(index) for index in recording.outputs)


def _example(value: Value[V]) -> Tensor:
    numbers = 0.5 + 0.4 * torch.sin(1.0 + 1.7 * torch.arange(value.shape.numel(), dtype=torch.float64))
    example = numbers.reshape(value.shape)
    return example > 0.5 if value.boolean else example


def _compare(truth: Any, lowered: Sequence[Tensor]) -> None:
    """Refuse a decomposition that does not compute what the operator does: torch has some of these."""
    wanted = truth if isinstance(truth, tuple | list) else (truth,)
    if not all(
        torch.allclose(x, y, equal_nan=True) for x, y in zip(wanted, lowered, strict=True) if x.shape == y.shape
    ):
        raise Unsupported("has a decomposition that computes something else")


def _mapped(argument: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(argument, Mapping):
        return {key: _mapped(value, function) for key, value in argument.items()}
    if isinstance(argument, tuple | list):
        return type(argument)(_mapped(value, function) for value in argument)
    return function(argument)
