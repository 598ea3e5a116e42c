"""The proofs of `segbench doctor --device`: what a device must compute before anyone trains on it.

Each row says what was found and what was expected. On a CPU three rows: the others hold what only an
accelerator can get wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_bytes
from segbench.engine.device import choose_device, nondeterminism_as_error, prepare_device
from segbench.engine.feed import CudaCopier, feed
from segbench.engine.job import TrainingBatch
from segbench.engine.memory import is_out_of_memory
from segbench.engine.precision import Precision, autocast
from segbench.networks import build_network, list_networks
from segbench.networks.scan import chosen_backend, selective_scan
from segbench.networks.tensor_bytes import tensor_bytes
from segbench.profiling.latency import synchronise

__all__ = ["Finding", "check_device", "cuda_findings"]

TF32_LIMIT = 5e-3
"""TF32 keeps about three decimal digits; anything beyond is a wrong result."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it stands, what was found and expected, and whether that will do."""

    what: str
    state: str
    detail: str
    ok: bool = True


def check_device(name: str) -> list[Finding]:
    """Everything that is looked at on a device, in order.

    Raises:
        BackendUnavailable: SB502 when the device is not there.
    """
    device = choose_device(name)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    prepare_device(device, level="none", tf32=True)  # as a training by the default protocol
    found = [Finding("device", device.type, named), convolution(device, "conv3d", TF32_LIMIT)]
    if device.type == "cuda":
        found += cuda_findings(device)
    return [*found, _repeats(device)]


def cuda_findings(device: torch.device) -> list[Finding]:
    """What only an accelerator can get wrong; a check that fails to run is a finding too."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("build", lambda: _build(device)),
        ("memory", lambda: _memory(device)),
        ("float32", lambda: _without_tf32(device)),
        ("dilated conv3d", lambda: convolution(device, "dilated conv3d", TF32_LIMIT, dilation=2, bias=True)),
        ("wide conv3d", lambda: convolution(device, "wide conv3d", TF32_LIMIT, channels=48, edge=40)),
        ("fp16", lambda: convolution(device, "fp16", 1e-2, precision="fp16")),
        ("bf16", lambda: _bf16(device)),
        ("scan", lambda: _scan(device)),
        ("scan float32", lambda: scan_agrees(device, torch.float32, 1e-5)),
        ("scan fp16", lambda: scan_agrees(device, torch.float16, 4e-3)),
        ("scan bf16", lambda: scan_agrees(device, torch.bfloat16, 2e-2)),
        ("networks", lambda: networks_step(device)),
        ("input path", lambda: input_path(device)),
        ("out of memory", lambda: _out_of_memory(device)),
        ("energy", _energy),
        ("several GPUs", _nccl),
    ]
    return [_tried(what, check) for what, check in checks]


def _tried(what: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # whatever a driver or a library raises: it is what the user must see
        return Finding(what, "FAILS", f"{type(error).__name__}: {error}".splitlines()[0], ok=False)


def convolution(
    device: torch.device,
    what: str,
    limit: float,
    *,
    channels: int = 8,
    edge: int = 24,
    dilation: int = 1,
    bias: bool = False,
    precision: Precision = "fp32",
) -> Finding:
    """A 3 x 3 x 3 convolution and its gradients against float64 on the CPU, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, edge, edge, edge, generator=generator)
    kernel = torch.randn(channels, channels, 3, 3, 3, generator=generator) / (5.2 * channels**0.5)
    added = torch.randn(channels, generator=generator) if bias else None

    def run(where: torch.device, dtype: torch.dtype) -> list[Tensor]:
        x, weight = (part.to(where, dtype).requires_grad_() for part in (image, kernel))
        shift = None if added is None else added.to(where, dtype)
        with autocast("fp32" if dtype == torch.float64 else precision, where)():
            result = functional.conv3d(x, weight, shift, padding=dilation, dilation=dilation)
        result.float().square().sum().backward()
        parts = (result, x.grad, weight.grad)
        return [part.detach().double().cpu() for part in parts if part is not None]

    exact, found = run(torch.device("cpu"), torch.float64), run(device, torch.float32)
    error = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(found, exact, strict=True)
    )
    ok = error < limit
    told = f"max relative difference to float64 {error:.1e}, expected below {limit:.0e}"
    return Finding(what, "agrees" if ok else "WRONG", told, ok)


def input_path(device: torch.device) -> Finding:
    """Batches through page-locked memory and a stream of their own arrive as they were."""
    draw = np.random.default_rng(0)
    expected = [draw.normal(size=(2, 3, 8, 8, 8)).astype(np.float16) for _ in range(8)]
    batches = [SimpleNamespace(step=0, image=list(each), labels=[each[0, 0]], plans=()) for each in expected]
    copier = CudaCopier(device) if device.type == "cuda" else None
    fed = feed(iter(cast("list[TrainingBatch]", batches)), device, copier=copier)
    arrived = [[tensor.cpu().numpy() for tensor in batch.image] for batch in fed]
    same = all(np.array_equal(ours, theirs) for ours, theirs in zip(arrived, expected, strict=True))
    told = "8 batches of float16, expected bit for bit"
    return Finding("input path", "agrees" if same else "WRONG", told, same)


def _build(device: torch.device) -> Finding:
    major, minor = torch.cuda.get_device_capability(device)
    made_for = torch.cuda.get_arch_list()
    fits = [kind for kind in made_for if kind.startswith(f"sm_{major}") or kind == f"compute_{major}{minor}"]
    told = (
        f"compute capability {major}.{minor}; torch {torch.__version__} with CUDA {torch.version.cuda} and "
        f"cuDNN {torch.backends.cudnn.version()} was built for {', '.join(made_for)}"
    )
    advice = "" if fits else "; install a torch build for an older CUDA (for a V100: cu126)"
    return Finding("build", "fits" if fits else "DOES NOT FIT", told + advice, bool(fits))


