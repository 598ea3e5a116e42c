"""Whole volumes per second, by the project's own sliding window on a synthetic volume."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from segbench.engine.predictor import predict_case, window_starts
from segbench.profiling.energy import EnergyCounter
from segbench.profiling.request import ProfileRequest
from segbench.profiling.schema import ThroughputFacts

__all__ = ["measure_volume", "windows_in"]

FLIPS = 8
"""Mirrored views with all three axes: every subset of them."""


def windows_in(volume: tuple[int, int, int], patch: tuple[int, int, int], overlap: float) -> int:
    """How many windows cover a volume; axes shorter than the window are padded to it."""
    count = 1
    for length, window in zip(volume, patch, strict=True):
        count *= len(window_starts(max(length, window), window, overlap))
    return count


def measure_volume(
    network: nn.Module, request: ProfileRequest, device: torch.device, windows_per_s: float
) -> tuple[ThroughputFacts, float | None]:
    """Throughput of one whole volume, and the joules it took (None without a counter).

    Includes flips, blending, the transfer of windows and of finished planes, and the decision; the volume is
    noise, on the host.
    """
    assert request.sliding is not None
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((request.input_shape[1], *request.sliding), dtype=np.float32)
    flips = ("z", "y", "x") if request.tta == "flips" else ()
    counter = EnergyCounter(device)
    counter.start()
    begin = time.perf_counter()
    predict_case(
        network,
        volume,
        patch=request.patch,
        num_outputs=request.out_channels,
        overlap=request.overlap,
        mirror_axes=flips,
        window_batch=request.input_shape[0],
        device=device,
        precision=request.dtype,
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - begin
    facts = ThroughputFacts(
        windows_per_s=windows_per_s,
        volumes_per_s=1 / seconds,
        volume_shape=list(request.sliding),
        windows_per_volume=windows_in(request.sliding, request.patch, request.overlap),
        tta_factor=FLIPS if flips else 1,
        overlap=request.overlap,
    )
    return facts, counter.joules()
