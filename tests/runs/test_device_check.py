"""`segbench doctor --device`: wrong arithmetic, lost batches and failing checks are seen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from segbench.engine.feed import DeviceBatch
from segbench.runs.doctor import arithmetic, device_check, diagnosis, training
from segbench.runs.doctor.arithmetic import Finding, convolution

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
    assert training.input_path(CPU).ok

    def late(batches: Any, device: torch.device, *, copier: Any) -> Any:
        for batch in batches:  # as if the buffer had been written again before it was read
            yield DeviceBatch([torch.zeros_like(torch.as_tensor(each)) for each in batch.image], [], ())

    monkeypatch.setattr(training, "feed", late)
    assert not training.input_path(CPU).ok


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_scan_that_is_right_agrees_and_one_that_is_wrong_does_not(
    dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"length": 70, "channels": 4}
    found = arithmetic.scan_agrees(CPU, dtype, limit, **shape)
    assert found.ok
    assert " ms" in found.detail
    real = arithmetic.selective_scan

    def wrong(*tensors: torch.Tensor, backend: str, **others: Any) -> torch.Tensor:
        y = real(*tensors, backend=backend, **others)
        return y if backend == "torch" else y * 1.1

    monkeypatch.setattr(arithmetic, "selective_scan", wrong)
    assert not arithmetic.scan_agrees(CPU, dtype, limit, **shape).ok


def test_a_network_that_bitwise_does_not_allow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "list_networks", lambda: ["nnunet-tiny", "nnunet"])
    told = "a step of each of 1 small networks under level bitwise; expected: none refused"
    assert arithmetic.networks_step(CPU).detail == told

    class Refused(torch.nn.Conv3d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("upsample_trilinear3d_backward does not have a deterministic implementation")

    monkeypatch.setattr(arithmetic, "build_network", lambda *_: Refused(1, 2, 1))
    found = arithmetic.networks_step(CPU)
    assert not found.ok
    assert "nnunet-tiny: determinism.level = bitwise: upsample_trilinear3d_backward" in found.detail


@pytest.mark.parametrize("flag", ["enabled", "benchmark"])
@pytest.mark.parametrize(("fault", "state"), [(None, "pays"), ("slow", "SLOW"), ("wrong", "WRONG")])
def test_a_cudnn_that_does_not_pay_is_seen(
    fault: str | None, state: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "EDGE", 8)
    real: Callable[..., torch.Tensor] = functional.conv3d
    bad = torch.backends.cudnn  # what the flag says while it runs

    def faulty(*given: Any, **named: Any) -> torch.Tensor:
        result = real(*given, **named)
        return result * 1.1 if fault == "wrong" and getattr(bad, flag) else result

    def timed(device: torch.device, call: Callable[[], object]) -> float:
        call()
        return 9.0 if getattr(bad, flag) == (fault == "slow") else 1.0

    monkeypatch.setattr(functional, "conv3d", faulty)
    monkeypatch.setattr(arithmetic, "_timed_ms", timed)
    found = arithmetic.cudnn_pays(CPU, "a row", **{flag: False})
    assert (found.what, found.state, found.ok) == ("a row", state, fault is None)
    assert "expected no slower with it" in found.detail


def kernel(name: str, start: float, end: float, **others: Any) -> Any:
    kind = torch.profiler.DeviceType.CUDA
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(**{"name": name, "device_type": kind, "time_range": span, **others})


@pytest.mark.parametrize(
    ("spans", "idle"),
    [
        ([(0, 10)], 0.0),
        ([(5, 6), (9, 10)], 0.6),
        ([(0, 4), (2, 6), (3, 5), (8, 10)], 0.2),  # streams beside each other count once
        ([(8, 10), (0, 2)], 0.6),
    ],
)
def test_idle_is_the_time_that_no_kernel_covers(spans: list[tuple[float, float]], idle: float) -> None:
    assert training.idle_of([kernel("conv", *span) for span in spans]) == pytest.approx(idle)
    with pytest.raises(ValueError, match="no kernel"):
        training.idle_of([])


@pytest.fixture
def small_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "COSTLY", "nnunet-tiny")
    monkeypatch.setattr(training, "QUICK", "nnunet-tiny")
    monkeypatch.setattr(training, "_edge", lambda device: 32)
    monkeypatch.setattr(training, "build_network", lambda *_: torch.nn.Conv3d(4, 4, 1))


@pytest.mark.ci
@pytest.mark.parametrize(("gap", "ok"), [(1.0, True), (9.0, False)])
@pytest.mark.usefixtures("small_training")
def test_a_device_that_waits_for_batches_is_seen(
    gap: float, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are real; the profile is made up, as there is no device here."""
    seen: list[str] = []
    events = [
        kernel("conv", 0.0, 10.0),
        kernel("Memcpy HtoD", 10.0, 10.0 + gap),  # a copy computes nothing
        kernel("Optimizer.step", 0.0, 99.0, is_user_annotation=True),
        kernel("aten::conv", 0.0, 99.0, device_type=torch.profiler.DeviceType.CPU),
        kernel("norm", 10.0 + gap, 20.0),
    ]

    class Profile:
        def __init__(self, **named: Any) -> None:
            seen.append(str(named["activities"]))

        def start(self) -> None:
            seen.append("start")

        def stop(self) -> None:
            seen.append("stop")

        def events(self) -> list[Any]:
            return events

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    found = training.idle_share(CPU, steps=2, workers=int(ok))
    assert seen[1:] == ["start", "stop"]
    assert found.ok is ok
    assert f"in {gap / 20:.0%} of 1 steps of nnunet-tiny at 2x4x32^3 with {int(ok)} workers" in found.detail
    assert "expected at most 30%" in found.detail


