"""The kernels of the scan compile for real devices, without one, with the specialisations that are launched.

Needs triton (no GPU); skipped where it is not installed, and in the interpreter, where nothing is compiled.
"""

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

from compiled_kernels import Launch, compile_launch, record_launches

from segbench.networks.scan import triton_backend, triton_kernel
from segbench.networks.scan.arguments import ScanInputs

KERNELS = ("chunk_ends", "carry", "outputs", "chunk_adjoints", "gradients")
FEWER_THAN_BEFORE = 3
WARP_INSTRUCTIONS_BEFORE = 1_162e6 / (6 * 384 * 4096)
"""For each channel and step, forward and backward, of the kernels before decision 070."""


def launches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> dict[str, Launch]:
    """The launches of a forward and backward, with channels and strides as a Mamba block has them."""

    def tokens(size: int) -> torch.Tensor:
        return torch.zeros(2, 128, 2 * size, dtype=dtype)[..., :size].transpose(1, 2)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    A, D, bias = torch.zeros(384, 16, dtype=wide), torch.zeros(384, dtype=wide), torch.zeros(384, dtype=wide)
    inputs = ScanInputs(tokens(384), tokens(384), A, tokens(16), tokens(16), D, tokens(384), bias, True)

    def call() -> None:
        y, states = triton_backend.forward(inputs, True)
        triton_backend.backward(y, inputs, states)

    found = record_launches(monkeypatch, triton_kernel, KERNELS, call)
    assert [launch.name for launch in found] == [
        "chunk_ends", "carry", "outputs", "chunk_adjoints", "carry", "gradients",
    ]  # fmt: skip
    return {launch.name: launch for launch in found}


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        (75, torch.float16),
        pytest.param(80, torch.bfloat16, marks=pytest.mark.slow),
        (90, torch.bfloat16),
        pytest.param(90, torch.float16, marks=pytest.mark.slow),
        pytest.param(90, torch.float32, marks=pytest.mark.slow),
        pytest.param(100, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_compiles_without_spills(
    capability: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, launch in launches(monkeypatch, dtype).items():
        compiled = compile_launch(launch, capability, tmp_path)
        assert compiled.spilled == 0, name
        assert compiled.registers <= (255 if name == "gradients" else 144), name
        assert compiled.shared <= 4096, name


def test_double_precision_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = launches(monkeypatch, torch.float64)
    for name in ("outputs", "gradients"):
        assert compile_launch(found[name], 90, tmp_path).shared <= 8192


def test_there_are_far_fewer_instructions_than_in_the_scanning_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    total = 0.0
    for name, launch in launches(monkeypatch, torch.bfloat16).items():
        compiled = compile_launch(launch, 90, tmp_path)
        assert "atom" not in compiled.ptx
        if name != "carry":  # once a chunk, not once a step
            # One walk, or in the gradients three, each once over the steps.
            assert len(compiled.loop_instructions()) == (3 if name == "gradients" else 1)
            total += sum(compiled.loop_instructions()) / launch.constants["D"]
    assert total <= WARP_INSTRUCTIONS_BEFORE / FEWER_THAN_BEFORE
