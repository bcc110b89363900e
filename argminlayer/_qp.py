"""``al.qp``: quadratic programs from their arrays, differentiable in all of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ._argmin import argmin
from ._autodiff import entry
from ._backward import KKT, AbstractBackward
from ._qp_layer import read_blocks, shapes_of, solve_blocks
from ._quadratic import CORE, QuadraticProgram
from ._smoothing import Smoothing, smoothed
from ._solver import AbstractSolver


@entry
def qp(
    P: Any,
    q: Any,
    G: Any = None,
    h: Any = None,
    A: Any = None,
    b: Any = None,
    lower: Any = None,
    upper: Any = None,
    *,
    solver: str | AbstractSolver | None = None,
    backward: AbstractBackward = KKT(),
    options: Mapping[str, Any] | None = None,
    smoothing: Smoothing | None = None,
    throw: bool = True,
) -> Tensor:
    """Return the minimisers of quadratic programs, or with ``P=None`` of linear ones.

        minimise    1/2 u'Pu + q'u
        subject to  G u <= h,   A u = b,   lower <= u <= upper.

    Every array may be absent (None), shared by the batch or not: leading dimensions broadcast. The solution is
    differentiable in all of them, in every mode of torch, twice and more: one KKT system on the active rows is solved,
    by Schur complements where P is definite, with one factor for what the batch shares. A row that holds with equality
    counts as active even where its multiplier vanishes, and rows that depend on each other share their part of the
    derivative, which is that of least norm.

    Args:
        P: (..., n, n); only its symmetric part counts. Indefinite ones are left to solvers of smooth problems.
        q: (..., n).
        G: (..., m, n).
        h: (..., m), ``inf`` where a row is no constraint.
        A: (..., p, n).
        b: (..., p).
        lower: (..., n), ``-inf`` where there is no bound; or a number.
        upper: (..., n), ``inf`` where there is no bound; or a number.
        solver: as for :func:`argminlayer.solve`.
        backward: the backward rule; any but the default takes the way of general problems.
        options: fields of the solver to replace.
        smoothing: a term that makes linear programs differentiable in their costs, see :class:`Smoothing`.
        throw: raise when an instance fails; otherwise it is NaN, and so is its gradient where a cotangent reaches it.

    Returns:
        (..., n) in the dtype and on the device of the arrays.

    Raises:
        SolveFailed: an instance is infeasible, unbounded or was not solved (only with ``throw``).
        SignatureError: shapes do not fit.
        ProblemError: arrays of no use; with ``throw``, also NaN.
        SolverError: the solver is unknown, not installed, or convex where P is indefinite.
        NotDifferentiable: raised by the backward pass where the solution is not isolated (only with ``throw``).

    Reference: Amos and Kolter, *OptNet*, 2017, eqs. 6-8.
    """
    given = {k: v for k, v in zip(CORE, (P, q, G, h, A, b, lower, upper), strict=True) if v is not None}
    if smoothing is None:
        return _solved(given, solver, backward, options, throw)
    blocks, dtype = read_blocks(given)
    sizes, _ = shapes_of(blocks)

    def solve(changed: Mapping[str, Tensor]) -> Tensor:
        return _solved(changed, solver, backward, options, throw)

    return smoothed(smoothing, blocks, sizes[0], solve).to(dtype)


def _solved(
    given: Mapping[str, Any],
    solver: str | AbstractSolver | None,
    backward: AbstractBackward,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Tensor:
    """Return the solution by a solver of quadratic programs, or by any other where none serves."""
    if backward == KKT():
        found = solve_blocks(given, solver, options, throw)
        if found is not None:
            return found
    blocks = read_blocks(given)[0]
    shapes_of(blocks)
    problem = QuadraticProgram(**{name: name in blocks or None for name in CORE})
    ordered = [blocks[name] for name in problem.blocks.names]
    value: Tensor = argmin(  # type: ignore[assignment]
        problem, *ordered, solver=solver, backward=backward, options=options, throw=throw
    )
    return value.to(read_blocks(given)[1])
