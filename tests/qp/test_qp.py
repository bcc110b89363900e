"""``al.qp`` by DAQP: solutions, gradients in every block and every mode, degenerate programs and failures."""

import subprocess
import sys

import pytest
import torch
from quadratic_programs import boxed, dense, differences, gradients, leaves, randn, solve, weights, worst

import argminlayer as al

DAQP = {"solver": "qp.daqp"}


def by_slsqp(blocks, **options):
    return solve(blocks, solver="scipy.slsqp", **options)


@pytest.mark.parametrize("blocks", [dense(), dense(p=0, m=9), boxed(), dense(batch=()), dense(batch=(2, 3))])
def test_solutions_are_those_of_a_general_solver(blocks):
    assert worst(solve(blocks, **DAQP), by_slsqp(blocks)) < 1e-7


@pytest.mark.parametrize("name", ["P", "q", "G", "h", "A", "b"])
def test_gradients_are_those_of_differences(name):
    blocks = dense(seed=3)
    assert worst(gradients(blocks, **DAQP)[name], differences(blocks, name, **DAQP)) < 1e-8


@pytest.mark.parametrize("name", ["P", "q", "A", "b", "lower", "upper"])
def test_gradients_with_bounds_are_those_of_differences(name):
    blocks = boxed(seed=1)
    value = solve(blocks, **DAQP)
    assert torch.isclose(value, blocks["lower"], rtol=0.0, atol=1e-12).any()
    assert torch.isclose(value, blocks["upper"], rtol=0.0, atol=1e-12).any()
    assert worst(gradients(blocks, **DAQP)[name], differences(blocks, name, **DAQP)) < 1e-8


@pytest.mark.parametrize("blocks", [dense(seed=3), boxed(seed=1)], ids=["rows", "bounds"])
def test_gradients_are_those_of_the_general_engine_with_another_solver(blocks):
    found, expected = gradients(blocks, **DAQP), gradients(blocks, solver="scipy.slsqp")
    for name in blocks:
        assert worst(found[name], expected[name]) < 1e-8, name


def test_only_the_symmetric_part_of_P_counts():
    blocks = dense(seed=3)
    skew = randn(9, 3, 5, 5)
    crooked = blocks | {"P": blocks["P"] + skew - skew.mT}
    assert worst(solve(crooked, **DAQP), solve(blocks, **DAQP)) < 1e-12
    found = gradients(crooked, **DAQP)["P"]
    assert worst(found, found.mT) < 1e-12
    assert worst(found, differences(crooked, "P", **DAQP)) < 1e-8


@pytest.mark.parametrize("shared", [("P", "G", "A"), ("P",), ("G", "h"), ("P", "q", "G", "A", "b"), ("q", "b")])
@pytest.mark.parametrize("make", [dense, boxed], ids=["rows", "bounds"])
def test_shared_blocks_get_the_sum_of_gradients(shared, make):
    blocks = make(batch=(4,), seed=3)
    if "A" in shared or "b" in shared:
        # right-hand sides within reach of all instances
        blocks["b"] = blocks["A"] @ (0.1 * torch.ones(5, dtype=torch.float64))
    common = {name: blocks[name][0] for name in shared if name in blocks}
    if "b" in shared and "A" not in shared:
        common["b"] = torch.full_like(common["b"], 0.05)
    mixed = blocks | common
    found = gradients(mixed, **DAQP)
    wide = {k: v if k not in common else v.expand(4, *v.shape).clone() for k, v in mixed.items()}
    assert worst(solve(mixed, **DAQP), solve(wide, **DAQP)) < 1e-10
    expected = gradients(wide, **DAQP)
    for name, gradient in found.items():
        target = expected[name].sum(0) if name in common else expected[name]
        assert gradient.shape == mixed[name].shape
        assert worst(gradient, target) < 1e-8, name


