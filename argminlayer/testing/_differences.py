"""Derivatives by differences: what gradients are compared with, because it knows nothing of how they are made."""

from collections.abc import Callable

import torch
from torch import Tensor

STEP = 1e-3
"""Over ``1 + |entry|``: the extrapolated error, of order ``STEP ** 4``, then meets that of an answer good to 1e-12."""


def central_differences(function: Callable[..., Tensor], *parameters: Tensor, step: float = STEP) -> tuple[Tensor, ...]:
    """Return the Jacobian of ``function`` in each parameter, by central differences with Richardson's extrapolation.

    With D(s) = (f(x + s e) - f(x - s e)) / 2s for each entry of each parameter, returns (4 D(s/2) - D(s)) / 3, whose
    error is of order s⁴. The function is called four times for each entry, on detached float64 tensors.

    Args:
        function: ``(*parameters) -> tensor``, for example one that solves a problem anew.
        *parameters: tensors; they are not modified.
        step: s, relative to ``1 + |entry|``. The solution set must not change its active constraints within it.

    Returns:
        For each parameter a float64 tensor of shape (*output, *parameter).

    Reference: Richardson and Gaunt, *The deferred approach to the limit*, 1927.
    """
    fixed = tuple(p.detach().to(torch.float64) for p in parameters)
    with torch.no_grad():
        return tuple(_jacobian(function, fixed, index, step) for index in range(len(fixed)))


def _jacobian(function: Callable[..., Tensor], parameters: tuple[Tensor, ...], index: int, step: float) -> Tensor:
    parameter = parameters[index]

    def difference(entry: int, size: float) -> Tensor:
        values = []
        for shift in (size, -size):
            moved = parameter.clone()
            moved.view(-1)[entry] += shift
            values.append(function(*parameters[:index], moved, *parameters[index + 1 :]).detach().to(torch.float64))
        return (values[0] - values[1]) / (2.0 * size)

    columns = []
    for entry in range(parameter.numel()):
        size = step * (1.0 + abs(float(parameter.reshape(-1)[entry])))
        columns.append((4.0 * difference(entry, size / 2.0) - difference(entry, size)) / 3.0)
    if not columns:
        output = function(*parameters)
        return output.new_zeros(output.shape + parameter.shape)
    return torch.stack(columns, dim=-1).reshape(columns[0].shape + parameter.shape)
