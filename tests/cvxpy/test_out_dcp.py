"""What disciplined convex programming does not follow is refused at the user's line, with what to write instead."""

import re

import pytest
import torch

import argminlayer as al

pytest.importorskip("clarabel", reason="needs the extra cvxpy")

X = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def rooted(u, x):
    total = (u - x).square().sum()
    return torch.sqrt(u.exp().sum() + total)


def concave(u, x):
    return -(u - x).square().sum()


def difference(u, x):
    return (u - x).norm() - u.exp().sum()


def bilinear(u, x):
    return u[0] * u[1] + u.square().sum() * x[0]


def branching(u, x):
    return torch.where(u > x, u, 2.0 * u).sum()


def cubic(u, x):
    return ((u - x) ** 3).sum()


def ratio(u, x):
    return (1.0 / u).sum() + x @ u


def waves(u, x):
    return u.sin().sum() + x @ u


def soft_maximum(u, x):
    return -torch.softmax(u + x, 0)[0]


def middle(u, x):
    return u.sort().values[::2].sum() + (u - x).square().sum()


def skewed(u, x):
    matrix = u.reshape(1, 3).expand(3, 3) + torch.eye(3, dtype=u.dtype)
    return -torch.logdet(matrix) + x @ u


def sphere(u, x):
    return (u - x).square().sum() - 1.0


REFUSED = {
    rooted: "the operator `sqrt` of a convex, nonnegative argument is neither convex nor concave by the rules of "
    "disciplined convex programming: the length of a vector is torch.linalg.vector_norm",
    concave: "the operator `neg` makes a concave function, which cannot be minimised; maximise it",
    difference: "the operator `sub` of convex, nonnegative and concave, nonpositive arguments is neither convex nor "
    "concave by the rules of disciplined convex programming: minimise convex and maximise concave terms",
    bilinear: "the operator `add` makes a quadratic form that is neither convex nor concave: the eigenvalues of its "
    "matrix range from -0.2 to 0.8, but all must have one sign; add to the diagonal",
    branching: "the operator `gt` compares variables, which is neither convex nor concave: write the pieces with "
    "torch.maximum, torch.abs or torch.relu",
    cubic: "the operator `pow` of an affine argument is neither convex nor concave by the rules of disciplined convex "
    "programming: an odd power, or a negative one, is convex only where its argument is not negative: bound it from "
    "below (lower=0.0)",
    ratio: "the operator `reciprocal` of constant, nonnegative and affine arguments is neither convex nor concave by "
    "the rules of disciplined convex programming: a quotient needs a positive denominator: bound the variables",
    waves: "the operator `sin` needs sin, which is neither convex nor concave: write the problem with convex functions",
    soft_maximum: "the operator `_softmax` of a concave argument is neither convex nor concave by the rules of "
    "disciplined convex programming: an exponential needs a convex argument",
    middle: "the operator `sum` works on single entries in order, of which only a sum of the largest or smallest is "
    "convex or concave: sum them first",
    skewed: "the operator `_linalg_slogdet` needs a matrix that is affine and symmetric by construction: write 0.5 *",
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_an_objective_that_is_not_convex_is_explained_at_its_line(function):
    reason = REFUSED[function]
    start = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
    place = rf"objective \('{function.__name__}'\), line \d+ of test_out_dcp.py, `.*`: "
    with pytest.raises(al.SolverError, match=place + re.escape(reason)) as raised:
        al.argmin(al.Problem(function, "(n)->(n)", start=start), X, solver="cvxpy.clarabel")
    assert "such as those of the plugin 'scipy'" in str(raised.value)


def test_an_equality_that_is_not_affine_is_explained_at_its_line():
    problem = al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)", equality=sphere)
    with pytest.raises(al.SolverError, match=r"equality \('sphere'\), line \d+ of .*: the operator `pow` makes an "):
        al.argmin(problem, X, solver="cvxpy.clarabel")


def test_a_concave_inequality_is_explained_at_its_line():
    problem = al.Problem(
        lambda u, x: (u - x).square().sum(), "(n)->(n)", inequality=lambda u, x: torch.stack([u[0], -sphere(u, x)])
    )
    with pytest.raises(al.SolverError, match="makes a concave function of inequality 1, which must be convex"):
        al.argmin(problem, X, solver="cvxpy.clarabel")


def test_a_convex_function_cannot_be_maximised():
    problem = al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)", lower=0.0, upper=1.0, maximize=True)
    with pytest.raises(al.SolverError, match="makes a convex function, which cannot be maximised; minimise it"):
        al.argmin(problem, X, solver="cvxpy.clarabel")


def test_what_bounds_make_positive_is_accepted():
    problem = al.Problem(ratio, "(n)->(n)", lower=lambda x: x.abs())
    torch.testing.assert_close(
        al.argmin(problem, X.abs(), solver="cvxpy.clarabel"), X.abs().rsqrt(), rtol=1e-6, atol=0.0
    )
    with pytest.raises(al.SolverError, match="a quotient needs a positive denominator"):
        al.argmin(al.Problem(ratio, "(n)->(n)", lower=lambda x: x), X, solver="cvxpy.clarabel")


def test_explain_shows_the_reason_beside_the_solver():
    text = str(al.explain(al.Problem(difference, "(n)->(n)"), X))
    assert re.search(r"cvxpy.clarabel +no: objective \('difference'\), line", text)


def test_other_solvers_take_the_problem_as_it_is():
    problem = al.Problem(lambda u, x: waves(u, x) + u.square().sum(), "(n)->(n)")
    assert al.solve(problem, X, solver="scipy").ok


def rooted_as_well(u, x):
    total = (u - x).square().sum()
    return torch.sqrt(u.exp().sum() + total)


@pytest.mark.parametrize("solver", ["cvxpy.clarabel"])
def test_functions_that_do_the_same_are_each_named_at_their_own_line(solver):
    for function in (rooted, rooted_as_well):
        with pytest.raises(al.SolverError, match=re.escape(f"objective ({function.__name__!r})")):
            al.argmin(al.Problem(function, "(n)->(n)"), X, solver=solver)
