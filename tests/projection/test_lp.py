"""Projections onto Lp spheres and balls: nearest points, feasibility, derivatives, batches, bad input."""

import copy
import itertools
import math
import pickle

import nearest_points as nearest
import numpy as np
import pytest
import torch

import argminlayer as al
from argminlayer_projection import LpProjection, SimplexProjection

F64 = torch.float64
PS = (1.0, 1.3, 2.0, 3.5, math.inf)
KINDS = ("sphere", "ball")


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def points():
    """Return rows of eight entries: random, tied, sparse, far out, huge and tiny, all outside of the unit balls."""
    random = randn(4, 8) * 3
    tied = torch.tensor([[2.0, 2, 2, -2, 1, 1, -1, 0], [5.0] * 8], dtype=F64)
    sparse = torch.tensor([[0.0, 3, 0, 0, -4, 0, 0, 0], [0.0, 0, 0, 7, 0, 0, 0, 0]], dtype=F64)
    return torch.cat([random, tied, sparse, 1e4 * randn(2, 8, seed=1), 1e12 * randn(1, 8, seed=2)])


def expected(x, r, p, kind):
    rows = [nearest.sphere(row, r, p, kind == "ball") for row in x.numpy()]
    return torch.tensor(np.array(rows, dtype=np.float64))


@pytest.mark.parametrize(("p", "kind"), list(itertools.product(PS, KINDS)))
def test_points_outside_go_to_the_nearest_point(p, kind):
    x = points()
    y = LpProjection(p, 1.0, kind)(x)
    torch.testing.assert_close(y, expected(x, 1.0, p, kind), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("p", "scale"), list(itertools.product(PS, (1e-150, 1e-30, 1e30, 1e150))))
