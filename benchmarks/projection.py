"""Projections beside what the reference implementation of deep declarative networks does: time and memory.

The reference's numerics are written down here anew: the radius a tensor that is read at every call; for p = 1 a full
sort, cumulative sums and a threshold; signs taken off and put back; copies of input and output kept for the backward
pass; and the closed formulas of its derivative. Both sides run in the same process, in turn, on one thread in float32;
printed are medians, their ratios, the largest extra memory of a forward pass relative to the input, and what reading
and copying the points costs in the same run.

    python benchmarks/projection.py [--repeats 15]

In a loop the allocator hands out the same memory again and again. How it is where every tensor lies in fresh memory, as
in a model with many layers, is seen with

    MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/projection.py
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable

import rich
import rich.table
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from argminlayer_projection import LpProjection, SimplexProjection
from argminlayer_projection._power import _newton
from argminlayer_projection._rows import slices

TARGETS = {
    (4096, 1.0, "sphere"): (12.0, 1.8),
    (4096, 1.0, "ball"): (12.0, 1.8),
    (4096, 2.0, "sphere"): (15.0, 1.7),
    (4096, 2.0, "ball"): (15.0, 1.7),
    (4096, math.inf, "sphere"): (5.0, 6.0),
    (4096, math.inf, "ball"): (20.0, 8.0),
    (512, 1.0, "sphere"): (7.0, 1.5),
    (512, 2.0, "sphere"): (10.0, 1.6),
    (512, math.inf, "sphere"): (4.0, 5.0),
}
"""Speed-ups to reach, forward and backward, by length of a row, p and kind."""


class Reference(torch.autograd.Function):
    """The reference's projection onto a sphere or ball of p = 1, 2 or infinity, with its derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor, p: float, kind: str, radius: Tensor) -> Tensor:
        """Project the rows of x."""
        r = radius.item()
        y = {1.0: _reference_l1, 2.0: _reference_l2, math.inf: _reference_linf}[p](x, kind, r)
        outside = _reference_norm(x, p) > r if kind == "ball" else None
        if outside is not None and p != math.inf:
            y = torch.where(outside, y, x)
        ctx.p = p  # type: ignore[attr-defined]
        ctx.save_for_backward(y.clone(), x.clone(), outside)  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None, None, None]:
        """Apply the closed formula of the derivative."""
        y, x, outside = ctx.saved_tensors  # type: ignore[attr-defined]
        bar = {1.0: _reference_l1_pull, 2.0: _reference_l2_pull, math.inf: _reference_linf_pull}[ctx.p](g, y, x)  # type: ignore[attr-defined]
        return bar if outside is None else torch.where(outside, bar, g), None, None, None


def _reference_norm(x: Tensor, p: float) -> Tensor:
    if p == 2:
        return x.norm(dim=-1, keepdim=True)
    return x.abs().sum(-1, keepdim=True) if p == 1 else x.abs().amax(-1, keepdim=True)


