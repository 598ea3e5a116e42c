"""The GPUs of this machine, shared out among shells: one that is taken has a lease in the cache folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence

from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.records.lease import Lease, lease_holder

Place = dict[str, Lease]
"""GPUs taken for one cell, each with the lease that says so."""


_GPU, _SLICE = re.compile(r"GPU (\d+):"), re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as in CUDA_VISIBLE_DEVICES, else of the driver; no torch.

    Of the driver: indices, and the identities of the slices of a GPU that is shared out (MIG).
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in {"", "-1"}]
    if not shutil.which("nvidia-smi"):
        return []
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[list[str]] = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        if gpu := _GPU.match(line):
            found.append([gpu[1]])
        elif (part := _SLICE.match(line)) and found:
            found[-1] = [name for name in found[-1] if name.startswith("MIG-")] + [part[1]]
    return [name for names in found for name in names]


def variables_of(place: Place) -> dict[str, str]:
    """What a process must be told to see these GPUs alone.

    nvidia-smi counts in the order of the PCI bus, CUDA by default the fastest first: on a machine with unlike
    GPUs the same number would be another device. A number that the user named is in the user's order.
    """
    if not place:
        return {}
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {"CUDA_VISIBLE_DEVICES": ",".join(place), **order}


def release(place: Place) -> None:
    """Give the GPUs back."""
    for lease in place.values():
        lease.__exit__(None, None, None)
    place.clear()


def take_gpus(gpus: Sequence[str], count: int) -> Place | None:
    """A place with `count` of the GPUs, or None when there is none now; what any shell has is passed over."""
    place: Place = {}
    for gpu in gpus:
        if len(place) == count:
            break
        lease = _lease(gpu)
        if lease is not None:
            place[gpu] = lease
    if len(place) < count:
        release(place)
        return None
    return place


def _lease(gpu: str) -> Lease | None:
    folder = cache_dir() / "gpus" / socket.gethostname() / f"gpu-{gpu}"
    if lease_holder(folder) is not None:
        return None
    try:
        return Lease(folder).__enter__()
    except SegbenchError as error:
        if error.code != "SB603":
            raise
        return None
