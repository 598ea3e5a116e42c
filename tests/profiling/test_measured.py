"""Latency, memory and the search for the largest patch, on made-up calls and numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
import torch

from segbench.core.errors import BackendUnavailable
from segbench.profiling import measure
from segbench.profiling.latency import Timing, measure_latency, summarise
from segbench.profiling.machine import EnergyCounter
from segbench.profiling.memory import bytes_of, saved_bytes, tensor_bytes
from segbench.profiling.rows import largest_patch
from segbench.profiling.schema import (
    CostFacts,
    Dtype,
    ParameterFacts,
    ProfileDocument,
    ProfileRequest,
    ProfileRow,
    parse_shape,
)
from segbench.profiling.worker import _failure

CPU = torch.device("cpu")


def test_percentiles_and_interval_of_known_times() -> None:
    facts = summarise([i / 100 for i in range(1, 102)], None, first_call_s=9.0, load=0.0, shared=None)
    assert facts.median_s == pytest.approx(0.51)
    assert (facts.p10_s, facts.p90_s, facts.p99_s) == pytest.approx((0.11, 0.91, 1.0))
    assert facts.ci_low_s < 0.51 < facts.ci_high_s
    assert (facts.n, facts.first_call_s, facts.cpu_s) == (101, 9.0, None)


def test_even_times_are_stable_and_doubts_are_named() -> None:
    even = dict(first_call_s=1.0, shared=None)
    assert summarise([1.0] * 5, [1.0] * 5, load=0.0, **even).stable
    busy = summarise([1.0] * 5, [1.0] * 5, load=1e6, **even)
    assert not busy.stable
    assert "load average" in busy.unstable_because[0]
    wide = summarise([1.0, 2.0, 1.0, 2.0, 3.0], None, load=0.0, **even)
    assert not wide.stable
    assert "interval" in wide.unstable_because[0]
    shared = summarise([1.0] * 5, None, first_call_s=1.0, load=0.0, shared=True)
    assert shared.unstable_because == ["other processes use the device"]
    assert not summarise([1.0], None, load=0.0, **even).stable


def test_warm_up_ends_when_calls_agree_and_is_not_in_the_times() -> None:
    calls = []

    def call() -> None:
        calls.append(len(calls))
        time.sleep(0.03 if len(calls) < 4 else 0.005)

    timing = Timing(least_warm_up=2, most_warm_up=50, warm_up_s=20, iterations=5, seconds=20)
    facts = measure_latency(call, CPU, first_call_s=0.1, timing=timing)
    assert facts.n == 5
    assert facts.p99_s < 0.03
    assert len(calls) >= 3 + 5
    assert facts.cpu_s is not None
    assert facts.cpu_s < facts.median_s


def test_a_slow_call_is_timed_at_least_once() -> None:
    timing = Timing(least_warm_up=1, most_warm_up=1, warm_up_s=0, iterations=5, seconds=0)
    assert measure_latency(lambda: time.sleep(0.002), CPU, first_call_s=0.1, timing=timing).n == 1


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_known_by_type_and_message(error: Exception, is_memory: bool) -> None:
    assert (_failure(error)["status"] == "oom") is is_memory


def test_bytes() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    assert bytes_of(network) == 4 * (15 + 5 + 5 + 5 + 5 + 5) + 8
    assert tensor_bytes([torch.zeros(3, dtype=torch.float16), None]) == 6


def test_what_a_backward_pass_needs_is_counted_once_and_without_the_weights() -> None:
    first, second = torch.nn.Conv3d(1, 2, 1), torch.nn.Conv3d(2, 2, 1)
    network = torch.nn.Sequential(first, torch.nn.LeakyReLU(), second, torch.nn.Flatten())
    x = torch.randn(1, 1, 4, 4, 4)
    kept = 4 * 64 * (1 + 2 + 2)  # the image, what the activation reads, what it gives
    assert saved_bytes(lambda: network(x), network) == kept
    with torch.no_grad():
        assert saved_bytes(lambda: network(x), network) == 0


@pytest.mark.ci
def test_the_resident_peak_is_that_of_the_call() -> None:
    """A peak before `start` is forgotten, one during the call is found (256 MiB against 64 MiB)."""
    code = (
        "import torch; from torch import nn; from segbench.profiling.memory import MemoryProbe\n"
        "network = nn.Linear(2, 2); probe = MemoryProbe(torch.device('cpu'))\n"
        "early = torch.ones(256 * 2**20 // 4); del early\n"
        "probe.start(); late = torch.ones(64 * 2**20 // 4); late += 1; del late\n"
        "print(probe.facts(network, None, None).activations_bytes)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60 * 2**20 < int(done.stdout) < 100 * 2**20


@pytest.mark.parametrize("limit", [32, 48, 96, 160, 400, 1008, 1024])
def test_largest_patch_is_found_by_bisection(limit: int) -> None:
    tried = []

    def tries(edge: int) -> str:
        tried.append(edge)
        return "ok" if edge <= limit else "oom"

    edge, note = largest_patch(tries, step=16, least=32, most=1024)
    assert edge == limit // 16 * 16
    assert len(tried) < 14
    assert all(size % 16 == 0 for size in tried)
    assert note == (f"{edge + 16}: oom" if edge < 1024 else "larger cubes than 1024 were not tried")


def test_no_patch_at_all() -> None:
    assert largest_patch(lambda edge: "oom", step=16, least=32, most=1024) == (None, "32: oom")


@pytest.mark.parametrize(
    "text", ["", "128", "0x4x8x8x8", "1x4x128x128x99999", "1x4x8x8x8x8", "ax1x1x1x1", "1x4x8x8x-8"]
)
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(Exception, match=r"SB104.*--input"):
        parse_shape(text, 5, flag="--input")


def row(gmacs: float = 482.8, parameters: int = 31_199_796) -> ProfileRow:
    return ProfileRow(
        model="nnunet",
        status="ok",
        input_shape=[1, 4, 128, 128, 128],
        out_channels=4,
        mode="infer",
        dtype="fp32",
        device="meta",
        params=ParameterFacts(total=parameters, trainable=parameters, buffers=0),
        cost=CostFacts(gmacs=gmacs, gflops=2 * gmacs, by_op={}, by_module={}, uncounted_ops={}),
    )


def test_the_document_validates_and_knows_no_other_fields() -> None:
    document = ProfileDocument(rows=[row()])
    plain = document.as_json()
    assert plain["schema"] == "segbench.profile/1"
    assert plain["schema_version"] == 1
    assert plain["rows"][0]["latency"] is None
    assert ProfileDocument.model_validate(plain) == document
    plain["rows"][0]["surprise"] = 1
    with pytest.raises(ValueError, match="surprise"):
        ProfileDocument.model_validate(plain)


def test_requests_survive_the_way_to_another_process() -> None:
    request = ProfileRequest(model="nnunet", overrides={"features": (8, 16), "a": 1.5})
    assert ProfileRequest.model_validate(request.model_dump(mode="json")) == request


class FakeNvml(ModuleType):
    """NVML that knows one identity and counts millijoules."""

    class NVMLError(Exception):
        """As NVML's own."""

    def __init__(self, known: str) -> None:
        super().__init__("pynvml")
        self.known, self.level = known, 0

    def nvmlInit(self) -> None:
        """Nothing."""

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        """The identity itself."""
        if uuid.decode() != self.known:
            raise self.NVMLError("Not Found")
        return self.known

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        """2.5 J more each time."""
        self.level += 2500
        return self.level


