"""Solving a batch: attempts by solvers from starts, each certified, until nothing is left or nothing helps."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._bound import BoundProblem
from ._certificate import EXACT, KKTPoint, judge, locally_infeasible, measure
from ._errors import ArgminError, SolverError
from ._refine import combine, refine
from ._select import Choice
from ._solution import Status
from ._solver import AbstractSolver, Candidate
from ._start import default_starts

SOLVE_TOLERANCE = 1e-6
"""Scaled residual that a solver's answer may have, after refinement."""
RUNAWAY = 1e12
"""A point further out than this, or an objective this far below its size at the start, is on its way to infinity."""


@dataclass(frozen=True)
class Found:
    """What was found for every instance of a batch, flat: the certified point, statuses and who found it."""

    point: KKTPoint
    status: Tensor
    objective: Tensor
    iterations: Tensor
    messages: tuple[str, ...]
    solver: str
    gap: Tensor


def search(bound: BoundProblem, choice: Choice, starts: list[Tensor] | None) -> Found:
    """Solve every instance with the solvers chosen and return what is best.

    Several starts of the caller's are all tried, and the best certified solution wins. Without any, the default starts
    follow each other on the instances left unsolved; so do the further solvers of an automatic choice. An instance
    of which two starts found no feasible point is given up. The names of all solvers that were tried are in
    ``Found.solver``.

    Args:
        bound: the problem, all parameters finite.
        choice: the solvers.
        starts: the caller's, (batch, n) each, or None for the default.
    """
    first, *others = choice.chain
    begins = default_starts(bound) if starts is None else starts
    best = _attempt(bound, first, begins[0])
    for other in [] if starts is None else starts[1:]:
        best = _merge(bound, best, _attempt(bound, first, other), torch.arange(bound.batch, device=other.device))
    rescues = [(first, begin) for begin in begins[1:]] if starts is None else []
    denials = (best.status == Status.INFEASIBLE).int()
    for solver, begin in [*rescues, *((solver, begins[0]) for solver in others)]:
        hopeless = (best.status == Status.UNBOUNDED) | ((best.status == Status.INFEASIBLE) & (denials > 1))
        left = ((best.status != Status.SOLVED) & ~hopeless).nonzero()[:, 0]
        if len(left) == 0:
            break
        if solver.supports(bound.select(left)) is None:
            trial = _attempt(bound.select(left), solver, begin[left])
            denials[left] += trial.status == Status.INFEASIBLE
            best = _merge(bound, best, trial, left)
    return best


def substitute(bound: BoundProblem, finite: Tensor) -> BoundProblem:
    """Return the problem with the parameters of the instances that are not finite replaced by harmless ones.

    They are solved along, in vain, so that the others keep their places; their results are thrown away.
    """
    if bool(finite.all()):
        return bound
    source = int(finite.nonzero()[0]) if bool(finite.any()) else None

    def harmless(parameter: Tensor, shared: bool) -> Tensor:
        if shared or source is None:
            return torch.nan_to_num(parameter, nan=1.0, posinf=1.0, neginf=1.0)
        mask = finite.reshape(-1, *[1] * (parameter.ndim - 1))
        return torch.where(mask, parameter, parameter[source])

    parameters = tuple(harmless(p, s) for p, s in zip(bound.parameters, bound.layout.shared, strict=True))
    with torch.no_grad():
        lower, upper = bound.functions.bound("lower", parameters), bound.functions.bound("upper", parameters)
    lower = torch.where(lower.isnan() | (lower == torch.inf), -torch.inf, lower)
    upper = torch.where(upper.isnan() | (upper == -torch.inf), torch.inf, upper)
    return replace(bound, parameters=parameters, lower=lower, upper=upper)


def _attempt(bound: BoundProblem, solver: AbstractSolver, start: Tensor) -> Found:
    candidate = _call(bound, solver, start)
    _check_candidate(bound, solver, candidate)
    finite = candidate.value.isfinite().all(-1)
    z = torch.where(finite[:, None], candidate.value, start)
    claimed = torch.where(finite | (candidate.status != Status.SOLVED), candidate.status, int(Status.NOT_FINITE))
    point = _certified(bound, z, candidate)
    status = _explain_failures(bound, start, point, judge(point, SOLVE_TOLERANCE, claimed))
    iterations = candidate.iterations
    return Found(
        point=point,
        status=status,
        objective=bound.objective(point.z),
        iterations=torch.full_like(status, -1) if iterations is None else iterations,
        messages=candidate.messages or ("",) * bound.batch,
        solver=solver.name,
        gap=torch.full_like(point.residual, torch.inf) if candidate.gap is None else candidate.gap,
    )


def _call(bound: BoundProblem, solver: AbstractSolver, start: Tensor) -> Candidate:
    try:
        candidate = solver.solve(bound, start.clone())
    except ArgminError:
        raise
    except Exception as error:
        raise SolverError(
            f"solver {solver.name!r} raised {type(error).__name__}: {error}; this is a fault of the plugin that "
            "provides it, unless the problem's own functions raise away from the start"
        ) from error
    if not isinstance(candidate, Candidate):
        raise SolverError(_faulty(solver, f"a {type(candidate).__name__} instead of a Candidate"))
    return candidate