def test_leading_dimensions_broadcast():
    blocks = dense(batch=(2, 3), seed=1)
    mixed = blocks | {"P": blocks["P"][:, :1], "q": blocks["q"][:1], "G": blocks["G"][0, 0]}
    wide = {
        name: block.expand(2, 3, *block.shape[block.ndim - (2 if name in "PGA" else 1) :])
        for name, block in mixed.items()
    }
    mixed["b"] = wide["b"] = (wide["A"] @ torch.full((5, 1), 0.1, dtype=torch.float64))[..., 0]
    mixed["h"] = wide["h"] = wide["h"].abs() + 1.0
    assert worst(solve(mixed, **DAQP), solve(wide, **DAQP)) < 1e-10
    found, expected = gradients(mixed, **DAQP), gradients({k: v.clone() for k, v in wide.items()}, **DAQP)
    for name in mixed:
        assert worst(found[name], expected[name].sum_to_size(mixed[name].shape)) < 1e-9, name


def test_the_backward_is_linear_in_the_cotangent_at_any_scale():
    given = leaves(dense(seed=3))
    value = solve(given, **DAQP)
    one = torch.autograd.grad((value * weights(value)).sum(), tuple(given.values()), retain_graph=True)
    for scale in (1e-12, 1e-30, 1e12):
        scaled = torch.autograd.grad((value * weights(value) * scale).sum(), tuple(given.values()), retain_graph=True)
        for a, b in zip(one, scaled, strict=True):
            torch.testing.assert_close(b / scale, a, rtol=1e-12, atol=1e-14)


def test_single_precision_in_gives_single_precision_out():
    blocks = dense(seed=3)
    single = {name: block.float() for name, block in blocks.items()}
    value = solve(single, **DAQP)
    assert value.dtype == torch.float32
    assert worst(value.double(), solve({k: v.double() for k, v in single.items()}, **DAQP)) < 1e-6
    found, expected = gradients(single, **DAQP), gradients({k: v.double() for k, v in single.items()}, **DAQP)
    for name in blocks:
        assert found[name].dtype == torch.float32
        assert worst(found[name].double(), expected[name]) < 1e-5


def scalar(q, blocks):
    value = solve(blocks | {"q": q}, **DAQP)
    return (value.square() * weights(value)).sum()


@pytest.mark.parametrize(
    "blocks", [dense(n=4, m=5, batch=(2,), seed=3), boxed(n=4, batch=(2,), seed=1)], ids=["rows", "bounds"]
)
@pytest.mark.parametrize("name", ["P", "q", "A", "b"])
def test_second_derivatives_are_those_of_differences_of_gradients(blocks, name):
    def slope(block):
        given = leaves(blocks | {name: block})
        value = solve(given, **DAQP)
        total = (value.square() * weights(value)).sum()
        return torch.autograd.grad(total, tuple(given.values()), create_graph=True), given

    first, given = slope(blocks[name])
    direction = [weights(g) for g in first]
    total = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True)]).sum()
    (second,) = torch.autograd.grad(total, given[name])

    step, probe = 1e-5, weights(blocks[name]) * 1.0
    sums = []
    for sign in (1.0, -1.0):
        moved, _ = slope(blocks[name] + sign * step * probe)
        sums.append(torch.stack([(g * d).sum() for g, d in zip(moved, direction, strict=True)]).sum())
    difference = (sums[0] - sums[1]) / (2 * step)
    torch.testing.assert_close((second * probe).sum(), difference.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "blocks",
    [
        dense(n=4, m=5, batch=(2,), seed=3),
        boxed(n=4, batch=(2,), seed=1),
        {name: block for name, block in dense(n=4, m=5, batch=(2,), seed=3).items() if name in "Pq"},
    ],
    ids=["rows", "bounds", "free"],
)
def test_every_transform_gives_the_same_jacobian(blocks):
    names = tuple(blocks)

    def f(*given):
        return solve(dict(zip(names, given, strict=True)), **DAQP)

    arguments = tuple(range(len(names)))
    reverse = torch.func.jacrev(f, argnums=arguments)(*blocks.values())
    forward = torch.func.jacfwd(f, argnums=arguments)(*blocks.values())
    loop = torch.autograd.functional.jacobian(f, tuple(blocks.values()))
    for a, b, c in zip(reverse, forward, loop, strict=True):
        assert worst(a, c) < 1e-9
        assert worst(b, c) < 1e-9


