"""A layer inside the machinery of training: compiled, checkpointed, mixed precision, copied, on several processes."""

import copy
import io
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import argminlayer as al

DOUBLE = torch.float64


def half_square(u, x):
    return 0.5 * (u - x).square().sum()


def outside_ball(u, x):
    return u @ u - 1


PROBLEM = al.Problem(half_square, "(n)->(n)", inequality=outside_ball)
RULES = [al.KKT(), al.KKT(degenerate="average"), al.LogBarrier(10.0), al.IgnoreConstraints()]


class Project(nn.Module):
    """The projection onto the unit ball, as a formula: what the layer is held to."""

    def forward(self, x):
        return x / x.norm(dim=-1, keepdim=True).clamp_min(1.0)


class Network(nn.Module):
    """A layer between others."""

    def __init__(self, layer):
        super().__init__()
        self.before = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
        self.layer = layer
        self.after = nn.Linear(3, 1)

    def forward(self, x):
        return self.after(self.layer(self.before(x)))


def network(layer, dtype=DOUBLE):
    torch.manual_seed(0)
    return Network(layer).to(dtype)


def inputs(dtype=DOUBLE):
    return 2 * torch.randn(8, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))


def gradients(model, x, run=None):
    model.zero_grad()
    (model if run is None else run)(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def same(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, after any graph break
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_compiled_model_has_one_break_the_same_numbers_and_is_compiled_once(rule):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = network(al.ArgminLayer(PROBLEM, backward=rule))
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = []
    for step in range(4):
        x = inputs() + 0.1 * step
        same(gradients(model, x, compiled), gradients(model, x))
        optimizer.step()
        counts.append(dict(torch._dynamo.utils.counters["stats"]))
    assert counts[0]["unique_graphs"] == 2
    assert counts == counts[:1] * 4
    assert len(torch._dynamo.utils.counters["graph_break"]) == 1


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_model_has_the_same_gradients(reentrant, rule):
    model, x = network(al.ArgminLayer(PROBLEM, backward=rule)), inputs().requires_grad_()
    expected = [*gradients(model, x), x.grad.clone()]
    x.grad = None
    found = gradients(model, x, lambda x: checkpoint(model, x, use_reentrant=reentrant))
    same([*found, x.grad], expected)


def test_under_autocast_the_layer_solves_in_double_precision_and_returns_what_it_was_given():
    model, reference = network(al.ArgminLayer(PROBLEM), torch.float32), network(Project(), torch.float32)
    x = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = model.before(x)
        y = model.layer(given)
        loss = model(x).float().square().sum()
    loss.backward()
    assert (given.dtype, y.dtype) == (torch.bfloat16, torch.bfloat16)
    # the ball is met as well as bfloat16 can say it, 2^-8
    torch.testing.assert_close(y.float(), Project()(given.float()), rtol=0.0, atol=2**-8)
    for one, other in zip([p.grad for p in model.parameters()], gradients(reference, x), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05 * float(other.abs().max()))


def test_matrix_products_in_the_functions_of_a_problem_stay_in_double_precision_under_autocast():
    problem = al.Problem(lambda u, P, q: 0.5 * (u @ P @ u) + q @ u, "(n,n),(n)->(n)")
    root = torch.randn(4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    P, q = root @ root.T + torch.eye(4, dtype=DOUBLE), torch.ones(4, dtype=DOUBLE, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = al.argmin(problem, P, q)
        (slope,) = torch.autograd.grad(y.sum(), q)
    torch.testing.assert_close(y, -torch.linalg.solve(P, q))
    torch.testing.assert_close(slope, -torch.linalg.inv(P).sum(0))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_copied_or_pickled_model_has_the_same_gradients(rule):
    model, x = network(al.ArgminLayer(PROBLEM, backward=rule)), inputs()
    expected = gradients(model, x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    for twin in twins:
        same(gradients(twin, x), expected)
        assert twin.layer.backward == rule


def test_the_hessian_of_a_loss_through_the_layer_is_that_of_the_formula():
    x = inputs()[:2]

    def loss(layer):
        model = network(layer)
        names = [name for name, _ in model.named_parameters()]

        def of_weights(*weights):
            named = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(model, named, (x,)).square().sum()

        return of_weights, tuple(p.detach() for p in model.parameters())

    (by_layer, weights), (by_formula, _) = loss(al.ArgminLayer(PROBLEM)), loss(Project())
    found = torch.autograd.functional.hessian(by_layer, weights)
    expected = torch.autograd.functional.hessian(by_formula, weights)
    for row, other in zip(found, expected, strict=True):
        same(row, other, rtol=1e-7, atol=1e-8)


def test_hooks_retained_graphs_and_accumulated_gradients_work_as_for_any_module():
    model, x = network(al.ArgminLayer(PROBLEM)), inputs()
    seen = []
    model.layer.register_full_backward_hook(lambda module, into, out: seen.append((into[0].shape, out[0].shape)))
    once = gradients(model, x)
    loss = model(x).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    same([p.grad for p in model.parameters()], [3 * g for g in once])
    assert seen == [(x.shape, x.shape)] * 3


def test_two_processes_average_their_gradients(tmp_path):
    # what each process does with its half of the batch; the mean of their gradients is that of the whole batch
    program = """
        import sys
        import torch
        import torch.distributed as dist
        from torch import nn
        import argminlayer as al

        folder, rank = sys.argv[1], int(sys.argv[2])
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
        problem = al.Problem(
            lambda u, x: 0.5 * (u - x).square().sum(), "(n)->(n)", inequality=lambda u, x: u @ u - 1
        )
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), al.ArgminLayer(problem), nn.Linear(3, 1)).double()
        x = 2 * torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        twin = nn.parallel.DistributedDataParallel(model)
        for step in range(2):
            twin.zero_grad()
            twin(x[4 * rank : 4 * rank + 4]).square().mean().backward()
        shared = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        model(x).square().mean().backward()
        for one, whole in zip(shared, (p.grad for p in model.parameters())):
            torch.testing.assert_close(one, whole)
        dist.destroy_process_group()
        print("agreed")
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for out, err in ended:
        assert out.strip() == "agreed", err
