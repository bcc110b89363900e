"""Compile the kernels of pooling for a GPU that need not be there; print the name of each and the size of its code."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from argminlayer_kernels import _pool_kernels as kernels
from argminlayer_kernels import _vector_kernels as vectors

TARGET = GPUTarget("cuda", 90, 32)
ROWS = {"WEIGHTED": True, "WIDE": tl.float32, "BLOCK": 1024}
ASKED = {"POINTS": True, "WEIGHTS": True}
VECTORS = {"WEIGHTED": True, "PART": 1024, "CHANNELS": 128, "BLOCK": 64}
CASES = (
    (kernels.descend, "*bf16", {**ROWS, "PENALTY": "huber", "STEPS": 100}),
    (kernels.descend, "*fp64", {**ROWS, "PENALTY": "welsch", "STEPS": 100, "WIDE": tl.float64}),
    (kernels.moments, "*fp16", {**ROWS, "PENALTY": "pseudo-huber"}),
    (kernels.sums, "*fp32", {**ROWS, "PENALTY": "barron", "TILE": 16, "BLOCK": 512}),
    (kernels.spread, "*bf16", {**ROWS, **ASKED, "PENALTY": "truncated-quadratic"}),
    (kernels.pull, "*fp16", {**ROWS, **ASKED, "PENALTY": "geman-mcclure"}),
    (vectors.look, "*bf16", {**VECTORS, "PENALTY": "welsch", "HESSIAN": True}),
    (vectors.pull, "*fp16", {**VECTORS, "PENALTY": "huber", "WEIGHTS": True}),
    (kernels.windows, "*fp64", {"BITS": 12, "CHOOSE": True, "WEIGHTED": True, "BLOCK": 256}),
)


def argument_type(name: str, points: str, options: dict) -> str:
    """Return the type that an argument is launched with: points and their gradients as stored, what is summed wide."""
    if name in options:
        return "constexpr"
    if name == "chosen_ptr":
        return "*i64"
    if name in ("x_ptr", "weight_ptr", "points_ptr", "weights_ptr"):
        return points
    wide = "fp64" if points == "*fp64" else "fp32"
    return f"*{wide}" if name.endswith("_ptr") else {"n": "i32", "m": "i32"}.get(name, "fp32")


def main() -> None:
    """Compile."""
    for kernel, points, options in CASES:
        signature = {name: argument_type(name, points, options) for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=options)
        code = triton.compile(source, target=TARGET, options={"num_warps": 8}).asm["cubin"]
        print(f"{kernel.__name__} of {points}: {len(code)} bytes")


if __name__ == "__main__":
    main()
