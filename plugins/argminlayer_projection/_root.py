"""Roots of monotone functions of one number, for a whole batch at once."""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 200
"""More than enough for bisection to exhaust float64; interpolation needs about ten."""


def root(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return where a continuous function, element by element, goes from negative at ``low`` to its sign at ``high``.

    Where rounding leaves it without a change of sign, the end near which the root must be is returned. Inverse
    quadratic interpolation where it is safe, bisection where it is not.

    Reference: Chandrupatla, *A new hybrid quadratic/bisection algorithm*, Advances in Engineering Software 28, 1997.
    """
    a, b = low, high
    c, fa, fb = a, function(a), function(b)
    fc, t, at_low, at_high = fa, torch.full_like(a, 0.5), fa >= 0, fb < 0
    eps = torch.finfo(a.dtype).eps
    for _ in range(STEPS):
        x = a + t * (b - a)
        fx = function(x)
        same = torch.sign(fx) == torch.sign(fa)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, fx
        best = torch.where(fa.abs() < fb.abs(), a, b)
        tolerance = 2.0 * eps * best.abs() + torch.finfo(a.dtype).tiny
        width = (b - a).abs()
        if bool(((width <= tolerance) | (fa == 0) | (fb == 0) | fa.isnan() | at_low | at_high).all()):
            break
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        safe = (phi * phi < xi) & ((1.0 - phi) ** 2 < 1.0 - xi) & inverse.isfinite()
        least = 0.5 * tolerance / width
        t = torch.where(safe, inverse, 0.5).clamp(min=torch.zeros_like(least), max=torch.ones_like(least))
        t = torch.maximum(torch.minimum(t, 1.0 - least), least).nan_to_num(nan=0.5)
    return torch.where(at_low, low, torch.where(at_high, high, torch.where(fa.abs() < fb.abs(), a, b)))