def _reference_l1(x: Tensor, kind: str, r: float) -> Tensor:
    size = x.abs()
    ordered = torch.sort(size, dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - r
    support = (ordered * torch.arange(1.0, x.shape[-1] + 1.0) > excess).sum(-1, keepdim=True)
    threshold = excess.gather(-1, support - 1) / support
    return torch.relu(size - threshold) * x.sign()


def _reference_l1_pull(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    sign = y.sign()
    mean = (sign * g).sum(-1, keepdim=True) / (sign * sign).sum(-1, keepdim=True)
    return sign.abs() * g - sign * mean


def _reference_l2(x: Tensor, kind: str, r: float) -> Tensor:
    return r * (x / x.norm(dim=-1, keepdim=True))


def _reference_l2_pull(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    radius, length = y.norm(dim=-1, keepdim=True), x.norm(dim=-1, keepdim=True)
    return (radius / length) * (g - y * ((y * g).sum(-1, keepdim=True) / radius**2))


def _reference_linf(x: Tensor, kind: str, r: float) -> Tensor:
    size, limit = x.abs(), torch.tensor(r)
    size = torch.where(size > limit, limit, size)
    if kind == "sphere":
        size = torch.where(size >= size.max(-1, keepdim=True).values, limit, size)
    return size * x.sign()


def _reference_linf_pull(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
    size = y.abs()
    largest = size >= size.max(-1, keepdim=True).values
    sign = y.sign() * largest.to(y.dtype)
    return g - sign.abs() * g


def timed(layers: tuple[Callable[[Tensor], Tensor], ...], x: Tensor, repeats: int) -> list[tuple[float, float]]:
    """Return the median times in ms of forward and backward of each layer, in two rounds of one after the other."""
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in layers]
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_()
    for layer, (forward, backward) in 2 * tuple(zip(layers, times, strict=True)):
        for repeat in range(2 + repeats):
            leaf.grad = None
            began = time.perf_counter()
            y = layer(leaf)
            middle = time.perf_counter()
            y.backward(weights)
            if repeat >= 2:  # after warming up
                backward.append(1e3 * (time.perf_counter() - middle))
                forward.append(1e3 * (middle - began))
    return [(statistics.median(f), statistics.median(b)) for f, b in times]


def extra_memory(layer: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the largest sum of allocations alive during a forward pass, as a multiple of the input's size."""
    leaf = x.clone().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        layer(leaf)
    alive = itertools.accumulate(e.nbytes() for e in _allocations(run))
    return max(alive, default=0) / (x.numel() * x.element_size())


def _allocations(run: profile) -> list[object]:
    events = run.profiler.kineto_results.events()  # type: ignore[union-attr]
    return sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())


def compare(n: int, p: float, kind: str, repeats: int) -> tuple[str, ...]:
    """Return a row of the table."""
    x = torch.randn(256, n, generator=torch.Generator().manual_seed(0))
    layer = LpProjection(p, 1.0, kind)  # type: ignore[arg-type]
    radius = torch.tensor([1.0])
    ours, theirs = timed((layer, lambda t: Reference.apply(t, p, kind, radius.type(t.dtype).to(t.device))), x, repeats)
    wanted = TARGETS.get((n, p, kind))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return (
        f"(256, {n})",
        f"L{p:g} {kind}",
        f"{theirs[0]:.2f} / {theirs[1]:.2f}",
        f"{ours[0]:.3f} / {ours[1]:.3f}",
        f"{ratios[0]:.1f}x / {ratios[1]:.1f}x",
        "" if wanted is None else f"{wanted[0]:g}x / {wanted[1]:g}x",
        f"{extra_memory(layer, x):.2f}",
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    table = rich.table.Table(title="projections, float32, 1 thread, forward / backward")
    for column in ("shape", "set", "reference ms", "ours ms", "ratio", "to reach", "extra memory"):
        table.add_column(column, justify="right")
    for n, p, kind in itertools.product((4096, 512), (1.0, 2.0, math.inf), ("sphere", "ball")):
        table.add_row(*compare(n, p, kind, repeats))
    rich.print(table)
    for n in (4096, 512):
        floor(n, repeats)
    others(repeats)


def floor(n: int, repeats: int) -> None:
    """Print what no projection can be faster than, reading and copying points, and one Newton step of a general p."""
    x = torch.randn(256, n, generator=torch.Generator().manual_seed(0))
    c = x.abs()
    force, square, e, nu = c.log2(), c.square(), torch.full((256, 1), 0.5).double(), torch.zeros(256, 1).double()

    def steps(count: int) -> float:
        blocks = ((force[i], square[i], e[i], torch.zeros_like(c[i]), nu[i]) for i in slices(x, 16))
        return sum(_seconds(lambda b=b: _newton(*b, 3.0, 0.0, count), repeats) for b in blocks)  # type: ignore[misc]

    layer = LpProjection(2)
    rich.print(
        f"(256, {n}), ms: clone {1e3 * _seconds(x.clone, repeats):.3f}, "
        f"norm {1e3 * _seconds(lambda: x.norm(dim=-1), repeats):.3f}, "
        f"L2 sphere without grad {1e3 * _seconds(lambda: layer(x), repeats):.3f}, "
        f"a Newton step of L3 {1e3 * (steps(5) - steps(1)) / 4:.3f}"
    )


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(2 + repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def others(repeats: int) -> None:
    """Print the sets that the reference does not have, or has without a layer."""
    x = torch.randn(256, 4096, generator=torch.Generator().manual_seed(0))
    table = rich.table.Table(title="others, (256, 4096)")
    for column in ("set", "forward ms", "backward ms"):
        table.add_column(column, justify="right")
    layers = {f"L{p:g} sphere": LpProjection(p) for p in (1.1, 1.5, 3.0, 4.0)} | {"simplex": SimplexProjection()}
    for name, layer in layers.items():
        ((forward, backward),) = timed((layer,), x, max(5, repeats // 3))
        table.add_row(name, f"{forward:.2f}", f"{backward:.2f}")
    rich.print(table)


if __name__ == "__main__":
    main()
