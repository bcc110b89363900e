"""Choose portfolios of twenty assets from forecasts: train the forecast on regret, and compare with two stages.

    w(r) = argmin_w  ½ γ w'Σ w − r'w   subject to   Σ w = 1,  0 ≤ w ≤ c

Returns r depend on features through a law that a linear forecast cannot follow. In two stages the forecast is fitted by
least squares and handed to the optimizer. Decision-focused training instead descends on what is lost by deciding with
the forecast, through the quadratic program:

    regret = U(w(r)) − U(w(forecast)),      U(w) = r'w − ½ γ w'Σ w.

Σ and the constraints are the same for all days, so that their factors are computed once per batch of 200 days.

Takes a few seconds. Prints the mean regret of both on fresh days, and how far portfolios are from those of
scipy.optimize.minimize on a few of them.
"""

import numpy as np
import scipy.optimize
import torch
from torch import Tensor, nn

import argminlayer as al

ASSETS, FEATURES, DAYS, STEPS = 20, 4, 200, 150
RISK, CAP = 2.0, 0.3


def market() -> tuple[Tensor, Tensor]:
    """Return the covariance (n, n) and the loadings of the returns on the features (n, k)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(ASSETS, ASSETS, dtype=torch.float64, generator=generator) / ASSETS**0.5
    loadings = torch.randn(ASSETS, FEATURES, dtype=torch.float64, generator=generator)
    return root @ root.mT + 0.1 * torch.eye(ASSETS, dtype=torch.float64), loadings


COVARIANCE, LOADINGS = market()
PROGRAM = al.QuadraticProgram(
    P=RISK * COVARIANCE,
    q=True,
    A=torch.ones(1, ASSETS, dtype=torch.float64),
    b=torch.ones(1, dtype=torch.float64),
    lower=0.0,
    upper=CAP,
)


def sample(seed: int) -> tuple[Tensor, Tensor]:
    """Return features (days, k) and returns (days, n) that bend."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(DAYS, FEATURES, dtype=torch.float64, generator=generator)
    linear = z @ LOADINGS.mT
    noise = 0.1 * torch.randn(DAYS, ASSETS, dtype=torch.float64, generator=generator)
    return z, torch.sinh(linear) / 2.0 + noise


def utility(w: Tensor, r: Tensor) -> Tensor:
    """Return the utility of portfolios (..., n) under returns (..., n)."""
    return (r * w).sum(-1) - 0.5 * RISK * ((w @ COVARIANCE) * w).sum(-1)


def regret(layer: al.ArgminLayer, forecast: Tensor, r: Tensor) -> Tensor:
    """Return the mean regret of deciding with a forecast."""
    return (utility(layer(-r).detach(), r) - utility(layer(-forecast), r)).mean()


def by_scipy(r: Tensor) -> Tensor:
    """Return one portfolio found without the library."""
    P, q = RISK * COVARIANCE.numpy(), -r.numpy()
    found = scipy.optimize.minimize(
        lambda w: (0.5 * w @ P @ w + q @ w, P @ w + q),
        np.full(ASSETS, 1.0 / ASSETS),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, CAP)] * ASSETS,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like}],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return torch.from_numpy(found.x)


def main() -> tuple[float, float, float]:
    """Return the regret of decision-focused training, that of two stages, and the distance to SciPy."""
    layer = al.ArgminLayer(PROGRAM)
    z, r = sample(1)
    two_stage = torch.linalg.lstsq(z, r).solution.mT
    forecast = nn.Linear(FEATURES, ASSETS, bias=False, dtype=torch.float64)
    forecast.weight.data.copy_(two_stage)
    optimizer = torch.optim.Adam(forecast.parameters(), lr=0.05)
    for _ in range(STEPS):
        loss = regret(layer, forecast(z), r)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh_z, fresh_r = sample(2)
    with torch.no_grad():
        trained = float(regret(layer, forecast(fresh_z), fresh_r))
        plain = float(regret(layer, fresh_z @ two_stage.mT, fresh_r))
        w = layer(-fresh_r[:3])
    distance = max(float((w[i] - by_scipy(fresh_r[i])).abs().max()) for i in range(3))
    print(f"mean regret on fresh days: {trained:.4f} trained on regret, {plain:.4f} in two stages")
    print(f"largest difference to SciPy's portfolios: {distance:.1e}")
    return trained, plain, distance


if __name__ == "__main__":
    main()
