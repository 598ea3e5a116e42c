"""`segbench doctor --device`: wrong arithmetic, lost batches and failing checks are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from segbench.engine.feed import DeviceBatch
from segbench.runs import device_check, diagnosis
from segbench.runs.device_check import Finding, convolution, cuda_findings, input_path

CPU = torch.device("cpu")
CASES: list[dict[str, Any]] = [
    {"limit": 1e-5, "channels": 16},
    {"limit": 1e-5, "dilation": 2, "bias": True},
    {"limit": 4e-2, "precision": "bf16"},
]


@pytest.mark.parametrize("settings", CASES, ids=["float32", "dilated", "bf16"])
def test_a_convolution_that_is_right_agrees_and_one_that_is_wrong_does_not(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convolution(CPU, "conv3d", **settings).ok
    real: Callable[..., torch.Tensor] = functional.conv3d

    def wrong(image: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        result = real(image, *rest, **named)
        return result if image.dtype == torch.float64 else result + 0.5 * (result > 1).to(result.dtype)

    monkeypatch.setattr(functional, "conv3d", wrong)
    found = convolution(CPU, "conv3d", **settings)
    assert not found.ok
    assert found.state == "WRONG"
    assert "expected below" in found.detail


def test_batches_that_change_on_the_way_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert input_path(CPU).ok

    def late(batches: Any, device: torch.device, *, copier: Any) -> Any:
        for batch in batches:  # as if the buffer had been written again before it was read
            yield DeviceBatch([torch.zeros_like(torch.as_tensor(each)) for each in batch.image], [], ())

    monkeypatch.setattr(device_check, "feed", late)
    assert not input_path(CPU).ok


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_scan_that_is_right_agrees_and_one_that_is_wrong_does_not(
    dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"length": 70, "channels": 4}
    found = device_check.scan_agrees(CPU, dtype, limit, **shape)
    assert found.ok
    assert " ms" in found.detail
    real = device_check.selective_scan

    def wrong(*tensors: torch.Tensor, backend: str, **others: Any) -> torch.Tensor:
        y = real(*tensors, backend=backend, **others)
        return y if backend == "torch" else y * 1.1

    monkeypatch.setattr(device_check, "selective_scan", wrong)
    assert not device_check.scan_agrees(CPU, dtype, limit, **shape).ok


def test_a_network_that_bitwise_does_not_allow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_check, "list_networks", lambda: ["nnunet-tiny", "nnunet"])
    assert device_check.networks_step(CPU).detail == "a step of each of 1 small networks under level bitwise"

    class Refused(torch.nn.Conv3d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("upsample_trilinear3d_backward does not have a deterministic implementation")

    monkeypatch.setattr(device_check, "build_network", lambda *_: Refused(1, 2, 1))
    found = device_check.networks_step(CPU)
    assert not found.ok
    assert "nnunet-tiny: determinism.level = bitwise: upsample_trilinear3d_backward" in found.detail


def test_a_check_that_cannot_run_is_a_finding_not_an_end() -> None:
    if torch.cuda.is_available():
        pytest.skip("here the checks can run")
    found = {each.what: each for each in cuda_findings(torch.device("cuda"))}
    assert not found["build"].ok
    assert found["build"].state == "FAILS"
    assert len(found) == 16


def test_the_exit_status_says_whether_all_of_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Finding("determinism", "DOES NOT REPEAT", "20 steps twice", ok=False)
    for found, status in (([bad], 6), ([Finding("device", "cpu", "processor")], 0)):
        monkeypatch.setattr(device_check, "check_device", lambda name, found=found: found)
        report = diagnosis.diagnose(device="cpu")
        assert report.exit_code == status
        (rows,) = [rows for title, rows in report.sections if title == "device cpu"]
        assert rows == [(each.what, each.state, each.detail) for each in found]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_here_passes() -> None:
    wrong = [each for each in device_check.check_device("cuda") if not each.ok and each.what != "memory"]
    assert not wrong, np.array(wrong)
