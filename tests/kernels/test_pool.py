"""What the kernels of robust pooling refuse."""

import torch

import argminlayer as al
from argminlayer_kernels import PoolKernel
from argminlayer_pooling import pooling_problem


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