@pytest.mark.parametrize(
    ("known", "joules", "reason"),
    [
        ("GPU-abc", 2.5, None),
        ("MIG-abc", 2.5, None),
        ("GPU-other", None, "NVML does not know the device abc: Not Found"),
        (None, None, "NVML cannot be asked: pip install 'segbench[gpu]' (nvidia-ml-py)"),
    ],
)
def test_energy_is_read_or_says_why_not(
    known: str | None, joules: float | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None if known is None else FakeNvml(known))
    properties = SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    counter = EnergyCounter(torch.device("cuda"))
    counter.start()
    assert (counter.joules(), counter.reason) == (joules, reason)
    assert EnergyCounter(CPU).reason == "no energy counter is read on this kind of device"


@pytest.mark.parametrize(("dtype", "tf32"), [("fp32", False), ("bf16", True)])
def test_a_row_of_fp32_is_measured_without_tf32(dtype: Dtype, tf32: bool) -> None:
    measure._prepared(ProfileRequest(model="nnunet-tiny", dtype=dtype))
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.cuda.matmul.allow_tf32 is tf32


def test_a_row_in_a_type_that_the_card_has_no_units_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(BackendUnavailable, match="Tesla T4 has no bf16 units"):
        measure._prepared(ProfileRequest(model="nnunet-tiny", dtype="bf16", device="cuda"))
