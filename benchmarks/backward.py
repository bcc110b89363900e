"""Time and memory of the backward pass alone, beside its floor: one batched torch.linalg.solve of systems as large.

Values are exact and attached with `al.certify`, so no solver takes part; the backward pass is repeated on one graph,
which is kept. Prints medians in milliseconds on one thread, the ratio to the floor, what certifying costs and the peak
memory; then a projection beside its hand-written layer, and a sparse problem. With --figure PATH it also draws how time
grows with the number of variables, of instances and of parameters. Ten seconds, a minute with the figure.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

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


def quartic(batch: int, m: int) -> Case:
    """Return a separable problem, whose Hessian is diagonal."""
    x = torch.linspace(0.5, 2.0, batch * m).reshape(batch, m)
    problem = al.Problem(lambda u, x: ((u - x) ** 4 + (u - x) ** 2).sum(), "(m)->(m)")
    return Case("unconstrained, separable quartic", problem, (x,), x, m)


def sphere(batch: int, m: int) -> Case:
    """Return the projection onto a sphere."""
    x = torch.linspace(0.5, 2.0, batch * m).reshape(batch, m)
    problem = al.Problem(lambda u, x: 0.5 * (u - x).square().sum(), "(m)->(m)", equality=lambda u, x: u @ u - 1)
    return Case("one equality, sphere", problem, (x,), x / x.norm(dim=-1, keepdim=True), m + 1)


def half_active(batch: int, m: int) -> Case:
    """Return the projection onto a ball that half of the points are in."""
    x = torch.linspace(0.5, 2.0, batch * m).reshape(batch, m)
    problem = al.Problem(lambda u, x: 0.5 * (u - x).square().sum(), "(m)->(m)", inequality=lambda u, x: u @ u - 1)
    scale = torch.where(torch.arange(batch)[:, None] % 2 == 0, 2.0, 0.5) / x.norm(dim=-1, keepdim=True)
    inside = x * scale
    value = inside / inside.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return Case("one inequality, half the batch active", problem, (inside,), value, m + 1)


def full(batch: int, m: int) -> Case:
    """Return a problem whose Hessian has no structure."""
    x = torch.linspace(0.5, 2.0, batch * m).reshape(batch, m)
    mixing = torch.cos(torch.arange(m * m).reshape(m, m) ** 1.1) / m
    curved = mixing.mT @ mixing + torch.eye(m)
    problem = al.Problem(lambda u, x: ((u - x) ** 4).sum() + 0.5 * (u - x) @ curved @ (u - x), "(m)->(m)")
    return Case("unconstrained, full Hessian", problem, (x,), x, m)


def many_parameters(batch: int, m: int, count: int) -> Case:
    """Return a problem with a matrix of ``count`` rows as its parameter, of least squares."""
    rows = torch.cos(torch.arange(float(batch * count * m))).reshape(batch, count, m) + 3.0 * torch.eye(count, m)
    target = rows.sum(-1)
    problem = al.Problem(lambda u, a, b: 0.5 * (a @ u - b).square().sum() + 0.5 * (u - 1) @ (u - 1), "(k,m),(k)->(m)")
    return Case("least squares", problem, (rows, target), torch.ones(batch, m), m)


def control(steps: int) -> Case:
    """Return an oscillator that is driven to rest, with two variables for each of its steps; its solution is zero."""

    def cost(u: Tensor, x: Tensor) -> Tensor:
        position, force = u[:steps], u[steps:]
        return 0.5 * (position - x).square().sum() + 0.05 * force.square().sum() + 0.01 * position.pow(4).sum()

    def motion(u: Tensor, x: Tensor) -> Tensor:
        position, force = u[:steps], u[steps:]
        return position[1:] - position[:-1] - 0.01 * (torch.sin(position[:-1]) + force[:-1])

    problem = al.Problem(cost, f"(k)->({2 * steps})", equality=motion)
    zero = torch.zeros(1, 2 * steps)
    return Case(f"optimal control, {2 * steps} variables", problem, (torch.zeros(1, steps),), zero, 3 * steps)


CASES: tuple[Callable[[int, int], Case], ...] = (quartic, sphere, half_active, full)


def median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median time of ``work`` in milliseconds, after three runs that are not counted."""
    times = []
    for _ in range(3):
        work()
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[repeats // 2]


def peak_megabytes(work: Callable[[], object]) -> float:
    """Return the most memory that ``work`` holds at once beyond what was held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    results: Any = record.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def prepared(case: Case) -> tuple[Callable[[], None], Callable[[], object]]:
    """Return what certifies the value of a case, and what differentiates it, keeping the graph."""
    leaves = [p.clone().requires_grad_() for p in case.parameters]
    held: list[Tensor] = []

    def certify() -> None:
        value = al.certify(case.problem, case.value, *leaves, throw=True).value
        held[:] = [value if isinstance(value, Tensor) else value[0]]

    def backward() -> object:
        return torch.autograd.grad(held[0], leaves, torch.ones_like(held[0]), retain_graph=True)

    return certify, backward


def floor(batch: int, size: int) -> float:
    """Return milliseconds of one batched solve of systems of this size."""
    matrix = torch.eye(size).expand(batch, -1, -1) + 0.01
    return median(lambda: torch.linalg.solve(matrix, torch.ones(batch, size)))


def main_table() -> Iterator[rich.table.Table]:
    """Yield the table of the usual sizes."""
    table = rich.table.Table(title="backward pass, m = n = 50, float64, 1 thread")
    for column in ("node", "batch", "certify ms", "backward ms", "floor ms", "backward / floor", "peak MB"):
        table.add_column(column, justify="left" if column == "node" else "right")
    for batch in (1, 32, 256):
        for make in CASES:
            case = make(batch, 50)
            certify, backward = prepared(case)
            forward_time, lowest = median(certify), floor(batch, case.size)
            backward_time = median(backward)
            figures = (f"{forward_time:.2f}", f"{backward_time:.3f}", f"{lowest:.3f}", f"{backward_time / lowest:.2f}")
            table.add_row(case.name, str(batch), *figures, f"{peak_megabytes(backward):.2f}")
    yield table


class HandWritten(torch.autograd.Function):
    """The projection onto the unit sphere with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        size = x.norm(dim=-1, keepdim=True)
        ctx.save_for_backward(x / size, size)
        return x / size

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> Tensor:
        y, size = ctx.saved_tensors
        return (bar - y * (y * bar).sum(-1, keepdim=True)) / size


def large_table() -> Iterator[rich.table.Table]:
    """Yield the table of large problems: a projection beside its hand-written layer, and a sparse one."""
    table = rich.table.Table(title="large problems, float64, 1 thread")
    for column in ("node", "certify ms", "backward ms", "hand-written ms", "ratio", "peak MB"):
        table.add_column(column, justify="left" if column == "node" else "right")
    case = sphere(256, 4096)
    certify, backward = prepared(case)
    x = case.parameters[0].clone().requires_grad_()
    y = HandWritten.apply(x)  # type: ignore[no-untyped-call]
    forward_time, backward_time = median(certify, repeats=3), median(backward)
    by_hand = median(lambda: torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True))
    figures = (f"{forward_time:.0f}", f"{backward_time:.2f}", f"{by_hand:.2f}", f"{backward_time / by_hand:.2f}")
    table.add_row("sphere, n = 4096, batch 256", *figures, f"{peak_megabytes(backward):.1f}")
    case = control(2500)
    certify, backward = prepared(case)
    forward_time, backward_time = median(certify, repeats=5), median(backward)
    table.add_row(case.name, f"{forward_time:.0f}", f"{backward_time:.2f}", "", "", f"{peak_megabytes(backward):.1f}")
    yield table


