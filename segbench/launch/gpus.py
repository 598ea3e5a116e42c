"""The GPUs of this machine as places that two shells share: a place is a lease in the cache folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field

from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.records.lease import Lease, lease_holder

FULL = 0.9
"""Two cells share a GPU only when their measured peaks fill at most this part of it."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its index as in CUDA_VISIBLE_DEVICES, and its memory in bytes where the driver tells."""

    index: str
    memory_bytes: int | None


def visible_gpus() -> list[Gpu]:
    """The GPUs this process may use, asked of the driver; no torch."""
    memory: dict[str, int] = {}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        for line in done.stdout.splitlines() if done is not None and done.returncode == 0 else ():
            index, _, size = (part.strip() for part in line.partition(","))
            memory[index] = int(size) * 2**20 if size.isdigit() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = list(memory) if named is None else [part.strip() for part in named.split(",") if part.strip()]
    return [Gpu(index, memory.get(index) or None) for index in indices if index != "-1"]


@dataclass(slots=True)
class Place:
    """GPUs taken for one cell, with the leases that say so."""

    indices: tuple[str, ...]
    leases: list[Lease] = field(default_factory=list[Lease])
    device_bytes: int | None = None

    def release(self) -> None:
        """Give the GPUs back."""
        for lease in self.leases:
            lease.__exit__(None, None, None)
        self.leases.clear()


class GpuPool:
    """Hands out GPUs to cells; a GPU taken by another shell is passed over.

    Args:
        gpus: What there is.
        pack: Allow a second cell on a GPU when both peaks were measured and fit together.
    """

    def __init__(self, gpus: list[Gpu], *, pack: bool = False) -> None:
        self.gpus = gpus
        self.pack = pack
        self._folder = cache_dir() / "gpus" / socket.gethostname()
        """Where the leases of this machine's GPUs stand."""
        self._peaks: dict[str, list[int | None]] = {gpu.index: [] for gpu in gpus}

    def take(self, count: int, device_bytes: int | None) -> Place | None:
        """A place with `count` GPUs, or None when there is none now.

        Args:
            count: GPUs of the cell.
            device_bytes: Its measured peak; None: not known, or nothing may run beside it.
        """
        place = Place((), device_bytes=device_bytes)
        for gpu in self.gpus:
            if len(place.indices) == count:
                break
            lease = self._lease(gpu, device_bytes, alone=count > 1)
            if lease is not None:
                place.leases.append(lease)
                place.indices = (*place.indices, gpu.index)
        if len(place.indices) < count:
            place.release()
            return None
        for index in place.indices:
            self._peaks[index].append(device_bytes)
        return place

    def give_back(self, place: Place) -> None:
        """Free a place."""
        for index in place.indices:
            self._peaks[index].remove(place.device_bytes)
        place.release()

    def _lease(self, gpu: Gpu, device_bytes: int | None, *, alone: bool) -> Lease | None:
        beside = self._peaks[gpu.index]
        if beside and (alone or not self._fits_beside(gpu, device_bytes)):
            return None
        folders = [self._folder / f"gpu-{gpu.index}-{part}" for part in range(2)]
        free = [folder for folder in folders if lease_holder(folder) is None]
        if len(free) < len(folders) and not beside:  # another shell's cell, whose peak nobody here knows
            return None
        for folder in free:
            lease = Lease(folder)
            try:
                return lease.__enter__()
            except SegbenchError as error:
                if error.code != "SB603":
                    raise
        return None

    def _fits_beside(self, gpu: Gpu, device_bytes: int | None) -> bool:
        known = [*self._peaks[gpu.index], device_bytes]
        if not self.pack or len(known) > 2 or gpu.memory_bytes is None:
            return False
        return (
            all(peak is not None for peak in known) and sum(p or 0 for p in known) <= FULL * gpu.memory_bytes
        )
