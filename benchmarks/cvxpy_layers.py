"""Layers written in CVXPY, beside cvxpylayers: time, accuracy of the gradient, and what building a layer takes.

The same ``cvxpy.Problem`` and the same parameters go to both, in float64 and in one process, in turn: medians in
milliseconds of a forward pass and of both passes, and the error of the gradient along a random direction against
central differences of certified solutions. cvxpylayers takes part where it is installed, with its default solver and
with the most accurate setting it has (Clarabel, dense derivative).

    python benchmarks/cvxpy_layers.py             # five minutes with the peer
    python benchmarks/cvxpy_layers.py --quick     # small batches, small layers
"""

import argparse
import importlib.util
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cvxpy as cp
import rich
import rich.table
import torch
from torch import Tensor

import argminlayer as al

BUDGET = 3.0
"""Seconds that the repetitions of one measurement may take."""
STEP = 2e-6
"""Step of the differences, in parameters of order one: solutions are exact to 1e-14, and active sets change nearby."""
Layer = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A layer with parameters for a batch: name, problem, what it takes, what it returns, and the tensors."""

    name: str
    problem: cp.Problem
    parameters: list[cp.Parameter]
    variable: cp.Variable
    tensors: tuple[Tensor, ...]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def quadratic(n: int, batch: int) -> Case:
    """Return dense quadratic programs with n inequalities and n / 5 equalities."""
    u, root, q = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    G, h, A, b = cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter((n // 5, n)), cp.Parameter(n // 5)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(root @ u) + q @ u), [G @ u <= h, A @ u == b])
    F, Gs, As, inside = normal(batch, n, n), normal(batch, n, n, seed=1), normal(batch, n // 5, n, seed=2), normal(n)
    P = F @ F.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    hs = Gs @ inside + torch.rand(batch, n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tensors = (torch.linalg.cholesky(P).mT.contiguous(), normal(batch, n, seed=4), Gs, hs, As, As @ inside)
    return Case(f"quadratic program, n = {n}, batch {batch}", problem, [root, q, G, h, A, b], u, tensors)


def second_order(n: int, batch: int) -> Case:
    """Return second-order cone programs: a linear objective over an ellipsoid and a ball."""
    x, f, A, b = cp.Variable(n), cp.Parameter(n), cp.Parameter((n, n)), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(f @ x), [cp.norm(A @ x + b) <= 2.0 + x[0], cp.norm(x) <= 1.5])
    A_value = torch.eye(n, dtype=torch.float64) + 0.3 * normal(batch, n, n) / n**0.5
    tensors = (normal(batch, n, seed=1), A_value, 0.3 * normal(batch, n, seed=2))
    return Case(f"second-order cone program, n = {n}, batch {batch}", problem, [f, A, b], x, tensors)


def semidefinite(n: int, batch: int) -> Case:
    """Return semidefinite programs with n / 2 equalities."""
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n))
    rows = [cp.Parameter((n, n)) for _ in range(n // 2)]
    b = cp.Parameter(n // 2)
    equalities = [cp.sum(cp.multiply(row, X)) == b[i] for i, row in enumerate(rows)]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), [X >> 0, cp.trace(X) == n, *equalities])
    A = normal(batch, n // 2, n, n)
    root = normal(batch, n, n, seed=1)
    inside = root @ root.mT
    inside = n * inside / inside.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    tensors = (normal(batch, n, n, seed=2), *A.unbind(1), (A * inside[:, None]).sum((-2, -1)))
    return Case(f"semidefinite program, {n} x {n}, batch {batch}", problem, [C, *rows, b], X, tensors)


def exponential(n: int, batch: int) -> Case:
    """Return maximisations of entropy under linear constraints."""
    x, c, A, b = cp.Variable(n), cp.Parameter(n), cp.Parameter((n // 4, n)), cp.Parameter(n // 4)
    problem = cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [A @ x == b, cp.sum(x) == 1])
    rows = normal(batch, n // 4, n)
    inside = torch.softmax(normal(batch, n, seed=1), -1)
    tensors = (normal(batch, n, seed=2), rows, (rows @ inside[..., None])[..., 0])
    return Case(f"exponential cones, n = {n}, batch {batch}", problem, [c, A, b], x, tensors)


def lasso(n: int, batch: int) -> Case:
    """Return regressions with an absolute penalty on 1.5 n samples."""
    m = 3 * n // 2
    x, A, b, penalty = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ x - b) + penalty * cp.norm1(x)))
    tensors = (normal(batch, m, n), normal(batch, m, seed=1), torch.full((batch,), 2.0, dtype=torch.float64))
    return Case(f"lasso, n = {n}, batch {batch}", problem, [A, b, penalty], x, tensors)


def simplex(n: int, batch: int) -> Case:
    """Return projections onto the probability simplex."""
    x, y = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [x >= 0, cp.sum(x) == 1])
    return Case(f"simplex projection, n = {n}, batch {batch}", problem, [y], x, (normal(batch, n),))


def ours(case: Case) -> Layer:
    """Return the layer of this library."""
    layer: Layer = al.ArgminLayer(case.problem, parameters=case.parameters, variables=[case.variable])
    return layer


def peer(case: Case, settings: dict[str, Any]) -> Layer:
    """Return the layer of cvxpylayers."""
    from cvxpylayers.torch import CvxpyLayer

    layer = CvxpyLayer(case.problem, parameters=case.parameters, variables=[case.variable])
    return lambda *tensors: layer(*tensors, solver_args=settings)[0]


PEERS = {"cvxpylayers, default": {}, "cvxpylayers, Clarabel": {"solve_method": "Clarabel", "mode": "dense"}}


def median(work: Callable[[], object]) -> float:
    """Return the median time of ``work`` in milliseconds."""
    work()
    times: list[float] = []
    while len(times) < 2 or (len(times) < 100 and sum(times) < BUDGET):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[len(times) // 2]


def weights(like: Tensor) -> Tensor:
    """Return the cotangent that all gradients are taken with."""
    return torch.cos(torch.arange(like.numel(), dtype=torch.float64)).reshape(like.shape)


def slopes(case: Case) -> tuple[list[Tensor], Tensor]:
    """Return a direction, and the derivative along it for each instance, by differences of certified solutions."""
    direction = [torch.sin(7.0 * torch.arange(t.numel(), dtype=torch.float64)).reshape(t.shape) for t in case.tensors]
    layer = ours(case)

    def value(step: float) -> Tensor:
        with torch.no_grad():
            found = layer(*(t + step * d for t, d in zip(case.tensors, direction, strict=True)))
        return (found * weights(found)).flatten(1).sum(1)

    near, far = (value(h) - value(-h) for h in (STEP, 2 * STEP))
    return direction, (8.0 * near - far) / (12.0 * STEP)


def measured(layer: Layer, case: Case, direction: list[Tensor], known: Tensor) -> tuple[float, float, float]:
    """Return milliseconds of the forward pass and of both, and the worst error of a slope over the largest one."""
    tensors = [t.clone().requires_grad_() for t in case.tensors]

    def both() -> tuple[Tensor, ...]:
        found = layer(*tensors)
        return torch.autograd.grad((found * weights(found)).sum(), tensors)

    gradients = both()
    along = sum((g * d).reshape(len(g), -1).sum(1) for g, d in zip(gradients, direction, strict=True))
    error = float((along - known).abs().max() / known.abs().max())
    return median(lambda: layer(*tensors)), median(both), error


def compared(case: Case, peers: dict[str, dict[str, Any]]) -> rich.table.Table:
    """Return the table of one case."""
    direction, known = slopes(case)
    layers = {"argminlayer": partial(ours, case)} | {name: partial(peer, case, s) for name, s in peers.items()}
    table = rich.table.Table(title=case.name)
    for column in ("", "forward ms", "both ms", "ratio", "gradient error"):
        table.add_column(column, justify="left" if not column else "right")
    first = 0.0
    for name, make in layers.items():
        try:
            forward, both, error = measured(make(), case, direction, known)
        except Exception as failure:  # noqa: BLE001 - a peer that fails is a line of the table
            table.add_row(name, f"{type(failure).__name__}", "", "", "")
            continue
        first = first or both
        table.add_row(name, f"{forward:.3g}", f"{both:.3g}", f"{both / first:.3g}", f"{error:.0e}")
    return table


def built(n: int, peers: bool) -> None:
    """Print seconds and memory of building a layer with an n x n parameter, in a process of its own."""
    A, b, x = cp.Parameter((n, n)), cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case = Case("", problem, [A, b], x, ())
    began = time.perf_counter()
    peer(case, {}) if peers else ours(case)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    name = "cvxpylayers" if peers else "argminlayer"
    rich.print(f"building with a {n} x {n} parameter, {name}: {seconds:.2f} s, {(after - before) / 1024:.0f} MB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small batches and layers")
    quick = parser.parse_args().quick
    peers = PEERS if importlib.util.find_spec("cvxpylayers") else {}
    few = 4 if quick else 16
    cases = [
        quadratic(10 if quick else 50, few if quick else 128),
        second_order(20, few),
        semidefinite(10, few),
        exponential(20, few),
        lasso(20, few),
        simplex(100 if quick else 1000, few if quick else 128),
    ]
    for case in cases:
        rich.print(compared(case, peers))
    context = multiprocessing.get_context("spawn")
    for n in (100,) if quick else (200, 400, 800):
        for other in (False, True) if peers and n < 800 else (False,):
            process = context.Process(target=built, args=(n, other))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
