"""Reading ``cvxpy.Problem``: checked, canonicalised once, its parameters the parameters of a cone program."""

from collections.abc import Iterable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch

import argminlayer as al

from ._attributes import Attributes
from ._canonical import Canonical, canonicalise
from ._data import Data
from ._parameters import Feature, ParameterMap
from ._places import recovery
from ._squares import Replaced, replace_squares

_DEMANDS = ("nonneg", "nonpos", "pos", "neg", "symmetric", "PSD", "NSD")
_SYMMETRIC = ("symmetric", "PSD", "NSD")


def read(
    problem: cp.Problem,
    parameters: Sequence[Any] | None,
    variables: Sequence[Any] | None,
    gp: bool = False,
    canon_backend: str | None = None,
    squares: bool = True,
) -> al.ConeProgram:
    """Return the cone program that a CVXPY problem stands for.

    Args:
        problem: follows the rules of disciplined parametrised programming; ``quad_form(x, P)`` with a PSD parameter P
            may stand in the objective.
        parameters: all parameters of the problem, in the order in which their values are passed; without it the order
            of ``problem.parameters()``.
        variables: variables of the problem and dual variables of its constraints; without it all of the former.
        gp: whether the problem is a geometric program.
        canon_backend: which of CVXPY's backends canonicalises, None for the one that is fastest with parameters.
        squares: whether variables that CVXPY brings in for the terms of a sum of squares are replaced by the terms
            again, wherever that makes the program smaller.

    Raises:
        ProblemError: what is given is not of the problem, or the problem is not one that can be read.
    """
    if not isinstance(problem, cp.Problem):
        raise al.ProblemError(f"the problem must be a cvxpy.Problem, not a {type(problem).__name__}")
    inputs = _inputs(problem, parameters)
    outputs = _outputs(problem, variables)
    _check_rules(problem, inputs, outputs, gp)
    canonical = canonicalise(problem, gp, canon_backend)
    recover = recovery(canonical, problem, outputs, gp)
    pattern, rows = canonical.pattern()
    found = Replaced(pattern, rows.blocks, (), *(np.arange(k) for k in (pattern.size, pattern.cones.rows)))
    if squares:
        found = replace_squares(pattern, rows.blocks, *recover.places())
    recover = recover.moved(found.columns, found.rows)
    return al.ConeProgram(
        f"{_dimensions(p.shape for p in inputs)}->{_dimensions(piece.shape for piece in recover.pieces)}",
        found.pattern,
        Data(_map(canonical, inputs, found.blocks), found.squares),
        recover,
        multipliers=recover.multipliers,
        maximize=isinstance(problem.objective, cp.Maximize),
        names=[p.name() for p in inputs],
    )


def _dimensions(shapes: Iterable[tuple[int, ...]]) -> str:
    return ",".join(f"({','.join(map(str, shape))})" for shape in shapes)


def _inputs(problem: cp.Problem, given: Sequence[Any] | None) -> list[cp.Parameter]:
    present = problem.parameters()
    if given is None:
        return list(present)
    if not isinstance(given, list | tuple):
        raise al.ProblemError(f"parameters must be a list or tuple of cp.Parameter, not a {type(given).__name__}")
    for position, parameter in enumerate(given):
        if not isinstance(parameter, cp.Parameter):
            raise al.ProblemError(f"parameters[{position}] is a {type(parameter).__name__}, not a cp.Parameter")
    ids = [p.id for p in given]
    strange = [p.name() for p in given if p.id not in {q.id for q in present}]
    missing = [p.name() for p in present if p.id not in ids]
    if strange or missing or len(set(ids)) < len(ids):
        told = [f"{', '.join(strange)} not in the problem"] if strange else []
        told += [f"{', '.join(missing)} missing"] if missing else []
        told += ["one given twice"] if len(set(ids)) < len(ids) else []
        raise al.ProblemError(
            f"parameters must be exactly those of the problem, {[p.name() for p in present]}: {'; '.join(told)}"
        )
    return list(given)


def _outputs(problem: cp.Problem, given: Sequence[Any] | None) -> list[cp.Variable]:
    if given is None:
        return list(problem.variables())
    if not isinstance(given, list | tuple):
        raise al.ProblemError(f"variables must be a list or tuple of cp.Variable, not a {type(given).__name__}")
    for position, variable in enumerate(given):
        if not isinstance(variable, cp.Variable):
            raise al.ProblemError(
                f"variables[{position}] is a {type(variable).__name__}, not a cp.Variable; dual variables are "
                "constraint.dual_variables[0]"
            )
    return list(given)


