"""The bi-level problem: all K ridge fits as one argmin node, and the validation loss above it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import argminlayer as al

from ._data import Array, DataSet
from ._errors import explained_imports

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows to fit on, and rows held out."""


def ridge_residual(beta: Tensor, R: Tensor, q: Tensor, mu: Tensor) -> Tensor:
    """Return the residual whose half square is ``1/2 |R beta - q|^2 + 1/2 mu |beta|^2``; mu > 0."""
    return torch.cat([R @ beta - q, mu.sqrt() * beta])


# Declared as least squares, it can be solved by solvers made for that as well as by general ones.
RIDGE = al.least_squares(ridge_residual, "(r,d),(r),()->(d)")


@dataclass(frozen=True)
class Evaluation:
    """One lower solve: the validation loss of one penalty and its derivative.

    Attributes:
        log_mu: log of the penalty.
        loss: validation loss J.
        slope: hypergradient dJ / d log mu.
        solver: what solved the fits.
    """

    log_mu: float
    loss: float
    slope: float
    solver: str

    @property
    def mu(self) -> float:
        """The penalty."""
        return math.exp(self.log_mu)


@dataclass(frozen=True)
class CrossValidation:
    """K-fold cross-validation of ridge regression as a function of the penalty.

        J(mu) = 1/K sum_k w_k 1/2 |X_k beta_k(mu) - y_k|^2
        beta_k(mu) = argmin_b 1/2 |X'_k b - y'_k|^2 + 1/2 mu |b|^2

    X_k, y_k is the data held out of fit k and X'_k, y'_k the rest (Pan, Wang and Zhou, eqs. 6 and 7). The weight w_k
    is one, or one over the size of fold k.

    The fits are one batch of :data:`RIDGE` in which mu is shared, so that it receives the sum of their gradients. Each
    fit is given the triangular factor R of its data and q, with ``|X' b - y'|^2 = |R b - q|^2 + constant``. Unlike
    the data it has the same shape for folds of unequal size and does not grow with the number of rows; unlike the
    normal equations it does not square the condition number.

    Attributes:
        R: (K, r, d).
        q: (K, r).
        X: held-out data (K, m, d), with rows of zeros below that of smaller folds.
        y: (K, m), with zeros likewise.
        weight: (K,).
        solver: solver of the node, None for automatic choice.
    """

    R: Tensor
    q: Tensor
    X: Tensor
    y: Tensor
    weight: Tensor
    solver: str | None = None

    @classmethod
    def of(
        cls, data: DataSet, splits: Sequence[Split], *, intercept: bool, per_sample: bool, solver: str | None = None
    ) -> "CrossValidation":
        """Prepare the folds.

        Args:
            data: the data set.
            splits: K pairs of rows to fit on and rows held out.
            intercept: add a constant term that is not penalised. Its optimal value makes the residuals of a fit sum to
                zero, which is the same as centring a fit's data, and what it holds out, by the means of the former.
            per_sample: whether w_k is one over the size of fold k.
            solver: solver of the node.
        """
        folds = [_fold(data, split, intercept) for split in splits]
        X_fit, y_fit = _stack([fit for fit, _ in folds])
        X, y = _stack([held for _, held in folds])
        Q, R = torch.linalg.qr(X_fit)
        sizes = torch.tensor([len(held) for _, held in splits], dtype=torch.float64)
        weight = 1.0 / sizes if per_sample else torch.ones_like(sizes)
        return cls(R, (Q.mT @ y_fit[..., None])[..., 0], X, y, weight, solver)

    @property
    def folds(self) -> int:
        """Number of fits in one lower solve, K."""
        return len(self.weight)

    def loss(self, beta: Tensor) -> Tensor:
        """Return the validation loss () of the fits ``beta`` (K, d)."""
        residual = (self.X @ beta[..., None])[..., 0] - self.y
        return (self.weight * 0.5 * residual.square().sum(-1)).mean()

    def evaluate(self, log_mu: float) -> Evaluation:
        """Return the loss and the hypergradient at one penalty: one forward and one backward pass of the node.

        Raises:
            ExperimentError: the fits cannot be solved or differentiated at this penalty.
        """
        s = torch.tensor(log_mu, dtype=torch.float64, requires_grad=True)
        try:
            with torch.enable_grad():
                solution = al.solve(RIDGE, self.R, self.q, s.exp(), solver=self.solver)
                assert isinstance(solution.value, Tensor)
                loss = self.loss(solution.value)
                (slope,) = torch.autograd.grad(loss, s)
        except al.NotDifferentiable as error:
            raise al.ExperimentError(
                f"the ridge fits at mu = {math.exp(log_mu):.3g} are not determined to working precision: some columns "
                "depend on each other, and this penalty is too small beside the data to decide between them. Raise the "
                "smallest mu of the limits, or remove such columns"
            ) from error
        except al.SolveFailed as error:
            raise al.ExperimentError(
                f"the ridge fits failed at mu = {math.exp(log_mu):.3g}; narrower limits of mu, or another solver, may "
                f"help. {error}"
            ) from error
        return Evaluation(log_mu, loss.item(), slope.item(), solution.solver)


def split_rows(data: DataSet, folds: int, shuffle: bool, seed: int) -> tuple[Split, ...]:
    """Return the splits of scikit-learn's ``KFold``: contiguous, or shuffled by ``seed``.

    Raises:
        ExperimentError: there are fewer rows than folds.
    """
    if len(data.y) < folds:
        raise al.ExperimentError(
            f"{data.name} has {len(data.y)} rows, fewer than the {folds} folds; use at most {len(data.y)} folds, or "
            "more data"
        )
    with explained_imports("cross-validation"):
        from sklearn.model_selection import KFold
    return tuple(KFold(folds, shuffle=shuffle, random_state=seed if shuffle else None).split(data.X))


def _fold(data: DataSet, split: Split, intercept: bool) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    fit, held = split
    X_mean = data.X[fit].mean(axis=0) if intercept else 0.0
    y_mean = data.y[fit].mean() if intercept else 0.0
    X, y = data.X - X_mean, data.y - y_mean
    return (X[fit], y[fit]), (X[held], y[held])


def _stack(parts: Sequence[tuple[Array, Array]]) -> tuple[Tensor, Tensor]:
    """Return (K, m, d) and (K, m). Rows of zeros fill up: their residual is zero whatever beta is."""
    longest = max(len(y) for _, y in parts)
    X = np.stack([np.pad(X, ((0, longest - len(X)), (0, 0))) for X, _ in parts])
    y = np.stack([np.pad(y, (0, longest - len(y))) for _, y in parts])
    return torch.from_numpy(X), torch.from_numpy(y)
