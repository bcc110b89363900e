"""Writing expressions of CVXPY: affine vectors as DPP parameters times variables, and what was decided on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse
import torch
from cvxpy.atoms.affine.wraps import nonneg_wrap
from torch import Tensor

from ._affine import Affine
from ._numbers import Index, Numbers, Program

Expression = Any
"""A CVXPY expression; CVXPY publishes no types."""
POSITIVE, NEGATIVE, MIXED = 1, -1, 0
FAR = 1e300
"""What stands for an infinite bound in sums."""


@dataclass(frozen=True, eq=False)
class Decision:
    """What an instance must agree with to be served by a model.

    Attributes:
        numbers: what was looked at.
        kind: ``"sign"``: all are nonnegative, all are nonpositive, or neither; ``"finite"``: which are finite;
            ``"equal"``: which of the first half equal those of the second half.
        outcome: what was found for the instance the model was built for.
    """

    numbers: Numbers
    kind: str
    outcome: Any

    def agrees(self, values: Tensor) -> Tensor:
        """Return the instances of ``values`` (instances, k) that agree."""
        if self.kind == "sign":
            positive, negative = (values >= 0).all(1), (values <= 0).all(1)
            return {POSITIVE: positive, NEGATIVE: negative & ~positive, MIXED: ~positive & ~negative}[self.outcome]
        half = values.shape[1] // 2
        found = values.isfinite() if self.kind == "finite" else values[:, :half] == values[:, half:]
        return (found == torch.from_numpy(self.outcome)).all(1)


class Writer:
    """Variables, parameters and constraints of a CVXPY problem while it is written.

    Args:
        program: the numbers; its parameters are those of the algebra, then lower and upper bounds (n each).
        size: number of variables, n.
    """

    def __init__(self, program: Program, size: int):
        self.program, self.size = program, size
        self.blocks: list[tuple[int, Any]] = [(0, cp.Variable(size))]
        self.width = size
        self.parameters: list[tuple[Any, Numbers]] = []
        self.decisions: list[Decision] = []
        self.lifted: list[tuple[Any, Expression]] = []
        first = program.parameters.size - 2 * size
        self.lower, self.upper = (program.parameters.take(first + k * size + np.arange(size)) for k in (0, 1))
        self._written: dict[Any, Expression] = {}

    # Decisions

    def sign(self, numbers: Numbers) -> int:
        """Return the sign of numbers, all of them; instances where it differs get another model."""
        sample = numbers.sample
        found = POSITIVE if sample.min(initial=0.0) >= 0 else NEGATIVE if sample.max(initial=0.0) <= 0 else MIXED
        self.decide(Decision(numbers, "sign", found))
        return found

    def decide(self, decision: Decision) -> None:
        """Note a decision; one on constants holds for every instance."""
        if decision.numbers.constant is None:
            self.decisions.append(decision)

    def is_nonnegative(self, affine: Affine) -> bool:
        """Say whether bounds on the variables keep a vector from being negative."""
        return self.sign(self._extreme(affine)) == POSITIVE if (affine.columns < self.size).all() else False

    def _extreme(self, affine: Affine) -> Numbers:
        """Return the least that every entry can be within the bounds, at most 0 where it is not finite."""
        columns, rows, size = affine.columns, affine.rows, affine.size
        where, targets = torch.from_numpy(columns), torch.from_numpy(rows)

        def least(coefficients: Tensor, offset: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
            terms = coefficients * torch.where(coefficients > 0, lower[:, where], upper[:, where])
            terms = torch.where(coefficients == 0, 0.0, terms).clamp(-FAR, FAR)
            return terms.new_zeros(terms.shape[0], size).index_add(1, targets, terms) + offset

        inputs = (affine.coefficients, affine.offset, self.lower, self.upper)
        return self.program.apply(("least", rows.tobytes(), columns.tobytes(), size), least, inputs, size)

    # Numbers and affine vectors

    def number(self, numbers: Numbers, sign: int = MIXED, shape: tuple[int, ...] | None = None) -> Any:
        """Return numbers as a constant, or as a parameter with the sign declared.

        Args:
            numbers: the values.
            sign: what is known of all of them.
            shape: shape of the result, filled in the order of CVXPY, column by column.
        """
        shape = (numbers.size,) if shape is None else shape
        if numbers.constant is not None:
            return cp.Constant(numbers.constant.reshape(shape, order="F"))
        key = (numbers.step, sign, shape)
        found = self._written.get(key)
        if found is None:
            parameter = cp.Parameter(numbers.size, nonneg=sign == POSITIVE, nonpos=sign == NEGATIVE)
            self.parameters.append((parameter, numbers))
            found = parameter if shape == (numbers.size,) else cp.reshape(parameter, shape, order="F")
            self._written[key] = found
        return found

    def semidefinite(self, matrix: Numbers, n: int) -> Expression:
        """Return a symmetric matrix (n n) as a positive semidefinite parameter."""
        parameter = cp.Parameter((n, n), PSD=True)
        self.parameters.append((parameter, matrix))
        return parameter

    def affine(self, affine: Affine) -> Expression:
        """Return an affine vector as an expression; the same one for equal vectors."""
        key = affine.identity
        found = self._written.get(key)
        if found is None:
            found = self._written[key] = self._affine(affine)
        return found

    def _affine(self, affine: Affine) -> Expression:
        if affine.is_number:
            return self.number(affine.offset)
        linear = self._linear(affine)
        return linear if affine.offset.is_constant(0.0) else linear + self.number(affine.offset)

    def _linear(self, affine: Affine) -> Expression:
        columns, where = np.unique(affine.columns, return_inverse=True)
        picked = self.variables(columns)
        constant, shape = affine.coefficients.constant, (affine.size, len(columns))
        if constant is not None:
            matrix = scipy.sparse.csr_array((constant, (affine.rows, where)), shape)
            if shape[0] == shape[1] and (matrix - scipy.sparse.eye_array(shape[0])).nnz == 0:
                return picked
            return matrix @ picked
        place = where * affine.size + affine.rows
        order = np.argsort(place)
        entries = affine.coefficients.take(order)
        if len(order) == affine.size * len(columns):
            return self.number(entries, shape=shape) @ picked
        scatter = scipy.sparse.csc_array(
            (np.ones(len(order)), (place[order], np.arange(len(order)))), (affine.size * len(columns), len(order))
        )
        return cp.reshape(scatter @ self.number(entries), shape, order="F") @ picked

    def variables(self, columns: Index) -> Expression:
        """Return some variables, by increasing column, as a vector."""
        parts = []
        for first, block in self.blocks:
            here = columns[(columns >= first) & (columns < first + block.size)] - first
            if len(here):
                parts.append(block if len(here) == block.size else block[here])
        return parts[0] if len(parts) == 1 else cp.hstack(parts)

    def signed(self, affine: Affine) -> Expression:
        """Return an affine vector as an expression that is known to be nonnegative, where bounds make it so."""
        expression = self.affine(affine)
        if not expression.is_nonneg() and self.is_nonnegative(affine):
            return nonneg_wrap(expression)
        return expression

    def lift(self, affine: Affine) -> Affine:
        """Return new variables that equal an affine vector: where products with it would be large."""
        block = cp.Variable(affine.size)
        self.lifted.append((block, self.affine(affine)))
        self.blocks.append((self.width, block))
        self.width += affine.size
        return Affine.variables(self.program, self.width - affine.size, affine.size)


def rows_of(expression: Expression, rows: int, columns: int) -> Expression:
    """Return a vector as a matrix filled row by row."""
    return cp.reshape(expression, (rows, columns), order="C")


def flat(expressions: Sequence[Expression]) -> Expression:
    """Return vectors one after the other."""
    return expressions[0] if len(expressions) == 1 else cp.hstack(list(expressions))
