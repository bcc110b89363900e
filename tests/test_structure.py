"""Structured Hessians and Jacobians: found, checked, and as exact as a dense solve."""

import dataclasses

import pytest
import torch

import argminlayer as al
from argminlayer import _factorise, _structure
from argminlayer._bound import bind
from argminlayer._certificate import measure
from argminlayer._dense import DenseSystem
from argminlayer._krylov import KrylovSystem, minres
from argminlayer._matrices import BlockMatrix, DenseMatrix, ProductMatrix, SparseMatrix
from argminlayer._schur import SchurSystem
from argminlayer._sparse import SparseSystem

DOUBLE = torch.float64
N = 36


def quartic(u, x):
    return ((u - x) ** 4 + (u - x) ** 2).sum()


def pairs(u, x):
    """Groups of three neighbours."""
    v = u.reshape(-1, 3)
    return quartic(u, x) + 0.3 * (v.sum(-1) ** 4).sum() + v.prod(-1).sum()


def far_pairs(u, x):
    """Groups of two whose members are far apart, and single variables."""
    half = N // 2
    return quartic(u, x) + 0.5 * ((u[:half] * u[half:])[::2] ** 2).sum()


def chain(u, x):
    return quartic(u, x) + 0.2 * ((u[1:] - u[:-1]) ** 2).sum()


def rank_one(u, x):
    return quartic(u, x) + 0.1 * u.sum() ** 2


def rank_three(u, x):
    waves = torch.stack([torch.cos(k * torch.arange(N, dtype=u.dtype)) for k in (1.0, 2.0, 3.0)])
    return quartic(u, x) + torch.exp(0.1 * (waves @ u)).sum()


def full(u, x):
    mixing = torch.cos(torch.outer(torch.arange(N, dtype=u.dtype), torch.arange(N, dtype=u.dtype)))
    return quartic(u, x) + 0.05 * (mixing @ u).square().sum()


CONSTRAINTS = {
    "unconstrained": {},
    "sphere": {"equality": lambda u, x: u @ u - 4.0},
    "ball": {"inequality": lambda u, x: u @ u - 4.0},
    "bounds": {"lower": -0.3, "upper": lambda x: 0.2 * x.abs() + 0.1},
    "everything": {
        "equality": lambda u, x: u[:9].sum() - 0.5,
        "inequality": lambda u, x: torch.stack([u[9:18].sum() - 0.1, -u[20:] @ u[20:] - 5.0, u[1] - u[0] * x[3]]),
        "lower": -0.3,
        "upper": 0.5,
    },
}
FORMS = {
    "diagonal": (quartic, BlockMatrix),
    "blocks": (pairs, BlockMatrix),
    "scattered blocks": (far_pairs, BlockMatrix),
    "diagonal plus rank one": (rank_one, BlockMatrix),
    "diagonal plus rank three": (rank_three, BlockMatrix),
    "chain": (chain, DenseMatrix),
    "full": (full, DenseMatrix),
}


def problem_of(form, constraints):
    return al.Problem(FORMS[form][0], "(n)->(n)", **CONSTRAINTS[constraints])


def parameters(batch=3):
    return torch.randn(batch, N, dtype=DOUBLE, generator=torch.Generator().manual_seed(batch)) * 0.4


def jacobian(problem, given, value, weight):
    """Return first and second derivatives of a weighted sum of the solution in all parameters, and the certificate."""
    leaves = [p.clone().requires_grad_() for p in given]
    solution = al.certify(problem, value, *leaves, throw=True)
    first = torch.autograd.grad((solution.value * weight).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g * weight[: g.shape[-1]]).sum() for g in first), leaves)
    return [g.detach() for g in first], second, solution.certificate


def dense_only(monkeypatch):
    monkeypatch.setattr(_structure, "SMALL", 10**9)


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_a_dense_solve_gives(monkeypatch, form, constraints):
    problem, x = problem_of(form, constraints), parameters()
    value = al.argmin(problem, x, solver="scipy")
    weight = torch.cos(torch.arange(N, dtype=DOUBLE))
    found = jacobian(problem, (x,), value, weight)
    dense_only(monkeypatch)
    expected = jacobian(dataclasses.replace(problem), (x,), value, weight)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-7, atol=1e-9)
    for name in ("kind", "active", "freedom", "redundant", "regular"):
        assert torch.equal(getattr(found[2], name), getattr(expected[2], name)), name


@pytest.mark.parametrize("form", FORMS)
def test_the_structure_of_a_hessian_is_found_and_remembered(form):
    problem, x = problem_of(form, "unconstrained"), parameters()
    bound = bind(problem, (x,))
    z, none = x + 0.1, x[:, :0]
    for _ in range(2):
        matrix = _structure.hessian_of(bound, z, none, none)
        assert type(matrix) is FORMS[form][1]
        torch.testing.assert_close(matrix.dense(), bound.hessian(z, none, none), rtol=1e-9, atol=1e-10)
    if isinstance(matrix, BlockMatrix):
        kind = type(measure(bound, z).system)
        assert kind is SchurSystem


