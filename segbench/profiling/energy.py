"""Joules by the device's own counter; where there is none, null and the reason. Never estimated."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["EnergyCounter", "device_handle", "other_processes"]


def device_handle(device: torch.device) -> tuple[Any, Any]:
    """NVML and the handle of a GPU, or (None, None) where they cannot be had."""
    if device.type != "cuda":
        return None, None
    try:
        # It comes with CUDA builds of torch, or not at all.
        import pynvml  # pyright: ignore[reportMissingImports]

        pynvml.nvmlInit()
        identity = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}".encode())
    except Exception:  # any missing driver, library or right means: no counter
        return None, None


def other_processes(device: torch.device) -> bool | None:
    """Whether processes other than this one compute on the device; None where the driver does not tell."""
    import os

    nvml, handle = device_handle(device)
    if nvml is None:
        return None
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    return any(process.pid != os.getpid() for process in running)


class EnergyCounter:
    """The device's total-energy counter, read before and after.

    Attributes:
        reason: why there is no counter, or None.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml, self._handle = device_handle(device)
        self._begin: float | None = None
        self.reason: str | None = None
        if device.type != "cuda":
            self.reason = "no energy counter is read on this kind of device"
        elif self._nvml is None:
            self.reason = "NVML cannot be reached (package nvidia-ml-py)"

    def start(self) -> None:
        """Take the level from which is counted."""
        self._begin = self._read()

    def joules(self) -> float | None:
        """Joules since `start`, or None."""
        now = self._read()
        return None if now is None or self._begin is None else now - self._begin

    def _read(self) -> float | None:
        if self._nvml is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            self.reason = f"the driver gives no total energy: {error}"
            return None
