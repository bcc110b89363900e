"""Recorder: runs torch functions once on real values and writes down every operator they call, with its line."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .._errors import AlgebraError
from ._recording import Guard, Location, Operation, Recording, Ref, Taint, operator_name, references

_CORE = Path(__file__).parents[1]
_INTERNAL = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_INTERNAL_FILES = {str(_CORE / name) for name in ("_functions.py", "_layout.py", "_problem.py", "_autodiff.py")}
_SHAPE_ONLY = {
    f"aten::{name}"
    for name in (
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
        "new_empty_strided",
        "zero_",
        "_new_zeros_with_same_feature_meta",
    )
}
"""Operators whose result depends on the shape of their argument alone."""
_TAKES_FROM_FIRST = {"aten::index", "aten::_unsafe_index", "aten::masked_select"}
"""Operators whose first argument does not decide the shape of the result, although others do."""
_READS_SHAPES = {"aten::is_same_size", "aten::_has_same_storage_numel"}
_SOLVES = {
    "aten::_linalg_solve_ex": ("A", "B"),
    "aten::linalg_solve_triangular": ("self", "B"),
    "aten::cholesky_solve": ("input2", "self"),
    "aten::linalg_lu_solve": ("LU", "B"),
    "aten::linalg_lstsq": ("self", "b"),
}
"""Operators that solve linear systems: their matrix, and their right-hand side."""
_RESHAPES_IN_PLACE = {f"aten::{name}_" for name in ("squeeze", "unsqueeze", "t", "transpose", "detach")}
_LEAVES_TORCH = {
    torch.Tensor.numpy: ".numpy()",
    torch.Tensor.tolist: ".tolist()",
    torch.Tensor.__array__: "a conversion to NumPy",
}
_COPIES = {torch.tensor: "torch.tensor", torch.as_tensor: "torch.as_tensor", torch.asarray: "torch.asarray"}
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
INSTEAD = "Solvers that only evaluate the functions, such as those of the plugin 'scipy', take the problem as it is."

_DETACHES = "detaches a value that depends on the variables, so that the derivative is not that of the function"


def record_calls(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[tuple[Tensor, Taint]], where: "Where"
) -> Recording:
    """Record what ``function`` does with its inputs.

    In-place code is made functional on the way. A function that cannot be (a ``torch.autograd.Function`` of the old
    style) is recorded as it runs, and refused where it changes a tensor that something else may see.

    Args:
        function: called with clones of the inputs.
        inputs: tensors, and what each of them is.
        where: keeps the place in the user's code, and how to refuse.

    Raises:
        AlgebraError: the function reads a value of a variable as a Python number, is random, or fails.
    """
    try:
        return _record(torch.func.functionalize(_inside(function, where), remove="mutations"), inputs, where)
    except AlgebraError:
        raise
    except Exception:  # noqa: BLE001 - the second attempt says what is wrong in better words
        pass
    try:
        return _record(_inside(function, where), inputs, where)
    except AlgebraError:
        raise
    except Exception as error:
        raise where.refusal(f"raised {type(error).__name__} while it was recorded: {error}") from error


def _inside(function: Callable[..., Sequence[Tensor]], where: "Where") -> Callable[..., Sequence[Tensor]]:
    def inside(*arguments: Tensor) -> Sequence[Tensor]:
        with where:
            return function(*arguments)

    return inside


def _record(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[tuple[Tensor, Taint]], where: "Where"
) -> Recording:
    recorder = _Recorder(where)
    where.recorder = recorder
    arguments = [tensor.detach().clone() for tensor, _ in inputs]
    recording = recorder.recording
    recording.inputs = tuple(recorder.add(tensor, taint) for tensor, (_, taint) in zip(arguments, inputs, strict=True))
    with torch.no_grad(), recorder:
        results = function(*arguments)
    recording.outputs = tuple(recorder.index_of(result) for result in results)
    return recording


class Where(TorchFunctionMode):
    """Follows the user's code: which function of the problem runs, and at which line.

    Attributes:
        role: the function of the problem, ``"objective"``.
        recorder: the one at work.
    """

    def __init__(self, role: str = ""):
        super().__init__()
        self.role = role
        self.recorder: _Recorder | None = None
        self._location: Location | None = None
        self._user: dict[str, bool] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the line, and refuse what leaves torch."""
        del types
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not self._is_user(frame.f_code.co_filename):
            frame = None if frame.f_code.co_filename == __file__ else frame.f_back
        code = frame.f_code if frame else None
        self._location = Location(self.role, code.co_filename, frame.f_lineno, code.co_name) if frame and code else None
        if func in _LEAVES_TORCH:
            self._check_leaving(args[0], f"{_LEAVES_TORCH[func]} takes")
        elif func in _COPIES and args and (func is torch.tensor or not isinstance(args[0], Tensor)):
            for part in _tensors(args[0]):
                self._check_leaving(part, f"{_COPIES[func]}, unlike torch.stack, takes")
        elif func == _DATA and self._taint(args[0]) == Taint.VARIABLE:
            raise self.refusal(_DETACHES)
        return func(*args, **(kwargs or {}))

    @property
    def location(self) -> Location:
        """Where the code is now."""
        return self._location or Location(self.role)

    def enter(self, role: str) -> None:
        """Go on to another function of the problem."""
        self.role, self._location = role, None

    def refusal(self, what: str) -> AlgebraError:
        """Return the error that says where, what, and which solvers still work."""
        return AlgebraError(f"{self.location}: {what}. {INSTEAD}")

    def _is_user(self, file: str) -> bool:
        known = self._user.get(file)
        if known is None:
            known = not file.startswith(_INTERNAL) and file not in _INTERNAL_FILES
            self._user[file] = known
        return known

    def _taint(self, tensor: Tensor) -> Taint:
        assert self.recorder is not None
        return self.recorder.taint_of(
            torch._from_functional_tensor(tensor) if torch._is_functional_tensor(tensor) else tensor
        )

    def _check_leaving(self, tensor: Tensor, what: str) -> None:
        taint = self._taint(tensor)
        if taint != Taint.CONSTANT:
            whose = "the variables" if taint == Taint.VARIABLE else "a parameter"
            raise self.refusal(f"{what} values of {whose} out of torch, where they cannot be followed")