def test_a_structure_that_ends_to_hold_is_noticed():
    problem = al.Problem(lambda u, x, a: quartic(u, x) + a * u.sum() ** 2 + a * u.prod(), "(n),()->(n)")
    x = parameters(1)[0]
    for a in (0.0, 0.7, 0.0):
        bound = bind(problem, (x, torch.tensor(a, dtype=DOUBLE)))
        z = (x + 1.0)[None]
        matrix = _structure.hessian_of(bound, z, z[:, :0], z[:, :0])
        expected = bound.hessian(z, z[:, :0], z[:, :0])
        torch.testing.assert_close(matrix.dense(), expected, rtol=1e-9, atol=1e-10)


def test_instances_of_different_structure_share_a_batch():
    problem = al.Problem(
        lambda u, x, a: (
            quartic(u, x) + a * ((u[1:] - u[:-1]) ** 2)[::2].sum() + (1 - a) * ((u[1:] - u[:-1]) ** 2)[1::2].sum()
        ),
        "(n),()->(n)",
    )
    x, a = parameters(2), torch.tensor([0.0, 1.0], dtype=DOUBLE)
    bound = bind(problem, (x, a))
    matrix = _structure.hessian_of(bound, x + 0.1, x[:, :0], x[:, :0])
    torch.testing.assert_close(matrix.dense(), bound.hessian(x + 0.1, x[:, :0], x[:, :0]))


def test_several_variables_that_meet_in_pairs_are_blocks():
    problem = al.Problem(
        lambda u, x: ((u[0] - x) ** 2).sum() + ((u[1] * u[0] - 1.0) ** 2).sum() + (u[1] ** 4).sum(), "(n)->(n),(n)"
    )
    bound = bind(problem, (parameters(2),))
    z = torch.ones(2, 2 * N, dtype=DOUBLE)
    matrix = _structure.hessian_of(bound, z, z[:, :0], z[:, :0])
    assert isinstance(matrix, BlockMatrix)
    assert matrix.grouping.size == 2


@pytest.mark.parametrize("constraints", ["unconstrained", "sphere"])
def test_a_singular_block_goes_to_a_dense_system(constraints):
    problem = al.Problem(
        lambda u, x: (u[1:] - x[1:]).square().sum() + u[0] * 0.0, "(n)->(n)", **CONSTRAINTS[constraints]
    )
    bound = bind(problem, (parameters(2),))
    assert type(measure(bound, parameters(2)).system) is DenseSystem


STEPS = 200


def oscillator(touching=None):
    """A chain with a sparse Hessian and sparse constraints: a controlled oscillator that follows x.

    With ``touching``, a point, half of the controls are held there from above by inequalities or bounds: a force that
    the objective gains pushes against them, so that the point stays the solution.
    """

    def objective(u, x):
        position, control = u[: STEPS + 1], u[STEPS + 1 :]
        tracking = 0.5 * (position - x).square().sum() + 0.05 * control.square().sum() + 0.01 * position.pow(4).sum()
        return tracking if touching is None else tracking - 0.3 * control[::2].sum()

    def dynamics(u, x):
        position, control = u[: STEPS + 1], u[STEPS + 1 :]
        return position[1:] - position[:-1] - 0.1 * (torch.sin(position[:-1]) + control)

    fields = {}
    if touching == "inequality":
        fields["inequality"] = lambda u, x, limit: u[STEPS + 1 :][::2] - limit
    if touching == "bounds":
        fields["upper"] = lambda x, limit: torch.cat(
            [
                torch.full((STEPS + 1,), torch.inf, dtype=x.dtype),
                torch.stack([limit, limit + torch.inf], -1).reshape(-1),
            ]
        )
    if touching is None:
        return al.Problem(objective, "(k)->(401)", equality=dynamics)
    ignore = lambda function: lambda u, x, limit: function(u, x)  # noqa: E731
    return al.Problem(ignore(objective), "(k),(l)->(401)", equality=ignore(dynamics), **fields)


def newton(problem, x):
    """Solve with full Newton steps from zero."""
    bound = bind(problem, (x,))
    z, nu = (torch.zeros(bound.batch, k, dtype=DOUBLE) for k in (bound.size, bound.equalities))
    lam = z[:, :0]
    for _ in range(12):
        point = measure(bound, z, nu, lam)
        z, nu, lam = (a + b for a, b in zip((z, nu, lam), point.step, strict=True))
    return z


