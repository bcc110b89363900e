"""Kernels of robust pooling, interpreted on the processor: they agree with torch in value and gradient."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import argminlayer as al
from argminlayer_kernels import PoolKernel
from argminlayer_pooling import pooling_problem

SCRIPT = Path(__file__).with_name("interpreted_pooling.py")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
def test_interpreted_kernels_agree_with_torch():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout, result.stdout


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_there():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = SCRIPT.with_name("compiled_pooling.py")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" bytes") == 9


def refusal(problem, *parameters):
    return PoolKernel().refuses(problem.structure, parameters)


def test_what_has_no_kernel_is_refused_with_a_reason(monkeypatch):
    x, alpha = torch.ones(3), torch.tensor(1.0)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert refusal(pooling_problem("huber"), x, alpha) == "runs on a GPU, and the points are on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert refusal(pooling_problem("huber"), x, alpha) is None
    vectors = pooling_problem("huber", vectors=True)
    assert refusal(vectors, torch.ones(2, 3), alpha) is None
    assert refusal(vectors, torch.ones(2, 3).double(), alpha) == "has no kernel for vectors in double precision"
    assert "holds 128 channels, not 129" in refusal(vectors, torch.ones(129, 3), alpha)
    assert refusal(pooling_problem("huber"), x.long(), alpha) == "needs floating-point parameters"
    assert "needs the rule" in PoolKernel().refuses(al.Structure("robust-pool", {"vectors": False}), (x, alpha))
