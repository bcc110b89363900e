"""Pooling of numbers: exact and global, every item on its own, with the derivative of the exact solution."""

import copy
import pickle

import pytest
import torch
from pooling.brute import NOT_CONVEX, PENALTIES, global_minimum, objective

import argminlayer as al
from argminlayer.testing import central_differences
from argminlayer_pooling import Robust, RobustPool, pooling_problem

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def outliers(n):
    x = torch.randn(4, n)
    return torch.where(torch.rand(4, n) < 0.2, 10.0 * x, x)


def clusters(n):
    return 0.3 * torch.randn(4, n) + torch.where(torch.rand(4, n) < 0.45, 6.0, 0.0)


def tight_in_wide(n):
    return torch.where(torch.rand(4, n) < 0.35, 2.0 + 0.05 * torch.randn(4, n), 40.0 * torch.rand(4, n) - 20.0)


def ties(n):
    return torch.randint(-3, 4, (4, n)).float()


def constant(n):
    return torch.tensor([3.3, -1e-3, 0.0, 1e6])[:, None].expand(4, n).clone()


def scales(n):
    return torch.randn(4, n) * torch.tensor([1e-12, 1e-3, 1e3, 1e12])[:, None]


def wild(n):
    return torch.randn(4, n) * 10.0 ** torch.randint(-10, 30, (4, n))


DATA = (outliers, clusters, tight_in_wide, ties, constant, scales, wild)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("data", DATA, ids=lambda f: f.__name__)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_global_minimum_is_found(penalty, data, dtype):
    for n, alpha in ((2, 1.0), (9, 0.5), (40, 1.0)):
        x = data(n).to(dtype)
        y = RobustPool(penalty, alpha, -1)(x)
        for row, value in zip(x.double(), y.double(), strict=True):
            found = objective(penalty, value[None], row, alpha).item()
            least = global_minimum(penalty, row, alpha)
            # a result in single precision is off by its rounding, which moves the objective by that of the points
            slack = 0.0 if dtype == torch.float64 else 1e-6 * row.abs().max().item() * min(n, alpha * n)
            assert found <= least * (1.0 + 1e-6) + 1e-10 * n + slack
            slip = 1e-6 * value.abs()
            assert row.min() - slip <= value <= row.max() + slip


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_global_minimum_is_found_with_weights_too(penalty):
    for x in (outliers(15).double(), clusters(15).double()):
        weights = torch.rand(x.shape, dtype=torch.float64) * (torch.rand(x.shape) < 0.7)
        y = RobustPool(penalty, 0.7, -1)(x, weights)
        for row, weight, value in zip(x, weights, y, strict=True):
            least = global_minimum(penalty, row, 0.7, weight)
            assert objective(penalty, value[None], row, 0.7, weight).item() <= least * (1.0 + 1e-6) + 1e-10


@pytest.mark.parametrize("penalty", NOT_CONVEX)
def test_a_long_row_of_two_clusters_is_pooled_to_the_larger(penalty):
    x = torch.cat([torch.randn(2, 2500) * 0.2, 5.0 + 0.2 * torch.randn(2, 2000)], -1)
    y = RobustPool(penalty, 1.0, -1)(torch.stack([x[0], -x[1]]))
    assert y.abs().max() < (0.5 if penalty == "barron" else 0.05)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_gradients_for_points_weights_alpha_and_shape_are_those_of_central_differences(penalty, weighted):
    for data in (outliers, clusters, tight_in_wide):
        x = data(7).double()
        given = [x, *([torch.rand_like(x) + 0.1] if weighted else []), torch.tensor(0.8).double()]
        given += [torch.tensor(-0.5).double()] if penalty == "barron" else []
        problem = pooling_problem(penalty, weighted=weighted)
        cotangent = torch.randn(4, dtype=torch.float64)

        def pooled(*p, problem=problem, cotangent=cotangent):
            return al.argmin(problem, *p, solver="pooling.robust") @ cotangent

        leaves = [p.clone().requires_grad_() for p in given]
        found = torch.autograd.grad(pooled(*leaves), leaves, materialize_grads=True)
        for gradient, expected in zip(found, central_differences(pooled, *given, step=1e-5), strict=True):
            assert (gradient - expected).abs().max() < 1e-6 * (1.0 + expected.abs().max())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_value_and_gradient_are_those_of_the_generic_engine(penalty):
    x = outliers(12).double().requires_grad_()
    pool = RobustPool(penalty, torch.tensor(0.8, dtype=torch.float64), -1)
    parameters = [x, *pool.parameters()]
    weights = torch.randn(4, dtype=torch.float64)
    fast = pool(x)
    certified = al.solve(pool.problem, *parameters, solver="pooling.robust").value
    assert torch.allclose(fast, certified, rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(y @ weights, parameters, materialize_grads=True) for y in (fast, certified))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("penalty", [p for p in PENALTIES if p != "truncated-quadratic"])
