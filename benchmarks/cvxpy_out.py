"""Convex problems written as torch functions, against the same written in CVXPY by hand: first call, further calls.

    python benchmarks/cvxpy_out.py

Both use Clarabel at its own tolerances on one thread. By hand means a ``cvxpy.Problem`` with parameters (DPP), solved
for one instance after another, without certificate, refinement or gradient; ours has all but the backward pass. "First"
is one instance, built and solved; "again" the whole batch. Milliseconds, the best of three.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch

import argminlayer as al
import argminlayer_cvxpy

BATCH = 16
SOLVER = argminlayer_cvxpy.Clarabel(tol=None, threads=1)


@dataclass(frozen=True)
class Case:
    """A problem both ways.

    Attributes:
        name: what the table calls it.
        problem: as torch functions.
        parameters: of a batch, or shared by it.
        by_hand: the CVXPY problem, its parameters in the same order, and its variable.
    """

    name: str
    problem: al.Problem
    parameters: tuple[torch.Tensor, ...]
    by_hand: Callable[[], tuple[cp.Problem, list[cp.Parameter], cp.Variable]]


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


A, C = _draw(200, 100), _draw(100, 20)


def _lasso() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    u, b, weight = cp.Variable(100), cp.Parameter(200), cp.Parameter(nonneg=True)
    objective = 0.5 * cp.sum_squares(A.numpy() @ u - b) + weight * cp.norm1(u)
    return cp.Problem(cp.Minimize(objective)), [b, weight], u


def _portfolio() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    u, gain, factors = cp.Variable(50), cp.Parameter(50), cp.Parameter((50, 10))
    objective = cp.sum_squares(factors.T @ u) + 0.1 * cp.sum_squares(u) - gain @ u
    return cp.Problem(cp.Minimize(objective), [cp.sum(u) == 1, u >= 0]), [gain, factors], u


def _logistic() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    u, labels = cp.Variable(20), cp.Parameter(100)
    scores = C.numpy() @ u
    objective = cp.sum(cp.logistic(scores)) - labels @ scores + 0.1 * cp.sum_squares(u)
    return cp.Problem(cp.Minimize(objective)), [labels], u


def _control() -> tuple[cp.Problem, list[cp.Parameter], cp.Variable]:
    u, begin = cp.Variable(20), cp.Parameter(4)
    state, cost = begin, 0.0
    for k in range(20):
        state = STEP.numpy() @ state + PUSH.numpy() * u[k]
        cost = cost + cp.sum_squares(state) + 0.1 * cp.square(u[k])
    return cp.Problem(cp.Minimize(cost), [u >= -1, u <= 1]), [begin], u


STEP, PUSH = torch.eye(4, dtype=torch.float64) + 0.1 * _draw(4, 4), _draw(4)


def _rollout(u: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
    state, cost = begin, torch.zeros((), dtype=u.dtype)
    for k in range(20):
        state = STEP @ state + PUSH * u[k]
        cost = cost + state.square().sum() + 0.1 * u[k] ** 2
    return cost


CASES = (
    Case(
        "lasso 200 x 100",
        al.Problem(lambda u, b, w: 0.5 * (A @ u - b).square().sum() + w * u.abs().sum(), "(m),()->(100)"),
        (_draw(BATCH, 200), torch.ones((), dtype=torch.float64)),
        _lasso,
    ),
    Case(
        "portfolio n = 50",
        al.Problem(
            lambda u, g, f: (f.mT @ u).square().sum() + 0.1 * u.square().sum() - g @ u,
            "(n),(n,k)->(n)",
            equality=lambda u, g, f: u.sum() - 1.0,
            lower=0.0,
        ),
        (_draw(BATCH, 50), _draw(50, 10)),
        _portfolio,
    ),
    Case(
        "logistic 100 x 20",
        al.Problem(
            lambda u, y: torch.nn.functional.softplus(C @ u).sum() - y @ (C @ u) + 0.1 * u.square().sum(),
            "(m)->(20)",
        ),
        ((_draw(BATCH, 100) > 0).double(),),
        _logistic,
    ),
    Case("control loop T = 20", al.Problem(_rollout, "(k)->(20)", lower=-1.0, upper=1.0), (_draw(BATCH, 4),), _control),
)


def best(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the shortest time of a call in milliseconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def hand_written(case: Case) -> tuple[float, float, np.ndarray[Any, Any]]:
    """Return the time of the first instance, that of a batch afterwards, and the solutions."""
    instances = [[p.numpy() if p.ndim == len(c) else p[i].numpy() for p, c in _pairs(case)] for i in range(BATCH)]
    began = time.perf_counter()
    problem, parameters, u = case.by_hand()

    def one(values: list[Any]) -> np.ndarray[Any, Any]:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value
        problem.solve(solver=cp.CLARABEL)
        return np.array(u.value)

    one(instances[0])
    first = 1e3 * (time.perf_counter() - began)
    solutions = np.stack([one(values) for values in instances])
    return first, best(lambda: [one(values) for values in instances]), solutions


def _pairs(case: Case) -> list[tuple[torch.Tensor, Any]]:
    return list(zip(case.parameters, case.problem.signature.inputs, strict=True))


def main() -> list[dict[str, float | str]]:
    """Print the table, and return it."""
    torch.set_num_threads(1)
    al.argmin(al.Problem(lambda u, x: (u - x).norm(), "(n)->(n)"), _draw(3), solver=SOLVER)
    rows: list[dict[str, float | str]] = []
    print(f"{'problem':<22}{'first: hand':>12}{'ours':>8}{'again: hand':>13}{'ours':>8}{'difference':>12}")
    for case in CASES:
        first_hand, again_hand, solutions = hand_written(case)
        began = time.perf_counter()
        al.argmin(case.problem, *(p if p.ndim == len(c) else p[0] for p, c in _pairs(case)), solver=SOLVER)
        first = 1e3 * (time.perf_counter() - began)
        value = al.argmin(case.problem, *case.parameters, solver=SOLVER)
        again = best(lambda case=case: al.argmin(case.problem, *case.parameters, solver=SOLVER))  # type: ignore[misc]
        difference = float((value - torch.from_numpy(solutions)).abs().max())
        print(f"{case.name:<22}{first_hand:12.0f}{first:8.0f}{again_hand:13.0f}{again:8.0f}{difference:12.1e}")
        rows.append({"problem": case.name, "hand": again_hand, "ours": again, "difference": difference})
    return rows


if __name__ == "__main__":
    main()
