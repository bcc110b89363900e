"""Problems with equalities only."""

from collections.abc import Iterator

import torch
from torch import Tensor

import argminlayer as al

from ._case import Case
from ._formulas import equality_program, half_square, quadratic, root
from ._numbers import definite, eye, normal, positive, symmetric, values


def _on_ellipse(x: Tensor, Q: Tensor) -> Tensor:
    direction = torch.linalg.solve(Q, x)
    return -direction / (x @ direction).sqrt()


def _on_cut(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    square = a @ a
    along = x - a * (a @ x) / square
    return a * b / square - (1 - b.square() / square).sqrt() * along / along.norm()


def _generalised(A: Tensor, B: Tensor) -> Tensor:
    lower = torch.linalg.cholesky(B)
    inner = torch.linalg.solve(lower, torch.linalg.solve(lower, A).mT)
    return torch.linalg.solve(lower.mT, torch.linalg.eigh(symmetric(inner))[1][:, 0])


def _orthogonality(U: Tensor) -> Tensor:
    n = len(U)
    index = torch.tril_indices(n, n)
    return (U.mT @ U - eye(n))[index[0], index[1]]


def sinkhorn(C: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """Return the transport plan with entropy of weight one."""
    K, v = torch.exp(-C), torch.ones_like(c)
    for _ in range(200):
        v = c / (K.mT @ (r / (K @ v)))
    return (r / (K @ v))[:, None] * K * v


def _transport(C: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """Return the plan as a function of all of r and of c but its first entry, which the others determine."""
    return sinkhorn(C, r, torch.cat([(r.sum() - c[1:].sum())[None], c[1:]]))


def polar(M: Tensor) -> Tensor:
    """Return the orthogonal factor of ``M``."""
    eigenvalues, vectors = torch.linalg.eigh(M.mT @ M)
    return M @ (vectors * eigenvalues.rsqrt()) @ vectors.mT


def equalities() -> Iterator[Case]:
    """Problems with equalities only."""
    yield Case(
        "projection onto an affine space",
        al.Problem(half_square, "(n),(p,n),(p)->(n)", equality=lambda u, x, A, b: A @ u - b),
        (normal(30, 3, 4), normal(31, 3, 2, 4), normal(32, 3, 2)),
        lambda x, A, b: x - A.mT @ torch.linalg.solve(A @ A.mT, A @ x - b),
    )
    yield Case(
        "an equality-constrained quadratic program with all its data as parameters",
        al.Problem(quadratic, "(n,n),(n),(p,n),(p)->(n)", equality=lambda u, P, q, A, b: A @ u - b),
        (definite(33, 4, 2), normal(34, 2, 4), normal(35, 2, 4), normal(36, 2, 2)),
        lambda P, q, A, b: equality_program(symmetric(P), q, A, b),
    )
    yield Case(
        "the least norm with one equation",
        al.Problem(lambda u, a, b: 0.5 * u.square().sum(), "(n),()->(n)", equality=lambda u, a, b: a @ u - b),
        (normal(37, 3, 4), values(1.0, -2.0, 0.5)),
        lambda a, b: a * b / a.square().sum(),
    )
    yield Case(
        "projection onto a sphere with its radius as a parameter",
        al.Problem(half_square, "(n),()->(n)", equality=lambda u, x, r: u @ u - r.square(), start=lambda x, r: x),
        (normal(38, 4, 3), values(0.5, 1.0, 2.0, 3.0)),
        lambda x, r: r * x / x.norm(),
    )
    yield Case(
        "projection onto a sphere from the default start",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1),
        (normal(39, 4, 3),),
        lambda x: x / x.norm(),
    )
    for scale in (1e-6, 1e6):
        yield Case(
            f"projection onto a sphere whose equation is multiplied by {scale:g}",
            al.Problem(
                half_square,
                "(n)->(n)",
                equality=lambda u, x, s=scale: s * (u @ u - 1),
                start=lambda x: x / x.abs().sum(),
            ),
            (normal(40, 2, 3),),
            lambda x: x / x.norm(),
        )
    for scale in (1e-8, 1e8):
        yield Case(
            f"projection onto a sphere whose objective is multiplied by {scale:g}",
            al.Problem(
                lambda u, x, s=scale: s * half_square(u, x),
                "(n)->(n)",
                equality=lambda u, x: u @ u - 1,
                start=lambda x: x / x.abs().sum(),
            ),
            (normal(41, 2, 3),),
            lambda x: x / x.norm(),
        )
    yield Case(
        "projection onto a sphere of radius ten thousand",
        al.Problem(half_square, "(n)->(n)", equality=lambda u, x: u @ u - 1e8, start=lambda x: x),
        (2e4 * normal(42, 2, 3),),
        lambda x: 1e4 * x / x.norm(),
    )
    yield Case(
        "a linear objective on a circle with its radius as a parameter",
        al.Problem(lambda u, x, r: x @ u, "(2),()->(2)", equality=lambda u, x, r: u @ u - r.square()),
        (normal(43, 3, 2), values(1.0, 2.0, 0.7)),
        lambda x, r: -r * x / x.norm(),
    )
    yield Case(
        "a linear objective with the norm equal to one",
        al.Problem(lambda u, x: -x @ u, "(n)->(n)", equality=lambda u, x: u.norm() - 1),
        (normal(44, 3, 4),),
        lambda x: x / x.norm(),
    )
    yield Case(
        "a linear objective on an ellipse",
        al.Problem(lambda u, x, Q: x @ u, "(n),(n,n)->(n)", equality=lambda u, x, Q: u @ Q @ u - 1),
        (normal(45, 2, 3), definite(46, 3, 2)),
        lambda x, Q: _on_ellipse(x, symmetric(Q)),
    )
    yield Case(
        "projection onto an ellipse",
        al.Problem(
            half_square, "(n),(n)->(n)", equality=lambda u, x, d: (d * u.square()).sum() - 1, start=lambda x, d: x
        ),
        (normal(47, 2, 2) * 2, values([1.0, 4.0], [2.0, 0.5])),
        lambda x, d: root(
            lambda w: torch.cat([w[:2] - x + w[2] * d * w[:2], ((d * w[:2].square()).sum() - 1)[None] / 2]),
            torch.cat([x / (d * x.square()).sum().sqrt(), values(0.1)]),
        )[:2],
        differences=True,
    )
    yield Case(
        "a circle cut out of a sphere by a plane",
        al.Problem(
            lambda u, x, a, b: x @ u,
            "(n),(n),()->(n)",
            equality=lambda u, x, a, b: (u @ u - 1, a @ u - b),
        ),
        (normal(48, 2, 3), normal(49, 2, 3), values(0.2, -0.3)),
        lambda x, a, b: _on_cut(x, a, b),
    )
    yield Case(
        "relative entropy to a point of the simplex",
        al.Problem(
            lambda u, x: (u * (u / x).log()).sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1, start=lambda x: x
        ),
        (positive(50, 3, 4),),
        lambda x: x / x.sum(),
    )
    yield Case(
        "relative entropy with a lower bound and no start",
        al.Problem(lambda u, x: (u * (u / x).log()).sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1, lower=1e-9),
        (positive(51, 3, 4),),
        lambda x: x / x.sum(),
    )
    yield Case(
        "the maximum of entropy plus a linear function",
        al.Problem(
            lambda u, x, t: x @ u - t * (u * u.log()).sum(),
            "(n),()->(n)",
            equality=lambda u, x, t: u.sum() - 1,
            start=lambda x, t: torch.full_like(x, 1 / len(x)),
            maximize=True,
        ),
        (normal(52, 3, 4), values(1.0, 0.5, 2.0)),
        lambda x, t: torch.softmax(x / t, 0),
    )
    yield Case(
        "the analytic centre of a weighted simplex",
        al.Problem(
            lambda u, a: -u.log().sum(),
            "(n)->(n)",
            equality=lambda u, a: a @ u - 1,
            start=lambda a: torch.full_like(a, 1 / float(len(a))),
        ),
        (positive(53, 2, 3),),
        lambda a: 1 / (3 * a),
    )
    for which, index in (("top", -1), ("bottom", 0)):
        yield Case(
            f"the {which} eigenvector",
            al.Problem(lambda u, A: u @ A @ u, "(n,n)->(n)", equality=lambda u, A: u @ u - 1, maximize=which == "top"),
            (normal(54, 3, 4, 4),),
            lambda A, i=index: torch.linalg.eigh(symmetric(A))[1][:, i],
            either_sign=True,
        )
    yield Case(
        "the top eigenvector with the norm equal to one",
        al.Problem(
            lambda u, A: u @ A @ u,
            "(n,n)->(n)",
            equality=lambda u, A: u.norm() - 1,
            start=values(1.0, 0.5, 0.2),
            maximize=True,
        ),
        (normal(55, 2, 3, 3) + torch.diag(values(3.0, 1.0, -1.0)),),
        lambda A: torch.linalg.eigh(symmetric(A))[1][:, -1],
        either_sign=True,
    )
    yield Case(
        "a generalised eigenvector",
        al.Problem(lambda u, A, B: u @ A @ u, "(n,n),(n,n)->(n)", equality=lambda u, A, B: u @ B @ u - 1),
        (symmetric(normal(56, 3, 3)), definite(57, 3)),
        lambda A, B: _generalised(symmetric(A), symmetric(B)),
        either_sign=True,
    )
    yield Case(
        "the nearest orthogonal matrix of order two",
        al.Problem(
            lambda U, M: 0.5 * (U - M).square().sum(),
            "(2,2)->(2,2)",
            equality=lambda U, M: _orthogonality(U),
            start=eye(2),
        ),
        (2 * eye(2) + 0.7 * normal(58, 3, 2, 2),),
        polar,
    )
    yield Case(
        "the orthogonal Procrustes problem of order three",
        al.Problem(
            lambda U, A, B: 0.5 * (U @ A - B).square().sum(),
            "(n,k),(n,k)->(n,n)",
            equality=lambda U, A, B: _orthogonality(U),
            start=lambda A, B: (
                torch.linalg.qr(B @ A.mT)[0] @ torch.diag(torch.linalg.qr(B @ A.mT)[1].diagonal().sign())
            ),
        ),
        (normal(59, 3, 5), normal(59, 3, 5) + 0.3 * normal(60, 3, 5)),
        lambda A, B: polar(B @ A.mT),
    )
    yield Case(
        "entropic optimal transport",
        al.Problem(
            lambda P, C, r, c: (C * P).sum() + (P * P.log()).sum(),
            "(m,n),(m),(n)->(m,n)",
            equality=lambda P, C, r, c: (P.sum(1) - r, P.sum(0)[1:] - c[1:]),
            start=lambda C, r, c: r[:, None] * c,
        ),
        (positive(61, 2, 2, 3), values(0.4, 0.6), values([0.2, 0.3, 0.5], [0.5, 0.25, 0.25])),
        _transport,
    )
    yield Case(
        "the vertex of a hyperbola",
        al.Problem(
            lambda u, x: 0.5 * u.square().sum(),
            "()->(2)",
            equality=lambda u, x: u[0] * u[1] - x,
            start=values(2.0, 0.5),
        ),
        (values(1.0, 2.0, 0.3),),
        lambda x: x.sqrt() * torch.ones(2, dtype=torch.float64),
    )
    yield Case(
        "a linear objective at a point that equations determine",
        al.Problem(lambda u, x, A, b: x @ u, "(n),(n,n),(n)->(n)", equality=lambda u, x, A, b: A @ u - b),
        (normal(62, 2, 3), normal(63, 2, 3, 3) + 2 * eye(3), normal(64, 2, 3)),
        lambda x, A, b: torch.linalg.solve(A, b) + 0 * x,
    )
    yield Case(
        "a Hessian that is indefinite but positive along the constraint",
        al.Problem(
            lambda u, x, b: u[0].square() - 2 * u[1].square() + x @ u, "(2),()->(2)", equality=lambda u, x, b: u[1] - b
        ),
        (normal(65, 3, 2), values(1.0, -1.0, 0.0)),
        lambda x, b: torch.stack([-0.5 * x[0], b]),
    )
