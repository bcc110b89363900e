"""Time and peak memory of one pooling, forward and backward."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import argminlayer as al

from ._consumption import Consumption
from ._layers import RobustPool, RobustVectorPool


@dataclass(frozen=True)
class Cost:
    """What one pooling costs: medians in seconds, and peaks of memory allocated beside the input, over its size."""

    penalty: str
    size: int
    forward: float
    backward: float
    forward_memory: float
    backward_memory: float


def measure(settings: Consumption, penalty: str, size: int) -> Cost:
    """Return the cost of pooling a square map of features with a tenth of outliers.

    Raises:
        ExperimentError: the device cannot be used.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    x = torch.randn(1, settings.channels, size, size, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.1, 10.0 * x, x)
    try:
        x = x.to(settings.device).requires_grad_()
    except (RuntimeError, AssertionError) as error:
        raise al.ExperimentError(f"the device {settings.device!r} cannot be used: {error}") from error
    layer = RobustPool if settings.kind == "numbers" else RobustVectorPool
    pool = layer(penalty, settings.alpha, learnable=False).to(settings.device)
    with _threads(settings.threads):
        y = pool(x)
        ones = torch.ones_like(y)

        def backward() -> Tensor:
            return torch.autograd.grad(y, x, ones, retain_graph=True)[0]

        unit = x.numel() * x.element_size()
        return Cost(
            penalty,
            size,
            forward=_median(lambda: pool(x), settings.repeats, x.device),
            backward=_median(backward, settings.repeats, x.device),
            forward_memory=_peak(lambda: pool(x), x.device) / unit,
            backward_memory=_peak(backward, x.device) / unit,
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _median(work: Callable[[], Tensor], repeats: int, device: torch.device) -> float:
    work()
    times = []
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def _peak(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the largest number of bytes that torch holds during the work beyond what it held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return float(peak)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
