"""Programs whose infimum is not attained, and programs that only look like these."""

import pytest
import torch
from cone_programs import RawClarabel

import argminlayer as al

SOLVER = RawClarabel()
EXPONENTIAL, SECOND_ORDER = al.Cones(exponential=1), al.Cones(second_order=(3,))
ROOT = 2.0**0.5


def solve(cones, q, rows, b, P=None):
    """Return the solution of ``min 1/2 x'Px + q'x, b - A x in K`` with ``-A`` as given."""
    q, A, b = (torch.tensor(part, dtype=torch.float64) for part in (q, rows, b))
    P = torch.zeros(q.shape[-1:] * 2, dtype=torch.float64) if P is None else torch.tensor(P, dtype=torch.float64)
    pattern = al.ConePattern(len(q), cones, *P.nonzero(as_tuple=True), *A.nonzero(as_tuple=True))

    def data(q):
        return P[P != 0], q, -A[A != 0], b

    return al.solve(al.ConeProgram(f"({len(q)})->({len(q)})", pattern, data), q, solver=SOLVER, throw=False)


UNATTAINED = {
    # variables (t, x); -t falls with log x >= t, or x^0.3 >= t
    "-log x": (EXPONENTIAL, [-1.0, 0.0], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [0.0, 1.0, 0.0]),
    "-x^0.3": (al.Cones(power=(0.3,)), [-1.0, 0.0], [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], [0.0, 1.0, 0.0]),
    # t >= e^x, t >= 1/x, t >= sqrt(x^2 + 1)
    "e^x": (EXPONENTIAL, [1.0, 0.0], [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], [0.0, 1.0, 0.0]),
    "1/x": (SECOND_ORDER, [1.0, 0.0], [[1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 2.0]),
    "sqrt(x^2+1)-x": (SECOND_ORDER, [1.0, -1.0], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 1.0]),
    # the matrix [[t, 1], [1, x]]
    "psd": (al.Cones(semidefinite=(2,)), [1.0, 0.0], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [0.0, ROOT, 0.0]),
}


@pytest.mark.parametrize("name", UNATTAINED)
def test_what_is_not_attained_is_not_solved(name):
    solution = solve(*UNATTAINED[name])
    # where the solver stops too early for a residual to be small there is nothing to prove
    assert solution.status in ((al.Status.NOT_FEASIBLE,) if name == "1/x" else (al.Status.UNBOUNDED,))
    assert solution.value.isnan().all()


FREE = {
    # the second variable may go to infinity, but what is minimal at once stays so
    "e^(x_+)": (
        al.Cones(nonnegative=2, exponential=1),
        [1.0, 0.0, 0.0],
        [[0.0, 1.0, 0.0], [0.0, 1.0, -1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
        [0.0, 0.0, 0.0, 1.0, 0.0],
    ),
    "x >= |t|": (
        SECOND_ORDER,
        [0.0, 0.0],
        [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]],
        [0.0, 0.0, 0.0],
        [[1.0, 0.0], [0.0, 0.0]],
    ),
    "psd": (
        al.Cones(semidefinite=(2,)),
        [1.0, 0.0, 0.0],
        [[1.0, 0.0, 0.0], [0.0, ROOT, 0.0], [0.0, 0.0, 1.0]],
        [0.0, 0.0, 0.0],
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_solutions_in_unbounded_sets_are_solutions(name):
    solution = solve(*FREE[name])
    assert solution.status == al.Status.SOLVED
    assert solution.certificate.freedom > 0


def logarithm():
    """Return ``min c x - log x``: x = 1/c for c > 0, and no minimum for c = 0."""
    pattern = al.ConePattern(2, EXPONENTIAL, [], [], [0, 2], [0, 1])

    def data(c):
        none, b = torch.zeros(0, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        q = torch.stack([-torch.ones_like(c), c], -1)
        return none, q, -torch.ones(2, dtype=torch.float64), b

    return al.ConeProgram("()->(2)", pattern, data, names=("c",))


def test_instances_without_a_minimum_do_no_harm_to_the_others():
    c = torch.tensor([2.0, 0.0, 1e-5], dtype=torch.float64, requires_grad=True)
    solution = al.solve(logarithm(), c, solver=SOLVER, throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.UNBOUNDED, al.Status.SOLVED]
    x = solution.value[:, 1]
    assert torch.allclose(c[[0, 2]] * x[[0, 2]], torch.ones(2, dtype=torch.float64), rtol=1e-9)
    (gradient,) = torch.autograd.grad(x.sum(), c)
    assert torch.allclose(gradient[[0, 2]], -1.0 / c[[0, 2]].detach() ** 2, rtol=1e-6)
    assert gradient[1].isnan()
    with pytest.raises(al.SolveFailed, match=r"1 of 3 problems; the first is at batch index \(1,\): UNBOUNDED"):
        al.argmin(logarithm(), c, solver=SOLVER)


def test_points_with_small_residuals_that_are_far_from_the_solution_are_not_stationary():
    # 1/x + 1e-8 x is least at x = 1e4, where its derivatives are smaller than any usual tolerance
    cones, _, rows, b = UNATTAINED["1/x"]
    solution = solve(cones, [1.0, 1e-8], rows, b)
    assert solution.status == al.Status.NOT_STATIONARY
    assert max(solution.certificate.stationarity, solution.certificate.feasibility) < 1e-6
    assert solution.certificate.error == pytest.approx(abs(solution.primal[1] - 1e4).item() / 1e4, rel=0.5)
