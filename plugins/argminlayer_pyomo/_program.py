"""Scalar algebra as a short vectorised program: equal operations on all their operands at once.

A model states thousands of scalar expressions that differ only in which variables they touch. :class:`Recorder` takes
them one operation at a time, shares what is equal, and files each operation with those of the same kind on the same
kinds of operands. Evaluating the program is then one vector operation per kind, not one per scalar, and sums of
any lengths are one sparse product.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

VARIABLES, PARAMETERS, CONSTANTS = 0, 1, 2
"""Groups that hold the leaves: unknowns, parameters, and numbers that are operands of nonlinear operations."""

Node = tuple[int, int]
"""A scalar: its group, and its position in the group's vector."""
Index = NDArray[np.int64]
Vector = NDArray[np.float64]
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Affine:
    """``constant + sum of coefficient * node``: what linear operations make of their operands before anybody asks."""

    terms: dict[Node, float]
    constant: float = 0.0


Scalar = float | Node | Affine
"""A value while expressions are read."""


class Arithmetic(Protocol[V]):
    """Vector operations that a program is carried out in: torch's, or those of a symbolic library."""

    def constant(self, values: Vector) -> V:
        """Return known numbers as a vector."""

    def take(self, vector: V, index: Index) -> V:
        """Return ``vector[index]``."""

    def join(self, vectors: Sequence[V]) -> V:
        """Return vectors one after the other."""

    def add_rows(self, vector: V, coefficients: Vector, rows: Index, constants: Vector) -> V:
        """Return ``constants`` plus ``coefficients * vector`` added up by row."""

    def apply(self, operation: str, setting: float | None, operands: Sequence[V]) -> V:
        """Return an elementwise operation; ``setting`` is the exponent of a power, the base of an exponential."""


@dataclass(frozen=True, eq=False)
class Elementwise:
    """One operation on vectors: ``operation(values[g][index], ...)``; an index of None takes the whole group."""

    operation: str
    setting: float | None
    operands: tuple[tuple[int, Index | None], ...]
    length: int


@dataclass(frozen=True, eq=False)
class RowSums:
    """Weighted sums by row of entries of several groups, taken from the groups joined together."""

    groups: tuple[int, ...]
    index: Index
    coefficients: Vector
    rows: Index
    constants: Vector

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.constants)


@dataclass(frozen=True, eq=False)
class Program:
    """Straight-line vector code for many scalar functions of ``u`` (n,) and ``p`` (k,); its last step is the result.

    Attributes:
        constants: the numbers in the group of constants.
        steps: each with the group that it computes, in an order in which operands come first.
        result: the values of all functions.
        degrees: degree in ``u`` of every function, :data:`NONLINEAR` where it is no polynomial of degree 1 or 2.
    """

    constants: Vector
    steps: tuple[tuple[int, Elementwise | RowSums], ...]
    result: RowSums
    degrees: Index

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.result.constants)

    @property
    def lengths(self) -> list[int]:
        """Number of scalars that each step computes."""
        return [*(step.length for _, step in self.steps), self.size]

    def run(self, arithmetic: Arithmetic[V], u: V, p: V) -> V:
        """Return the values of all functions, a vector, in any arithmetic."""
        values = {VARIABLES: u, PARAMETERS: p}
        if len(self.constants):
            values[CONSTANTS] = arithmetic.constant(self.constants)
        for group, step in self.steps:
            values[group] = (
                _row_sums(arithmetic, step, values)
                if isinstance(step, RowSums)
                else arithmetic.apply(
                    step.operation,
                    step.setting,
                    [values[g] if index is None else arithmetic.take(values[g], index) for g, index in step.operands],
                )
            )
        return _row_sums(arithmetic, self.result, values)


def _row_sums(arithmetic: Arithmetic[V], step: RowSums, values: dict[int, V]) -> V:
    if not step.groups:
        return arithmetic.constant(step.constants)
    pool = values[step.groups[0]] if len(step.groups) == 1 else arithmetic.join([values[g] for g in step.groups])
    return arithmetic.add_rows(arithmetic.take(pool, step.index), step.coefficients, step.rows, step.constants)


NONLINEAR = 99
"""Degree of what is no polynomial of degree two or less."""


class _Group:
    """Scalars computed by the same operation on operands of the same groups (or sums of the same rank)."""

    def __init__(self, operation: str, setting: float | None, operands: tuple[int, ...], rank: int, degree: int):
        self.operation, self.setting, self.operands, self.rank, self.degree = operation, setting, operands, rank, degree
        self.columns: tuple[list[int], ...] = tuple([] for _ in operands)
        self.sums: list[Affine] = []


