"""What a row was measured on: the machine, what a GPU's driver tells, and what is known to be treacherous."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import nn

from segbench.core.environment import machine, versions
from segbench.networks.blocks.fast import named_ways

__all__ = ["EnergyCounter", "environment_facts", "hazards_of", "machine_slug", "other_processes",
           "process_bytes"]  # fmt: skip


def environment_facts(device: torch.device) -> dict[str, Any]:
    """Processor, threads, versions, load, library switches, what `SEGBENCH_FAST` turned on, and the GPU."""
    facts: dict[str, Any] = {
        **machine(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_conv": torch.backends.cudnn.allow_tf32,
        "tf32_matmul": torch.get_float32_matmul_precision() != "highest",
        **({"fast": fast} if (fast := named_ways()) else {}),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "gpu_clock_mhz": _told(device, "nvmlDeviceGetClockInfo", 1),  # NVML_CLOCK_SM, of multiprocessors
        }
    return facts


def machine_slug(environment: dict[str, Any]) -> str:
    """A folder name for a machine: its GPU, or its processor and number of cores."""
    name = str(environment.get("gpu") or f"{environment.get('cpu')}-{environment.get('cores')}-cores")
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def hazards_of(network: nn.Module, dtype: str, device: torch.device, shape: tuple[int, ...]) -> list[str]:
    """Known weaknesses of PyTorch that this network meets at this size and type.

    **Source:** pytorch issues 167420 (dilated conv3d with bias), 59168 (instance norm), 163539 (large bf16).
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    found = []
    sixteen = dtype in {"bf16", "fp16"}
    if sixteen and device.type == "cuda":
        dilated = sum(c.bias is not None and max(map(int, c.dilation)) > 1 for c in convolutions)
        if dilated:
            found.append(f"{dilated} dilated conv3d with bias: very slow in 16 bits (pytorch 167420)")
        widest = max((c.out_channels for c in convolutions), default=0)
        if widest and shape[0] * widest * shape[2] * shape[3] * shape[4] >= 2**31:
            found.append("conv3d of 2^31 elements or more: silently wrong in bf16 on some versions (163539)")
    return found


def _driver(device: torch.device) -> tuple[Any, Any, str | None]:
    """NVML, the handle of a GPU or of a slice of one (MIG), and why there is none."""
    if device.type != "cuda":
        return None, None, "no energy counter is read on this kind of device"
    try:
        # Of the extra `gpu`; torch does not bring it.
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None, None, "NVML cannot be asked: pip install 'segbench[gpu]' (nvidia-ml-py)"
    identity, failure = "", ""
    try:
        pynvml.nvmlInit()
        identity = str(torch.cuda.get_device_properties(device).uuid)
        for kind in ("GPU", "MIG"):
            try:
                return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"{kind}-{identity}".encode()), None
            except pynvml.NVMLError as error:
                failure = str(error)
    except Exception as error:  # any missing driver or right means: nothing is told
        failure = f"{type(error).__name__}: {error}"
    return None, None, f"NVML does not know the device {identity}: {failure}"


def _told(device: torch.device, question: str, *arguments: Any) -> Any:
    """What the driver says of a device; None where it cannot be asked or does not tell."""
    nvml, handle, _ = _driver(device)
    if nvml is None:
        return None
    try:
        return getattr(nvml, question)(handle, *arguments)
    except nvml.NVMLError:
        return None


def other_processes(device: torch.device) -> bool | None:
    """Whether processes other than this one compute on the device; None where the driver does not tell."""
    running = _told(device, "nvmlDeviceGetComputeRunningProcesses")
    return None if running is None else any(process.pid != os.getpid() for process in running)


def process_bytes(device: torch.device) -> int | None:
    """This process's memory on a GPU as the driver counts it, or None where it does not tell."""
    running = _told(device, "nvmlDeviceGetComputeRunningProcesses") or ()
    return next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)


class EnergyCounter:
    """The device's total-energy counter, read before and after; never estimated.

    Attributes:
        reason: why there is no counter, or None.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin: float | None = None
        self.reason = _driver(device)[2]

    def start(self) -> None:
        """Take the level from which is counted."""
        self._begin = self._read()

    def joules(self) -> float | None:
        """Joules since `start`, or None."""
        now = self._read()
        return None if now is None or self._begin is None else now - self._begin

    def _read(self) -> float | None:
        if self.reason is not None:
            return None
        millijoules = _told(self._device, "nvmlDeviceGetTotalEnergyConsumption")
        if millijoules is None:
            self.reason = "the driver gives no total energy of this device (a MIG slice has none of its own)"
        return None if millijoules is None else millijoules / 1e3
