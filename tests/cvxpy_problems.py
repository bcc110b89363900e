"""CVXPY problems over all cones, with parameters of all kinds, and random values that the parameters accept."""

import cvxpy as cp
import numpy as np
import scipy.sparse as sp


def value_of(parameter, generator):
    """Return a random value that has the attributes of the parameter."""
    has = parameter.attributes
    value = generator.standard_normal(parameter.shape)
    if has["PSD"] or has["NSD"]:
        value = (value @ value.T + np.eye(len(value))) * (1 if has["PSD"] else -1)
    if has["symmetric"]:
        value = value + value.T
    if has["diag"]:
        value = np.diag(np.diag(value))
    if has["nonneg"] or has["pos"]:
        value = np.abs(value) + 0.2
    if has["nonpos"] or has["neg"]:
        value = -np.abs(value) - 0.2
    if parameter.sparse_idx is not None:
        kept = np.zeros(parameter.shape)
        kept[parameter.sparse_idx] = value[parameter.sparse_idx]
        value = kept
    return value


def assign(parameters, values):
    """Give the parameters their values."""
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.sparse_idx is None:
            parameter.value = value
        else:
            places = parameter.sparse_idx
            parameter.value_sparse = sp.coo_array((value[places], places), shape=parameter.shape)


def lasso():
    x, A, b = cp.Variable(4, name="x"), cp.Parameter((3, 4), name="A"), cp.Parameter(3, name="b")
    weight = cp.Parameter(nonneg=True, name="weight")
    constraints = [x <= 1, cp.sum(x) == 1]
    return cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)), constraints), constraints


def quadratic_form():
    x, P, q = cp.Variable(4, name="x"), cp.Parameter((4, 4), PSD=True, name="P"), cp.Parameter(4, name="q")
    return cp.Problem(cp.Minimize(cp.quad_form(x, P) + q @ x)), []


def ball():
    x, P, q = cp.Variable(4, name="x"), cp.Parameter((4, 4), PSD=True, name="P"), cp.Parameter(4, name="q")
    radius = cp.Parameter(nonneg=True, name="radius")
    constraints = [cp.norm(x) <= radius, x[0] >= x[1]]
    return cp.Problem(cp.Minimize(cp.quad_form(x, P) + q @ x + radius), constraints), constraints


def largest_in_a_ball():
    x, q, c = cp.Variable(4, name="x"), cp.Parameter(4, name="q"), cp.Parameter(nonneg=True, name="c")
    constraints = [cp.norm(x) <= 1]
    return cp.Problem(cp.Maximize(q @ x - c), constraints), constraints


def semidefinite(k):
    C, X = cp.Parameter((k, k), symmetric=True, name="C"), cp.Variable((k, k), symmetric=True, name="X")
    R = np.random.default_rng(k).standard_normal((k, k))
    constraints = [X >> 0, cp.trace(X) == 1, X[0, 1] + X[1, 2] >= 0.1, cp.trace(R @ X) <= 5]
    return cp.Problem(cp.Minimize(cp.trace(C @ X) + 0.1 * cp.sum_squares(X)), constraints), constraints


def all_matrices():
    x, X = cp.Variable(4, name="x"), cp.Variable((4, 4), PSD=True, name="X")
    S, D = cp.Parameter((4, 4), symmetric=True, name="S"), cp.Parameter((4, 4), diag=True, name="D")
    N = cp.Parameter((4, 4), NSD=True, name="N")
    few = cp.Parameter((4, 4), sparsity=([0, 1, 3], [1, 2, 0]), name="few")
    constraints = [cp.trace(X) == 1, X >> N, x >= 1]
    return cp.Problem(cp.Minimize(cp.trace(S @ X) + cp.norm(D @ x + few @ x)), constraints), []


def entropy():
    x, q = cp.Variable(4, name="x"), cp.Parameter(4, name="q")
    constraints = [cp.sum(x) == 1]
    return cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + q @ x), constraints), constraints


