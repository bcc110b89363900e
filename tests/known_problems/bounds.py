"""Problems with bounds."""

from collections.abc import Iterator

import torch
from torch import Tensor

import argminlayer as al

from ._case import Case
from ._formulas import equality_program, half_square, nonnegative_program, quadratic, split_last, to_simplex
from ._numbers import definite, eye, normal, positive, symmetric, values


def water_fill(noise: Tensor, power: Tensor) -> Tensor:
    """Return the allocation that maximises ``sum log(1 + u / noise)`` with ``sum u = power``."""
    return to_simplex(-noise, power)


def _capped(x: Tensor, c: Tensor) -> Tensor:
    low, high = x.min() - 2, x.max() + 2
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if bool((x - middle).clamp(0, 1).sum() > c) else (low, middle)
    inner = ((x - low) > 0) & ((x - low) < 1)
    shift = (x[inner].sum() + ((x - low) >= 1).sum() - c) / inner.sum()
    return (x - shift).clamp(0, 1)


def _one_bounded(x: Tensor) -> tuple[Tensor, Tensor]:
    P = 2 * eye(3) + values([0, 0, 1.0], [0, 0, 1.0], [1.0, 1.0, 0])
    q = -2 * torch.cat([x, x.sum()[None]])
    for free in ([0, 1, 2], [0, 2], [1, 2], [2]):
        index = torch.tensor(free)
        u = torch.zeros(3, dtype=torch.float64).index_put((index,), torch.linalg.solve(P[index][:, index], -q[index]))
        if bool((u[:2] >= 0).all()) and bool((P @ u + q)[:2].ge(-1e-12).all()):
            return split_last(u)
    raise AssertionError("a definite program has a solution")


def bounds() -> Iterator[Case]:
    """Problems with bounds."""
    yield Case(
        "nonnegative part of a matrix",
        al.Problem(lambda U, X: 0.5 * (U - X).square().sum(), "(m,n)->(m,n)", lower=0.0),
        (normal(90, 2, 2, 3),),
        lambda X: X.clamp_min(0.0),
    )
    yield Case(
        "projection onto a box that is a parameter",
        al.Problem(half_square, "(n),(n),(n)->(n)", lower=lambda x, lo, up: lo, upper=lambda x, lo, up: up),
        (2 * normal(91, 4, 3), -positive(92, 3), positive(93, 4, 3)),
        lambda x, lo, up: torch.minimum(torch.maximum(x, lo), up),
    )
    yield Case(
        "projection onto a box with bounds that are functions of the data",
        al.Problem(half_square, "(n),()->(n)", lower=lambda x, s: -s.exp(), upper=lambda x, s: s.square()),
        (2 * normal(94, 3, 3), values(0.3, 1.0, -0.5)),
        lambda x, s: torch.minimum(torch.maximum(x, -s.exp()), s.square()),
    )
    yield Case(
        "an upper bound that is a constant vector",
        al.Problem(lambda u, x: u.exp().sum() - x @ u, "(3)->(3)", upper=values(0.0, 1.0, -0.3)),
        (3 * positive(95, 2, 3),),
        lambda x: torch.minimum(x.log(), values(0.0, 1.0, -0.3)),
    )
    yield Case(
        "bounds of ten thousand",
        al.Problem(half_square, "(n)->(n)", lower=-1e4, upper=1e4),
        (values([3e4, 2e3, -2e4], [1.0, -5e3, 1.2e4]),),
        lambda x: x.clamp(-1e4, 1e4),
    )
    yield Case(
        "equal lower and upper bounds",
        al.Problem(
            lambda u, P, q, t: quadratic(u, P, q),
            "(n,n),(n),()->(n)",
            lower=lambda P, q, t: torch.cat([t[None], torch.full_like(q[1:], -torch.inf)]),
            upper=lambda P, q, t: torch.cat([t[None], torch.full_like(q[1:], torch.inf)]),
        ),
        (definite(96, 3, 2), normal(97, 2, 3), values(0.4, -1.0)),
        lambda P, q, t: equality_program(symmetric(P), q, eye(3)[:1], t[None]),
    )
    yield Case(
        "all variables between equal bounds",
        al.Problem(half_square, "(n),(n)->(n)", lower=lambda x, t: t, upper=lambda x, t: t),
        (normal(98, 2, 3), normal(99, 2, 3)),
        lambda x, t: t + 0 * x,
    )
    yield Case(
        "projection onto the simplex with bounds",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        (normal(100, 4, 5),),
        to_simplex,
    )
    yield Case(
        "projection onto the simplex with bounds, objective times 1e-8",
        al.Problem(lambda u, x: 1e-8 * half_square(u, x), "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=0.0),
        (normal(101, 2, 4),),
        to_simplex,
    )
    yield Case(
        "a nonnegative quadratic program",
        al.Problem(quadratic, "(n,n),(n)->(n)", lower=0.0),
        (definite(102, 3), normal(103, 4, 3)),
        lambda P, q: nonnegative_program(symmetric(P), q),
    )
    yield Case(
        "nonnegative declared least squares",
        al.least_squares(lambda u, X, y: X @ u - y, "(m,n),(m)->(n)", lower=0.0),
        (normal(104, 5, 3), normal(105, 3, 5)),
        lambda X, y: nonnegative_program(X.mT @ X, -X.mT @ y),
    )
    yield Case(
        "soft thresholding with positive and negative parts",
        al.Problem(
            lambda u, x, t: 0.5 * (u[0] - u[1] - x).square().sum() + t * (u[0] + u[1]).sum(),
            "(n),()->(n),(n)",
            lower=0.0,
        ),
        (values([2.0, -1.5, 0.2], [-0.1, 0.9, 3.0]), values(0.5, 0.4)),
        lambda x, t: ((x - t).clamp_min(0.0), (-x - t).clamp_min(0.0)),
    )
    yield Case(
        "water filling with the power as a parameter",
        al.Problem(
            lambda u, noise, power: (1 + u / noise).log().sum(),
            "(n),()->(n)",
            equality=lambda u, noise, power: u.sum() - power,
            lower=0.0,
            maximize=True,
        ),
        (positive(106, 3, 4), values(0.3, 1.0, 4.0)),
        water_fill,
    )
    yield Case(
        "a knapsack with bounds on both sides",
        al.Problem(
            lambda u, x, c: 0.5 * (u - x).square().sum(),
            "(n),()->(n)",
            equality=lambda u, x, c: u.sum() - c,
            lower=0.0,
            upper=1.0,
        ),
        (values([0.9, 0.1, -0.6, 2.0], [0.3, 0.2, 0.1, 0.0]), values(2.0, 1.4)),
        lambda x, c: _capped(x, c),
    )
    yield Case(
        "bounds for one of two variables",
        al.Problem(
            lambda u, x: (u[0] - x).square().sum() + (u[1] - x.sum()).square() + u[0].sum() * u[1],
            "(n)->(n),()",
            lower=(0.0, None),
        ),
        (values([1.0, -2.0], [0.5, 0.7]),),
        lambda x: _one_bounded(x),
    )
