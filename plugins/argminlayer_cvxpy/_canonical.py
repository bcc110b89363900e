"""The cone program that CVXPY makes of a problem, with every entry an affine function of the parameters."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy import settings
from cvxpy.constraints import SOC, ExpCone, NonNeg, PowCone3D, SvecPSD, Zero
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver
from cvxpy.utilities.psd_utils import TriangleKind

import argminlayer as al


class _AnyCone(ConicSolver):  # type: ignore[misc]
    """What CVXPY is to prepare a problem for: all cones, quadratic objectives, and semidefinite blocks as our engine.

    It has no ``solve_via_data``: the data never reach a solver of CVXPY's.
    """

    MIP_CAPABLE = False
    SUPPORTED_CONSTRAINTS = (Zero, NonNeg, SOC, ExpCone, SvecPSD, PowCone3D)
    REQUIRES_CONSTR = False
    EXP_CONE_ORDER = (0, 1, 2)
    PSD_TRIANGLE_KIND = TriangleKind.LOWER
    PSD_SQRT2_SCALING = True

    def name(self) -> str:
        return "ARGMINLAYER"

    def import_solver(self) -> None:
        """Do nothing: there is no module."""

    def supports_quad_obj(self) -> bool:
        return True

    @classmethod
    def format_constraints(cls, problem: Any, exp_cone_order: Sequence[int]) -> Any:
        """Order the rows as cones have them.

        CVXPY's own way multiplies a matrix with a column for every pair of a variable and an entry of a parameter,
        which takes gigabytes for large parameters. Here rows are moved, entry by entry.
        """
        place, sign = _row_places(problem.constraints, exp_cone_order)
        tensor, m = sp.coo_array(problem.A), max(len(place), 1)
        row, column = (index.astype(np.int64) for index in tensor.coords)
        moved = (row // m) * m + place[row % m]
        formatted = copy.copy(problem)
        formatted.A = sp.coo_array((tensor.data * sign[row % m], (moved, column)), shape=tensor.shape)
        formatted.formatted = True
        return formatted

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parametrised program itself; numbers are for later."""
        _, data, inverse = self._prepare_data_and_inv_data(problem)
        return data, inverse

    def solve_via_data(self, *args: Any, **keywords: Any) -> Any:
        raise NotImplementedError

    def cite(self, data: Any) -> str:
        del data
        return ""


def _row_places(constraints: Sequence[Any], order: Sequence[int]) -> tuple[Any, Any]:
    """Return for each row, as CVXPY stacks them, its row among those of the cones, and its sign."""
    places, signs, start = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], 0
    for constraint in constraints:
        sizes = [argument.size for argument in constraint.args]
        if isinstance(constraint, SOC):
            cones, inside = sizes[0], sizes[1] // max(sizes[0], 1)
            first = (inside + 1) * np.arange(cones)
            parts = [first, (first[:, None] + 1 + np.arange(inside)).reshape(-1)]
        elif isinstance(constraint, ExpCone | PowCone3D):
            offsets = order if isinstance(constraint, ExpCone) else range(3)
            parts = [3 * np.arange(size) + offset for size, offset in zip(sizes, offsets, strict=True)]
        else:
            parts = [np.arange(sum(sizes))]
        places.append(start + np.concatenate(parts))
        signs.append(np.full(sum(sizes), -1.0 if isinstance(constraint, Zero) else 1.0))
        start += sum(sizes)
    return np.concatenate(places), np.concatenate(signs)


@dataclass(frozen=True, eq=False)
class Canonical:
    """A parametrised cone program as CVXPY leaves it.

    Attributes:
        program: CVXPY's ``ParamConeProg``, its rows in the order of :class:`argminlayer.Cones`.
        variables: for each variable of the problem, by id, the ids of those that stand for it in the program.
        parameters: the same for parameters.
        constraints: for each constraint of the problem, by id, that of the constraint that stands for it.
        logarithms: ids of parameters of the program that are logarithms of the problem's.
    """

    program: Any
    variables: dict[int, list[int]]
    parameters: dict[int, list[int]]
    constraints: dict[int, int]
    logarithms: frozenset[int]

    def pattern(self) -> tuple[al.ConePattern, "Rows"]:
        """Return the places of all entries, and the affine map from parameters to their values."""
        program = self.program
        n, m = program.x.size, program.constr_size
        P = _upper(_tensor(program.P, n * n), n) if program.P is not None else _Entries.none(_width(program))
        A = _Entries.of(_tensor(program.A, m * (n + 1)))
        q = sp.csr_array(program.q)
        inside = A.places < m * n
        matrix, right = A.select(inside), A.select(~inside)
        b = _spread(right.places - m * n, right.rows, m)
        pattern = al.ConePattern(
            n, self._cones(), P.places % n, P.places // n, matrix.places % max(m, 1), matrix.places // max(m, 1)
        )
        return pattern, Rows((P.rows, q[:n], -matrix.rows, b, q[n:]))

    def _cones(self) -> al.Cones:
        dims = self.program.cone_dims
        return al.Cones(dims.zero, dims.nonneg, tuple(dims.soc), tuple(dims.psd), dims.exp, tuple(dims.p3d))


