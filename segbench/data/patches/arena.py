"""Memory that worker processes write samples into and this process reads them from, without a copy between.

One anonymous file, cut into slots of equal size. A slot belongs to one sample from the moment its task is
made until the batch that holds it was used. Pages that nobody wrote cost nothing, so slots are as large as
the largest sample could be.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Arena", "Placed"]

Array = npt.NDArray[Any]
Placed = tuple[tuple[tuple[int, ...], str], ...]
"""Shape and type of each array in a slot, one after the other."""

_ALIGNED = 64


class Arena:
    """Slots of shared memory; travels to a process that is being started, and to no other.

    Args:
        slots: How many samples there may be at a time.
        slot_bytes: Room for one.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(os, "memfd_create"):  # /dev/shm is 64 MB in many containers; this is not in it
            descriptor = os.memfd_create("segbench-samples")
        else:
            descriptor, name = tempfile.mkstemp(prefix="segbench-samples-")
            Path(name).unlink()
        os.ftruncate(descriptor, slots * self.slot_bytes)
        self._open(descriptor)

    @staticmethod
    def possible() -> bool:
        """Whether a process can be given the memory here (not on Windows)."""
        return os.name == "posix"

    def put(self, slot: int, arrays: Sequence[Array]) -> Placed:
        """Write arrays into a slot; what `take` needs to find them."""
        placed = tuple((array.shape, array.dtype.str) for array in arrays)
        for view, array in zip(self.take(slot, placed), arrays, strict=True):
            view[...] = array
        return placed

    def take(self, slot: int, placed: Placed) -> tuple[Array, ...]:
        """The arrays in a slot, as views: they change when the slot is written again."""
        start, end = slot * self.slot_bytes, (slot + 1) * self.slot_bytes
        found: list[Array] = []
        for shape, kind in placed:
            view = np.ndarray(shape, dtype=np.dtype(kind), buffer=self._memory, offset=start)
            start += -(-view.nbytes // _ALIGNED) * _ALIGNED
            found.append(view)
        if start > end:
            raise ValueError(f"a slot holds {self.slot_bytes} bytes")
        return tuple(found)

    def _open(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.slots * self.slot_bytes)
        self._descriptor = descriptor

    def __getstate__(self) -> dict[str, Any]:
        handle = reduction.DupFd(self._descriptor)
        return {"slots": self.slots, "slot_bytes": self.slot_bytes, "handle": handle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.slots, self.slot_bytes = state["slots"], state["slot_bytes"]
        self._open(state["handle"].detach())

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)  # the mapping goes when the last view of it does
