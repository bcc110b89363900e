"""The solver of robust pooling passes the suite that every solver passes, on poolings whose answer is a formula."""

import torch

from argminlayer.testing import KnownProblem, SolverConformance
from argminlayer_pooling import Robust, pooling_problem

POINTS = torch.tensor([[0.1, 0.4, -0.3, 8.0], [1.2, 0.9, 1.7, -6.0], [-0.8, -0.5, 0.1, 5.0]], dtype=torch.float64)
ALPHAS = torch.tensor([1.0, 1.3, 1.1], dtype=torch.float64)
PLANE = torch.stack([POINTS, 0.5 * POINTS.flip(1)], 1)
NONE = torch.zeros(0, dtype=torch.float64)


def no_forces(*parameters):
    return NONE, NONE


def known(name, penalty, parameters, answer, **kind):
    return KnownProblem(name, pooling_problem(penalty, **kind), parameters, answer, no_forces)


POOLINGS = (
    known("mean", "quadratic", (POINTS, ALPHAS), lambda x, a: x.mean()),
    known(
        "weighted mean",
        "quadratic",
        (POINTS, POINTS.square() + 0.5, ALPHAS),
        lambda x, w, a: (w * x).sum() / w.sum(),
        weighted=True,
    ),
    known("huber", "huber", (POINTS, ALPHAS), lambda x, a: (x[:3].sum() + a * x[3].sign()) / 3.0),
    known("truncated", "truncated-quadratic", (POINTS, ALPHAS), lambda x, a: x[:3].mean()),
    known("mean of vectors", "quadratic", (PLANE, ALPHAS), lambda x, a: x.mean(-1), vectors=True),
)


class TestRobust(SolverConformance):
    solver = Robust()
    problems = POOLINGS
