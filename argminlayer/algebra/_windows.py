"""Rules of operators with a sliding window: convolution and pooling."""

import math
from typing import Any

import torch
from torch import Tensor

from ._machine import Machine, Unsupported
from ._reductions import mean
from ._rules import Arguments, Rules

RULES = Rules()


@RULES.rule("convolution")
def _convolution(m: Machine[Any], a: Arguments) -> Any:
    """A convolution is a product of patches, gathered, with the weights."""
    if a["transposed"]:
        raise Unsupported("is a transposed convolution")
    x, weight, groups = m.value(a["input"]), a["weight"], int(a["groups"])
    rank, batch, channels = len(x.shape) - 2, x.shape[0], weight.shape[0]
    patches = Patches(
        x.shape, tuple(weight.shape[2:]), *(_spread(a[k], rank) for k in ("stride", "padding", "dilation"))
    )

    def rows(p: Tensor) -> Tensor:
        p = patches(p).movedim(1, rank + 1)
        p = p.reshape(batch * math.prod(patches.sizes), groups, -1)
        return p.permute(1, 0, 2)

    def arrange(p: Tensor) -> Tensor:
        p = p.reshape(groups, batch, *patches.sizes, channels // groups)
        return p.permute(1, 0, rank + 2, *range(2, rank + 2)).reshape(batch, channels, *patches.sizes)

    filters = m.move(lambda p: p.reshape(groups, -1, math.prod(p.shape[1:])).mT, weight)
    out = m.move(arrange, m.matmul(m.move(rows, x), filters))
    return out if a.get("bias") is None else m.add(out, m.move(lambda p: p.reshape(-1, *[1] * rank), a["bias"]))


@RULES.rule("avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _pool(m: Machine[Any], a: Arguments) -> Any:
    """Pooling reduces patches, gathered."""
    x, rank, largest = m.value(a["self"]), int(a["target"][8]), a["target"].startswith("max")
    if a["ceil_mode"] or not a.get("count_include_pad", True) or a.get("divisor_override") is not None:
        raise Unsupported("pools with ceil_mode, count_include_pad=False or divisor_override")
    kernel, padding = _spread(a["kernel_size"], rank), _spread(a["padding"], rank)
    if largest and any(padding):
        raise Unsupported("takes the maximum of padded data")
    stride = _spread(a["stride"], rank) if a["stride"] else kernel
    lead = x.shape[: len(x.shape) - rank]
    flat = torch.Size((1, lead.numel(), *x.shape[len(lead) :]))
    patches = Patches(flat, tuple(kernel), stride, padding, _spread(a.get("dilation", [1]), rank))
    gathered = m.move(lambda p: patches(p.reshape(flat)).reshape(*lead, *patches.sizes, -1), x)
    return (m.fold("max", gathered, -1), None) if largest else mean(m, gathered, -1, False)


def _spread(sizes: Any, rank: int) -> list[int]:
    return [int(s) for s in (sizes if len(sizes) == rank else list(sizes) * rank)]


class Patches:
    """Where the patches under a sliding window lie.

    Called with (batch, channels, *space), it returns (batch, channels, *sizes, *kernel), padded with zeros.
    """

    def __init__(
        self, shape: torch.Size, kernel: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int]
    ):
        settings = zip(shape[2:], kernel, stride, padding, dilation, strict=True)
        self.sizes = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings)
        self._padding = [width for p in reversed(padding) for width in (p, p)]
        self._spots = [
            torch.arange(n)[:, None] * s + torch.arange(k)[None, :] * d
            for n, k, s, d in zip(self.sizes, kernel, stride, dilation, strict=True)
        ]

    def __call__(self, p: Tensor) -> Tensor:
        p = torch.nn.functional.pad(p, self._padding)
        rank = len(self._spots)
        for d, spots in enumerate(self._spots):
            p = p.index_select(2 + 2 * d, spots.reshape(-1))
            p = p.reshape(*p.shape[: 2 + 2 * d], *spots.shape, *p.shape[3 + 2 * d :])
        outer = [2 + 2 * d for d in range(rank)]
        return p.permute(0, 1, *outer, *(o + 1 for o in outer))