class Recorder:
    """Takes scalar operations one by one and returns them as a :class:`Program`.

    Values are numbers, nodes, or :class:`Affine` sums of nodes that are not computed until something nonlinear wants
    them. Nodes that are equal are the same.
    """

    def __init__(self) -> None:
        self._groups = [_Group("variables", None, (), 0, 1), _Group("parameters", None, (), 0, 0)]
        self._groups.append(_Group("constants", None, (), 0, 0))
        self._kinds: dict[Any, int] = {}
        self._known: dict[Any, Node] = {}
        self._constants: dict[float, int] = {}

    def variable(self, position: int) -> Node:
        """Return the unknown at a position of ``u``."""
        return VARIABLES, position

    def parameter(self, position: int) -> Node:
        """Return the parameter at a position of ``p``."""
        return PARAMETERS, position

    def add(self, values: Iterable[Scalar]) -> Scalar:
        """Return the sum of values."""
        terms: dict[Node, float] = {}
        constant = 0.0
        for value in values:
            if isinstance(value, Affine):
                constant += value.constant
                for node, coefficient in value.terms.items():
                    terms[node] = terms.get(node, 0.0) + coefficient
            elif isinstance(value, tuple):
                terms[value] = terms.get(value, 0.0) + 1.0
            else:
                constant += value
        return _simplest(terms, constant)

    def scale(self, factor: float, value: Scalar) -> Scalar:
        """Return a number times a value."""
        if isinstance(value, Affine):
            return _simplest({node: factor * c for node, c in value.terms.items()}, factor * value.constant)
        return _simplest({value: factor}, 0.0) if isinstance(value, tuple) else factor * value

    def multiply(self, left: Scalar, right: Scalar) -> Scalar:
        """Return the product of two values."""
        if not isinstance(left, Affine | tuple):
            return self.scale(left, right)
        if not isinstance(right, Affine | tuple):
            return self.scale(right, left)
        (a, left_node), (b, right_node) = self._monomial(left), self._monomial(right)
        if left_node == right_node:
            return self.scale(a * b, self.node("power", (left_node,), 2.0))
        return self.scale(a * b, self.node("multiply", tuple(sorted((left_node, right_node)))))

    def divide(self, left: Scalar, right: Scalar) -> Scalar:
        """Return the quotient of two values."""
        if not isinstance(right, Affine | tuple):
            return self.scale(1.0 / right, left)
        b, right_node = self._monomial(right)
        if not isinstance(left, Affine | tuple):
            return self.scale(left / b, self.node("power", (right_node,), -1.0))
        a, left_node = self._monomial(left)
        return self.scale(a / b, self.node("divide", (left_node, right_node)))

    def power(self, base: Scalar, exponent: Scalar) -> Scalar:
        """Return a value to the power of another."""
        if isinstance(exponent, Affine | tuple):
            if isinstance(base, Affine | tuple):
                return self.node("power of", (self.materialise(base), self.materialise(exponent)))
            return self.node("exponential", (self.materialise(exponent),), float(base))
        if not isinstance(base, Affine | tuple):
            return float(base**exponent)
        if exponent in (0.0, 1.0):
            return base if exponent else 1.0
        return self.node("power", (self.materialise(base),), float(exponent))

    def node(self, operation: str, operands: tuple[Node, ...], setting: float | None = None) -> Node:
        """Return an elementwise operation on nodes."""
        key = (operation, setting, operands)
        known = self._known.get(key)
        if known is None:
            kinds = tuple(g for g, _ in operands)
            group = self._kinds.get((operation, setting, kinds))
            if group is None:
                group = self._new_group(operation, setting, kinds)
            columns = self._groups[group].columns
            known = self._known[key] = (group, len(columns[0]))
            for column, (_, position) in zip(columns, operands, strict=True):
                column.append(position)
        return known

    def materialise(self, value: Scalar) -> Node:
        """Return a value as a node, computing the sum that it may be."""
        if isinstance(value, tuple):
            return value
        if not isinstance(value, Affine):
            return CONSTANTS, self._constants.setdefault(float(value), len(self._constants))
        key = (tuple(sorted(value.terms.items())), value.constant)
        known = self._known.get(key)
        if known is None:
            children = {g for g, _ in value.terms}
            rank = 1 + max((self._groups[g].rank for g in children), default=0)
            degree = max((self._groups[g].degree for g in children), default=0)
            group = self._kinds.get(("sum", rank, degree))
            if group is None:
                group = self._kinds["sum", rank, degree] = len(self._groups)
                self._groups.append(_Group("sum", None, (), rank, degree))
            known = self._known[key] = (group, len(self._groups[group].sums))
            self._groups[group].sums.append(value)
        return known

    def degree(self, value: Scalar) -> int:
        """Return the degree of a value in the variables, :data:`NONLINEAR` if that is more than 2 or none."""
        return max((self._groups[g].degree for g, _ in _affine(value).terms), default=0)

    def program(self, functions: Sequence[Scalar], variables: int) -> Program:
        """Return the program of these values, for a vector of so many variables."""
        rows = [_affine(value) for value in functions]
        needed = self._needed({g for row in rows for g, _ in row.terms})
        order = sorted(needed, key=lambda g: (self._groups[g].rank, self._groups[g].operation != "sum", g))
        return Program(
            constants=np.array(list(self._constants), dtype=np.float64),
            steps=tuple((g, self._step(self._groups[g], variables)) for g in order),
            result=self._sums(rows, variables),
            degrees=np.array([self.degree(row) for row in rows], np.int64),
        )

    def _monomial(self, value: Affine | Node) -> tuple[float, Node]:
        """Return a value as a coefficient times a node."""
        if isinstance(value, Affine) and len(value.terms) == 1 and value.constant == 0.0:
            ((node, coefficient),) = value.terms.items()
            return coefficient, node
        return 1.0, self.materialise(value)

    def _new_group(self, operation: str, setting: float | None, kinds: tuple[int, ...]) -> int:
        rank = max(self._groups[g].rank for g in kinds)
        degree = _degree(operation, setting, [self._groups[g].degree for g in kinds])
        group = self._kinds[operation, setting, kinds] = len(self._groups)
        self._groups.append(_Group(operation, setting, kinds, rank, degree))
        return group

    def _needed(self, wanted: set[int]) -> set[int]:
        found: set[int] = set()
        stack = list(wanted)
        while stack:
            group = stack.pop()
            if group not in found and group > CONSTANTS:
                found.add(group)
                stack.extend(self._groups[group].operands)
                stack.extend({g for row in self._groups[group].sums for g, _ in row.terms})
        return found

    def _step(self, group: _Group, variables: int) -> Elementwise | RowSums:
        if group.operation == "sum":
            return self._sums(group.sums, variables)
        operands = tuple(
            (g, self._index(g, column, variables)) for g, column in zip(group.operands, group.columns, strict=True)
        )
        return Elementwise(group.operation, group.setting, operands, len(group.columns[0]))

    def _index(self, group: int, column: list[int], variables: int) -> Index | None:
        """Return a column of positions, None when it is the whole of a group that is computed."""
        index = np.array(column, dtype=np.int64)
        whole = group != PARAMETERS and np.array_equal(index, np.arange(self._length(group, variables)))
        return None if whole else index

    def _length(self, group: int, variables: int) -> int:
        kind = self._groups[group]
        sizes = {VARIABLES: variables, CONSTANTS: len(self._constants)}
        if group in sizes:
            return sizes[group]
        return len(kind.sums) if kind.operation == "sum" else len(kind.columns[0])

    def _sums(self, rows: Sequence[Affine], variables: int) -> RowSums:
        nodes = [node for row in rows for node in row.terms]
        # the parameters, whose number is not known here, come last in the pool
        groups = tuple(sorted({g for g, _ in nodes}, key=lambda g: (g == PARAMETERS, g)))
        starts = np.cumsum([0, *(self._length(g, variables) for g in groups if g != PARAMETERS)])
        offsets = dict(zip(groups, starts.tolist(), strict=False))
        counts = [len(row.terms) for row in rows]
        return RowSums(
            groups=groups,
            index=np.array([offsets[g] + position for g, position in nodes], dtype=np.int64),
            coefficients=np.array([c for row in rows for c in row.terms.values()], dtype=np.float64),
            rows=np.repeat(np.arange(len(rows)), counts),
            constants=np.array([row.constant for row in rows], dtype=np.float64),
        )


def _affine(value: Scalar) -> Affine:
    if isinstance(value, Affine):
        return value
    return Affine({value: 1.0}) if isinstance(value, tuple) else Affine({}, float(value))


def _simplest(terms: dict[Node, float], constant: float) -> Scalar:
    """Return an affine sum, as a number or a node if it is no more than that."""
    kept = terms if all(terms.values()) else {node: c for node, c in terms.items() if c}
    if not kept:
        return constant
    if constant == 0.0 and len(kept) == 1:
        ((node, coefficient),) = kept.items()
        if coefficient == 1.0:
            return node
    return Affine(kept, constant)


def _degree(operation: str, setting: float | None, degrees: Sequence[int]) -> int:
    """Return the degree in ``u`` of an operation on operands of these degrees."""
    if not any(degrees):
        return 0
    total = NONLINEAR
    if operation == "multiply":
        total = sum(degrees)
    elif operation == "divide" and degrees[1] == 0:
        total = degrees[0]
    elif operation == "power" and setting == 2.0:
        total = 2 * degrees[0]
    return total if total <= 2 else NONLINEAR
