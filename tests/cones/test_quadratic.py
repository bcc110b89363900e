"""Cone programs that are quadratic programs: the same solution and gradient by the solvers of that class."""

import numpy as np
import pytest
import torch
from cone_programs import RawClarabel

import argminlayer as al
from argminlayer.cones._quadratic import Plan, reduced

FINE = RawClarabel(tol=1e-10)
N, M = 4, 6


def least_squares():
    """Return ``min 1/2 |t|^2 + q'u  s.t.  F u - t = f,  1'u = 1,  u >= low,  G u <= h`` as CVXPY would state it."""
    rows, columns, heights = [], [], {"F": 0, "t": 0, "sum": M, "low": M + 1, "G": M + 1 + N}
    for name, (i, j) in {
        "F": np.nonzero(np.ones((M, N))),
        "t": (np.arange(M), N + np.arange(M)),
        "sum": (np.zeros(N, int), np.arange(N)),
        "low": (np.arange(N), np.arange(N)),
        "G": np.nonzero(np.ones((2, N))),
    }.items():
        rows.append(heights[name] + i)
        columns.append(j)
    t = N + np.arange(M)
    pattern = al.ConePattern(N + M, al.Cones(M + 1, N + 2), t, t, np.concatenate(rows), np.concatenate(columns))

    def data(F, f, q, low, G, h):
        def wide(part, *shape):
            return part.expand(*lead, *shape)

        lead = torch.broadcast_shapes(F.shape[:-2], G.shape[:-2])
        one = torch.ones((), dtype=torch.float64)
        A = torch.cat(
            [
                wide(F, M, N).flatten(-2),
                wide(-one, M),
                wide(one, N),
                wide(-one, N),
                wide(G, 2, N).flatten(-2),
            ],
            -1,
        )
        lead = torch.broadcast_shapes(f.shape[:-1], low.shape[:-1], h.shape[:-1])
        b = torch.cat([wide(f, M), wide(one, 1), wide(-low, N), wide(h, 2)], -1)
        return torch.ones(M, dtype=torch.float64), torch.cat([q, q.new_zeros(*q.shape[:-1], M)], -1), A, b

    signature = f"({M},{N}),({M}),({N}),({N}),(2,{N}),(2)->({N})"
    return al.ConeProgram(signature, pattern, data, lambda x, z: (x[..., :N],), names=("F", "f", "q", "low", "G", "h"))


def parameters(batch=5, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    return [
        normal(batch, M, N),
        normal(batch, M),
        normal(N),
        -0.2 + 0 * normal(batch, N),
        normal(2, N),
        normal(2) + 2.0,
    ]


def test_what_one_equality_defines_is_eliminated_and_rows_with_one_entry_are_bounds():
    problem = least_squares()
    plan = Plan.of(problem.pattern)
    assert plan.gone.tolist() == list(range(N, N + M))
    found = reduced(problem.pattern, *(t if t.ndim > 1 else t[None] for t in problem.data(*parameters())))
    assert {name: tuple(block.shape) for name, block in found.blocks.items()} == {
        "q": (5, N),
        "P": (5, N, N),
        "A": (5, 1, N),
        "b": (5, 1),
        "lower": (5, N),
        "G": (5, 2, N),
        "h": (5, 2),
    }


@pytest.mark.parametrize("solver", [None, "qp.daqp", "qp.piqp"])
def test_both_ways_agree_on_solution_and_gradient(solver):
    problem, gradients, values = least_squares(), [], []
    for way in (solver, FINE):
        given = [t.clone().requires_grad_() for t in parameters()]
        value = al.argmin(problem, *given, solver=way)
        values.append(value.detach())
        weight = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
        gradients.append(torch.autograd.grad((value * weight).sum(), given))
    assert torch.allclose(*values, atol=1e-9)
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-8)


def test_failures_are_said_in_terms_of_the_program():
    problem, given = least_squares(), parameters()
    given[3] = given[3].clone()
    given[3][2] = 3.0
    with pytest.raises(al.SolveFailed, match=r"1 of 5 problems; the first is at batch index \(2,\): INFEASIBLE") as e:
        al.argmin(problem, *given)
    assert e.value.solution.value.shape[-1] == N
    value = al.argmin(problem, *given, throw=False)
    assert value.isnan().all(1).tolist() == [False, False, True, False, False]
    given[1][4, 0] = torch.nan
    with pytest.raises(al.ProblemError, match=r"parameter 1 \('f'\) is not finite: nan"):
        al.argmin(problem, *given)


def test_a_linear_program_with_a_free_variable_keeps_the_gradient_of_the_others():
    # min x_0 s.t. x_0 >= b, with x_1 free in an interval, as the epigraph of an inactive constraint is
    pattern = al.ConePattern(2, al.Cones(0, 3), [], [], [0, 1, 2], [0, 1, 1])
    A = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)

    def data(b):
        none = torch.zeros(0, dtype=torch.float64)
        return none, torch.tensor([1.0, 0.0], dtype=torch.float64), A, torch.cat([-b, one, one])

    b = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    value = al.argmin(al.ConeProgram("(1)->(2)", pattern, data), b)
    assert torch.autograd.grad(value[0], b)[0].item() == pytest.approx(1.0)


def test_automatic_choice_works_inside_transforms():
    pytest.importorskip("cvxpy", reason="needs a solver of cone programs to choose")
    problem, (F, f, q, *rest) = least_squares(), parameters(batch=2)

    def solve(offset):
        return al.argmin(problem, F, offset, q, *rest)

    tangent = torch.cos(torch.arange(f.numel(), dtype=f.dtype)).reshape(f.shape)
    value, pushed = torch.func.jvp(solve, (f,), (tangent,))
    step = 1e-5
    assert torch.allclose(value, solve(f), atol=1e-9)
    assert torch.allclose(pushed, (solve(f + step * tangent) - solve(f - step * tangent)) / (2 * step), atol=1e-7)
    stacked = torch.stack([f, f + tangent])
    assert torch.allclose(torch.func.vmap(solve)(stacked), torch.stack([solve(each) for each in stacked]), atol=1e-9)
