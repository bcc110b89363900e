"""Symmetric indefinite systems: solutions, inertia, and how near to singular."""

import subprocess
import sys
import textwrap

import pytest
import torch

from argminlayer._linear import SINGULAR, SymmetricFactor

DOUBLE = torch.float64
SIZES = [1, 2, 3, 5, 12, 40]


def symmetric(batch, size, seed=0):
    """Return random symmetric indefinite matrices."""
    matrix = torch.randn(batch, size, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    return matrix + matrix.mT


def kkt(batch, n, p, seed=0):
    """Return random KKT matrices [[H, A'], [A, 0]] whose H is positive definite."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, n, n, dtype=DOUBLE, generator=generator)
    rows = torch.randn(batch, p, n, dtype=DOUBLE, generator=generator)
    top = torch.cat([root @ root.mT + torch.eye(n, dtype=DOUBLE), rows.mT], -1)
    return torch.cat([top, torch.cat([rows, rows.new_zeros(batch, p, p)], -1)], -2)


def with_spectrum(values, seed=0):
    """Return a symmetric matrix (1, N, N) with these eigenvalues."""
    values = torch.as_tensor(values, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), dtype=DOUBLE, generator=generator)).Q
    matrix = basis @ torch.diag(values) @ basis.T
    return (0.5 * (matrix + matrix.T))[None]


def right_hand_side(batch, size, *columns, seed=1):
    return torch.randn(batch, size, *columns, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def factor_of(matrix):
    return SymmetricFactor.of(matrix, matrix.shape[-1])


@pytest.mark.parametrize("size", SIZES)
def test_the_solution_of_an_indefinite_system_is_that_of_a_dense_solver(size):
    matrix, rhs = symmetric(6, size), right_hand_side(6, size, 3)
    torch.testing.assert_close(factor_of(matrix).solve(rhs), torch.linalg.solve(matrix, rhs), rtol=1e-8, atol=1e-9)


def test_a_system_with_a_zero_diagonal_needs_no_pivot_on_the_diagonal():
    matrix = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=DOUBLE)
    solution = factor_of(matrix).solve(torch.tensor([[[2.0], [3.0]]], dtype=DOUBLE))
    torch.testing.assert_close(solution[0, :, 0], torch.tensor([3.0, 2.0], dtype=DOUBLE))


@pytest.mark.parametrize("size", SIZES)
def test_the_inertia_is_the_number_of_negative_eigenvalues(size):
    matrix = symmetric(20, size)
    negative = (torch.linalg.eigvalsh(matrix) < 0).sum(-1)
    assert factor_of(matrix).negative.tolist() == negative.tolist()


@pytest.mark.parametrize(("n", "p"), [(2, 1), (6, 2), (8, 8)])
def test_a_kkt_matrix_of_a_minimum_has_one_negative_eigenvalue_for_each_constraint(n, p):
    assert factor_of(kkt(5, n, p)).negative.tolist() == [p] * 5


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1e5, 1e12])
def test_the_units_of_a_constraint_change_neither_solution_nor_inertia(scale):
    units = torch.ones(8, dtype=DOUBLE)
    units[6:] = scale
    matrix, rhs = kkt(3, 6, 2), right_hand_side(3, 8, 1)
    scaled = SymmetricFactor.of(units[:, None] * matrix * units, 6)
    expected = torch.linalg.solve(matrix, rhs)
    torch.testing.assert_close(units[:, None] * scaled.solve(units[:, None] * rhs), expected, rtol=1e-8, atol=1e-10)
    assert scaled.negative.tolist() == [2, 2, 2]


@pytest.mark.parametrize("smallest", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_singular_value_is_estimated_within_a_factor(smallest, seed):
    matrix = with_spectrum([1.0, -0.9, 0.8, 0.5, -0.3, smallest], seed)
    factor = factor_of(matrix)
    scaled = factor.scale[..., :, None] * matrix * factor.scale[..., None, :]
    exact = torch.linalg.svdvals(scaled).amin(-1)
    ratio = float(factor.smallest_singular_value() / exact)
    assert 0.999 < ratio < 10.0


def test_the_estimate_of_each_matrix_ignores_the_rest_of_the_batch():
    parts = [with_spectrum([1.0, -1.0, 10.0**-k], seed=k) for k in range(1, 6)]
    together = factor_of(torch.cat(parts)).smallest_singular_value()
    alone = torch.cat([factor_of(part).smallest_singular_value() for part in parts])
    torch.testing.assert_close(together, alone)


def test_an_empty_system_counts_as_regular():
    factor = factor_of(torch.zeros(3, 0, 0, dtype=DOUBLE))
    assert factor.smallest_singular_value().tolist() == [1.0, 1.0, 1.0]
    assert factor.solve(torch.zeros(3, 0, 2, dtype=DOUBLE)).shape == (3, 0, 2)
    assert factor.kernel.shape == (3, 0, 0)


def test_an_empty_batch_is_factorised_and_solved():
    factor = factor_of(torch.zeros(0, 4, 4, dtype=DOUBLE))
    assert factor.solve(torch.zeros(0, 4, 1, dtype=DOUBLE)).shape == (0, 4, 1)
    assert factor.negative.shape == (0,)


SINGULAR_ONES = {
    "zero": torch.zeros(1, 3, 3, dtype=DOUBLE),
    "rank one": torch.ones(1, 3, 3, dtype=DOUBLE),
    "a zero row": torch.diag(torch.tensor([1.0, 0.0, -2.0], dtype=DOUBLE))[None],
    "an eigenvalue of rounding size": with_spectrum([1.0, -1.0, 1e-16]),
    "two equal constraints": torch.tensor([[[1.0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]], dtype=DOUBLE),
}


@pytest.mark.parametrize("name", SINGULAR_ONES)
def test_a_singular_matrix_is_recognised_and_its_kernel_is_annihilated(name):
    matrix = SINGULAR_ONES[name]
    factor = factor_of(matrix)
    rank = int(torch.linalg.matrix_rank(matrix[0], tol=1e-12))
    kernel = factor.kernel[0]
    assert kernel.shape[-1] == matrix.shape[-1] - rank
    torch.testing.assert_close(kernel.norm(dim=0), torch.ones(kernel.shape[-1], dtype=DOUBLE))
    torch.testing.assert_close(matrix[0] @ kernel, torch.zeros_like(kernel), rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("name", SINGULAR_ONES)
def test_a_consistent_singular_system_gets_the_solution_of_least_norm(name):
    matrix = SINGULAR_ONES[name]
    rhs = matrix @ right_hand_side(1, matrix.shape[-1], 2)
    solution = factor_of(matrix).solve(rhs)
    expected = torch.linalg.pinv(matrix, rtol=1e-10) @ rhs
    torch.testing.assert_close(matrix @ solution, rhs, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(solution, expected, rtol=1e-8, atol=1e-9)


def test_one_singular_matrix_does_not_spoil_the_rest_of_its_batch():
    regular = symmetric(1, 3)
    matrix, rhs = torch.cat([regular, SINGULAR_ONES["rank one"]]), right_hand_side(2, 3, 1)
    solution = factor_of(matrix).solve(rhs)
    torch.testing.assert_close(solution[0], torch.linalg.solve(regular[0], rhs[0]), rtol=1e-8, atol=1e-9)
    assert factor_of(matrix).kernel[0].abs().max() == 0.0


def test_a_regular_matrix_has_no_kernel():
    assert factor_of(symmetric(4, 5)).kernel.shape == (4, 5, 0)


def test_the_threshold_of_singularity_is_far_above_rounding_and_far_below_any_real_problem():
    assert 1e-14 < SINGULAR < 1e-9


def test_large_batched_systems_do_not_hang_with_several_threads():
    # torch's batched LU is known to hang on a CPU from about this size on; a hang must fail, not stop the tests
    program = """
        import torch
        from argminlayer._linear import SymmetricFactor
        torch.set_num_threads(2)
        torch.manual_seed(0)
        matrix = torch.randn(4, 250, 250, dtype=torch.float64)
        matrix = matrix + matrix.mT
        rhs = torch.randn(4, 250, 5, dtype=torch.float64)
        for _ in range(3):
            solution = SymmetricFactor.of(matrix, 250).solve(rhs)
        print(float((matrix @ solution - rhs).abs().max()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert float(done.stdout) < 1e-8
