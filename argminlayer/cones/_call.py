"""One call of a cone program: bind the parameters, solve, and dress what was found in the caller's shapes and dtype."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._backward import KKT, AbstractBackward
from .._errors import ProblemError, SolveFailed, SolverError
from .._parameters import read_parameters
from .._qp_search import quadratic_family
from .._select import AUTO, requested
from .._solution import Certificate, Multipliers, PointKind, Solution, Status, Variables, failure_text
from .._solver import AbstractSolver
from ._backward import ConeTask, cone_argmin
from ._form import ConeForm
from ._matrices import A_product, P_product
from ._pattern import Array
from ._program import ConeProgram
from ._programs import prefers_separable
from ._quadratic import quadratic_chain, solve_quadratic
from ._search import ConeFound, choose_cones, cone_family, search_cones
from ._solver import AbstractConeSolver, ConeAnswer


@dataclass(frozen=True)
class ConeSolution(Solution):
    """The result of :func:`argminlayer.solve` for a :class:`ConeProgram`: a :class:`Solution` with the program's own x.

    ``multipliers.equality`` are those of the rows in the zero cone, ``multipliers.inequality`` those of all other rows,
    in their order; each of these in its dual cone. There are no bounds.

    Attributes:
        primal: x, (..., n), detached, where the solver stopped and refinement left it.
        slack: s, (..., m), detached.
        dual: z, (..., m), detached.
    """

    primal: Tensor
    slack: Tensor
    dual: Tensor


@dataclass(frozen=True, eq=False)
class BoundCones:
    """A cone program with its data for one call.

    Attributes:
        problem: the program.
        data: values of P, q, values of A and b, (1 or batch, entries), float64 on the CPU.
        constant: in the objective, (1 or batch,).
        shape: of the batch.
        dtype: of the results.
        device: of the results.
        parameters: as tensors.
    """

    problem: ConeProgram
    data: tuple[Tensor, Tensor, Tensor, Tensor]
    constant: Tensor
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    parameters: tuple[Tensor, ...]

    @property
    def form(self) -> ConeForm:
        """The numbers as NumPy arrays."""
        return ConeForm.of(self.problem.pattern, self.data, self.shape.numel())

    def recovered(self, x: Tensor, z: Tensor) -> Variables:
        """Return the variables of (batch, n) and (batch, m) in the caller's shapes, dtype and device."""
        x, z = (part.reshape(self.shape + part.shape[1:]) for part in (x, z))
        found = (x,) if self.problem.recover is None else self.problem.recover(x, z)
        dressed = tuple(part.to(dtype=self.dtype, device=self.device) for part in found)
        return dressed[0] if len(dressed) == 1 else dressed


def bind_cones(problem: ConeProgram, parameters: Sequence[Any]) -> BoundCones:
    """Compute the data of a call.

    Raises:
        SignatureError: parameters do not fit the signature.
        ProblemError: parameters or data that cannot be used.
    """
    names = problem.parameter_names
    read = read_parameters(parameters, names, sparse=True)
    _, shape = problem.signature.match(read, names)
    floats = [p.dtype for p in read if p.is_floating_point()]
    dtype = floats[0] if floats else torch.get_default_dtype()
    device = read[0].device if read else torch.device("cpu")
    results = problem.data(*read)
    pattern = problem.pattern
    widths = {
        "P": len(pattern.P_rows),
        "q": pattern.size,
        "A": len(pattern.A_rows),
        "b": pattern.cones.rows,
    }
    flat = [_flat(part, name, width, shape) for part, (name, width) in zip(results, widths.items(), strict=False)]
    if len(flat) != 4:
        raise ProblemError(f"the data of a cone program are P, q, A and b, and perhaps a constant, not {len(results)}")
    constant = results[4][..., None] if len(results) > 4 else flat[1].new_zeros(1)
    return BoundCones(
        problem=problem,
        data=(flat[0], flat[1], flat[2], flat[3]),
        constant=_flat(constant, "constant", 1, shape)[:, 0],
        shape=shape,
        dtype=dtype,
        device=device,
        parameters=read,
    )


def _flat(values: Tensor, name: str, width: int, shape: torch.Size) -> Tensor:
    """Return data as (1 or batch, entries)."""
    if values.shape[-1:] != (width,):
        raise ProblemError(
            f"the data {name} of a cone program have shape {tuple(values.shape)}, but the pattern has {width} entries"
        )
    values = values.to(dtype=torch.float64, device="cpu")
    lead = values.shape[:-1]
    if lead.numel() == 1:
        return values.reshape(1, width)
    return values.expand((*shape, width)).reshape(shape.numel(), width)


