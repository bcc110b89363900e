"""The algebra of a problem: what depends on the parameters alone, computed by torch, and what holds the variables."""

import functools
import hashlib
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .._bound import BoundProblem
from .._start import first_start
from ._cache import ModelCache
from ._machine import dense
from ._record import Where, record_calls
from ._recording import Guard, Operation, Recording, Taint

if TYPE_CHECKING:
    from ._degree import Degree

ROLES = ("objective", "equality", "inequality")
_ARITHMETIC = frozenset({"add", "sub", "rsub", "mul", "div", "where", "maximum", "minimum", "pow", "lerp", "addcmul"})
"""Operators that take a boolean or integer parameter as a number; others need its value to be known."""


@dataclass(frozen=True, eq=False)
class Algebra:
    """Objective and constraints as a list of torch operators in the variables, for instances that share the list.

    What depends on the parameters alone is computed by torch (any operator is allowed there) and enters the list as
    numbers that differ by instance, ``values``; what depends on neither is a constant.

    Attributes:
        operations: the operators that depend on the variables, in order.
        shapes: the shape of every value.
        dtypes: the dtype of every value of ``parameters``.
        constants: values that do not depend on the variables, and are the same for all instances here.
        variables: the value that is the vector of variables, (n,).
        parameters: the values that are parts of ``values``, in order.
        outputs: the values that are the objective (), equalities (p,) and inequalities (q,); None for what is absent.
        values: (instances, n_p), float64: what torch computed from the parameters.
        prefix: ``(parameters) ->`` values, differentiable; the parameters are prepared ones of the whole batch.
        instances: positions in the flattened batch, a vector.
        size: number of variables, n.
        equalities: p.
        inequalities: q.
        point: (n,), where the functions were recorded.
    """

    operations: tuple[Operation, ...]
    shapes: Mapping[int, torch.Size]
    dtypes: Mapping[int, torch.dtype]
    constants: Mapping[int, Tensor]
    variables: int
    parameters: tuple[int, ...]
    outputs: tuple[int | None, int | None, int | None]
    values: Tensor
    prefix: Callable[[Sequence[Tensor]], Tensor]
    instances: Tensor
    size: int
    equalities: int
    inequalities: int
    point: Tensor

    @cached_property
    def key(self) -> Hashable:
        """Equal for problems of which one model, built once, serves both: operators, shapes and constants agree."""
        listing = tuple((o.target, o.args, o.kwargs, o.outputs) for o in self.operations)
        constants = tuple((index, digest(tensor)) for index, tensor in sorted(self.constants.items()))
        parameters = tuple((index, tuple(self.shapes[index]), self.dtypes[index]) for index in self.parameters)
        return listing, constants, parameters, self.outputs, self.size

    @cached_property
    def key_with_lines(self) -> Hashable:
        """The key for what speaks of the user's code: equal only where operators were called at the same lines too."""
        return self.key, tuple(o.location for o in self.operations)

    @cached_property
    def degree(self) -> "Degree":
        """The proved degree of objective and constraints in the variables: linear, quadratic, or nothing."""
        from ._degree import prove_degree

        return _degrees.get(self.key, lambda: prove_degree(self))

    def replay(self, z: Tensor, values: Tensor) -> dict[int, Tensor]:
        """Return every value of one instance, computed by torch from the list.

        Args:
            z: (n,), the variables.
            values: (n_p,), a row of ``values``.
        """
        found = {**self.constants, self.variables: z, **self.split(values)}
        for operation in self.operations:
            for index, result in zip(operation.outputs, operation.run(found.__getitem__), strict=True):
                if index is not None:
                    found[index] = result
        return found

    def split(self, values: Tensor) -> dict[int, Tensor]:
        """Return a row (n_p,) of ``values`` as the values that it consists of."""
        sizes = [self.shapes[index].numel() for index in self.parameters]
        parts = zip(self.parameters, values.split(sizes), strict=True)
        return {index: part.clone().reshape(self.shapes[index]).to(self.dtypes[index]) for index, part in parts}


_degrees: "ModelCache[Degree]" = ModelCache(256)
_recorded: "WeakKeyDictionary[BoundProblem, tuple[Algebra, ...]]" = WeakKeyDictionary()
_lock = threading.Lock()


