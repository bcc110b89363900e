"""Learn how much to fear the cost of trading, through a month of portfolios that depend on each other.

    w⁺ = argmax_w  r'w − ½ γ |F w|² − τ Σ c |w − w_now|   subject to   Σ w = 1,  w ≥ 0

Each day a forecast r of the returns arrives, and w moves from what is held. A forecast is good for one day while the
cost is paid at once, so that the true cost (τ = 1) trades either too much or too little; the best τ and the best
aversion γ depend on the noise of the forecasts. They are found by ascending on what the month earns after costs.

Takes about ten seconds. Prints the earnings before and after learning and the best of a grid of τ, on the days of
training, and how far a portfolio is from that of SciPy.
"""

import cvxpy as cp
import numpy as np
import scipy.optimize
import torch
from torch import Tensor

import argminlayer as al

ASSETS, DAYS, RUNS, STEPS, COST = 4, 20, 8, 25, 0.1


def layer() -> al.ArgminLayer:
    """Return the layer of (r, γ½F, τc, w_now)."""
    w, r, root = cp.Variable(ASSETS), cp.Parameter(ASSETS), cp.Parameter((ASSETS, ASSETS))
    fear, now = cp.Parameter(nonneg=True), cp.Parameter(ASSETS)
    paid = cp.Variable(ASSETS)
    problem = cp.Problem(
        cp.Maximize(r @ w - 0.5 * cp.sum_squares(root @ w) - fear * cp.sum(paid)),
        [cp.abs(w - now) <= paid, cp.sum(w) == 1, w >= 0],
    )
    return al.ArgminLayer(problem, parameters=[r, root, fear, now], variables=[w])


def month() -> tuple[Tensor, Tensor]:
    """Return returns and their forecasts, (days, runs, assets); what is forecast fades slowly."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.zeros(RUNS, ASSETS, dtype=torch.float64)
    rows = []
    for _ in range(DAYS):
        signal = 0.8 * signal + 0.2 * torch.randn(RUNS, ASSETS, dtype=torch.float64, generator=generator)
        rows.append(signal)
    forecasts = torch.stack(rows)
    return forecasts + 0.1 * torch.randn(forecasts.shape, dtype=torch.float64, generator=generator), forecasts


RETURNS, FORECASTS = month()
ROOT = 0.3 * torch.eye(ASSETS, dtype=torch.float64) + 0.1


def earned(choose: al.ArgminLayer, aversion: Tensor, fear: Tensor) -> Tensor:
    """Return what a day earns after costs, on average."""
    w = torch.full((RUNS, ASSETS), 1.0 / ASSETS, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for r, forecast in zip(RETURNS, FORECASTS, strict=True):
        new = choose(forecast, aversion.sqrt() * ROOT, COST * fear, w)
        total = total + ((r * new).sum(-1) - COST * (new - w).abs().sum(-1)).mean()
        w = new
    return total / DAYS


def by_scipy(forecast: Tensor, aversion: float, fear: float, now: Tensor) -> np.ndarray:
    """Return one portfolio without the library: w = now + bought − sold."""
    r, F, held = forecast.numpy(), aversion**0.5 * ROOT.numpy(), now.numpy()

    def split(z: np.ndarray) -> np.ndarray:
        return held + z[:ASSETS] - z[ASSETS:]

    found = scipy.optimize.minimize(
        lambda z: -(r @ split(z)) + 0.5 * (F @ split(z)) @ (F @ split(z)) + COST * fear * z.sum(),
        np.zeros(2 * ASSETS),
        bounds=[(0.0, None)] * (2 * ASSETS),
        constraints=[
            {"type": "eq", "fun": lambda z: split(z).sum() - 1.0},
            {"type": "ineq", "fun": split},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return split(found.x)


def main() -> tuple[float, float, float, float]:
    """Return the earnings at first, learned, and the best of a grid, and the distance to SciPy's portfolio."""
    choose = layer()
    logarithms = torch.zeros(2, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([logarithms], lr=0.15)
    history = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = earned(choose, *logarithms.exp())
        (-value).backward()
        optimizer.step()
        history.append(float(value.detach()))
    with torch.no_grad():
        aversion, fear = logarithms.exp()
        learned = float(earned(choose, aversion, fear))
        grid = max(float(earned(choose, aversion, torch.tensor(t, dtype=torch.float64))) for t in np.linspace(0, 1, 11))
        now = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
        w = choose(FORECASTS[5, 0], aversion.sqrt() * ROOT, COST * fear, now)
    distance = float(np.abs(w.numpy() - by_scipy(FORECASTS[5, 0], float(aversion), float(fear), now)).max())
    print(f"earned a day: {history[0]:.4f} at first, {learned:.4f} with γ = {aversion:.2f} and τ = {fear:.2f} learned")
    print(f"the best of eleven τ at this γ: {grid:.4f};   distance to SciPy's portfolio: {distance:.1e}")
    return history[0], learned, grid, distance


if __name__ == "__main__":
    main()
