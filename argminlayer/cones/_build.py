"""``al.cone_program``: cone programs from their arrays, differentiable in all of them."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._autodiff import entry
from .._backward import KKT, AbstractBackward
from .._errors import ProblemError, SignatureError
from .._solver import AbstractSolver
from ._call import argmin_cones
from ._pattern import Array, ConePattern, Cones
from ._program import ConeProgram


@entry
def cone_program(
    P: Any,
    q: Any,
    A: Any,
    b: Any,
    cones: Cones,
    *,
    solver: str | AbstractSolver | None = None,
    backward: AbstractBackward = KKT(),
    options: Mapping[str, Any] | None = None,
    throw: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the solutions of cone programs: variables, slacks and multipliers.

        minimise    1/2 x'Px + q'x
        subject to  A x + s = b,   s in K;

    the multipliers z lie in the dual cone, with ``P x + q + A'z = 0`` and ``s'z = 0``. Every array may be shared by the
    batch or not: leading dimensions broadcast. Sparse matrices, which the batch shares, stay sparse, and so do their
    gradients. The solution is differentiable in all arrays, in every mode of torch, twice.

    Args:
        P: (..., n, n), positive semidefinite; only its symmetric part counts. None for a linear objective.
        q: (..., n).
        A: (..., m, n).
        b: (..., m).
        cones: K, in the order of the rows.
        solver: as for :func:`argminlayer.solve`; one of cone programs.
        backward: :class:`argminlayer.KKT` with its policies.
        options: fields of the solver to replace.
        throw: raise when an instance fails; otherwise it is NaN, and so is its gradient where a cotangent reaches it.

    Returns:
        x (..., n), s (..., m) and z (..., m) in the dtype and on the device of the arrays.

    Raises:
        SolveFailed: an instance is infeasible, unbounded or was not solved (only with ``throw``).
        SignatureError: shapes do not fit each other or the cones.
        ProblemError: arrays of no use; with ``throw``, also NaN.
        SolverError: no solver of cone programs is installed.
        NotDifferentiable: raised by the backward pass where the derivative is not determined (only with ``throw``).

    Reference: Agrawal, Barratt, Boyd, Busseti and Moursi, *Differentiating through a cone program*, 2019.
    """
    problem, parameters = _stated(P, q, A, b, cones)
    found: Any = argmin_cones(problem, parameters, solver, None, backward, options, throw)
    x, z = found
    _, _, entries, side = parameters
    at = problem.pattern.places
    products = entries * x[..., at.A_columns.to(x.device)]
    moved = products.new_zeros(*products.shape[:-1], cones.rows).index_add(-1, at.A_rows.to(x.device), products)
    return x, side - moved, z


def _stated(P: Any, q: Any, A: Any, b: Any, cones: Cones) -> tuple[ConeProgram, tuple[Tensor, ...]]:
    """Return the program of some arrays, and the tensors that are its parameters.

    Raises:
        SignatureError: shapes that do not fit.
        ProblemError: a sparse matrix with leading dimensions.
    """
    q, A, b = (part if isinstance(part, Tensor) else torch.as_tensor(part) for part in (q, A, b))
    P = P if P is None or isinstance(P, Tensor) else torch.as_tensor(P)
    n, m = q.shape[-1] if q.ndim else 0, cones.rows
    for name, part, core in (("P", P, (n, n)), ("A", A, (m, n)), ("b", b, (m,))):
        if part is not None and part.shape[-len(core) :] != core:
            raise SignatureError(
                f"{name} has shape {tuple(part.shape)}, but q has {n} entries and the cones {m} rows, so that it must "
                f"end in {core}"
            )
    i, j, A_values = _entries("A", A)
    P_values = q.new_zeros(0)
    rows, columns = i[:0], j[:0]
    if P is not None:
        rows, columns, P_values = _entries("P", P)
        # what lies on both sides of the diagonal adds up above it
        P_values = P_values * torch.from_numpy(np.where(rows == columns, 1.0, 0.5)).to(P_values)
        rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
    if all(part is None or part.layout == torch.strided for part in (P, A)):
        pattern = _dense(n, cones, P is not None)
    else:
        pattern = ConePattern(n, cones, rows, columns, i, j)
    widths = (P_values.shape[-1], n, A_values.shape[-1], m)
    signature = ",".join(f"({width})" for width in widths) + f"->({n}),({m})"
    problem = ConeProgram(signature, pattern, _as_given, _both, multipliers=True, names=("P", "q", "A", "b"))
    return problem, (P_values, q, A_values, b)


@functools.lru_cache(maxsize=64)
def _dense(n: int, cones: Cones, quadratic: bool) -> ConePattern:
    """Return the pattern of dense matrices; for a quadratic objective with the entries of both triangles."""
    i, j = np.divmod(np.arange(n * n if quadratic else 0), max(n, 1))
    rows, columns = np.divmod(np.arange(cones.rows * n), max(n, 1))
    return ConePattern(n, cones, np.minimum(i, j), np.maximum(i, j), rows, columns)


def _entries(name: str, matrix: Tensor) -> tuple[Array, Array, Tensor]:
    """Return rows, columns and values (..., entries) of a matrix.

    Raises:
        ProblemError: a sparse matrix with leading dimensions.
    """
    if matrix.layout == torch.strided:
        height, width = matrix.shape[-2:]
        rows, columns = np.divmod(np.arange(height * width), max(width, 1))
        return rows, columns, matrix.flatten(-2)
    if matrix.ndim != 2:
        raise ProblemError(
            f"the sparse matrix {name} has shape {tuple(matrix.shape)}; the batch shares a sparse matrix, so that it "
            "must have two dimensions"
        )
    sparse = matrix.to_sparse_coo().coalesce()
    rows, columns = sparse.indices().numpy(force=True)
    return rows, columns, sparse.values()


def _as_given(P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return P, q, A, b


def _both(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return x, z