@pytest.mark.parametrize("touching", [None, "inequality", "bounds"])
def test_a_large_sparse_problem_is_solved_sparse_and_agrees_with_a_dense_solve(monkeypatch, touching):
    monkeypatch.setattr(_structure, "SPARSE_ENTRIES", 10_000)
    x = torch.sin(torch.arange(STEPS + 1, dtype=DOUBLE) / 20.0) * torch.tensor([[0.2], [0.5]], dtype=DOUBLE)
    value = newton(oscillator(), x)
    problem, limit = oscillator(touching), value[:, STEPS + 1 :][:, ::2]
    given = (x,) if touching is None else (x, limit)
    bound = bind(problem, given)
    assert type(measure(bound, value).system) is SparseSystem
    assert (measure(bound, value).certificate.active == (0 if touching is None else STEPS // 2)).all()
    weight = torch.cos(torch.arange(401, dtype=DOUBLE))
    found = jacobian(problem, given, value, weight)
    dense_only(monkeypatch)
    monkeypatch.setattr(_structure, "SPARSE_ENTRIES", 10**12)
    expected = jacobian(dataclasses.replace(problem), given, value, weight)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-6, atol=1e-8)
    for name in ("kind", "active", "freedom", "redundant", "regular"):
        assert torch.equal(getattr(found[2], name), getattr(expected[2], name)), name


@pytest.mark.parametrize("constraints", ["unconstrained", "sphere", "ball", "bounds", "everything"])
def test_the_matrix_free_way_agrees_with_a_dense_solve(monkeypatch, constraints):
    problem, x = problem_of("full", constraints), parameters()
    value = al.argmin(problem, x, solver="scipy")
    weight = torch.cos(torch.arange(N, dtype=DOUBLE))
    expected = jacobian(problem, (x,), value, weight)
    monkeypatch.setattr(_structure, "DENSE_LIMIT", 20)
    monkeypatch.setattr(_factorise, "DENSE_LIMIT", 20)
    fresh = dataclasses.replace(problem)
    bound = bind(fresh, (x,))
    point = measure(bound, value)
    assert type(point.matrices[0]) is ProductMatrix
    assert type(point.system) is KrylovSystem
    found = jacobian(fresh, (x,), value, weight)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-6, atol=1e-8)
    for name in ("kind", "active", "redundant", "regular"):
        assert torch.equal(getattr(found[2], name), getattr(expected[2], name)), name


def test_a_saddle_is_named_in_every_form(monkeypatch):
    problem = al.Problem(lambda u, x: ((u - x) ** 2)[1:].sum() - (u - x)[0] ** 2, "(n)->(n)")
    x = parameters()
    assert (al.certify(problem, x, x).certificate.kind == al.PointKind.SADDLE).all()
    mixed = al.Problem(
        lambda u, x: full(u, x) - quartic(u, x) - 2.0 * (u - x).square().sum() + 3.0 * u[5] ** 2, "(n)->(n)"
    )
    monkeypatch.setattr(_structure, "DENSE_LIMIT", 20)
    monkeypatch.setattr(_factorise, "DENSE_LIMIT", 20)
    bound = bind(mixed, (x,))
    point = measure(bound, x)
    assert type(point.system) is KrylovSystem
    assert (point.certificate.kind == al.PointKind.SADDLE).all()


def test_no_square_matrix_is_formed_for_a_projection_onto_a_sphere(monkeypatch):
    n = 4096
    problem = al.Problem(lambda u, x: 0.5 * (u - x).square().sum(), "(n)->(n)", equality=lambda u, x: u @ u - 1)
    x = torch.randn(2, n, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = x.detach() / x.detach().norm(dim=-1, keepdim=True)

    def refuse(*_):
        raise AssertionError("a dense matrix was formed")

    monkeypatch.setattr(BlockMatrix, "dense", refuse)
    monkeypatch.setattr(DenseSystem, "of", refuse)
    found = al.attach(problem, y, x)
    (gradient,) = torch.autograd.grad((found * torch.cos(x.detach())).sum(), x)
    direction = torch.cos(x.detach())
    expected = (direction - y * (y * direction).sum(-1, keepdim=True)) / x.detach().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_minres_solves_indefinite_and_singular_systems_of_a_batch():
    draw = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(3, 12, 12, dtype=DOUBLE, generator=draw)).Q
    spectrum = torch.linspace(-2.0, 3.0, 12, dtype=DOUBLE).repeat(3, 1)
    spectrum[2, 4:6] = 0.0
    matrix = basis @ torch.diag_embed(spectrum) @ basis.mT
    right = matrix @ torch.randn(3, 12, 1, dtype=DOUBLE, generator=draw)
    torch.testing.assert_close(
        minres(lambda v: matrix @ v, right), torch.linalg.pinv(matrix, rtol=1e-9) @ right, rtol=1e-8, atol=1e-9
    )


