"""Checks that users run on their own problems: derivatives in ``u``, the certificate, gradients of the solution."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._argmin import solve
from ._autodiff import entry
from ._bound import bind
from ._layout import WORKING_DTYPE
from ._problem import Problem
from ._solution import PointKind, Solution
from ._solver import AbstractSolver
from .cones import ConeProgram

STEP = 1e-5
"""Relative step of the central differences: their error is about 1e-10 for smooth functions of size one."""
DERIVATIVE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
FLOOR = 1e-3
"""Derivatives below this are compared absolutely: at a solution they vanish up to rounding."""


@dataclass(frozen=True)
class CheckResult:
    """One line of a :class:`CheckReport`: what was checked, whether it holds, and the figures."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """The outcome of :func:`check`; ``str`` is the report."""

    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(result.ok for result in self.results)

    def __str__(self) -> str:
        width = max(len(result.name) for result in self.results)
        return "\n".join(f"{'ok  ' if r.ok else 'FAIL'}  {r.name:<{width}}  {r.detail}" for r in self.results)


@entry
def check(problem: Problem, *parameters: Any, solver: str | AbstractSolver | None = None) -> CheckReport:
    """Check a problem with these parameters, in float64.

    1. Derivatives in ``u`` of objective and constraints against central differences, at the solution: finds functions
       that detach a part of ``u``, and kinks. A cone program has no such functions.
    2. The certificate of the solution: stationarity, feasibility, second order, regularity.
    3. The gradient of a random combination of the solution's entries, in a random direction of every parameter,
       against central differences of re-solved problems.

    Args:
        problem: the problem.
        *parameters: as for :func:`argminlayer.solve`.
        solver: as for :func:`argminlayer.solve`.

    A problem that is not solved fails the second check, and the third is left out.
    """
    tensors = tuple(
        p.detach().to(WORKING_DTYPE) if p.is_floating_point() else p for p in map(torch.as_tensor, parameters)
    )
    solution = solve(problem, *tensors, solver=solver, throw=False)
    results = [] if isinstance(problem, ConeProgram) else list(_check_functions(problem, tensors, solution))
    results += _check_certificate(solution)
    if bool(solution.ok.all()):
        results += _check_gradients(problem, tensors, solution, solver)
    return CheckReport(tuple(results))


def _check_functions(problem: Problem, tensors: tuple[Tensor, ...], solution: Solution) -> Iterator[CheckResult]:
    bound = bind(problem, tensors)
    z = bound.layout.flatten(solution.iterate, "the solution").reshape(bound.batch, bound.size)
    direction = _direction(z)
    oracles: tuple[tuple[str, Callable[[Tensor], tuple[Tensor, Tensor]]], ...] = (
        ("objective", bound.gradient),
        ("equality", bound.equality),
        ("inequality", bound.inequality),
    )
    for name, oracle in oracles:
        if getattr(bound.problem, name) is None:
            continue
        step = STEP * (1.0 + z.abs().max()) * direction
        difference = (oracle(z + step)[0] - oracle(z - step)[0]) / (2.0 * step.norm())
        slope = oracle(z)[1]
        exact = (slope * direction).sum(-1) if slope.ndim == 2 else (slope @ direction[..., None])[..., 0]
        error = _relative(exact / direction.norm(), difference, floor=FLOOR)
        hint = "" if error <= DERIVATIVE_TOLERANCE else ": a kink, a detached part of u, or a wrong custom gradient"
        yield CheckResult(
            f"derivative of {name} in u", error <= DERIVATIVE_TOLERANCE, f"relative error {error:.1e}{hint}"
        )


def _check_certificate(solution: Solution) -> Iterator[CheckResult]:
    c = solution.certificate
    worst = max(float(t.max()) for t in (c.stationarity, c.feasibility, c.complementarity, c.dual_feasibility))
    detail = solution.failure() or f"at most {worst:.1e} ({solution.solver})"
    yield CheckResult("KKT residuals", bool(solution.ok.all()), detail)
    kinds = {PointKind(int(k)).name.lower() for k in c.kind.flatten()}
    yield CheckResult("second order", kinds == {"minimum"}, ", ".join(sorted(kinds)))
    count = int((~c.regular).sum())
    detail = "the derivative is determined" if not count else f"{count} instances have no unique derivative"
    yield CheckResult("regularity", count == 0, detail)
    weak = int((c.weakly_active > 0).sum())
    detail = f"smallest margin {float(c.margin.min()):.1e}"
    if weak:
        detail += f"; {weak} instances have weakly active constraints: their derivative is one-sided"
    yield CheckResult("strict complementarity", weak == 0, detail)


def _check_gradients(
    problem: Problem, tensors: tuple[Tensor, ...], solution: Solution, solver: str | AbstractSolver | None
) -> Iterator[CheckResult]:
    weights = [_direction(value) for value in _as_tuple(solution.value)]

    def combination(*changed: Tensor) -> Tensor:
        values = _as_tuple(solve(problem, *changed, solver=solver, start=solution).value)
        return torch.stack([(w * v).sum() for w, v in zip(weights, values, strict=True)]).sum()

    for index, (name, tensor) in enumerate(zip(problem.parameter_names, tensors, strict=True)):
        if not tensor.is_floating_point():
            continue
        direction = _direction(tensor)
        step = 10.0 * STEP * (1.0 + tensor.abs().max()) * direction

        def at(value: Tensor, index: int = index) -> tuple[Tensor, ...]:
            return (*tensors[:index], value, *tensors[index + 1 :])

        leaf = tensor.clone().requires_grad_()
        (exact,) = torch.autograd.grad(combination(*at(leaf)), leaf)
        difference = (combination(*at(tensor + step)) - combination(*at(tensor - step))) / 2.0
        error = _relative((exact * step).sum(), difference)
        detail = f"relative error {error:.1e}"
        if error > GRADIENT_TOLERANCE:
            detail += ": another minimum, a kink, or a change of the active set within the step"
        yield CheckResult(f"gradient in parameter {name}", error <= GRADIENT_TOLERANCE, detail)


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _direction(like: Tensor) -> Tensor:
    """Return a fixed direction without structure, so that a check gives the same answer twice."""
    index = torch.arange(1, like.numel() + 1, dtype=WORKING_DTYPE, device=like.device)
    return (torch.sin(12.9898 * index) + 0.1).reshape(like.shape)


def _relative(exact: Tensor, difference: Tensor, floor: float = 1e-6) -> float:
    if exact.numel() == 0:
        return 0.0
    size = float(torch.maximum(exact.abs().max(), difference.abs().max()))
    return float((exact - difference).abs().max()) / max(size, floor)