def argmin_cones(
    problem: ConeProgram,
    parameters: Sequence[Any],
    solver: str | AbstractSolver | None,
    start: Any,
    backward: AbstractBackward,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> Variables:
    """Return the minimisers; see :func:`argminlayer.argmin`."""
    bound = bind_cones(problem, parameters)
    value = None if start is not None or backward != KKT() else _quadratic(bound, solver, options, throw)
    return _solved(bound, solver, start, backward, options, throw)[0] if value is None else value


def serving(bound: BoundCones, solver: str | AbstractSolver | None) -> tuple[AbstractSolver, ...]:
    """Return the solvers of quadratic programs that :func:`argmin_cones` would use, none where it would not."""
    problem = bound.problem
    if not _may_be_quadratic(bound, solver):
        return ()
    return quadratic_chain(problem.pattern, bound.data, bound.shape, solver)


def _may_be_quadratic(bound: BoundCones, solver: str | AbstractSolver | None) -> bool:
    """Return whether solvers of quadratic programs are tried first."""
    problem, pattern = bound.problem, bound.problem.pattern
    if not pattern.cones.is_linear or problem.multipliers or not bound.shape.numel() or not quadratic_family(solver):
        return False
    # those that are separable have a solver of their own
    return requested(solver) != AUTO or not prefers_separable(pattern)


def _quadratic(
    bound: BoundCones, solver: str | AbstractSolver | None, options: Mapping[str, Any] | None, throw: bool
) -> Variables | None:
    """Return the minimisers by solvers of quadratic programs, None where they do not serve."""
    problem, batch = bound.problem, bound.shape.numel()
    if not _may_be_quadratic(bound, solver):
        return None
    try:
        x = solve_quadratic(problem.pattern, bound.data, bound.shape, solver, options, throw)
    except (ProblemError, SolveFailed):
        return None  # solvers of cone programs say it in terms of the program itself
    return None if x is None else bound.recovered(x, x.new_zeros(1, 1).expand(batch, problem.pattern.cones.rows))


def solve_cones(
    problem: ConeProgram,
    parameters: Sequence[Any],
    solver: str | AbstractSolver | None,
    start: Any,
    backward: AbstractBackward,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> ConeSolution:
    """Return the minimisers with everything that is known of them; see :func:`argminlayer.solve`."""
    bound = bind_cones(problem, parameters)
    value, x, z, found = _solved(bound, solver, start, backward, options, throw)
    zero = problem.pattern.cones.zero
    plain = solution_of(bound, found)
    shaped = z.reshape(bound.shape + z.shape[1:]).to(dtype=bound.dtype, device=bound.device)
    return replace(
        plain,
        value=value,
        multipliers=replace(plain.multipliers, equality=shaped[..., :zero], inequality=shaped[..., zero:]),
        objective=_shaped(_objective(bound, x, z), bound),
    )


def _solved(
    bound: BoundCones,
    solver: str | AbstractSolver | None,
    start: Any,
    backward: AbstractBackward,
    options: Mapping[str, Any] | None,
    throw: bool,
) -> tuple[Variables, Tensor, Tensor, ConeFound]:
    if not isinstance(backward, KKT):
        raise ProblemError(f"cone programs are differentiated by al.KKT(...), not by {backward!r}")
    family = cone_family(solver)
    if not family:
        raise SolverError(refusal_of(solver))
    find = _Find(bound, family, options, throw, _read_start(bound, start))
    task = ConeTask(bound.problem.pattern, find, bound.shape.numel(), bound.shape, backward, throw)
    x, z = cone_argmin(task, *bound.data)
    assert task.record.found is not None
    return bound.recovered(x, z), x, z, task.record.found


def refusal_of(solver: str | AbstractSolver | None) -> str:
    """Return why a request names no solver of cone programs."""
    request = requested(solver)
    name = request.name if isinstance(request, AbstractSolver) else request
    return (
        f"solver {name!r} does not solve cone programs; pip install 'argminlayer[cvxpy]' brings solvers that do, such "
        "as 'cvxpy.clarabel' and 'cvxpy.scs'"
    )


def _read_start(bound: BoundCones, start: Any) -> ConeAnswer | None:
    if start is None:
        return None
    if not isinstance(start, ConeSolution):
        raise ProblemError(
            "the start of a cone program is the solution of another one, as al.solve returns it, not of type "
            f"{type(start).__name__}"
        )
    batch = bound.shape.numel()

    def flat(part: Tensor) -> Array:
        wide = part.expand(bound.shape + part.shape[-1:]).reshape(batch, part.shape[-1])
        return np.ascontiguousarray(wide.numpy(force=True))

    return ConeAnswer(
        flat(start.primal),
        flat(start.slack),
        flat(start.dual),
        np.zeros(batch, dtype=np.int64),
        np.full(batch, -1),
        ("",) * batch,
    )


@dataclass(frozen=True, eq=False)
class _Find:
    """How the programs of one call are solved."""

    bound: BoundCones
    family: tuple[AbstractConeSolver, ...]
    options: Mapping[str, Any] | None
    throw: bool
    start: ConeAnswer | None

    def __call__(self, form: ConeForm) -> ConeFound:
        """Solve a form whose batch may have grown under ``torch.vmap``."""
        began = time.perf_counter()
        chain = choose_cones(form, self.family, self.options)
        start = self.start if self.start is not None and len(self.start.value) == form.batch else None
        found = search_cones(form, chain, start)
        found = replace(found, seconds=time.perf_counter() - began)
        if self.throw and found.status.any():
            self._raise(form, found)
        return found

    def _raise(self, form: ConeForm, found: ConeFound) -> None:
        bound = self.bound
        if form.batch != bound.shape.numel():
            bound = replace(bound, shape=torch.Size([form.batch]))
        if (found.status == Status.NOT_FINITE).any():
            raise ProblemError(_not_finite(bound, found))
        solution = solution_of(bound, found)
        text = failure_text(solution.ok, solution.status, solution.certificate, found.solver, found.messages)
        raise SolveFailed(text, solution)


def _not_finite(bound: BoundCones, found: ConeFound) -> str:
    """Return a sentence on the first parameter that is not finite, or on the data that are not."""
    shape = bound.shape
    first = int(np.flatnonzero(found.status == Status.NOT_FINITE)[0])
    index = tuple(int(i) for i in np.unravel_index(first, shape)) if shape else ()
    where = f" at batch index {index}" if index else ""
    advice = "clean the inputs, or pass `throw=False` to lose only the instances concerned"
    for name, parameter in zip(bound.problem.parameter_names, bound.parameters, strict=True):
        values = parameter.detach()
        values = values.to_dense() if values.layout != torch.strided else values
        if values.is_floating_point() and not bool(values.isfinite().all()):
            value = values[~values.isfinite()][0].item()
            return f"parameter {name} is not finite: {value}{where}; {advice}"
    return f"the data of the cone program are not finite{where}, though its parameters are; {advice}"


def solution_of(bound: BoundCones, found: ConeFound) -> ConeSolution:
    """Return everything that was found, detached, with NaN for the instances that failed."""
    point, status = found.point, torch.from_numpy(found.status.astype(np.int64))
    solved = (status == 0)[:, None]
    x, z = (torch.where(solved, part, torch.nan) for part in (point.x, point.z))
    zero = bound.problem.pattern.cones.zero
    shaped = z.reshape(bound.shape + z.shape[1:]).to(dtype=bound.dtype, device=bound.device)
    value = bound.recovered(x, z)
    nothing = tuple(torch.zeros_like(v) for v in value) if isinstance(value, tuple) else torch.zeros_like(value)
    return ConeSolution(
        value=value,
        multipliers=Multipliers(shaped[..., :zero], shaped[..., zero:], nothing, nothing),
        status=status.reshape(bound.shape).to(bound.device),
        objective=_shaped(_objective(bound, x, z).detach(), bound),
        certificate=_certificate(found).reshape(bound.shape),
        iterate=bound.recovered(point.x, point.z),
        iterations=torch.from_numpy(found.iterations.astype(np.int64)).reshape(bound.shape),
        solver=found.solver,
        messages=found.messages,
        seconds=found.seconds,
        primal=point.x.reshape(bound.shape + point.x.shape[1:]),
        slack=point.s.reshape(bound.shape + point.s.shape[1:]),
        dual=point.z.reshape(bound.shape + point.z.shape[1:]),
    )


def _shaped(flat: Tensor, bound: BoundCones) -> Tensor:
    signed = -flat if bound.problem.maximize else flat
    return signed.reshape(bound.shape).to(dtype=bound.dtype, device=bound.device)


def _objective(bound: BoundCones, x: Tensor, z: Tensor) -> Tensor:
    """Return the objective (batch,), whose derivative is that of the Lagrangian in the data, x and z held."""
    P, q, A, b = bound.data
    x, z = x.detach(), z.detach()
    pattern = bound.problem.pattern
    value = 0.5 * (x * P_product(pattern, P, x)).sum(1) + (q * x).sum(1)
    held = (z * (A_product(pattern, A, x) - b)).sum(1)
    return value + (held - held.detach()) + bound.constant


def _certificate(found: ConeFound) -> Certificate:
    point, programs, batch = found.point, found.programs, len(found.status)
    zeros, none = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.int64)
    freedom, redundant = none.clone(), none.clone()
    spectra = point.decomposed(programs.cones)
    at = spectra.faces()
    index = torch.from_numpy(np.flatnonzero(found.status == 0))
    if len(index):
        system = found.system
        if system is None or len(index) < batch:
            part, here = programs.select(index), point.select(index)
            system = part.matrices.system(here.faces(part.cones), here.gamma, weak_active=True)
        freedom[index], redundant[index] = system.freedom, system.redundant
    size = point.v.abs().amax(1) if point.v.shape[1] else zeros
    return Certificate(
        stationarity=point.stationarity,
        feasibility=point.feasibility,
        complementarity=zeros,
        dual_feasibility=zeros,
        error=point.worst,
        margin=spectra.margin() / torch.where(size > 0, size, 1.0),
        active=(at.lost[:, programs.cones.zero :] > 0).sum(1),
        weakly_active=at.weak.sum(1),
        kind=none + int(PointKind.MINIMUM),
        redundant=redundant,
        freedom=freedom,
        consistent=none == 0,
        regular=freedom == 0,
        smooth=none == 0,
        regularised=zeros,
        gap=zeros + torch.inf,
    )
