"""Selective scan on CPU against mambapy's parallel scan: CPU seconds, peers in turn, and memory.

    python benchmarks/scan.py [--repeats 7] [--threads N] [--backends auto,torch] [--quick]

Both sides get the same inputs in their natural layout, (b, l, d) in memory, and compute the same function:
mambapy's `MambaBlock.selective_scan` (no softplus, no gate). "block" rows add softplus, bias and gate as a
Mamba block has them: fused in ours, torch calls around mambapy's. Training gives gradients of all inputs.
Floors and aims: models.md 5.1. Exit 1 if a floor is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from segbench.networks.scan import chosen_backend, selective_scan

SHAPES = {"l4096": (1, 384, 4096, 16), "l512": (1, 768, 512, 16)}
FLOORS = {("l4096", "train"): 12.0, ("l512", "train"): 9.0, ("l4096", "infer"): 14.0, ("l512", "infer"): 10.0}
AIMS = {("l4096", "train"): 25.0, ("l512", "train"): 18.0, ("l4096", "infer"): 30.0, ("l512", "infer"): 30.0}
TORCH_FLOOR = 0.4
MEMORY_FLOOR = 1 / 8


def inputs(batch: int, channels: int, length: int, states: int) -> dict[str, Tensor]:
    """Token-major tensors as a Mamba block makes them, delta before softplus."""
    draw = torch.Generator().manual_seed(0)
    token = {
        name: torch.randn(batch, length, size, generator=draw)
        for name, size in (("u", channels), ("raw", channels), ("z", channels), ("B", states), ("C", states))
    }
    token["raw"] = token["raw"] * 0.5 - 4.0
    token["delta"] = functional.softplus(token["raw"])
    token["A"] = -torch.arange(1.0, states + 1).repeat(channels, 1)
    token["D"] = torch.ones(channels)
    token["bias"] = torch.zeros(channels)
    return {name: tensor.requires_grad_() for name, tensor in token.items() if name != "delta"} | {
        "delta": token["delta"].detach().requires_grad_()
    }


def peer(given: dict[str, Tensor], block: bool) -> Tensor:
    from mambapy.mamba import MambaBlock

    delta = functional.softplus(given["raw"] + given["bias"]) if block else given["delta"]
    y = MambaBlock.selective_scan(None, given["u"], delta, given["A"], given["B"], given["C"], given["D"])
    return y * functional.silu(given["z"]) if block else y


def ours(given: dict[str, Tensor], block: bool, backend: str) -> Tensor:
    delta, u, B, C = (given[name].transpose(1, 2) for name in ("raw" if block else "delta", "u", "B", "C"))
    if block:
        z = given["z"].transpose(1, 2)
        y = selective_scan(u, delta, given["A"], B, C, given["D"], z, given["bias"], True, backend=backend)
    else:
        y = selective_scan(u, delta, given["A"], B, C, given["D"], backend=backend)
    return y.transpose(1, 2)


def step(call: Callable[[], Tensor], given: dict[str, Tensor], train: bool) -> None:
    if not train:
        with torch.no_grad():
            call()
        return
    for tensor in given.values():
        tensor.grad = None
    call().sum().backward()


def seconds(call: Callable[[], Tensor], given: dict[str, Tensor], train: bool) -> float:
    begin = time.process_time()
    step(call, given, train)
    return time.process_time() - begin


def agreement(given: dict[str, Tensor], backend: str) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    with torch.no_grad():
        theirs, mine = peer(given, False), ours(given, False, backend)
        return float((theirs - mine).abs().max() / theirs.abs().max())


def compare(shape: str, mode: str, block: bool, backends: list[str], repeats: int) -> dict[str, float]:
    """Median CPU seconds per contender, measured in turn."""
    given = inputs(*SHAPES[shape])
    calls: dict[str, Callable[[], Tensor]] = {"mambapy": lambda: peer(given, block)}
    for backend in backends:
        calls[backend] = lambda backend=backend: ours(given, block, backend)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        step(call, given, mode == "train")
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(call, given, mode == "train"))
    return {name: statistics.median(values) for name, values in taken.items()}


def growth(contender: str) -> None:
    """Print how much the resident memory of a fresh process grows over one forward + backward at l4096."""
    warm, given = inputs(1, 16, 64, 16), inputs(*SHAPES["l4096"])

    def run(tensors: dict[str, Tensor]) -> None:
        step(
            (lambda: peer(tensors, False))
            if contender == "mambapy"
            else lambda: ours(tensors, False, contender),
            tensors,
            True,
        )

    run(warm)  # libraries and compiled code are not the scan's memory
    before = peak_kib()
    run(given)
    print(json.dumps(peak_kib() - before))


def peak_kib() -> int:
    """The process's own peak (ru_maxrss would start at that of whoever started it)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def memory(contender: str, threads: int) -> float:
    command = [sys.executable, __file__, "--growth", contender, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout) / 1024


