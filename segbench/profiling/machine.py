"""What a row was measured on, and what of it is known to be treacherous."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import nn

from segbench.core.environment import machine, versions

__all__ = ["environment_facts", "hazards_of", "machine_slug"]


def environment_facts(device: torch.device) -> dict[str, Any]:
    """Processor, threads, versions, load, and for a GPU its name, driver, clocks and library switches."""
    facts: dict[str, Any] = {
        **machine(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_conv": torch.backends.cudnn.allow_tf32,
        "tf32_matmul": torch.get_float32_matmul_precision() != "highest",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "gpu_clock_mhz": _clock(device),
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


def _clock(device: torch.device) -> int | None:
    from segbench.profiling.energy import device_handle

    nvml, handle = device_handle(device)
    if nvml is None:
        return None
    try:
        return int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
    except nvml.NVMLError:
        return None
