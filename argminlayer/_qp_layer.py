"""The short way of quadratic programs: read the blocks, choose a solver of the class, solve, certify, differentiate."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._autodiff import entry
from ._errors import ProblemError, SignatureError, SolveFailed, SolverError
from ._qp_backward import QuadraticTask, Record, quadratic_argmin
from ._qp_form import Array, QuadraticForm
from ._qp_report import not_finite_message, solution_of
from ._qp_search import (
    QuadraticFound,
    choose_quadratic,
    missing,
    quadratic_family,
    search_apart,
    search_quadratic,
)
from ._qp_solver import AbstractQuadraticSolver, indefinite_reason
from ._qp_sparse import is_large_and_sparse, solve_sparse
from ._quadratic import CORE, QuadraticProgram
from ._select import AUTO, FALLBACKS, requested, with_options
from ._solution import Status, failure_text
from ._solver import AbstractSolver


class _LeftToOthers(Exception):
    """Automatic choice leaves programs that are not convex to solvers of smooth problems."""


def solve_blocks(
    given: Mapping[str, Any],
    solver: str | AbstractSolver | None,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Tensor | None:
    """Return the minimisers, or None when no solver of quadratic programs serves the request.

    Args:
        given: the blocks that are present, tensors or what becomes one, with any leading dimensions.
        solver: as for :func:`argminlayer.solve`.
        options: fields of the solver to replace.
        throw: raise when an instance fails; otherwise it is NaN.
    """
    family = quadratic_family(solver)
    if not family:
        return None
    if is_large_and_sparse(given):
        return _solve_large(given, family, options, throw)
    blocks, dtype = read_blocks(given)
    sizes, batch_shape = shapes_of(blocks)
    if batch_shape.numel() == 0:
        nothing = torch.stack([block.sum() * 0.0 for block in blocks.values()]).sum()
        return (nothing + nothing.new_zeros(*batch_shape, sizes[0])).to(dtype)
    call = _Call(family, options, throw, batch_shape, tuple(blocks), requested(solver) == AUTO)
    bounded = "lower" in blocks or "upper" in blocks
    try:
        value = quadratic_argmin(QuadraticTask(call, batch_shape, throw, sizes, bounded, Record()), blocks)
    except _LeftToOthers:
        return None
    return value if dtype == torch.float64 else value.to(dtype)


def _solve_large(
    given: Mapping[str, Any],
    family: tuple[AbstractQuadraticSolver, ...],
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Tensor:
    """Solve with matrices that stay sparse.

    Raises:
        SolverError: none of the solvers takes sparse matrices.
    """
    blocks, dtype = read_blocks(given, dense=False)
    shapes_of(blocks)
    chain = sorted((s for s in family if s.takes_sparse and not missing(s)), key=lambda s: -s.takes_sparse)
    if not chain:
        raise SolverError(
            f"solver {family[0].name!r} takes dense matrices only; pass `.to_dense()`, or use 'qp.clarabel', 'qp.piqp' "
            "or 'qp.osqp'"
        )
    chosen = (with_options(chain[0], options),) if options or len(chain) == 1 else tuple(chain[: FALLBACKS + 1])
    return solve_sparse(blocks, chosen, throw).to(dtype)


@entry
def argmin_quadratic(
    problem: QuadraticProgram,
    parameters: tuple[Any, ...],
    solver: str | AbstractSolver | None,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Tensor | None:
    """Return the minimisers of a problem, or None when no solver of quadratic programs serves the request."""
    blocks = problem.blocks
    if len(parameters) != len(blocks.names):
        return None
    return solve_blocks(blocks.fill_like(parameters), solver, options, throw)


@dataclass(frozen=True)
class _Call:
    """How the programs of one call are solved."""

    family: tuple[AbstractQuadraticSolver, ...]
    options: Mapping[str, Any] | None
    throw: bool
    batch_shape: torch.Size
    names: tuple[str, ...]
    automatic: bool

    def __call__(self, form: QuadraticForm) -> QuadraticFound:
        """Solve a form whose batch may have grown under ``torch.vmap``."""
        with np.errstate(all="ignore"):
            indefinite = None if form.definite.all() else form.indefinite()
            if indefinite is None or not indefinite.any():
                found = search_quadratic(form, choose_quadratic(form, self.family, self.options))
            else:
                found = self._apart(form, indefinite)
        if found.status.any():
            found = self._failed(form, found)
        return found

    def _apart(self, form: QuadraticForm, indefinite: Array) -> QuadraticFound:
        """Leave out what is not convex, where that is asked for."""
        if self.automatic:
            raise _LeftToOthers
        if self.throw:
            raise SolverError(f"solver {self.family[0].name!r} {indefinite_reason(form)}")
        usable = ~indefinite & np.ones(form.batch, dtype=bool)
        return search_apart(form, usable, lambda part: choose_quadratic(part, self.family, self.options))

    def _failed(self, form: QuadraticForm, found: QuadraticFound) -> QuadraticFound:
        """Say which failures are due to numbers that are not finite; raise if that is asked for."""
        finite = form.finite()
        shape = self.batch_shape if form.batch == self.batch_shape.numel() else torch.Size([form.batch])
        if not self.throw:
            return found._replace(status=np.where(finite, found.status, int(Status.NOT_FINITE)))
        if not finite.all():
            raise ProblemError(not_finite_message(form, shape))
        solution = solution_of(form, found, shape)
        raise SolveFailed(
            failure_text(solution.ok, solution.status, solution.certificate, found.solver, found.messages), solution
        )


def read_blocks(given: Mapping[str, Any], dense: bool = True) -> tuple[dict[str, Tensor], torch.dtype]:
    """Return the blocks as float64 tensors of one device, sparse ones dense if asked for, and the dtype they had.

    Raises:
        ProblemError: not convertible, mixed dtypes or devices, complex.
    """
    first = next((v for v in given.values() if isinstance(v, Tensor)), None)
    blocks: dict[str, Tensor] = {}
    dtype, plain = None, True
    for name, value in given.items():
        tensor = value if isinstance(value, Tensor) else _converted(name, value, first)
        if not tensor.is_floating_point():
            raise ProblemError(
                f"block {name!r} has dtype {str(tensor.dtype).removeprefix('torch.')}; floats are needed"
            )
        if dense and tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        dtype = tensor.dtype if dtype is None else dtype
        plain = plain and tensor.dtype == torch.float64
        blocks[name] = tensor
    if plain:
        return blocks, torch.float64
    if len({t.dtype for t in blocks.values()}) > 1:
        listing = ", ".join(f"{k}: {t.dtype}" for k, t in blocks.items())
        raise ProblemError(f"the blocks have different dtypes ({listing}); convert them so that all agree")
    assert dtype is not None
    return {name: tensor.to(torch.float64) for name, tensor in blocks.items()}, dtype


def _converted(name: str, value: Any, like: Tensor | None) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProblemError(
            f"block {name!r} must be a tensor or an array, not of type {type(value).__name__}"
        ) from error
    if like is not None:
        return tensor.to(like)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def shapes_of(blocks: dict[str, Tensor]) -> tuple[tuple[int, int, int], torch.Size]:
    """Return the sizes n, p and m and the batch shape; bounds that are numbers become vectors in ``blocks``.

    Raises:
        ProblemError: a matrix without its right-hand side, or no block that tells n.
        SignatureError: shapes that do not fit.
    """
    sizes, lead = _shapes_of(tuple((name, block.shape) for name, block in blocks.items()))
    for name in ("lower", "upper"):
        if name in blocks and blocks[name].ndim == 0:
            blocks[name] = blocks[name].expand(sizes[0])
    return sizes, lead


Shapes = tuple[tuple[str, torch.Size], ...]
"""Names of blocks with their shapes."""


@functools.lru_cache(maxsize=256)
def _shapes_of(blocks: Shapes) -> tuple[tuple[int, int, int], torch.Size]:
    """Return the sizes and the batch shape, looked up where the shapes are those of an earlier call."""
    names = {name for name, _ in blocks}
    for matrix, side in (("G", "h"), ("A", "b")):
        if (matrix in names) != (side in names):
            there, missing = (matrix, side) if matrix in names else (side, matrix)
            raise ProblemError(f"{there} is given without {missing}; give both, or neither")
    sizes: dict[str, int] = {}
    lead = torch.Size()
    for name, shape in blocks:
        dims = CORE[name]
        depth = len(shape) - len(dims)
        if depth < 0:
            if len(shape) == 0 and name in ("lower", "upper"):
                continue
            raise SignatureError(
                f"block {name!r} has shape {tuple(shape)}, but needs the dimensions ({', '.join(dims)}); leading "
                "dimensions before them are the batch"
            )
        for dim, size in zip(dims, shape[depth:], strict=True):
            if sizes.setdefault(dim, size) != size:
                raise SignatureError(
                    f"block {name!r} has shape {tuple(shape)}, so {dim} is {size}, but another block has "
                    f"{dim} = {sizes[dim]}; the blocks are {_listing(blocks)}"
                )
        lead = _broadcast(lead, shape[:depth], blocks)
    if "n" not in sizes:
        raise ProblemError("a quadratic program needs at least one of P, q, G and A")
    return (sizes["n"], sizes.get("p", 0), sizes.get("m", 0)), lead


def _broadcast(one: torch.Size, other: torch.Size, blocks: Shapes) -> torch.Size:
    try:
        shape: torch.Size = torch.broadcast_shapes(one, other)
    except RuntimeError as error:
        raise SignatureError(
            f"the leading (batch) dimensions of the blocks do not broadcast: {_listing(blocks)}"
        ) from error
    return shape


def _listing(blocks: Shapes) -> str:
    return ", ".join(f"{name}: {tuple(shape)}" for name, shape in blocks)
