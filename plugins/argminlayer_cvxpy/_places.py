"""Where the variables and dual variables of a CVXPY problem stand in the vectors of its cone program."""

from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints import SOC, ExpCone, PowCone3D

import argminlayer as al

from ._canonical import Canonical
from ._recover import Piece, Recovery

_SYMMETRIC = ("symmetric", "PSD", "NSD")
Array = np.ndarray[Any, Any]


def recovery(canonical: Canonical, problem: cp.Problem, variables: list[cp.Variable], gp: bool) -> Recovery:
    """Return how variables and dual variables of constraints are read off a solution.

    Raises:
        ProblemError: a variable that is not of the problem, or a dual variable that has no place of its own.
    """
    primal = {variable.id for variable in problem.variables()}
    duals = {
        dual.id: (constraint, k)
        for constraint in problem.constraints
        for k, dual in enumerate(constraint.dual_variables)
    }
    pieces = []
    for position, variable in enumerate(variables):
        if variable.id in primal:
            pieces.append(_primal(canonical, variable, gp))
        elif variable.id in duals:
            pieces.append(_dual(canonical, *duals[variable.id]))
        else:
            raise al.ProblemError(
                f"variables[{position}] ({variable.name()!r}) is neither a variable of the problem nor a dual variable "
                f"of one of its constraints; variables: {', '.join(v.name() for v in problem.variables())}"
            )
    return Recovery(tuple(pieces))


def _primal(canonical: Canonical, variable: cp.Variable, gp: bool) -> Piece:
    standing = canonical.variables.get(variable.id, [variable.id])
    start = canonical.program.var_id_to_col[standing[0]]
    if variable.sparse_idx is not None:
        index, there = np.zeros(variable.shape, dtype=np.int64), np.zeros(variable.shape)
        index[variable.sparse_idx] = start + np.arange(len(variable.sparse_idx[0]))
        there[variable.sparse_idx] = 1.0
        return Piece.of(False, index, there)
    if variable.attributes["diag"]:
        return Piece.of(False, start + np.diag(np.arange(variable.shape[0])), np.eye(variable.shape[0]))
    if any(variable.attributes[name] for name in _SYMMETRIC):
        return Piece.of(False, start + _symmetric(variable))
    return Piece.of(False, start + _by_columns(variable.shape), exponential=gp)


def _by_columns(shape: tuple[int, ...]) -> Array:
    """Return the position of each entry of an array that is stored by columns."""
    return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape, order="F")


def _symmetric(variable: cp.Variable) -> Array:
    """Return the position of each entry among those of the upper triangles of a stack of matrices."""
    n, stack = variable.shape[-1], variable.shape[:-2]
    rows, columns = np.triu_indices(n)
    entries = np.arange(int(np.prod(stack, dtype=np.int64)) * len(rows)).reshape((*stack, len(rows)), order="F")
    index = np.zeros(variable.shape, dtype=np.int64)
    index[..., rows, columns] = entries
    index[..., columns, rows] = entries
    return index


def _dual(canonical: Canonical, constraint: Any, which: int) -> Piece:
    start = _first_row(canonical, constraint)
    shape = constraint.dual_variables[which].shape
    if isinstance(constraint, cp.constraints.PSD) and len(constraint.args[0].shape) == 2:
        index, scale = _triangle(constraint.args[0].shape[0])
        return Piece.of(True, start + index, scale)
    if isinstance(constraint, SOC):
        return Piece.of(True, start + _second_order(constraint, which, shape))
    if isinstance(constraint, ExpCone | PowCone3D):
        return Piece.of(True, start + 3 * _by_columns(shape) + which)
    if len(constraint.dual_variables) == 1 and isinstance(
        constraint, cp.constraints.Equality | cp.constraints.Inequality | cp.constraints.Zero | cp.constraints.NonNeg
    ):
        return Piece.of(True, start + _by_columns(shape))
    raise al.ProblemError(
        f"the dual variables of {type(constraint).__name__} constraints cannot be returned; write the constraint as an "
        "equality, an inequality, `>>`, cp.SOC, cp.ExpCone or cp.PowCone3D"
    )


def _first_row(canonical: Canonical, constraint: Any) -> int:
    standing = canonical.constraints.get(constraint.id, constraint.id)
    row = 0
    for candidate in canonical.program.constraints:
        if candidate.id == standing:
            return row
        row += sum(argument.size for argument in candidate.args)
    raise al.ProblemError(
        f"the constraint {constraint} leaves no rows in the cone program, so that it has no dual variables there; "
        "leave them out of `variables`"
    )


def _second_order(constraint: Any, which: int, shape: tuple[int, ...]) -> Array:
    """Return places in cones (t, x) one after another, for t or for x."""
    size = int(constraint.cone_sizes()[0])
    cones = size * np.arange(constraint.num_cones())
    if which == 0:
        return cones.reshape(shape)
    inside = cones[:, None] + np.arange(1, size)
    return (inside if constraint.axis == 1 else inside.T).reshape(shape)


def _triangle(n: int) -> tuple[Array, Array]:
    """Return places and scales of a symmetric matrix in its lower triangle by columns, as the solution has it."""
    columns, rows = np.triu_indices(n)
    index = np.zeros((n, n), dtype=np.int64)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    return index, np.where(np.eye(n, dtype=bool), 1.0, np.sqrt(0.5))
