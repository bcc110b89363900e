"""The solver of separable programs: projections onto the simplex by sorting, and what it refuses."""

import numpy as np
import pytest
import torch

import argminlayer as al
import argminlayer_qp


def program(n, equalities=1, upper=False):
    """Return ``min 1/2 |x - y|^2 s.t. E x = b, x >= 0`` and perhaps ``x <= high``."""
    diagonal, one = np.arange(n), torch.ones(n, dtype=torch.float64)
    rows = np.concatenate([np.repeat(np.arange(equalities), n), equalities + diagonal, equalities + n + diagonal])
    columns = np.concatenate([np.tile(diagonal, equalities), diagonal, diagonal])
    count = (equalities + 1 + upper) * n
    cones = al.Cones(equalities, (1 + upper) * n)
    pattern = al.ConePattern(n, cones, diagonal, diagonal, rows[:count], columns[:count])

    def data(y, E, b, high):
        lead = torch.broadcast_shapes(y.shape[:-1], E.shape[:-2], b.shape[:-1])
        A = torch.cat([E.flatten(-2), -one.expand(*E.shape[:-2], n), one.expand(*E.shape[:-2], n)], -1)
        b = torch.cat([b, b.new_zeros(*b.shape[:-1], n), high.expand(*b.shape[:-1], n)], -1)
        del lead
        return one, -y, A[..., :count], b[..., : cones.rows]

    return al.ConeProgram(f"({n}),({equalities},{n}),({equalities}),({n})->({n})", pattern, data)


def sorted_simplex(y):
    ordered = torch.sort(y, dim=-1, descending=True).values
    level = (ordered.cumsum(-1) - 1.0) / torch.arange(1, y.shape[-1] + 1, dtype=y.dtype)
    last = (ordered > level).sum(-1, keepdim=True) - 1
    return (y - level.gather(-1, last)).clamp_min(0.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_projections_onto_the_simplex_are_those_of_sorting(scale):
    n = 300
    y = (scale * normal(16, n)).requires_grad_()
    E, b, high = torch.ones(1, n).double(), torch.ones(1).double(), torch.ones(n).double()
    problem = program(n)
    solution = al.solve(problem, y, E, b, high, solver="qp.separable")
    assert solution.certificate.error.max() < 1e-12
    expected = sorted_simplex(y)
    assert torch.allclose(solution.value, expected, atol=1e-11 * scale + 1e-13)
    weight = torch.cos(torch.arange(n, dtype=y.dtype))
    got, want = (torch.autograd.grad((v * weight).sum(), y, retain_graph=True)[0] for v in (solution.value, expected))
    assert torch.allclose(got, want, atol=1e-10)


def test_two_sides_and_several_equalities_agree_with_a_solver_of_quadratic_programs():
    n = 40
    problem, y, E = program(n, 3, upper=True), normal(8, n), normal(8, 3, n, seed=1)
    b, high = (E @ torch.full((n,), 0.3, dtype=torch.float64)), torch.linspace(0.4, 1.0, n, dtype=torch.float64)
    one = al.solve(problem, y, E, b, high, solver="qp.separable")
    other = al.solve(problem, y, E, b, high, solver="qp.daqp")
    assert torch.allclose(one.value, other.value, atol=1e-10)
    assert torch.allclose(one.multipliers.equality, other.multipliers.equality, atol=1e-8)
    assert one.iterations.max() < 30


def test_an_infeasible_instance_is_proved():
    n = 5
    b = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    E, high = torch.ones(1, n).double(), torch.ones(n).double()
    solution = al.solve(program(n), normal(2, n), E, b, high, solver="qp.separable", throw=False)
    assert solution.status.tolist() == [al.Status.SOLVED, al.Status.INFEASIBLE]


def test_other_programs_are_refused():
    solver = argminlayer_qp.Separable()
    curved = al.ConePattern(3, al.Cones(second_order=(3,)), [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2])
    form = al.ConeForm(curved, np.ones((1, 3)), np.zeros((1, 3)), np.ones((1, 3)), np.zeros((1, 3)), 1)
    assert solver.refuses(form) == "needs a diagonal P, bounds, and up to 4 equalities"
    flat = al.ConePattern(1, al.Cones(0, 1), [0], [0], [0], [0])
    form = al.ConeForm(flat, np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), 1)
    assert "positive diagonal" in solver.refuses(form)
    with pytest.raises(al.SolverError, match="max_iter must be at least 1, not 0"):
        argminlayer_qp.Separable(max_iter=0)
