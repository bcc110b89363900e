"""Sparse programs: small ones as dense ones, large ones without a dense matrix, and their gradients in the pattern."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from quadratic_programs import dense, gradients, randn, solve, weights, worst

import argminlayer as al

N = 220


def banded(seed=0):
    """Return a large program with tridiagonal P, differences bounded above, a few sums fixed, and bounds."""
    main = torch.full((N,), 2.5, dtype=torch.float64)
    off = torch.full((N - 1,), -1.0, dtype=torch.float64)
    P = torch.diag(main) + torch.diag(off, 1) + torch.diag(off, -1)
    G = torch.diag(torch.ones(N, dtype=torch.float64))[:-1] - torch.diag(torch.ones(N, dtype=torch.float64))[1:]
    A = torch.zeros(4, N, dtype=torch.float64)
    for i in range(4):
        A[i, 50 * i : 50 * i + 10] = 1.0
    box = torch.full((N,), 1.2, dtype=torch.float64)
    return {
        "P": P,
        "q": 2.0 * randn(seed, N),
        "G": G,
        "h": torch.full((N - 1,), 0.4, dtype=torch.float64),
        "A": A,
        "b": torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64),
        "lower": -box,
        "upper": box,
    }


def sparse(blocks, layout="coo"):
    make = torch.Tensor.to_sparse_coo if layout == "coo" else torch.Tensor.to_sparse_csr
    return {name: make(block) if name in "PGA" else block for name, block in blocks.items()}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_small_sparse_matrices_are_taken_as_dense_ones(layout):
    blocks = dense(batch=(), seed=3)
    found, expected = gradients(sparse(blocks, layout), solver="qp.daqp"), gradients(blocks, solver="qp.daqp")
    for name in blocks:
        assert worst(found[name].to_dense(), expected[name]) < 1e-12, name


@pytest.mark.parametrize("solver", ["qp.clarabel", "qp.piqp", "qp.osqp", "qp", "auto"])
def test_large_sparse_programs_have_the_solution_and_the_gradient_of_dense_ones(solver):
    blocks = banded()
    assert worst(solve(sparse(blocks), solver=solver), solve(blocks, solver="qp.daqp")) < 1e-7
    found, expected = gradients(sparse(blocks), solver=solver), gradients(blocks, solver="qp.daqp")
    for name in blocks:
        assert found[name].layout == sparse(blocks)[name].layout
        stored = expected[name] * (blocks[name] != 0) if name in "PGA" else expected[name]
        assert worst(found[name].to_dense(), stored) < 1e-6, name


def test_vectors_of_large_sparse_programs_may_have_a_batch():
    blocks = sparse(banded())
    q = torch.stack([blocks["q"], -blocks["q"]]).requires_grad_()
    value = solve(blocks | {"q": q}, solver="qp.clarabel")
    assert value.shape == (2, N)
    (found,) = torch.autograd.grad((value * weights(value)).sum(), q)
    for i in range(2):
        alone = q[i].detach().requires_grad_()
        one = solve(blocks | {"q": alone}, solver="qp.clarabel")
        (expected,) = torch.autograd.grad((one * weights(value)[i]).sum(), alone)
        assert worst(found[i], expected) < 1e-7


def test_repeated_rows_do_no_harm_to_large_sparse_programs():
    blocks = banded()
    twice = blocks | {"A": torch.cat([blocks["A"]] * 2), "b": torch.cat([blocks["b"]] * 2)}
    found = gradients(sparse(twice), solver="qp.piqp")
    expected = gradients(blocks, solver="qp.daqp")
    assert worst(found["q"], expected["q"]) < 1e-6
    assert worst(found["b"].reshape(2, -1).sum(0), expected["b"]) < 1e-6


def test_failed_sparse_programs_are_named_or_nan():
    blocks = banded()
    blocks["b"] = torch.stack([blocks["b"], torch.full((4,), 50.0, dtype=torch.float64)])
    with pytest.raises(
        al.SolveFailed, match=r"qp\.clarabel did not solve 1 of 2 problems; the first is at batch index \(1,\)"
    ) as failed:
        solve(sparse(blocks), solver="qp.clarabel")
    kept = failed.value.solution
    assert kept.ok.tolist() == [True, False]
    assert kept.status[1] == al.Status.INFEASIBLE
    first = banded()
    assert worst(kept.value[0], solve(sparse(first), solver="qp.clarabel")) < 1e-9
    assert kept.value[1].isnan().all()
    q = blocks["q"].clone().requires_grad_()
    value = solve(sparse(blocks) | {"q": q}, solver="qp.clarabel", throw=False)
    assert value.isnan().all(-1).tolist() == [False, True]
    value[0].sum().backward()
    assert q.grad.isfinite().all()


def test_vectors_that_are_not_finite_lose_only_their_own_instance():
    blocks = banded()
    blocks["q"] = torch.stack([blocks["q"], blocks["q"]])
    blocks["q"][1, 3] = torch.nan
    with pytest.raises(al.ProblemError, match=r"sparse quadratic program at batch index \(1,\) is not finite"):
        solve(sparse(blocks), solver="qp.clarabel")
    value = solve(sparse(blocks), solver="qp.clarabel", throw=False)
    assert value.isnan().all(-1).tolist() == [False, True]


def test_matrices_of_no_use_are_nan_for_all_where_nothing_is_to_be_raised():
    blocks = banded()
    for change in (-3.0, torch.nan):
        bent = blocks["P"] + change * torch.eye(N, dtype=torch.float64)
        assert solve(sparse(blocks | {"P": bent}), solver="qp.clarabel", throw=False).isnan().all()


def test_indefinite_or_broken_sparse_matrices_are_refused():
    blocks = banded()
    bent = blocks["P"] - 3.0 * torch.eye(N, dtype=torch.float64)
    with pytest.raises(al.SolverError, match="convex programs only, but P is indefinite: a pivot"):
        solve(sparse(blocks | {"P": bent}), solver="qp.clarabel")
    broken = blocks["P"].clone()
    broken[3, 3] = torch.nan
    with pytest.raises(al.ProblemError, match="not finite"):
        solve(sparse(blocks | {"P": broken}), solver="qp.clarabel")
    with pytest.raises(al.SolverError, match=r"'qp\.daqp' takes dense matrices only"):
        solve(sparse(blocks), solver="qp.daqp")


def test_second_derivatives_of_large_sparse_programs_are_refused_rather_than_wrong():
    q = banded()["q"].requires_grad_()
    value = solve(sparse(banded()) | {"q": q}, solver="qp.clarabel")
    (first,) = torch.autograd.grad(value.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@dataclass(frozen=True)
class Numberless(al.AbstractQuadraticSolver):
    """Answers every program with NaN, and claims success."""

    name: ClassVar[str] = "test.numberless"
    takes_sparse: ClassVar[float] = 1.0

    def available(self):
        return al.Availability(True)

    def suits(self, form):
        return 1.0

    def solve_quadratic(self, form):
        raise AssertionError("the program is sparse")

    def solve_sparse(self, program):
        value, multipliers = (np.full(size, np.nan) for size in (program.size, len(program.low)))
        return al.SparseAnswer(value, multipliers, al.Status.SOLVED, "done")


def test_sparse_answers_that_are_no_numbers_are_a_breakdown_as_dense_ones_are():
    with pytest.raises(al.SolveFailed, match="BREAKDOWN") as caught:
        solve(sparse(banded()), solver=Numberless())
    assert caught.value.solution.status == al.Status.BREAKDOWN
    assert solve(sparse(banded()), solver=Numberless(), throw=False).isnan().all()