def record(problem: BoundProblem) -> tuple[Algebra, ...]:
    """Return the algebra of a bound problem, one for each group of instances that take the same path.

    The functions run once on real values, and every operator is written down with its line. They are recorded for
    every bound problem anew, so that values captured from outside are those of now. A branch on a parameter
    (``if p > 0``) is followed, and instances that would take another are recorded on their own.

    Raises:
        AlgebraError: a function branches on the variables, uses them as an index, leaves torch, is random, or changes
            tensors that others see. The message has the function, the line and what to write instead.
    """
    with _lock:
        known = _recorded.get(problem)
    if known is None:
        with torch.inference_mode(False), torch.no_grad():
            known = tuple(_groups(problem))
        with _lock:
            _recorded[problem] = known
    return known


def _groups(problem: BoundProblem) -> Iterable[Algebra]:
    device = problem.layout.device
    left = torch.arange(problem.batch, device=device)
    start = first_start(problem) if problem.batch else None
    while len(left):
        assert start is not None
        first = int(left[0])
        recording = record_instance(problem, first, start[first])
        graph = _Split(recording)
        same = torch.tensor(
            [i == 0 or graph.agrees(instance_of(problem, int(k))) for i, k in enumerate(left)], device=device
        )
        yield graph.algebra(problem, left[same], start[first])
        left = left[~same]


def record_instance(problem: BoundProblem, index: int, point: Tensor) -> Recording:
    """Record the functions of one instance, jointly, at ``point`` (n,)."""
    functions = problem.functions
    present = [role for role in ROLES if getattr(problem.problem, role) is not None]
    where = Where()

    def joint(z: Tensor, *parameters: Tensor) -> Sequence[Tensor]:
        results = []
        for role in present:
            where.enter(role)
            results.append(getattr(functions, f"{role}_one")(z, *parameters))
        return tuple(results)

    row = instance_of(problem, index)
    return record_calls(joint, [(point, Taint.VARIABLE), *((p, Taint.PARAMETER) for p in row)], where)


def instance_of(problem: BoundProblem, index: int) -> tuple[Tensor, ...]:
    """Return the parameters of one instance."""
    return _instance(problem.parameters, problem.layout.shared, index)


def _instance(parameters: Sequence[Tensor], shared: Sequence[bool], index: int) -> tuple[Tensor, ...]:
    return tuple(p if s else p[index] for p, s in zip(parameters, shared, strict=True))


