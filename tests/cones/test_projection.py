"""Projections onto cones, their derivatives and second derivatives, at random points and where they have kinks."""

import math

import pytest
import torch

from argminlayer import Cones, ProblemError
from argminlayer.cones._faces import Spectra, project

KINDS = {
    "zero and nonnegative": Cones(2, 3),
    "second-order, dimension 1": Cones(second_order=(1,)),
    "second-order, dimension 2": Cones(second_order=(2,)),
    "second-order": Cones(second_order=(3, 5, 3)),
    "semidefinite": Cones(semidefinite=(1, 3, 4, 4)),
    "semidefinite, 20 x 20": Cones(semidefinite=(20,)),
    "exponential": Cones(exponential=2),
    "power 0.2": Cones(power=(0.2,)),
    "power 0.5": Cones(power=(0.5,)),
    "power 0.9": Cones(power=(0.9, 0.7)),
}


def points(cones, count=400, spread=1.0):
    draw = torch.Generator().manual_seed(1)
    size = torch.exp(spread * torch.randn(count, cones.rows, dtype=torch.float64, generator=draw))
    return size * torch.randn(count, cones.rows, dtype=torch.float64, generator=draw)


def derivative(cones, v, a):
    at = Spectra.of(cones, v).faces()
    return at.back(at.kept[..., None] * at.rotate(a[..., None]))[..., 0]


@pytest.mark.parametrize("cones", KINDS.values(), ids=KINDS)
def test_a_projection_is_decomposed_as_moreau_says(cones):
    v = points(cones, spread=0.0 if cones.semidefinite else 2.0)
    s = project(cones, v)
    z, size = s - v, 1.0 + v.abs().amax(1)
    assert (((s * z).sum(1) / size**2).abs() < 1e-12).all()
    assert ((project(cones, s) - s).abs().amax(1) < 1e-12 * size).all()
    # the other part lies in the dual cone: its negative projects to zero
    assert (project(cones, -z).abs().amax(1) < 1e-12 * size).all()


@pytest.mark.parametrize("cones", KINDS.values(), ids=KINDS)
def test_the_derivative_is_that_of_the_projection(cones):
    v, d = points(cones, spread=0.3), points(cones, spread=0.0).roll(1, 0)
    h = 1e-6
    measured = (project(cones, v + h * d) - project(cones, v - h * d)) / (2 * h)
    off = (derivative(cones, v, d) - measured).abs().amax(1)
    # the difference may straddle a kink of one point in hundreds
    assert (off < 1e-5).sum() >= len(v) - 1
    at = Spectra.of(cones, v).faces()
    assert torch.allclose(at.kept + at.lost, torch.ones_like(v), atol=1e-14)
    assert torch.allclose(at.back(at.rotate(d[..., None]))[..., 0], d, atol=1e-12)


@pytest.mark.parametrize("cones", KINDS.values(), ids=KINDS)
def test_the_second_derivative_is_that_of_the_derivative(cones):
    v, a, b = points(cones, spread=0.3), points(cones, spread=0.0).roll(1, 0), points(cones, spread=0.0).roll(2, 0)
    h = 1e-6
    measured = (derivative(cones, v + h * b, a) - derivative(cones, v - h * b, a)) / (2 * h)
    exact = Spectra.of(cones, v).bend(a, b)
    off = ((exact - measured).abs() / (1.0 + exact.abs())).amax(1)
    assert (off < 1e-4).sum() >= len(v) - 2
    assert torch.allclose(exact, Spectra.of(cones, v).bend(b, a), atol=1e-9)


def test_a_hint_saves_steps_and_changes_nothing():
    cones = Cones(exponential=3, power=(0.3, 0.6))
    v = points(cones)
    s = project(cones, v)
    for hint in (s, s + 0.1, torch.zeros_like(s), torch.full_like(s, torch.nan)):
        assert torch.allclose(Spectra.of(cones, v, hint).project(), s, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("cones", "v", "expected"),
    [
        (Cones(exponential=1), [-1.0, -1.0, 2.0], [-1.0, 0.0, 2.0]),
        (Cones(exponential=1), [-1.0, -1.0, -2.0], [-1.0, 0.0, 0.0]),
        (Cones(exponential=1), [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        (Cones(exponential=1), [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        (Cones(exponential=1), [1.0, 1.0, math.e], [1.0, 1.0, math.e]),
        (Cones(exponential=1), [1.0, 1.0, -math.e], [0.0, 0.0, 0.0]),
        (Cones(exponential=1), [1.0, -1e9, 3.0], [0.0, 0.0, 3.0]),
        (Cones(exponential=1), [-1.0, 1e-12, -1e-30], [-1.0, 1e-12, 0.0]),
        (Cones(power=(0.5,)), [2.0, 2.0, 1.0], [2.0, 2.0, 1.0]),
        (Cones(power=(0.5,)), [2.0, -1.0, 0.0], [2.0, 0.0, 0.0]),
        (Cones(power=(0.5,)), [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        (Cones(power=(0.3,)), [-1.0, -1.0, 0.5], [0.0, 0.0, 0.0]),
        (Cones(second_order=(3,)), [0.0, 3.0, 4.0], [2.5, 1.5, 2.0]),
        (Cones(second_order=(3,)), [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_known_projections(cones, v, expected):
    found = project(cones, torch.tensor([v], dtype=torch.float64))
    assert torch.allclose(found, torch.tensor([expected], dtype=torch.float64), atol=1e-11)


def test_a_power_cone_of_one_half_is_a_rotated_second_order_cone():
    v = points(Cones(power=(0.5,)))
    turn = torch.tensor([[0.5**0.5, 0.5**0.5, 0.0], [0.5**0.5, -(0.5**0.5), 0.0], [0.0, 0.0, 2.0**0.5]]).to(v)
    # x y >= z^2 is |(x - y, 2 z)| <= x + y; the norms agree for z / sqrt(2), so only membership is compared
    s = project(Cones(power=(0.5,)), v)
    w = s @ turn.T
    assert (torch.linalg.vector_norm(w[:, 1:], dim=1) <= w[:, 0] * (1 + 1e-12) + 1e-12).all()


def test_kinks_are_marked_as_weak():
    cones = Cones(1, 1, (3,), (2,), 1, (0.5,))
    at = Spectra.of(cones, torch.zeros(1, cones.rows, dtype=torch.float64)).faces()
    assert at.weak[0, 1:].all()
    assert not at.weak[0, 0]
    edge = torch.tensor([[5.0, 3.0, 4.0]], dtype=torch.float64)
    at = Spectra.of(Cones(second_order=(3,)), edge).faces()
    assert at.weak.tolist() == [[False, True, False]]
    edge = torch.tensor([[1.0, 1.0, math.e]], dtype=torch.float64)
    at = Spectra.of(Cones(exponential=1), edge).faces()
    assert at.weak.tolist() == [[False, True, False]]
    edge = torch.tensor([[4.0, 1.0, 2.0]], dtype=torch.float64)
    at = Spectra.of(Cones(power=(0.5,)), edge).faces()
    assert at.weak.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zero": -1}, "must not be negative, as -1"),
        ({"second_order": (3, 0)}, "sizes of second_order cones must be at least 1"),
        ({"power": (0.5, 1.0)}, "must lie between 0 and 1"),
    ],
)
def test_cones_that_do_not_exist_are_refused(fields, message):
    with pytest.raises(ProblemError, match=message):
        Cones(**fields)