def test_minres_gives_up_on_an_inconsistent_system_with_nan():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=DOUBLE))[None]
    assert minres(lambda v: matrix @ v, torch.ones(1, 3, 1, dtype=DOUBLE)).isnan().all()


def test_sparse_and_dense_matrices_agree_on_what_they_answer():
    draw = torch.Generator().manual_seed(5)
    entries = torch.randn(2, 4, 6, dtype=DOUBLE, generator=draw) * (torch.rand(4, 6, generator=draw) < 0.4)
    rows, columns = entries[0].nonzero(as_tuple=True)
    sparse = SparseMatrix(_structure.Pattern(rows, columns, (4, 6)), entries[:, rows, columns])
    dense = DenseMatrix(entries)
    vector, weight = (
        torch.randn(2, 6, 3, dtype=DOUBLE, generator=draw),
        torch.randn(2, 4, 3, dtype=DOUBLE, generator=draw),
    )
    torch.testing.assert_close(sparse.dense(), entries)
    torch.testing.assert_close(sparse.times(vector), dense.times(vector))
    torch.testing.assert_close(sparse.transposed(weight), dense.transposed(weight))
    torch.testing.assert_close(sparse.lengths(), dense.lengths())
    torch.testing.assert_close(sparse.scale(), dense.scale())
    torch.testing.assert_close(sparse.largest(), dense.largest())
    torch.testing.assert_close(sparse.select(torch.tensor([1, 1])).dense(), entries[[1, 1]])


def all_derivatives(problem, x, value):
    """Return what every mode says of the derivative of the attached solution in x."""
    weight = torch.cos(torch.arange(N, dtype=DOUBLE))

    def attached(x):
        return al.attach(problem, value, x)

    def one(x, value):
        return torch.func.grad(lambda t: al.attach(problem, value, t) @ weight)(x)

    return {
        "jacrev": torch.func.jacrev(attached)(x),
        "jvp": torch.func.jvp(attached, (x,), (torch.sin(x),))[1],
        "vmap": torch.vmap(one)(x, value),
    }


WAYS = {
    "sparse": {"SPARSE_FROM": 16, "SPARSE_ENTRIES": 1},
    "matrix-free": {"DENSE_LIMIT": 20},
}


@pytest.mark.parametrize("constraints", ["unconstrained", "everything", "redundant"])
@pytest.mark.parametrize("way", WAYS)
def test_every_mode_agrees_with_a_dense_solve(monkeypatch, way, constraints):
    rows = {"equality": lambda u, x: torch.stack([u[:5].sum() - x[0], 2 * u[:5].sum() - 2 * x[0]])}
    fields = rows if constraints == "redundant" else CONSTRAINTS[constraints]
    problem, x = al.Problem(chain, "(n)->(n)", **fields), parameters(2)
    value = al.argmin(problem, x, solver="scipy")
    expected = all_derivatives(problem, x, value)
    for name, limit in WAYS[way].items():
        monkeypatch.setattr(_structure, name, limit)
        monkeypatch.setattr(_factorise, name, limit, raising=False)
    fresh = dataclasses.replace(problem)
    kind = SparseSystem if way == "sparse" else KrylovSystem
    assert type(measure(bind(fresh, (x,)), value).system) is kind
    torch.testing.assert_close(all_derivatives(fresh, x, value), expected, rtol=1e-6, atol=1e-8)


def test_a_sparse_system_whose_solution_is_not_isolated_is_refused_by_name_or_moves_least(monkeypatch):
    for name, limit in WAYS["sparse"].items():
        monkeypatch.setattr(_structure, name, limit)
    problem = al.Problem(lambda u, x: (u[1:] - u[:-1] - x[1:]).square().sum(), "(n)->(n)")
    x = parameters(1).requires_grad_()
    value = torch.cat([torch.zeros(1, 1, dtype=DOUBLE), x.detach()[:, 1:].cumsum(-1)], dim=-1)
    assert type(measure(bind(problem, (x,)), value).system) is SparseSystem
    with pytest.raises(al.NotDifferentiable, match="not isolated: it may move in 1 independent directions"):
        al.attach(problem, value, x).sum().backward()
    least = al.attach(problem, value, x, backward=al.KKT(singular="minimum-norm"))
    (found,) = torch.autograd.grad(least.square().sum(), x)
    dense_only(monkeypatch)
    monkeypatch.setattr(_structure, "SPARSE_ENTRIES", 10**12)
    least = al.attach(dataclasses.replace(problem), value, x, backward=al.KKT(singular="minimum-norm"))
    (expected,) = torch.autograd.grad(least.square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
