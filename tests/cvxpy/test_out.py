"""Problems written as torch functions, solved by CVXPY's solvers: against CVXPY by hand and known solutions."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import argminlayer as al
from argminlayer._bound import bind
from argminlayer.testing import USER_FUNCTIONS, central_differences

pytest.importorskip("clarabel", reason="needs the extra cvxpy")


def numbers(*shape, seed=0, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def semidefinite(n, seed=0, rank=None):
    root = numbers(n, rank or n, seed=seed)
    return root @ root.mT + (0.1 * torch.eye(n, dtype=torch.float64) if rank is None else 0.0)


def by_hand(objective, constraints, variable):
    problem = cp.Problem(cp.Minimize(objective), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the last digits are not certain
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return torch.from_numpy(np.array(variable.value, dtype=np.float64))


X = numbers(3, 5, seed=1)
A, B = numbers(8, 5, seed=2), numbers(8, seed=3)
S = semidefinite(5, seed=4)

CASES = {
    "projection onto the simplex": (
        al.Problem(lambda u, x: (u - x).square().sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1.0, lower=0.0),
        (X,),
        lambda u, x: (cp.sum_squares(u - x), [cp.sum(u) == 1, u >= 0]),
    ),
    "portfolio with a parameter matrix": (
        al.Problem(
            lambda u, s, x: u @ s @ u - x @ u,
            "(n,n),(n)->(n)",
            equality=lambda u, s, x: u.sum() - 1.0,
            lower=0.0,
        ),
        (torch.stack([semidefinite(5, seed=k) for k in range(3)]), X),
        lambda u, s, x: (cp.quad_form(u, cp.psd_wrap(s)) - x @ u, [cp.sum(u) == 1, u >= 0]),
    ),
    "risk, the root of a form": (
        al.Problem(
            lambda u, s, x: (u @ s @ u).sqrt() - 0.1 * x @ u,
            "(n,n),(n)->(n)",
            equality=lambda u, s, x: u.sum() - 1.0,
        ),
        (torch.stack([semidefinite(5, seed=k) for k in range(3)]), X),
        lambda u, s, x: (cp.norm(np.linalg.cholesky(s).T @ u) - 0.1 * x @ u, [cp.sum(u) == 1]),
    ),
    "a form of semidefinite parameters in a constraint": (
        al.Problem(lambda u, s, x: x @ u, "(n,n),(n)->(n)", inequality=lambda u, s, x: u @ s @ u + u @ u - 1.0),
        (torch.stack([semidefinite(5, seed=k, rank=2) for k in range(3)]), X),
        lambda u, s, x: (x @ u, [cp.quad_form(u, cp.psd_wrap(s + np.eye(5))) <= 1]),
    ),
    "entropy": (
        al.Problem(lambda u, x: (u * u.log()).sum() - x @ u, "(n)->(n)", equality=lambda u, x: u.sum() - 1.0),
        (X,),
        lambda u, x: (-cp.sum(cp.entr(u)) - x @ u, [cp.sum(u) == 1]),
    ),
    "relative entropy to a parameter": (
        al.Problem(lambda u, x: (u * (u / x.exp()).log()).sum(), "(n)->(n)", equality=lambda u, x: u.sum() - 1.0),
        (X,),
        lambda u, x: (cp.sum(cp.rel_entr(u, np.exp(x))), [cp.sum(u) == 1]),
    ),
    "relative entropy of variables": (
        al.Problem(
            lambda u, x: (u[:2] * (u[:2].log() - u[2:4].log())).sum() + (u - x.exp()).square().sum(), "(n)->(n)"
        ),
        (X,),
        lambda u, x: (cp.sum(cp.rel_entr(u[:2], u[2:4])) + cp.sum_squares(u - np.exp(x)), []),
    ),
    "log sum exp": (
        al.Problem(lambda u, x: torch.logsumexp(u, 0) + (u - x).norm() ** 2, "(n)->(n)"),
        (X,),
        lambda u, x: (cp.log_sum_exp(u) + cp.sum_squares(u - x), []),
    ),
    "log of a sum of weighted exponentials": (
        al.Problem(lambda u, x: (1.0 + (2.0 * u.exp()).sum()).log() + (u - x).square().sum(), "(n)->(n)"),
        (X,),
        lambda u, x: (cp.log_sum_exp(cp.hstack([u + np.log(2.0), 0.0])) + cp.sum_squares(u - x), []),
    ),
    "Huber": (
        al.Problem(
            lambda u, a, b: F.huber_loss(a @ u, b, reduction="sum", delta=0.2) + 0.1 * u.square().sum(),
            "(m,n),(m)->(n)",
        ),
        (A, torch.stack([B, 2.0 * B, -B])),
        lambda u, a, b: (0.5 * cp.sum(cp.huber(a @ u - b, 0.2)) + 0.1 * cp.sum_squares(u), []),
    ),
    "logistic regression": (
        al.Problem(
            lambda u, a, b: F.binary_cross_entropy_with_logits(a @ u, b, reduction="sum") + 0.1 * u.square().sum(),
            "(m,n),(m)->(n)",
        ),
        (A, torch.stack([(B > 0).double(), (B < 0).double()])),
        lambda u, a, b: (cp.sum(cp.logistic(a @ u)) - b @ (a @ u) + 0.1 * cp.sum_squares(u), []),
    ),
    "norms as constraints": (
        al.Problem(
            lambda u, x: x @ u,
            "(n)->(n)",
            inequality=lambda u, x: torch.stack([u.norm() - 1.0, (u[:2] - 1.0).norm(p=3) - 0.5]),
        ),
        (X,),
        lambda u, x: (x @ u, [cp.norm(u) <= 1, cp.pnorm(u[:2] - 1, 3) <= 0.5]),
    ),
    "sum of squares over a positive number": (
        al.Problem(lambda u, x: u[1:].square().sum() / u[0] + (u - x).square().sum(), "(n)->(n)", lower=0.1),
        (X,),
        lambda u, x: (cp.quad_over_lin(u[1:], u[0]) + cp.sum_squares(u - x), [u >= 0.1]),
    ),
    "inverse and cube of positive numbers": (
        al.Problem(
            lambda u, x: (1.0 / u).sum() + (u**3).sum() + x.exp() @ u, "(n)->(n)", lower=lambda x: 0.1 * x.square()
        ),
        (X,),
        lambda u, x: (cp.sum(cp.inv_pos(u)) + cp.sum(cp.power(u, 3)) + np.exp(x) @ u, [u >= 0.1 * x**2]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_solutions_are_those_of_cvxpy_by_hand(name):
    problem, parameters, formula = CASES[name]
    solution = al.solve(problem, *parameters, solver="cvxpy.clarabel")
    for i in range(len(solution.value)):
        instance = [
            (p if p.ndim == len(c) else p[i]).numpy() for p, c in zip(parameters, problem.signature.inputs, strict=True)
        ]
        u = cp.Variable(5)
        objective, constraints = formula(u, *instance)
        expected = by_hand(objective, constraints, u)
        torch.testing.assert_close(solution.value[i], expected, rtol=1e-4, atol=1e-4)
        assert solution.objective[i].item() == pytest.approx(float(objective.value), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_central_differences(name):
    problem, parameters, _ = CASES[name]
    first = [p if p.ndim == len(c) else p[0] for p, c in zip(parameters, problem.signature.inputs, strict=True)]
    moving = first[-1].clone().requires_grad_(True)
    weights = torch.cos(1.0 + torch.arange(5, dtype=torch.float64))
    value = al.argmin(problem, *first[:-1], moving, solver="cvxpy.clarabel")
    (found,) = torch.autograd.grad(weights @ value, moving)

    def along(p):
        return weights @ al.argmin(problem, *first[:-1], p, solver="cvxpy.clarabel")

    (expected,) = central_differences(along, first[-1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


M = numbers(3, 3, seed=7)
M = M + M.mT
SPECTRAL = {
    "largest eigenvalue": (
        lambda U: torch.linalg.eigvalsh(U).amax() + (U - 3.0 * M).square().sum(),
        lambda U: cp.lambda_max(0.5 * (U + U.T)) + cp.sum_squares(U - 3.0 * M.numpy()),
    ),
    "eigenvalue by position": (
        lambda U: torch.linalg.eigvalsh(0.5 * (U + U.mT))[-2:].sum() + (U - 3.0 * M).square().sum(),
        lambda U: cp.lambda_sum_largest(0.5 * (U + U.T), 2) + cp.sum_squares(U - 3.0 * M.numpy()),
    ),
    "nuclear norm": (
        lambda U: torch.linalg.matrix_norm(U, ord="nuc") + (U - 3.0 * M).square().sum(),
        lambda U: cp.normNuc(U) + cp.sum_squares(U - 3.0 * M.numpy()),
    ),
    "spectral norm": (
        lambda U: torch.linalg.svdvals(U)[0] + (U - 3.0 * M).square().sum(),
        lambda U: cp.sigma_max(U) + cp.sum_squares(U - 3.0 * M.numpy()),
    ),
    "log determinant": (
        lambda U: (U - 3.0 * M).square().sum() - torch.logdet(0.5 * (U + U.mT)),
        lambda U: cp.sum_squares(U - 3.0 * M.numpy()) - cp.log_det(0.5 * (U + U.T)),
    ),
}


@pytest.mark.parametrize("name", SPECTRAL)
def test_functions_of_matrices(name):
    function, formula = SPECTRAL[name]
    if name == "largest eigenvalue":
        function = lambda U: SPECTRAL[name][0](0.5 * (U + U.mT)) + (U - U.mT).square().sum()  # noqa: E731
        formula = lambda U: SPECTRAL[name][1](U) + cp.sum_squares(U - U.T)  # noqa: E731
    start = torch.eye(3, dtype=torch.float64)
    value = al.argmin(al.Problem(lambda U: function(U), "->(3,3)", start=start), solver="cvxpy.clarabel")
    U = cp.Variable((3, 3))
    expected = by_hand(formula(U), [], U)
    torch.testing.assert_close(function(value), function(expected), rtol=1e-7, atol=1e-7)


def test_every_user_function_has_torchs_values_or_is_refused():
    from argminlayer_cvxpy._affine import Affine
    from argminlayer_cvxpy._arithmetic import Terms
    from argminlayer_cvxpy._numbers import Program
    from argminlayer_cvxpy._terms import Term
    from argminlayer_cvxpy._translate import ConvexBackend
    from argminlayer_cvxpy._translate_write import Writer

    curvatures = {"AFFINE": 0, "CONVEX": 0, "CONCAVE": 0, "CONSTANT": 0, "UNKNOWN": 0}
    p, z = numbers(6, seed=11, low=0.1, high=0.9), numbers(6, seed=12, low=0.1, high=0.9)
    for user in USER_FUNCTIONS:
        (algebra,) = al.algebra.record(bind(user.problem, (p,)))
        count = algebra.values.shape[1]
        infinite = torch.full((6,), torch.inf, dtype=torch.float64)
        data = torch.cat([algebra.values[0], torch.zeros(6, dtype=torch.float64), infinite])
        terms = Terms(Writer(Program(data.numpy()), 6))
        given = Term(Affine.of(terms.program.parameters.take(np.arange(count)))) if count else None
        variables = Term(Affine.variables(terms.program, 0, 6))
        try:
            written = al.algebra.interpret(algebra, ConvexBackend(terms), variables, given).equality
            expression = terms.expression(written)
        except (al.AlgebraError, al.algebra.Unsupported):
            continue
        writer = terms.writer
        values = terms.program.run(data[None], [found for _, found in writer.parameters])
        for (parameter, _), value in zip(writer.parameters, values, strict=True):
            parameter.value = value.expand(1, parameter.size)[0].numpy()
        writer.blocks[0][1].value = z.numpy()
        wanted = user.function(z, p)
        parts = wanted if isinstance(wanted, tuple | list) else (wanted,)
        flat = torch.cat([part.to(torch.float64).reshape(-1) for part in parts])
        found = torch.from_numpy(np.array(expression.value, dtype=np.float64).reshape(-1))
        torch.testing.assert_close(found, flat, rtol=1e-6, atol=1e-9, msg=user.code)
        assert expression.is_dpp() or not expression.is_dcp(), user.code
        curvatures[expression.curvature] += 1
    assert curvatures["AFFINE"] >= 159
    assert curvatures["CONVEX"] >= 87
    assert curvatures["CONCAVE"] >= 11


def test_instances_with_weights_of_other_signs_get_models_of_their_own_and_a_status():
    problem = al.Problem(lambda u, x, w: (u - x).square().sum() + w * u.exp().sum(), "(n),()->(n)")
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
    solution = al.solve(problem, X[0], weights, solver="cvxpy.clarabel", throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.NOT_CONVEX, al.Status.SOLVED, al.Status.SOLVED]
    assert "convex" in solution.messages[1]
    torch.testing.assert_close(solution.value[2], X[0])
    assert solution.value[1].isnan().all()


def test_a_batch_with_infeasible_and_unbounded_members_keeps_the_others():
    problem = al.Problem(
        lambda u, x: x @ u, "(n)->(n)", inequality=lambda u, x: torch.stack([u[0] - x[0], 1.0 - u[0]]), lower=-1.0
    )
    x = torch.tensor([[2.0, 1.0], [0.5, 1.0], [2.0, -1.0], [3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    solution = al.solve(problem, x, solver="cvxpy.clarabel", throw=False)
    wanted = [al.Status.SOLVED, al.Status.INFEASIBLE, al.Status.UNBOUNDED, al.Status.SOLVED]
    assert solution.status.tolist() == wanted
    expected = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(solution.value[[0, 3]], expected)
    with pytest.raises(al.SolveFailed, match=r"2 of 4 problems; the first is at batch index \(1,\): INFEASIBLE"):
        al.solve(problem, x, solver="cvxpy.clarabel")


def test_a_second_call_builds_nothing_again(monkeypatch):
    from argminlayer_cvxpy import _translate_solve

    problem = al.Problem(lambda u, x: (u - x).square().sum() + u.exp().sum(), "(n)->(n)", lower=-0.3)
    al.argmin(problem, X, solver="cvxpy.clarabel")
    monkeypatch.setattr(_translate_solve, "build", lambda *_: pytest.fail("a model was built again"))
    al.argmin(problem, 2.0 * X[:2], solver="cvxpy.clarabel")


def test_explain_says_that_a_problem_is_convex():
    problem = al.Problem(lambda u, x: (u - x).norm() + u.exp().sum(), "(n)->(n)")
    assert al.explain(problem, X).proofs == ("convex, proved by DCP",)
    assert "\n       convex, proved by DCP\nsolvers" in str(al.explain(problem, X))
    concave = al.Problem(lambda u, x: (u - x).norm() - u.exp().sum(), "(n)->(n)")
    assert al.explain(concave, X).proofs == ()


def test_a_maximum_is_found_with_multipliers_of_our_sign():
    problem = al.Problem(
        lambda u, x: u.log().sum(), "(n)->(n)", inequality=lambda u, x: x.exp() @ u - 1.0, maximize=True, start=0.1
    )
    solution = al.solve(problem, X, solver="cvxpy.clarabel")
    torch.testing.assert_close(solution.value, 0.2 / X.exp(), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(solution.multipliers.inequality, torch.full((3, 1), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("exponent", [1.5, 1.7, 2.5, 3.14159, 4.0, 6.0])
def test_powers_and_norms_of_any_order_are_exact(exponent):
    problem = al.Problem(lambda u, x: (u**exponent).sum() - x @ u, "(n)->(n)", lower=0.0)
    x = X.exp()
    found = al.argmin(problem, x, solver="cvxpy.clarabel")
    torch.testing.assert_close(found, (x / exponent) ** (1.0 / (exponent - 1.0)), rtol=1e-9, atol=1e-11)
    ball = al.Problem(lambda u, x: x @ u, "(n)->(n)", inequality=lambda u, x: u.norm(p=exponent) - 1.0)
    dual = exponent / (exponent - 1.0)
    least = -x.norm(p=dual, dim=1)
    torch.testing.assert_close(al.solve(ball, x, solver="cvxpy.clarabel").objective, least, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("exponent", [0.3, 0.5, -0.5, -2.0, -1.3])
def test_concave_and_negative_powers_are_exact(exponent):
    sign = -1.0 if exponent > 0 else 1.0
    problem = al.Problem(lambda u, x: sign * (u**exponent).sum() + x @ u, "(n)->(n)", lower=0.0, start=1.0)
    x = X.exp()
    found = al.argmin(problem, x, solver="cvxpy.clarabel")
    torch.testing.assert_close(found, (x / abs(exponent)) ** (1.0 / (exponent - 1.0)), rtol=1e-8, atol=0.0)


def test_a_product_of_wide_matrices_gets_variables_of_its_own():
    wide, back = numbers(3, 200, seed=5), numbers(200, 3, seed=6)
    problem = al.Problem(lambda u, x: (back @ (wide @ u) - x).square().sum() + 0.1 * u.square().sum(), "(n)->(n)")
    x = numbers(2, 200, seed=8)
    product = back @ wide
    expected = torch.linalg.solve(product.mT @ product + 0.1 * torch.eye(200, dtype=torch.float64), product.mT @ x.mT)
    found = al.argmin(problem, x, solver="cvxpy.clarabel")
    torch.testing.assert_close(found, expected.mT, rtol=1e-6, atol=1e-8)
