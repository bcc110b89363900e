"""The kernels of projections as functions of tensors: rows on the chip in one launch, longer ones in several passes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._pools import wide

LONGEST = 8192
"""Entries in float32 of a row that is kept on the chip, half as many in float64; longer ones are split."""
PART = 4096
"""Entries of a longer row that one program has."""
SINGLE = (1.2, 50.0)
"""Between these a general p without weights is solved in float32; beyond them its rounding is magnified."""


def project(data: dict[str, Any], x: Tensor, r: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the nearest points of rows and their states (B,); see ``_project_kernels``.

    Args:
        data: of the structure.
        x: (B, n), contiguous, not empty.
        r: radii, (1,) or (B,).
        w: weights, (1, n) or (B, n), or None.
    """
    from . import _power_kernels as powers
    from . import _project_kernels as kernels

    p, ball, simplex = data.get("p", 1.0), data.get("kind") == "ball", data["set"] == "simplex"
    general = not (p == 1 or math.isinf(p) or (p == 2 and w is None))
    precise = (w is not None and not math.isinf(p)) or (general and not SINGLE[0] <= p <= SINGLE[1])
    rows = _Rows.of(x, torch.float64 if precise else wide(x))
    y, state = torch.empty_like(x), torch.empty(len(x), dtype=wide(x), device=x.device)
    given = {"x_ptr": x, "y_ptr": y, "state_ptr": state, **rows.column(r), "BALL": ball}
    if general:
        limits = torch.finfo(rows.dtype)
        given |= {**rows.weights(w, x), "P": p, "EPS": limits.eps, "LIMIT": 0.9 * math.log2(limits.max)}
        _power(rows, powers, given)
    elif p == 2:
        rows.run(kernels.scale, range(3), TINY=torch.finfo(rows.dtype).tiny, **given)
    elif p == 1:
        _threshold(rows, kernels.threshold, {**given, **rows.weights(w, x), "SIGNED": not simplex})
    else:
        rows.run(kernels.clip, (0, 2) if ball else range(3), **given, **rows.weights(w, x))
    return y, state


