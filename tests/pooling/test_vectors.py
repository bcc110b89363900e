"""Pooling of vectors: descents that never leave the hull of the points, and the derivative of where they end."""

import pytest
import torch
from pooling.brute import NOT_CONVEX, PENALTIES

import argminlayer as al
from argminlayer.testing import central_differences
from argminlayer_pooling import RobustPool, RobustVectorPool, pooling_problem


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def cloud(m, n, batch=3):
    x = torch.randn(batch, m, n, dtype=torch.float64)
    return torch.where(torch.rand(batch, 1, n) < 0.2, 8.0 * x, x)


def clusters(m, n, batch=3):
    centre = torch.where(torch.rand(batch, 1, n) < 0.4, 6.0, 0.0)
    return 0.3 * torch.randn(batch, m, n, dtype=torch.float64) + centre


def objective(penalty, u, x, alpha):
    rest = (torch.tensor(alpha, dtype=torch.float64),)
    rest += (torch.tensor(0.0, dtype=torch.float64),) if penalty == "barron" else ()
    problem = pooling_problem(penalty, vectors=True).objective
    return torch.func.vmap(lambda v: problem(v, x, *rest))(u)


def pool_of(penalty, alpha=1.0, **options):
    return RobustVectorPool(penalty, torch.tensor(alpha, dtype=torch.float64), -1, **options)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_in_the_plane_no_point_of_a_fine_grid_is_better(penalty):
    side = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    for data in (cloud, clusters):
        x = data(2, 40)
        y = pool_of(penalty)(x)
        for row, value in zip(x, y, strict=True):
            low, high = row.amin(-1), row.amax(-1)
            tried = (low + high) / 2 + grid * (high - low) / 2
            assert objective(penalty, value[None], row, 1.0) <= objective(penalty, tried, row, 1.0).min() + 1e-9


