"""Problems with inequalities, active or not, and equalities beside them."""

from collections.abc import Iterator

import torch
from torch import Tensor

import argminlayer as al

from ._case import Case
from ._formulas import equality_program, half_square, polygon, quadratic, root, split_last, to_simplex
from ._numbers import definite, eye, normal, symmetric, values

POLYGON = polygon(50)


LABELS = values(1.0, 1.0, 1.0, -1.0, -1.0)


def pool_adjacent(x: Tensor) -> Tensor:
    """Return the nondecreasing vector nearest to ``x``."""
    blocks: list[list[Tensor]] = []
    for entry in x:
        blocks.append([entry])
        while len(blocks) > 1 and sum(blocks[-2]) / len(blocks[-2]) > sum(blocks[-1]) / len(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return torch.stack([sum(block) / len(block) for block in blocks for _ in block])


def to_second_order_cone(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection of ``(x, s)`` onto ``|u| <= t``, away from the apex."""
    length = x.norm()
    if length <= s:
        return x, s
    return 0.5 * (1 + s / length) * x, 0.5 * (length + s)


def _triangle_vertex(x: Tensor, b: Tensor) -> Tensor:
    corners = torch.stack(
        [torch.stack([-b[0], -b[1]]), torch.stack([b[2] + b[1], -b[1]]), torch.stack([-b[0], b[2] + b[0]])]
    )
    return corners[int((corners @ x).argmin())] + 0 * x


def _on_cap(x: Tensor, b: Tensor) -> Tensor:
    if bool(x[0] / x.norm() < b):
        return x / x.norm()
    return torch.cat([b[None], (1 - b.square()).sqrt() * x[1:] / x[1:].norm()])


def _portfolio(P: Tensor, mu: Tensor, t: Tensor) -> Tensor:
    ones, zero = torch.ones(1, len(mu), dtype=torch.float64), torch.zeros_like(mu)
    free = equality_program(P, zero, ones, values(1.0))
    if bool(mu @ free > t):
        return free
    return equality_program(P, zero, torch.cat([ones, mu[None]]), torch.stack([values(1.0)[0], t]))


def _margin(plus: Tensor, minus: Tensor) -> tuple[Tensor, Tensor]:
    w = 2 * (plus - minus) / (plus - minus).square().sum()
    return w, 1 - w @ plus


def _on_ellipsoid(x: Tensor, d: Tensor) -> Tensor:
    multiplier = root(lambda t: (d * (x / (1 + t * d)).square()).sum()[None].rsqrt() - 1, values(0.1))
    return x / (1 + multiplier * d)


def _trust_region(P: Tensor, q: Tensor) -> Tensor:
    least = torch.linalg.eigvalsh(P)[0]
    shift = root(lambda t: 1 - 1 / torch.linalg.solve(P + t * eye(len(q)), q).norm()[None], (-least + 0.3)[None])
    return -torch.linalg.solve(P + shift * eye(len(q)), q)


def inequalities() -> Iterator[Case]:
    """Problems with inequalities, active or not, and equalities beside them."""
    yield Case(
        "projection onto balls, from outside and from inside",
        al.Problem(half_square, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square()),
        (values([2.0, 1.0], [0.3, 0.2], [-1.0, 3.0], [0.1, -0.5]), values(1.0, 1.0, 2.0, 0.9)),
        lambda x, r: x if bool(x.norm() < r) else r * x / x.norm(),
    )
    yield Case(
        "projection onto halfspaces, from outside and from inside",
        al.Problem(half_square, "(n),(n),()->(n)", inequality=lambda u, x, a, b: a @ u - b),
        (normal(80, 4, 3), normal(81, 4, 3), values(-1.0, 5.0, 0.1, -2.0)),
        lambda x, a, b: x - a * (a @ x - b).clamp_min(0.0) / (a @ a),
    )
    for scale in (1e-6, 1e6):
        yield Case(
            f"projection onto halfspaces whose inequality is multiplied by {scale:g}",
            al.Problem(half_square, "(n),(n)->(n)", inequality=lambda u, x, a, s=scale: s * (a @ u - 0.5)),
            (values([2.0, 1.0], [0.2, -0.1]), values([1.0, 0.5], [1.0, 1.0])),
            lambda x, a: x - a * (a @ x - 0.5).clamp_min(0.0) / (a @ a),
        )
    for scale in (1e-8, 1e8):
        yield Case(
            f"projection onto balls whose objective is multiplied by {scale:g}",
            al.Problem(lambda u, x, s=scale: s * half_square(u, x), "(n)->(n)", inequality=lambda u, x: u @ u - 1),
            (values([2.0, 1.0], [0.2, -0.1]),),
            lambda x: x if bool(x.norm() < 1) else x / x.norm(),
        )
    yield Case(
        "a linear objective on a ball",
        al.Problem(lambda u, x, r: x @ u, "(n),()->(n)", inequality=lambda u, x, r: u @ u - r.square()),
        (normal(82, 3, 3), values(1.0, 2.0, 0.5)),
        lambda x, r: -r * x / x.norm(),
    )
    yield Case(
        "a linear program at a vertex",
        al.Problem(
            lambda u, x, b: x @ u, "(2),(3)->(2)", inequality=lambda u, x, b: torch.stack([-u[0], -u[1], u.sum()]) - b
        ),
        (values([1.0, 2.0], [-1.0, -2.0], [1.0, -3.0]), values(0.1, 0.2, 1.0)),
        lambda x, b: _triangle_vertex(x, b),
    )
    yield Case(
        "a linear objective on the ball of the fourth power",
        al.Problem(lambda u, x: x @ u, "(n)->(n)", inequality=lambda u, x: u.pow(4).sum() - 1),
        (values([1.0, -0.5, 2.0], [0.4, 0.3, -0.9]),),
        lambda x: -x.sign() * x.abs().pow(1 / 3) / x.abs().pow(4 / 3).sum().pow(0.25),
    )
    yield Case(
        "projection onto a polygon of fifty sides",
        al.Problem(half_square, "(2)->(2)", inequality=lambda u, x: POLYGON @ u - 1),
        (torch.cat([3 * POLYGON[[4, 21]], values([0.1, 0.2]), 1.5 * POLYGON[[40]]]),),
        lambda x: x - POLYGON[int((POLYGON @ x).argmax())] * ((POLYGON @ x).max() - 1).clamp_min(0.0),
    )
    yield Case(
        "projection onto the simplex with inequalities",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u.sum() - 1, inequality=lambda u, x: -u),
        (normal(83, 4, 5),),
        to_simplex,
    )
    yield Case(
        "nondecreasing regression",
        al.Problem(half_square, "(n)->(n)", inequality=lambda u, x: u[:-1] - u[1:]),
        (values([1.0, 3.0, 2.0, 4.0, 3.5], [1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.5, 1.0, 2.0, 0.0]),),
        pool_adjacent,
    )
    yield Case(
        "a spherical cap",
        al.Problem(
            lambda u, x, b: -x @ u,
            "(n),()->(n)",
            equality=lambda u, x, b: u @ u - 1,
            inequality=lambda u, x, b: u[0] - b,
            start=lambda x, b: torch.stack([b - 0.5, 0.6 * x[1].sign(), 0.5 * x[2].sign()]),
        ),
        (values([2.0, 0.5, 1.0], [-1.0, 0.5, 1.0], [3.0, 1.0, -1.0]), values(0.2, 0.2, 0.5)),
        lambda x, b: _on_cap(x, b),
    )
    yield Case(
        "a portfolio with a required return",
        al.Problem(
            lambda u, P, mu, t: 0.5 * (u @ P @ u),
            "(n,n),(n),()->(n)",
            equality=lambda u, P, mu, t: u.sum() - 1,
            inequality=lambda u, P, mu, t: t - mu @ u,
        ),
        (definite(84, 4), values(0.1, 0.4, 0.2, 0.3), values(0.35, 0.05)),
        lambda P, mu, t: _portfolio(symmetric(P), mu, t),
    )
    yield Case(
        "a margin between two classes",
        al.Problem(
            lambda u, X: 0.5 * (u[0] @ u[0]), "(m,2)->(2),()", inequality=lambda u, X: 1 - LABELS * (X @ u[0] + u[1])
        ),
        (values([1.0, 1.2], [3.0, 2.0], [2.5, 4.0], [-1.0, -0.9], [-3.0, -2.0])[None] + 0.1 * normal(85, 2, 5, 2),),
        lambda X: _margin(X[0], X[3]),
    )
    yield Case(
        "the largest circle in a triangle",
        al.Problem(
            lambda u, A, b: u[1],
            "(m,n),(m)->(n),()",
            inequality=lambda u, A, b: A @ u[0] + u[1] * A.norm(dim=1) - b,
            maximize=True,
        ),
        (values([-1.0, 0.1], [0.2, -1.0], [1.0, 1.3]), values([0.1, 0.2, 1.0], [1.0, 0.5, 2.0])),
        lambda A, b: split_last(torch.linalg.solve(torch.cat([A, A.norm(dim=1)[:, None]], 1), b)),
    )
    yield Case(
        "the smallest largest distance to points on a line",
        al.Problem(lambda u, x: u[1], "(m)->(),()", inequality=lambda u, x: (u[0] - x).square() - u[1]),
        (normal(86, 3, 6),),
        lambda x: (0.5 * (x.max() + x.min()), (0.5 * (x.max() - x.min())).square()),
    )
    yield Case(
        "projection onto the second-order cone",
        al.Problem(
            lambda u, x, s: 0.5 * (u[0] - x).square().sum() + 0.5 * (u[1] - s).square(),
            "(n),()->(n),()",
            inequality=lambda u, x, s: u[0].norm() - u[1],
            start=lambda x, s: (x, x.norm() + 1),
        ),
        (normal(87, 3, 3), values(0.5, 4.0, -0.4)),
        to_second_order_cone,
    )
    yield Case(
        "a nearest point of an ellipsoid",
        al.Problem(half_square, "(n),(n)->(n)", inequality=lambda u, x, d: (d * u.square()).sum() - 1),
        (values([2.0, 1.0, -1.0], [0.2, 0.1, 0.2]), values(1.0, 2.0, 3.0)),
        lambda x, d: x if bool((d * x.square()).sum() < 1) else _on_ellipsoid(x, d),
        differences=True,
    )
    yield Case(
        "a trust region about a saddle",
        al.Problem(
            quadratic, "(n,n),(n)->(n)", inequality=lambda u, P, q: u @ u - 1, start=lambda P, q: -0.9 * q / q.norm()
        ),
        (
            torch.diag(values(1.0, -1.0, 2.0)) + 0.1 * symmetric(normal(88, 3, 3)),
            values([0.5, 1.5, 0.3], [1.0, -1.0, 1.0]),
        ),
        lambda P, q: _trust_region(symmetric(P), q),
        differences=True,
    )
    yield Case(
        "two active inequalities of a matrix-shaped variable",
        al.Problem(
            lambda U, X: 0.5 * (U - X).square().sum(),
            "(m,n)->(m,n)",
            inequality=lambda U, X: U.square().sum(1) - 1,
        ),
        (2 * normal(89, 2, 3, 2),),
        lambda X: X / X.norm(dim=1, keepdim=True).clamp_min(1.0),
    )
