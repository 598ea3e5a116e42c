"""How long one call takes: warm-up until it settles, then medians, percentiles and a bootstrap interval."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from segbench.profiling.schema import LatencyFacts

__all__ = ["Timing", "measure_latency", "summarise"]

AGREEMENT = 0.05  # three consecutive calls within 5 % end the warm-up
WIDE_INTERVAL = 0.10
RESAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """How long to warm up and to measure."""

    least_warm_up: int
    most_warm_up: int
    warm_up_s: float
    iterations: int
    seconds: float

    @classmethod
    def of(cls, device: torch.device) -> Timing:
        """The pinned numbers: a GPU needs many calls to settle, a processor's call takes seconds."""
        if device.type == "cuda":
            return cls(least_warm_up=10, most_warm_up=50, warm_up_s=30, iterations=50, seconds=10)
        return cls(least_warm_up=2, most_warm_up=50, warm_up_s=20, iterations=5, seconds=20)


def measure_latency(
    call: Callable[[], object],
    device: torch.device,
    *,
    first_call_s: float,
    timing: Timing | None = None,
    shared: bool | None = None,
) -> LatencyFacts:
    """Percentiles of a call's time after a warm-up.

    At least one call is timed; more follow until there are `iterations`, or `seconds` have passed.

    Args:
        call: What to time.
        device: Where it computes.
        first_call_s: Seconds of the very first call, reported apart.
        timing: Numbers other than the pinned ones.
        shared: Whether other processes use the device, where that is known.
    """
    timing = timing or Timing.of(device)
    _warm_up(call, device, timing)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    seconds, cpu = _timed_on_cuda(call, timing) if device.type == "cuda" else _timed(call, device, timing)
    return summarise(seconds, cpu, first_call_s=first_call_s, load=load, shared=shared)


def summarise(
    seconds: list[float], cpu: list[float] | None, *, first_call_s: float, load: float, shared: bool | None
) -> LatencyFacts:
    """The facts of measured times; what makes them doubtful is named, never hidden."""
    times = np.asarray(seconds)
    draws = np.random.default_rng(0).choice(times, (RESAMPLES, times.size))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    median = float(np.median(times))
    doubts = []
    # This process itself is part of the load.
    cores = os.cpu_count() or 1
    if load > cores:
        doubts.append(f"load average {load:.1f} on {cores} cores")
    if shared:
        doubts.append("other processes use the device")
    if high - low > WIDE_INTERVAL * median:
        doubts.append(f"interval {(high - low) / median:.0%} of the median")
    if times.size < 3:
        doubts.append(f"only {times.size} timed")
    p10, p90, p99 = (float(value) for value in np.percentile(times, [10, 90, 99]))
    return LatencyFacts(
        median_s=median,
        p10_s=p10,
        p90_s=p90,
        p99_s=p99,
        ci_low_s=float(low),
        ci_high_s=float(high),
        n=times.size,
        first_call_s=first_call_s,
        cpu_s=None if cpu is None else float(np.median(cpu)),
        stable=not doubts,
        unstable_because=doubts,
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm_up(call: Callable[[], object], device: torch.device, timing: Timing) -> None:
    begin, last = time.perf_counter(), []
    for count in range(1, timing.most_warm_up + 1):
        start = time.perf_counter()
        call()
        synchronise(device)
        last = [*last[-2:], time.perf_counter() - start]
        settled = len(last) == 3 and max(last) - min(last) <= AGREEMENT * min(last)
        enough = count >= timing.least_warm_up
        if (enough and settled) or time.perf_counter() - begin > timing.warm_up_s:
            return


def _timed(
    call: Callable[[], object], device: torch.device, timing: Timing
) -> tuple[list[float], list[float] | None]:
    seconds: list[float] = []
    cpu: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < timing.iterations and (not seconds or time.perf_counter() - begin < timing.seconds):
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return seconds, cpu if device.type == "cpu" else None


def _timed_on_cuda(call: Callable[[], object], timing: Timing) -> tuple[list[float], None]:
    """Events around every iteration, one wait at the end: the device is never idle between iterations."""
    events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    begin = time.perf_counter()
    while len(events) < timing.iterations and (not events or time.perf_counter() - begin < timing.seconds):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        events.append((first, last))
    torch.cuda.synchronize()
    return [first.elapsed_time(last) / 1e3 for first, last in events], None
