"""Large sparse quadratic programs: matrices stay sparse from the caller through the back end to the gradient.

SciPy, which torch cannot replace here, is imported where a sparse program is met, and nowhere else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._errors import NotDifferentiable, ProblemError, SolveFailed, SolverError
from ._qp_certificate import EXACT, Residuals, scaled
from ._qp_form import Array
from ._qp_report import solution_of
from ._qp_search import SOLVED, QuadraticFound, why_unsolved
from ._qp_sparse_program import SparseProgram, SparsePrograms
from ._solution import Status, failure_text

SIZE = 200
"""From this many variables on sparse matrices are kept sparse; smaller ones are solved faster as dense ones."""
FINE = 1e-9
"""An answer whose residual exceeds this is refined by Newton steps on its active rows."""
DIAGONAL = 1e-9
"""Relative size of the diagonal that makes a KKT matrix quasi-definite, whose effect refinement removes."""
RESOLVED = 1e-8
"""Relative residual of a KKT system above which its right-hand side is out of reach: there is no derivative."""


class _Judged(NamedTuple):
    """A point with multipliers, what was measured there as a batch of one, and its status.

    The sides (s,) of the active rows are 1 at the high side and -1 at the low one, 0 for rows that are not active.
    """

    u: Array
    y: Array
    residuals: Residuals
    side: Array
    status: Status = Status.SOLVED
    message: str = ""
    solver: str = ""

    @property
    def worst(self) -> float:
        """The largest residual, infinite where something is not finite."""
        return float(self.residuals.worst[0])


def is_large_and_sparse(blocks: Mapping[str, Any]) -> bool:
    """Return whether the matrices of a program are to be kept sparse."""
    matrices = [blocks[name] for name in "PGA" if name in blocks]
    if not all(isinstance(block, Tensor) and block.ndim == 2 for block in matrices):
        return False
    return any(t.layout != torch.strided and t.shape[-1] >= SIZE for t in matrices)


def solve_sparse(blocks: Mapping[str, Tensor], chain: tuple[Any, ...], throw: bool) -> Tensor:
    """Return the minimisers (*batch, n); matrices are shared by the batch, vectors may have leading dimensions.

    Args:
        blocks: float64, matrices sparse or dense, vectors with leading dimensions that broadcast.
        chain: the solvers to try in turn, each with ``solve_sparse``.
        throw: raise when an instance fails; otherwise it is NaN.
    """
    coo = {name: blocks[name].to_sparse_coo().coalesce() for name in "PGA" if name in blocks}
    places = {name: matrix.indices().numpy(force=True) for name, matrix in coo.items()}
    shapes = {name: tuple(matrix.shape) for name, matrix in coo.items()}
    vectors = {name: block for name, block in blocks.items() if name not in "PGA"}
    batch = torch.broadcast_shapes(*(block.shape[:-1] for block in vectors.values()))
    task = _Task(chain, throw, places, shapes, tuple(vectors), batch)
    wide = [block.expand(batch + block.shape[-1:]).reshape(-1, block.shape[-1]) for block in vectors.values()]
    value: Tensor = _Sparse.apply(task, *(m.values() for m in coo.values()), *wide)  # type: ignore[no-untyped-call]
    return value.reshape(batch + value.shape[-1:])


class _Task(NamedTuple):
    """One call without its tensors: solvers, patterns of the matrices, and names of the vectors."""

    chain: tuple[Any, ...]
    throw: bool
    places: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    vectors: tuple[str, ...]
    batch: torch.Size

    def programs(self, tensors: tuple[Tensor, ...]) -> list[SparseProgram]:
        """Return the programs of the batch; they share their matrices."""
        from scipy.sparse import coo_array, csc_array, vstack

        arrays = [t.numpy(force=True) for t in tensors]
        count = len(self.places)
        matrices = {
            name: csc_array(coo_array((values, tuple(self.places[name])), self.shapes[name]))
            for name, values in zip(self.places, arrays[:count], strict=True)
        }
        vectors = dict(zip(self.vectors, arrays[count:], strict=True))
        n = next(shape[1] for shape in self.shapes.values())
        P = matrices.get("P", csc_array((n, n)))
        stacked = [matrices[name] for name in "AG" if name in matrices]
        rows = csc_array(vstack(stacked)) if stacked else csc_array((0, n))
        batch = self.batch.numel()
        return [
            SparseProgram(
                csc_array(0.5 * (P + P.T)),
                vectors["q"][i] if "q" in vectors else np.zeros(n),
                rows,
                *_sides({name: vector[i] for name, vector in vectors.items()}, n),
                self.shapes["A"][0] if "A" in self.shapes else 0,
                "lower" in vectors or "upper" in vectors,
            )
            for i in range(batch)
        ]


def _sides(vectors: Mapping[str, Array], n: int) -> tuple[Array, Array]:
    low, high = [], []
    if "lower" in vectors or "upper" in vectors:
        low.append(vectors.get("lower", np.full(n, -np.inf)))
        high.append(vectors.get("upper", np.full(n, np.inf)))
    if "b" in vectors:
        low.append(vectors["b"])
        high.append(vectors["b"])
    if "h" in vectors:
        low.append(np.full(len(vectors["h"]), -np.inf))
        high.append(vectors["h"])
    return (np.concatenate(low), np.concatenate(high)) if low else (np.zeros(0), np.zeros(0))


class _Sparse(torch.autograd.Function):
    """Entries of the matrices and vectors to the minimisers, differentiable once."""

    @staticmethod
    def forward(ctx: Any, task: _Task, *tensors: Tensor) -> Tensor:
        programs = task.programs(tensors)
        refused = _refusal(programs[0], task) if programs else Status.SOLVED
        found = [_solved(program, task.chain, refused) for program in programs]
        if task.throw and any(each.status for each in found):
            _raise(programs, found, task)
        ctx.task, ctx.programs = task, programs
        ctx.found = [None if each.status else each for each in found]
        ctx.save_for_backward(*tensors)
        value = np.stack([np.full_like(each.u, np.nan) if each.status else each.u for each in found])
        return torch.from_numpy(value).to(tensors[0].device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, u_bar: Tensor) -> tuple[Tensor | None, ...]:
        task, tensors = ctx.task, ctx.saved_tensors
        gradients = [np.zeros(tuple(t.shape)) for t in tensors]
        for i, (program, found) in enumerate(zip(ctx.programs, ctx.found, strict=True)):
            bar = u_bar[i].numpy(force=True)
            if not bar.any():
                continue
            if found is None:
                for g in gradients[: len(task.places)]:
                    g[:] = np.nan
                for g in gradients[len(task.places) :]:
                    g[i] = np.nan
            else:
                _add_gradient(gradients, task, program, found, i, bar)
        device = u_bar.device
        return None, *(torch.from_numpy(g).to(device) for g in gradients)


def _refusal(program: SparseProgram, task: _Task) -> Status:
    """Return the status of all programs where the matrices that they share are of no use to any solver.

    Raises:
        SolverError: P is indefinite, and failures are to be raised.
    """
    if not (np.isfinite(program.P.data).all() and np.isfinite(program.rows.data).all()):
        return Status.NOT_FINITE
    smallest, largest = _pivots(program.P)
    if smallest >= -EXACT * largest:
        return Status.SOLVED
    if task.throw:
        raise SolverError(
            f"solver {task.chain[0].name!r} solves convex programs only, but P is indefinite: a pivot of its "
            f"factorisation is {smallest:.3g}, the largest {largest:.3g}; the eigenvalues of `P.to_dense()` tell more"
        )
    return Status.NOT_CONVEX


def _raise(programs: list[SparseProgram], found: list[_Judged], task: _Task) -> None:
    """Raise for the instances that failed, with everything that was found.

    Raises:
        ProblemError: an array is not finite.
        SolveFailed: instances were not solved.
    """
    status = np.array([int(each.status) for each in found])
    broken = np.flatnonzero(status == Status.NOT_FINITE)
    if len(broken):
        where = f" at batch index {_index(int(broken[0]), task)}" if task.batch and len(broken) < len(found) else ""
        raise ProblemError(
            f"an array of the sparse quadratic program{where} is not finite; clean the inputs, or pass `throw=False` "
            "to lose only the instances concerned"
        )
    names = dict.fromkeys(each.solver for each in found)
    together = QuadraticFound(
        np.stack([each.u for each in found]),
        np.stack([each.y for each in found]),
        Residuals(*(np.concatenate(parts) for parts in zip(*(each.residuals for each in found), strict=True))),
        status,
        np.full(len(found), -1),
        tuple(each.message for each in found),
        ", ".join(filter(None, names)),
    )
    solution = solution_of(SparsePrograms(programs), together, task.batch)
    raise SolveFailed(
        failure_text(solution.ok, solution.status, solution.certificate, together.solver, together.messages), solution
    )


def _index(flat: int, task: _Task) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, task.batch))


def _pivots(P: Any) -> tuple[float, float]:
    """Return the smallest and the largest pivot of a symmetric matrix, shifted by next to nothing."""
    from scipy.sparse import eye_array

    size = float(abs(P).max()) if P.nnz else 0.0
    if size == 0.0:
        return 0.0, 0.0
    pivots = _factor(P + 1e-12 * size * eye_array(P.shape[0])).U.diagonal()
    return float(pivots.min()), float(abs(pivots).max())


def _factor(matrix: Any) -> Any:
    """Factorise a symmetric quasi-definite matrix, whose pivots may be taken from the diagonal in any order."""
    from scipy.sparse.linalg import splu

    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def _solved(program: SparseProgram, chain: tuple[Any, ...], refused: Status) -> _Judged:
    """Return the answer of the first solver whose answer holds, or the last one with the reason why it does not."""
    nothing = np.zeros(program.size), np.zeros(len(program.low))
    if refused == Status.SOLVED and not program.finite:
        refused = Status.NOT_FINITE
    if refused:
        return _judged(program, *nothing)._replace(status=refused)
    for solver in chain:
        answer = solver.solve_sparse(program)
        best = _refined(program, _judged(program, answer.value, answer.multipliers))
        best = best._replace(message=answer.message, solver=solver.name)
        if best.worst <= SOLVED:
            return best
        if _is_farkas(program, answer.multipliers):
            return best._replace(status=Status.INFEASIBLE)
    why = why_unsolved(np.array([answer.status]), best.residuals.feasibility, best.residuals.worst)
    return best._replace(status=Status(why[0]))


def _judged(program: SparseProgram, u: Array, y: Array) -> _Judged:
    """Measure the KKT conditions, scaled as for dense programs."""
    if not (np.isfinite(u).all() and np.isfinite(y).all()):
        lost = _judged(program, np.zeros(program.size), np.zeros(len(program.low)))
        return lost._replace(residuals=lost.residuals._replace(worst=np.array([np.inf])))
    with np.errstate(all="ignore"):
        extent = 1.0 + abs(u).max(initial=0.0)
        length = np.sqrt(np.asarray(program.rows.power(2).sum(1)).ravel())
        length = np.concatenate([np.ones(program.offset), np.where(length > 0, length, 1.0)])
        force = max(abs(program.q).max(initial=0.0), program.P.diagonal().max(initial=0.0) * extent) or 1.0
        residuals = scaled(
            program.slope(u, y)[None],
            program.values(u)[None],
            (program.low, program.high),
            y[None],
            length,
            np.array([[extent]]),
            np.array([[force]]),
        )
    residuals = residuals._replace(worst=np.where(np.isnan(residuals.worst), np.inf, residuals.worst))
    slack, pull, at_high = (part[0] for part in (residuals.slack, residuals.pull, residuals.at_high))
    high = np.where(abs(pull) > abs(slack), pull > 0, at_high)
    return _Judged(u, y, residuals, residuals.active[0] * np.where(high, 1, -1))


def _refined(program: SparseProgram, found: _Judged) -> _Judged:
    """Take Newton steps on the active rows while they reduce the residual."""
    for _ in range(3):
        if found.worst <= FINE or not np.isfinite(found.worst):
            return found
        active = np.flatnonzero(found.side)
        y = np.where(found.side != 0, found.y, 0.0)
        side = np.where(found.side > 0, program.high, program.low)
        d, e, _ = _steps(program, active, -program.slope(found.u, y), (side - program.values(found.u))[active])
        y[active] += e
        trial = _judged(program, found.u + d, y)
        if not trial.worst < found.worst:
            return found
        found = trial
    return found


def _active_rows(program: SparseProgram, active: Array) -> Any:
    """Return the rows at the positions given, sparse."""
    from scipy.sparse import csc_array, eye_array, vstack

    o = program.offset
    parts = [program.rows.tocsr()[active[active >= o] - o]]
    if program.bounded:
        parts.insert(0, eye_array(program.size, format="csr")[active[active < o]])
    return csc_array(vstack(parts)) if len(active) else csc_array((0, program.size))


def _steps(program: SparseProgram, active: Array, top: Array, bottom: Array) -> tuple[Array, Array, bool]:
    """Solve the KKT system on the active rows; return d, e, and whether they solve it.

    A small diagonal makes the matrix quasi-definite, so that dependent rows and a singular P do no harm to its
    factors; iterative refinement takes the effect of the diagonal away again.
    """
    from scipy.sparse import block_array, eye_array

    C, n, k = _active_rows(program, active), program.size, len(active)
    size = DIAGONAL * max(1e-300, abs(program.P).max() if program.P.nnz else 1.0)
    exact = block_array([[program.P, C.T], [C, None]], format="csc") if k else program.P.tocsc()
    diagonal = np.concatenate([np.full(n, size), np.full(k, -DIAGONAL)])
    factor = _factor(exact + eye_array(n + k).multiply(diagonal[:, None]))
    right = np.concatenate([top, bottom])
    found = factor.solve(right)
    for _ in range(5):
        found = found + factor.solve(right - exact @ found)
    missed = abs(right - exact @ found).max(initial=0.0)
    return found[:n], found[n:], bool(missed <= RESOLVED * abs(right).max(initial=0.0))


def _add_gradient(
    gradients: list[Array], task: _Task, program: SparseProgram, found: _Judged, index: int, bar: Array
) -> None:
    """Add the gradient of one instance: entries of the matrices where they are stored, and the vectors."""
    active = np.flatnonzero(found.side)
    d, part, solved = _steps(program, active, bar, np.zeros(len(active)))
    if not solved:
        if task.throw:
            raise NotDifferentiable(
                f"solution {index} of the batch has no derivative: it is not isolated, for P is singular on the "
                "directions that the active constraints leave open; add a regulariser, or pass `throw=False`"
            )
        d = np.full_like(d, np.nan)
    e = np.zeros(len(program.low))
    e[active] = part
    o, p, u, y = program.offset, program.offset + program.equalities, found.u, found.y
    spans = {"A": (o, p), "G": (p, len(e))}
    for gradient, (name, (i, j)) in zip(gradients, task.places.items(), strict=False):
        if name == "P":
            gradient -= 0.5 * (d[i] * u[j] + u[i] * d[j])
        else:
            start, stop = spans[name]
            gradient -= y[start:stop][i] * d[j] + e[start:stop][i] * u[j]
    held, side = e[:o], found.side[:o]
    vectors = {"q": -d, "b": e[o:p], "h": e[p:], "lower": held * (side < 0), "upper": held * (side > 0)}
    for gradient, name in zip(gradients[len(task.places) :], task.vectors, strict=True):
        gradient[index] = vectors[name]


def _is_farkas(program: SparseProgram, y: Array) -> bool:
    """Say whether multipliers prove that no point meets the rows; see :mod:`argminlayer._qp_infeasible`."""
    from ._qp_infeasible import PROOF

    y = np.where(np.isinf(np.where(y > 0, program.high, program.low)), 0.0, y)
    sides = np.where(y > 0, program.high, np.where(y < 0, program.low, 0.0)) * y
    pulled = program.rows.T @ y[program.offset :] + (y[: program.offset] if program.bounded else 0.0)
    gain = -sides.sum()
    return bool(gain > PROOF * abs(sides).sum() and abs(pulled).max(initial=0.0) <= PROOF * gain)