@dataclass(frozen=True, eq=False)
class Rows:
    """Affine maps from the parameters to P, q, A, b and the constant of the objective.

    Attributes:
        blocks: a sparse matrix for each, (entries, parameters + 1); the last column is the constant part.
    """

    blocks: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class _Entries:
    """Entries of a matrix that are not identically zero: their places by columns, and their maps as rows."""

    places: np.ndarray[Any, Any]
    rows: Any

    @classmethod
    def of(cls, tensor: Any) -> "_Entries":
        places, position = np.unique(tensor.row, return_inverse=True)
        rows = sp.csr_array((tensor.data, (position, tensor.col)), shape=(len(places), tensor.shape[1]))
        return cls(places, rows)

    @classmethod
    def none(cls, width: int) -> "_Entries":
        return cls(np.zeros(0, dtype=np.int64), sp.csr_array((0, width)))

    def select(self, chosen: np.ndarray[Any, Any]) -> "_Entries":
        return _Entries(self.places[chosen], self.rows[chosen])


def canonicalise(problem: cp.Problem, gp: bool, backend: str | None = None) -> Canonical:
    """Return the cone program of a problem, quadratic objectives kept.

    Reductions are CVXPY's own, run once and without values of parameters.
    """
    # a problem of its own: CVXPY caches what it compiles in the problem, and the user's is not ours to change
    apart = cp.Problem(problem.objective, problem.constraints)
    with warnings.catch_warnings():
        # a reduction of CVXPY's asks sparse parameters for their value in a way that CVXPY itself warns of
        warnings.filterwarnings("ignore", "Reading from a sparse CVXPY expression", RuntimeWarning)
        data, chain, _ = apart.get_problem_data(
            _AnyCone(), gp=gp, enforce_dpp=True, canon_backend=backend or settings.COO_CANON_BACKEND
        )
    taken = chain.reductions[[type(r).__name__ for r in chain.reductions].index("Dgp2Dcp")] if gp else None
    return Canonical(
        data[settings.PARAM_PROB],
        chain.compose_var_id_map(),
        chain.compose_param_id_map(),
        chain.compose_constr_id_map(),
        frozenset() if taken is None else frozenset(new for ids in taken.param_id_map.values() for new in ids),
    )


def _width(program: Any) -> int:
    return int(program.q.shape[1])


def _tensor(tensor: Any, height: int) -> Any:
    """Return a parameter tensor as coordinates without zeros, its row indices wide enough to compute with."""
    coordinates = sp.coo_array(tensor, copy=True)
    coordinates.sum_duplicates()
    coordinates.eliminate_zeros()
    row, column = (index.astype(np.int64) for index in coordinates.coords)
    return sp.coo_array((coordinates.data, (row, column)), shape=(height, tensor.shape[1]))


def _upper(tensor: Any, n: int) -> _Entries:
    """Return the upper triangle of the symmetric part of a matrix."""
    row, column = tensor.row % n, tensor.row // n
    places = np.maximum(row, column) * n + np.minimum(row, column)
    halves = np.where(row == column, 1.0, 0.5) * tensor.data
    return _Entries.of(_tensor(sp.coo_array((halves, (places, tensor.col)), shape=tensor.shape), n * n))


def _spread(places: np.ndarray[Any, Any], rows: Any, height: int) -> Any:
    """Return rows at their places among rows of zeros."""
    coordinates = rows.tocoo()
    place = places[coordinates.row]
    return sp.csr_array((coordinates.data, (place, coordinates.col)), shape=(height, rows.shape[1]))