def draw(path: Path) -> None:
    """Draw how the time of the backward pass grows."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True, layout="constrained")
    sizes, batches, counts = (10, 20, 50, 100, 200, 500), (1, 4, 16, 64, 256, 1024), (10, 30, 100, 300, 1000)
    for make in CASES:
        for axis, values, build in (
            (axes[0], sizes, lambda m, make=make: make(16, m)),
            (axes[1], batches, lambda b, make=make: make(b, 50)),
        ):
            axis.loglog(values, [timed(build(v)) for v in values], marker="o", label=make(1, 2).name)
    axes[2].loglog([50 * c for c in counts], [timed(many_parameters(16, 50, c)) for c in counts], marker="o", color="k")
    axes[0].set(xlabel="variables (batch 16)", ylabel="backward pass, ms")
    axes[1].set(xlabel="instances (50 variables)")
    axes[2].set(xlabel="parameters of an instance (50 variables, batch 16)")
    axes[1].legend(fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def timed(case: Case) -> float:
    """Return milliseconds of the backward pass."""
    certify, backward = prepared(case)
    certify()
    return median(backward, repeats=7)


def main() -> None:
    """Print the tables, and draw the figure if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path, help="where to draw how time grows")
    figure = parser.parse_args().figure
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for table in (*main_table(), *large_table()):
        rich.print(table)
    if figure:
        draw(figure)


if __name__ == "__main__":
    main()
