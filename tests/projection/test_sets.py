"""The other sets: nearest points and gradients beside solvers of the ordinary problem, and degenerate input."""

import copy
import math
import pickle

import pytest
import torch
from scipy.optimize import linear_sum_assignment

import argminlayer as al
from argminlayer.testing import KnownProblem, SolverConformance
from argminlayer_projection import (
    AffineProjection,
    BirkhoffProjection,
    BoxProjection,
    CappedSimplexProjection,
    Entmax,
    ExactProjection,
    GroupBallProjection,
    HalfSpaceProjection,
    LpProjection,
    NuclearBallProjection,
    RotationProjection,
    SecondOrderConeProjection,
    SemidefiniteProjection,
    SimplexProjection,
    Sparsemax,
)

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def scalar(value):
    return torch.tensor(value, dtype=F64)


CASES = {
    "simplex": (SimplexProjection(scalar(1.3)), (4, 5)),
    "capped simplex": (CappedSimplexProjection(scalar(1.3), scalar(0.5)), (4, 5)),
    "sparsemax": (Sparsemax(), (4, 5)),
    "entmax": (Entmax(1.5), (4, 5)),
    "box": (BoxProjection(scalar(-0.5).expand(5), scalar(0.7).expand(5)), (4, 5)),
    "half-space": (HalfSpaceProjection(randn(5, seed=1), scalar(0.1)), (4, 5)),
    "affine": (AffineProjection(randn(2, 5, seed=2), randn(2, seed=3)), (4, 5)),
    "second-order cone": (SecondOrderConeProjection(), (6, 4)),
    "l1,2 ball": (GroupBallProjection(scalar(1.2)), (3, 3, 2)),
    "l1,2 ball, inside": (GroupBallProjection(scalar(20.0)), (3, 3, 2)),
    "semidefinite": (SemidefiniteProjection(), (3, 4, 4)),
    "nuclear ball": (NuclearBallProjection(scalar(1.1)), (3, 3, 2)),
    "nuclear ball, inside": (NuclearBallProjection(scalar(20.0)), (3, 2, 3)),
    "Birkhoff": (BirkhoffProjection(), (3, 4, 4)),
    "rotations": (RotationProjection(), (4, 3, 3)),
}
every_set = pytest.mark.parametrize("name", list(CASES))


def sizes_of(layer):
    """Return the parameters of a layer's set as tensors."""
    return [torch.as_tensor(getattr(layer, name), dtype=F64) for name in layer._sizes]


