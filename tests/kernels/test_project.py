"""Kernels of projections, interpreted on the processor: they agree with the exact solver in value and gradient."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import argminlayer as al
from argminlayer_kernels import ProjectKernel
from argminlayer_projection import LpProjection

SCRIPT = Path(__file__).with_name("interpreted_projections.py")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
def test_interpreted_kernels_agree_with_the_exact_solver():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_there():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = SCRIPT.with_name("compiled_projections.py")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" bytes") == 10


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
