"""The Triton kernels compile for real devices, without one: PTX and machine code for two generations.

Needs triton (no GPU); skipped where it is not installed, and in the interpreter, where nothing is compiled.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from segbench.networks.scan import triton_backend, triton_kernel

TILE = {"KIND": tl.float32, "T": 64, "D": 4, "N": 16}
STEP = {"SOFTPLUS": True, "BIAS": True, **TILE}
KERNELS = {
    "chunk_ends": (STEP, triton_backend.WARPS),
    "chunk_adjoints": ({**STEP, "GATE": True}, triton_backend.WARPS),
    "carry": ({**TILE, "REVERSE": True}, triton_backend.WARPS),
    "outputs": ({**STEP, "GATE": True, "DIRECT": True}, triton_backend.WARPS),
    "gradients": ({**STEP, "GATE": True, "DIRECT": True, "GROUP": 16}, triton_backend.GRADIENT_WARPS),
}
SIXTEEN = {
    "u_ptr",
    "delta_ptr",
    "z_ptr",
    "grad_ptr",
    "y_ptr",
    "g_u_ptr",
    "g_delta_ptr",
    "g_z_ptr",
    "B_ptr",
    "C_ptr",
}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles(name: str, capability: int) -> None:
    constants, warps = KERNELS[name]
    function = getattr(triton_kernel, name)
    types = {
        argument: "constexpr"
        if argument in constants
        else ("*bf16" if argument in SIXTEEN else "*fp32" if argument.endswith("_ptr") else "i32")
        for argument in function.arg_names
    }
    places = {(function.arg_names.index(argument),): value for argument, value in constants.items()}
    source = ASTSource(fn=function, signature=types, constexprs=places)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 48 * 1024
