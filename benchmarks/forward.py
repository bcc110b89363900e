"""Time of a whole solve beside SciPy alone: the same method called by hand, with derivatives written in NumPy.

The node pays for torch callbacks, the certificate and the refinement. Prints medians in milliseconds on one thread and
the ratio. Half a minute.
"""

import time
from collections.abc import Callable

import numpy as np
import rich.table
import scipy.optimize as so
import torch

import argminlayer as al

REPEATS = 5


def median(work: Callable[[], object]) -> float:
    """Return the median time of ``work`` in milliseconds, after one run that is not counted."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[REPEATS // 2]


def simplex(batch: int, n: int) -> tuple[float, float]:
    """Return milliseconds of projecting onto the simplex by SLSQP: the node, and SciPy alone."""
    x = torch.sin(torch.arange(batch * n, dtype=torch.float64)).reshape(batch, n)
    node = al.Problem(
        lambda u, x: 0.5 * (u - x).square().sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0
    )
    ones = np.ones((1, n))
    constraint = {"type": "eq", "fun": lambda u: u.sum() - 1, "jac": lambda u: ones}

    def alone() -> None:
        for row in x.numpy():
            so.minimize(
                lambda u, row=row: (0.5 * np.sum((u - row) ** 2), u - row),
                np.ones(n),
                jac=True,
                method="SLSQP",
                bounds=[(0.0, None)] * n,
                constraints=[constraint],
                options={"ftol": 1e-10},
            )

    return median(lambda: al.solve(node, x, solver="scipy.slsqp")), median(alone)


def logistic(batch: int, n: int, rows: int = 200) -> tuple[float, float]:
    """Return milliseconds of ridge-regularised logistic regression by L-BFGS: the node, and SciPy alone."""
    A = torch.cos(torch.arange(rows * n, dtype=torch.float64) ** 1.3).reshape(rows, n)
    labels = torch.sign(torch.sin(torch.arange(batch * rows, dtype=torch.float64))).reshape(batch, rows)
    node = al.Problem(lambda w, A, s: torch.nn.functional.softplus(-s * (A @ w)).sum() + 0.5 * w @ w, "(r,n),(r)->(n)")
    data = A.numpy()

    def loss(w: np.ndarray, s: np.ndarray) -> tuple[float, np.ndarray]:
        margin = -s * (data @ w)
        slope = -s / (1.0 + np.exp(-margin))
        return float(np.logaddexp(0.0, margin).sum() + 0.5 * w @ w), data.T @ slope + w

    def alone() -> None:
        for s in labels.numpy():
            so.minimize(loss, np.zeros(n), args=(s,), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0.0})

    return median(lambda: al.solve(node, A, labels, solver="scipy.lbfgs")), median(alone)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = rich.table.Table(title="forward pass, float64, 1 thread")
    for column in ("problem", "batch", "n", "node ms", "SciPy alone ms", "ratio"):
        table.add_column(column, justify="left" if column == "problem" else "right")
    for name, run in (("simplex, SLSQP", simplex), ("logistic regression, L-BFGS-B", logistic)):
        for batch, n in ((1, 10), (64, 10), (16, 50)):
            node, alone = run(batch, n)
            table.add_row(name, str(batch), str(n), f"{node:.1f}", f"{alone:.1f}", f"{node / alone:.1f}")
    rich.print(table)


if __name__ == "__main__":
    main()
