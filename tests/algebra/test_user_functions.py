"""Every user function, recorded at one point, gives torch's values at another: replayed, and interpreted."""

import pytest
import torch
from numeric_backend import Numeric

from argminlayer import algebra
from argminlayer._bound import bind
from argminlayer.testing import USER_FUNCTIONS

HIGH = 3
"""Stands for any degree above two."""


def points(seed, rows=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(rows, 6, generator=generator, dtype=torch.float64)


def flat(result):
    parts = result if isinstance(result, tuple | list) else (result,)
    return torch.cat([part.to(torch.float64).reshape(-1) for part in parts])


@pytest.fixture(params=USER_FUNCTIONS, ids=lambda one: one.code)
def user(request):
    return request.param


def recorded(user, parameters):
    (found,) = algebra.record(bind(user.problem, (parameters,)))
    return found


def test_a_replay_gives_the_values_of_torch_at_another_point(user):
    parameters, z = points(3)[0], points(4)[0]
    found = recorded(user, parameters)
    values = found.replay(z, found.values[0])[found.outputs[1]]
    torch.testing.assert_close(values.to(torch.float64), flat(user.function(z, parameters)), rtol=1e-6, atol=1e-9)


def test_the_primitives_give_the_values_of_torch_at_another_point(user):
    parameters, z = points(5)[0], points(6)[0]
    found = recorded(user, parameters)
    written = algebra.interpret(found, Numeric(), z, found.values[0] if found.values.shape[1] else None)
    torch.testing.assert_close(written.equality, flat(user.function(z, parameters)), rtol=1e-6, atol=1e-9)


def test_the_degree_is_proved_as_far_as_it_is_stated(user):
    proved = recorded(user, points(7)[0]).degree.equality
    assert min(int(proved.max()), HIGH) == user.degree


def test_a_proved_degree_is_a_bound_on_the_true_one(user):
    found = recorded(user, points(8)[0])
    z, step = points(9)[0], points(10)[0] / 7
    function = [flat(user.function(z + k * step, points(8)[0])) for k in range(4)]
    second = function[0] - 2 * function[1] + function[2]
    third = function[3] - 3 * function[2] + 3 * function[1] - function[0]
    for degree, difference in ((1, second), (2, third)):
        low = found.degree.equality <= degree
        torch.testing.assert_close(difference[low], torch.zeros_like(difference[low]), rtol=0, atol=1e-6)


def test_there_are_many_and_none_twice():
    codes = [user.code for user in USER_FUNCTIONS]
    assert len(codes) >= 150
    assert len(set(codes)) == len(codes)