def test_a_general_solver_finds_the_same_minimum(penalty):
    x = outliers(12).double()
    pool = RobustPool(penalty, torch.tensor(0.8, dtype=torch.float64), -1)
    assert torch.allclose(pool(x, solver="scipy"), pool(x), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_mode_of_torch_agrees(penalty):
    pool = RobustPool(penalty, torch.tensor(0.9, dtype=torch.float64), -1)
    x = outliers(7).double()
    assert torch.equal(torch.func.vmap(pool)(x), pool(x))
    reverse, forward = torch.func.jacrev(pool)(x[0]), torch.func.jacfwd(pool)(x[0])
    assert torch.allclose(reverse, forward, atol=1e-12)
    assert torch.allclose(torch.func.vmap(torch.func.grad(pool))(x)[0], reverse, atol=1e-12)
    assert torch.autograd.gradgradcheck(pool, x[:1].clone().requires_grad_())


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("n", [49, 1000])
def test_an_item_does_not_depend_on_those_beside_it(penalty, n):
    x = torch.cat([data(n) for data in (outliers, clusters, tight_in_wide, wild)])
    pool = RobustPool(penalty, 1.0, -1)
    together = pool(x)
    assert torch.equal(together, torch.stack([pool(row) for row in x]))
    order = torch.randperm(len(x))
    assert torch.equal(pool(x[order]), together[order])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_an_item_with_nan_stays_alone_with_it(penalty):
    x = outliers(9).double()
    broken = x.clone()
    broken[1, 3], broken[2, 0] = torch.nan, torch.inf
    with pytest.raises(al.ProblemError, match=r"not finite: 2 of 4 items.*batch index \(1,\) \(nan\).*throw=False"):
        RobustPool(penalty, 1.0, -1)(broken)
    pool = RobustPool(penalty, 1.0, -1, throw=False)
    broken.requires_grad_()
    y = pool(broken)
    assert y.isnan().tolist() == [False, True, True, False]
    good = torch.tensor([0, 3])
    whole = x.clone().requires_grad_()
    assert torch.equal(y[good], pool(whole)[good])
    (found,) = torch.autograd.grad(y[good].sum(), broken, retain_graph=True)
    (expected,) = torch.autograd.grad(pool(whole)[good].sum(), whole)
    assert torch.equal(found, expected)
    if penalty != "quadratic":  # torch's own mean says nothing of its input in its gradient
        assert torch.autograd.grad(y.sum(), broken)[0][1].isnan().all()


def test_what_cannot_be_pooled_is_refused_in_words():
    with pytest.raises(al.ProblemError, match=r"unknown penalty 'hubr'. Did you mean 'huber'.*'?truncated-quadratic"):
        RobustPool("hubr")
    with pytest.raises(al.ProblemError, match=r"empty pool: the dimensions \(-2, -1\).*\(2, 0, 3\)"):
        RobustPool("huber")(torch.zeros(2, 0, 3))
    with pytest.raises(al.ProblemError, match="alpha must be positive and finite, not -1"):
        RobustPool("huber", alpha=-1.0)
    with pytest.raises(al.ProblemError, match="'huber' has no shape"):
        RobustPool("huber", shape=1.0)
    with pytest.raises(al.ProblemError, match=r"dimensions to pool are \(-2, -1\), but.*shape \(4,\)"):
        RobustPool("huber")(torch.zeros(4))
    with pytest.raises(al.ProblemError, match=r"dtype torch\.int64; pooling needs floats"):
        RobustPool("huber")(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(al.ProblemError, match="name each once"):
        RobustPool("huber", dim=(0, 0))(torch.zeros(4))
    x, problem = torch.randn(2, 3), pooling_problem("huber", weighted=True)
    with pytest.raises(al.ProblemError, match=r"weights must not be negative, but one is -1 \(batch index \(1,\)\)"):
        al.argmin(problem, x, torch.tensor([[1.0, 1, 1], [1, -1, 1]]), torch.tensor(1.0))
    with pytest.raises(al.ProblemError, match=r"empty pool: all weights are zero.*batch index \(0,\)"):
        al.argmin(problem, x, torch.tensor([[0.0, 0, 0], [1, 1, 1]]), torch.tensor(1.0))
    with pytest.raises(al.ProblemError, match="alpha is not positive: it is 0"):
        al.argmin(pooling_problem("huber"), x, torch.tensor(0.0))
    with pytest.raises(al.ProblemError, match="shape of the penalty 'barron' is 3; it must be between"):
        RobustPool("barron", shape=3.0)(x)


def test_flat_and_tied_minima_have_the_documented_solution_and_finite_gradients():
    x = torch.tensor([[0.0, 0.0, 7.0, 9.0], [0.0, 0.0, 10.0, 10.0]], dtype=torch.float64, requires_grad=True)
    middle = RobustPool("huber", 1.0, -1)(x)
    assert middle.tolist() == [3.5, 5.0]
    (gradient,) = torch.autograd.grad(middle.sum(), x)
    assert gradient.tolist() == [[0.25, 0.25, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]]
    for penalty in ("welsch", "truncated-quadratic", "geman-mcclure"):
        left = RobustPool(penalty, 1.0, -1)(x)
        assert left[1].item() == pytest.approx(0.0, abs=1e-3)
        assert torch.autograd.grad(left.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_minimum_of_a_gap_is_its_middle_whatever_is_on_its_sides(dtype):
    for k in range(1, 30):
        alpha = 0.1 + torch.rand(()).item()
        below, above = -torch.rand(k, dtype=dtype), 2.1 * alpha + torch.rand(k, dtype=dtype)
        sides = torch.stack([torch.cat([below, above]), torch.cat([below.round(), above.ceil() + 1.0])])
        middles = 0.5 * (sides[:, :k].amax(-1) + sides[:, k:].amin(-1))
        order = torch.randperm(2 * k)
        found = RobustPool("huber", torch.tensor(alpha, dtype=dtype), -1)(sides[:, order])
        assert torch.allclose(found, middles, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("penalty", ["welsch", "geman-mcclure", "barron"])
def test_an_almost_flat_minimum_moves_with_its_points(penalty, dtype):
    x = torch.linspace(-3.0, 3.0, 130, dtype=dtype, requires_grad=True)
    shape = -50.0 if penalty == "barron" else None
    y = RobustPool(penalty, torch.tensor(0.3, dtype=dtype), -1, shape=shape)(x)
    (gradient,) = torch.autograd.grad(y, x)
    rounding = 4.0 * torch.finfo(dtype).eps * gradient.abs().sum().item()
    assert gradient.sum().item() == pytest.approx(1.0, abs=1e-6 + rounding)


def test_a_degenerate_minimum_has_a_finite_gradient():
    # two points at the distance where two modes of a Gaussian merge: the second derivative is zero between them
    x = torch.tensor([[-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    y = RobustPool("welsch", 1.0, -1)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_result_and_the_gradient_have_the_dtype_of_the_input(penalty, dtype):
    x = outliers(20).to(dtype).requires_grad_()
    y = RobustPool(penalty, 1.0, -1)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    exact = RobustPool(penalty, 1.0, -1)(x.detach().double())
    assert torch.allclose(y.double(), exact, rtol=2.0 * torch.finfo(dtype).eps, atol=1e-6)


def test_dimensions_masks_and_parameters_of_channels_broadcast():
    x = torch.randn(2, 3, 4, 5)
    pool = RobustPool("huber", torch.tensor([0.5, 1.0, 2.0]))
    each = [RobustPool("huber", a)(x[:, c]) for c, a in enumerate((0.5, 1.0, 2.0))]
    assert torch.allclose(pool(x), torch.stack(each, 1))
    pool(x).sum().backward()
    assert pool.alpha.grad.shape == (3,)
    assert RobustPool("huber", keepdim=True)(x).shape == (2, 3, 1, 1)
    assert torch.equal(RobustPool("huber", dim=1)(x), RobustPool("huber", dim=-1)(x.movedim(1, -1)))
    mask = (torch.rand(2, 1, 4, 5) < 0.5).float()
    masked = RobustPool("huber")(x, mask)
    kept = RobustPool("huber", dim=-1)(x[0, 2][mask[0, 0] > 0])
    assert masked[0, 2].item() == pytest.approx(kept.item(), abs=1e-6)


def test_the_layer_survives_copies_pickles_state_and_a_change_of_solver():
    x = torch.randn(2, 3, 4, 5)
    pool = RobustPool("welsch", 0.7, learnable=False)
    assert not pool.alpha.requires_grad
    for twin in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(twin(x), pool(x))
    other = RobustPool("welsch", 2.0)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other(x), pool(x))
    model = torch.nn.Sequential(pool)
    al.set_solver(model, "pooling.robust")
    assert torch.equal(model(x), pool(x))
    assert str(pool) == "RobustPool('welsch', dim=(-2, -1))"


def test_huge_points_do_not_overflow():
    x = torch.full((1, 4), 3e38)
    for penalty in PENALTIES:
        assert RobustPool(penalty, 1.0, -1)(x).item() == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_tiny_scales_with_tiny_weights_do_not_underflow(penalty):
    x = torch.tensor([[-2.0, -1.0, 0.5, 1.0, 30.0]])
    weights = torch.tensor([[1.0, 3.0, 1.0, 0.5, 0.2]])
    problem, rest = pooling_problem(penalty, weighted=True), [torch.tensor(0.0)] if penalty == "barron" else []
    plain = al.argmin(problem, x, weights, torch.tensor(1.0), *rest)
    tiny = al.argmin(problem, 1e-30 * x, 1e-20 * weights, torch.tensor(1e-30), *rest)
    assert torch.allclose(1e30 * tiny, plain, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_heavier_of_two_points_wins_where_no_number_is_within_alpha_of_it(dtype):
    x = torch.tensor([1e22, -3e10], dtype=dtype, requires_grad=True)
    pool = RobustPool("huber", torch.tensor(1e-12, dtype=dtype), -1)
    assert pool(x, torch.tensor([0.2, 0.8], dtype=dtype)).item() == pytest.approx(-3e10)
    assert pool(x, torch.tensor([0.8, 0.2], dtype=dtype)).item() == pytest.approx(1e22)
    assert torch.autograd.grad(pool(x), x)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_are_finite_however_extreme_alpha_is(penalty, dtype):
    x = torch.cat([outliers(12), 1e4 + outliers(12), clusters(12)]).to(dtype).requires_grad_()
    exponents = (-300.0, -20.0, 300.0) if dtype == torch.float64 else (-38.0, -20.0, 38.0)
    for exponent in exponents:
        pool = RobustPool(penalty, torch.tensor(10.0**exponent, dtype=dtype), -1)
        y = pool(x)
        gradient, scale = torch.autograd.grad(y.sum(), (x, pool.alpha), materialize_grads=True)
        assert scale.isfinite()
        # all points moved together move the result with them
        assert torch.allclose(gradient.sum(-1), torch.ones_like(y), atol=1e-5)
        if exponent > 0:
            assert torch.allclose(y, x.mean(-1), rtol=1e-5, atol=1e-5)


def test_gradients_of_points_far_beyond_alpha_are_finite():
    x = torch.tensor([1e30, -3e29], requires_grad=True)
    pool = RobustPool("barron", 1.0, -1, shape=2.0)
    y = pool(x)
    assert torch.autograd.grad(y, x, retain_graph=True)[0].tolist() == pytest.approx([0.5, 0.5])
    assert all(torch.autograd.grad(y, p, retain_graph=True)[0].isfinite() for p in pool.parameters())
    mean = RobustPool("quadratic", 1e-12, -1)
    assert torch.autograd.grad(mean(x, torch.tensor([1e8, 3e8])), mean.alpha)[0].item() == 0.0


@pytest.mark.parametrize("penalty", NOT_CONVEX)
def test_a_solution_says_how_near_it_is_to_the_global_minimum(penalty):
    x = clusters(40).double()
    pool = RobustPool(penalty, torch.tensor(1.0, dtype=torch.float64), -1)
    solution = al.solve(pool.problem, x, *pool.parameters(), solver=Robust())
    assert bool(solution.ok.all())
    assert all("of the global minimum" in message for message in solution.messages)
    assert (solution.certificate.gap <= 1e-8).all()