@every_set
def test_any_solver_of_the_problem_agrees_in_value_and_gradient(name):
    layer, shape = CASES[name]
    x = randn(*shape, seed=4)
    inputs = [t.clone().requires_grad_() for t in (x, *sizes_of(layer))]
    g, results = randn(*shape, seed=5), []
    for solver in ("projection.exact", "scipy.slsqp"):
        y = al.argmin(layer.problem, *inputs, solver=solver)
        results.append((y.detach(), *torch.autograd.grad(y, inputs, g, materialize_grads=True)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    assert al.solve(layer.problem, *inputs, solver="projection.exact").ok.all()


@every_set
def test_derivatives_are_those_of_differences_in_every_mode(name):
    layer, shape = CASES[name]
    inputs = tuple(t.clone().requires_grad_() for t in (randn(*shape, seed=6)[:2], *sizes_of(layer)))
    assert torch.autograd.gradcheck(layer, inputs, atol=1e-6, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(layer, inputs, atol=1e-5)
    x = inputs[0].detach()
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))


@every_set
def test_layers_copy_pickle_and_keep_the_dtype(name):
    layer, shape = CASES[name]
    x = randn(*shape).float()
    y = layer(x)
    assert y.dtype == torch.float32
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), y)
    torch.testing.assert_close(y.double(), layer(x.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@every_set
def test_an_instance_that_is_not_finite_is_reported_and_harms_no_other(name, bad):
    layer, shape = CASES[name]
    x = randn(*shape)
    x[1].flatten()[0] = bad
    with pytest.raises(al.ProblemError, match="finite"):
        layer(x)
    quiet = copy.deepcopy(layer)
    quiet.throw = False
    leaf = x.clone().requires_grad_()
    y = quiet(leaf)
    good = torch.arange(shape[0]) != 1
    assert y[1].isnan().all()
    torch.testing.assert_close(y[good], layer(x[good]))
    (gradient,) = torch.autograd.grad(y[good].sum(), leaf)
    assert gradient[good].isfinite().all()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (CappedSimplexProjection(4.0, 1.0), torch.zeros(3)),
        (BoxProjection(1.0, 0.0), torch.zeros(3)),
        (HalfSpaceProjection(torch.zeros(3), -1.0), torch.zeros(3)),
        (AffineProjection(torch.ones(2, 3), torch.tensor([0.0, 1.0])), torch.zeros(3)),
    ],
)
def test_an_empty_set_is_named(layer, x):
    with pytest.raises(al.ProblemError, match=r"the projection does not exist: .*, or pass `throw=False`"):
        layer(x)
    layer.throw = False
    assert layer(x).isnan().all()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (SemidefiniteProjection(), torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0]))),
        (SemidefiniteProjection(), torch.zeros(3, 3)),
        (NuclearBallProjection(), 2.0 * torch.eye(3)),
        (NuclearBallProjection(), torch.zeros(3, 2)),
        (RotationProjection(), torch.zeros(3, 3)),
        (RotationProjection(), -torch.eye(3)),
        (GroupBallProjection(), torch.tensor([[3.0, 4.0], [0.0, 0.0]])),
        (SecondOrderConeProjection(), torch.zeros(4)),
        (SecondOrderConeProjection(), torch.tensor([0.0, 0.0, -1.0])),
        (BirkhoffProjection(), torch.zeros(4, 4)),
        (BirkhoffProjection(), 1e3 * torch.eye(5)),
    ],
)
def test_derivatives_are_finite_where_points_are_degenerate(layer, x):
    leaf = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad((layer(leaf) * randn(*x.shape)).sum(), leaf)
    assert gradient.isfinite().all()


def test_repeated_eigenvalues_have_the_derivative_of_their_neighbours():
    x = torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=F64))
    direction = randn(4, 4)
    direction = direction + direction.mT
    layer = SemidefiniteProjection()
    (_, along) = torch.func.jvp(layer, (x,), (direction,))
    differences = (layer(x + 1e-6 * direction) - layer(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(along, differences, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "scale"), [(2, 1.0), (12, 0.1), (30, 1.0), (30, 1e3)])
def test_doubly_stochastic_matrices_satisfy_their_conditions(n, scale):
    x = scale * randn(2, n, n, seed=n)
    y = BirkhoffProjection()(x)
    assert (y >= 0).all()
    for sums in (y.sum(-1), y.sum(-2)):
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-9, atol=1e-9)
    if n == 2:  # one number decides: the diagonal
        d = ((x[:, 0, 0] + x[:, 1, 1] - x[:, 0, 1] - x[:, 1, 0] + 2) / 4).clamp(0, 1)
        torch.testing.assert_close(y[:, 0, 0], d, rtol=1e-10, atol=1e-10)
    corners = torch.stack([torch.eye(n, dtype=F64)[torch.randperm(n)] for _ in range(50)])
    for point, nearest in zip(x, y, strict=True):  # the variational inequality of a projection, at vertices
        assert ((point - nearest) * (corners - nearest)).sum((-2, -1)).max() <= 1e-6 * scale * n


@pytest.mark.parametrize("scale", [1e9, 1e30, 1e300])
def test_far_out_the_nearest_doubly_stochastic_matrix_is_the_best_permutation(scale):
    x = randn(4, 7, 7, seed=10)
    for point, nearest in zip(x, BirkhoffProjection()(scale * x), strict=True):
        expected = torch.zeros_like(point)
        expected[linear_sum_assignment(point.numpy(), maximize=True)] = 1.0
        torch.testing.assert_close(nearest, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        BirkhoffProjection()(scale * torch.ones(3, 3, dtype=F64)), torch.full((3, 3), 1 / 3, dtype=F64)
    )


