"""What is recorded, what is refused and how, and which instances share a recording."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numeric_backend import Numeric

import argminlayer as al
from argminlayer import algebra
from argminlayer._bound import bind

DOUBLE = torch.float64
P = torch.linspace(0.1, 0.9, 6, dtype=DOUBLE)
COUNTER = torch.zeros(1, dtype=DOUBLE)


def bound(equality, parameters=P, objective=lambda u, p: u.sum(), **fields):
    return bind(al.Problem(objective, "(6)->(6)", equality=equality, **fields), (parameters,))


def recorded(equality, parameters=P):
    return algebra.record(bound(equality, parameters))


def written(found, z):
    return algebra.interpret(found, Numeric(), z, found.values[0] if found.values.shape[1] else None)


def branches(u, p):
    if u.sum() > 0:
        return u
    return -u


def asserts(u, p):
    assert u[0] > 0
    return u


def counts(u, p):
    COUNTER.add_(1.0)
    return u * COUNTER


def dropped(u, p):
    return F.dropout(u, 0.5)


NUMBER = "reads the value of a variable as a Python number"
NO_FORM = "has no algebraic form"


@pytest.mark.parametrize(
    ("function", "line", "reason"),
    [
        (branches, "`if u.sum() > 0:`", NUMBER),
        (asserts, "`assert u[0] > 0`", NUMBER),
        (counts, "`COUNTER.add_(1.0)`", "`add_` changes a tensor in place that was made elsewhere"),
        (dropped, "`return F.dropout(u, 0.5)`", "`bernoulli` is random; pass the random numbers as a parameter"),
    ],
)
def test_a_refusal_names_function_line_and_reason_and_what_still_works(function, line, reason):
    with pytest.raises(al.AlgebraError) as caught:
        recorded(function)
    message = str(caught.value)
    assert message.startswith(f"equality ({function.__name__!r}), line ")
    assert "of test_record.py, " + line in message
    assert reason in message
    assert message.endswith("such as those of the plugin 'scipy', take the problem as it is.")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda u, p: u * float(u[0]), NUMBER),
        (lambda u, p: u * math.sin(u[0]), NUMBER),
        (lambda u, p: max(u) * p, NUMBER),
        (lambda u, p: u if bool((u > 0).all()) else -u, NUMBER),
        (lambda u, p: u if torch.allclose(u, p) else 2 * u, NUMBER),
        (lambda u, p: p[u.argmax()] * u, NUMBER),
        (lambda u, p: torch.stack([u[i] for i in range(int(u[0]) + 1)]), NUMBER),
        (lambda u, p: u * sum(u.tolist()), r"\.tolist\(\) takes values of the variables out of torch"),
        (lambda u, p: u * torch.as_tensor(u.numpy(force=True)), "detaches|takes values of the variables"),
        (lambda u, p: u * torch.as_tensor(np.asarray(p)), "a conversion to NumPy takes values of a parameter"),
        (lambda u, p: u * torch.tensor([u[0], 1.0])[1], "torch.tensor, unlike torch.stack, takes values of the var"),
        (lambda u, p: u.detach() * u, "detaches a value that depends on the variables"),
        (lambda u, p: u.data * u, "detaches a value that depends on the variables"),
        (lambda u, p: u * torch.rand(6, dtype=u.dtype), "`rand` is random"),
        (lambda u, p: u[u > 0.2], "the operator `index` has an index that depends on the variables"),
        (lambda u, p: u[torch.nonzero(u > 0.2)[:, 0]], "the operator `nonzero` has an index that depends"),
        (lambda u, p: torch.masked_select(u, u > 0.2), "the operator `masked_select` has an index that depends"),
    ],
)
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
def test_what_cannot_be_followed_is_refused_while_it_is_recorded(function, reason):
    with pytest.raises(al.AlgebraError, match=reason):
        recorded(function)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda u, p: u.max(0).indices * u, "`mul` reads an index that depends on the variables"),
        (lambda u, p: u.long() * u, "`_to_copy` converts variables to int64"),
        (lambda u, p: torch.sort(u).values, f"`sort` {NO_FORM}"),
        (lambda u, p: u.topk(2).values, f"`topk` {NO_FORM}"),
        (lambda u, p: torch.linalg.svdvals(u.reshape(2, 3)), f"`_linalg_svd` {NO_FORM}"),
        (lambda u, p: torch.linalg.eigvalsh(torch.diag(u)), f"`_linalg_eigh` {NO_FORM}"),
        (lambda u, p: torch.linalg.det(u[:4].reshape(2, 2)), f"`_linalg_det` {NO_FORM}"),
        (lambda u, p: torch.fft.rfft(u).abs(), f"`_fft_r2c` {NO_FORM}"),
        (lambda u, p: torch.lgamma(u), f"`lgamma` {NO_FORM}"),
        (lambda u, p: torch.cummax(u, 0).values, f"`cummax` {NO_FORM}"),
        (lambda u, p: u.median() * u, f"`median` {NO_FORM}"),
    ],
)
def test_what_has_no_algebraic_form_is_refused_by_its_operator_and_called_nonlinear(function, reason):
    (found,) = recorded(function)
    with pytest.raises(al.AlgebraError, match=rf"^equality, line \d+ of test_record.py.*{reason}"):
        written(found, P)
    assert found.degree.program == "nonlinear program"


def test_a_function_that_a_language_does_not_have_is_refused_by_name():
    class WithoutErf(Numeric):
        functions = Numeric.functions - {"erf"}

    (found,) = recorded(lambda u, p: torch.erfc(u))
    with pytest.raises(al.AlgebraError, match="`erfc` needs the function 'erf', which this modelling"):
        algebra.interpret(found, WithoutErf(), P, None)


def test_values_captured_from_outside_are_those_of_the_moment():
    rho, table = [2.0], torch.ones(6, dtype=DOUBLE)
    problem = al.Problem(lambda u, p: u.sum(), "(6)->(6)", equality=lambda u, p: rho[0] * u + table)

    def key_and_value():
        (found,) = algebra.record(bind(problem, (P,)))
        return found.key, written(found, P).equality

    first_key, first = key_and_value()
    assert key_and_value()[0] == first_key
    rho[0] = 3.0
    second_key, second = key_and_value()
    torch.testing.assert_close(second - first, P)
    table[2] = 5.0
    third_key, third = key_and_value()
    torch.testing.assert_close((third - second).nonzero()[:, 0], torch.tensor([2]))
    assert len({first_key, second_key, third_key}) == 3


def test_a_captured_weight_that_requires_grad_is_refused():
    weight = torch.ones(6, dtype=DOUBLE)
    problem = bound(lambda u, p: u * weight)
    weight.requires_grad_()
    with pytest.raises(al.AlgebraError, match=r"captured tensor that requires grad.*pass it as a parameter"):
        algebra.record(problem)


def test_what_depends_on_the_parameters_alone_is_left_to_torch():
    def equality(u, p):
        matrix = torch.outer(p, p) + torch.eye(6, dtype=p.dtype)
        return torch.linalg.inv(matrix) @ u - torch.linalg.eigvalsh(matrix) + torch.sort(p).values

    rows = torch.stack([P, 2 * P, P.flip(0)])
    (found,) = recorded(equality, rows)
    assert found.instances.tolist() == [0, 1, 2]
    assert {o.name for o in found.operations} <= {"view", "mv", "sub", "add", "sum"}
    for row, values in zip(rows, found.values, strict=True):
        value = algebra.interpret(found, Numeric(), P, values).equality
        torch.testing.assert_close(value, equality(P, row))


def test_instances_that_branch_on_parameters_are_grouped_by_their_path():
    def equality(u, p):
        if p[0] > 0:
            return u - p
        return 2 * u if p[1] > 0 else u.square()

    rows = torch.tensor([[1.0, 1], [-1, 1], [2, -1], [-1, -1], [-2, 3]], dtype=DOUBLE).repeat(1, 3)
    groups = recorded(equality, rows)
    assert [g.instances.tolist() for g in groups] == [[0, 2], [1, 4], [3]]
    for group in groups:
        for k, i in enumerate(group.instances.tolist()):
            value = algebra.interpret(group, Numeric(), P, group.values[k] if group.values.shape[1] else None).equality
            torch.testing.assert_close(value, equality(P, rows[i]))


def test_masks_and_indices_of_parameters_are_grouped_but_masks_as_numbers_are_not():
    rows = torch.stack([P, P.flip(0), P])
    assert [g.instances.tolist() for g in recorded(lambda u, p: u[p > 0.5], rows)] == [[0, 2], [1]]
    assert [g.instances.tolist() for g in recorded(lambda u, p: u[p.argsort()], rows)] == [[0, 2], [1]]
    (one,) = recorded(lambda u, p: torch.where(p > 0.5, u, 2 * u) * (p > 0.3), rows)
    for row, values in zip(rows, one.values, strict=True):
        value = algebra.interpret(one, Numeric(), P, values).equality
        torch.testing.assert_close(value, torch.where(row > 0.5, P, 2 * P) * (row > 0.3))


def test_integer_parameters_choose_the_path_of_their_instance():
    problem = al.Problem(lambda u, x, k: (u - x).square().sum() + u[k], "(3),()->(3)")
    x = torch.zeros(3, 3, dtype=DOUBLE)
    groups = algebra.record(bind(problem, (x, torch.tensor([0, 2, 0]))))
    assert [g.instances.tolist() for g in groups] == [[0, 2], [1]]


def test_a_problem_is_recorded_once_for_every_call():
    calls = []

    def equality(u, p):
        calls.append(None)
        return u - p

    problem = bound(equality)
    before = len(calls)
    assert algebra.record(problem) is algebra.record(problem)
    assert len(calls) == before + 1


def test_an_empty_batch_has_no_algebra():
    assert algebra.record(bound(lambda u, p: u - p, torch.zeros(0, 6, dtype=DOUBLE))) == ()


@pytest.mark.parametrize(
    ("objective", "fields", "program"),
    [
        (lambda u, p: u @ p, {}, "linear program (objective linear)"),
        (lambda u, p: u @ u - u @ p, {}, "quadratic program (objective quadratic)"),
        (
            lambda u, p: u @ p,
            {"inequality": lambda u, p: u @ u - 1},
            "quadratically constrained program (objective linear, inequalities quadratic)",
        ),
        (
            lambda u, p: u.exp().sum(),
            {"equality": lambda u, p: u.sum() - 1},
            "nonlinear program (objective nonlinear, equalities linear)",
        ),
        (lambda u, p: torch.linalg.norm(u - p) ** 2, {"maximize": True}, "quadratic program (objective quadratic)"),
        (
            lambda u, p: torch.cat([u, u**2])[:6].sum() + torch.zeros(3, 6, dtype=DOUBLE)[0] @ u.exp(),
            {},
            "linear program (objective linear)",
        ),
    ],
)
def test_explain_shows_the_class_that_is_proved(objective, fields, program):
    problem = al.Problem(objective, "(6)->(6)", **fields)
    assert al.explain(problem, P).program == program
    assert f"\nclass: {program}\n" in str(al.explain(problem, P))


def test_explain_says_why_a_class_is_unknown():
    explained = al.explain(al.Problem(branches_objective, "(6)->(6)"), P)
    assert explained.program.startswith("unknown, for it has no algebra: objective ('branches_objective'), line ")


def branches_objective(u, p):
    return u.sum() if u[0] > 0 else -u.sum()


def test_verification_names_the_operator_that_is_wrong():
    class Wrong(Numeric):
        def unary(self, function, x):
            return super().unary(function, x) + (0.1 if function == "sin" else 0.0)

    problem = bound(lambda u, p: torch.exp(torch.sin(u)) - p)
    (found,) = algebra.record(problem)

    def evaluate(z, values):
        expressions = algebra.interpret(found, Wrong(), z, values)
        return [expressions.objective, expressions.equality, torch.zeros(0)]

    def inspect(z, values):
        return algebra.interpret(found, Wrong(), z, values).values

    with pytest.raises(al.AlgebraError, match=r"the operator `sin`: the model computes another value than torch"):
        algebra.verify(problem, found, evaluate, inspect)


def test_verification_finds_a_function_that_changes_between_calls():
    calls = [0.0]

    def equality(u, p):
        calls[0] += 1.0
        return u * calls[0]

    problem = bound(equality)
    (found,) = algebra.record(problem)
    with pytest.raises(al.AlgebraError, match="does not agree with the function at another point"):
        algebra.verify(problem, found, lambda z, values: [z.sum().reshape(1), torch.zeros(6), torch.zeros(0)])


def test_the_cache_keeps_the_models_used_last():
    cache = algebra.ModelCache(2)
    built = []

    def model(key):
        return cache.get(key, lambda: built.append(key) or key)

    assert [model(key) for key in "abacab"] == list("abacab")
    assert built == ["a", "b", "c", "b"]
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0
