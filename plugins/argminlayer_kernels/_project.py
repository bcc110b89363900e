"""The direct solver of projections by fused kernels, and how their derivative is put together."""

import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import argminlayer as al

STRUCTURE = "projection"
LONGEST = 8192
"""Entries of a row that is kept on the chip; longer ones are read again for every pass."""
LEAST_P, MOST_P = 1.2, 50.0
"""Between these a general p is solved in the precision of the points without loss."""


@dataclass(frozen=True)
class ProjectKernel(al.AbstractDirectSolver):
    """Fused Triton kernels of projections onto Lp spheres and balls and the simplex, for points on a GPU.

    It serves the structure ``"projection"`` with the data ``"set"``: ``"simplex"`` with parameters x (n) and r (), or
    ``"lp"`` with ``p``, ``kind``, ``plateau`` and ``weighted=False``; ``"rule"`` differentiates where a first
    derivative by autograd is not enough.
    """

    name: ClassVar[str] = "kernels.project"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        constraints=frozenset({"equality", "inequality", "bounds"}),
        objectives=frozenset({"smooth"}),
        structures=frozenset({STRUCTURE}),
        requires=frozenset({"the structure projection"}),
        batched=True,
        devices=frozenset({"cuda"}),
    )
    direct_preference: ClassVar[float] = 10.0

    def available(self) -> al.Availability:
        """Return whether Triton is installed."""
        return al.Availability.of_module("triton", "kernels")

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse other sets, and points that are not on a GPU."""
        reason = super().supports(problem)
        if reason is not None or problem.problem.structure is None:
            return reason
        return self.refuses(problem.problem.structure, problem.parameters)

    def preference(self, problem: al.BoundProblem) -> float:
        """Return the highest: it is made for these problems."""
        del problem
        return 31.0

    def refuses(self, structure: al.Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Return why the parameters are not served: another set, device or dtype, or a transform."""
        x = parameters[0]
        if x.device.type != "cuda" and not (x.device.type == "cpu" and interpreted()):
            return f"runs on a GPU, and the points are on {x.device.type}"
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return "does not run inside torch.func transforms"
        if any(p.dtype != x.dtype for p in parameters) or not x.is_floating_point():
            return "needs floats of one dtype"
        return _refused_set(structure, x.shape[-1])

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the nearest points with their derivative; see :class:`argminlayer.AbstractDirectSolver`."""
        x, r = parameters
        lead = torch.broadcast_shapes(x.shape[:-1], r.shape)
        x = x.expand(*lead, x.shape[-1])
        r = r.reshape((1,) * (len(lead) - r.ndim) + r.shape) if r.ndim else r.reshape((1,) * len(lead))
        y, state = _Project.apply(dict(structure.data), throw, x, r)  # type: ignore[no-untyped-call]
        nearest: Tensor = y
        left = state == -1.0
        if bool(left.any()):
            nearest = torch.where(left, structure.data["rule"].project(x, r, throw=throw), nearest)
        return nearest

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Return the nearest points, to be certified."""
        structure = problem.problem.structure
        assert structure is not None
        with torch.no_grad():
            y = self.direct(structure, tuple(p.to(start) for p in problem.parameters), throw=False)
        value = y.expand_as(start)
        solved = value.isfinite().all(-1)
        status = torch.where(solved, int(al.Status.SOLVED), int(al.Status.INFEASIBLE))
        return al.Candidate(torch.where(solved[:, None], value, start), status)


