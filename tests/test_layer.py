"""Argmin nodes as modules: copied, pickled, shown, trained, and given other solvers from outside."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import argminlayer as al

DOUBLE = torch.float64


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


def outside_ball(u, x):
    return u @ u - 1


PROJECT = al.Problem(half_square, "(n)->(n)", inequality=outside_ball)
POINTS = torch.tensor([[3.0, 4.0], [0.1, 0.2]], dtype=DOUBLE)
PROJECTED = torch.tensor([[0.6, 0.8], [0.1, 0.2]], dtype=DOUBLE)


def refused(kind, function, *arguments, **keywords):
    with pytest.raises(kind) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


def test_a_layer_returns_the_minimiser_for_any_leading_dimensions():
    layer = al.ArgminLayer(PROJECT)
    torch.testing.assert_close(layer(POINTS), PROJECTED)
    torch.testing.assert_close(layer(POINTS[0]), PROJECTED[0])
    torch.testing.assert_close(layer(POINTS.expand(3, 1, 2, 2)), PROJECTED.expand(3, 1, 2, 2))


def test_a_layer_has_no_weights_and_no_state():
    layer = al.ArgminLayer(PROJECT)
    assert not layer.state_dict()
    assert not list(layer.parameters())
    layer.load_state_dict({})


def through_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


def through_torch_save(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, through_pickle, through_torch_save])
def test_a_copied_layer_does_the_same(copied):
    layer = al.ArgminLayer(PROJECT, solver="scipy.slsqp", options={"max_iter": 77}, throw=False)
    layer(POINTS)
    twin = copied(layer)
    torch.testing.assert_close(twin(POINTS), PROJECTED)
    assert (twin.solver, twin.options, twin.throw) == ("scipy.slsqp", {"max_iter": 77}, False)
    assert twin.backward == layer.backward


def test_a_copy_gets_another_solver_alone():
    layer = al.ArgminLayer(PROJECT)
    twin = copy.deepcopy(layer)
    al.set_solver(twin, "scipy.trust-constr")
    assert (layer.solver, twin.solver) == (None, "scipy.trust-constr")


def test_a_layer_shows_its_signature_and_solver():
    assert repr(al.ArgminLayer(PROJECT, solver="scipy.slsqp")) == "ArgminLayer((n)->(n), solver='scipy.slsqp')"
    assert "ArgminLayer((n)->(n)" in repr(nn.Sequential(nn.Linear(2, 2), al.ArgminLayer(PROJECT)))


def test_a_layer_can_be_given_a_solver_as_a_value():
    chosen = al.explain(PROJECT, POINTS, solver="scipy.trust-constr").choice.chain[0]
    layer = al.ArgminLayer(PROJECT, solver=chosen)
    assert "scipy.trust-constr" in repr(layer)
    torch.testing.assert_close(layer(POINTS), PROJECTED, rtol=1e-6, atol=1e-6)


def test_a_layer_inside_a_network_is_trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), al.ArgminLayer(PROJECT)).double()
    inputs, targets = torch.randn(16, 3, dtype=DOUBLE), torch.tensor([0.6, -0.8], dtype=DOUBLE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_training_in_single_precision_gives_gradients_in_single_precision():
    model = nn.Sequential(nn.Linear(3, 2), al.ArgminLayer(PROJECT))
    y = model(torch.ones(4, 3))
    y.sum().backward()
    assert y.dtype == torch.float32
    assert model[0].weight.grad.dtype == torch.float32
    assert model[0].weight.grad.isfinite().all()


def test_moving_a_layer_to_another_dtype_changes_nothing():
    layer = al.ArgminLayer(PROJECT).half().double().eval()
    torch.testing.assert_close(layer(POINTS), PROJECTED)


def test_two_layers_may_share_a_problem():
    first, second = al.ArgminLayer(PROJECT), al.ArgminLayer(PROJECT, solver="scipy.trust-constr")
    torch.testing.assert_close(first(POINTS), second(POINTS), rtol=1e-6, atol=1e-6)


def test_a_layer_that_may_not_raise_returns_nan_for_failed_instances():
    box = al.Problem(half_square, "(n)->(n)", lower=lambda x: x, upper=1.0)
    y = al.ArgminLayer(box, throw=False)(torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=DOUBLE))
    assert y[0].tolist() == [0.0, 0.0]
    assert y[1].isnan().all()
    with pytest.raises(al.SolveFailed, match=r"batch index \(1,\): INFEASIBLE"):
        al.ArgminLayer(box)(torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=DOUBLE))


def test_a_start_is_given_for_one_call():
    wells = al.Problem(lambda u, x: (u**2 - 1).square() + 0.3 * x * u, "()->()", start=-1.0)
    layer, x = al.ArgminLayer(wells), torch.ones((), dtype=DOUBLE)
    assert float(layer(x, start=1.0)) > 0 > float(layer(x))


def test_the_options_of_a_layer_reach_its_solver():
    layer = al.ArgminLayer(PROJECT, solver="scipy.slsqp", options={"max_iter": 1})
    with pytest.raises(al.SolveFailed, match="MAX_ITERATIONS"):
        layer(POINTS)


def test_the_options_of_a_layer_are_not_given_to_the_solver_of_one_call():
    layer = al.ArgminLayer(PROJECT, solver="scipy.slsqp", options={"max_iter": 1})
    torch.testing.assert_close(layer(POINTS, solver="scipy.trust-constr"), PROJECTED, rtol=1e-6, atol=1e-6)


def test_the_options_of_a_layer_are_copied():
    options = {"max_iter": 1}
    layer = al.ArgminLayer(PROJECT, solver="scipy.slsqp", options=options)
    options["max_iter"] = 1000
    assert layer.options == {"max_iter": 1}


# --- models and problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "kind"), [("abc", "builtins.str"), (half_square, "builtins.function")])
def test_a_model_that_no_plugin_reads_is_named_with_its_type(model, kind):
    message = refused(al.ProblemError, al.ArgminLayer, model)
    for piece in (kind, "is not an argminlayer.Problem", "no installed plugin reads it", "write it as a Problem"):
        assert piece in message


@pytest.mark.parametrize("name", ["parameters", "variables"])
def test_a_problem_has_its_parameters_and_variables_in_its_signature(name):
    message = refused(al.ProblemError, al.ArgminLayer, PROJECT, **{name: ["x"]})
    assert "belong to a model; a Problem has them in its signature" in message


def test_an_unknown_solver_is_refused_when_the_layer_is_made():
    message = refused(al.SolverError, al.ArgminLayer, PROJECT, solver="sipy")
    assert "there is no solver 'sipy'. Did you mean 'scipy'" in message


# --- set_solver -------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """A network with an argmin layer at the top and another further down."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=DOUBLE)
        self.pool = al.ArgminLayer(PROJECT)
        self.head = nn.ModuleDict({"project": al.ArgminLayer(PROJECT, solver="scipy.slsqp", options={"max_iter": 5})})

    def forward(self, x):
        return self.head["project"](self.pool(self.linear(x)))


