"""Linear programs: vertices and their derivatives, smoothing, and every solver that takes them."""

import pytest
import torch
from quadratic_programs import differences, gradients, randn, solve, weights, worst

import argminlayer as al
import argminlayer_qp

UNFIT = ("qp.quadprog", "qp.proxqp", "qp.separable")
LINEAR = [kind for kind in argminlayer_qp.argminlayer_solvers() if kind.name not in UNFIT]


def polytopes(seed=0):
    """Return linear programs in a box with a few more rows; their solutions are vertices."""
    G = randn(seed, 3, 4, 3)
    box = torch.full((3,), 1.5, dtype=torch.float64)
    return {"q": randn(seed + 1, 3, 3), "G": G, "h": randn(seed + 2, 3, 4).abs() + 0.3, "lower": -box, "upper": box}


def costs(n=5, batch=3):
    return randn(4, batch, n)


SIMPLEX = {"A": torch.ones(1, 5, dtype=torch.float64), "b": torch.ones(1, dtype=torch.float64), "lower": 0.0}


@pytest.mark.parametrize("kind", LINEAR, ids=lambda kind: kind.name)
def test_vertices_are_found_exactly(kind):
    assert worst(solve(polytopes(), solver=kind()), solve(polytopes(), solver="qp.highs")) < 1e-9


def test_without_the_extra_a_general_solver_serves():
    assert worst(solve(polytopes(), solver="scipy"), solve(polytopes(), solver="qp.highs")) < 1e-7


@pytest.mark.parametrize("name", ["q", "G", "h", "lower", "upper"])
def test_a_vertex_moves_with_its_constraints_and_not_with_its_costs(name):
    found = gradients(polytopes(), solver="qp")[name]
    assert torch.allclose(found, differences(polytopes(), name, solver="qp"), atol=1e-6)
    assert (found.abs().max() == 0.0) == (name == "q")


@pytest.mark.parametrize("kind", ["quadratic", "entropic"])
def test_smoothed_solutions_move_with_their_costs(kind):
    smoothing = al.Smoothing(2.0, kind)
    blocks = {"q": costs(), **SIMPLEX}
    given = costs().requires_grad_()
    value = al.qp(None, given, **SIMPLEX, smoothing=smoothing)
    (found,) = torch.autograd.grad((value * weights(value)).sum(), given)
    assert found.abs().max() > 1e-3
    assert worst(found, differences(blocks, "q", smoothing=smoothing)) < 1e-7


def test_entropic_smoothing_on_the_simplex_is_the_softmax_and_so_are_its_derivatives():
    def smooth(q):
        return al.qp(None, q, **SIMPLEX, smoothing=al.Smoothing(0.5, "entropic"))

    def softmax(q):
        return torch.softmax(-q / 0.5, -1)

    q = costs(batch=1)[0]
    assert worst(smooth(q), softmax(q)) < 1e-10
    first = torch.autograd.functional.jacobian(smooth, q)
    assert worst(first, torch.autograd.functional.jacobian(softmax, q)) < 1e-9
    second, expected = (
        torch.autograd.functional.hessian(lambda q, f=f: (f(q) * weights(q)).sum(), q) for f in (smooth, softmax)
    )
    assert worst(second, expected) < 1e-8


def test_smoothing_vanishes_with_its_weight():
    vertex = al.qp(None, costs(), **SIMPLEX)
    for kind in ("quadratic", "entropic"):
        near = al.qp(None, costs(), **SIMPLEX, smoothing=al.Smoothing(1e-2, kind))
        assert worst(near, vertex) < 1e-6


def test_settings_of_a_smoothing_out_of_range_are_refused():
    with pytest.raises(al.ProblemError, match=r"weight of a smoothing must be positive, not 0\.0"):
        al.Smoothing(0.0)
    with pytest.raises(al.ProblemError, match="'quadratic' or 'entropic', not 'cubic'"):
        al.Smoothing(1.0, "cubic")


def test_an_unbounded_linear_program_is_named():
    q = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    with pytest.raises(al.SolveFailed, match=r"1 of 2 problems; the first is at batch index \(1,\): UNBOUNDED"):
        al.qp(None, q, lower=0.0)


def test_solvers_that_need_a_definite_objective_refuse_linear_programs():
    with pytest.raises(al.SolverError, match="needs a positive definite P"):
        solve(polytopes(), solver="qp.quadprog")
    with pytest.raises(al.SolverError, match="does not solve linear programs"):
        solve(polytopes(), solver="qp.proxqp")