def save(path: Path, numbers: dict[str, object], threads: int) -> None:
    """The numbers with the machine they were taken on."""
    from segbench.core.atomic import atomic_write_json
    from segbench.core.environment import machine, versions

    environment = {**machine(), "threads": threads, "load": os.getloadavg()[0], "versions": versions()}
    peer_version = {"peer": f"mambapy {metadata.version('mambapy')}"}
    document = {"schema": "segbench.benchmark.scan/1", "environment": environment, **peer_version, **numbers}
    atomic_write_json(path, document)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backends", default="auto,torch")
    parser.add_argument("--quick", action="store_true", help="without the block rows and memory")
    parser.add_argument("--output", type=Path, help="also write the numbers, with the machine, as JSON")
    parser.add_argument("--growth", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.growth:
        growth(options.growth)
        return 0
    backends = options.backends.split(",")
    print(f"threads {options.threads}, load {os.getloadavg()[0]:.1f}, auto is {chosen_backend('cpu')}")
    print(f"outputs differ from mambapy by {agreement(inputs(*SHAPES['l4096']), 'auto'):.1e} (relative)")
    print(
        f"{'shape':7}{'mode':7}{'what':7}{'mambapy':>10}" + "".join(f"{b:>10}{'ratio':>8}" for b in backends)
    )
    missed, rows = [], []
    for block in (False,) if options.quick else (False, True):
        for (shape, mode), floor in FLOORS.items():
            taken = compare(shape, mode, block, backends, options.repeats)
            peers = taken.pop("mambapy")
            ratios = {name: peers / value for name, value in taken.items()}
            cells = "".join(f"{taken[b] * 1e3:8.1f}ms{ratios[b]:7.1f}x" for b in backends)
            what = "block" if block else "scan"
            rows += [
                {"shape": shape, "mode": mode, "what": what, "peer_cpu_s": peers, "backend": name}
                | {"cpu_s": taken[name], "ratio": ratios[name]}
                for name in backends
            ]
            print(f"{shape:7}{mode:7}{what:7}{peers * 1e3:8.1f}ms{cells}")
            if not block and "auto" in ratios and ratios["auto"] < floor:
                missed.append(f"{shape} {mode} {ratios['auto']:.1f}x is below {floor:g}x")
            if not block and mode == "train" and ratios.get("torch", TORCH_FLOOR) < TORCH_FLOOR:
                missed.append(f"{shape} torch {ratios['torch']:.2f}x is below {TORCH_FLOOR}x")
    grown: dict[str, float] = {}
    if not options.quick:
        theirs, mine = (memory(name, options.threads) for name in ("mambapy", "auto"))
        share = mine / theirs
        print(f"memory growth: mambapy {theirs:.0f} MiB, auto {mine:.0f} MiB: 1/{1 / share:.1f}")
        grown = {"mambapy_growth_mib": theirs, "auto_growth_mib": mine}
        if share > MEMORY_FLOOR:
            missed.append(f"memory share {share:.3f} is above 1/8")
    if options.output:
        save(options.output, {"rows": rows, **grown}, options.threads)
    for line in missed:
        print("FLOOR MISSED:", line)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