def interpreted() -> bool:
    """Return whether Triton interprets kernels on the processor, as tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _refused_set(structure: al.Structure, n: int) -> str | None:
    data = structure.data
    if "rule" not in data:
        return "needs the set's rule in the structure"
    if data.get("set") == "simplex":
        return None
    if data.get("set") != "lp":
        return f"has no kernel for the set {data.get('set')!r}"
    if data["weighted"]:
        return "has no kernel for weights"
    if data["p"] in (1.0, 2.0, math.inf):
        return None
    if not LEAST_P <= data["p"] <= MOST_P:
        return f"magnifies rounding for p below {LEAST_P} or above {MOST_P:g}, and p is {data['p']:g}"
    if n > LONGEST:
        return f"keeps rows of a general p on the chip, which holds {LONGEST} entries, not {n}"
    return None


class _Project(torch.autograd.Function):
    """``(x, r) -> (y, state)``, x (..., n) and r with as many leading dimensions."""

    @staticmethod
    def forward(ctx: Any, data: dict[str, Any], throw: bool, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        y, state = torch.empty_like(rows), torch.empty(len(rows), dtype=_wide(x), device=x.device)
        if rows.numel():
            _project(data, rows, y, state, _column(r, x))
        if bool(state.isnan().any()):
            bad = state.isnan()
            if throw:
                raise al.ProblemError(
                    f"row {int(bad.nonzero()[0])} of the points to project (in the flattened batch), or its radius, "
                    "cannot be used: entries must be finite and radii not negative; clean the inputs, or pass "
                    "`throw=False` to get NaN for such rows only"
                )
            y[bad] = torch.nan
        shaped = y.reshape(x.shape), state.reshape(*x.shape[:-1], 1)
        ctx.data = data
        ctx.mark_non_differentiable(shaped[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*shaped, x, r)
        ctx.save_for_forward(*shaped, x, r)
        return shaped

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        g = cotangents[0]
        if g is None:
            return None, None, None, None
        y, state, x, r = ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
            gx, gr = ctx.data["rule"].pull(g, y, state, x, r)
        else:
            gx, gr = _pull(ctx.data, g, y, state, x, r)
        return None, None, gx, gr.sum_to_size(r.shape)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        return ctx.data["rule"].push(tangents[2:], *ctx.saved_tensors), None


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _column(r: Tensor, x: Tensor) -> Tensor:
    """Return the radii in working precision, one for all rows or one for each."""
    shared = r.numel() == 1
    return (r.reshape(1) if shared else r.expand(x.shape[:-1]).reshape(-1)).to(_wide(x)).contiguous()


def _options(x: Tensor) -> dict[str, Any]:
    """Return precision, length of a block and warps of a launch for rows like x (B, n)."""
    import triton
    import triton.language as tl

    block = min(LONGEST, triton.next_power_of_2(x.shape[-1]))
    return {
        "WIDE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "BLOCK": block,
        "num_warps": max(1, min(16, block // 256)),
    }


def _project(data: dict[str, Any], x: Tensor, y: Tensor, state: Tensor, r: Tensor) -> None:
    from . import _project_kernels as kernels

    grid, n, options, limits = (len(x),), x.shape[1], _options(x), torch.finfo(_wide(x))
    given = (x, y, state, r, int(len(r) > 1), n)
    ball = data.get("kind") == "ball"
    if data["set"] == "simplex":
        kernels.threshold[grid](*given, SIGNED=False, BALL=False, **options)
    elif data["p"] == 1:
        kernels.threshold[grid](*given, SIGNED=True, BALL=ball, **options)
    elif data["p"] == 2:
        kernels.scale[grid](*given, TINY=limits.tiny, BALL=ball, **options)
    elif math.isinf(data["p"]):
        kernels.clip[grid](*given, BALL=ball, **options)
    else:
        floor, tolerance = 0.9 * math.log2(limits.tiny), limits.eps**0.6
        kernels.power[grid](*given, P=data["p"], FLOOR=floor, TOLERANCE=tolerance, BALL=ball, **options)


def _pull(data: dict[str, Any], g: Tensor, y: Tensor, state: Tensor, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    from . import _project_kernels as kernels

    n = y.shape[-1]
    g, y, x = (t.reshape(-1, n).contiguous() for t in (g, y, x))
    column, lead = _column(r, y), state.shape[:-1]
    gx, gr = torch.empty_like(y), torch.empty(len(y), dtype=r.dtype, device=r.device)
    if y.numel():
        grid, options, stride = (len(y),), _options(y), int(len(column) > 1)
        mask, p = data.get("plateau") != "implicit", data.get("p", 1.0)
        if p == 1 or (math.isinf(p) and not mask):
            given = (g, y, state, column, stride, gx, gr, n)
            kernels.pull_mean[grid](*given, CLIPPED=math.isinf(p), MASK=mask, **options)
        elif math.isinf(p):
            kernels.pull_clip[grid](g, y, column, stride, gx, gr, n, **options)
        else:
            kernels.pull_smooth[grid](g, y, state, x, column, stride, gx, gr, n, P=p, **options)
    return gx.reshape(*lead, n), gr.reshape(lead)
