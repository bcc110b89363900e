"""What is said of programs that have no solution, and of answers that are not good enough."""

import numpy as np
import pytest
import torch
from cone_programs import RawClarabel, square

import argminlayer as al

SOLVER = RawClarabel()


def ball():
    """Return ``min q'x s.t. |x| <= r, x_0 >= low``: infeasible for r < 0 or low > r."""
    n = 3
    rows = np.array([0, *range(2, 2 + n)])
    columns = np.array([0, *range(n)])
    pattern = al.ConePattern(n, al.Cones(0, 1, (n + 1,)), np.zeros(0), np.zeros(0), rows, columns)

    def data(q, r, low):
        A = torch.tensor([-1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
        lead = torch.broadcast_shapes(q.shape[:-1], r.shape, low.shape)
        b = torch.cat([-low.expand(lead)[..., None], r.expand(lead)[..., None], q.new_zeros(*lead, 3)], -1)
        return torch.zeros(0, dtype=torch.float64), q, A, b

    return al.ConeProgram("(3),(),()->(3)", pattern, data, names=("q", "r", "low"))


def halfline():
    """Return ``min c x s.t. x >= 0`` in an exponential cone: unbounded for c < 0."""
    pattern = al.ConePattern(1, al.Cones(exponential=1), [], [], [2], [0])

    def data(c):
        b = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        return torch.zeros(0, dtype=torch.float64), c, torch.tensor([-1.0], dtype=torch.float64), b

    return al.ConeProgram("(1)->(1)", pattern, data)


Q = torch.tensor([[1.0, 0.5, -0.3], [0.4, 1.0, 0.2], [1.0, 1.0, 1.0], [-1.0, 0.2, 0.1]], dtype=torch.float64)


def test_a_ball_has_the_solution_that_geometry_says():
    q = Q.clone().requires_grad_()
    value = al.argmin(ball(), q, torch.tensor(2.0).double(), torch.tensor(-9.0).double(), solver=SOLVER)
    expected = -2.0 * q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    assert torch.allclose(value, expected, atol=1e-12)
    weight = torch.arange(12.0).reshape(4, 3).double()
    got, want = (torch.autograd.grad((v * weight).sum(), q, retain_graph=True)[0] for v in (value, expected))
    assert torch.allclose(got, want, atol=1e-10)


def test_infeasible_instances_are_named_and_the_others_keep_values_and_gradients():
    low = torch.tensor([-9.0, 5.0, -9.0, torch.nan], dtype=torch.float64)
    q = Q.clone().requires_grad_()
    solution = al.solve(ball(), q, torch.tensor(2.0).double(), low, solver=SOLVER, throw=False)
    assert solution.status.tolist() == [
        al.Status.SOLVED,
        al.Status.INFEASIBLE,
        al.Status.SOLVED,
        al.Status.NOT_FINITE,
    ]
    assert solution.value[[1, 3]].isnan().all()
    good = torch.tensor([0, 2])
    expected = -2.0 * q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    assert torch.allclose(solution.value[good], expected[good], atol=1e-12)
    (gradient,) = torch.autograd.grad(solution.value[good, 0].sum(), q, retain_graph=True)
    (want,) = torch.autograd.grad(expected[good, 0].sum(), q)
    assert torch.allclose(gradient, want, atol=1e-10)
    (gradient,) = torch.autograd.grad(solution.value[:, 0].sum(), q)
    assert gradient[[1, 3]].isnan().all()
    assert torch.allclose(gradient[good], want[good], atol=1e-10)


def test_an_infeasible_instance_raises_with_its_index_and_the_solution():
    low = torch.tensor([[-9.0, -9.0], [5.0, -9.0]], dtype=torch.float64)
    with pytest.raises(al.SolveFailed, match=r"1 of 4 problems; the first is at batch index \(1, 0\): INFEASIBLE") as e:
        al.argmin(ball(), Q.reshape(2, 2, 3), torch.tensor(2.0).double(), low, solver=SOLVER)
    assert e.value.solution.ok.tolist() == [[True, True], [False, True]]


def test_unbounded_instances_are_proved():
    c = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    solution = al.solve(halfline(), c, solver=SOLVER, throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.UNBOUNDED]
    assert abs(solution.value[0].item() - 1.0) < 1e-9


class Silent(RawClarabel):
    """A solver that stops with its point but offers no proofs, and claims success."""

    def solve_cones(self, form, start=None):
        answer = super().solve_cones(form, start)
        bad = (answer.status != 0)[:, None]
        value, slack, z = (np.where(bad, 0.1, part) for part in answer[:3])
        return answer._replace(value=value, slack=slack, multipliers=z, status=0 * answer.status)


def test_infeasibility_is_proved_where_the_solver_offers_nothing():
    low = torch.tensor([-9.0, 5.0], dtype=torch.float64)
    solution = al.solve(ball(), Q[:2], torch.tensor(2.0).double(), low, solver=Silent(), throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.INFEASIBLE]
    c = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert al.solve(halfline(), c, solver=Silent(), throw=False).status[1] == al.Status.UNBOUNDED


def test_the_certificate_decides_not_the_solver():
    r, low = torch.tensor(2.0).double(), torch.tensor(-9.0).double()
    early = al.solve(ball(), Q, r, low, solver=RawClarabel(max_iter=1), throw=False)
    assert (early.status == al.Status.MAX_ITERATIONS).any() or early.certificate.error.max() < 1e-6
    rough = al.solve(ball(), Q, r, low, solver=RawClarabel(tol=1e-3))
    assert rough.certificate.error.max() < 1e-12


def test_numbers_that_are_not_finite_are_named():
    with pytest.raises(al.ProblemError, match=r"parameter 2 \('low'\) is not finite: nan at batch index \(1,\)"):
        al.argmin(ball(), Q[:2], torch.tensor(2.0).double(), torch.tensor([-9.0, torch.nan]).double(), solver=SOLVER)


def test_a_solution_that_is_not_isolated_has_no_derivative_unless_a_policy_says_so():
    problem = square()
    b = torch.ones(4, dtype=torch.float64).requires_grad_()
    value = al.argmin(problem, b, solver=SOLVER)
    (gradient,) = torch.autograd.grad(value[0], b, retain_graph=True)
    assert torch.allclose(gradient, torch.tensor([0.0, 0.0, -1.0, 0.0]).double(), atol=1e-9)
    with pytest.raises(al.NotDifferentiable, match="1 of 1 solutions of the cone program have no derivative"):
        torch.autograd.grad(value[1], b)
    for policy in ("minimum-norm", al.proximal(1e-6)):
        value = al.argmin(problem, b, solver=SOLVER, backward=al.KKT(singular=policy))
        (gradient,) = torch.autograd.grad(value.sum(), b)
        assert torch.allclose(gradient, torch.tensor([0.0, 0.0, -1.0, 0.0]).double(), atol=1e-9)
    value = al.argmin(problem, b, solver=SOLVER, throw=False)
    assert torch.autograd.grad(value[1], b)[0].isnan().all()
    solution = al.solve(problem, b, solver=SOLVER)
    assert solution.certificate.freedom == 1
    assert not solution.certificate.regular


@pytest.mark.parametrize(("policy", "slope"), [("active", 0.0), ("inactive", 1.0), ("average", 0.5)])
def test_weakly_active_rows_follow_the_policy(policy, slope):
    # minimise 1/2 (x - c)^2 s.t. x <= 0 at c = 0
    pattern = al.ConePattern(1, al.Cones(0, 1), [0], [0], [0], [0])

    def data(c):
        one = torch.ones(1, dtype=torch.float64)
        return one, -c, one, torch.zeros(1, dtype=torch.float64)

    c = torch.zeros(1, dtype=torch.float64).requires_grad_()
    problem = al.ConeProgram("(1)->(1)", pattern, data)
    value = al.argmin(problem, c, solver=SOLVER, backward=al.KKT(degenerate=policy))
    (gradient,) = torch.autograd.grad(value.sum(), c)
    assert gradient.item() == pytest.approx(slope, abs=1e-9)
    assert al.solve(problem, c, solver=SOLVER).certificate.weakly_active == 1


def test_cone_programs_are_checked_as_other_problems_are():
    r, low = torch.tensor(2.0).double(), torch.tensor([-9.0, -9.0, 0.5, -9.0]).double()
    report = al.check(ball(), Q, r, low, solver=SOLVER)
    assert report.ok, str(report)
    gradients = [result.name for result in report.results if result.name.startswith("gradient")]
    assert gradients == [f"gradient in parameter {i} ({name!r})" for i, name in enumerate(("q", "r", "low"))]
    report = al.check(ball(), Q[:2], r, torch.tensor([-9.0, 5.0]).double(), solver=SOLVER)
    assert not report.ok
    assert "FAIL  KKT residuals" in str(report)
    assert "INFEASIBLE" in str(report)


def test_a_wrong_derivative_of_the_data_of_a_cone_program_is_found():
    right = halfline()

    def wrong(c):
        P, q, A, b = right.data(c)
        return P, q, A, b + c.detach() * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)

    problem = al.ConeProgram("(1)->(1)", right.pattern, wrong)
    report = al.check(problem, torch.ones(1, dtype=torch.float64), solver=SOLVER)
    assert [r.name for r in report.results if not r.ok] == ["gradient in parameter 0"]


def test_wrong_calls_are_explained():
    one, two = torch.tensor(2.0).double(), torch.tensor(-9.0).double()
    with pytest.raises(al.ProblemError, match=r"differentiated by al\.KKT"):
        al.argmin(ball(), Q, one, two, solver=SOLVER, backward=al.IgnoreConstraints())
    with pytest.raises(al.SignatureError, match="core"):
        al.argmin(ball(), Q[:, :2], one, two, solver=SOLVER)
    with pytest.raises(al.SolverError, match="does not solve cone programs"):
        al.argmin(ball(), Q, one, two, solver="scipy.slsqp")
    with pytest.raises(al.ProblemError, match="the start of a cone program is the solution of another one"):
        al.argmin(ball(), Q, one, two, solver=SOLVER, start=Q)
