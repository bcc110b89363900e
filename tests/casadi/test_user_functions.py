"""Every user function in CasADi: the values and the derivatives are torch's, at another point than the recorded one."""

import pytest
import torch

from argminlayer import algebra
from argminlayer._bound import bind
from argminlayer.testing import USER_FUNCTIONS

ca = pytest.importorskip("casadi", reason="needs the extra casadi")

WITHOUT_DERIVATIVE = {"5 * u // 2", "torch.heaviside(u - p, torch.zeros((), dtype=u.dtype))"}


def flat(result):
    parts = result if isinstance(result, tuple | list) else (result,)
    return torch.cat([part.to(torch.float64).reshape(-1) for part in parts])


def point(seed):
    return 0.1 + 0.8 * torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("user", USER_FUNCTIONS, ids=lambda user: user.code)
def test_values_and_jacobian_are_those_of_torch(user):
    from argminlayer_casadi._backend import CasADiBackend

    parameters, z = point(11), point(12)
    (found,) = algebra.record(bind(user.problem, (parameters,)))
    x, p = ca.MX.sym("x", 6), ca.MX.sym("p", found.values.shape[1])
    equality = algebra.interpret(found, CasADiBackend(), x, p if found.values.shape[1] else None).equality
    function = ca.Function("function", [x, p], [equality, ca.jacobian(equality, x)])
    value, jacobian = (torch.from_numpy(part.full()) for part in function(z.numpy(), found.values[0].numpy()))
    torch.testing.assert_close(value[:, 0], flat(user.function(z, parameters)), rtol=1e-6, atol=1e-9)
    if user.code not in WITHOUT_DERIVATIVE:
        expected = torch.autograd.functional.jacobian(lambda u: flat(user.function(u, parameters)), z)
        torch.testing.assert_close(jacobian, expected, rtol=1e-5, atol=1e-7)
