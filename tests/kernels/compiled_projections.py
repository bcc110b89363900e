"""Compile the kernels of projections for a GPU that need not be there; print each with the size of its code.

Run without TRITON_INTERPRET. With ``--all`` it compiles every specialisation, which takes minutes.
"""

import itertools
import math
import sys

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
FEW = (
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


def every():
    """Yield every specialisation of every kernel, for a few p."""
    both = (False, True)
    for kind, weighted in itertools.product(("bf16", "fp16", "fp32", "fp64"), both):
        for ball, index in itertools.product(both, range(-1, 7)):
            given = {"WEIGHTED": weighted, "BALL": ball, "PASS": index}
            wides = [tl.float64] if kind == "fp64" or weighted else [tl.float32, tl.float64]
            for p, wide in itertools.product((1.1, 1.5, 2.0, 3.0), wides):
                yield powers.power, kind, {**given, "P": p, "WIDE": wide}
            for signed in both if index < 4 and not (weighted or ball) else (True,) if index < 4 else ():
                yield kernels.threshold, kind, {**given, "SIGNED": signed, "WIDE": tl.float64 if weighted else wides[0]}
            if index < 3:
                yield kernels.clip, kind, given
            if index < 3 and not weighted:
                yield kernels.scale, kind, {"BALL": ball, "PASS": index}
        for mask, index in itertools.product(both, range(-1, 3)):
            for p in (1.0, 1.5, 2.0, 3.0) if index < 3 else ():
                yield pulls.pull_smooth, kind, {"P": p, "MASK": mask, "WEIGHTED": weighted, "PASS": index}
            if index < 2:
                yield pulls.pull_clip, kind, {"MASK": mask, "WEIGHTED": weighted, "PASS": index}
    for p in (1.1, 1.5, 3.0):
        yield powers.settle, "fp32", {"P": p}


def compiled(kernel, points, given, warps=8, block=2048):
    """Return a kernel compiled for rows of a type."""
    given = {"WIDE": tl.float64 if points == "fp64" else tl.float32, "BLOCK": block, **given}
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
    return triton.compile(source, target=TARGET, options={"num_warps": warps})


def main():
    """Compile."""
    for kernel, points, given in every() if "--all" in sys.argv else FEW:
        size = len(compiled(kernel, points, given).asm["cubin"])
        print(f"{kernel.__name__} of {points} with {given}: {size} bytes")


if __name__ == "__main__":
    main()
