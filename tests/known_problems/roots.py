"""Feasibility problems: roots of equations."""

import functools
from collections.abc import Iterator

import torch

import argminlayer as al

from ._case import Case
from ._formulas import root
from ._numbers import eye, normal, values


def roots() -> Iterator[Case]:
    """Roots of equations."""
    yield Case(
        "a linear system",
        al.Problem(None, "(n,n),(n)->(n)", equality=lambda u, A, b: A @ u - b),
        (normal(110, 2, 3, 3) + 2 * eye(3), normal(111, 2, 3)),
        torch.linalg.solve,
    )
    yield Case(
        "a root of a cubic",
        al.Problem(None, "()->()", equality=lambda u, x: u**3 + u - x),
        (values(0.5, 2.0, -10.0),),
        lambda x: root(lambda u: u**3 + u - x, x[None] / 3)[0],
        differences=True,
    )
    yield Case(
        "Kepler's equation",
        al.Problem(None, "(),()->()", equality=lambda u, mean, e: u - e * u.sin() - mean),
        (values(0.5, 1.5, 2.5), values(0.3)[0]),
        lambda mean, e: root(lambda u: u - e * u.sin() - mean, mean[None])[0],
        differences=True,
    )
    yield Case(
        "a fixed point of a network",
        al.Problem(None, "(n,n),(n)->(n)", equality=lambda u, W, x: u - torch.tanh(W @ u + x)),
        (0.3 * normal(112, 3, 3), normal(113, 4, 3)),
        lambda W, x: functools.reduce(lambda u, _: torch.tanh(W @ u + x), range(200), torch.zeros_like(x)),
    )
    yield Case(
        "where a circle meets a line",
        al.Problem(
            None,
            "(),()->(2)",
            equality=lambda u, r, s: torch.stack([u @ u - r.square(), u[1] - s * u[0]]),
            start=values(1.0, 1.0),
        ),
        (values(1.0, 2.0), values(0.5, -0.3)),
        lambda r, s: torch.stack([torch.ones_like(s), s]) * r / (1 + s.square()).sqrt(),
    )
    yield Case(
        "Lambert's function",
        al.Problem(None, "()->()", equality=lambda u, x: u * u.exp() - x, start=1.0),
        (values(0.5, 1.0, 3.0),),
        lambda x: root(lambda u: u * u.exp() - x, x[None].log1p())[0],
        differences=True,
    )
