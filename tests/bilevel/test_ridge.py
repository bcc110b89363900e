"""The lower problem and its hypergradient, against closed forms."""

import math

import numpy as np
import pytest
import torch

import argminlayer as al
import argminlayer_bilevel._ridge as ridge
from argminlayer_bilevel._data import DataSet, load
from argminlayer_bilevel._ridge import RIDGE, CrossValidation, split_rows

PENALTIES = [0.1, 345.0, 1e5]


def made_up(rows=23, columns=4, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, columns)) + 0.3
    return DataSet("made-up", X, X[:, 0] + 2.0 + 0.5 * generator.normal(size=rows))


def closed_form(data, splits, mu, *, intercept=False, per_sample=True):
    """Return J and dJ/dmu by the paper's equations 6, 8, 9 and 10.

    The intercept is a column of ones that the penalty leaves out.
    """
    loss = slope = 0.0
    for fit, held in splits:
        columns = np.c_[data.X, np.ones(len(data.y))] if intercept else data.X
        X, y = torch.from_numpy(columns[fit]), torch.from_numpy(data.y[fit])
        X_held, y_held = torch.from_numpy(columns[held]), torch.from_numpy(data.y[held])
        penalised = torch.ones(X.shape[1], dtype=torch.float64)
        penalised[-1] = 0.0 if intercept else 1.0
        H = X.T @ X + mu * torch.diag(penalised)
        beta = torch.linalg.solve(H, X.T @ y)
        dbeta = -torch.linalg.solve(H, penalised * beta)
        residual = X_held @ beta - y_held
        weight = 1.0 / len(splits) / (len(held) if per_sample else 1)
        loss += weight * 0.5 * (residual @ residual).item()
        slope += weight * (residual @ (X_held @ dbeta)).item()
    return loss, slope


def compare(data, mu, *, folds=5, shuffle=False, intercept=False, per_sample=True, solver=None):
    splits = split_rows(data, folds, shuffle, seed=3)
    problem = CrossValidation.of(data, splits, intercept=intercept, per_sample=per_sample, solver=solver)
    found = problem.evaluate(math.log(mu))
    loss, slope = closed_form(data, splits, mu, intercept=intercept, per_sample=per_sample)
    assert found.loss == pytest.approx(loss, rel=1e-10)
    assert found.slope / mu == pytest.approx(slope, rel=1e-7)
    return found


@pytest.mark.parametrize("mu", PENALTIES)
def test_the_node_returns_the_closed_form_of_every_fold(mu):
    data = load("iris", None)
    splits = split_rows(data, 5, shuffle=False, seed=0)
    problem = CrossValidation.of(data, splits, intercept=False, per_sample=True)
    beta = al.argmin(RIDGE, problem.R, problem.q, torch.tensor(mu, dtype=torch.float64))
    assert beta.shape == (5, 4)
    for row, (fit, _) in zip(beta, splits, strict=True):
        X, y = torch.from_numpy(data.X[fit]), torch.from_numpy(data.y[fit])
        exact = torch.linalg.solve(X.T @ X + mu * torch.eye(4, dtype=torch.float64), X.T @ y)
        torch.testing.assert_close(row, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mu", PENALTIES)
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_loss_and_hypergradient_are_those_of_equations_6_to_10(name, intercept, mu):
    data = load(name, None)
    compare(data, mu, intercept=intercept, per_sample=data.per_sample)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_folds_of_unequal_size_are_weighted_right(shuffle, per_sample):
    compare(made_up(rows=23), 2.0, folds=4, shuffle=shuffle, intercept=True, per_sample=per_sample)


def test_every_row_can_be_a_fold_of_its_own():
    compare(made_up(rows=7), 2.0, folds=7)


def test_data_with_more_columns_than_rows_works():
    compare(made_up(rows=10, columns=30), 2.0, folds=3)


@pytest.mark.parametrize("solver", ["scipy.least-squares", "scipy.newton", "scipy.slsqp"])
def test_the_hypergradient_does_not_depend_on_the_solver(solver):
    assert compare(made_up(), 2.0, solver=solver).solver == solver


@pytest.mark.parametrize("mu", PENALTIES)
def test_the_hypergradient_agrees_with_central_differences_of_solved_problems(mu):
    data = load("iris", None)
    problem = CrossValidation.of(data, split_rows(data, 5, False, 0), intercept=False, per_sample=True)
    step = 1e-4
    below, above = (problem.evaluate(math.log(mu) + sign * step).loss for sign in (-1, 1))
    assert problem.evaluate(math.log(mu)).slope == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_splits_are_contiguous_or_shuffled_by_the_seed():
    data = made_up(rows=11)
    contiguous = [held.tolist() for _, held in split_rows(data, 3, shuffle=False, seed=0)]
    assert contiguous == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    shuffled, again, other = ([h.tolist() for _, h in split_rows(data, 3, True, seed)] for seed in (1, 1, 2))
    assert shuffled == again
    assert shuffled != other
    assert sorted(row for held in shuffled for row in held) == list(range(11))


def test_fewer_rows_than_folds_is_an_error():
    with pytest.raises(al.ExperimentError, match=r"made-up has 4 rows, fewer than the 5 folds; use at most 4 folds"):
        split_rows(made_up(rows=4), 5, shuffle=False, seed=0)


def test_a_penalty_too_small_to_tell_dependent_columns_apart_is_an_error():
    data = made_up(rows=400)
    twice = DataSet("twice", np.c_[data.X, data.X], data.y)
    problem = CrossValidation.of(twice, split_rows(twice, 5, False, 0), intercept=False, per_sample=True)
    with pytest.raises(al.ExperimentError, match=r"mu = 1e-12 are not determined .* Raise the smallest mu"):
        problem.evaluate(math.log(1e-12))


def test_a_failed_fit_is_reported_with_its_penalty(monkeypatch):
    def fail(*arguments, **options):
        raise al.SolveFailed("it broke", None)

    data = made_up()
    problem = CrossValidation.of(data, split_rows(data, 5, False, 0), intercept=False, per_sample=True)
    monkeypatch.setattr(ridge.al, "solve", fail)
    with pytest.raises(al.ExperimentError, match=r"the ridge fits failed at mu = 2; narrower limits .* it broke"):
        problem.evaluate(math.log(2.0))
