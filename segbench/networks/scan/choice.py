"""Which backend runs: names, probes, `auto`, and what `segbench doctor` shows of it.

An import proves nothing: mamba-ssm can import and have no kernel, numba can import and fail to compile. So
every optional backend runs a small forward and backward first and is compared with `torch`. `auto` is the
first of a fixed order that passes: a machine gives the same backend always, whatever else runs on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Set
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
from segbench.networks.scan.arguments import ScanInputs

__all__ = ["BACKENDS", "BackendReport", "check_backend_name", "chosen_backend", "named_scans",
           "resolve_backend", "scan_backends_report", "scans_used"]  # fmt: skip

BACKENDS = ("reference", "torch", "numba", "triton", "mamba_ssm")
"""Every backend there is; `auto` picks one of them."""

PROBE_TOLERANCE = 1e-4
ORDER = {"cpu": ("numba", "torch"), "cuda": ("mamba_ssm", "triton", "torch")}
"""What `auto` tries on a device, in this order; `torch` runs everywhere."""
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
_decided: ContextVar[str | None] = ContextVar("segbench-scan-decided", default=None)


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
        reason = f"{type(failure).__name__}: {failure}"
        # mamba-ssm says in its last lines which command would build its kernel.
        reason = " ".join(reason.split()) if backend == "mamba_ssm" else reason.splitlines()[0]
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
    y = call_backend(backend, ScanInputs._make([*leaves, True]))
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
def scans_used(decided: str | None = None) -> Generator[set[str]]:
    """The backends that scans inside the block ran on, by name; empty for networks without a scan.

    Args:
        decided: What a run has taken so far, of its record: inside the block `auto` takes it where it runs.
    """
    used: set[str] = set()
    noted, before = _noted.set(used), _decided.set(decided)
    try:
        yield used
    finally:
        _noted.reset(noted)
        _decided.reset(before)


def call_backend(backend: str, inputs: ScanInputs) -> Tensor:
    """The scan on one named backend, no questions asked."""
    if backend in {"reference", "mamba_ssm"}:  # these differentiate themselves
        module = "reference" if backend == "reference" else "mamba_ssm_backend"
        return import_module(f"segbench.networks.scan.{module}").scan(inputs)
    from segbench.networks.scan.operator import selective_scan_op

    needed = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
    return selective_scan_op(*inputs, torch.is_grad_enabled() and needed, backend)[0]


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


def resolve_backend(requested: str, device_type: str, double: bool) -> str:
    """The backend that a call with this request runs on.

    Args:
        requested: `auto` or a name; `SEGBENCH_SCAN` stands for `auto` where it is set.
        device_type: Of the tensors; on `meta` nothing is computed and the name does not matter.
        double: Whether u is float64.

    Raises:
        BackendUnavailable: A backend named by the caller (or by `SEGBENCH_SCAN`) cannot run here.
        InputError: There is no backend of that name (SB104, a ValueError).
    """
    named = (os.environ.get("SEGBENCH_SCAN") or "auto") if requested == "auto" else requested
    check_backend_name(named, source="" if named == requested else " (from SEGBENCH_SCAN)")
    if device_type == "meta":
        return "reference" if named == "reference" else "torch"
    if named == "auto":
        decided, order = _decided.get(), ORDER.get(device_type, ("torch",))
        order = (decided, *order) if decided in BACKENDS else order
        return next(name for name in order if name == "torch" or _why_not(name, device_type, double) is None)
    reason = _why_not(named, device_type, double)
    if reason is not None:
        raise BackendUnavailable(
            f"scan backend '{named}' cannot run on {device_type}: {reason}",
            mend="install or repair it, or leave the choice to auto (segbench doctor shows what works)",
        )
    return named


def _why_not(backend: str, device_type: str, double: bool) -> str | None:
    """Why a backend cannot run a call; None where it can."""
    report = probe(backend, device_type)
    if report.probe and backend == "mamba_ssm":
        if double:
            return "takes no float64"
        if torch.are_deterministic_algorithms_enabled():
            return "adds gradients in no fixed order, and results are to repeat to the bit"
    return report.reason


def backend_of_call(requested: str, device_type: str, double: bool) -> str:
    """`resolve_backend` for a scan that runs now: noted for `scans_used`."""
    name = resolve_backend(requested, device_type, double)
    used = _noted.get()
    if used is not None and device_type != "meta":
        used.add(name)
    return name


def chosen_backend(device: torch.device | str, *, backend: str = "auto") -> str:
    """The name of the backend that a scan on this device runs on, for records and reports.

    Args:
        device: The device of the network.
        backend: What the network was built with.
    """
    return resolve_backend(backend, torch.device(device).type, False)


def scan_backends_report(device: torch.device | str = "cpu") -> list[BackendReport]:
    """Per backend, in the order of `BACKENDS`: importable, probe, largest error, version, reason.

    Runs every probe that can run on the device (seconds at most; the first numba compile is kept on disk).
    """
    return [probe(backend, torch.device(device).type) for backend in BACKENDS]


def named_scans(used: Set[str]) -> str | None:
    """The scan backends that ran, as one word for the record; None for a network without a scan."""
    return "+".join(sorted(used)) or None