def test_vmap_equals_a_batch():
    blocks = dense(seed=3)
    names = tuple(blocks)

    def one(*given):
        return solve(dict(zip(names, given, strict=True)), **DAQP)

    assert worst(torch.func.vmap(one)(*blocks.values()), solve(blocks, **DAQP)) < 1e-12
    shared = torch.func.vmap(one, in_dims=(None, 0, None, None, None, None))
    first = {k: v if k == "q" else v[0] for k, v in blocks.items()}
    assert worst(shared(*first.values()), solve(first, **DAQP)) < 1e-12
    each = torch.func.vmap(torch.func.grad(lambda q, *rest: one(rest[0], q, *rest[1:]).square().sum()))
    P, q, *rest = blocks.values()
    leaf = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(one(P, leaf, *rest).square().sum(), leaf)
    assert worst(each(q, P, *rest), expected) < 1e-9


def test_hessians_by_transforms_are_those_of_reverse_over_reverse():
    blocks = dense(n=4, m=5, batch=(), seed=3)
    found = torch.func.hessian(scalar)(blocks["q"], blocks)
    expected = torch.autograd.functional.hessian(lambda q: scalar(q, blocks), blocks["q"])
    assert expected.abs().max() > 1e-3
    assert worst(found, expected) < 1e-9


def test_an_empty_batch_has_an_empty_solution():
    given = leaves({name: block[:0] for name, block in dense().items()})
    value = solve(given, **DAQP)
    assert value.shape == (0, 5)
    value.sum().backward()
    assert given["q"].grad.shape == (0, 5)


# Degenerate and redundant programs.