def test_entmax_goes_from_soft_max_to_sparsemax():
    x = randn(5, 7)
    torch.testing.assert_close(Entmax(1.0 + 1e-7)(x), x.softmax(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(Entmax(2.0)(x), Sparsemax()(x), rtol=1e-10, atol=1e-12)
    with pytest.raises(al.ProblemError, match=r"alpha is 1; it must be above 1 and finite. For alpha = 1 use"):
        Entmax(1)


def test_the_capped_simplex_is_met_to_the_last_bits_and_holds_both_bounds():
    x = 1e4 * randn(20, 50).float()
    y = CappedSimplexProjection(7.0, 0.5)(x)
    assert ((y >= 0) & (y <= 0.5)).all()
    assert (y.double().sum(-1) - 7.0).abs().max() < 1e-5
    assert torch.equal(CappedSimplexProjection(25.0, 0.5)(x), torch.full_like(x, 0.5))


class TestExactProjection(SolverConformance):
    solver = ExactProjection()
    infeasible = ()
    problems = (
        KnownProblem(
            "ball",
            LpProjection(2, kind="ball").problem,
            (torch.tensor([[3.0, 4.0, 0.0], [0.1, 0.2, 0.3], [-2.0, 1.0, 2.0]], dtype=F64), torch.ones(3, dtype=F64)),
            lambda x, r: x * torch.clamp(r / x.norm(), max=1.0),
            lambda x, r: (torch.zeros(0, dtype=F64), (x.norm() - r).clamp_min(0.0)[None]),
        ),
        KnownProblem(
            "half-space",
            HalfSpaceProjection(torch.ones(3)).problem,
            (randn(3, 3, seed=8), randn(3, 3, seed=9), torch.tensor([-3.0, 0.1, 5.0], dtype=F64)),
            lambda x, a, b: x - a * ((a @ x - b) / (a @ a)).clamp_min(0.0),
            lambda x, a, b: (torch.zeros(0, dtype=F64), ((a @ x - b) / (a @ a)).clamp_min(0.0)[None]),
        ),
        KnownProblem(
            "simplex, two entries left",
            SimplexProjection().problem,
            (torch.tensor([[1.0, 0.7, -2.0], [0.3, -1.0, 0.5], [-3.0, 2.0, 2.2]], dtype=F64), torch.ones(3, dtype=F64)),
            lambda x, r: (x - (x.sum() - x.min() - r) / 2).clamp_min(0.0),
            lambda x, r: (((x.sum() - x.min() - r) / 2)[None], torch.zeros(0, dtype=F64)),
        ),
    )


def test_sets_of_other_plugins_are_refused():
    problem = al.Problem(
        lambda u, x: (u - x).square().sum(), "(n)->(n)", structure=al.Structure("projection", {"set": "heart"})
    )
    reason = next(v.reason for v in al.explain(problem, torch.ones(2)).verdicts if v.solver.name == "projection.exact")
    assert reason == "does not know the set 'heart'"


def test_integers_go_the_ordinary_way():
    y = al.argmin(SimplexProjection().problem, torch.tensor([2, 0, 0]), torch.tensor(1.0))
    assert y.tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_the_length_of_a_normal_does_not_matter(scale):
    x, normal, offset = randn(4, 3), randn(3, seed=1), scalar(0.3)
    y = HalfSpaceProjection(scale * normal, scale * offset)(x)
    torch.testing.assert_close(y, HalfSpaceProjection(normal, offset)(x), rtol=1e-12, atol=1e-14)


def test_entries_far_beyond_the_cap_share_the_radius_as_if_they_were_near():
    x = torch.tensor([[1e30, 1e30, -1e30, 0], [1e30, 1e20, 0, 0], [0, 3e30, 2e30, 1e30]], dtype=F64)
    expected = torch.tensor([[0.6, 0.6, 0, 0], [1, 0.2, 0, 0], [0, 1, 0.2, 0]], dtype=F64)
    torch.testing.assert_close(CappedSimplexProjection(1.2, 1.0)(x), expected)
    assert CappedSimplexProjection(1e-6)(torch.tensor([1e30])) == 1e-6
