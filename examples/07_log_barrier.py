"""Approximate a derivative by a logarithmic barrier: figure 3 of the paper on argmin derivatives.

    g(x) = argmin_{u >= 0} (x - u)² = max(0, x),        g_t(x) = argmin_u  t (x - u)² - log u

The barrier smooths the kink at zero: `al.LogBarrier(t)` differentiates g_t in the place of g (Gould et al. 2016, sec.
4.2 and 4.3). Setting the derivative of the barrier problem to zero gives a quadratic equation for g_t, whose solution
the paper leaves as an exercise: g_t(x) = (x + √(x² + 2/t)) / 2.

Takes a few seconds. Prints the largest distance of function and gradient from the exact ones away from the kink and on
all of the interval, and the largest difference from the closed form. `python 07_log_barrier.py figure.png` draws it.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

import argminlayer as al

WEIGHTS = (1.0, 10.0, 100.0, 1e4, 1e8)
DRAWN = 3
KINK = 0.1

positive = al.Problem(lambda u, x: (x - u).square(), "()->()", lower=0.0)


def closed_form(x: Tensor, t: float) -> Tensor:
    """Return g_t(x)."""
    return 0.5 * (x + (x.square() + 2 / t).sqrt())


def slope(x: Tensor, rule: al.AbstractBackward) -> Tensor:
    """Return the derivative of g at every x, as the rule sees it."""
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(al.argmin(positive, x, backward=rule).sum(), x)
    return found


def draw(x: Tensor, slopes: dict[float, Tensor], path: Path) -> None:
    """Draw the two panels of the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(x, x.clamp_min(0.0), color="black", linewidth=2.0, label="exact")
    right.plot(x, slope(x, al.KKT()), color="black", linewidth=2.0)
    for t, colour in zip(WEIGHTS[:DRAWN], ("#1f5fa8", "#d1662a", "#3a8f5c"), strict=True):
        left.plot(x, closed_form(x, t), color=colour, label=f"t = {t:g}")
        right.plot(x, slopes[t], color=colour)
    left.set(xlabel="x", ylabel="g(x)", title="argmin over u ≥ 0 of (x - u)²")
    right.set(xlabel="x", ylabel="g'(x)", title="its derivative, exact and by al.LogBarrier(t)")
    left.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(path: Path | None = None) -> list[tuple[float, float, float, float]]:
    """Return for each t: distance of value and slope from the exact ones, and of the slope from the closed form."""
    x = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    away = x.abs() >= KINK
    slopes = {t: slope(x, al.LogBarrier(t)) for t in WEIGHTS}
    rows = []
    print("       t   |g_t - g|   |g_t' - g'| away from 0   |g_t' - closed form|")
    for t, found in slopes.items():
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(closed_form(leaf, t).sum(), leaf)
        value = (closed_form(x, t) - x.clamp_min(0.0)).abs().max()
        from_exact = (found - slope(x, al.KKT()))[away].abs().max()
        from_closed = (found - true).abs().max()
        rows.append((t, float(value), float(from_exact), float(from_closed)))
        print(f"{t:8g}   {value:9.1e}   {from_exact:23.1e}   {from_closed:20.1e}")
    if path is not None:
        draw(x, slopes, path)
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