def cones_by_columns():
    t, Y, Q = cp.Variable(2, name="t"), cp.Variable((3, 2), name="Y"), cp.Parameter((3, 2), name="Q")
    constraints = [cp.SOC(t, Y), Y == Q]
    return cp.Problem(cp.Minimize(cp.sum(t)), constraints), constraints


def cones_by_rows():
    t, Y, Q = cp.Variable(2, name="t"), cp.Variable((2, 3), name="Y"), cp.Parameter((2, 3), name="Q")
    constraints = [cp.SOC(t, Y, axis=1), Y >= Q]
    return cp.Problem(cp.Minimize(cp.sum_squares(t) + cp.sum(Y)), constraints), constraints


def exponential_cones():
    u, v, w = (cp.Variable((2, 2), name=name) for name in "uvw")
    U = cp.Parameter((2, 2), name="U")
    constraints = [cp.ExpCone(u, v, w), u >= U, v == 1]
    return cp.Problem(cp.Minimize(cp.sum(w)), constraints), constraints


def power_cones():
    u, v, w = (cp.Variable(2, name=name) for name in "uvw")
    U = cp.Parameter(2, pos=True, name="U")
    constraints = [cp.PowCone3D(u, v, w, [0.3, 0.6]), u + v <= 1 + U]
    return cp.Problem(cp.Maximize(cp.sum(w)), constraints), constraints[1:]


def matrix():
    M, Y = cp.Parameter((2, 3), name="M"), cp.Variable((2, 3), name="Y")
    constraints = [Y <= 0.5 * M + 2, Y @ np.ones(3) == M[:, 0]]
    return cp.Problem(cp.Minimize(cp.sum_squares(Y - M) + cp.sum(cp.huber(Y - M))), constraints), constraints


def linear():
    x, q = cp.Variable(4, name="x"), cp.Parameter(4, name="q")
    constraints = [cp.sum(x) == 1, x >= 0]
    return cp.Problem(cp.Minimize(q @ x), constraints), constraints


def moving_bounds():
    low, q = cp.Parameter(3, neg=True, name="low"), cp.Parameter(3, name="q")
    x = cp.Variable(3, bounds=[low, 3], name="x")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - q))), []


def special_variables():
    D, few = cp.Variable((3, 3), diag=True, name="D"), cp.Variable((3, 3), sparsity=([0, 1], [1, 2]), name="few")
    scalar, a = cp.Variable(name="scalar"), cp.Parameter(name="a")
    wanted = np.linspace(0.0, 1.0, 9).reshape(3, 3)
    cost = cp.sum_squares(D - wanted) + cp.sum_squares(few - a * wanted) + (scalar - a) ** 2
    return cp.Problem(cp.Minimize(cost)), []


def geometric():
    g = cp.Variable(3, pos=True, name="g")
    a, e = cp.Parameter(pos=True, name="a"), cp.Parameter(name="e")
    c = cp.Parameter(3, pos=True, name="c")
    constraints = [g[0] * g[1] >= a, g[2] == 1, g <= 50, g[1] >= 0.1]
    return cp.Problem(cp.Minimize(a * g[0] / g[1] ** e + cp.sum(cp.multiply(c, g))), constraints), []


PROBLEMS = {
    "lasso": lasso,
    "quadratic form": quadratic_form,
    "ball": ball,
    "largest in a ball": largest_in_a_ball,
    "semidefinite, side 3": lambda: semidefinite(3),
    "semidefinite, side 4": lambda: semidefinite(4),
    "semidefinite, side 6": lambda: semidefinite(6),
    "semidefinite, side 10": lambda: semidefinite(10),
    "all matrices": all_matrices,
    "entropy": entropy,
    "cones by columns": cones_by_columns,
    "cones by rows": cones_by_rows,
    "exponential cones": exponential_cones,
    "power cones": power_cones,
    "matrix": matrix,
    "linear": linear,
    "moving bounds": moving_bounds,
    "special variables": special_variables,
    "geometric": geometric,
}
"""For each name a function that returns a problem and those of its constraints whose dual variables are looked at."""
