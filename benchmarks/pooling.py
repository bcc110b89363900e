"""Time of robust pooling on one thread, beside the mean, the times aimed at, and the reference's published ones.

128 channels, one item, float32, alpha 1, a tenth of the points ten times as far out. Prints processor time in
milliseconds, forward / backward (to the points and alpha), the least of several runs: a median says more of the other
work of a shared machine. The reference (ddn, commit a20a31f) was measured on another machine. A quarter of a minute.
"""

import time
from collections.abc import Callable

import rich.table
import torch

from argminlayer_pooling import RobustPool

REPEATS = {7: 200, 112: 12}
AIMS = {
    "quadratic": ("0.02 / -", "0.4 / 1", "19 / 2.9"),
    "pseudo-huber": ("0.3 / -", "13 / 3", "76 / 16"),
    "huber": ("0.3 / -", "10 / 2", "181 / 20"),
    "welsch": ("1 / -", "50 / 4", "173 / 19"),
    "truncated-quadratic": ("0.5 / -", "35 / 2", "470 / 18"),
    "geman-mcclure": ("-", "-", "-"),
    "barron": ("-", "-", "-"),
}
"""What is aimed at for 7x7 and for 112x112, and what the reference needs for 112x112."""


def least(work: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of ``work`` in milliseconds."""
    work()
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return 1e3 * min(times)


def both(pool: RobustPool, size: int) -> str:
    """Return milliseconds of forward and backward."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 128, size, size, generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.1, 10.0 * x, x).requires_grad_()
    y = pool(x)
    ones, leaves = torch.ones_like(y), [x, *pool.parameters()]

    def backward() -> object:
        return torch.autograd.grad(y, leaves, ones, retain_graph=True, allow_unused=True)

    return f"{least(lambda: pool(x), REPEATS[size]):.3g} / {least(backward, REPEATS[size]):.3g}"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    headings = ("penalty", "7x7", "aim", "112x112", "aim", "reference")
    table = rich.table.Table(*headings, title="ms forward / backward, 128 channels, one thread")
    for penalty, (small, large, reference) in AIMS.items():
        pool = RobustPool(penalty)
        table.add_row(penalty, both(pool, 7), small, both(pool, 112), large, reference)
    rich.print(table)


if __name__ == "__main__":
    main()