def corner(c, rows=((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), **more):
    """Return the projection of c on {u : rows u <= 0}: at c = (1, 1) every row holds at u = 0."""
    G = torch.tensor(rows, dtype=torch.float64)
    return {
        "P": torch.eye(2, dtype=torch.float64),
        "q": -c,
        "G": G,
        "h": torch.zeros(len(G), dtype=torch.float64),
    } | more


def test_at_a_corner_with_more_rows_than_variables_the_solution_does_not_move():
    c = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    value = solve(corner(c), **DAQP)
    (gradient,) = torch.autograd.grad(value @ torch.tensor([1.0, -2.0], dtype=torch.float64), c)
    assert gradient.abs().max() < 1e-12


def test_repeated_rows_do_no_harm_to_the_derivative():
    blocks = dense(batch=(), seed=3)
    twice = blocks | {
        "G": torch.cat([blocks["G"], blocks["G"]]),
        "h": torch.cat([blocks["h"], blocks["h"]]),
        "A": torch.cat([blocks["A"], 2.0 * blocks["A"]]),
        "b": torch.cat([blocks["b"], 2.0 * blocks["b"]]),
    }
    found, expected = gradients(twice, **DAQP), gradients(blocks, **DAQP)
    assert worst(found["q"], expected["q"]) < 1e-9
    assert worst(found["P"], expected["P"]) < 1e-9
    # what rows share adds up to what the one has
    assert worst(found["h"].reshape(2, -1).sum(0), expected["h"]) < 1e-9
    assert worst(found["b"][0] + 2.0 * found["b"][1], expected["b"][0]) < 1e-9


def test_redundant_equalities_of_a_semidefinite_program_are_not_taken_for_contradictions():
    generator = torch.Generator().manual_seed(9)
    root, A, inside = (
        torch.randn(3, *shape, dtype=torch.float64, generator=generator) for shape in ((6, 4), (2, 6), (6,))
    )
    A = torch.cat([A, 2.0 * A[:, :1], A.sum(1, keepdim=True)], 1)
    blocks = {
        "P": root @ root.mT,
        "q": randn(10, 3, 6),
        "A": A,
        "b": (A @ inside[..., None])[..., 0],
        "lower": inside - 1.0,
        "upper": inside + 1.0,
    }
    found = {solver: solve(blocks, solver=solver) for solver in ("qp.daqp", "qp.piqp", "qp.proxqp", "auto")}
    for value in found.values():
        assert worst(value, found["auto"]) < 1e-8
    assert worst(gradients(blocks, **DAQP)["q"], differences(blocks, "q", **DAQP)) < 1e-6


def test_a_singular_P_has_a_derivative_where_the_solution_is_isolated():
    blocks = dense(n=4, m=7, p=1, batch=(3,), seed=5)
    root = randn(11, 3, 4, 2)
    blocks["P"] = root @ root.mT
    blocks["G"] = torch.cat(
        [blocks["G"], torch.eye(4).double().expand(3, 4, 4), -torch.eye(4).double().expand(3, 4, 4)], 1
    )
    blocks["h"] = torch.cat([blocks["h"], torch.full((3, 8), 3.0, dtype=torch.float64)], 1)
    found = gradients(blocks, **DAQP)
    for name in ("q", "h", "b"):
        assert worst(found[name], differences(blocks, name, **DAQP)) < 1e-7, name


def test_where_the_solution_is_not_isolated_the_derivative_is_refused():
    q = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    P = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    box = {"lower": -torch.ones(2, dtype=torch.float64), "upper": torch.ones(2, dtype=torch.float64)}
    value = solve({"P": P, "q": q, **box}, solver="qp.piqp")
    with pytest.raises(
        al.NotDifferentiable,
        match=r"2 of 2 solutions have no derivative; the first at batch index \(0,\).*not isolated",
    ):
        value[:, 1].sum().backward()
    value = solve({"P": P, "q": q, **box}, solver="qp.piqp", throw=False)
    value[1, 1].backward()
    assert q.grad[1].isnan().all()
    assert torch.equal(q.grad[0], torch.zeros(2, dtype=torch.float64))


# Failures.


def with_failures():
    """Return programs of which the first is fine, the second infeasible, the third unbounded and the fourth fine."""
    P = torch.eye(2, dtype=torch.float64).repeat(4, 1, 1)
    P[2] = 0.0
    q = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -2.0], [0.5, -3.0]], dtype=torch.float64)
    G = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]], dtype=torch.float64).repeat(4, 1, 1)
    h = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, -1.0], [0.0, 0.0, 4.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    G[2, 2] = 0.0
    return {"P": P, "q": q, "G": G, "h": h}


@pytest.mark.parametrize("solver", ["qp.daqp", "qp", "auto"])
def test_failed_instances_are_named_and_proved(solver):
    with pytest.raises(
        al.SolveFailed, match=r"did not solve 2 of 4 problems; the first is at batch index \(1,\): INFEASIBLE"
    ) as caught:
        solve(with_failures(), solver=solver)
    assert caught.value.solution.status.tolist() == [0, al.Status.INFEASIBLE, al.Status.UNBOUNDED, 0]
    assert caught.value.solution.value[1].isnan().all()


def test_good_instances_are_not_lost_with_bad_ones():
    blocks = with_failures()
    given = leaves(blocks)
    value = solve(given, throw=False, **DAQP)
    assert value.isnan().all(-1).tolist() == [False, True, True, False]
    value[[0, 3]].sum().backward()
    good = leaves({name: block[[0, 3]] for name, block in blocks.items()})
    solve(good, **DAQP).sum().backward()
    for name in blocks:
        assert torch.equal(given[name].grad[[1, 2]], torch.zeros_like(given[name].grad[[1, 2]]))
        torch.testing.assert_close(given[name].grad[[0, 3]], good[name].grad)
    given = leaves(blocks)
    solve(given, throw=False, **DAQP).sum().backward()
    assert given["q"].grad.isnan().all(-1).tolist() == [False, True, True, False]


def test_a_lower_bound_above_the_upper_is_infeasible():
    blocks = boxed(seed=1)
    blocks["lower"][1] = 1.0
    with pytest.raises(al.SolveFailed, match=r"batch index \(1,\): INFEASIBLE"):
        solve(blocks, **DAQP)


def test_numbers_that_are_not_finite_are_named():
    blocks = dense()
    blocks["G"][2, 1, 3] = float("nan")
    with pytest.raises(al.ProblemError, match=r"block 'G' is not finite: nan at batch index \(2,\), entry \(1, 3\)"):
        solve(blocks, **DAQP)
    value = solve(blocks, throw=False, **DAQP)
    assert value.isnan().all(-1).tolist() == [False, False, True]
    for name in blocks:
        bad = {k: v.clone() for k, v in dense().items()}
        bad[name].view(-1)[0] = float("nan")
        assert solve(bad, throw=False, **DAQP).isnan().all(-1).tolist() == [True, False, False], name


def test_infinite_bounds_and_right_hand_sides_are_no_constraints():
    blocks = dense(p=0, m=3, seed=3)
    free = {"P": blocks["P"], "q": blocks["q"]}
    inf = torch.full((5,), torch.inf, dtype=torch.float64)
    loose = free | {"G": blocks["G"], "h": torch.full_like(blocks["h"], torch.inf), "lower": -inf, "upper": inf}
    assert worst(solve(loose, **DAQP), solve(free, **DAQP)) < 1e-12
    found, expected = gradients(loose, **DAQP), gradients(free, **DAQP)
    assert worst(found["q"], expected["q"]) < 1e-10
    assert found["lower"].abs().max() == 0.0


def test_an_indefinite_P_is_refused_with_its_eigenvalues():
    blocks = dense()
    blocks["P"][1] = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0, -0.5], dtype=torch.float64))
    with pytest.raises(al.SolverError, match=r"convex programs only, but P of instance 1 .* range from -0.5 to 2"):
        solve(blocks, **DAQP)
    value = solve(blocks, throw=False, **DAQP)
    assert value.isnan().all(-1).tolist() == [False, True, False]


