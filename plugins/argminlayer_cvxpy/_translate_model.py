"""Models: the CVXPY problem of a recorded problem, built and checked once, and the values of its parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

import argminlayer as al

from ._affine import Affine
from ._arithmetic import Terms
from ._dcp import advice, describe
from ._numbers import Index, Numbers, Program
from ._terms import Term
from ._translate import ConvexBackend
from ._translate_write import Decision, Expression, Writer


@dataclass(frozen=True, eq=False)
class Model:
    """A CVXPY problem that is convex by the rules of disciplined convex programming, in parameters that keep it so.

    Attributes:
        problem: the CVXPY problem.
        variable: the variables, (n,).
        equality: the equalities, constraints whose rows follow each other.
        inequality: the inequalities, likewise.
        bounds: the bounds, each as a constraint with its variables and 1 for lower, -1 for upper, 0 for equal bounds.
        parameters: what its parameters are computed from.
        decisions: what an instance must agree with.
        program: computes numbers from the parameters of the algebra and the bounds.
    """

    problem: Any
    variable: Any
    equality: tuple[Any, ...]
    inequality: tuple[Any, ...]
    bounds: tuple[tuple[Any, Index, int], ...]
    parameters: tuple[tuple[Any, Numbers], ...]
    decisions: tuple[Decision, ...]
    program: Program

    def values(self, data: Tensor) -> list[Tensor]:
        """Return the values of every parameter, (instances, k) or (1, k), for data (instances, n_p + 2n)."""
        return self.program.run(data, [numbers for _, numbers in self.parameters])


@dataclass(frozen=True, eq=False)
class Refusal:
    """Why instances that agree with some decisions have no model."""

    reason: str
    decisions: tuple[Decision, ...]
    program: Program


Variant = Model | Refusal


def agreeing(variant: Variant, data: Tensor) -> Tensor:
    """Return which instances of the data a model, or a refusal, is about."""
    mask = torch.ones(len(data), dtype=torch.bool)
    values = variant.program.run(data, [decision.numbers for decision in variant.decisions])
    for decision, found in zip(variant.decisions, values, strict=True):
        mask = mask & decision.agrees(found)
    return mask


def data_of(problem: al.BoundProblem, algebra: al.algebra.Algebra) -> Tensor:
    """Return what models are computed from: values of the algebra, lower and upper bounds; (instances, n_p + 2n)."""
    bounds = (bound[algebra.instances] for bound in (problem.lower, problem.upper))
    return torch.cat([algebra.values, *bounds], dim=1).detach().cpu()


def build(problem: al.BoundProblem, algebra: al.algebra.Algebra, data: Tensor) -> Variant:
    """Build the model of an instance, and of all that agree with it in what was decided on the way.

    Args:
        problem: the problem.
        algebra: the algebra of this instance alone.
        data: (n_p + 2n).
    """
    writer = Writer(Program(data.numpy()), algebra.size)
    try:
        model = _Builder(problem, algebra, writer).model()
        _verify(problem, algebra, model, writer, data)
    except al.AlgebraError as error:
        return Refusal(str(error), tuple(writer.decisions), writer.program)
    return model


class _Builder:
    """Writes one problem."""

    def __init__(self, problem: al.BoundProblem, algebra: al.algebra.Algebra, writer: Writer):
        self.problem, self.algebra, self.writer = problem, algebra, writer
        self.terms = Terms(writer)

    def model(self) -> Model:
        """Return the model.

        Raises:
            AlgebraError: it is not convex, or not provably so.
        """
        algebra, writer, n = self.algebra, self.writer, self.algebra.size
        variables = Term(Affine.variables(writer.program, 0, n))
        count = algebra.values.shape[1]
        parameters = Term(Affine.of(writer.program.parameters.take(np.arange(count)))) if count else None
        written = al.algebra.interpret(algebra, ConvexBackend(self.terms), variables, parameters)
        self.written = written.values
        objective = cp.Minimize(self._objective(written.objective))
        equality = self._equality(written.equality)
        inequality = self._inequality(written.inequality)
        bounds = self._bounds()
        held = [constraint for constraint, _, _ in bounds]
        lifted = [block == expression for block, expression in writer.lifted]
        return Model(
            cp.Problem(objective, [*equality, *inequality, *held, *lifted]),
            writer.blocks[0][1],
            equality,
            inequality,
            tuple(bounds),
            tuple(writer.parameters),
            tuple(writer.decisions),
            writer.program,
        )

    def _objective(self, term: Term | None) -> Expression:
        if term is None or self.problem.problem.objective is None:
            return cp.sum(self._nothing(1))
        expression = self._expression("objective", term, objective=True)
        if not expression.is_convex():
            verb, other = ("maximised", "minimise") if self.problem.problem.maximize else ("minimised", "maximise")
            kind = "convex" if self.problem.problem.maximize else "concave"
            if expression.is_concave():
                raise self._error("objective", f"makes a {kind} function, which cannot be {verb}; {other} it")
            parts = " and ".join(dict.fromkeys(map(describe, expression.args)))
            raise self._error("objective", f"makes a sum of {parts} parts, which is neither: {advice('add')}")
        return cp.sum(expression + self._nothing(1))

    def _equality(self, term: Term | None) -> tuple[Any, ...]:
        if term is None:
            return ()
        if not term.is_affine:
            raise self._error(
                "equality",
                "makes an equality that is not affine, so that its solutions are no convex set; if it holds at the "
                "solution anyway, write it as an inequality (g(u) <= 0)",
            )
        return (self._present(term.affine) == 0,)

    def _inequality(self, term: Term | None) -> tuple[Any, ...]:
        if term is None:
            return ()
        expression = self._present(term.affine) if term.is_affine else self._expression("inequality", term)
        if expression.is_convex():
            return (expression <= 0,)
        rows = [self._expression("inequality", self.terms.take(term, np.array([row]))) for row in range(term.size)]
        for row, one in enumerate(rows):
            if not one.is_convex():
                raise self._error(
                    "inequality",
                    f"makes a {describe(one)} function of inequality {row}, which must be convex to be at most zero: "
                    "its feasible points are no convex set",
                )
        return tuple(one <= 0 for one in rows)

    def _expression(self, role: str, term: Term, objective: bool = False) -> Expression:
        try:
            return self.terms.expression(term, objective)
        except al.algebra.Unsupported as error:
            raise self._error(role, str(error)) from error

    def _present(self, affine: Affine) -> Expression:
        """Return an affine vector as an expression that is none of constants alone, which CVXPY would take apart."""
        expression = self.writer.affine(affine)
        if not affine.is_number:
            return expression
        return expression + self._nothing(affine.size)

    def _nothing(self, rows: int) -> Expression:
        """Return zeros that CVXPY takes for a function of the variables, which are then part of the problem."""
        return scipy.sparse.csr_array((rows, self.algebra.size)) @ self.writer.blocks[0][1]

    def _error(self, role: str, reason: str) -> al.AlgebraError:
        """Return an error at the line where the last operator of a function that is not affine was called."""
        curved = [
            operation
            for operation in self.algebra.operations
            if operation.location.role == role and self._is_curved(operation.outputs)
        ]
        # what the library itself does with a result has no line
        told = [operation for operation in curved if operation.location.line] or curved
        operation = told[0] if role == "equality" else told[-1]
        return al.AlgebraError(
            f"{operation.location}: the operator `{operation.name}` {reason}. Solvers that only evaluate the "
            "functions, such as those of the plugin 'scipy', take the problem as it is."
        )

    def _is_curved(self, outputs: Sequence[int | None]) -> bool:
        return any(i is not None and i in self.written and not self.written[i].is_affine for i in outputs)

    def _bounds(self) -> list[tuple[Any, Index, int]]:
        """Return the bounds as constraints; the model serves instances with the same ones finite, and equal."""
        writer, found = self.writer, list[tuple[Any, Index, int]]()
        lower, upper = writer.lower, writer.upper
        below, above = (np.isfinite(bound.sample) for bound in (lower, upper))
        fixed = below & (lower.sample == upper.sample)
        writer.decide(Decision(lower, "finite", below))
        writer.decide(Decision(upper, "finite", above))
        writer.decide(Decision(writer.program.concatenate([lower, upper]), "equal", fixed))
        for mask, bound, sense in ((fixed, lower, 0), (below & ~fixed, lower, 1), (above & ~fixed, upper, -1)):
            index = np.flatnonzero(mask)
            if not len(index):
                continue
            variables, number = writer.variables(index), writer.number(bound.take(index))
            constraint = variables == number if sense == 0 else sense * variables >= sense * number
            found.append((constraint, index, sense))
        return found


def _verify(problem: al.BoundProblem, algebra: al.algebra.Algebra, model: Model, writer: Writer, data: Tensor) -> None:
    """Compare the model with the torch functions at two points; where it has no value, its domain is smaller."""
    outputs = (model.problem.objective.args[0], *(_sides(part) for part in (model.equality, model.inequality)))
    absent = [index is None or algebra.shapes[index].numel() == 0 for index in algebra.outputs]

    def evaluate(z: Tensor, values: Tensor) -> list[Tensor]:
        whole = torch.cat([values, data[algebra.values.shape[1] :]])
        for (parameter, _), value in zip(model.parameters, model.values(whole[None]), strict=True):
            parameter.value = value.expand(1, parameter.size)[0].reshape(parameter.shape).numpy()
        model.variable.value = z.numpy()
        for block, expression in writer.lifted:
            block.value = expression.value
        replayed = algebra.replay(z, values)
        found = []
        for index, output, missing in zip(algebra.outputs, outputs, absent, strict=True):
            if missing or index is None:
                found.append(torch.zeros(0, dtype=torch.float64))
                continue
            with np.errstate(all="ignore"):
                value = torch.from_numpy(np.array(output.value, dtype=np.float64).reshape(-1))
            found.append(torch.where(value.isfinite(), value, replayed[index].reshape(-1)))
        return found

    al.algebra.verify(problem, algebra, evaluate)


def _sides(constraints: Sequence[Any]) -> Expression:
    """Return what must vanish, or must not be positive, as one vector."""
    return cp.hstack([constraint.args[0] for constraint in constraints]) if constraints else None