def test_solvers_are_chosen_for_the_layers_of_a_model_by_name():
    model = Model()
    al.set_solver(model, {"head.project": "scipy.trust-constr"})
    assert (model.pool.solver, model.head["project"].solver) == (None, "scipy.trust-constr")
    assert model(POINTS).shape == (2, 2)


def test_one_solver_is_chosen_for_all_layers_of_a_model():
    model = Model()
    al.set_solver(model, "scipy")
    assert (model.pool.solver, model.head["project"].solver) == ("scipy", "scipy")


def test_a_layer_by_itself_is_a_model_whose_name_is_empty():
    layer = al.ArgminLayer(PROJECT)
    al.set_solver(layer, {"": "scipy.slsqp"})
    assert layer.solver == "scipy.slsqp"


def test_the_options_of_the_old_solver_are_not_given_to_the_new_one():
    model = Model()
    al.set_solver(model, "scipy.trust-constr")
    assert model.head["project"].options == {}


@pytest.mark.parametrize("name", ["head.projct", "linear", "head", "nothing like it"])
def test_a_name_that_is_no_argmin_layer_is_refused_with_those_that_are(name):
    message = refused(al.SolverError, al.set_solver, Model(), {name: "scipy"})
    assert f"the model has no ArgminLayer {name!r}" in message
    assert "Its argmin layers: 'pool', 'head.project'" in message
    assert ("Did you mean 'head.project'?" in message) == name.startswith("head")


def test_a_model_without_argmin_layers_is_refused():
    for solvers in ("scipy", {"0": "scipy"}):
        message = refused(al.SolverError, al.set_solver, nn.Sequential(nn.Linear(2, 2)), solvers)
        assert message == "the model Sequential contains no ArgminLayer"


def test_an_unknown_solver_changes_no_layer_at_all():
    model = Model()
    message = refused(al.SolverError, al.set_solver, model, {"pool": "scipy.lbfgs", "head.project": "scipy.slsqpp"})
    assert "there is no solver 'scipy.slsqpp'. Did you mean 'scipy.slsqp'" in message
    assert (model.pool.solver, model.head["project"].solver) == (None, "scipy.slsqp")