def _tensors(data: Any) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, list | tuple):
        for part in data:
            yield from _tensors(part)


@functools.cache
def _traits(func: OpOverload) -> tuple[bool, bool, bool]:
    """Return whether an operator may be random, has a shape that depends on values, and changes its argument."""
    random, dynamic = (tag in func.tags for tag in (torch.Tag.nondeterministic_seeded, torch.Tag.dynamic_output_shape))
    return random, dynamic, func._schema.is_mutable


def _is_deterministic(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether an operator that may be random is not with these arguments."""
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "dropout_p" in names:
        return bool(given.get("dropout_p", 0.0) == 0.0)
    return "training" in names and not given.get("training", False)


class _Recorder(TorchDispatchMode):
    """Writes every operator down. All tensors are kept alive, so that no two share an identity."""

    def __init__(self, where: Where):
        super().__init__()  # type: ignore[no-untyped-call]
        self.where = where
        self.recording = Recording()
        self._known: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._made: set[int] = set()

    def add(self, tensor: Tensor, taint: Taint) -> int:
        """Make a value of a tensor and return its index."""
        recording = self.recording
        index = len(recording.tensors)
        recording.tensors.append(tensor)
        recording.shapes.append(tensor.shape)
        recording.taints.append(taint)
        self._kept.append(tensor)
        self._known[id(tensor)] = index
        return index

    def index_of(self, tensor: Tensor) -> int:
        """Return the value that a tensor is; one never seen before is a constant."""
        known = self._known.get(id(tensor))
        if known is not None:
            return known
        if tensor.requires_grad:
            raise self.where.refusal(
                "uses a captured tensor that requires grad, through which no gradient would flow; pass it as a "
                "parameter of the problem, or use its `.detach()`"
            )
        return self.add(tensor, Taint.CONSTANT)

    def taint_of(self, tensor: Tensor) -> Taint:
        """Return what a tensor depends on."""
        known = self._known.get(id(tensor))
        return Taint.CONSTANT if known is None else self.recording.taints[known]

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and record it."""
        del types
        used = kwargs or {}
        read: list[int] = []
        inputs = self._refer(args, read)
        named = tuple((key, self._refer(value, read)) for key, value in used.items())
        taints = self.recording.taints
        taint = max([taints[i] for i in read], default=Taint.CONSTANT)
        random, dynamic, mutable = _traits(func)
        if random and not _is_deterministic(func, args, used):
            raise self.where.refusal(f"`{operator_name(func)}` is random; pass the random numbers as a parameter")
        name = func._schema.name
        if name == "aten::as_strided" and (not args[0].is_contiguous() or args[0].storage_offset()):
            raise self.where.refusal("`as_strided` reads the storage of a tensor that is a view of another")
        if name == "aten::detach" and taint == Taint.VARIABLE:
            raise self.where.refusal(_DETACHES)
        if name in _SOLVES and taint == Taint.VARIABLE:
            product = self._solve_by_product(func, args, used)
            if product is not None:
                return product
        if dynamic and self._chooses(name, inputs):
            raise self.where.refusal(f"the operator `{operator_name(func)}` has an index that depends on the variables")
        if mutable:
            taint = Taint.CONSTANT if name in _SHAPE_ONLY else taint
            operation = Operation(self._out_of_place(func), inputs, named, (), taint, self.where.location)
            return self._mutate(func, args, used, operation)
        out = func(*args, **used)
        results = out if isinstance(out, tuple | list) else (out,)
        if not any(isinstance(result, Tensor) for result in results):
            return self._read(func, inputs, named, taint, out) if out is not None else out
        result_taint = Taint.CONSTANT if name in _SHAPE_ONLY else taint
        outputs = tuple(self._output(result, result_taint) for result in results)
        operation = Operation(func, inputs, named, outputs, result_taint, self.where.location)
        if result_taint != Taint.CONSTANT:
            self.recording.operations.append(operation)
        if dynamic and taint == Taint.PARAMETER:
            self.recording.guards.append(Guard(operation, tuple(r.shape for r in results if isinstance(r, Tensor))))
        return out

    def _refer(self, argument: Any, read: list[int]) -> Any:
        """Return an argument with tensors replaced, and note which values it reads."""
        if isinstance(argument, Tensor):
            read.append(self.index_of(argument))
            return Ref(read[-1])
        if isinstance(argument, list | tuple):
            return tuple([self._refer(part, read) for part in argument])
        return argument

    def _output(self, result: Any, taint: Taint) -> int | None:
        if not isinstance(result, Tensor):
            return None
        known = self._known.get(id(result))
        if known is not None:
            return known
        index = self.add(result, taint)
        self._made.add(index)
        return index

    def _read(
        self, func: OpOverload, inputs: tuple[Any, ...], named: tuple[tuple[str, Any], ...], taint: Taint, value: Any
    ) -> Any:
        """Note that a value was read as a Python number: refused of variables, guarded of parameters."""
        if func._schema.name in _READS_SHAPES:
            return value
        if taint == Taint.VARIABLE:
            raise self.where.refusal(
                "reads the value of a variable as a Python number (`if`, `while`, `float()`, `.item()`, `math`, an "
                f"index) while the problem is recorded ({operator_name(func)}); use torch.where, torch.maximum or a "
                "torch function instead"
            )
        if taint == Taint.PARAMETER:
            operation = Operation(func, inputs, named, (), taint, self.where.location)
            self.recording.guards.append(Guard(operation, value))
        return value

    def _chooses(self, name: str, inputs: tuple[Any, ...]) -> bool:
        """Say whether the variables decide how long the result of an operator is."""
        deciding = inputs[1:] if name in _TAKES_FROM_FIRST else inputs
        return any(self.recording.taints[i] == Taint.VARIABLE for i in references(deciding))

    def _solve_by_product(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the solution of a system whose matrix does not depend on the variables: a product with its inverse.

        The inverse is what the same operator makes of the identity. None if the matrix depends on the variables.
        """
        names = [argument.name for argument in func._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        matrix_name, right_name = _SOLVES[func._schema.name]
        matrix, right = given[matrix_name], given[right_name]
        if self.taint_of(matrix) == Taint.VARIABLE:
            return None
        rows = matrix.shape[-2]
        identity = torch.eye(rows, dtype=matrix.dtype, device=matrix.device).expand(*matrix.shape[:-2], rows, rows)
        solve = {**given, right_name: identity}
        results = func(**solve)
        inverse = results[0] if isinstance(results, tuple) else results
        taint, location = self.taint_of(matrix), self.where.location
        outputs = (self.add(inverse, taint), *[None] * (len(results) - 1 if isinstance(results, tuple) else 0))
        if taint == Taint.PARAMETER:
            named = tuple((key, self._refer(value, [])) for key, value in solve.items())
            self.recording.operations.append(Operation(func, (), named, outputs, taint, location))
        pair = (inverse, right) if given.get("left", True) else (right, inverse)
        product = torch.matmul(*pair)
        factors = tuple(Ref(self.index_of(part)) for part in pair)
        output = (self.add(product, Taint.VARIABLE),)
        target = torch.ops.aten.matmul.default
        self.recording.operations.append(Operation(target, factors, (), output, Taint.VARIABLE, location))
        return (product, *results[1:]) if isinstance(results, tuple) else product

    def _out_of_place(self, func: OpOverload) -> OpOverload:
        """Return the operator that does out of place what another does in place."""
        name = operator_name(func)
        packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
        plain: OpOverload | None = getattr(packet, func._overloadname, None)
        if plain is None:
            raise self.where.refusal(f"`{name}` writes into tensors that it is given")
        return plain

    def _mutate(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], operation: Operation) -> Tensor:
        """Run an operator that changes its first argument, and record the same out of place.

        The new value is put into the tensor whose storage it is a part of, and every view of it is taken anew.
        """
        changed: Tensor = args[0]
        name = func._schema.name
        storage = changed.untyped_storage()._cdata
        group = [t for t in self._kept if t.untyped_storage()._cdata == storage and id(t) in self._known]
        group = list({id(t): t for t in group}.values())
        whole = group[0]
        if name not in _RESHAPES_IN_PLACE:
            fresh = self._known[id(whole)] in self._made and whole.is_contiguous() and not whole.storage_offset()
            if not fresh or whole.untyped_storage().nbytes() != whole.numel() * whole.element_size():
                raise self.where.refusal(f"`{operator_name(func)}` changes a tensor in place that was made elsewhere")
            for tensor in group:
                self.recording.tensors[self._known[id(tensor)]] = tensor.clone()
        before = self._known[id(whole)]
        func(*args, **kwargs)
        value = self._put(changed, operation)
        if name in _RESHAPES_IN_PLACE or len(group) == 1:
            return changed
        last = value
        if changed is not whole:
            place = (tuple(changed.shape), changed.stride(), changed.storage_offset())
            target = torch.ops.aten.as_strided_scatter.default
            last = self._put(whole, operation, target, (self._in_order(before, operation), Ref(value), *place))
        base = self._in_order(last, operation)
        for view in group:
            if view is not whole and view is not changed:
                place = (tuple(view.shape), view.stride(), view.storage_offset())
                self._put(view, operation, torch.ops.aten.as_strided.default, (base, *place))
        return changed

    def _in_order(self, index: int, like: Operation) -> Ref:
        """Record a copy in C order, which is what the places of views refer to, and return it."""
        tensors = self.recording.tensors
        return Ref(self._put(tensors[index].clone(), like, torch.ops.aten.contiguous.default, (Ref(index),)))

    def _put(
        self, tensor: Tensor, like: Operation, target: OpOverload | None = None, args: tuple[Any, ...] | None = None
    ) -> int:
        """Make a new value of a tensor that was changed, and record what made it; return its index."""
        taints = self.recording.taints
        taint = like.taint if args is None else max(taints[i] for i in references(args))
        index = self.add(tensor, taint)
        self._made.add(index)
        if taint != Taint.CONSTANT:
            made = like if target is None else replace(like, target=target, args=args or (), kwargs=())
            self.recording.operations.append(replace(made, outputs=(index,), taint=taint))
        return index
