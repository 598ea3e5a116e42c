"""Whether a device computes what it should: convolutions, the scan and small networks against exact ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segbench.core.errors import SegbenchError
from segbench.engine.device import nondeterminism_as_error, prepare_device
from segbench.engine.precision import Precision, autocast
from segbench.networks import build_network, list_networks
from segbench.networks.scan import chosen_backend, selective_scan
from segbench.profiling.latency import synchronise

__all__ = [
    "TF32_LIMIT", "Finding", "bf16", "convolution", "cudnn_pays", "fast_scan", "networks_step", "scan_agrees",
    "without_tf32",
]  # fmt: skip

TF32_LIMIT = 5e-3
"""TF32 keeps about three decimal digits; anything beyond is a wrong result."""

EDGE = 48
"""Of the image whose convolution is timed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it stands, what was found and expected, and whether that will do."""

    what: str
    state: str
    detail: str
    ok: bool = True


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
        x, weight = (part.to(where, dtype, copy=True).requires_grad_() for part in (image, kernel))
        shift = None if added is None else added.to(where, dtype)
        with autocast("fp32" if dtype == torch.float64 else precision, where)():
            result = functional.conv3d(x, weight, shift, padding=dilation, dilation=dilation)
        result.float().square().sum().backward()
        parts = (result, x.grad, weight.grad)
        return [part.detach().double().cpu() for part in parts if part is not None]

    error = _largest_difference(run(device, torch.float32), run(torch.device("cpu"), torch.float64))
    ok = error < limit
    told = f"max relative difference to float64 {error:.1e}, expected below {limit:.0e}"
    return Finding(what, "agrees" if ok else "WRONG", told, ok)


def without_tf32(device: torch.device) -> Finding:
    """A protocol with `tf32 = false` gets float32."""
    prepare_device(device, level="none", tf32=False)
    try:
        return convolution(device, "float32", 1e-5, channels=16)
    finally:
        prepare_device(device, level="none", tf32=True)


def bf16(device: torch.device) -> Finding:
    """A convolution in bf16, or that the card has no units for it."""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        told = "no units for it: protocols with bf16 train in float32; --set train.precision=fp16"
        return Finding("bf16", "no", told)
    return convolution(device, "bf16", 4e-2, precision="bf16")


def cudnn_pays(device: torch.device, what: str, **without: Any) -> Finding:
    """A wide convolution as in training, and `without` a flag of cuDNN: the same result, and no slower."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 32, EDGE, EDGE, EDGE, generator=generator).to(device).requires_grad_()
    kernel = (torch.randn(32, 32, 3, 3, 3, generator=generator) / 30).to(device).requires_grad_()

    def run() -> list[Tensor]:
        y = functional.conv3d(image, kernel, padding=1)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), (image, kernel))]

    results: list[list[Tensor]] = []
    times: list[float] = []
    usual: dict[str, Any] = {"enabled": True, "benchmark": True, "allow_tf32": True}
    for flags in (usual, usual | without):
        with torch.backends.cudnn.flags(**flags):
            results.append(run())
            times.append(min(_timed_ms(device, run) for _ in range(5)))
    error = _largest_difference(*results)
    ok = error < TF32_LIMIT and times[0] <= 1.1 * times[1]
    told = (
        f"with and without it the results differ by {error:.1e}, expected below {TF32_LIMIT:.0e}; "
        f"{times[0]:.1f} and {times[1]:.1f} ms, expected no slower with it"
    )
    return Finding(what, "pays" if ok else "SLOW" if error < TF32_LIMIT else "WRONG", told, ok)


def fast_scan(device: torch.device) -> Finding:
    """Whether networks with a scan get a fast one."""
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

    error = _largest_difference(run(exact=False), run(exact=True))
    took = _timed_ms(device, lambda: run(exact=False))
    ok = error < limit
    told = f"max relative difference to float64 {error:.1e}, expected below {limit:.0e}; {took:.1f} ms"
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
    told += "; expected: none refused"
    return Finding("networks", "FAIL" if failed else "compute", told, not failed)


def _timed_ms(device: torch.device, call: Callable[[], object]) -> float:
    synchronise(device)
    begin = perf_counter()
    call()
    synchronise(device)
    return 1000 * (perf_counter() - begin)


def _largest_difference(found: Iterable[Tensor], exact: Iterable[Tensor]) -> float:
    """Of several tensors, each relative to its largest exact value."""
    return max(
        float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
        for ours, theirs in zip(found, exact, strict=True)
    )
