"""Time of the backward pass alone, beside its floor: one batched torch.linalg.solve of systems of the same size.

Values are exact and attached with `al.certify`, so no solver takes part. Prints medians in milliseconds on one thread,
the ratio to the floor, and what certifying costs. A few seconds.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import rich.table
import torch
from torch import Tensor

import argminlayer as al

REPEATS = 15


@dataclass(frozen=True)
class Case:
    """A problem with its exact solution; ``size`` counts the unknowns of its KKT system."""

    name: str
    problem: al.Problem
    parameters: tuple[Tensor, ...]
    value: Tensor
    size: int


def cases(batch: int, m: int = 50) -> Iterator[Case]:
    """Yield the nodes that are timed, for one batch size, with m variables and m parameters."""
    x = torch.linspace(0.5, 2.0, batch * m).reshape(batch, m)
    quartic = al.Problem(lambda u, x: ((u - x) ** 4 + (u - x) ** 2).sum(), "(m)->(m)")
    yield Case("unconstrained, separable quartic", quartic, (x,), x, m)
    sphere = al.Problem(lambda u, x: 0.5 * (u - x).square().sum(), "(m)->(m)", equality=lambda u, x: u @ u - 1)
    yield Case("one equality, sphere", sphere, (x,), x / x.norm(dim=-1, keepdim=True), m + 1)
    ball = al.Problem(lambda u, x: 0.5 * (u - x).square().sum(), "(m)->(m)", inequality=lambda u, x: u @ u - 1)
    scale = torch.where(torch.arange(batch)[:, None] % 2 == 0, 2.0, 0.5) / x.norm(dim=-1, keepdim=True)
    inside = x * scale
    value = inside / inside.norm(dim=-1, keepdim=True).clamp_min(1.0)
    yield Case("one inequality, half the batch active", ball, (inside,), value, m + 1)
    mixing = torch.cos(torch.arange(m * m).reshape(m, m) ** 1.1) / m
    curved = mixing.mT @ mixing + torch.eye(m)
    dense = al.Problem(lambda u, x: ((u - x) ** 4).sum() + 0.5 * (u - x) @ curved @ (u - x), "(m)->(m)")
    yield Case("unconstrained, full Hessian", dense, (x,), x, m)


def median(work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Return the median time of ``work`` in milliseconds, ``prepare`` before each run not counted."""
    times = []
    for _ in range(REPEATS):
        prepare()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[REPEATS // 2]


def measure(case: Case) -> tuple[float, float, float]:
    """Return milliseconds of certifying, of the backward pass, and of its floor."""
    leaves = [p.clone().requires_grad_() for p in case.parameters]
    held: list[Tensor] = []

    def certify() -> None:
        value = al.certify(case.problem, case.value, *leaves, throw=True).value
        held[:] = [value if isinstance(value, Tensor) else value[0]]

    forward = median(certify)
    backward = median(lambda: torch.autograd.grad(held[0], leaves, torch.ones_like(held[0])), certify)
    matrix = torch.eye(case.size).expand(len(case.value), -1, -1) + 0.01
    floor = median(lambda: torch.linalg.solve(matrix, torch.ones(len(case.value), case.size)))
    return forward, backward, floor


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    table = rich.table.Table(title="backward pass, m = n = 50, float64, 1 thread")
    for column in ("node", "batch", "certify ms", "backward ms", "floor ms", "backward / floor"):
        table.add_column(column, justify="left" if column == "node" else "right")
    for batch in (1, 32, 256):
        for case in cases(batch):
            forward, backward, floor = measure(case)
            figures = (f"{forward:.2f}", f"{backward:.2f}", f"{floor:.3f}", f"{backward / floor:.1f}")
            table.add_row(case.name, str(batch), *figures)
    rich.print(table)


if __name__ == "__main__":
    main()
