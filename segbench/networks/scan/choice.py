"""Which backend runs: names, probes, `auto`, and what `segbench doctor` shows of it.

An import proves nothing: mamba-ssm can import and have no kernel, numba can import and fail to compile. So
every optional backend runs a small forward and backward first and is compared with `torch`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from segbench.core.errors import BackendUnavailable
from segbench.networks.blocks.inputs import InputError

__all__ = ["BACKENDS", "BackendReport", "check_backend_name", "chosen_backend", "named_scans",
           "resolve_backend", "scan_backends_report", "scans_used"]  # fmt: skip

BACKENDS = ("reference", "torch", "numba", "triton", "mamba_ssm")
"""Every backend there is; `auto` picks one of them."""

PROBE_TOLERANCE = 1e-4
TIMING_CALLS = 20
_PACKAGES = {
    "reference": "torch",
    "torch": "torch",
    "numba": "numba",
    "triton": "triton",
    "mamba_ssm": "mamba-ssm",
}
_DEVICES = {"numba": "cpu", "triton": "cuda", "mamba_ssm": "cuda"}
_lock = threading.RLock()
_noted: ContextVar[set[str] | None] = ContextVar("segbench-scans-used", default=None)


@dataclass(frozen=True)
class BackendReport:
    """What one backend can do on one kind of device.

    `probe`: it ran there and agreed. `max_error`: largest difference of outputs and gradients to `torch`,
    relative to the largest value of each. `reason`: why it cannot run, or None.
    """

    backend: str
    importable: bool
    probe: bool
    max_error: float | None
    version: str | None
    reason: str | None


def probe(backend: str, device_type: str) -> BackendReport:
    """Whether a backend really runs on a kind of device, found out once per process."""
    with _lock:
        return _probe(backend, device_type)


@cache
def _probe(backend: str, device_type: str) -> BackendReport:
    package = _PACKAGES[backend]
    importable = find_spec(package.replace("-", "_")) is not None
    version = _version(package) if importable else None
    why_not = _obstacle(backend, device_type, importable)
    if why_not is not None:
        return BackendReport(backend, importable, False, None, version, why_not)
    if backend == "reference":
        return BackendReport(backend, True, True, None, version, None)
    try:
        error = _difference(backend, torch.device(device_type))
    except Exception as failure:  # whatever an optional package does must not end the program
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
        return BackendReport(backend, importable, False, None, version, reason)
    agrees = error <= PROBE_TOLERANCE
    reason = None if agrees else f"differs from torch by {error:.1e}, more than {PROBE_TOLERANCE:g}"
    return BackendReport(backend, importable, agrees, error, version, reason)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # nightly builds of torch ship triton under another name
        return None


def _obstacle(backend: str, device_type: str, importable: bool) -> str | None:
    if not importable:
        return f"{_PACKAGES[backend]} is not installed"
    if _DEVICES.get(backend, device_type) != device_type:
        return f"runs on {_DEVICES[backend]} only"
    if device_type == "cuda" and not torch.cuda.is_available():
        return "no CUDA device here"
    if backend == "numba" and os.environ.get("SEGBENCH_NO_NUMBA"):
        return "switched off by SEGBENCH_NO_NUMBA"
    return None


def _example(device: torch.device, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """The eight tensors of a scan in float32, from a fixed seed: token-major, as a Mamba block has them."""
    batch, channels, length, states = shape
    draw = torch.Generator().manual_seed(20240601)

    def tokens(size: int) -> Tensor:
        return torch.randn(batch, length, size, generator=draw).to(device).transpose(1, 2)

    A = -torch.rand(channels, states, generator=draw).to(device) * 4
    D, bias = torch.randn(2, channels, generator=draw).to(device)
    return [tokens(channels), tokens(channels), A, tokens(states), tokens(states), D, tokens(channels), bias]


def _gradients(backend: str, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    u, delta, A, B, C, D, z, bias = leaves
    y = call_backend(backend, u, delta, A, B, C, D, z, bias, True)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


@contextmanager
def _untouched(device_type: str) -> Generator[None]:
    """Nobody's counters, fakes or autocast see or touch what runs inside, and it can be differentiated.

    The first scan of a process may come from a prediction: what is made in inference mode has no gradient.
    """
    with (
        torch.inference_mode(False),
        _disable_current_modes(),
        torch.enable_grad(),
        torch.autocast(device_type, enabled=False),
    ):
        yield


def _difference(backend: str, device: torch.device) -> float:
    with _untouched(device.type):
        example = _example(device, (2, 32, 64, 16))
        pairs = zip(_gradients(backend, example), _gradients("torch", example), strict=True)
        return max(float((found - exact).abs().max() / exact.abs().max()) for found, exact in pairs)


@contextmanager
def scans_used() -> Generator[set[str]]:
    """The backends that scans inside the block ran on, by name; empty for networks without a scan."""
    used: set[str] = set()
    token = _noted.set(used)
    try:
        yield used
    finally:
        _noted.reset(token)


def call_backend(
    backend: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """The scan on one named backend, no questions asked."""
    if backend in {"reference", "mamba_ssm"}:  # these differentiate themselves
        module = "reference" if backend == "reference" else "mamba_ssm_backend"
        scan = import_module(f"segbench.networks.scan.{module}").scan
        return scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    from segbench.networks.scan.operator import selective_scan_op

    tensors = (u, delta, A, B, C, D, z, delta_bias)
    save_states = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return selective_scan_op(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save_states, backend)[0]


def check_backend_name(name: object, *, source: str = "") -> None:
    """Refuse a name that no backend has.

    Args:
        name: As given.
        source: Where it comes from, for the message.

    Raises:
        InputError: SB104, a ValueError.
    """
    if name not in ("auto", *BACKENDS):
        raise InputError(
            "SB104",
            f"no scan backend {name!r}{source}; there are auto, {', '.join(BACKENDS)}",
            expected=["auto", *BACKENDS],
            found=name,
            mend="name one of them; 'segbench doctor --device' says which can run here",
        )


def resolve_backend(
    requested: str, device_type: str, double: bool, channels: int, length: int, states: int
) -> str:
    """The backend that a call with this request runs on.

    Args:
        requested: `auto` or a name; `SEGBENCH_SCAN` stands for `auto` where it is set.
        device_type: Of the tensors; on `meta` nothing is computed and the name does not matter.
        double: Whether u is float64.
        channels: d.
        length: l.
        states: n.

    Raises:
        BackendUnavailable: A backend named by the caller (or by `SEGBENCH_SCAN`) cannot run here.
        InputError: There is no backend of that name (SB104, a ValueError).
    """
    named = (os.environ.get("SEGBENCH_SCAN") or "auto") if requested == "auto" else requested
    check_backend_name(named, source="" if named == requested else " (from SEGBENCH_SCAN)")
    if device_type == "meta":
        return "reference" if named == "reference" else "torch"
    if named == "auto":
        return _automatic(device_type, double, channels, length, states)
    report = probe(named, device_type)
    reason = report.reason
    if report.probe and double and named == "mamba_ssm":
        reason = "takes no float64"
    if reason is not None:
        raise BackendUnavailable(
            f"scan backend '{named}' cannot run on {device_type}: {reason}",
            mend="install or repair it, or leave the choice to auto (segbench doctor shows what works)",
        )
    return named


def backend_of_call(
    requested: str, device_type: str, double: bool, channels: int, length: int, states: int
) -> str:
    """`resolve_backend` for a scan that runs now: noted for `scans_used`."""
    name = resolve_backend(requested, device_type, double, channels, length, states)
    used = _noted.get()
    if used is not None and device_type != "meta":
        used.add(name)
    return name


def _automatic(device_type: str, double: bool, channels: int, length: int, states: int) -> str:
    if device_type == "cpu":
        return "numba" if probe("numba", "cpu").probe else "torch"
    if device_type == "cuda":
        candidates = ("triton",) if double else ("mamba_ssm", "triton")
        able = tuple(name for name in candidates if probe(name, "cuda").probe)
        if len(able) > 1:
            shape_class = (channels, (length - 1).bit_length(), states)
            return _faster(able, torch.cuda.current_device(), *shape_class)
        return able[0] if able else "torch"
    return "torch"


def _faster(able: tuple[str, ...], device_index: int, channels: int, length_bits: int, states: int) -> str:
    with _lock:
        return _timed(able, device_index, channels, length_bits, states)


@cache
def _timed(able: tuple[str, ...], device_index: int, channels: int, length_bits: int, states: int) -> str:
    """The backend whose forward + backward takes least at this class of shapes, by 20 calls each in turn."""
    device = torch.device("cuda", device_index)
    with _untouched("cuda"):
        example = _example(device, (2, channels, 1 << length_bits, states))
        taken = dict.fromkeys(able, 0.0)
        for call in range(TIMING_CALLS + 2):
            for name in able:
                seconds = _seconds(lambda name=name: _gradients(name, example), device)
                taken[name] += seconds if call >= 2 else 0.0  # the first two calls compile and settle
    return min(able, key=lambda name: taken[name])


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def chosen_backend(device: torch.device | str, *, backend: str = "auto") -> str:
    """The name of the backend that a scan on this device runs on, for records and reports.

    Args:
        device: The device of the network.
        backend: What the network was built with.
    """
    return resolve_backend(backend, torch.device(device).type, False, 384, 4096, 16)


def scan_backends_report(device: torch.device | str = "cpu") -> list[BackendReport]:
    """Per backend, in the order of `BACKENDS`: importable, probe, largest error, version, reason.

    Runs every probe that can run on the device (seconds at most; the first numba compile is kept on disk).
    """
    return [probe(backend, torch.device(device).type) for backend in BACKENDS]


def named_scans(used: set[str]) -> str | None:
    """The scan backends that ran, as one word for the record; None for a network without a scan."""
    return "+".join(sorted(used)) or None