class _Split:
    """A recording cut in two: the prefix that depends on the parameters alone, and the body."""

    def __init__(self, recording: Recording):
        self.recording = recording
        taints = recording.taints
        needed = {i for i in recording.outputs if taints[i] == Taint.VARIABLE}
        body = []
        for operation in reversed(recording.operations):
            if operation.taint == Taint.VARIABLE and needed.intersection(operation.outputs):
                body.append(operation)
                needed.update(operation.inputs)
        self.body = tuple(reversed(body))
        read = {index for operation in self.body for index in operation.inputs} | set(recording.outputs)
        self.constants = {i for i in read if taints[i] == Taint.CONSTANT}
        crossing = sorted(i for i in read if taints[i] == Taint.PARAMETER)
        number = self._numbers()
        self.boundary = tuple(i for i in crossing if recording.tensors[i].is_floating_point() or i in number)
        self.static = tuple(i for i in crossing if i not in self.boundary)
        self.prefix = self._needed_for([*crossing, *(i for g in recording.guards for i in g.operation.inputs)])

    def _numbers(self) -> set[int]:
        """Return the boolean and integer parameters that the body reads only as numbers."""
        uses: dict[int, bool] = {}
        for operation in self.body:
            for index in operation.inputs:
                uses[index] = uses.get(index, True) and operation.name in _ARITHMETIC
        return {index for index, plain in uses.items() if plain} - set(self.recording.outputs)

    def _needed_for(self, wanted: Iterable[int]) -> tuple[Operation, ...]:
        needed, kept = set(wanted), []
        for operation in reversed(self.recording.operations):
            if operation.taint == Taint.PARAMETER and needed.intersection(operation.outputs):
                kept.append(operation)
                needed.update(operation.inputs)
        return tuple(reversed(kept))

    def agrees(self, parameters: Sequence[Tensor]) -> bool:
        """Say whether an instance takes the path that was recorded."""
        if not self.recording.guards and not self.static:
            return True
        found = self._parameters_of(parameters)
        guards = {id(g.operation): g for g in self.recording.guards if g.operation.outputs}
        try:
            for operation in self.prefix:
                results = operation.run(found)
                shapes = tuple(r.shape for r in results if isinstance(r, Tensor))
                if id(operation) in guards and shapes != guards[id(operation)].value:
                    return False
                found.put(operation, results)
            reads = [g for g in self.recording.guards if not g.operation.outputs]
            if not all(_same_read(g, found) for g in reads):
                return False
        except Exception:  # noqa: BLE001 - on another path an operator may not fit the values
            return False
        tensors = self.recording.tensors
        return all(torch.equal(found(i), tensors[i]) for i in self.static)

    def _parameters_of(self, parameters: Sequence[Tensor]) -> "_Found":
        recording = self.recording
        return _Found(recording.tensors, dict(zip(recording.inputs[1:], parameters, strict=True)))

    def algebra(self, problem: BoundProblem, instances: Tensor, point: Tensor) -> Algebra:
        """Return the algebra of the instances that agree with the recording."""
        recording = self.recording
        found = iter(recording.outputs)
        outputs = [next(found) if getattr(problem.problem, role) is not None else None for role in ROLES]
        read = {i for o in self.body for i in (*o.inputs, *o.outputs) if i is not None} | {*recording.outputs}
        return Algebra(
            operations=self.body,
            shapes={i: recording.shapes[i] for i in sorted(read | {recording.inputs[0]})},
            dtypes={i: recording.tensors[i].dtype for i in self.boundary},
            constants={i: recording.tensors[i].detach() for i in sorted(self.constants | set(self.static))},
            variables=recording.inputs[0],
            parameters=self.boundary,
            outputs=(outputs[0], outputs[1], outputs[2]),
            values=self._values(problem.layout.shared, instances, problem.parameters),
            prefix=functools.partial(self._values, problem.layout.shared, instances),
            instances=instances,
            size=problem.size,
            equalities=problem.equalities,
            inequalities=problem.inequalities,
            point=point,
        )

    def _values(self, shared: tuple[bool, ...], instances: Tensor, given: Sequence[Tensor]) -> Tensor:
        """Return what the body reads of the parameters, (instances, n_p)."""

        def prefix(*parameters: Tensor) -> Tensor:
            found = self._parameters_of(parameters)
            for operation in self.prefix:
                found.put(operation, operation.run(found))
            parts = [found(i).reshape(-1).to(torch.float64) for i in self.boundary]
            return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=instances.device)

        if all(shared) or not self.boundary:
            once = prefix(*_instance(given, shared, int(instances[0])))
            return once.expand(len(instances), *once.shape)
        parameters = [p if s else p[instances] for p, s in zip(given, shared, strict=True)]
        if not self.recording.guards:
            try:
                mapped: Tensor = torch.vmap(prefix, in_dims=tuple(None if s else 0 for s in shared))(*parameters)
                return mapped
            except Exception:  # noqa: BLE001 - vmap raises what it likes for operators that it cannot map
                pass
        return torch.stack([prefix(*_instance(given, shared, int(k))) for k in instances])


class _Found:
    """Values of one instance: its parameters, what was computed from them, and the recorded constants."""

    def __init__(self, constants: Sequence[Tensor], values: dict[int, Tensor]):
        self._constants, self._values = constants, values

    def __call__(self, index: int) -> Tensor:
        found = self._values.get(index)
        return self._constants[index] if found is None else found

    def put(self, operation: Operation, results: Sequence[Any]) -> None:
        self._values.update((i, r) for i, r in zip(operation.outputs, results, strict=True) if i is not None)


def _same_read(guard: Guard, found: Callable[[int], Tensor]) -> bool:
    return bool(guard.operation.run(found)[0] == guard.value)


def digest(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """Return dtype, shape and a hash of the content of a tensor."""
    content = dense(tensor).contiguous().reshape(-1).view(torch.uint8).numpy()
    return tensor.dtype, tensor.shape, hashlib.blake2b(content.tobytes(), digest_size=16).digest()