@pytest.mark.parametrize(("share", "ok"), [(0.5, False), (1.2, True), (3.0, False)])
@pytest.mark.usefixtures("small_training")
def test_memory_that_nobody_counted_is_seen(share: float, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    real = training._must_be_kept
    monkeypatch.setattr(training, "_must_be_kept", lambda job: counted.append(real(job)) or counted[0])
    monkeypatch.setattr(training, "train", lambda job: SimpleNamespace(peak_memory_bytes=share * counted[0]))
    found = training.training_memory(CPU)
    assert found.ok is ok
    assert f"{share:.2f} times the" in found.detail and "expected 0.9 to 1.6" in found.detail
    assert counted[0] > 2 * 4 * 32**3 * 4


@pytest.mark.ci
@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.usefixtures("small_training")
def test_a_training_that_does_not_repeat_is_seen(fault: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.Generator().manual_seed(0)

    class Noisy(torch.nn.Conv3d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * (1 + fault * float(torch.rand((), generator=noise)))

    monkeypatch.setattr(training, "build_network", lambda *_: Noisy(4, 4, 1))
    found = training.repeats(CPU, steps=4)
    assert found.ok is not fault
    assert "once stopped and resumed; expected" in found.detail


@pytest.mark.parametrize(
    ("line", "state"), [(["sleep", "60"], "HANGS"), (["false"], "FAILS")], ids=["hangs", "fails"]
)
def test_ranks_that_hang_or_do_not_start_are_seen(
    line: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = subprocess.Popen, []
    monkeypatch.setattr(training, "START_S", 0.2)
    monkeypatch.setattr(
        subprocess, "Popen", lambda _, **named: started.append(real(line, **named)) or started[0]
    )
    found = training.lost_rank(CPU, limit_s=0.2)
    assert (found.state, found.ok) == (state, False)
    assert started[0].poll() is not None


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_other() -> None:
    found = training.lost_rank(CPU)
    assert found.ok, found.detail
    assert "expected within 60 s" in found.detail


def test_a_check_that_cannot_run_is_a_finding_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no device every row of one says so; none ends the others."""
    if torch.cuda.is_available():
        pytest.skip("here the checks can run")
    monkeypatch.setattr(device_check, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "none")
    for name in ("scan_agrees", "repeats", "networks_step"):  # a build for the CPU is slow in finding out
        monkeypatch.setattr(device_check, name, lambda *_: torch.zeros(1, device="cuda"))
    found = {each.what: each for each in device_check.check_device("cuda")}
    assert {name for name, each in found.items() if each.ok} <= {
        "device",
        "energy",
        "several GPUs",
        "bf16",
        "lost rank",
    }
    assert found["build"].state == "FAILS"
    assert len(found) == 24


def test_a_cpu_has_the_rows_that_it_can_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_check, "repeats", lambda device: Finding("determinism", "repeats", ""))
    found = device_check.check_device("cpu")
    assert [each.what for each in found] == [
        "device", "conv3d", "dilated conv3d", "scan float32", "input path", "out of memory", "determinism",
    ]  # fmt: skip
    assert all(each.ok for each in found), found
    assert all("expected" in each.detail for each in found[1:-1])


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