def _memory(device: torch.device) -> Finding:
    free, total = torch.cuda.mem_get_info(device)
    share = free / total
    mig = ", a MIG slice" if "MIG" in torch.cuda.get_device_name(device) else ""
    told = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free{mig}, expected at least 80 %"
    return Finding("memory", "free" if share >= 0.8 else "SHARED", told, share >= 0.8)


def _without_tf32(device: torch.device) -> Finding:
    """A protocol with `tf32 = false` gets float32."""
    prepare_device(device, level="none", tf32=False)
    try:
        return convolution(device, "float32", 1e-5, channels=16)
    finally:
        prepare_device(device, level="none", tf32=True)


def _bf16(device: torch.device) -> Finding:
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        told = "no units for it: protocols with bf16 train in float32; --set train.precision=fp16"
        return Finding("bf16", "no", told)
    return convolution(device, "bf16", 4e-2, precision="bf16")


def _scan(device: torch.device) -> Finding:
    with torch.inference_mode():  # a process that only predicts must find the fast one too
        backend = chosen_backend(device)
    fast = backend != "torch"
    told = "expected triton or mamba_ssm; torch computes the same, many times slower"
    return Finding("scan", str(backend), told, fast)


def scan_agrees(
    device: torch.device, dtype: torch.dtype, limit: float, *, length: int = 4096, channels: int = 384
) -> Finding:
    """The scan of SegMamba-V2's third stage and its gradients against the torch backend in float64.

    Inputs are rounded alike. The time is that of one forward and backward pass, unmeasured on any device
    when this was written: 1.2 to 2.6 ms are the estimate for an H200.
    """
    draw = torch.Generator().manual_seed(0)

    def tokens(size: int) -> Tensor:
        return torch.randn(6, length, size, generator=draw).to(device, dtype).transpose(1, 2)

    A = -torch.arange(1.0, 17.0, device=device).repeat(channels, 1)
    given = [tokens(channels), tokens(channels) - 3, A, tokens(16), tokens(16)]
    z = tokens(channels)

    def run(*, exact: bool) -> list[Tensor]:
        kind = torch.float64 if exact else None
        leaves = [part.detach().to(kind or part.dtype).requires_grad_() for part in given]
        y = selective_scan(
            *leaves, z=z.to(kind or dtype), delta_softplus=True, backend="torch" if exact else "auto"
        )
        return [y.detach(), *torch.autograd.grad(y.sum(), leaves)]

    found = run(exact=False)
    synchronise(device)
    begin = perf_counter()
    found = run(exact=False)
    synchronise(device)
    took = perf_counter() - begin
    error = max(
        float((ours.double() - exact.double()).abs().max() / exact.double().abs().max())
        for ours, exact in zip(found, run(exact=True), strict=True)
    )
    ok = error < limit
    told = f"max relative difference to float64 {error:.1e}, expected below {limit:.0e}; {1000 * took:.1f} ms"
    return Finding(f"scan {dtype}".replace("torch.", ""), "agrees" if ok else "WRONG", told, ok)


def networks_step(device: torch.device) -> Finding:
    """One step of every small network at the level bitwise: all compute, or say which operation cannot."""
    level = prepare_device(device, level="bitwise", tf32=True)
    names = [name for name in list_networks() if name.endswith("-tiny")]
    failed: list[str] = []
    try:
        for name in names:
            try:
                with nondeterminism_as_error():
                    network = build_network(name, 1, 2).to(device).train()
                    network(torch.zeros(1, 1, 32, 32, 32, device=device)).square().mean().backward()
            except SegbenchError as error:
                failed.append(f"{name}: {error.message}")
    finally:
        prepare_device(device, level="none", tf32=True)
    told = "; ".join(failed) or f"a step of each of {len(names)} small networks under level {level}"
    return Finding("networks", "FAIL" if failed else "compute", told, not failed)


def _out_of_memory(device: torch.device) -> Finding:
    """Asking for more than there is must end as SB504, not as an unknown error."""
    try:
        torch.empty(2**50, dtype=torch.uint8, device=device)
    except Exception as error:
        known = is_out_of_memory(error)
        state = "known" if known else "UNKNOWN"
        return Finding("out of memory", state, f"{type(error).__name__}, expected to be SB504", known)
    return Finding("out of memory", "NOT RAISED", "a petabyte was allocated", ok=False)


def _energy() -> Finding:
    there = find_spec("pynvml") is not None
    told = "read from the driver's counter" if there else "not recorded: pip install nvidia-ml-py"
    return Finding("energy", "recorded" if there else "absent", told)


def _nccl() -> Finding:
    count = torch.cuda.device_count()
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return Finding("several GPUs", "no NCCL", "--gpus-per-cell 1 only", ok=count < 2)
    from torch.cuda import nccl

    version = ".".join(map(str, nccl.version()))
    return Finding("several GPUs", "NCCL", f"version {version}, {count} GPUs here")


def _repeats(device: torch.device) -> Finding:
    level = prepare_device(device, level="bitwise", tf32=True)
    same = _short_training(device) == _short_training(device)
    state = "repeats to the bit" if same else "DOES NOT REPEAT"
    return Finding("determinism", state, f"20 steps twice under level {level}", same)


def _short_training(device: Any) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("segmamba-v2-tiny", 1, 2).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        image = torch.randn(1, 1, 32, 32, 32, generator=generator).to(device)
        optimiser.zero_grad(set_to_none=True)
        network(image).square().mean().backward()
        optimiser.step()
    return sha256_bytes(tensor_bytes(network.state_dict()))
