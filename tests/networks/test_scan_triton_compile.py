"""The kernels of the scan compile for real devices, without one, with the specialisations that are launched.

Needs triton (no GPU); skipped where it is not installed, and in the interpreter, where nothing is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
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


@pytest.mark.ci
@pytest.mark.skipif(triton.__version__.startswith("3.4."), reason="Triton 3.4 spills 20 bytes of a kernel")
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
        assert compiled.registers <= (168 if name == "gradients" else 144), name
        assert compiled.shared <= 4096, name


def test_kernels_start_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device: every launch stands inside a guard for the tensors' own."""
    guarded: list[torch.device] = []
    outside: list[str] = []

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        guarded.append(tensor.device)
        yield
        guarded.pop()

    class Watched:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *_, **__: None if guarded else outside.append(self.name)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    for name in KERNELS:
        monkeypatch.setattr(triton_kernel, name, Watched(name))
    u = torch.zeros(1, 4, 8)
    inputs = ScanInputs(
        u, u, torch.zeros(4, 2), torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), None, None, None, False
    )
    _, states = triton_backend.forward(inputs, True)
    triton_backend.backward(u, inputs, states)
    assert not outside


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
            loops = compiled.loop_instructions()
            if name == "gradients":  # several steps at once, three walks, several steps at once
                before, *walks, after = loops
                assert len(walks) == 3
                loops = [*walks, (before + after) / (launch.constants["S"] // 2)]
            total += sum(loops) / launch.constants["D"]
    assert total <= WARP_INSTRUCTIONS_BEFORE / FEWER_THAN_BEFORE