def test_solvers_of_smooth_problems_take_an_indefinite_P():
    P = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    q = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    box = {"lower": -torch.ones(2, dtype=torch.float64), "upper": torch.ones(2, dtype=torch.float64)}
    for solver in ("scipy.slsqp", "auto"):
        value = solve({"P": P, "q": q, **box}, solver=solver)
        torch.testing.assert_close(value.detach(), torch.tensor([-0.3, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"h": None}, al.ProblemError, "G is given without h"),
        (
            {"q": torch.zeros(4).double()},
            al.SignatureError,
            r"block 'q' has shape \(4,\), so n is 4, but another block has n = 5",
        ),
        ({"q": torch.zeros(2, 5).double()}, al.SignatureError, "do not broadcast"),
        (
            {"P": torch.zeros(5).double()},
            al.SignatureError,
            r"block 'P' has shape \(5,\), but needs the dimensions \(n, n\)",
        ),
        ({"q": torch.zeros(3, 5)}, al.ProblemError, "different dtypes"),
        ({"q": "x"}, al.ProblemError, "block 'q' must be a tensor"),
        ({"q": torch.zeros(3, 5, dtype=torch.int64)}, al.ProblemError, "block 'q' has dtype int64"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_in_words(change, error, message):
    blocks = {k: v for k, v in (dense() | change).items() if v is not None}
    with pytest.raises(error, match=message):
        solve(blocks, **DAQP)


def test_a_batch_of_many_variables_is_differentiated_on_two_threads_without_a_hang():
    # batched LU of torch 2.13 on a CPU hangs here: pytorch#141358
    program = (
        "import torch, argminlayer as al\n"
        "torch.set_num_threads(2)\n"
        "torch.manual_seed(0)\n"
        "root = torch.randn(3, 200, 200, dtype=torch.float64)\n"
        "P = root @ root.mT / 200 + torch.eye(200)\n"
        "q = torch.randn(3, 200, dtype=torch.float64, requires_grad=True)\n"
        "A = torch.randn(3, 20, 200, dtype=torch.float64)\n"
        "b = torch.zeros(3, 20, dtype=torch.float64)\n"
        "u = al.qp(P, q, None, None, torch.cat([A, A], 1), torch.cat([b, b], 1), solver='qp.daqp')\n"
        "(g,) = torch.autograd.grad(u.square().sum(), q, create_graph=True)\n"
        "torch.autograd.grad(g.square().sum(), q)\n"
        "print('done')\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert finished.stdout.strip() == "done", finished.stderr
