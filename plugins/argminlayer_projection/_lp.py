"""Spheres and balls of every p >= 1, with weights: the set, its problem, and the formulas of its derivative."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from . import _lp_derivative as derivative
from ._function import AbstractClosedForm, Cotangents
from ._lp_problem import conditions
from ._power import onto_power
from ._rows import PARTS, Kernel, by_rows, column, flat, own, rowwise, slices, working
from ._scaling import onto_l2, onto_linf
from ._threshold import onto_l1, onto_weighted_l1


@dataclass(frozen=True)
class LpSet(AbstractClosedForm):
    """The sphere ``(sum w_i |u_i|^p)^(1/p) = r`` or the ball ``<= r``; for p = infinity ``max w_i |u_i|``.

    Parameters: x (n), r (), and w (n) if ``weighted``.

    Attributes:
        p: at least 1.
        kind: sphere or ball.
        plateau: whether entries that sit on a plateau of the norm (zeros for p = 1, the largest for p = infinity) are
            held there (``"mask"``, the derivative of the projection) or not (``"implicit"``, the unmasked matrices of
            Gould et al., table 1).
        weighted: whether there are weights.
    """

    name: ClassVar[str] = "lp"
    p: float = 1.0
    kind: Literal["sphere", "ball"] = "sphere"
    plateau: Literal["mask", "implicit"] = "mask"
    weighted: bool = False

    @property
    def signature(self) -> str:
        """``(n),()->(n)``, with ``(n)`` for the weights."""
        return "(n),(),(n)->(n)" if self.weighted else "(n),()->(n)"

    @property
    def cores(self) -> tuple[int, ...]:
        """Core dimensions of x, r and w."""
        return (1, 0, 1) if self.weighted else (1, 0)

    @property
    def curved(self) -> bool:
        """Only for p = 1 and p = infinity the nearest point says all."""
        return self.weighted or not (self.p == 1 or math.isinf(self.p))

    @property
    def conditions(self) -> dict[str, Any]:
        """Constraints that are smooth at the solution: in the orthant of x for p = 1, on its face for infinity."""
        return conditions(self.p, self.kind == "ball", self.weighted)

    # Nearest points.

    def solve(self, throw: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest points (..., n) and their states (..., 1), see ``_rows.Kernel``."""
        lead, r = x.shape[:-1], parameters[0]
        dtype = working(x.dtype)
        weights = rowwise(parameters[1], lead, dtype) if self.weighted else None
        y, state = by_rows(self._kernel, throw, flat(x), column(r, lead, dtype), weights, parts=self._parts)
        return (y, state) if len(lead) == 1 else (y.reshape(x.shape), state.reshape((*lead, 1)))

    @functools.cached_property
    def _parts(self) -> int:
        """In how many blocks at least rows are worked through, by the temporaries of the kernel."""
        if self.weighted or self.p not in (1, 2, math.inf):
            return PARTS if self.p in (1, math.inf) else 4 * PARTS
        return 1

    @functools.cached_property
    def _kernel(self) -> Kernel:
        ball = self.kind == "ball"
        if math.isinf(self.p):
            return functools.partial(onto_linf, ball=ball)
        if self.p == 1:
            return functools.partial(onto_weighted_l1 if self.weighted else onto_l1, ball=ball)
        if self.p == 2 and not self.weighted:
            return functools.partial(onto_l2, ball=ball)
        return functools.partial(onto_power, p=self.p, ball=ball)

    # Derivatives.

    def pull(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Pull a cotangent back to x, r and w."""
        g_wide, *linear = self._linear(g, y, state, x, *parameters)
        pulled = (derivative.pull_clipped if math.isinf(self.p) else derivative.pull_smooth)(g_wide, *linear)
        return tuple(bar.to(g.dtype) for bar in pulled[: 1 + len(parameters)])

    def push(self, tangents: Cotangents, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        """Push tangents of x, r and w forward."""
        dx = torch.zeros_like(y) if tangents[0] is None else tangents[0]
        wide, *linear = self._linear(dx, y, state, x, *parameters)
        dr = None if tangents[1] is None else tangents[1].to(wide.dtype).unsqueeze(-1)
        dw = None if not self.weighted or tangents[2] is None else tangents[2].to(wide.dtype)
        pushed = derivative.push_clipped if math.isinf(self.p) else derivative.push_smooth
        return pushed(wide, dr, dw, *linear).to(y.dtype)

    def _linear(self, g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Any, ...]:
        """Return ``g`` in working precision, and the problem linearised at the solution."""
        dtype = working(y.dtype)
        wide_y, r = y.to(dtype), parameters[0].to(dtype).unsqueeze(-1)
        w = parameters[1].to(dtype) if self.weighted else None
        if math.isinf(self.p):
            return g.to(dtype), derivative.clipped(wide_y, r, w, self.plateau == "mask", y.dtype)
        wide_x = x.to(dtype) if self.curved else wide_y
        return g.to(dtype), derivative.smooth(self.p, wide_y, state, wide_x, r, w, self.plateau == "mask")

    def pull_fast(
        self, wanted: tuple[bool, ...], g: Tensor, y: Tensor, state: Tensor, x: Tensor, *parameters: Tensor
    ) -> Cotangents:
        """Pull a cotangent back block by block, by a fused formula for the hot sets."""
        lead, n = y.shape[:-1], y.shape[-1]
        kernel = self._pull_kernel(y, *parameters)
        rows = [flat(t) for t in (g, y, state)] + ([] if x is None else [flat(x)])
        columns = [column(parameters[0], lead, working(y.dtype))]
        if self.weighted:
            columns.append(rowwise(parameters[1], lead, working(y.dtype)))
        out = torch.empty_like(rows[0])
        radius, *weights = kernel(wanted, out, *rows, *columns) if kernel else self._pull_blocks(out, rows, columns)
        bars = [
            None if radius is None else radius.reshape(lead),
            *(bar.reshape(*lead, n) for bar in weights if bar is not None),
        ]
        return (out.reshape(*lead, n), *bars)

    def _pull_kernel(self, y: Tensor, r: Tensor, *w: Tensor) -> Callable[..., tuple[Tensor | None, ...]] | None:
        if self.weighted or self.plateau == "implicit":
            return None
        if math.isinf(self.p):
            return derivative.pull_linf if r.numel() == 1 else None
        if self.p == 1:
            return derivative.pull_l1
        return derivative.pull_l2 if self.p == 2 else functools.partial(derivative.pull_power, p=self.p)

    def _pull_blocks(self, out: Tensor, rows: list[Tensor], columns: list[Tensor]) -> tuple[Tensor, ...]:
        """Apply ``pull`` to blocks of rows, so that its temporaries stay small."""
        bars = []
        for block in slices(out):
            g, y, state, *x = (t[block] for t in rows)
            r, *w = (own(t, block) for t in columns)
            out[block], *others = self.pull(g, y, state, x[0] if x else y, r[:, 0], *w)
            bars.append(others)
        return tuple(torch.cat(parts) for parts in zip(*bars, strict=True))
