"""What the kernels of projections refuse."""

import itertools

import pytest
import torch

import argminlayer as al
from argminlayer_kernels import ProjectKernel
from argminlayer_projection import LpProjection


def refusal(problem, *parameters):
    return ProjectKernel().refuses(problem.structure, parameters)


def test_points_on_the_processor_are_left_to_others(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "runs on a GPU, and the points are on cpu" in refusal(LpProjection(2).problem, torch.ones(3), torch.ones(()))


@pytest.mark.parametrize(
    ("structure", "n", "reason"),
    [
        ({"set": "box", "rule": None}, 3, "has no kernel for the set 'box'"),
        ({"set": "lp"}, 3, "needs the set's rule"),
        (LpProjection(2).problem.structure.data, 0, "needs points with entries"),
    ],
)
def test_what_has_no_kernel_is_refused_with_a_reason(monkeypatch, structure, n, reason):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = ProjectKernel().refuses(al.Structure("projection", structure), (torch.ones(n), torch.ones(())))
    assert reason in found


def test_mixed_dtypes_or_devices_and_integers_are_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    problem = LpProjection(2).problem
    for x, r in itertools.permutations([torch.ones(3), torch.ones((), dtype=torch.float64)]):
        assert refusal(problem, x, r) == "needs floats of one dtype"
    integers = torch.ones(3, dtype=torch.int64)
    assert refusal(problem, integers, integers[0]) == "needs floats of one dtype"
    assert refusal(problem, torch.ones(3), torch.ones((), device="meta")) == "needs all parameters on cpu"
