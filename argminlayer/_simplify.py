"""Recorded operations as one straight-line function: constants folded, factors collected, idle operations dropped.

Every value is written as a factor times a register, or as a constant tensor of one entry. Factors pass through linear
operations, so that derivatives of sums and squares, most of which multiply by ones and twos, shrink to what they do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

A = torch.ops.aten
LARGEST = 4000
"""Operations of a recording beyond which it is not worth its memory."""


class CannotRecord(Exception):
    """An operation that a replay would not repeat faithfully."""


@dataclass(frozen=True)
class _Value:
    """``factor`` times the tensor in ``register``, or a tensor filled with ``factor`` when that is None."""

    factor: float
    register: int | None
    shape: torch.Size
    shared: bool = False
    """Whether it may share memory with an input that results must not share."""


@dataclass(frozen=True)
class _Register:
    """A place in the arguments of an operation."""

    number: int


@dataclass(frozen=True)
class _Line:
    """One operation whose result goes to a register."""

    target: int
    operation: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


SAME = {A.detach.default, A.alias.default, A.lift_fresh_copy.default, A.clone.default, A.contiguous.default}
VIEWS = {
    A.view.default, A._unsafe_view.default, A.reshape.default, A.expand.default, A.unsqueeze.default, A.squeeze.dim,
    A.squeeze.dims, A.squeeze.default, A.transpose.int, A.permute.default, A.select.int, A.slice.Tensor, A.t.default,
}  # fmt: skip
RESHAPED_IN_PLACE: dict[Any, Any] = {
    A.squeeze_.dim: A.squeeze.dim, A.squeeze_.dims: A.squeeze.dims, A.squeeze_.default: A.squeeze.default,
    A.unsqueeze_.default: A.unsqueeze.default,
    A.transpose_.default: A.transpose.int, A.t_.default: A.t.default,
}  # fmt: skip
"""What torch writes in place on its own temporaries, where later operations use the result only."""
LINEAR = {
    A.sum.default,
    A.sum.dim_IntList,
    A.select_backward.default,
    A.slice_backward.default,
    A.mean.dim,
    A.mean.default,
}
BILINEAR = {A.mul.Tensor, A.bmm.default, A.mm.default, A.mv.default, A.dot.default}
UNIFORM = {
    A.ones_like.default: 1.0, A.zeros_like.default: 0.0, A.ones.default: 1.0, A.zeros.default: 0.0,
    A.new_zeros.default: 0.0, A.new_ones.default: 1.0,
}  # fmt: skip
FILLED = {A.full.default: 1, A.full_like.default: 1, A.scalar_tensor.default: 0, A._to_copy.default: 0}
FAST: dict[Any, Callable[..., Any]] = {
    A.mul.Tensor: torch.mul, A.add.Tensor: torch.add, A.sub.Tensor: torch.sub, A.div.Tensor: torch.div,
    A.neg.default: torch.neg, A.pow.Tensor_Scalar: torch.pow, A.sum.default: torch.sum, A.sum.dim_IntList: torch.sum,
    A.bmm.default: torch.bmm, A.mm.default: torch.mm, A.mv.default: torch.mv, A.dot.default: torch.dot,
    A.view.default: Tensor.view, A.expand.default: Tensor.expand, A.unsqueeze.default: Tensor.unsqueeze,
    A.transpose.int: Tensor.transpose, A.exp.default: torch.exp, A.log.default: torch.log, A.cos.default: torch.cos,
    A.sin.default: torch.sin, A.where.self: torch.where,
}  # fmt: skip


def straight_line(module: fx.GraphModule, guarded: int) -> Callable[..., tuple[Tensor, ...]]:
    """Return a recorded program as a function of its inputs.

    Args:
        module: the recording.
        guarded: how many of the first inputs no result may share memory with.

    Raises:
        CannotRecord: it writes in place or draws random numbers, or is too long.
    """
    if len(module.graph.nodes) > LARGEST:
        raise CannotRecord("it is too long")
    module.graph.eliminate_dead_code()
    return _Writer(module, guarded).write()


class _Writer:
    """Goes through a recording once and writes the operations that are needed."""

    def __init__(self, module: fx.GraphModule, guarded: int):
        self._module = module
        self._guarded = guarded
        self._values: dict[fx.Node, Any] = {}
        self._lines: list[_Line] = []
        self._known: dict[Any, int] = {}
        self._constants: dict[int, Tensor] = {}
        self._inputs: list[int] = []
        self._device = torch.device("cpu")
        self._count = 0

    def write(self) -> Callable[..., tuple[Tensor, ...]]:
        results: tuple[int, ...] = ()
        for node in self._module.graph.nodes:
            if node.op == "placeholder":
                given, number = node.meta["val"], self._new()
                self._device = given.device
                self._values[node] = _Value(1.0, number, given.shape, len(self._inputs) < self._guarded)
                self._inputs.append(number)
            elif node.op == "get_attr":
                constant = getattr(self._module, node.target)
                self._values[node] = _Value(1.0, self._constant(constant), constant.shape, True)
            elif node.op == "output":
                results = tuple(self._result(self._values[value]) for value in node.args[0])
            else:
                self._values[node] = self._operation(node)
        return _compiled(_needed(self._lines, results), self._constants, self._inputs, results)

    def _operation(self, node: fx.Node) -> Any:
        operation: Any = RESHAPED_IN_PLACE.get(node.target, node.target)
        schema = getattr(operation, "_schema", None)
        if schema is None or schema.is_mutable or torch.Tag.nondeterministic_seeded in operation.tags:
            raise CannotRecord(f"{operation} cannot be replayed")
        arguments = tuple(self._values[a] if isinstance(a, fx.Node) else a for a in node.args)
        result = node.meta.get("val")
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            simple = self._simple(operation, arguments, node, result)
            if simple is not None:
                return simple
        return self._plain(operation, node, result)

    def _simple(self, operation: Any, arguments: tuple[Any, ...], node: fx.Node, result: Tensor) -> _Value | None:
        """Return the value without a new operation, or with a smaller one; None where no rule applies."""
        shape = result.shape
        if operation in UNIFORM:
            return _Value(UNIFORM[operation], None, shape)
        if operation in FILLED and isinstance(arguments[FILLED[operation]], int | float):
            return _Value(float(arguments[FILLED[operation]]), None, shape)
        first = arguments[0] if arguments else None
        if not isinstance(first, _Value) or self._foreign(node):
            return None
        if operation in SAME:
            return first
        if operation in VIEWS or operation in LINEAR:
            return self._linear(operation, first, arguments, node, shape)
        if operation is A.neg.default:
            return _scaled(first, -1.0)
        if operation in (A.mul.Scalar, A.div.Scalar) or (
            operation in (A.mul.Tensor, A.div.Tensor) and isinstance(arguments[1], int | float)
        ):
            by = float(arguments[1])
            return _scaled(first, by if operation in (A.mul.Scalar, A.mul.Tensor) else 1.0 / by)
        if operation in BILINEAR:
            return self._bilinear(operation, first, arguments[1], shape)
        if operation in (A.add.Tensor, A.sub.Tensor):
            sign = -1.0 if operation is A.sub.Tensor else 1.0
            return self._sum(first, arguments[1], sign * _number(node.kwargs.get("alpha", 1)), shape)
        if operation is A.pow.Tensor_Scalar:
            return self._power(first, arguments[1], shape)
        return None

    def _foreign(self, node: fx.Node) -> bool:
        """Say whether an argument is a tensor of another type than the working one."""
        tensors = [a for a in node.args if isinstance(a, fx.Node)]
        return any(not isinstance(a.meta.get("val"), Tensor) or a.meta["val"].dtype != torch.float64 for a in tensors)

    def _linear(
        self, operation: Any, value: _Value, arguments: tuple[Any, ...], node: fx.Node, shape: torch.Size
    ) -> _Value | None:
        idle = (A.view.default, A._unsafe_view.default, A.reshape.default, A.expand.default)
        if operation in idle and shape == value.shape:
            return value
        if value.register is None:
            if operation in VIEWS:
                return replace(value, shape=shape)
            if operation in (A.sum.default, A.sum.dim_IntList):
                return _Value(value.factor * (math.prod(value.shape) / max(math.prod(shape), 1)), None, shape)
            return None
        number = self._emit(operation, (_Register(value.register), *arguments[1:]), dict(node.kwargs))
        return _Value(value.factor, number, shape, value.shared and operation in VIEWS)

    def _bilinear(self, operation: Any, first: _Value, second: Any, shape: torch.Size) -> _Value | None:
        if not isinstance(second, _Value):
            return None
        if first.register is None or second.register is None:
            if operation is not A.mul.Tensor:
                return None
            constant, other = (first, second) if first.register is None else (second, first)
            if other.register is None or constant.factor == 0.0:
                return _Value(first.factor * second.factor, None, shape)
            return _scaled(self._expanded(other, shape), constant.factor)
        number = self._emit(operation, (_Register(first.register), _Register(second.register)), {})
        return _Value(first.factor * second.factor, number, shape)

    def _sum(self, first: _Value, second: Any, alpha: float, shape: torch.Size) -> _Value | None:
        if isinstance(second, int | float):
            second = _Value(float(second), None, torch.Size(()))
        if not isinstance(second, _Value):
            return None
        second = _scaled(second, alpha)
        if first.register is None:
            first, second = second, first
        if first.register is None:
            return _Value(first.factor + second.factor, None, shape)
        if second.register is None:
            if second.factor == 0.0:
                return self._expanded(first, shape)
            number = self._emit(A.add.Tensor, (_Register(first.register), second.factor / first.factor), {})
            return self._expanded(_Value(first.factor, number, first.shape), shape)
        ratio = second.factor / first.factor
        registers = (_Register(first.register), _Register(second.register))
        if abs(ratio) == 1.0:
            number = self._emit(A.add.Tensor if ratio > 0 else A.sub.Tensor, registers, {})
        else:
            number = self._emit(A.add.Tensor, registers, {"alpha": ratio})
        return _Value(first.factor, number, shape)

    def _power(self, value: _Value, exponent: Any, shape: torch.Size) -> _Value | None:
        if exponent == 0:
            return _Value(1.0, None, shape)
        if exponent == 1:
            return value
        if value.register is None or not float(exponent).is_integer():
            return None
        number = self._emit(A.pow.Tensor_Scalar, (_Register(value.register), exponent), {})
        return _Value(value.factor ** int(exponent), number, shape)

    def _expanded(self, value: _Value, shape: torch.Size) -> _Value:
        if value.shape == shape or value.register is None:
            return replace(value, shape=shape)
        number = self._emit(A.expand.default, (_Register(value.register), list(shape)), {})
        return _Value(value.factor, number, shape, value.shared)

    def _plain(self, operation: Any, node: fx.Node, result: Any) -> Any:
        """Return the value of an operation as it was recorded."""
        shared = [False]

        def ready(argument: Any) -> Any:
            value = self._values[argument]
            if isinstance(value, _Value):
                shared[0] |= value.shared
                return _Register(self._number(value))
            return value

        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), ready)
        number = self._emit(operation, tuple(arguments), dict(keywords))
        if isinstance(result, Tensor):
            return _Value(1.0, number, result.shape, shared[0])
        if isinstance(result, list | tuple):
            raise CannotRecord(f"{operation} returns several tensors")
        return _Register(number)

    def _number(self, value: _Value) -> int:
        """Return the register that holds a value."""
        if value.register is None:
            filled = torch.full((), value.factor, dtype=torch.float64, device=self._device).expand(value.shape)
            return self._constant(filled, (value.factor, value.shape))
        if value.factor == 1.0:
            return value.register
        return self._emit(A.mul.Tensor, (_Register(value.register), value.factor), {})

    def _result(self, value: _Value) -> int:
        number = self._number(value)
        untouched = value.register is None or (value.shared and number == value.register)
        return self._emit(A.clone.default, (_Register(number),), {}) if untouched else number

    def _emit(self, operation: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> int:
        key = (operation, repr(arguments), repr(sorted(keywords.items())))
        if key not in self._known:
            self._known[key] = self._new()
            self._lines.append(_Line(self._known[key], operation, arguments, keywords))
        return self._known[key]

    def _constant(self, tensor: Tensor, key: Any = None) -> int:
        key = ("constant", id(tensor) if key is None else key)
        if key not in self._known:
            self._known[key] = self._new()
            self._constants[self._known[key]] = tensor
        return self._known[key]

    def _new(self) -> int:
        self._count += 1
        return self._count - 1


def _number(value: Any) -> float:
    return float(value)


def _scaled(value: _Value, by: float) -> _Value:
    factor = value.factor * by
    return _Value(0.0, None, value.shape) if factor == 0.0 else replace(value, factor=factor)


def _registers(arguments: Any) -> list[int]:
    """Return the registers among nested arguments."""
    if isinstance(arguments, _Register):
        return [arguments.number]
    parts = arguments.values() if isinstance(arguments, dict) else arguments
    return [n for part in parts for n in _registers(part)] if isinstance(arguments, tuple | list | dict) else []


def _needed(lines: list[_Line], results: tuple[int, ...]) -> list[_Line]:
    """Return the lines that the results depend on."""
    wanted, kept = set(results), []
    for line in reversed(lines):
        if line.target in wanted:
            wanted.update(_registers(line.arguments), _registers(line.keywords))
            kept.append(line)
    return kept[::-1]


def _compiled(
    lines: list[_Line], constants: dict[int, Tensor], inputs: list[int], results: tuple[int, ...]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return the lines as one Python function."""
    scope: dict[str, Any] = {f"r{number}": tensor for number, tensor in constants.items()}

    def text(argument: Any) -> str:
        if isinstance(argument, _Register):
            return f"r{argument.number}"
        if isinstance(argument, tuple | list):
            return f"[{', '.join(map(text, argument))}]"
        name = f"c{len(scope)}"
        scope[name] = argument
        return name

    body = []
    for line in lines:
        scope[f"f{line.target}"] = FAST.get(line.operation, line.operation)
        arguments = [text(a) for a in line.arguments] + [f"{k}={text(v)}" for k, v in line.keywords.items()]
        body.append(f"    r{line.target} = f{line.target}({', '.join(arguments)})")
    head = f"def replay({', '.join(f'r{n}' for n in inputs)}):"
    tail = f"    return ({''.join(f'r{n}, ' for n in results)})"
    exec("\n".join([head, *body, tail]), scope)
    replay: Callable[..., tuple[Tensor, ...]] = scope["replay"]
    return replay
