"""Compare ``kernels.project`` with ``projection.exact``; run with TRITON_INTERPRET=1 set before Python starts."""

import itertools
import math

import torch

import argminlayer as al
from argminlayer_projection import LpProjection, SimplexProjection

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SETS = [("simplex", "-"), *itertools.product((1.0, 1.5, 2.0, 3.0, math.inf), ("sphere", "ball"))]


def points(n, dtype):
    """Return rows far out, tied, sparse and small."""
    generator = torch.Generator().manual_seed(n)
    random = 2.0 * torch.randn(2, n, dtype=torch.float64, generator=generator)
    tied = torch.ones(1, n, dtype=torch.float64)
    tied[:, ::3] = -2.0
    sparse = torch.zeros(1, n, dtype=torch.float64)
    sparse[:, n // 2] = 3.0
    sparse[:, 0] = -2.5
    return torch.cat([random, tied, sparse, 0.1 * random[:1]]).to(dtype)


def both(p, kind, x, radius, plateau="mask"):
    """Return value, gradients, and second derivative from the kernel and from the exact solver."""
    layer = SimplexProjection() if p == "simplex" else LpProjection(p, kind=kind, plateau=plateau)
    results = []
    for solver in ("kernels.project", "projection.exact"):
        leaf, r = x.clone().requires_grad_(), radius.clone().requires_grad_()
        y = layer(leaf, r, solver=solver)
        g = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(y.dtype)
        results.append((y.detach(), *torch.autograd.grad(y, (leaf, r), g)))
    return results


def failures():
    """Yield what disagrees."""
    for (p, kind), dtype in itertools.product(SETS, DTYPES):
        x = points(13, dtype)
        radii = (torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5], dtype=dtype), torch.tensor(1.3, dtype=dtype))
        for radius in radii[: 2 if dtype == torch.float32 else 1]:
            fast, exact = both(p, kind, x, radius)
            allowed = 40 * torch.finfo(dtype).eps
            for name, a, b in zip(("value", "gradient", "gradient of the radius"), fast, exact, strict=True):
                error = float(((a - b).abs() / (1 + b.abs())).max())
                if not error <= allowed:
                    yield f"{p} {kind} {dtype} {name}: {error:.1e}"
    yield from special_cases()


def special_cases():
    """Yield what disagrees on long rows, scales, the centre, second derivatives, empty batches and bad rows."""
    for p in ("simplex", 1.0, 2.0, math.inf):
        fast, exact = both(p, "sphere", points(9001, torch.float32)[:2], torch.tensor(1.3))
        if not torch.allclose(fast[0], exact[0], atol=1e-5):
            yield f"{p}: a row beyond one block"
    for p, kind in itertools.product((1.0, 2.0, math.inf), ("sphere", "ball")):
        fast, exact = both(p, kind, points(13, torch.float64), torch.tensor(1.3, dtype=torch.float64), "implicit")
        if not all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(fast, exact, strict=True)):
            yield f"{p} {kind}: the implicit form"
    for p, scale in itertools.product((1.0, 2.0, 3.0, math.inf), (1e-30, 1e30)):
        x = points(9, torch.float32)[:4] * scale
        fast, exact = both(p, "sphere", x, torch.tensor(scale))
        if not torch.allclose(fast[0] / scale, exact[0] / scale, atol=1e-5):
            yield f"{p}: scale {scale}"
    for p in (1.0, 1.5, 2.0, 3.0, math.inf):
        zero = torch.zeros(2, 5, requires_grad=True)
        y = LpProjection(p)(zero, solver="kernels.project")
        if not torch.allclose(y, LpProjection(p)(zero, solver="projection.exact")):
            yield f"{p}: the centre"
        if not torch.autograd.grad(y.sum(), zero)[0].isfinite().all():
            yield f"{p}: gradient at the centre"
        empty = LpProjection(p)(torch.zeros(0, 5), solver="kernels.project")
        if empty.shape != (0, 5):
            yield f"{p}: empty batch"
        layer = LpProjection(p, 0.5, solver="kernels.project")
        x = points(6, torch.float64)[:2].requires_grad_()
        if not torch.autograd.gradgradcheck(layer, (x,), raise_exception=False):
            yield f"{p}: second derivatives"
        bad = points(6, torch.float32)
        bad[1, 2] = math.nan
        try:
            layer(bad)
            yield f"{p}: a bad row is not reported"
        except al.ProblemError as error:
            if "row 1" not in str(error):
                yield f"{p}: {error}"
        layer.throw = False
        if not torch.allclose(layer(bad)[0], layer(bad[:1])[0], atol=1e-6):
            yield f"{p}: a bad row harms others"


if __name__ == "__main__":
    found = list(failures())
    print("\n".join(found))
    print(f"{len(found)} failures")