def test_scale_does_not_matter(p, scale):
    x = points()[:6]
    y = LpProjection(p, torch.tensor(scale, dtype=F64))(x * scale)
    torch.testing.assert_close(y / scale, LpProjection(p)(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("p", "kind", "dtype"), list(itertools.product(PS, KINDS, (torch.float32, F64))))
def test_the_nearest_point_is_feasible_to_the_last_bits_also_for_large_entries(p, kind, dtype):
    x = torch.cat([1e4 * randn(20, 300), 1e4 + randn(20, 300, seed=3), 1e4 * torch.ones(1, 300, dtype=F64)]).to(dtype)
    y = LpProjection(p, 1.0, kind)(x).numpy()
    sizes = np.array([float(nearest.norm(row, p)) for row in y])
    assert np.abs(sizes - 1.0).max() <= 4 * torch.finfo(dtype).eps * max(1.0, 0.0 if math.isinf(p) else p / 2)


@pytest.mark.parametrize(("p", "kind", "radius"), list(itertools.product(PS, KINDS, (1e-30, 1.0, 1e30))))
def test_extreme_entries_in_single_precision_do_no_harm(p, kind, radius):
    rows = [[1e-45, 0, 0], [1e-38, -1e-38, 2e-38], [3e38, -3e38, 1e38], [1e20, 1, 1e-20], [1 + 1e-7, 1e-7, 0]]
    x, r = torch.tensor(rows, requires_grad=True), torch.tensor(radius, requires_grad=True)
    y = LpProjection(p, r, kind)(x)
    sizes = np.array([float(nearest.norm(row, p)) for row in y.detach().numpy()]) / r.item()
    assert sizes.max() <= 1 + 1e-6
    assert kind == "ball" or sizes.min() >= 1 - 1e-6
    for gradient in torch.autograd.grad(y.sum(), (x, r)):
        assert gradient.isfinite().all()


def test_a_tiny_radius_far_out_keeps_its_digits():
    x = 1e10 * randn(5, 50).float()
    y = LpProjection(2, 1e-30)(x)
    torch.testing.assert_close(y.double().norm(dim=-1), torch.full((5,), 1e-30, dtype=F64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("weights", [None, torch.ones(3, dtype=F64)])
def test_the_largest_entry_goes_out_also_where_the_radius_swallows_the_difference(weights):
    x = torch.tensor([[1e-20, -3e-20, 2e-20], [-1e-300, 0, 0], [0, 0, 1e-300]], dtype=F64)
    expected = torch.tensor([[1e-20, -1, 2e-20], [-1, 0, 0], [0, 0, 1]], dtype=F64)
    layer = LpProjection(math.inf, weights=weights)
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(layer(x, solver="scipy"), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", PS)
def test_points_of_a_ball_stay_and_their_derivative_is_one(p):
    x = (0.05 * randn(3, 6)).requires_grad_()
    y = LpProjection(p, 1.0, "ball")(x)
    assert torch.equal(y, x)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones_like(x))


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_points_inside_a_sphere_go_to_its_nearest_point(p):
    x = torch.cat([0.1 * randn(5, 6), torch.tensor([[0.1, 0.1, 0, 0, -0.1, 0]], dtype=F64)])
    torch.testing.assert_close(LpProjection(p)(x), expected(x, 1.0, p, "sphere"), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("p", "seed"), list(itertools.product((1.2, 1.7, 2.5, 4.0, 9.0), range(3))))
def test_no_point_of_a_sphere_is_nearer_to_a_point_inside(p, seed):
    angle = torch.linspace(0, 2 * math.pi, 20001, dtype=F64)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    surface = circle / (circle.abs() ** p).sum(-1, keepdim=True) ** (1 / p)
    x = torch.rand(1, 2, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 0.6
    found = (LpProjection(p)(x) - x).norm()
    assert found <= (surface - x).norm(dim=-1).min() + 1e-9


@pytest.mark.parametrize(("p", "kind"), list(itertools.product((1.0001, 1.1, 1.5, 3.0, 50.0, 1e3), KINDS)))
def test_points_at_the_surface_but_for_rounding_stay_where_they_are(p, kind):
    x = randn(6, 9, seed=12)
    x = x / torch.tensor([[float(nearest.norm(row, p))] for row in x.numpy()], dtype=F64)
    for factor in (1.0, 1 + 2**-52, 1 - 2**-52, 1 + 1e-12):
        torch.testing.assert_close(LpProjection(p, 1.0, kind)(factor * x), x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("p", [1.0001, 1.01, 1.1, 40.0, 1e3])
def test_a_p_near_one_or_large_is_solved_to_the_last_bits(p):
    x = torch.cat([points()[:6], 1e3 + randn(1, 8, seed=13)])
    torch.testing.assert_close(LpProjection(p)(x), expected(x, 1.0, p, "sphere"), rtol=0, atol=2e-12)
    short = LpProjection(p)(x.float()).double()
    torch.testing.assert_close(short, expected(x.float().double(), 1.0, p, "sphere"), rtol=0, atol=2e-7)


@pytest.mark.parametrize(("p", "depth"), [(1.001, 0.999), (1.001, 0.9), (1.02, 0.9), (1.02, 0.5)])
def test_points_near_the_surface_are_solved_to_the_last_bits_for_p_near_one(p, depth):
    x = randn(3, 200, seed=15)
    radius = torch.tensor([depth * float(nearest.norm(row, p)) for row in x.numpy()], dtype=F64)
    reference = torch.stack([expected(row[None], float(r), p, "sphere")[0] for row, r in zip(x, radius, strict=True)])
    error = (LpProjection(p, radius)(x) - reference).abs().amax(-1) / x.abs().amax(-1)
    assert float(error.max()) < 1e-14


@pytest.mark.parametrize(
    ("p", "expected"),  # by bisection with 50 digits
    [
        (1.05, [0.03470635441091682, 0.002534259945977029, 0.03570074698313656, 0.03571206616735212]),
        (1.1, [0.03463990811444383, 0.003584188733962942, 0.03569983133309312, 0.03571191601254524]),
    ],
)
def test_weights_of_very_different_size_go_to_the_nearest_point_for_p_near_one(p, expected):
    w = [9.142083881674731, 343.0195550981592, 0.122624942660057, 0.020102881021799773]
    w += [0.2144268541764465, 0.4453660728325011, 2.0929069892336143]
    y = LpProjection(p, weights=torch.tensor(w, dtype=F64))(torch.full((7,), 0.25 / 7, dtype=F64))
    torch.testing.assert_close(y[:4], torch.tensor(expected, dtype=F64), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("p", "kind"), list(itertools.product((1.001, 1.01, 30.0, 300.0), KINDS)))
def test_derivatives_for_p_near_one_or_large_are_those_of_differences(p, kind):
    x = torch.tensor([[2.02, 1.40, 0.31, -3.08, -5.2], [-1.25, -1.84, 1.31, 1.37, 0.76]], dtype=F64, requires_grad=True)
    w = torch.tensor([0.71, 0.96, 0.82, 1.43, 2.27], dtype=F64, requires_grad=True)
    r = torch.tensor(0.935, dtype=F64, requires_grad=True)

    def layer(x, r, w):
        return LpProjection(p, r, kind, weights=w)(x)

    assert torch.autograd.gradcheck(layer, (x, r, w), eps=1e-7, atol=1e-4, rtol=1e-4)


def test_weights_for_p_one_meet_the_radius_also_far_out():
    w = torch.tensor([0.5, 1.0, 2.0, 1.5], dtype=F64)
    x = torch.tensor([[1e60, 1e30, 0, 0], [3e30, -1e30, 5e29, 2e30]], dtype=F64)
    y = LpProjection(1, 1e30, weights=w)(x)
    torch.testing.assert_close((w * y.abs()).sum(-1), torch.full((2,), 1e30, dtype=F64))
    torch.testing.assert_close(y[0], torch.tensor([2e30, 0, 0, 0], dtype=F64))


def test_the_unmasked_derivative_is_finite_where_squares_underflow():
    for scale in (1e-30, 1e30):
        x = torch.tensor([[scale, 0.0, 0.0]], requires_grad=True)
        (gradient,) = torch.autograd.grad(LpProjection(2, plateau="implicit")(x).sum(), x)
        torch.testing.assert_close(gradient, torch.tensor([[0.0, 1 / scale, 1 / scale]]))


@pytest.mark.parametrize("weights", [None, torch.tensor([0.7, 1.3, 1.1], dtype=F64)])
def test_a_negative_zero_goes_to_the_positive_side(weights):
    x = torch.tensor([-0.0, 0.0, -0.0], dtype=F64)
    for p in PS:
        assert (LpProjection(p, weights=weights)(x) >= 0).all()


@pytest.mark.parametrize(("p", "kind"), list(itertools.product(PS, KINDS)))
def test_a_radius_of_zero_leaves_the_origin(p, kind):
    x = torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=F64)
    for radius in (0.0, torch.tensor([0.0, 0.0], dtype=F64)):
        assert torch.equal(LpProjection(p, radius, kind)(x).abs(), torch.zeros_like(x))


def test_an_ellipsoid_around_a_point_near_its_middle_in_single_precision():
    y = LpProjection(2, weights=torch.tensor([2.0]))(torch.tensor([[-7.6e-12], [3e-30], [-1e-45]]))
    torch.testing.assert_close(y, torch.tensor([[-1.0], [1.0], [-1.0]]) / math.sqrt(2.0))
    y = LpProjection(2, weights=torch.tensor([1.0, 1.0, 0.25]))(torch.tensor([4e-38, 3e-38, 0.5]))
    assert LpProjection(2, 3e4, weights=torch.ones(1))(torch.tensor([-1e-42])) == -3e4
    expected = [0.8 * 8**0.5 / 3, 0.6 * 8**0.5 / 3, 2 / 3]  # entries of the largest weight fill what is left
    torch.testing.assert_close(y, torch.tensor(expected))


def test_at_ties_and_at_the_centre_the_choice_is_the_documented_one():
    tie, centre = torch.tensor([0.5, 0.5], dtype=F64), torch.zeros(4, dtype=F64)
    assert LpProjection(math.inf)(tie).tolist() == [1.0, 0.5]
    assert LpProjection(math.inf)(centre).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert LpProjection(3)(centre).tolist() == [1.0, 0.0, 0.0, 0.0]
    for p, entry in ((1, 0.25), (2, 0.5), (1.5, 4 ** (-1 / 1.5))):
        torch.testing.assert_close(LpProjection(p)(centre), torch.full_like(centre, entry))


@pytest.mark.parametrize(("p", "kind"), list(itertools.product(PS, KINDS)))
def test_gradients_are_finite_at_ties_zeros_the_centre_and_the_surface(p, kind):
    rows = [[0.0] * 4, [1.0, 0, 0, 0], [0.5] * 4, [0.25] * 4, [2.0, 2, 0, 0], [1e-30, 0, 0, 0], [1e30, 1, 0, 0]]
    for dtype in (torch.float32, F64):
        x = torch.tensor(rows, dtype=dtype, requires_grad=True)
        radius = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        y = LpProjection(p, radius, kind)(x)
        for gradient in torch.autograd.grad(y.sum(), (x, radius)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("plateau", ["mask", "implicit"])
@pytest.mark.parametrize("kind", KINDS)
def test_cotangents_beside_which_a_radius_is_tiny_or_a_point_is_are_no_overflow(kind, plateau):
    x, r = randn(3, 7).float().requires_grad_(), torch.tensor(1e-30, requires_grad=True)
    g = 1e20 * randn(3, 7, seed=1).float()
    by_x, by_r = torch.autograd.grad(LpProjection(2, r, kind, plateau=plateau)(x), (x, r), g)
    unit, wide = torch.nn.functional.normalize(x.detach().double(), dim=-1), g.double()
    along = (wide * unit).sum(-1, keepdim=True)
    torch.testing.assert_close(by_r.double(), along.sum(), rtol=1e-5, atol=0)
    length = x.detach().double().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(by_x.double(), (wide - along * unit) * 1e-30 / length, rtol=1e-4, atol=1e-14)
    tiny, r = torch.full((2, 3), 1e-44, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    y = LpProjection(2, r, plateau=plateau)(tiny)
    by_x, by_r = torch.autograd.grad(y, (tiny, r), torch.ones_like(y), create_graph=True)
    torch.testing.assert_close(by_r, torch.tensor(2 * 3**0.5))
    assert by_x.isfinite().all()


@pytest.mark.parametrize("plateau", ["mask", "implicit"])
def test_at_the_centre_the_radius_has_its_derivative_in_every_mode(plateau):
    x, r = torch.zeros(4, dtype=F64), torch.ones((), dtype=F64, requires_grad=True)

    def layer(r):
        return LpProjection(2, r, plateau=plateau)(x)

    expected = torch.full((4,), 0.5, dtype=F64)
    torch.testing.assert_close(torch.autograd.functional.jacobian(layer, r), expected)
    torch.testing.assert_close(torch.func.jacfwd(layer)(r), expected)
    torch.testing.assert_close(torch.func.jacrev(layer)(r), expected)


@pytest.mark.parametrize(("p", "kind", "weighted"), list(itertools.product(PS, KINDS, (False, True))))
def test_derivatives_in_points_radii_and_weights_are_those_of_differences(p, kind, weighted):
    x = torch.cat([2 * randn(2, 3, seed=4), 0.1 * randn(1, 3, seed=5)])
    r = torch.tensor([0.7, 1.1, 0.9], dtype=F64)
    w = (0.5 + torch.rand(3, 3, dtype=F64, generator=torch.Generator().manual_seed(6)),) if weighted else ()
    inputs = tuple(t.clone().requires_grad_() for t in (x, r, *w))

    def layer(x, r, *w):
        return LpProjection(p, r, kind, weights=w[0] if w else None)(x)

    assert torch.autograd.gradcheck(layer, inputs, atol=1e-6, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(layer, inputs, atol=1e-5)


@pytest.mark.parametrize(
    ("p", "kind", "weighted"), list(itertools.product((1.0, 2.0, 3.0, math.inf), KINDS, (False, True)))
)
def test_any_solver_of_the_problem_agrees_in_value_and_gradient(p, kind, weighted):
    x = torch.cat([2 * randn(2, 4, seed=7), 0.05 * randn(1, 4, seed=8)])
    r = torch.tensor(0.8, dtype=F64)
    w = (torch.tensor([0.6, 1.4, 0.9, 1.2], dtype=F64),) if weighted else ()
    layer = LpProjection(p, r, kind, weights=w[0] if weighted else None)
    inputs = tuple(t.clone().requires_grad_() for t in (x, r, *w))
    values, gradients = [], []
    for solver in ("projection.exact", "scipy"):
        y = al.argmin(layer.problem, *inputs, solver=solver)
        values.append(y.detach())
        gradients.append(torch.autograd.grad((y * randn(3, 4, seed=9)).sum(), inputs))
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-7)
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    assert al.solve(layer.problem, *inputs, solver="projection.exact").ok.all()


def test_the_implicit_form_is_the_unmasked_matrix_of_the_paper():
    x = torch.tensor([3.0, -2.0, 0.1, 0.2], dtype=F64, requires_grad=True)
    y = LpProjection(1, plateau="implicit")(x)
    s = y.detach().sign()
    jacobian = torch.autograd.functional.jacobian(LpProjection(1, plateau="implicit"), x)
    torch.testing.assert_close(jacobian, torch.eye(4, dtype=F64) - torch.outer(s, s) / s.abs().sum())
    y = LpProjection(math.inf, plateau="implicit")(x)
    s = torch.where(y.detach().abs() >= 1, y.detach().sign(), 0.0)
    jacobian = torch.autograd.functional.jacobian(LpProjection(math.inf, plateau="implicit"), x)
    torch.testing.assert_close(jacobian, torch.eye(4, dtype=F64) - torch.outer(s, s) / s.abs().sum())


@pytest.mark.parametrize(
    ("p", "kind", "dtype"), list(itertools.product(PS, KINDS, (torch.float16, torch.bfloat16, torch.float32)))
)
def test_short_floats_give_the_rounded_answer_and_gradient(p, kind, dtype):
    x, g = (3 * randn(4, 40, seed=10)).to(dtype), randn(4, 40, seed=11).to(dtype)
    wide, short = x.double().requires_grad_(), x.clone().requires_grad_()
    layer = LpProjection(p, 2.0, kind)
    y, exact = layer(short), layer(wide)
    assert y.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=4 * eps, atol=4 * eps)
    (bar,) = torch.autograd.grad(y, short, g)
    (exact_bar,) = torch.autograd.grad(exact, wide, g.double())
    assert bar.dtype == dtype
    torch.testing.assert_close(bar.double(), exact_bar, rtol=60 * eps, atol=60 * eps)


@pytest.mark.parametrize("p", PS)
def test_a_batch_of_any_shape_and_dimension_equals_its_rows(p):
    x = 2 * randn(2, 3, 5, 4)
    layer = LpProjection(p, dim=1)
    together = layer(x)
    assert together.shape == x.shape
    for i, j, k in itertools.product(range(2), range(5), range(4)):
        torch.testing.assert_close(together[i, :, j, k], LpProjection(p)(x[i, :, j, k]), rtol=1e-12, atol=1e-14)
    assert LpProjection(p)(x[0, 0]).shape == (5, 4)
    assert LpProjection(p)(x[:0]).shape == (0, 3, 5, 4)


@pytest.mark.parametrize("p", PS)
def test_no_points_have_gradients_that_are_empty_or_zero(p):
    x, r = torch.zeros(0, 5, requires_grad=True), torch.ones((), requires_grad=True)
    for layer in (LpProjection(p, r), LpProjection(p, r, "ball"), SimplexProjection(r)):
        by_x, by_r = torch.autograd.grad(layer(x).sum(), (x, r))
        assert by_x.shape == (0, 5)
        assert by_r == 0
    for dtype in (torch.float32, torch.float16):
        assert LpProjection(p, torch.ones(0, dtype=dtype), "ball")(x.to(dtype)).shape == (0, 5)


@pytest.mark.parametrize("p", PS)
def test_radii_may_differ_and_learn(p):
    x, r = 3 * randn(4, 6), torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=F64, requires_grad=True)
    y = LpProjection(p, r)(x)
    for i in range(4):
        torch.testing.assert_close(y[i], LpProjection(p, r[i].item())(x[i]), rtol=1e-12, atol=1e-13)
    layer = LpProjection(p, torch.nn.Parameter(torch.tensor(1.0, dtype=F64)))
    assert [name for name, _ in layer.named_parameters()] == ["radius"]
    layer(x).square().sum().backward()
    assert layer.radius.grad is not None


@pytest.mark.parametrize("p", PS)
def test_transforms_of_torch_func_agree_with_autograd(p):
    x = 2 * randn(3, 4)
    layer = LpProjection(p, 0.8)
    expected = torch.autograd.functional.jacobian(layer, x)
    torch.testing.assert_close(torch.func.jacrev(layer)(x), expected)
    torch.testing.assert_close(torch.func.jacfwd(layer)(x), expected)
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


def test_layers_are_values_and_nodes():
    layer = LpProjection(1, torch.nn.Parameter(torch.tensor(0.5)), "ball")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        x = randn(3, 5, dtype=torch.float32)
        assert torch.equal(twin(x), layer(x))
    model = torch.nn.Sequential(layer)
    al.set_solver(model, "scipy.slsqp")
    torch.testing.assert_close(model(x), LpProjection(1, 0.5, "ball")(x), rtol=1e-5, atol=1e-6)
    assert "p=1.0" in repr(layer)


@pytest.mark.parametrize("n", [256, 500, 4096, 8209, 12000])  # chunks of 32, 25, 64, none, 60
@pytest.mark.parametrize("radius", [1e-3, 1.0, 500.0, 5e3])
def test_rows_of_few_and_of_many_remaining_entries_agree_with_sorting_in_extended_precision(n, radius):
    x = torch.stack([randn(n), randn(n, seed=1).sort().values, randn(n, seed=2).round(), 1e4 + randn(n, seed=3)])
    reference = np.array([nearest.simplex(row, radius) for row in x.numpy()], dtype=np.float64)
    torch.testing.assert_close(SimplexProjection(radius)(x), torch.tensor(reference), rtol=1e-12, atol=1e-12 * radius)
    reference = np.array([nearest.sphere(row, radius, 1) for row in x.numpy()], dtype=np.float64)
    torch.testing.assert_close(LpProjection(1, radius)(x), torch.tensor(reference), rtol=1e-12, atol=1e-12 * radius)


def test_rows_that_defeat_newton_are_sorted(monkeypatch):
    monkeypatch.setattr("argminlayer_projection._threshold.STEPS", 1)
    x = 0.5 ** torch.arange(0, 200, dtype=F64).repeat(45) * 1e6 + torch.linspace(0, 1e-3, 9000, dtype=F64)
    y = LpProjection(1, 8e7, "sphere")(x)
    reference = torch.tensor(np.array(nearest.sphere(x.numpy(), 8e7, 1), dtype=np.float64))
    torch.testing.assert_close(y, reference, rtol=1e-12, atol=1e-8)


@pytest.mark.parametrize("p", PS)
def test_long_rows_are_as_precise_as_short_ones(p):
    y = LpProjection(p, 2.0)(randn(1, 300001, dtype=torch.float32) * 1e4)
    assert abs(float(nearest.norm(y[0].numpy(), p)) - 2.0) < 2e-6


@pytest.mark.parametrize("n", [1000, 5000, 8191])
def test_rounding_does_not_add_up_over_equal_entries(n):
    y = LpProjection(2)(torch.full((2, n), 1e4))
    assert (y.double().norm(dim=-1) - 1).abs().max() <= 3 * torch.finfo(torch.float32).eps


# Bad input.


def test_points_without_entries_are_refused():
    with pytest.raises(al.ProblemError, match="the points to project have no entries"):
        LpProjection(2)(torch.zeros(3, 0))


def test_p_below_one_is_refused_with_the_reason():
    with pytest.raises(al.ProblemError, match=r"p is 0.5; it must be at least 1: below 1 the Lp ball is not convex"):
        LpProjection(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cube"}, "kind must be 'sphere' or 'ball', not 'cube'"),
        ({"plateau": "both"}, "plateau must be 'mask' or 'implicit', not 'both'"),
        ({"radius": -1.0}, "radius is -1.0; it must be finite and not negative"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(al.ProblemError, match=message):
        LpProjection(2, **arguments)


@pytest.mark.parametrize(("p", "kind", "bad"), list(itertools.product(PS, KINDS, (math.nan, math.inf, -math.inf))))
def test_a_row_that_is_not_finite_is_named_or_lost_alone(p, kind, bad):
    x = randn(3, 4)
    x[1, 2] = bad
    with pytest.raises(al.ProblemError, match="row 1 of the points to project"):
        LpProjection(p, 1.0, kind)(x)
    y = LpProjection(p, 1.0, kind, throw=False)(x)
    assert y[1].isnan().all()
    assert torch.equal(y[[0, 2]], LpProjection(p, 1.0, kind)(x[[0, 2]]))


def test_radii_and_weights_out_of_range_are_named():
    with pytest.raises(al.ProblemError, match=r"row 0 .* radii not negative and weights positive"):
        LpProjection(2, torch.tensor(-1.0))(torch.ones(2, 3))
    with pytest.raises(al.ProblemError, match=r"row 0 .* weights positive"):
        LpProjection(2, weights=torch.tensor([1.0, 0.0, 1.0]))(torch.ones(3))


# The simplex.


def test_the_simplex_agrees_with_sorting_in_extended_precision():
    x = torch.cat([points(), -points()])
    reference = torch.tensor(np.array([nearest.simplex(row, 1.5) for row in x.numpy()], dtype=np.float64))
    torch.testing.assert_close(SimplexProjection(1.5)(x), reference, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_simplex_is_met_to_the_last_bits(dtype):
    x = torch.cat([1e4 * randn(20, 300), 1e4 + randn(20, 300, seed=3)]).to(dtype)
    y = SimplexProjection()(x)
    assert (y >= 0).all()
    assert (y.double().sum(-1) - 1).abs().max() <= 4 * torch.finfo(dtype).eps


def test_huge_entries_of_either_sign_overflow_nowhere_and_infinite_ones_are_refused():
    x = 3e38 * torch.sign(randn(3, 64, seed=14)).float()
    y = SimplexProjection()(x)
    assert torch.equal(y, (x > 0) / (x > 0).sum(-1, keepdim=True))
    x[1, 5] = -math.inf
    with pytest.raises(al.ProblemError, match="row 1 of the points to project"):
        SimplexProjection()(x)
    quiet = SimplexProjection(throw=False)(x)
    assert quiet[1].isnan().all()
    assert torch.equal(quiet[[0, 2]], y[[0, 2]])
