"""Train a forecast for the decision it leads to, and compare with one trained for accuracy.

    w(r) = argmax_w  r'w − ½ γ w'Σ w   subject to   Σ w = 1,  w ≥ 0

The returns r are not known when the portfolio w is chosen; they are forecast from features z by a linear model, which
cannot be exact, because the true returns bend. Two ways to fit it: by least squares on the returns, or by Adam on the
regret, which is what is lost by deciding with the forecast instead of the truth,

    regret = U(w(r), r) − U(w(forecast), r),      U(w, r) = r'w − ½ γ w'Σ w,

with the gradient through the portfolio. The covariance Σ is known.

Takes about ten seconds. Prints the mean regret of both on fresh data. The two-stage figure is obtained without the
library: least squares by torch, portfolios by SciPy directly.
"""

import numpy as np
import scipy.optimize
import torch
from torch import Tensor, nn

import argminlayer as al

ASSETS, FEATURES, SAMPLES, STEPS = 3, 2, 40, 60
RISK_AVERSION = 1.0
COVARIANCE = torch.tensor([[0.6, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.1, 0.5]], dtype=torch.float64)


def utility(w: Tensor, r: Tensor) -> Tensor:
    """Return the utility of portfolios (..., n) under returns (..., n)."""
    return (r * w).sum(-1) - 0.5 * RISK_AVERSION * ((w @ COVARIANCE) * w).sum(-1)


portfolio = al.Problem(utility, "(n)->(n)", equality=lambda w, r: w.sum() - 1, lower=0.0, maximize=True)


class Investor(nn.Module):
    """Features to portfolio: a linear forecast, then the argmin layer."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.forecast = nn.Linear(FEATURES, ASSETS, bias=False, dtype=torch.float64)
        self.forecast.weight.data.copy_(weight)
        self.choose = al.ArgminLayer(portfolio, solver="scipy")

    def forward(self, z: Tensor, start: Tensor | None = None) -> Tensor:
        """Return portfolios (..., n) for features (..., m); ``start`` is where the solver begins."""
        return self.choose(self.forecast(z), start=start)


def sample(seed: int) -> tuple[Tensor, Tensor]:
    """Return features, and true returns, which are not linear in them."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(SAMPLES, FEATURES, dtype=torch.float64, generator=generator)
    mixing = torch.tensor([[1.0, -0.5], [-0.3, 0.9], [0.2, 0.4]], dtype=torch.float64)
    linear = z @ mixing.mT
    return z, linear + 0.6 * linear**3


def least_squares_weight(z: Tensor, r: Tensor) -> Tensor:
    """Return the weight of the linear forecast that is most accurate."""
    return torch.linalg.lstsq(z, r).solution.mT


def train(z: Tensor, r: Tensor) -> Investor:
    """Return the investor whose forecast loses least, trained from the most accurate forecast."""
    investor = Investor(least_squares_weight(z, r))
    optimizer = torch.optim.Adam(investor.parameters(), lr=0.1)
    w = None
    for _ in range(STEPS):
        # Portfolios hardly change in a step, so that the last ones are good starts.
        w = investor(z, start=w)
        optimizer.zero_grad()
        (-utility(w, r).mean()).backward()
        optimizer.step()
        w = w.detach()
    return investor


def portfolios_by_scipy(forecast: Tensor) -> Tensor:
    """Return the portfolios (samples, n) for forecast returns, without argminlayer."""
    covariance = COVARIANCE.numpy()
    rows = [
        scipy.optimize.minimize(
            lambda w, r=r: 0.5 * RISK_AVERSION * w @ covariance @ w - r @ w,
            np.full(ASSETS, 1 / ASSETS),
            jac=lambda w, r=r: RISK_AVERSION * covariance @ w - r,
            bounds=[(0, None)] * ASSETS,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-12},
        ).x
        for r in forecast.numpy()
    ]
    return torch.from_numpy(np.stack(rows))


def main() -> tuple[float, float, float]:
    """Return the mean regret on fresh data by regret and by least squares, and how far the layer is from SciPy."""
    z, r = sample(seed=0)
    investor = train(z, r)
    fresh_z, fresh_r = sample(seed=1)
    best = utility(portfolios_by_scipy(fresh_r), fresh_r)
    with torch.no_grad():
        w = investor(fresh_z)
        difference = float((w - portfolios_by_scipy(investor.forecast(fresh_z))).abs().max())
    trained = float((best - utility(w, fresh_r)).mean())
    two_stage_forecast = fresh_z @ least_squares_weight(z, r).mT
    two_stage = float((best - utility(portfolios_by_scipy(two_stage_forecast), fresh_r)).mean())
    print(f"mean regret on fresh data: {trained:.4f} trained on regret, {two_stage:.4f} trained on accuracy")
    print(f"largest difference of the layer's portfolios from those of SciPy alone: {difference:.1e}")
    return trained, two_stage, difference


if __name__ == "__main__":
    main()
