"""Kernels, interpreted on the processor, agree with torch in value and gradient; and they compile for a GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def lines(script, **variables):
    """Return what a script beside this file prints, run as a process of its own: Triton reads its variables once."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    command = [sys.executable, Path(__file__).with_name(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("script", ["interpreted_pooling.py", "interpreted_projections.py"])
def test_interpreted_kernels_agree_with_torch(script):
    printed = lines(script, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert printed[-1].split()[-2:] == ["0", "failures"], "\n".join(printed)


@pytest.mark.parametrize(("script", "kernels"), [("compiled_pooling.py", 9), ("compiled_projections.py", 10)])
def test_kernels_compile_for_a_gpu_that_is_not_there(script, kernels):
    assert [line.endswith(" bytes") for line in lines(script)] == [True] * kernels
