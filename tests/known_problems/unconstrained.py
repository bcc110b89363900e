"""Problems without constraints."""

from collections.abc import Iterator

import torch

import argminlayer as al

from ._case import Case
from ._formulas import minimiser, polygon, quadratic, split_last
from ._numbers import definite, eye, normal, positive, symmetric, values

DESIGN = normal(71, 12, 3)


OUTCOMES = (normal(72, 12) > 0).double()


TIMES = torch.linspace(0.0, 2.0, 6, dtype=torch.float64)


def unconstrained() -> Iterator[Case]:
    """Problems without constraints."""
    yield Case(
        "a quadratic with its matrix as a parameter",
        al.Problem(quadratic, "(n,n),(n)->(n)"),
        (definite(1, 4, 3), normal(2, 3, 4)),
        lambda P, q: -torch.linalg.solve(symmetric(P), q),
    )
    yield Case(
        "a mean as a scalar variable",
        al.Problem(lambda u, x: (u - x).square().sum(), "(m)->()"),
        (normal(3, 4, 5),),
        lambda x: x.mean(),
    )
    yield Case(
        "ridge regression with a scalar penalty",
        al.Problem(
            lambda u, X, y, mu: 0.5 * (X @ u - y).square().sum() + 0.5 * mu.exp() * u.square().sum(),
            "(m,n),(m),()->(n)",
        ),
        (normal(4, 2, 7, 3), normal(5, 2, 7), values(-1.0, 0.5)),
        lambda X, y, mu: torch.linalg.solve(X.mT @ X + mu.exp() * eye(3), X.mT @ y),
    )
    yield Case(
        "declared least squares",
        al.least_squares(lambda u, X, y: X @ u - y, "(m,n),(m)->(n)"),
        (normal(6, 3, 6, 3), normal(7, 3, 6)),
        lambda X, y: torch.linalg.solve(X.mT @ X, X.mT @ y),
    )
    yield Case(
        "exponential fit by nonlinear least squares",
        al.least_squares(lambda u, y: u[0] * torch.exp(-u[1] * TIMES) - y, "(m)->(2)", start=values(1.0, 1.0)),
        (values(2.0, 1.5)[:, None] * torch.exp(-values(0.8, 1.3)[:, None] * TIMES) + 0.02 * normal(8, 2, 6),),
        lambda y: minimiser(lambda u: (u[0] * torch.exp(-u[1] * TIMES) - y).square().sum(), values(1.8, 1.0)),
        differences=True,
    )
    yield Case(
        "logistic regression with a weight for each row",
        al.Problem(
            lambda u, w, mu: (
                (w * torch.nn.functional.softplus(DESIGN @ u) - w * OUTCOMES * (DESIGN @ u)).sum()
                + 0.5 * mu * u.square().sum()
            ),
            "(m),()->(3)",
        ),
        (positive(9, 2, 12), values(0.7)[0]),
        lambda w, mu: minimiser(
            lambda u: (
                (w * torch.nn.functional.softplus(DESIGN @ u) - w * OUTCOMES * (DESIGN @ u)).sum()
                + 0.5 * mu * u.square().sum()
            ),
            torch.zeros(3, dtype=torch.float64),
        ),
        differences=True,
    )
    yield Case(
        "pseudo-Huber mean with its width as a parameter",
        al.Problem(lambda u, x, a: (a.square() * ((1 + ((u - x) / a).square()).sqrt() - 1)).sum(), "(m),()->()"),
        (torch.cat([normal(10, 2, 6), values([9.0], [-7.0])], -1), values(1.0, 0.6)),
        lambda x, a: minimiser(
            lambda u: (a.square() * ((1 + ((u[0] - x) / a).square()).sqrt() - 1)).sum(), x.median()[None]
        )[0],
        differences=True,
    )
    yield Case(
        "exponentials minus a linear function",
        al.Problem(lambda u, x: u.exp().sum() - x @ u, "(n)->(n)"),
        (positive(11, 3, 4),),
        lambda x: x.log(),
    )
    yield Case(
        "log-sum-exp with a quadratic",
        al.Problem(lambda u, A, b: torch.logsumexp(A @ u + b, 0) + 0.5 * u.square().sum(), "(m,n),(m)->(n)"),
        (normal(12, 4, 2), normal(13, 2, 4)),
        lambda A, b: minimiser(
            lambda u: torch.logsumexp(A @ u + b, 0) + 0.5 * u.square().sum(), torch.zeros(2, dtype=torch.float64)
        ),
        differences=True,
    )
    yield Case(
        "the global minimum of a polynomial with three stationary points",
        al.Problem(
            lambda u, x: x * u**4 + 2 * x**2 * u**3 - 12 * u**2, "()->()", start=[values(-4.0)[0], values(4.0)[0]]
        ),
        (values(0.5, 1.0, 2.0),),
        lambda x: (-3 * x**2 - (9 * x**4 + 96 * x).sqrt()) / (4 * x),
    )
    yield Case(
        "the local minimum of the same polynomial on the right",
        al.Problem(lambda u, x: x * u**4 + 2 * x**2 * u**3 - 12 * u**2, "()->()", start=2.0),
        (values(0.5, 1.0, 2.0),),
        lambda x: (-3 * x**2 + (9 * x**4 + 96 * x).sqrt()) / (4 * x),
    )
    yield Case(
        "a curved valley",
        al.Problem(
            lambda u, a, b: (a - u[0]).square() + b * (u[1] - u[0].square()).square(), "(),()->(2)", start=values(-1, 2)
        ),
        (values(1.0, 0.5, -0.3), values(100.0)[0]),
        lambda a, b: torch.stack([a, a.square() + 0 * b]),
    )
    yield Case(
        "a quartic about several points",
        al.Problem(lambda u, x, mu: 0.25 * (u - x).pow(4).sum() + 0.5 * mu * u.square().sum(), "(n),()->(n)"),
        (normal(14, 2, 3) + 2, values(0.5, 1.0)),
        lambda x, mu: minimiser(lambda u: 0.25 * (u - x).pow(4).sum() + 0.5 * mu * u.square().sum(), 0.1 * x),
        differences=True,
    )
    yield Case(
        "a matrix of coefficients",
        al.Problem(
            lambda U, A, B, mu: 0.5 * (U @ A - B).square().sum() + 0.5 * mu * U.square().sum(),
            "(n,m),(k,m),()->(k,n)",
        ),
        (normal(15, 2, 3, 5), normal(16, 2, 2, 5), values(0.3)[0]),
        lambda A, B, mu: torch.linalg.solve(A @ A.mT + mu * eye(3), A @ B.mT).mT,
    )
    yield Case(
        "slope and intercept as two variables",
        al.Problem(lambda u, X, y: (X @ u[0] + u[1] - y).square().sum(), "(m,n),(m)->(n),()"),
        (normal(17, 3, 8, 2), normal(18, 3, 8)),
        lambda X, y: split_last(torch.linalg.lstsq(torch.cat([X, torch.ones_like(X[:, :1])], 1), y[:, None])[0][:, 0]),
    )
    yield Case(
        "the maximum of a likelihood",
        al.Problem(
            lambda u, x: len(x) * u.log() - u * x.sum(), "(m)->()", start=lambda x: 0.5 / x.mean(), maximize=True
        ),
        (positive(19, 3, 6),),
        lambda x: len(x) / x.sum(),
    )
    for scale in (1e-8, 1e8):
        yield Case(
            f"a quadratic times {scale:g}",
            al.Problem(lambda u, P, q, s=scale: s * quadratic(u, P, q), "(n,n),(n)->(n)"),
            (definite(20, 3, 2), normal(21, 2, 3)),
            lambda P, q: -torch.linalg.solve(symmetric(P), q),
        )
    yield Case(
        "values of ten thousand",
        al.Problem(lambda u, x: (u - x).square().sum(), "(m)->()"),
        (1e4 * (1 + normal(22, 2, 5)),),
        lambda x: x.mean(),
    )
    yield Case(
        "variables in very different units",
        al.Problem(
            lambda u, x: 1e-4 * (u[0] - x[0]).square() + 1e4 * (u[1] - x[1] * 1e-4).square() + u[0] * u[1], "(2)->(2)"
        ),
        (values([1e4, 1.0], [-2e4, 3.0]),),
        lambda x: torch.linalg.solve(values([2e-4, 1.0], [1.0, 2e4]), torch.stack([2e-4 * x[0], 2.0 * x[1]])),
        single=None,
    )
    yield Case(
        "a quadratic with condition number one million",
        al.Problem(lambda u, d, x: 0.5 * (d * (u - x).square()).sum() + 0.01 * (u @ x), "(n),(n)->(n)"),
        (values(1.0, 1e3, 1e6), normal(23, 2, 3)),
        lambda d, x: x - 0.01 * x / d,
    )
    yield Case(
        "the analytic centre of a polygon",
        al.Problem(lambda u, b: -torch.log(b - polygon(5) @ u).sum(), "(m)->(2)"),
        (positive(24, 2, 5) + 0.3,),
        lambda b: minimiser(lambda u: -torch.log(b - polygon(5) @ u).sum(), torch.zeros(2, dtype=torch.float64)),
        differences=True,
    )
    yield Case(
        "batches that broadcast in two dimensions",
        al.Problem(lambda u, x, w: 0.5 * (w * (u - x).square()).sum() + u.sum(), "(n),(n)->(n)"),
        (normal(25, 3, 1, 2), positive(26, 4, 2)),
        lambda x, w: x - 1 / w,
    )
    yield Case(
        "a shared matrix and a batch of vectors",
        al.Problem(quadratic, "(n,n),(n)->(n)"),
        (definite(27, 3), normal(28, 5, 3)),
        lambda P, q: -torch.linalg.solve(symmetric(P), q),
    )
    yield Case(
        "a fixed number of variables that no parameter has",
        al.Problem(
            lambda u, s, x: (u - s * values(0, 1, 2)).square().sum() + (u.sum() - x.sum()).square(), "(),(n)->(3)"
        ),
        (values(0.5, 1.5), normal(29, 4)),
        lambda s, x: torch.linalg.solve(eye(3) + 1, s * values(0, 1, 2) + x.sum()),
    )
