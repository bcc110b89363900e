"""The direct solver of robust pooling by fused kernels."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import argminlayer as al

from ._pools import Pools, given, wide
from ._project import interpreted
from ._vector_launches import MOST_CHANNELS, VectorKernels

STRUCTURE = "robust-pool"
LONGEST = 16384
"""Points of a row that are kept on the chip; longer rows are split over programs, and read again for every pass."""
PART = 4096
"""Points of a longer row that one program has."""
WINDOWS = 256
"""Points whose windows one program looks at."""
STEPS = 100
"""Steps of a descent."""
TILE = 16
"""Places at which a program sums at the same time."""


@dataclass(frozen=True)
class PoolKernel(al.AbstractDirectSolver):
    """Fused Triton kernels of robust pooling, for points on a GPU.

    It serves the structure ``"robust-pool"`` with the data ``"penalty"``, ``"weighted"``, ``"vectors"`` and ``"rule"``,
    whose ``pool(parameters, throw, kernels)`` checks the parameters, decides where minima are looked for, and proves
    them global; what is summed over the points on the way, it lets the kernels sum.
    """

    name: ClassVar[str] = "kernels.pool"
    capabilities: ClassVar[al.Capabilities] = al.Capabilities(
        objectives=frozenset({"smooth"}),
        structures=frozenset({STRUCTURE}),
        requires=frozenset({f"the structure {STRUCTURE}"}),
        batched=True,
        devices=frozenset({"cuda"}),
    )
    direct_preference: ClassVar[float] = 20.0

    def available(self) -> al.Availability:
        """Return whether Triton is installed."""
        return al.Availability.of_module("triton", "kernels")

    def supports(self, problem: al.BoundProblem) -> str | None:
        """Refuse long vectors, vectors in double precision, and points that are not on a GPU."""
        reason = super().supports(problem)
        structure = problem.problem.structure
        return reason or (None if structure is None else self.refuses(structure, problem.parameters))

    def preference(self, problem: al.BoundProblem) -> float:
        """Return the highest: it is made for these problems."""
        del problem
        return 41.0

    def refuses(self, structure: al.Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Return why the parameters are not served: their size or device, or what the structure's owner refuses."""
        x = parameters[0]
        if x.device.type != "cuda" and not (x.device.type == "cpu" and interpreted()):
            return f"runs on a GPU, and the points are on {x.device.type}"
        if "rule" not in structure.data:
            return "needs the rule in the structure"
        if structure.data["vectors"]:
            if x.dtype == torch.float64:
                return "has no kernel for vectors in double precision"
            if x.shape[-2] > MOST_CHANNELS:
                return f"keeps vectors on the chip, which holds {MOST_CHANNELS} channels, not {x.shape[-2]}"
        reason: str | None = structure.data["rule"].refuses(structure, parameters)
        return reason

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the pooled values; see :class:`argminlayer.AbstractDirectSolver`."""
        with torch.cuda.device_of(parameters[0]):  # on which Triton launches
            pooled: Tensor = structure.data["rule"].pool(structure, parameters, throw, KERNELS)
        return pooled

    def solve(self, problem: al.BoundProblem, start: Tensor) -> al.Candidate:
        """Return the pooled values, to be certified."""
        del start
        structure = problem.problem.structure
        assert structure is not None
        with torch.no_grad():
            value = self.direct(structure, problem.parameters, throw=False).expand(problem.batch)
        return al.Candidate(value[:, None].double(), torch.zeros_like(value, dtype=torch.int64))


class Kernels(VectorKernels):
    """Functions of pools of numbers (rows, n); the protocol of the structure's owner says what they return."""

    def descend(self, pools: Pools, start: Tensor, short: float) -> tuple[Tensor, Tensor, Tensor]:
        """Descend with all points of a row on the chip, or with a pass over the points for each step."""
        from . import _pool_kernels as kernels

        rows, n = pools.x.shape
        u = start.to(wide(pools.x)).clone()
        step, curvature = torch.empty_like(u), torch.empty_like(u)
        if n <= LONGEST:
            outputs, options = (u, step, curvature), _options(pools)
            kernels.descend[(rows,)](*given(pools), *outputs, pools.shape, n, short, STEPS=STEPS, **options)
        else:
            u, step, curvature = _long_descent(pools, u, short)
        return u.double() + step.double(), curvature.double(), step.abs() <= short * pools.alpha

    def sums(self, pools: Pools, u: Tensor) -> tuple[Tensor, Tensor]:
        """Sum at a tile of the places ``u`` (rows, m) in each program."""
        from . import _pool_kernels as kernels

        rows, n = pools.x.shape
        u = u.to(wide(pools.x)).contiguous()
        value, slope = torch.empty_like(u), torch.empty_like(u)
        options = _options(pools)
        options |= {"BLOCK": min(512, options["BLOCK"]), "TILE": TILE}
        grid = rows, -(-u.shape[1] // TILE)
        kernels.sums[grid](*given(pools), u, value, slope, pools.shape, n, u.shape[1], **options)
        return value.double(), slope.double()

    def pull(
        self, pools: Pools, u: Tensor, cotangent: Tensor, into: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Pull back in one pass over rows that fit on the chip, in two over longer ones."""
        from . import _pool_kernels as kernels

        (rows, n), dtype = pools.x.shape, wide(pools.x)
        u, cotangent = u.to(dtype).contiguous(), cotangent.to(dtype).contiguous()
        outputs = [pools.x if grad is None else grad for grad in into]
        options = {"POINTS": into[0] is not None, "WEIGHTS": into[1] is not None, **_options(pools)}
        if n <= LONGEST:
            sums = torch.empty(rows, 3, dtype=dtype, device=u.device)
            kernels.pull[(rows,)](*given(pools), u, cotangent, *outputs, sums, pools.shape, n, **options)
        else:
            sums = _moments(pools, u)[:, 2:]
            scale = cotangent / sums[:, 0]
            kernels.spread[_parts(pools)](*given(pools), u, scale, *outputs, pools.shape, n, **options)
        total, size, moment = sums.unbind(-1)
        scales = -moment * cotangent / total
        enough = 1e-11 if dtype == torch.float64 else 1e-4
        return scales.double(), ~((total > enough * size) & scales.isfinite())

    def windows(
        self, t: Tensor, sums: tuple[Tensor, Tensor], weights: Tensor | None, total: Tensor, tie: float
    ) -> tuple[Tensor, Tensor]:
        """Look at all windows twice: for their least cost, and for the leftmost that has it."""
        from . import _pool_kernels as kernels

        n, block = t.shape[1], WINDOWS
        grid = (len(t), -(-n // block))
        least = torch.empty(grid, dtype=torch.float64, device=t.device)
        chosen = torch.empty(grid, dtype=torch.int64, device=t.device)
        given = (t.contiguous(), *(part.contiguous() for part in sums), t if weights is None else weights.contiguous())
        options = {"BITS": n.bit_length() + 1, "WEIGHTED": weights is not None, "BLOCK": block}
        kernels.windows[grid](*given, least, least, chosen, n, CHOOSE=False, **options)
        limit = least.amin(-1) + tie * total[:, 0]
        kernels.windows[grid](*given, limit, least, chosen, n, CHOOSE=True, **options)
        key = chosen.amin(-1, keepdim=True)
        return key // (n + 1), key % (n + 1)


KERNELS = Kernels()


def _long_descent(pools: Pools, u: Tensor, short: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last places, the steps from there and the curvatures; the steps are those of the kernel."""
    alpha = pools.alpha.to(u.dtype)
    low, high = torch.full_like(u, -torch.inf), torch.full_like(u, torch.inf)
    step = torch.zeros_like(u)
    moves = torch.ones_like(u, dtype=torch.bool)
    for _ in range(STEPS):
        u = torch.where(moves, u + step, u)
        slope, mass, bend, *_ = _moments(pools, u).unbind(-1)
        low, high = torch.where(slope >= 0, low.maximum(u), low), torch.where(slope <= 0, high.minimum(u), high)
        steep = torch.where(bend > 1e-3 * mass, bend, mass)
        step = torch.where(slope == 0, 0.0, alpha * (slope / torch.where(steep > 0, steep, 1.0)))
        inside = (u + step >= low) & (u + step <= high)
        step = torch.where(inside, step, 0.5 * (low + high) - u)
        moves = step.abs() > short * alpha
        if not bool(moves.any()):
            break
    return u, step, bend


def _moments(pools: Pools, u: Tensor) -> Tensor:
    """Return the sums of ``moments`` over whole rows, (rows, 5)."""
    from . import _pool_kernels as kernels

    grid = _parts(pools)
    parts = torch.empty(*grid, 5, dtype=u.dtype, device=u.device)
    kernels.moments[grid](*given(pools), u, parts, pools.shape, pools.x.shape[1], **_options(pools))
    return parts.sum(1)


def _parts(pools: Pools) -> tuple[int, int]:
    """Return the grid of rows and parts of rows."""
    rows, n = pools.x.shape
    return rows, -(-n // _block(n))


def _block(n: int) -> int:
    return 1 << (n - 1).bit_length() if n <= LONGEST else min(LONGEST, PART)


def _options(pools: Pools) -> dict[str, Any]:
    """Return the penalty, precision, length of a block and warps of a launch."""
    import triton.language as tl

    block = _block(pools.x.shape[1])
    return {
        "PENALTY": pools.penalty,
        "WEIGHTED": pools.weights is not None,
        "WIDE": tl.float64 if pools.x.dtype == torch.float64 else tl.float32,
        "BLOCK": block,
        "num_warps": max(1, min(16, block // 512)),
    }
