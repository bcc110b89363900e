"""Compare ``kernels.pool`` with ``pooling.robust``; run with TRITON_INTERPRET=1 set before Python starts."""

import torch

import argminlayer as al
from argminlayer_kernels import _pool
from argminlayer_pooling import pooling_problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PENALTIES = ("quadratic", "pseudo-huber", "huber", "welsch", "truncated-quadratic", "geman-mcclure", "barron")
CASES = ((7, torch.float64), (300, torch.float64), (23, torch.float32), (9, torch.bfloat16), (9, torch.float16))


def points(n):
    """Return rows with outliers, of two clusters, tied and wide."""
    generator = torch.Generator().manual_seed(n)
    random = torch.randn(4, n, dtype=torch.float64, generator=generator)
    random[0, ::5] *= 10.0
    random[1] = 0.3 * random[1] + 5.0 * (random[2] > 0.3)
    random[2] = (2.0 * random[2]).round()
    random[3] *= 30.0
    return random


def both(penalty, weighted, x, cotangent):
    """Return value and gradients from the kernels and from torch."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x) + 0.1
    given = [x, *([weights] if weighted else []), torch.tensor(0.8).to(x)]
    given += [torch.tensor(-0.5).to(x)] if penalty == "barron" else []
    results = []
    for solver in ("kernels.pool", "pooling.robust"):
        leaves = [p.to(DEVICE).detach().requires_grad_() for p in given]
        y = al.argmin(pooling_problem(penalty, weighted=weighted), *leaves, solver=solver)
        results.append((y, *torch.autograd.grad((y * cotangent.to(y)).sum(), leaves, materialize_grads=True)))
    return results


def main():
    """Print every difference that is too large, and how many there are."""
    failures = compared = 0
    for longest in (_pool.LONGEST, 16):  # the second one splits rows over programs
        _pool.LONGEST = longest
        for penalty in PENALTIES:
            for n, dtype in CASES:
                for weighted in (False, True):
                    x = points(n).to(dtype)
                    tolerance = 1e-9 if dtype == torch.float64 else 40.0 * torch.finfo(dtype).eps
                    found, expected = both(penalty, weighted, x, torch.linspace(-1.0, 2.0, 4))
                    for part, one, other in zip(("value", "x", "p1", "p2", "p3"), found, expected, strict=False):
                        compared += 1
                        error = (one.double() - other.double()).abs().max().item()
                        if error > tolerance * (1.0 + other.double().abs().max().item()):
                            failures += 1
                            print(f"{penalty} n={n} {dtype} weighted={weighted} {part}: {error:.1e}")
    print(f"{compared} compared, {failures} failures")


if __name__ == "__main__":
    main()
