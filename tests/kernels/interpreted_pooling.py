"""Compare ``kernels.pool`` with ``pooling.robust``; run with TRITON_INTERPRET=1 set before Python starts."""

import itertools

import torch

import argminlayer as al
from argminlayer_kernels import _pool, _vector_launches
from argminlayer_pooling import pooling_problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PENALTIES = ("quadratic", "pseudo-huber", "huber", "welsch", "truncated-quadratic", "geman-mcclure", "barron")
CASES = ((7, torch.float64), (40, torch.float64), (23, torch.float32), (9, torch.bfloat16), (9, torch.float16))


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


def vectors(failures):
    """Compare vectors; return how many numbers, and add what disagrees to the failures."""
    compared = 0
    cases = ((2, 70, torch.float32, True), (20, 9, torch.float32, False), (3, 9, torch.bfloat16, True))
    for penalty, (m, n, dtype, weighted) in itertools.product(PENALTIES, cases):
        generator = torch.Generator().manual_seed(m * n)
        x = torch.randn(2, m, n, generator=generator)
        x[:, :, ::5] *= 6.0
        weights = (torch.rand(2, n, generator=generator) + 0.1).to(dtype)
        given = [x.to(dtype), *([weights] if weighted else []), torch.tensor(2.0 * m**0.5, dtype=dtype)]
        given += [torch.tensor(-0.5, dtype=dtype)] if penalty == "barron" else []
        results = []
        for solver in ("kernels.pool", "pooling.robust"):
            leaves = [p.to(DEVICE).detach().requires_grad_() for p in given]
            y = al.argmin(pooling_problem(penalty, weighted=weighted, vectors=True), *leaves, solver=solver)
            cotangent = torch.linspace(-1.0, 2.0, y.numel()).reshape(y.shape).to(y)
            results.append((y, *torch.autograd.grad((y * cotangent).sum(), leaves, materialize_grads=True)))
        for part, one, other in zip(("value", "x", "p1", "p2", "p3"), *results, strict=False):
            compared += 1
            error = (one.double() - other.double()).abs().max().item()
            if not error <= 100.0 * torch.finfo(dtype).eps * (1.0 + other.double().abs().max().item()):
                failures.append(f"vectors {penalty} m={m} n={n} {dtype} weighted={weighted} {part}: {error:.1e}")
    return compared


def main():
    """Print every difference that is too large, and how many there are."""
    failures = []
    _vector_launches.PART = 32  # so that points are split over programs
    compared = vectors(failures)
    for longest in (64, 16):  # the second one splits rows over programs
        _pool.LONGEST = _pool.WINDOWS = longest
        for penalty in PENALTIES:
            for n, dtype in (case for case in CASES if longest == 64 or case[0] > longest):
                for weighted in (False, True):
                    x = points(n).to(dtype)
                    tolerance = 1e-9 if dtype == torch.float64 else 40.0 * torch.finfo(dtype).eps
                    found, expected = both(penalty, weighted, x, torch.linspace(-1.0, 2.0, 4))
                    for part, one, other in zip(("value", "x", "p1", "p2", "p3"), found, expected, strict=False):
                        compared += 1
                        error = (one.double() - other.double()).abs().max().item()
                        if error > tolerance * (1.0 + other.double().abs().max().item()):
                            failures.append(f"{penalty} n={n} {dtype} weighted={weighted} {part}: {error:.1e}")
    print("\n".join(failures))
    print(f"{compared} compared, {len(failures)} failures")


if __name__ == "__main__":
    main()
