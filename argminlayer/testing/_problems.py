"""The problems with known answers: every kind of objective and constraint, each small, regular and away from kinks."""

import torch
from torch import Tensor

from .._problem import Problem, least_squares
from ._known import KnownProblem

NONE = torch.zeros(0, dtype=torch.float64)


def _t(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


POINTS = _t([[0.6, -0.9, 1.4], [-0.3, 0.8, 0.5], [1.7, 0.2, -1.1]])
POSITIVE = _t([[0.6, 2.3, 1.4], [3.1, 0.7, 0.4], [1.8, 0.5, 2.6]])
TALL = _t(
    [
        [[1.0, 0.3], [-0.4, 1.2], [0.7, 0.5]],
        [[0.2, -1.1], [1.3, 0.4], [0.6, 0.9]],
        [[-0.8, 0.5], [0.1, 1.4], [1.1, -0.6]],
    ]
)


def _no_forces(*parameters: Tensor) -> tuple[Tensor, Tensor]:
    del parameters
    return NONE, NONE


def _distance(u: Tensor, x: Tensor, *others: Tensor) -> Tensor:
    del others
    return (u - x).square().sum() / 2.0


def _excess(p: Tensor, r: Tensor) -> Tensor:
    """The multiplier of ``u'u <= r²`` for the projection of p, when it holds with equality."""
    ratio: Tensor = p.norm() / r
    return (ratio.reshape(1) - 1.0) / 2.0


def _unconstrained() -> list[KnownProblem]:
    matrices = TALL.mT @ TALL + 0.5 * torch.eye(2, dtype=torch.float64)
    return [
        KnownProblem(
            "quadratic",
            Problem(lambda u, P, q: 0.5 * u @ P @ u - q @ u, "(n,n),(n)->(n)"),
            (matrices, POINTS[:, :2]),
            lambda P, q: torch.linalg.solve(0.5 * (P + P.mT), q),
            _no_forces,
        ),
        KnownProblem(
            "logarithm",
            Problem(lambda u, x: (u.exp() - x * u).sum(), "(n)->(n)"),
            (POSITIVE,),
            torch.log,
            _no_forces,
        ),
        KnownProblem(
            "valley",
            Problem(
                lambda u, a, b: (a - u[0]).square() + b * (u[1] - u[0].square()).square(),
                "(),()->(2)",
                start=lambda a, b: torch.stack([-1.2 * a, 1.0 + 0.0 * b]),
            ),
            (_t([1.0, 1.3, 0.8]), _t([20.0, 10.0, 30.0])),
            lambda a, b: torch.stack([a, a.square() + 0.0 * b]),
            _no_forces,
            far=True,
        ),
        KnownProblem(
            "scalar",
            Problem(lambda u, x, y: (u - x * y).square() + (u - x).square(), "(),()->()"),
            (_t([0.5, -1.2, 2.0]), _t([1.5, 0.4, -0.7])),
            lambda x, y: 0.5 * x * (1.0 + y),
            _no_forces,
        ),
        KnownProblem(
            "matrix",
            Problem(lambda U, A, B: 0.5 * (A @ U - B).square().sum(), "(m,n),(m,k)->(n,k)"),
            (TALL, torch.stack([POINTS, POSITIVE], dim=-1)),
            lambda A, B: torch.linalg.solve(A.mT @ A, A.mT @ B),
            _no_forces,
        ),
        KnownProblem(
            "several variables",
            Problem(lambda u, x: _distance(u[0], x) + (u[1] - u[0].sum()).square(), "(n)->(n),()"),
            (POINTS,),
            lambda x: (x, x.sum()),
            _no_forces,
        ),
        KnownProblem(
            "maximum",
            Problem(lambda u, x: (x * u - u.exp()).sum(), "(n)->(n)", maximize=True),
            (POSITIVE,),
            torch.log,
            _no_forces,
        ),
    ]


def _fits() -> list[KnownProblem]:
    return [
        KnownProblem(
            "linear fit",
            least_squares(lambda u, A, b: A @ u - b, "(m,n),(m)->(n)"),
            (TALL, POINTS),
            lambda A, b: torch.linalg.solve(A.mT @ A, A.mT @ b),
            _no_forces,
        ),
        KnownProblem(
            "ridge",
            least_squares(lambda u, A, b, mu: torch.cat([A @ u - b, mu.sqrt() * u]), "(m,n),(m),()->(n)"),
            (TALL, POINTS, _t([0.3, 1.0, 2.5])),
            lambda A, b, mu: torch.linalg.solve(A.mT @ A + mu * torch.eye(2, dtype=torch.float64), A.mT @ b),
            _no_forces,
        ),
        KnownProblem(
            "curved fit",
            least_squares(lambda u, x, c: torch.cat([u.exp() - x, c * u.exp()]), "(n),()->(n)", start=-2.0),
            (POSITIVE, _t([0.5, 1.0, 0.2])),
            lambda x, c: (x / (1.0 + c.square())).log(),
            _no_forces,
            far=True,
        ),
        KnownProblem(
            "fit within bounds",
            least_squares(lambda u, x: u - x, "(n)->(n)", lower=0.0, upper=1.0),
            (POINTS,),
            lambda x: x.clamp(0.0, 1.0),
            _no_forces,
        ),
        KnownProblem(
            "fit with an equality",
            least_squares(lambda u, x, b: u - x, "(n),()->(n)", equality=lambda u, x, b: u.sum() - b),
            (POINTS, _t([1.0, -0.5, 2.0])),
            lambda x, b: x - (x.sum() - b) / 3.0,
            lambda x, b: (((x.sum() - b) / 3.0).reshape(1), NONE),
        ),
    ]


def _equalities() -> list[KnownProblem]:
    def affine(x: Tensor, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.solve(A @ A.mT, A @ x - b), NONE

    def balance(x: Tensor, y: Tensor) -> Tensor:
        return ((x.sum() - y.sum()) / 5.0).reshape(1)

    return [
        KnownProblem(
            "affine projection",
            Problem(_distance, "(n),(m,n),(m)->(n)", equality=lambda u, x, A, b: A @ u - b),
            (POINTS, TALL.mT, POSITIVE[:, :2]),
            lambda x, A, b: x - A.mT @ affine(x, A, b)[0],
            affine,
        ),
        KnownProblem(
            "sphere",
            Problem(
                _distance,
                "(n),()->(n)",
                equality=lambda u, x, r: u.square().sum() - r.square(),
                start=lambda x, r: x + 0.3,
            ),
            (POINTS, _t([1.0, 1.5, 0.7])),
            lambda x, r: r * x / x.norm(),
            lambda x, r: (_excess(x, r), NONE),
            far=True,
        ),
        KnownProblem(
            "farthest point of a sphere",
            Problem(
                lambda u, x: x @ u,
                "(n)->(n)",
                equality=lambda u, x: u.square().sum() - 1.0,
                start=lambda x: x,
                maximize=True,
            ),
            (POINTS,),
            lambda x: x / x.norm(),
            lambda x: ((x.norm() / 2.0).reshape(1), NONE),
        ),
        KnownProblem(
            "matrix with unit rows",
            Problem(lambda U, X: 0.5 * (U - X).square().sum(), "(m,n)->(m,n)", equality=lambda U, X: U.sum(-1) - 1.0),
            (TALL,),
            lambda X: X - (X.sum(-1, keepdim=True) - 1.0) / 2.0,
            lambda X: ((X.sum(-1) - 1.0) / 2.0, NONE),
        ),
        KnownProblem(
            "two variables in balance",
            Problem(
                lambda u, x, y: _distance(u[0], x) + _distance(u[1], y),
                "(n),(k)->(n),(k)",
                equality=lambda u, x, y: u[0].sum() - u[1].sum(),
            ),
            (POINTS, POSITIVE[:, :2]),
            lambda x, y: (x - balance(x, y), y + balance(x, y)),
            lambda x, y: (balance(x, y), NONE),
        ),
    ]


def _inequalities() -> list[KnownProblem]:
    def overlap(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ((a @ x - b) / a.square().sum()).relu()

    return [
        KnownProblem(
            "half-space",
            Problem(_distance, "(n),(n),()->(n)", inequality=lambda u, x, a, b: a @ u - b),
            (POINTS, POSITIVE, _t([-1.0, 1.5, -0.6])),
            lambda x, a, b: x - overlap(x, a, b) * a,
            lambda x, a, b: (NONE, overlap(x, a, b).reshape(1)),
        ),
        KnownProblem(
            "ball",
            Problem(
                _distance,
                "(n),()->(n)",
                inequality=lambda u, x, r: u.square().sum() - r.square(),
                start=lambda x, r: 2.0 * r + 0.0 * x,
            ),
            (POINTS, _t([1.2, 0.9, 3.0])),
            lambda x, r: x * torch.minimum(r / x.norm(), torch.ones_like(r)),
            lambda x, r: (NONE, _excess(x, r).relu()),
        ),
        KnownProblem(
            "ceilings",
            Problem(_distance, "(n),(n)->(n)", inequality=lambda u, x, c: u - c),
            (POINTS, _t([[0.1, 0.1, 0.1], [0.9, 0.5, -0.4], [1.1, 1.2, 0.3]])),
            torch.minimum,
            lambda x, c: (NONE, (x - c).relu()),
        ),
        KnownProblem(
            "largest product",
            Problem(
                lambda u, w, r: (w * u).sum(),
                "(n),()->(n)",
                inequality=lambda u, w, r: u.square().sum() - r.square(),
                start=lambda w, r: 0.1 * w,
                maximize=True,
            ),
            (POSITIVE, _t([1.0, 2.0, 0.5])),
            lambda w, r: r * w / w.norm(),
            lambda w, r: (NONE, (w.norm() / (2.0 * r)).reshape(1)),
        ),
    ]


def _bounds() -> list[KnownProblem]:
    return [
        KnownProblem(
            "box",
            Problem(_distance, "(n)->(n)", lower=0.0, upper=1.0),
            (POINTS,),
            lambda x: x.clamp(0.0, 1.0),
            _no_forces,
        ),
        KnownProblem(
            "moving box",
            Problem(_distance, "(n),(n),()->(n)", lower=lambda x, lo, w: lo, upper=lambda x, lo, w: lo + w),
            (POINTS, _t([[0.1, -0.2, 0.1], [-0.5, 0.1, 0.7], [0.4, 0.4, -0.4]]), _t([1.0, 0.5, 0.8])),
            lambda x, lo, w: torch.minimum(torch.maximum(x, lo), lo + w),
            _no_forces,
        ),
        KnownProblem(
            "roomy box",
            Problem(lambda u, x: (u.exp() - x * u).sum(), "(n)->(n)", lower=-5.0, upper=5.0),
            (POSITIVE,),
            torch.log,
            _no_forces,
        ),
        KnownProblem(
            "one-sided bounds of two variables",
            Problem(
                lambda u, x, y: _distance(u[0], x) + _distance(u[1], y),
                "(n),()->(n),()",
                lower=(0.0, None),
                upper=(None, 0.25),
            ),
            (POINTS, _t([0.7, -0.4, 1.3])),
            lambda x, y: (x.relu(), y.clamp(max=0.25)),
            _no_forces,
        ),
    ]


def _mixtures() -> list[KnownProblem]:
    def level(x: Tensor, b: Tensor) -> Tensor:
        """The multiplier of the simplex: what is taken off every positive entry."""
        falling = x.sort(descending=True).values
        taken = (falling.cumsum(0) - b) / torch.arange(1, len(x) + 1)
        return taken.gather(0, (falling > taken).sum().reshape(1) - 1)

    def shrunk(p: Tensor, r: Tensor) -> Tensor:
        return p * torch.minimum(r / p.norm(), torch.ones_like(r))

    def ball(u: Tensor, x: Tensor, r: Tensor) -> Tensor:
        return u.square().sum() - r.square()

    radii = _t([1.0, 2.0, 1.2])
    return [
        KnownProblem(
            "simplex",
            Problem(_distance, "(n),()->(n)", equality=lambda u, x, b: u.sum() - b, lower=0.0),
            (POINTS, _t([1.0, 1.5, 2.5])),
            lambda x, b: (x - level(x, b)).relu(),
            lambda x, b: (level(x, b), NONE),
        ),
        KnownProblem(
            "disc",
            Problem(_distance, "(n),()->(n)", equality=lambda u, x, r: u.sum(), inequality=ball),
            (POINTS, radii),
            lambda x, r: shrunk(x - x.mean(), r),
            lambda x, r: (x.mean().reshape(1), _excess(x - x.mean(), r).relu()),
        ),
        KnownProblem(
            "positive part of a ball",
            Problem(_distance, "(n),()->(n)", inequality=ball, lower=0.0),
            (POINTS, radii),
            lambda x, r: shrunk(x.relu(), r),
            lambda x, r: (NONE, _excess(x.relu(), r).relu()),
        ),
        KnownProblem(
            "every kind of constraint",
            Problem(
                lambda u, x, y, r: _distance(u[0], x) + _distance(u[1], y) + _distance(u[2], x),
                "(n),(m),()->(n),(m),(n)",
                equality=lambda u, x, y, r: u[0].sum() - r,
                inequality=lambda u, x, y, r: ball(u[1], y, r),
                lower=(None, None, 0.0),
            ),
            (POINTS, POSITIVE[:, :2], radii),
            lambda x, y, r: (x - (x.sum() - r) / 3.0, shrunk(y, r), x.relu()),
            lambda x, y, r: (((x.sum() - r) / 3.0).reshape(1), _excess(y, r).relu()),
        ),
    ]


def _roots() -> list[KnownProblem]:
    def no_pull(x: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        del others
        return 0.0 * x, NONE

    return [
        KnownProblem(
            "linear system",
            Problem(None, "(n,n),(n)->(n)", equality=lambda u, A, b: A @ u - b),
            (TALL[:, 1:], POINTS[:, :2]),
            torch.linalg.solve,
            lambda A, b: no_pull(b),
        ),
        KnownProblem(
            "cube roots",
            Problem(None, "(n)->(n)", equality=lambda u, x: u**3 - x, start=3.0),
            (POSITIVE,),
            lambda x: x ** (1.0 / 3.0),
            no_pull,
            far=True,
        ),
        KnownProblem(
            "point on a ray",
            Problem(
                None,
                "(),()->(2)",
                equality=lambda u, r, t: (u.square().sum() - r.square(), u[1] - t * u[0]),
                start=1.0,
            ),
            (_t([1.0, 1.7, 0.6]), _t([0.5, -0.8, 2.0])),
            lambda r, t: torch.stack([r, r * t]) / (1.0 + t.square()).sqrt(),
            lambda r, t: (0.0 * torch.stack([r, t]), NONE),
        ),
        KnownProblem(
            "root with room",
            Problem(
                None,
                "(n)->(n)",
                equality=lambda u, x: u.exp() - x,
                inequality=lambda u, x: u.sum() - 20.0,
                lower=-5.0,
                upper=5.0,
            ),
            (POSITIVE,),
            torch.log,
            lambda x: (0.0 * x, 0.0 * x[:1]),
        ),
    ]


def _infeasible() -> list[KnownProblem]:
    middle = frozenset({1})
    squares = _t([1.0, -1.0, 1.5])
    lows = _t([0.1, 2.0, -0.5])

    def onto(x: Tensor, s: Tensor) -> Tensor:
        direction: Tensor = x / x.norm()
        return direction * s.clamp_min(0.0).sqrt()

    def pull(x: Tensor, s: Tensor) -> Tensor:
        return _excess(x, s.abs().sqrt())

    return [
        KnownProblem(
            "sphere of negative size",
            Problem(_distance, "(n),()->(n)", equality=lambda u, x, s: u.square().sum() - s, start=lambda x, s: x),
            (POINTS, squares),
            onto,
            lambda x, s: (pull(x, s), NONE),
            middle,
        ),
        KnownProblem(
            "ball of negative size",
            Problem(_distance, "(n),()->(n)", inequality=lambda u, x, s: u.square().sum() - s, start=lambda x, s: x),
            (POINTS, squares),
            onto,
            lambda x, s: (NONE, pull(x, s)),
            middle,
        ),
        KnownProblem(
            "crossed inequalities",
            Problem(_distance, "(n),()->(n)", inequality=lambda u, x, lo: (u - 1.0, lo - u), start=0.0),
            (POINTS, lows),
            lambda x, lo: torch.maximum(x.clamp(max=1.0), lo),
            lambda x, lo: (NONE, torch.cat([(x - 1.0).relu(), (lo - x).relu()])),
            middle,
        ),
        KnownProblem(
            "crossed bounds",
            Problem(_distance, "(n),()->(n)", lower=lambda x, lo: lo, upper=1.0),
            (POINTS, lows),
            lambda x, lo: torch.maximum(x.clamp(max=1.0), lo),
            _no_forces,
            middle,
        ),
        KnownProblem(
            "fit within crossed bounds",
            least_squares(lambda u, x, lo: u - x, "(n),()->(n)", lower=lambda x, lo: lo, upper=1.0),
            (POINTS, lows),
            lambda x, lo: torch.maximum(x.clamp(max=1.0), lo),
            _no_forces,
            middle,
        ),
        KnownProblem(
            "root of a negative number",
            Problem(None, "(n)->(n)", equality=lambda u, x: u.square() - x, start=1.0),
            (_t([[0.6, 2.3, 1.4], [3.1, -0.7, 0.4], [1.8, 0.5, 2.6]]),),
            lambda x: x.clamp_min(0.0).sqrt(),
            lambda x: (0.0 * x, NONE),
            middle,
        ),
    ]


KNOWN_PROBLEMS: tuple[KnownProblem, ...] = (
    *_unconstrained(),
    *_fits(),
    *_equalities(),
    *_inequalities(),
    *_bounds(),
    *_mixtures(),
    *_roots(),
)
"""Problems that can be solved, of every kind."""

INFEASIBLE_PROBLEMS: tuple[KnownProblem, ...] = tuple(_infeasible())
"""Problems in which one instance of the batch has no feasible point."""
