"""One row, measured in this process; `worker` calls it in a fresh one."""

from __future__ import annotations

import time
from typing import Any

import torch

from segbench.core.errors import BackendUnavailable
from segbench.engine.device import prepare_device
from segbench.engine.precision import autocast, precision_note
from segbench.networks import build_network, network_card
from segbench.networks.registry import build_on_meta
from segbench.networks.scan import chosen_backend, named_scans, scans_used
from segbench.profiling.flops import count_cost, count_parameters, mean_of
from segbench.profiling.latency import measure_latency, synchronise
from segbench.profiling.machine import EnergyCounter, environment_facts, hazards_of, other_processes
from segbench.profiling.memory import MemoryProbe, limit_address_space, tensor_bytes
from segbench.profiling.schema import EnergyFacts, ProfileRequest, ProfileRow, ThroughputFacts

__all__ = ["measure_row", "runs_at_all", "static_row"]

LEARNING_RATE = 1e-6  # a step is timed, nothing is learned


def overrides_of(request: ProfileRequest) -> dict[str, Any]:
    """The request's overrides; a network of fixed size gets the patch it is asked for."""
    needs = network_card(request.model).input
    fixed = {"patch_size": request.patch} if needs is not None and needs.fixed_size else {}
    return {**fixed, **request.overrides}


def static_row(request: ProfileRequest) -> ProfileRow:
    """Parameters and operations only: seconds, whatever the size."""
    network = build_on_meta(
        request.model, request.input_shape[1], request.out_channels, **overrides_of(request)
    )
    return ProfileRow.of(
        request,
        status="ok",
        params=count_parameters(network),
        cost=count_cost(network, request.input_shape, train=request.mode == "train"),
        environment=environment_facts(torch.device("cpu")),
    )


def measure_row(request: ProfileRequest) -> ProfileRow:
    """The whole row. What goes wrong is raised: the caller's process makes a status of it."""
    static = static_row(request)
    if request.device == "meta":
        return static
    device = _prepared(request)
    subject = _Subject(request, device)
    if any(hasattr(module, "A_log") for module in subject.network.modules()):
        chosen_backend(device)  # probing and compiling the scan is neither memory nor time of the network
    probe = MemoryProbe(device)
    probe.start()
    begin = time.perf_counter()
    with scans_used() as scans:
        subject.call()
    synchronise(device)
    first_call_s = time.perf_counter() - begin
    gradients = subject.gradients_bytes
    if request.mode == "train":
        subject.call()  # the optimiser's state is in the peak from the second step on
    memory = probe.facts(subject.network, subject.optimiser, gradients)
    counter, calls_before = EnergyCounter(device), subject.calls
    counter.start()
    latency = measure_latency(subject.call, device, first_call_s=first_call_s, shared=other_processes(device))
    joules = counter.joules()
    # Warm-up is counted too: it costs energy as well.
    each = None if joules is None else joules / (subject.calls - calls_before)
    return static.model_copy(
        update={
            "scan_backend": named_scans(scans),
            "latency": latency,
            "memory": memory,
            "throughput": ThroughputFacts(windows_per_s=request.input_shape[0] / latency.median_s),
            "energy": EnergyFacts(joules_per_iteration=each, joules_per_volume=None, reason=counter.reason),
            "hazards": hazards_of(subject.network, request.dtype, device, request.input_shape),
            "environment": environment_facts(device),
        }
    )


def runs_at_all(request: ProfileRequest) -> None:
    """One call (two steps in training) without measuring: what `--max-patch` asks of a size."""
    device = _prepared(request)
    subject = _Subject(request, device)
    for _ in range(2 if request.mode == "train" else 1):
        subject.call()
    synchronise(device)


def _prepared(request: ProfileRequest) -> torch.device:
    """The device, computing as a training by the default protocol does; a row of fp32 is without TF32.

    Raises:
        BackendUnavailable: SB502 for a type that the device does not compute in.
    """
    device = torch.device(request.device)
    note = precision_note(request.dtype, device)
    if note is not None:
        raise BackendUnavailable(note.partition(": ")[2], mend="profile --dtype fp16 or fp32 there")
    prepare_device(device, level="none", tf32=request.dtype != "fp32")
    if device.type == "cpu":
        limit_address_space()
    return device


class _Subject:
    """The network and its input, ready to be called; counts the calls."""

    def __init__(self, request: ProfileRequest, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network = build_network(
            request.model, request.input_shape[1], request.out_channels, **overrides_of(request)
        ).to(device)
        self.network.train(request.mode == "train")
        self.x = torch.randn(request.input_shape, device=device)
        self.precision, self.calls = autocast(request.dtype, device), 0
        self.gradients_bytes: int | None = None
        self.optimiser: torch.optim.Optimizer | None = None
        if request.mode == "train":
            self.optimiser = torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def call(self) -> None:
        """One forward pass in inference mode, or one training step."""
        self.calls += 1
        if self.optimiser is None:
            with torch.inference_mode(), self.precision():
                self.network(self.x)
            return
        with self.precision():
            loss = mean_of(self.network(self.x))
        loss.backward()
        if self.gradients_bytes is None:
            self.gradients_bytes = tensor_bytes(p.grad for p in self.network.parameters())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