def _check_rules(problem: cp.Problem, inputs: list[cp.Parameter], outputs: list[cp.Variable], gp: bool) -> None:
    if not outputs:
        raise al.ProblemError("the problem has no variables to return; name some in `variables`")
    for leaf in (*problem.variables(), *inputs):
        if leaf.is_complex():
            raise al.ProblemError(
                f"{leaf.name()} is complex; state the problem with its real and imaginary parts, which have gradients"
            )
    if problem.is_mixed_integer():
        whole = [v.name() for v in problem.variables() if v.attributes["boolean"] or v.attributes["integer"]]
        raise al.ProblemError(
            f"{', '.join(whole) or 'a variable'} must be integer, so that the solution has no derivative; relax it to "
            "an interval"
        )
    # these rules imply those of convexity, which are looked at only for what to say
    if problem.is_dpp("dgp") if gp else problem.is_dpp("dcp", quad_form_dpp="qp"):
        return
    if gp and not problem.is_dgp():
        raise al.ProblemError("gp=True, but the problem is not a geometric program (problem.is_dgp() is False)")
    if not gp and not problem.is_dcp():
        hint = "; it is a geometric program: pass gp=True" if problem.is_dgp() else ""
        raise al.ProblemError(f"the problem is not convex by CVXPY's rules (problem.is_dcp() is False){hint}")
    raise al.ProblemError(
        "the problem must be DPP, disciplined in its parameters: products of parameters need a variable of their own, "
        "parameters in constraints stand in affine places, and quad_form(x, P) with a parameter P stands in the "
        "objective only; see https://www.cvxpy.org/tutorial/dpp/index.html"
    )


def _map(canonical: Canonical, inputs: list[cp.Parameter], blocks: tuple[Any, ...]) -> ParameterMap:
    """Return the affine map with columns for the entries of whole parameters, in the order of torch."""
    column, width = canonical.program.param_id_to_col, blocks[1].shape[1]
    features, selections = [], []
    for position, parameter in enumerate(inputs):
        for standing in sorted({*canonical.parameters.get(parameter.id, ()), parameter.id} & set(column)):
            logarithm = standing in canonical.logarithms
            features.append(Feature(position, logarithm, parameter.size))
            selections.append(_selection(parameter, column[standing], width, reduced=not logarithm))
    select = sp.hstack(selections, format="csr") if selections else sp.csr_array((width, 0))
    constants = tuple(torch.from_numpy(block[:, [width - 1]].toarray()[:, 0]) for block in blocks)
    return ParameterMap(
        tuple(features),
        tuple(_attributes(p) for p in inputs),
        tuple(sp.csr_array(block @ select) for block in blocks),
        constants,
    )


def _selection(parameter: cp.Parameter, start: int, height: int, reduced: bool) -> Any:
    """Return the matrix that takes the entries of a parameter, by rows, to the columns that CVXPY gives it.

    CVXPY keeps the upper triangle of a symmetric one, of which both entries have their half here: the gradient is
    symmetric, too.
    """
    places = np.arange(parameter.size).reshape(parameter.shape)
    if reduced and any(parameter.attributes[name] for name in _SYMMETRIC):
        rows, columns = np.triu_indices(parameter.shape[-1])
        chosen = [places[rows, columns], places[columns, rows]]
    elif reduced and parameter.attributes["diag"]:
        chosen = [places.diagonal()]
    elif reduced and parameter.sparse_idx is not None:
        chosen = [places[parameter.sparse_idx]]
    else:
        chosen = [places.ravel(order="F")]
    row = np.tile(start + np.arange(chosen[0].size), len(chosen))
    values = np.full(row.size, 1.0 / len(chosen))
    return sp.csr_array((values, (row, np.concatenate(chosen))), shape=(height, parameter.size))


def _attributes(parameter: cp.Parameter) -> Attributes:
    outside = None
    if parameter.attributes["diag"]:
        outside = ~np.eye(parameter.shape[0], dtype=bool)
    elif parameter.sparse_idx is not None:
        outside = np.ones(parameter.shape, dtype=bool)
        outside[parameter.sparse_idx] = False
    return Attributes(
        parameter.name(),
        len(parameter.shape),
        tuple(name for name in _DEMANDS if parameter.attributes[name]),
        outside,
        _bounds(parameter),
    )


def _bounds(parameter: cp.Parameter) -> tuple[Any, Any] | None:
    if parameter.bounds is None or any(isinstance(bound, cp.Expression) for bound in parameter.bounds):
        return None
    low, high = (b.toarray() if sp.issparse(b) else np.asarray(b, dtype=np.float64) for b in parameter.bounds)
    return low, high
