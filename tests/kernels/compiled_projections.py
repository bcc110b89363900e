"""Compile the kernels of projections for a GPU that need not be there; print each with the size of its code."""

import math

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from argminlayer_kernels import _power_kernels as powers
from argminlayer_kernels import _project_kernels as kernels
from argminlayer_kernels import _pull_kernels as pulls

TARGET = GPUTarget("cuda", 90, 32)
WEIGHTS = {"WEIGHTED": True}
CASES = (
    (kernels.threshold, "bf16", {"SIGNED": True, "BALL": True, **WEIGHTS, "WIDE": tl.float64, "PASS": -1}),
    (kernels.threshold, "fp16", {"SIGNED": False, "BALL": False, "WEIGHTED": False, "PASS": 2}),
    (kernels.scale, "fp32", {"BALL": False, "PASS": -1}),
    (kernels.clip, "bf16", {"BALL": False, **WEIGHTS, "PASS": 2}),
    (powers.power, "fp32", {"P": 3.0, "BALL": False, "WEIGHTED": False, "PASS": -1}),
    (powers.power, "fp64", {"P": 1.1, "BALL": True, **WEIGHTS, "PASS": 4}),
    (powers.settle, "fp32", {"P": 1.5}),
    (pulls.pull_smooth, "bf16", {"P": 1.5, "MASK": True, **WEIGHTS, "PASS": -1}),
    (pulls.pull_smooth, "fp64", {"P": 1.0, "MASK": False, "WEIGHTED": False, "PASS": 1}),
    (pulls.pull_clip, "fp16", {"MASK": False, **WEIGHTS, "PASS": -1}),
)


def compiled(kernel, points, given):
    """Return a kernel compiled for rows of a type."""
    given = {"WIDE": tl.float64 if points == "fp64" else tl.float32, "BLOCK": 2048, **given}
    limits = torch.finfo(torch.float64 if given["WIDE"] == tl.float64 else torch.float32)
    given |= {"EPS": limits.eps, "LIMIT": 0.9 * math.log2(limits.max), "TINY": limits.tiny}
    wide = "fp64" if given["WIDE"] == tl.float64 else "fp32"

    def argument(name):
        if name in given:
            return "constexpr"
        if name in ("n", "parts") or name.endswith("_stride"):
            return "i32"
        own = ("x_ptr", "y_ptr", "w_ptr", "g_ptr", "gx_ptr", "gw_ptr")
        return f"*{points}" if name in own else "*fp64" if points == "fp64" and name == "state_ptr" else f"*{wide}"

    signature = {name: argument(name) for name in kernel.arg_names}
    constants = {name: value for name, value in given.items() if name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=TARGET, options={"num_warps": 8})


def main():
    """Compile."""
    for kernel, points, given in CASES:
        size = len(compiled(kernel, points, given).asm["cubin"])
        print(f"{kernel.__name__} of {points} with {given}: {size} bytes")


if __name__ == "__main__":
    main()
