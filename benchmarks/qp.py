"""Time and accuracy of quadratic programs as layers, beside cvxpylayers, qpth and proxsuite's QPLayer.

Dense programs of n variables, n inequalities and n / 5 equalities, all six arrays differentiable, in float64: medians
in milliseconds of a forward pass alone and of both passes, what the same back end takes alone, and the worst relative
error of an instance's gradient against a KKT solve in extended precision. Peers take part when they are installed;
qpth needs an environment with NumPy 1. A minute on two threads, more with the peers.

    python benchmarks/qp.py             # the dense table, and a sparse program of 2000 variables
    python benchmarks/qp.py --quick     # small sizes only
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rich.table
import torch
from torch import Tensor

import argminlayer as al

CASES = ((10, 1), (10, 128), (50, 128), (100, 128))
BUDGET = 2.0
"""Seconds that the repetitions of one measurement may take."""
Arrays = tuple[Tensor, ...]
Layer = Callable[..., Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table: milliseconds, and the worst relative error of a gradient."""

    name: str
    forward: float
    both: float
    error: float


def median(work: Callable[[], object]) -> float:
    """Return the median time of ``work`` in milliseconds."""
    work()
    times: list[float] = []
    while len(times) < 3 or (len(times) < 200 and sum(times) < BUDGET):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[len(times) // 2]


def programs(n: int, batch: int) -> Arrays:
    """Return P, q, G, h, A, b of feasible, strictly convex programs."""
    generator = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=torch.float64, generator=generator)

    root, G, A, inside = normal(n, n), normal(n, n), normal(n // 5, n), normal(n, 1)
    P = root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    h = (G @ inside)[..., 0] + torch.rand(batch, n, dtype=torch.float64, generator=generator)
    return P, normal(n), G, h, A, (A @ inside)[..., 0]


def weights(batch: int, n: int) -> Tensor:
    """Return the cotangent that all gradients are taken with."""
    return torch.cos(torch.arange(batch * n, dtype=torch.float64)).reshape(batch, n)


def reference(arrays: Arrays) -> list[Tensor]:
    """Return the gradients by dense KKT systems on the active set, refined in extended precision."""
    P, q, G, h, A, b = (t.detach() for t in arrays)
    u = al.qp(P, q, G, h, A, b, solver="qp.daqp")
    batch, n = u.shape
    found = [torch.zeros_like(t) for t in (P, q, G, h, A, b)]
    for i, v in enumerate(weights(batch, n)):
        rows = (h[i] - G[i] @ u[i] < 1e-8).nonzero()[:, 0]
        C = torch.cat([A[i], G[i][rows]])
        zero = torch.zeros(len(C), len(C), dtype=torch.float64)
        K = torch.cat([torch.cat([P[i], C.T], 1), torch.cat([C, zero], 1)])
        primal = refined(K, torch.cat([-q[i], b[i], h[i][rows]]))
        adjoint = refined(K, torch.cat([v, zero[0]]))
        x, y, d, e = primal[:n], primal[n:], adjoint[:n], adjoint[n:]
        p = len(A[i])
        found[0][i] = -0.5 * (torch.outer(d, x) + torch.outer(x, d))
        found[1][i] = -d
        found[2][i, rows] = -torch.outer(y[p:], d) - torch.outer(e[p:], x)
        found[3][i, rows] = e[p:]
        found[4][i] = -torch.outer(y[:p], d) - torch.outer(e[:p], x)
        found[5][i] = e[:p]
    return found


def refined(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve one system, with residuals in extended precision."""
    K, r = matrix.numpy().astype(np.longdouble), right.numpy().astype(np.longdouble)
    x = np.linalg.solve(matrix.numpy(), right.numpy()).astype(np.longdouble)
    for _ in range(3):
        x = x + np.linalg.solve(matrix.numpy(), (r - K @ x).astype(np.float64))
    return torch.from_numpy(x.astype(np.float64))


def error(found: tuple[Tensor, ...], expected: list[Tensor]) -> float:
    """Return the worst error of an instance, relative to the size of its gradient."""
    flat, known = (torch.cat([t.reshape(len(t), -1) for t in tensors], 1) for tensors in (found, expected))
    return float(((flat - known).norm(dim=1) / known.norm(dim=1)).max())


def measured(name: str, layer: Layer, arrays: Arrays, expected: list[Tensor]) -> Row:
    """Return the times and the error of a layer."""
    w = weights(*arrays[1].shape)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad((layer(*arrays) * w).sum(), arrays)

    return Row(name, median(lambda: layer(*arrays)), median(both), error(both(), expected))


def ours(P: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Solve by DAQP in this library."""
    return al.qp(P, q, G, h, A, b, solver="qp.daqp")


def qplayer() -> Layer | None:
    """Return proxsuite's layer, None where it is not installed."""
    if importlib.util.find_spec("proxsuite") is None:
        return None
    from proxsuite.torch.qplayer import QPFunction

    def layer(P: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
        found: Tensor = QPFunction(structural_feasibility=True)(P, q, A, b, G, torch.full_like(h, -1e20), h)[0]
        return found

    return layer


def qpth() -> Layer | None:
    """Return qpth's layer, None where it is not installed."""
    if importlib.util.find_spec("qpth") is None:
        return None
    from qpth.qp import QPFunction

    def layer(P: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
        found: Tensor = QPFunction(verbose=-1)(P, q, G, h, A, b)
        return found

    return layer


def cvxpylayers(n: int) -> Layer | None:
    """Return the layer of cvxpylayers with Clarabel and its dense derivative, None where it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("cvxpylayers", "cvxpy", "clarabel")):
        return None
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    u, root, q = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n)
    G, h, A, b = cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter((n // 5, n)), cp.Parameter(n // 5)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(root @ u) + q @ u), [G @ u <= h, A @ u == b])
    node = CvxpyLayer(problem, parameters=[root, q, G, h, A, b], variables=[u])
    settings = {"solve_method": "Clarabel", "mode": "dense"}

    def layer(P: Tensor, q: Tensor, G: Tensor, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
        found: Tensor = node(torch.linalg.cholesky(P).mT, q, G, h, A, b, solver_args=settings)[0]
        return found

    return layer


def alone(arrays: Arrays) -> float:
    """Return milliseconds of DAQP through qpsolvers, one program after another, forward only."""
    import qpsolvers

    data = [t.detach().numpy() for t in arrays]

    def each() -> None:
        for program in zip(*data, strict=True):
            qpsolvers.solve_problem(qpsolvers.Problem(*program), solver="daqp")

    return median(each)


def dense(n: int, batch: int) -> rich.table.Table:
    """Return the table of one size."""
    arrays = tuple(t.requires_grad_() for t in programs(n, batch))
    expected = reference(arrays)
    rows = [measured("argminlayer, qp.daqp", ours, arrays, expected)]
    for name, layer in (("proxsuite QPLayer", qplayer()), ("qpth", qpth()), ("cvxpylayers, Clarabel", cvxpylayers(n))):
        if layer is not None:
            rows.append(measured(name, layer, arrays, expected))
    table = rich.table.Table(title=f"{n} variables, batch {batch}")
    for column in ("", "forward ms", "both ms", "worst gradient error"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("DAQP through qpsolvers, alone", f"{alone(arrays):.3g}", "", "")
    for row in rows:
        table.add_row(row.name, f"{row.forward:.3g}", f"{row.both:.3g}", f"{row.error:.0e}")
    return table


def sparse(n: int = 2000) -> rich.table.Table:
    """Return the table of a sparse program: the back end alone, and both passes around it."""
    import qpsolvers
    import scipy.sparse as sp

    import argminlayer_qp

    generator = np.random.default_rng(0)

    def matrix(rows: int) -> sp.csc_matrix:
        found = sp.random(rows, n, 2.0 / n, random_state=generator, data_rvs=generator.standard_normal)
        return sp.csc_matrix(found)

    root, G, A, inside = matrix(n), matrix(n), matrix(n // 5), generator.standard_normal(n)
    P = sp.csc_matrix(root @ root.T + 0.1 * sp.identity(n))
    q, h, b = generator.standard_normal(n), G @ inside + generator.random(n), A @ inside

    def tensor(m: sp.csc_matrix) -> Tensor:
        coo = m.tocoo()
        return torch.sparse_coo_tensor(np.stack([coo.row, coo.col]), coo.data, coo.shape).coalesce().requires_grad_()

    blocks = [tensor(P), torch.from_numpy(q), tensor(G), torch.from_numpy(h), tensor(A), torch.from_numpy(b)]
    arrays = [block.requires_grad_() for block in blocks]
    solver = argminlayer_qp.Clarabel()
    problem = qpsolvers.Problem(P, q, G, h, A, b)
    back_end = median(lambda: qpsolvers.solve_problem(problem, solver="clarabel", **solver.settings()))
    forward = median(lambda: al.qp(*arrays, solver=solver))
    value = al.qp(*arrays, solver=solver)
    backward = median(lambda: torch.autograd.grad(value.sum(), arrays, retain_graph=True))
    table = rich.table.Table(title=f"sparse, {n} variables, Clarabel")
    for column in ("back end alone ms", "forward ms", "ratio", "backward ms"):
        table.add_column(column, justify="right")
    table.add_row(f"{back_end:.3g}", f"{forward:.3g}", f"{forward / back_end:.2f}", f"{backward:.3g}")
    return table


def main() -> None:
    """Print the tables."""
    quick = "--quick" in sys.argv[1:]
    for n, batch in CASES[:2] if quick else CASES:
        rich.print(dense(n, batch))
    if not quick:
        rich.print(sparse())


if __name__ == "__main__":
    main()