@pytest.mark.parametrize("penalty", PENALTIES)
def test_with_one_channel_it_is_the_pool_of_numbers(penalty):
    x = clusters(1, 50)
    assert torch.allclose(pool_of(penalty)(x), RobustPool(penalty, 1.0, -1)(x), atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_are_those_of_central_differences(penalty, weighted):
    x = cloud(2, 6, batch=2)
    given = [x, *([torch.rand(2, 6, dtype=torch.float64) + 0.1] if weighted else []), torch.tensor(1.3).double()]
    given += [torch.tensor(-0.5).double()] if penalty == "barron" else []
    problem = pooling_problem(penalty, weighted=weighted, vectors=True)
    cotangent = torch.randn(2, 2, dtype=torch.float64)

    def pooled(*p):
        return (al.argmin(problem, *p, solver="pooling.robust") * cotangent).sum()

    leaves = [p.clone().requires_grad_() for p in given]
    found = torch.autograd.grad(pooled(*leaves), leaves, materialize_grads=True)
    for gradient, expected in zip(found, central_differences(pooled, *given, step=1e-5), strict=True):
        assert (gradient - expected).abs().max() < 1e-6 * (1.0 + expected.abs().max())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_value_and_gradient_are_those_of_the_generic_engine(penalty):
    x = cloud(3, 12).requires_grad_()
    pool = pool_of(penalty, 1.5)
    parameters = [x, *(p.double() for p in pool.parameters())]
    cotangent = torch.randn(3, 3, dtype=torch.float64)
    fast, solution = pool(x), al.solve(pool.problem, *parameters, solver="pooling.robust")
    assert bool(solution.ok.all())
    assert torch.allclose(fast, solution.value, rtol=1e-9, atol=1e-11)
    gradients = (
        torch.autograd.grad((y * cotangent).sum(), parameters, materialize_grads=True) for y in (fast, solution.value)
    )
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_mode_of_torch_agrees(penalty):
    pool, x = pool_of(penalty), cloud(2, 7)
    assert torch.allclose(torch.func.vmap(pool)(x), pool(x), atol=1e-12)
    reverse, forward = torch.func.jacrev(pool)(x[0]), torch.func.jacfwd(pool)(x[0])
    assert torch.allclose(reverse, forward, atol=1e-10)
    gradients = torch.func.vmap(torch.func.grad(lambda row: pool(row).sum()))(x)
    assert torch.allclose(gradients[0], reverse.sum(0), atol=1e-10)
    assert torch.autograd.gradgradcheck(pool, x[:1].clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_with_128_channels_the_result_is_in_the_hull_and_the_gradient_finite(penalty, dtype):
    # alpha is a hundredth of the distance between points: none is within reach of another
    x = torch.randn(2, 128, 7, 7, dtype=dtype, requires_grad=True)
    pool = RobustVectorPool(penalty)
    y = pool(x)
    points = x.flatten(2)
    assert ((points.amin(-1) <= y + 1e-5) & (y <= points.amax(-1) + 1e-5)).all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()
    # all points moved together move the result with them
    assert torch.allclose(gradient.sum((0, 2, 3)), torch.full((128,), 2.0, dtype=dtype), atol=1e-4)
    mean = objective(penalty, points.double().mean(-1)[:1], points[0].double(), 1.0)
    assert objective(penalty, y.double()[:1], points[0].double(), 1.0) <= mean + 1e-9


@pytest.mark.parametrize("penalty", NOT_CONVEX)
def test_more_starts_find_no_worse_a_minimum(penalty):
    x = torch.cat([clusters(2, 60), 5.0 * torch.rand(3, 2, 40, dtype=torch.float64)], -1)
    few = pool_of(penalty, 0.5, options={"starts": 0})(x, solver="pooling.robust")
    many = pool_of(penalty, 0.5, solver="pooling.robust", options={"starts": 100, "sample": 100})(x)
    for row, one, other in zip(x, few, many, strict=True):
        assert objective(penalty, other[None], row, 0.5) <= objective(penalty, one[None], row, 0.5) + 1e-9


def test_weights_count_points_and_items_stay_alone():
    x = cloud(2, 10)
    mask = (torch.rand(3, 10) < 0.6).double()
    pool = pool_of("huber")
    kept = torch.stack([pool(row[:, keep > 0]) for row, keep in zip(x, mask, strict=True)])
    assert torch.allclose(pool(x, mask), kept, atol=1e-10)
    broken = x.clone()
    broken[1, 0, 3] = torch.nan
    with pytest.raises(al.ProblemError, match=r"1 of 3 items hold nan or inf, the first at batch index \(1,\) \(nan\)"):
        pool(broken)
    lenient = pool_of("huber", throw=False)
    broken.requires_grad_()
    y = lenient(broken)
    assert y.isnan().all(-1).tolist() == [False, True, False]
    (found,) = torch.autograd.grad(y[0].sum(), broken)
    assert found[1:].eq(0.0).all()
    assert torch.allclose(y[0], pool(x)[0])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_an_empty_batch_has_an_empty_result_and_gradient(penalty):
    for layer in (RobustPool, RobustVectorPool):
        x = torch.zeros(0, 3, 2, 2, requires_grad=True)
        y = layer(penalty)(x)
        assert y.shape == (0, 3)
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_maps_of_features_are_pooled_to_vectors():
    x = torch.randn(2, 5, 4, 3)
    pool = RobustVectorPool("pseudo-huber")
    assert pool(x).shape == (2, 5)
    assert RobustVectorPool("pseudo-huber", keepdim=True)(x).shape == (2, 5, 1, 1)
    assert torch.allclose(RobustVectorPool("pseudo-huber", dim=1)(x.flatten(2).mT), pool(x), atol=1e-5)
    assert torch.allclose(RobustVectorPool("quadratic")(x), x.mean((-2, -1)), atol=1e-6)
    with pytest.raises(al.ProblemError, match="no dimension left for the channels"):
        RobustVectorPool("huber")(torch.zeros(3, 4))
    with pytest.raises(al.SolverError, match="starts must not be negative and sample at least 1, not -1 and 64"):
        al.argmin(pooling_problem("huber"), x, torch.tensor(1.0), solver="pooling", options={"starts": -1})
