"""Robust pooling of numbers beside what the reference implementation of deep declarative networks does.

The reference's numerics are written down here anew: L-BFGS of torch without a line search (100 iterations, tolerance
1e-5) on the sum of the objectives of all items, from the mean, and for penalties that are not convex from the median
too, the better of both for each item; backward the closed formula w / sum(w) by plain tensor operations. Both sides run
in one process, in turn, on one thread: 128 channels, one item, float32, alpha 1, a tenth of the points ten times as far
out. Printed are least processor times (a median says more of the other work of a shared machine), their ratios, what is
aimed at, and the largest extra memory of a forward and a backward pass relative to the input. The sum of the input is
timed beside, as a measure of the machine.

    python benchmarks/pooling.py [--sizes 7,112] [--repeats 12]
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import rich
import rich.table
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from argminlayer_pooling import RobustPool

AIMS = {
    7: {
        "quadratic": "0.02 / -",
        "pseudo-huber": "0.3 / -",
        "huber": "0.3 / -",
        "welsch": "1 / -",
        "truncated-quadratic": "0.5 / -",
    },
    112: {
        "quadratic": "0.4 / 1",
        "pseudo-huber": "13 / 3",
        "huber": "10 / 2",
        "welsch": "50 / 4",
        "truncated-quadratic": "35 / 2",
    },
}
"""Milliseconds aimed at, forward / backward, by side of the map and penalty."""
PENALTIES = (*AIMS[7], "geman-mcclure", "barron")


@dataclass(frozen=True)
class Reference:
    """A penalty as the reference evaluates it, alpha 1: what is summed, and its second derivative, of residuals z."""

    value: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    convex: bool


def _root(z: Tensor) -> Tensor:
    return (1.0 + z.square()).sqrt()


REFERENCES = {
    "quadratic": Reference(lambda z: 0.5 * z.square(), torch.ones_like, True),
    "pseudo-huber": Reference(lambda z: _root(z) - 1.0, lambda z: _root(z).pow(-3), True),
    "huber": Reference(
        lambda z: torch.where(z.abs() <= 1.0, 0.5 * z.square(), z.abs() - 0.5), lambda z: (z.abs() <= 1.0).to(z), True
    ),
    "welsch": Reference(
        lambda z: 1.0 - (-0.5 * z.square()).exp(), lambda z: (1.0 - z.square()) * (-0.5 * z.square()).exp(), False
    ),
    "truncated-quadratic": Reference(
        lambda z: torch.where(z.abs() <= 1.0, 0.5 * z.square(), torch.full_like(z, 0.5)),
        lambda z: (z.abs() <= 1.0).to(z),
        False,
    ),
}


class ReferencePool(torch.autograd.Function):
    """The reference's pooling over the last two dimensions, with its closed derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor, penalty: str) -> Tensor:
        """Pool the maps of x (..., h, w)."""
        reference = REFERENCES[penalty]
        y = _minimised(reference, x, x.mean((-2, -1)))
        if not reference.convex:
            other = _minimised(reference, x, x.flatten(-2).median(-1).values)
            y = torch.where(_objective(reference, x, y) <= _objective(reference, x, other), y, other)
        ctx.reference = reference  # type: ignore[attr-defined]
        ctx.save_for_backward(x, y)  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None]:
        """Share the cotangent in proportion to the second derivatives, not at all where they cancel."""
        x, y = ctx.saved_tensors  # type: ignore[attr-defined]
        w = ctx.reference.curvature(x - y[..., None, None])  # type: ignore[attr-defined]
        total = w.sum((-2, -1), keepdim=True)
        return torch.where(total.abs() < 1e-9, torch.zeros_like(w), g[..., None, None] * w / total), None


def _objective(reference: Reference, x: Tensor, y: Tensor) -> Tensor:
    return reference.value(x - y[..., None, None]).sum((-2, -1))


def _minimised(reference: Reference, x: Tensor, start: Tensor) -> Tensor:
    """Return where L-BFGS on the sum over all items ends."""
    y = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([y], lr=1.0, max_iter=100, tolerance_grad=1e-5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _objective(reference, x, y).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return y.detach()


@dataclass(frozen=True)
class Cost:
    """Least milliseconds of forward and backward, and their largest extra memory relative to the input."""

    forward: float
    backward: float
    forward_memory: float
    backward_memory: float


def points(size: int) -> Tensor:
    """Return the maps that are pooled."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 128, size, size, generator=generator)
    return torch.where(torch.rand(x.shape, generator=generator) < 0.1, 10.0 * x, x)


def least(work: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of ``work`` in milliseconds."""
    work()
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return 1e3 * min(times)


def cost(pool: Callable[[Tensor], Tensor], parameters: list[Tensor], size: int, repeats: int) -> Cost:
    """Return what a pooling costs, backward to its points and parameters."""
    x = points(size).requires_grad_()
    y = pool(x)
    ones = torch.ones_like(y)

    def backward() -> object:
        return torch.autograd.grad(y, [x, *parameters], ones, retain_graph=True, allow_unused=True)

    works = (lambda: pool(x)), backward
    times = (least(work, repeats) for work in works)
    return Cost(*times, *(extra_memory(work) / (x.numel() * x.element_size()) for work in works))


def extra_memory(work: Callable[[], object]) -> float:
    """Return the largest sum of bytes allocated and alive at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    events = run.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return float(max(itertools.accumulate(e.nbytes() for e in changes), default=0))


def row(penalty: str, size: int, repeats: int) -> tuple[str, ...]:
    """Return a row of the table."""
    pool = RobustPool(penalty)
    ours = cost(pool, list(pool.parameters()), size, repeats)
    said = [penalty, f"{size}x{size}", f"{ours.forward:.3g} / {ours.backward:.3g}", AIMS.get(size, {}).get(penalty, "")]
    if penalty in REFERENCES:
        # a few of its runs are enough: it is slow
        theirs = cost(lambda x: ReferencePool.apply(x, penalty), [], size, max(3, repeats // 6))  # type: ignore[no-untyped-call]
        said.append(f"{theirs.forward:.3g} / {theirs.backward:.3g}")
        said.append(f"{theirs.forward / ours.forward:.1f}x / {theirs.backward / ours.backward:.1f}x")
        said.append(f"{theirs.forward_memory:.1f} / {theirs.backward_memory:.1f}")
    else:
        said += ["", "", ""]
    said.insert(6, f"{ours.forward_memory:.1f} / {ours.backward_memory:.1f}")
    return tuple(said)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[7, 112])
    parser.add_argument("--repeats", type=int, default=12, help="for maps of 112x112; smaller ones run more often")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    headings = ("penalty", "map", "ours ms", "aim ms", "reference ms", "ratio", "memory", "reference memory")
    table = rich.table.Table(*headings, title="forward / backward, 128 channels, float32, one thread")
    for size in arguments.sizes:
        repeats = min(300, arguments.repeats * max(1, 12544 // size**2))
        for penalty in PENALTIES:
            table.add_row(*row(penalty, size, repeats))
        x = points(size)
        table.add_row("the sum of the input", f"{size}x{size}", f"{least(lambda x=x: x.sum(), repeats):.3g}")
    rich.get_console().width = max(rich.get_console().width, 130)
    rich.print(table)


if __name__ == "__main__":
    main()
