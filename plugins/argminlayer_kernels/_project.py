"""The direct solver of projections by fused kernels, and how their derivative is put together."""

import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import argminlayer as al

from . import _project_launches as launches

STRUCTURE = "projection"


@dataclass(frozen=True)
class ProjectKernel(al.AbstractDirectSolver):
    """Fused Triton kernels of projections onto Lp spheres and balls and the simplex, for points on a GPU.

    It serves the structure ``"projection"`` with the data ``"set"``: ``"simplex"`` with parameters x (n) and r (), or
    ``"lp"`` with ``p``, ``kind``, ``plateau`` and ``weighted``, which adds parameters w (n). ``"rule"`` differentiates
    where a first derivative by autograd is not enough, and projects points inside a sphere that is not of p = 1 or
    infinity, nor of p = 2 without weights.
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
        if any(p.device != x.device for p in parameters):
            return f"needs all parameters on {x.device}"
        if x.shape[-1] == 0:
            return "needs points with entries"
        if "rule" not in structure.data:
            return "needs the set's rule in the structure"
        name = structure.data.get("set")
        return None if name in ("simplex", "lp") else f"has no kernel for the set {name!r}"

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the nearest points with their derivative; see :class:`argminlayer.AbstractDirectSolver`."""
        x, r, *w = parameters
        n = x.shape[-1]
        lead = torch.broadcast_shapes(x.shape[:-1], r.shape, *(t.shape[:-1] for t in w))
        x, r = x.expand(*lead, n), r.reshape((1,) * (len(lead) - r.ndim) + r.shape)
        w = [t.reshape((1,) * (len(lead) + 1 - t.ndim) + t.shape) for t in w]
        nearest: Tensor
        nearest, state, least = _Project.apply(dict(structure.data), throw, x, r, *w)  # type: ignore[no-untyped-call]
        if least >= 0:
            return nearest
        left = (state == -1.0).flatten().nonzero().flatten()
        own = [r.reshape(()) if r.numel() == 1 else r.expand(lead).reshape(-1)[left]]
        own += [t.reshape(n) if t.numel() == n else t.expand(*lead, n).reshape(-1, n)[left] for t in w]
        part = structure.data["rule"].project(x.reshape(-1, n)[left], *own, throw=throw)
        return nearest.reshape(-1, n).index_copy(0, left, part).reshape(nearest.shape)

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


class _Project(torch.autograd.Function):
    """``(x, r, [w]) -> (y, state, least)``, x (..., n) and the others with as many leading dimensions.

    ``least`` is a state that is not positive if there is one and it was looked for, which waits for the kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, data: dict[str, Any], throw: bool, x: Tensor, r: Tensor, *w: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        lead, n, least = x.shape[:-1], x.shape[-1], 1.0
        rows = x.reshape(-1, n).contiguous()
        y, state = torch.empty_like(rows), torch.empty(len(rows), device=x.device)
        if len(rows):
            y, state = launches.project(data, rows, _column(r, lead), _rowwise(w, lead))
            if throw or _may_leave(data):
                least = float(state.amin())
        if throw and math.isnan(least):
            raise al.ProblemError(
                f"row {int(state.isnan().nonzero()[0])} of the points to project (in the flattened batch), its radius "
                "or its weights cannot be used: entries must be finite, radii not negative and weights positive; clean "
                "the inputs, or pass `throw=False` to get NaN for such rows only"
            )
        shaped = y.reshape(x.shape), state.reshape(*lead, 1)
        ctx.data = data
        ctx.mark_non_differentiable(shaped[1])
        ctx.set_materialize_grads(False)
        saved = (*shaped, x if data["rule"].curved else None, r, *w)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return *shaped, least

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        g = cotangents[0]
        y, state, x, r, *w = ctx.saved_tensors
        if g is None:
            return (None,) * (4 + len(w))
        if torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
            gx, *bars = ctx.data["rule"].pull(g, y, state, x, r, *w)
        else:
            gx, *bars = _pull(ctx.data, g, y, state, x, r, *w)
        return None, None, gx, *(bar.sum_to_size(t.shape).to(t.dtype) for bar, t in zip(bars, (r, *w), strict=True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        return ctx.data["rule"].push(tangents[2:], *ctx.saved_tensors), None, None


def _pull(
    data: dict[str, Any], g: Tensor, y: Tensor, state: Tensor, x: Tensor | None, r: Tensor, *w: Tensor
) -> tuple[Tensor, ...]:
    lead, n = y.shape[:-1], y.shape[-1]
    if not y.numel():
        return torch.empty_like(y), y.new_empty(lead), *(torch.empty_like(y) for _ in w)
    g, y = (t.reshape(-1, n).contiguous() for t in (g, y))
    x = None if x is None else x.reshape(-1, n).contiguous()
    gx, gr, gw = launches.pull(data, g, y, state.reshape(-1), x, _column(r, lead), _rowwise(w, lead))
    bars = gx.reshape(*lead, n), gr.reshape(lead)
    return bars if gw is None else (*bars, gw.reshape(*lead, n))


def _may_leave(data: dict[str, Any]) -> bool:
    """Return whether there may be points inside a sphere that the kernels leave to the set's rule."""
    if data.get("kind") != "sphere" or data["p"] == 1 or math.isinf(data["p"]):
        return False
    return bool(data["p"] != 2 or data["weighted"])


def _column(r: Tensor, lead: torch.Size) -> Tensor:
    """Return the radii, one for all rows (1,) or one for each (B,)."""
    return r.reshape(1) if r.numel() == 1 else r.expand(lead).reshape(-1)


def _rowwise(w: tuple[Tensor, ...], lead: torch.Size) -> Tensor | None:
    """Return the weights, those of all rows (1, n) or of each (B, n), or None."""
    if not w:
        return None
    n = w[0].shape[-1]
    rows = w[0].reshape(1, n) if w[0].numel() == n else w[0].expand(*lead, n).reshape(-1, n)
    return rows.contiguous()
