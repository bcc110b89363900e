"""Compare ``kernels.project`` with ``projection.exact``; run with TRITON_INTERPRET=1 set before Python starts."""

import itertools
import math

import torch

import argminlayer as al
from argminlayer_kernels import _project_launches
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


def both(p, kind, x, radius, plateau="mask", weights=None):
    """Return value and gradients from the kernel and from the exact solver."""
    given = {} if weights is None else {"weights": weights}
    layer = SimplexProjection() if p == "simplex" else LpProjection(p, kind=kind, plateau=plateau, **given)
    results = []
    for solver in ("kernels.project", "projection.exact"):
        leaves = [t.clone().requires_grad_() for t in (x, radius, *given.values())]
        y = layer(*leaves, solver=solver)
        g = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(y.dtype)
        results.append((y.detach(), *torch.autograd.grad(y, leaves, g)))
    return results


def weights_like(x, shared):
    """Return weights of the entries of all rows, or of each."""
    generator = torch.Generator().manual_seed(1)
    shape = x.shape[-1:] if shared else x.shape
    return (0.2 + 2.0 * torch.rand(shape, dtype=torch.float64, generator=generator)).to(x.dtype)


def cases():
    """Yield sets with points of every dtype, radii for all rows or each, and weights for none, all or each."""
    for (p, kind), dtype in itertools.product(SETS, DTYPES):
        if kind == "ball" and dtype in (torch.float16, torch.bfloat16):
            continue
        x = points(13, dtype)
        radii = (torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5], dtype=dtype), torch.tensor(1.3, dtype=dtype))
        for radius in radii[: 2 if dtype == torch.float32 else 1]:
            yield p, kind, x, radius, None
        if p != "simplex":
            yield p, kind, x, radii[0], weights_like(x, shared=dtype in (torch.float32, torch.float16))


def split_cases():
    """Yield some of the sets with rows for several programs, one of them inside."""
    for p, kind in [*SETS[:2], (1.0, "ball"), (1.5, "ball"), (2.0, "sphere"), (3.0, "sphere"), *SETS[-2:]]:
        x = points(7, torch.float64 if p == 3.0 else torch.float32)[[0, 4]]
        radius = torch.tensor([0.5, 2.5], dtype=x.dtype)
        yield p, kind, x, radius, None
        if p in (1.0, 2.0, math.inf):
            yield p, kind, x, radius, weights_like(x, shared=p == 1.0)


def failures():
    """Yield what disagrees, with rows on the chip and with rows split over programs."""
    yield from disagreements(cases())
    yield from special_cases()
    longest, _project_launches.LONGEST = _project_launches.LONGEST, 4
    yield from disagreements(split_cases())
    for p in (1.0, 2.0):
        yield from bad_rows(p)
    _project_launches.LONGEST = longest


def disagreements(examples):
    """Yield where value or gradients are not those of the exact solver."""
    for p, kind, x, radius, w in examples:
        fast, exact = both(p, kind, x, radius, weights=w)
        allowed = 40 * torch.finfo(x.dtype).eps
        for name, a, b in zip(("value", "gradient", "by radius", "by weight"), fast, exact, strict=False):
            error = float(((a - b).abs() / (1 + b.abs())).max())
            if not error <= allowed:
                yield f"{p} {kind} {x.shape} {x.dtype} weighted={w is not None} {name}: {error:.1e}"


def special_cases():
    """Yield what disagrees in double precision, more dimensions, the implicit form, scales, and at the edges."""
    for p in (1.01, 1.1, 60.0):
        fast, exact = both(p, "sphere", points(13, torch.float32)[:4], torch.tensor(1.3))
        if not torch.allclose(fast[0], exact[0], atol=1e-6):
            yield f"{p}: in double precision"
    x = points(6, torch.float64).unflatten(0, (5, 1))
    shared = torch.tensor(1.3, dtype=torch.float64)
    for radius, w in ((shared, weights_like(x, shared=True)), (shared.expand(5, 1), weights_like(x, shared=False))):
        fast, exact = both(1.5, "sphere", x, radius, weights=w)
        if not all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(fast, exact, strict=True)):
            yield "more dimensions, some rows inside"
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
        yield from edges(p)
        yield from bad_rows(p)


def edges(p):
    """Yield what disagrees at the centre, in second derivatives, and for empty batches."""
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


def bad_rows(p):
    """Yield where rows, radii or weights that cannot be used are not reported, or harm others."""
    x, radius = points(6, torch.float32), torch.full((5,), 0.3)
    w = weights_like(x, shared=False)
    x[1, 2], x[2, 5], radius[3], w[4, 0] = math.nan, math.inf, -1.0, 0.0
    for layer, given in ((LpProjection(p), (x, radius)), (LpProjection(p, weights=w), (x, radius, w))):
        try:
            layer(*given, solver="kernels.project")
            yield f"{p}: a bad row is not reported"
        except al.ProblemError as error:
            if "row 1" not in str(error):
                yield f"{p}: {error}"
        layer.throw = False
        fast, exact = (layer(*given, solver=solver) for solver in ("kernels.project", "projection.exact"))
        if not torch.allclose(fast, exact, atol=1e-6, equal_nan=True):
            yield f"{p}: a bad row harms others, or is not one"


if __name__ == "__main__":
    found = list(failures())
    print("\n".join(found))
    print(f"{len(found)} failures")
