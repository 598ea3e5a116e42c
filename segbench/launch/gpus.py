"""The GPUs of this machine, shared out among shells: one that is taken has a lease in the cache folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.records.lease import Lease, lease_holder


def visible_gpus() -> list[str]:
    """Indices of the GPUs this process may use, as in CUDA_VISIBLE_DEVICES, else of the driver; no torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in {"", "-1"}]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


@dataclass(slots=True)
class Place:
    """GPUs taken for one cell, with the leases that say so."""

    indices: tuple[str, ...]
    leases: list[Lease] = field(default_factory=list[Lease])

    def release(self) -> None:
        """Give the GPUs back."""
        for lease in self.leases:
            lease.__exit__(None, None, None)
        self.leases.clear()


class GpuPool:
    """Hands out GPUs to cells; a GPU that any shell has taken is passed over.

    Args:
        gpus: Indices of what there is.
    """

    def __init__(self, gpus: Sequence[str]) -> None:
        self.gpus = tuple(gpus)
        self._folder = cache_dir() / "gpus" / socket.gethostname()
        """Where the leases of this machine's GPUs stand."""

    def take(self, count: int) -> Place | None:
        """A place with `count` GPUs, or None when there is none now."""
        place = Place(())
        for gpu in self.gpus:
            if len(place.indices) == count:
                break
            lease = self._lease(self._folder / f"gpu-{gpu}")
            if lease is not None:
                place.leases.append(lease)
                place.indices = (*place.indices, gpu)
        if len(place.indices) < count:
            place.release()
            return None
        return place

    def _lease(self, folder: Path) -> Lease | None:
        if lease_holder(folder) is not None:
            return None
        try:
            return Lease(folder).__enter__()
        except SegbenchError as error:
            if error.code != "SB603":
                raise
            return None