def pull(
    data: dict[str, Any], g: Tensor, y: Tensor, state: Tensor, x: Tensor | None, r: Tensor, w: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the cotangents of x (B, n), the radii (B,) in working precision, and the weights (B, n).

    Args:
        data: of the structure.
        g: the cotangent of y, (B, n), contiguous, not empty.
        y: the nearest points.
        state: (B,).
        x: the points, where the derivative depends on them.
        r: radii, (1,) or (B,).
        w: weights, (1, n) or (B, n), or None.
    """
    from . import _pull_kernels as kernels

    p, rows = data.get("p", 1.0), _Rows.of(y, wide(y))
    gx, gr = torch.empty_like(y), torch.empty(len(y), dtype=rows.dtype, device=y.device)
    gw = None if w is None else torch.empty_like(y)
    given = {"g_ptr": g, "y_ptr": y, **rows.column(r), **rows.weights(w, y), "MASK": data.get("plateau") != "implicit"}
    given |= {"gx_ptr": gx, "gr_ptr": gr, "gw_ptr": gx if gw is None else gw}
    if math.isinf(p):
        rows.run(kernels.pull_clip, range(2), **given)
    else:
        bends = w is not None or p not in (1.0, 2.0)
        given |= {"state_ptr": state, "x_ptr": y if x is None else x, "P": p, "TINY": torch.finfo(rows.dtype).tiny}
        rows.run(kernels.pull_smooth, range(0 if bends else 1, 3), **given)
    return gx, gr, gw


@dataclass(frozen=True)
class _Rows:
    """How rows are launched.

    Attributes:
        count: of rows.
        n: of their entries.
        dtype: the precision to compute in.
        block: entries of a program.
        sums: what programs of a long row tell each other, (count, slots, parts); empty where rows are on the chip.
    """

    count: int
    n: int
    dtype: torch.dtype
    block: int
    sums: Tensor

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype) -> "_Rows":
        """Return how rows like x (B, n) are launched."""
        import triton

        from ._row_kernels import SLOTS

        (count, n), longest = x.shape, LONGEST * 4 // dtype.itemsize
        block = triton.next_power_of_2(n) if n <= longest else min(PART, longest)
        parts = triton.cdiv(n, block) if n > longest else 0
        return cls(count, n, dtype, block, torch.empty(count, SLOTS.value, parts, dtype=dtype, device=x.device))

    @property
    def long(self) -> bool:
        """Whether a row has several programs."""
        return self.sums.shape[2] > 0

    def column(self, r: Tensor) -> dict[str, Any]:
        """Return the arguments for radii, (1,) or (B,)."""
        return {"r_ptr": r.to(self.dtype).contiguous(), "r_stride": int(len(r) > 1)}

    def weights(self, w: Tensor | None, unread: Tensor) -> dict[str, Any]:
        """Return the arguments for weights, (1, n) or (B, n), or none."""
        stride = 0 if w is None or len(w) == 1 else self.n
        return {"w_ptr": unread if w is None else w, "w_stride": stride, "WEIGHTED": w is not None}

    def run(self, kernel: Any, passes: Iterable[int], **given: Any) -> None:
        """Launch a kernel once for rows on the chip, and for longer ones once for each pass."""
        import triton.language as tl

        programs = self.count * (self.sums.shape[2] if self.long else 1)
        options = {
            "WIDE": tl.float64 if self.dtype == torch.float64 else tl.float32,
            "BLOCK": self.block,
            "num_warps": max(1, min(16, self.block * self.dtype.itemsize // 1024)),
        }
        with torch.cuda.device_of(self.sums):
            for index in passes if self.long else (-1,):
                kernel[(programs,)](**given, sums_ptr=self.sums, n=self.n, PASS=index, **options)


def _threshold(rows: _Rows, kernel: Any, given: dict[str, Any]) -> None:
    """Project onto the simplex or p = 1; a step of long rows is a pass, and all rows end together."""
    shift = torch.zeros(rows.count, dtype=rows.dtype, device=rows.sums.device)
    given["shift_ptr"] = shift
    if rows.long:
        rows.run(kernel, (0, 1), **given)
        before = torch.full_like(shift, torch.inf)
        while True:
            rows.run(kernel, (2,), **given)
            filled, mass = rows.sums[:, 6].sum(-1), rows.sums[:, 7].sum(-1)
            moves = mass < before
            if not bool(moves.any()):
                break
            shift += torch.where(moves & (mass > 0), (filled - given["r_ptr"]) / mass, 0.0)
            before = mass
    rows.run(kernel, (3,), **given)


def _power(rows: _Rows, kernels: Any, given: dict[str, Any]) -> None:
    """Project onto a general p; a step of long rows is a pass and what ends it, and all rows end together."""
    unknowns = rows.sums
    if rows.long:
        unknowns = rows.sums.new_tensor([math.nan, math.nan, -math.inf, math.inf, math.inf]).repeat(rows.count, 1)
        kept = torch.empty(2, rows.count, rows.n, dtype=rows.dtype, device=rows.sums.device)
        given |= {"row_ptr": unknowns, "d_ptr": kept[0], "moves_ptr": kept[1]}
        rows.run(kernels.power, range(4), **given)
        for _ in range(kernels.STEPS.value):
            rows.run(kernels.power, (4,), **given)
            with torch.cuda.device_of(unknowns):
                kernels.settle[(rows.count,)](unknowns, rows.sums, rows.sums.shape[2], P=given["P"])
            if not bool((unknowns[:, 4] >= 0.5 * given["EPS"] ** 0.5).any()):
                break
        rows.run(kernels.power, (5, 6), **given)
    else:
        rows.run(kernels.power, (), row_ptr=unknowns, d_ptr=unknowns, moves_ptr=unknowns, **given)
