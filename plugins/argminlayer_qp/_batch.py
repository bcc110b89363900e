"""Batches in threads, for back ends that release Python's lock while they solve."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WORTHWHILE = 1e6
"""Below this many operations for a batch, handing work to threads costs more than it saves."""


def each_in_threads(solve: Callable[[int, int], None], batch: int, threads: int | None, operations: float) -> None:
    """Call ``solve(start, stop)`` for contiguous parts of a batch, at the same time where that pays.

    Args:
        solve: solves instances ``start`` to ``stop``.
        batch: number of instances.
        threads: how many at most, None for one per core.
        operations: of one instance, roughly.
    """
    count = 1 if batch * operations < WORTHWHILE else min(threads or os.cpu_count() or 1, batch)
    if count == 1:
        solve(0, batch)
        return
    edges = [batch * k // count for k in range(count + 1)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(solve, edges[:-1], edges[1:]))
