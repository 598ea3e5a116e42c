"""The Triton kernels in Triton's interpreter on the CPU: index arithmetic, masks and scans as on a GPU.

Needs triton, which comes with CUDA builds of torch; skipped where it is not installed. What the interpreter
cannot show is the compiler's work: speed, registers, and that the kernels compile for a device.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from scan_cases import relative_errors, run_scan, scan_inputs

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

GPU = torch.cuda.is_available()
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton reads the variable when it is first imported, which torch may have done already.
    pytest.skip(
        "no GPU here; TRITON_INTERPRET=1 runs the kernels in the interpreter", allow_module_level=True
    )

from segbench.networks.scan import choice, triton_backend  # noqa: E402


@pytest.fixture(autouse=True)
def device_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter computes on the CPU, where the choice would refuse the backend."""
    right = choice.probe

    def probe(backend: str, device_type: str):
        if backend == "triton" and not GPU:
            return choice.BackendReport("triton", True, True, None, None, None)
        return right(backend, device_type)

    monkeypatch.setattr(choice, "probe", probe)


@pytest.mark.parametrize("present", ["", "D", "z", "+s", "Dz+s"])
def test_every_combination_of_parts(present: str) -> None:
    tensors = scan_inputs(2, 3, 2, 70)
    exact = run_scan(tensors, backend="torch", present=present)
    found = run_scan(tensors, backend="triton", present=present)
    assert max(relative_errors(found, exact)) < 1e-11


@pytest.mark.parametrize(
    ("batch", "channels", "states", "length"),
    [
        (1, 1, 1, 1),
        (1, 2, 16, 7),
        (2, 3, 2, 64),
        (1, 2, 3, 65),
        (1, 1, 64, 3),
        (2, 1, 5, 193),
    ],
)
def test_shapes(batch: int, channels: int, states: int, length: int) -> None:
    tensors = scan_inputs(batch, channels, states, length)
    exact = run_scan(tensors, backend="torch")
    found = run_scan(tensors, backend="triton")
    assert max(relative_errors(found, exact)) < 1e-11


def test_several_tiles_and_groups_of_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "TILE", 256)
    monkeypatch.setattr(triton_backend, "GROUP_CHANNELS", 4)
    tensors = scan_inputs(2, 11, 2, 66)
    exact = run_scan(tensors, backend="torch")
    found = run_scan(tensors, backend="triton")
    assert max(relative_errors(found, exact)) < 1e-11


def test_more_chunks_than_a_tile_of_the_carry_holds() -> None:
    tensors = scan_inputs(1, 2, 1, 64 * 66 + 5)
    exact = run_scan(tensors, backend="torch")
    found = run_scan(tensors, backend="triton")
    assert max(relative_errors(found, exact)) < 1e-11


def test_bounds_of_single_precision() -> None:
    tensors = [t.float().double() for t in scan_inputs(1, 2, 4, 300)]
    exact = run_scan(tensors, backend="torch")
    y, *gradients = relative_errors(run_scan(tensors, backend="triton", dtype=torch.float32), exact)
    assert y <= 1e-6
    assert max(gradients) <= 4e-6


def test_views_are_not_copied() -> None:
    wide = torch.randn(2, 30, 64)
    u, delta, A, B, C, D, _, bias = (t.float() for t in scan_inputs(2, 32, 4, 30))
    run = triton_backend._launch(
        wide[..., :32].transpose(1, 2), delta, A, B, C, D, wide[..., 32:].transpose(1, 2), bias, True
    )
    assert run.u.data_ptr() == wide.data_ptr()
    assert run.z.stride() == (30 * 64, 64, 1)
    assert u.shape == (2, 32, 30)


def test_repeats_to_the_bit() -> None:
    tensors = scan_inputs(1, 5, 2, 70)
    first, second = (run_scan(tensors, backend="triton", dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
