"""Which backend runs: names, probes, `auto`, and what `segbench doctor` shows of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import torch

from segbench.core.errors import BackendUnavailable

__all__ = ["BACKENDS", "BackendReport", "chosen_backend", "resolve_backend", "scan_backends_report"]

BACKENDS = ("reference", "torch", "numba", "triton", "mamba_ssm")
"""Every backend there is; `auto` picks one of them."""


@dataclass(frozen=True)
class BackendReport:
    """What one backend can do on one device."""

    backend: str
    importable: bool
    probe: bool
    max_error: float | None
    version: str | None
    reason: str | None


@cache
def probe(backend: str, device_type: str) -> BackendReport:
    """Whether a backend really runs on a kind of device, found out once per process."""
    if backend in {"reference", "torch", "numba"}:
        return BackendReport(backend, True, True, 0.0, torch.__version__, None)
    return BackendReport(backend, False, False, None, None, "not built yet")


def resolve_backend(requested: str, device_type: str, channels: int, length: int, states: int) -> str:
    """The backend that a call with this request runs on.

    Raises:
        BackendUnavailable: A backend named by the caller (or by `SEGBENCH_SCAN`) cannot run here.
        ValueError: There is no backend of that name.
    """
    named = os.environ.get("SEGBENCH_SCAN") or "auto" if requested == "auto" else requested
    if named == "auto":
        return _automatic(device_type, channels, length, states)
    if named not in BACKENDS:
        raise ValueError(f"no scan backend '{named}'; there are auto, {', '.join(BACKENDS)}")
    if device_type == "meta":
        return "torch"
    report = probe(named, device_type)
    if not report.probe:
        raise BackendUnavailable(f"scan backend '{named}' cannot run on {device_type}: {report.reason}")
    return named


def _automatic(device_type: str, channels: int, length: int, states: int) -> str:
    if device_type == "cpu" and probe("numba", "cpu").probe:
        return "numba"
    return "torch"


def chosen_backend(device: torch.device | str, *, backend: str = "auto") -> str:
    """The name of the backend that a scan on this device runs on, for records and reports.

    Args:
        device: The device of the network.
        backend: What the network was built with.
    """
    return resolve_backend(backend, torch.device(device).type, 384, 4096, 16)


def scan_backends_report(device: torch.device | str = "cpu") -> list[BackendReport]:
    """Per backend: importable, probe, maximum error against `torch`, version, reason."""
    return [probe(backend, torch.device(device).type) for backend in BACKENDS]
