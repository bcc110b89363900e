"""Global minima found the slow way: a grid over the hull of the points, refined until nothing moves."""

import torch

from argminlayer_pooling import pooling_problem

PENALTIES = ("quadratic", "pseudo-huber", "huber", "welsch", "truncated-quadratic", "geman-mcclure", "barron")
NOT_CONVEX = ("welsch", "truncated-quadratic", "geman-mcclure", "barron")


def objective(penalty, u, x, alpha, weights=None):
    """Return the objective of one row ``x`` (n) at many ``u``, as the problem states it."""
    problem = pooling_problem(penalty, weighted=weights is not None).objective
    rest = (*([] if weights is None else [weights]), torch.tensor(alpha, dtype=torch.float64))
    rest += (torch.tensor(0.0, dtype=torch.float64),) if penalty == "barron" else ()
    return torch.func.vmap(lambda v: problem(v, x, *rest))(u)


def global_minimum(penalty, x, alpha, weights=None):
    """Return the least objective of one row ``x`` (n): every point and a grid, the best of them refined."""
    x = x.double()
    low, high = x.min().item(), x.max().item()
    around = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64) * alpha
    grid = [torch.linspace(low, high, 801, dtype=torch.float64), (x[:, None] + around).flatten()]
    u = torch.cat(grid).clamp(low, high)
    values = torch.cat([objective(penalty, part, x, alpha, weights) for part in u.split(4096)])
    best, step = values.min(), max(high - low, 1e-300)
    centres = u[values.argsort()[:8]]
    for _ in range(45):
        step *= 0.5
        tried = torch.cat([centres, centres - step, centres + step]).clamp(low, high)
        values = objective(penalty, tried, x, alpha, weights)
        centres = tried[values.argsort()[:8]]
        best = torch.minimum(best, values.min())
    return best.item()