def _certified(bound: BoundProblem, z: Tensor, candidate: Candidate) -> KKTPoint:
    """Measure and refine a candidate, with the solver's multipliers, or recovered ones where those are no good.

    They are no good when the conditions do not hold with them, nor when constraints are redundant: then they are not
    unique, and those of least norm are recovered.
    """
    point = refine(bound, measure(bound, z, candidate.equality, candidate.inequality))
    doubtful = (point.residual > SOLVE_TOLERANCE) | (point.certificate.redundant > 0)
    if candidate.equality is None or not bool(doubtful.any()):
        return point
    other = refine(bound, measure(bound, z))
    better = doubtful & (other.residual <= torch.maximum(point.residual, torch.full_like(point.residual, EXACT)))
    return combine(bound, better, other, point) if bool(better.any()) else point


def _check_candidate(bound: BoundProblem, solver: AbstractSolver, candidate: Candidate) -> None:
    expected = {
        "value": (bound.batch, bound.size),
        "status": (bound.batch,),
        "equality": (bound.batch, bound.equalities),
        "inequality": (bound.batch, bound.inequalities),
        "iterations": (bound.batch,),
        "gap": (bound.batch,),
    }
    for name, shape in expected.items():
        tensor = getattr(candidate, name)
        if tensor is None and name not in ("value", "status"):
            continue
        if not isinstance(tensor, Tensor):
            raise SolverError(_faulty(solver, f"{name} of type {type(tensor).__name__} instead of a tensor"))
        if tuple(tensor.shape) != shape:
            raise SolverError(_faulty(solver, f"{name} of shape {tuple(tensor.shape)} instead of {shape}"))
    if candidate.status.is_floating_point() or not set(candidate.status.tolist()) <= set(map(int, Status)):
        raise SolverError(_faulty(solver, f"status {candidate.status.tolist()}, which are not al.Status codes"))
    if len(candidate.messages) not in (0, bound.batch):
        raise SolverError(_faulty(solver, f"{len(candidate.messages)} messages for {bound.batch} instances"))


def _faulty(solver: AbstractSolver, what: str) -> str:
    return f"solver {solver.name!r} returned {what}; this is a fault of the plugin that provides it"


def _explain_failures(bound: BoundProblem, start: Tensor, point: KKTPoint, status: Tensor) -> Tensor:
    """Replace what a solver said of the failed instances by what can be seen: infeasible, or running away."""
    failed = (status != Status.SOLVED) & (status != Status.NOT_A_MINIMUM)
    if not bool(failed.any()):
        return status
    infeasible = failed & ~(point.certificate.feasibility <= SOLVE_TOLERANCE) & locally_infeasible(bound, point.z)
    begun = bound.objective(start)
    fallen = begun - bound.objective(point.z) > RUNAWAY * (1.0 + begun.abs())
    runaway = (point.z.abs().amax(-1) > RUNAWAY) | fallen
    status = torch.where(failed & runaway & ~infeasible, int(Status.UNBOUNDED), status)
    return torch.where(infeasible | (bound.lower > bound.upper).any(-1), int(Status.INFEASIBLE), status)


def _merge(bound: BoundProblem, best: Found, trial: Found, index: Tensor) -> Found:
    """Take the instances of ``trial``, which are ``index`` of the batch, that are solved and better.

    Taken are also points that meet the constraints where it was said that none can.
    """
    solved, before = trial.status == Status.SOLVED, best.status[index]
    wins = solved & ((before != Status.SOLVED) | (trial.objective < best.objective[index]))
    wins |= (before == Status.INFEASIBLE) & (trial.point.certificate.feasibility <= SOLVE_TOLERANCE)
    names = best.solver if trial.solver in best.solver.split(", ") else f"{best.solver}, {trial.solver}"
    if not bool(wins.any()):
        return replace(best, solver=names)
    to, take = index[wins], wins.nonzero()[:, 0]

    def put(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(0, to, new[take])

    z, nu, lam = (put(getattr(best.point, f), getattr(trial.point, f)) for f in ("z", "nu", "lam"))
    point = measure(bound, z, nu, lam, accuracy=EXACT)
    status = put(best.status, trial.status)
    status = torch.where(status == Status.SOLVED, judge(point, SOLVE_TOLERANCE, torch.zeros_like(status)), status)
    messages = dict(zip(to.tolist(), (trial.messages[i] for i in take.tolist()), strict=True))
    return Found(
        point=point,
        status=status,
        objective=put(best.objective, trial.objective),
        iterations=put(best.iterations, trial.iterations),
        messages=tuple(messages.get(i, old) for i, old in enumerate(best.messages)),
        solver=names,
        gap=put(best.gap, trial.gap),
    )
