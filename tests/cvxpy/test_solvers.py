"""The solvers on cone programs: solutions, dual variables in CVXPY's signs and orders, failures, settings."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy_problems import PROBLEMS, assign, value_of

import argminlayer as al
from argminlayer_cvxpy import ECOS, HIGHS, OSQP, PIQP, SCS, Clarabel, Gurobi, Mosek, Named
from argminlayer_cvxpy._read import read

ACCURATE = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
SOLVERS = {
    "clarabel": Clarabel(tol=1e-9),
    "scs": SCS(tol=1e-10),
    "osqp": OSQP(tol=1e-10),
    "highs": HIGHS(),
    "piqp": PIQP(),
    "ecos": ECOS(),
    "clarabel by name": Named(solver="clarabel", settings=ACCURATE),
    "scs by name": Named(solver="SCS", settings={"eps": 1e-9}),
    "piqp by name": Named(solver="piqp"),
}
TAKES = {
    "clarabel": {"second_order", "semidefinite", "exponential", "power"},
    "scs": {"second_order", "semidefinite", "exponential", "power"},
    "ecos": {"second_order", "exponential"},
    "osqp": set(),
    "highs": set(),
    "piqp": set(),
    "clarabel by name": {"second_order", "semidefinite", "exponential", "power"},
    "scs by name": {"second_order", "semidefinite", "exponential", "power"},
    "piqp by name": set(),
}


def form_of(program, values):
    """Return the numbers of a batch of one, or of the batch that the values have."""
    data = program.data(*(torch.as_tensor(value, dtype=torch.float64) for value in values))[:4]
    arrays = [block.numpy() if block.ndim > 1 else block.numpy()[None] for block in data]
    return al.ConeForm(program.pattern, *arrays, max(map(len, arrays)))


def residuals(form, answer, i=0):
    P, q, A, b = form.instance(i)
    P = P.toarray() + np.triu(P.toarray(), 1).T
    x, s, z = answer.value[i], answer.slack[i], answer.multipliers[i]
    return max(np.abs(P @ x + q + A.T @ z).max(), np.abs(A @ x + s - b).max(initial=0.0), abs(s @ z))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_solver_finds_the_solution_and_the_dual_variables_of_cvxpy(name, solver):
    problem, constraints = PROBLEMS[name]()
    gp = name == "geometric"
    duals = [dual for constraint in constraints for dual in constraint.dual_variables]
    program = read(problem, None, [*problem.variables(), *duals], gp=gp)
    generator = np.random.default_rng(0)
    values = [value_of(p, generator) for p in problem.parameters()]
    form = form_of(program, values)
    chosen = SOLVERS[solver]
    if {kind for kind, *_ in form.pattern.cones.blocks()} - TAKES[solver]:
        assert "cones" in chosen.refuses(form) or "CVXPY says" in chosen.refuses(form)
        return
    assert chosen.refuses(form) is None
    assign(problem.parameters(), values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY warns of its own sparse variables, and of such tolerances
        problem.solve(solver=cp.CLARABEL, gp=gp, **ACCURATE)
    answer = chosen.solve_cones(form)
    assert answer.status.tolist() == [al.Status.SOLVED], answer.messages
    # ECOS meets its tolerance for the cone that stands for the quadratic objective
    assert residuals(form, answer) < (1e-4 if solver == "ecos" else 1e-5)
    found = program.recover(torch.from_numpy(answer.value), torch.from_numpy(answer.multipliers))
    for tensor, variable in zip(found, [*problem.variables(), *duals], strict=True):
        expected = variable.value_sparse.toarray() if variable.sparse_idx is not None else variable.value
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        np.testing.assert_allclose(tensor[0], expected, atol=2e-4, err_msg=variable.name())


def infeasible_and_unbounded(solver):
    """Return the answers to: a feasible program, an infeasible one, an unbounded one, one that is not a number."""
    x, low, high, q = cp.Variable(2), cp.Parameter(), cp.Parameter(), cp.Parameter(2)
    program = read(cp.Problem(cp.Minimize(q @ x), [x[0] >= low, x[0] <= high, x[1] >= -1]), [low, high, q], [x])
    low, high = np.array([0.0, 2.0, 0.0, np.nan]), np.array([1.0, 1.0, 1.0, 1.0])
    q = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    form = form_of(program, (low, high, q))
    return form, solver.solve_cones(form)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_failed_instance_is_named_and_leaves_the_others_alone(solver):
    _, answer = infeasible_and_unbounded(SOLVERS[solver])
    expected = [al.Status.SOLVED, al.Status.INFEASIBLE, al.Status.UNBOUNDED, al.Status.NOT_FINITE]
    assert answer.status.tolist() == expected, answer.messages
    np.testing.assert_allclose(answer.value[0], [0.0, -1.0], atol=1e-6)
    assert all(answer.messages)


@pytest.mark.parametrize("solver", ["clarabel", "scs", "osqp", "ecos"])
def test_what_comes_with_infeasible_and_unbounded_programs_proves_it(solver):
    form, answer = infeasible_and_unbounded(SOLVERS[solver])
    _, _, A, b = form.instance(1)
    proof = answer.multipliers[1]
    assert proof.min() >= -1e-9
    assert b @ proof < 0
    assert np.abs(A.T @ proof).max() < 1e-6 * np.abs(b @ proof)
    _, q, A, _ = form.instance(2)
    direction = answer.value[2]
    assert q @ direction < 0
    assert (A @ direction).max() < 1e-6 * np.abs(q @ direction)


@pytest.mark.parametrize("solver", ["clarabel", "scs", "osqp", "ecos", "piqp"])
def test_threads_change_nothing(solver):
    problem, _ = PROBLEMS["lasso"]()
    generator = np.random.default_rng(5)
    values = [np.stack([value_of(p, generator) for _ in range(400)]) for p in problem.parameters()]
    form = form_of(read(problem, None, None), values)
    one, two = (type(SOLVERS[solver])(threads=count).solve_cones(form) for count in (1, 2))
    assert one.status.max() == 0
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.multipliers, two.multipliers)


@pytest.mark.parametrize("solver", ["scs", "osqp"])
def test_a_warm_start_saves_iterations(solver):
    problem, _ = PROBLEMS["lasso"]()
    values = [value_of(p, np.random.default_rng(1)) for p in problem.parameters()]
    form = form_of(read(problem, None, None), values)
    cold = SOLVERS[solver].solve_cones(form)
    warm = SOLVERS[solver].solve_cones(form, cold)
    assert warm.status.tolist() == [0]
    assert warm.iterations[0] < cold.iterations[0]
    broken = cold._replace(value=np.full_like(cold.value, np.nan))
    assert SOLVERS[solver].solve_cones(form, broken).status.tolist() == [0]


def test_settings_of_the_back_end_pass_through():
    problem, _ = PROBLEMS["entropy"]()
    form = form_of(read(problem, None, None), [np.arange(4.0)])
    for solver in (
        Clarabel(settings={"max_iter": 1}),
        Clarabel(max_iter=1),
        SCS(settings={"max_iters": 3}),
        ECOS(max_iter=1),
    ):
        assert solver.solve_cones(form).status.tolist() == [al.Status.MAX_ITERATIONS]
    with pytest.raises(al.SolverError, match="Clarabel has no setting 'eps'"):
        Clarabel(settings={"eps": 1e-3}).solve_cones(form)
    with pytest.raises(al.SolverError, match="setting 'max_iter' cannot be 'many'"):
        Clarabel(settings={"max_iter": "many"}).solve_cones(form)


@pytest.mark.parametrize("solver", [SCS, OSQP, ECOS, HIGHS, PIQP])
def test_settings_that_a_back_end_does_not_have_are_an_error(solver):
    problem, _ = PROBLEMS["linear"]()
    form = form_of(read(problem, None, None), [np.arange(4.0)])
    with pytest.raises(al.SolverError, match=r"the back end refuses its settings: .*nonsense"):
        solver(settings={"nonsense": 1}).solve_cones(form)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Clarabel(tol=0.0), "tol must be positive or None"),
        (lambda: SCS(max_iter=0), "max_iter must be at least 1"),
        (lambda: OSQP(time_limit=-1.0), "time_limit must be positive seconds"),
        (lambda: ECOS(time_limit=1.0), "time_limit must be None, for this back end has no such limit"),
        (lambda: HIGHS(threads=0), "threads must be at least 1"),
    ],
)
def test_settings_outside_their_range_are_refused(make, words):
    with pytest.raises(al.SolverError, match=words):
        make()


def test_solvers_that_are_not_there_say_what_to_install():
    assert "CVXPY knows no solver 'nothing'" in Named(solver="nothing").available().reason
    assert "ask for one as solver='cvxpy:mosek'" in Named().available().reason
    assert Named.called("piqp") == Named(solver="piqp")
    for solver in (Mosek(), Gurobi()):
        assert solver.called("x") is None
        if not solver.available():
            assert "needs the package" in solver.available().reason or "not installed" in solver.available().reason


def test_proofs_have_no_rows_without_entries_on_which_a_back_end_may_crash():
    pytest.importorskip("ecos")
    x, weight = cp.Variable(), cp.Parameter(nonneg=True)
    layer = al.ArgminLayer(
        cp.Problem(cp.Minimize(-weight * cp.power(x, 0.1))), parameters=[weight], variables=[x], throw=False
    )
    one = torch.ones((), dtype=torch.float64)
    assert al.solve(layer.problem, one, solver="cvxpy.ecos", throw=False).status != al.Status.SOLVED
    assert al.solve(layer.problem, one, solver="cvxpy.clarabel", throw=False).status == al.Status.UNBOUNDED
