"""The kernels of norm, sum and activation compile for real devices, without one, as they are launched."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from compiled_kernels import compile_launch, record_launches

from segbench.networks.blocks import norm_kernel
from segbench.networks.blocks.norm_act import fused

KERNELS = ("moments", "normalise", "gradient_sums", "gradients")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        (75, torch.float16),
        pytest.param(80, torch.bfloat16, marks=pytest.mark.slow),
        (90, torch.bfloat16),
        pytest.param(90, torch.float32, marks=pytest.mark.slow),
        pytest.param(100, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_compiles_without_spills_and_reads_whole_words(
    capability: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x, residual = (
        torch.zeros(2, 48, 8, 8, 8, dtype=dtype).to(memory_format=torch.channels_last_3d).requires_grad_()
        for _ in range(2)
    )
    weight, bias = torch.ones(48, requires_grad=True), torch.zeros(48, requires_grad=True)
    launches = record_launches(
        monkeypatch, norm_kernel, KERNELS, lambda: fused(x, weight, bias, residual, 0.01).sum().backward()
    )
    assert tuple(launch.name for launch in launches) == KERNELS
    for launch in launches:
        compiled = compile_launch(launch, capability, tmp_path)
        assert compiled.spilled == 0, launch.name
        assert compiled.registers <= 128, launch.name
        assert "ld.global.v4.b32" in compiled.ptx, launch.name  # 16 bytes of a thread at a time
        assert "atom" not in compiled.ptx
