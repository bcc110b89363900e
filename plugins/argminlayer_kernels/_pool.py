"""The direct solver of robust pooling by fused kernels."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import argminlayer as al

from ._project import interpreted

STRUCTURE = "robust-pool"
LONGEST = 16384
"""Points of a row that are kept on the chip; longer rows are read again for every pass."""
STEPS = 100
"""Steps of a descent."""
TILE = 16
"""Places at which a program sums at the same time."""


@dataclass(frozen=True)
class PoolKernel(al.AbstractDirectSolver):
    """Fused Triton kernels of robust pooling of numbers, for points on a GPU.

    It serves the structure ``"robust-pool"`` with the data ``"penalty"``, ``"weighted"``, ``"vectors"`` (false) and
    ``"rule"``, whose ``pool(parameters, throw, kernels)`` checks the parameters, decides where minima are looked for,
    and proves them global; what is summed over the points on the way, it lets the kernels sum.
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
        """Refuse vectors, and points that are not on a GPU."""
        reason = super().supports(problem)
        structure = problem.problem.structure
        return reason or (None if structure is None else self.refuses(structure, problem.parameters))

    def preference(self, problem: al.BoundProblem) -> float:
        """Return the highest: it is made for these problems."""
        del problem
        return 41.0

    def refuses(self, structure: al.Structure, parameters: tuple[Tensor, ...]) -> str | None:
        """Return why the parameters are not served: vectors, another device, or what the structure's owner refuses."""
        x = parameters[0]
        if x.device.type != "cuda" and not (x.device.type == "cpu" and interpreted()):
            return f"runs on a GPU, and the points are on {x.device.type}"
        if "rule" not in structure.data:
            return "needs the rule in the structure"
        if structure.data["vectors"]:
            return "has no kernel for vectors"
        reason: str | None = structure.data["rule"].refuses(structure, parameters)
        return reason

    def direct(self, structure: al.Structure, parameters: tuple[Tensor, ...], throw: bool) -> Tensor:
        """Return the pooled values; see :class:`argminlayer.AbstractDirectSolver`."""
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


class Kernels:
    """The kernels as functions of tensors: rows of points (rows, n), weights likewise or None, alpha (rows,)."""

    def descend(
        self, penalty: str, shape: float, x: Tensor, weights: Tensor | None, alpha: Tensor, start: Tensor, short: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return where descents from ``start`` (rows,) end, in double, their curvature, and which have arrived."""
        from . import _pool_kernels as kernels

        wide = _wide(x)
        u = start.to(wide).clone()
        step, curvature = torch.empty_like(u), torch.empty_like(u)
        kernels.descend[(len(x),)](
            *_given(x, weights, alpha),
            u,
            step,
            curvature,
            shape,
            x.shape[1],
            short,
            STEPS=STEPS,
            **_options(x, weights, penalty),
        )
        return u.double() + step.double(), curvature.double(), step.abs() <= short * alpha

    def sums(
        self, penalty: str, shape: float, x: Tensor, weights: Tensor | None, alpha: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return objectives and slopes at places ``u`` (rows, m), in units of alpha, in double."""
        from . import _pool_kernels as kernels

        u = u.to(_wide(x)).contiguous()
        value, slope = torch.empty_like(u), torch.empty_like(u)
        options = _options(x, weights, penalty)
        options |= {"BLOCK": min(512, options["BLOCK"]), "TILE": TILE}
        del options["FITS"]
        grid = (len(x), -(-u.shape[1] // TILE))
        kernels.sums[grid](*_given(x, weights, alpha), u, value, slope, shape, x.shape[1], u.shape[1], **options)
        return value.double(), slope.double()

    def pull(
        self,
        penalty: str,
        shape: float,
        x: Tensor,
        weights: Tensor | None,
        alpha: Tensor,
        u: Tensor,
        cotangent: Tensor,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Return the gradients for points, weights and alpha of every row, and where curvatures cancel, (rows,)."""
        from . import _pool_kernels as kernels

        wide = _wide(x)
        points, given = (torch.empty_like(x) if want else None for want in wanted)
        scales, total, size = (torch.empty(len(x), dtype=wide, device=x.device) for _ in range(3))
        kernels.pull[(len(x),)](
            *_given(x, weights, alpha),
            u.to(wide).contiguous(),
            cotangent.to(wide).contiguous(),
            x if points is None else points,
            scales,
            x if given is None else given,
            total,
            size,
            shape,
            x.shape[1],
            POINTS=points is not None,
            WEIGHTS=given is not None,
            **_options(x, weights, penalty),
        )
        lost = 1e-11 if wide == torch.float64 else 1e-4
        return points, given, scales.double(), ~((total > lost * size) & scales.isfinite())


KERNELS = Kernels()


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _given(x: Tensor, weights: Tensor | None, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert x.is_contiguous()
    assert weights is None or weights.is_contiguous()
    return x, x if weights is None else weights, alpha.to(_wide(x)).contiguous()


def _options(x: Tensor, weights: Tensor | None, penalty: str) -> dict[str, Any]:
    """Return the penalty, precision, length of a block and warps of a launch for rows like x (rows, n)."""
    import triton
    import triton.language as tl

    block = min(LONGEST, triton.next_power_of_2(x.shape[1]))
    return {
        "PENALTY": penalty,
        "WEIGHTED": weights is not None,
        "FITS": x.shape[1] <= block,
        "WIDE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "BLOCK": block,
        "num_warps": max(1, min(16, block // 512)),
    }
