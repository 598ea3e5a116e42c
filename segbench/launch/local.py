"""One machine: each cell is a child process, so that a crash or a kill takes one cell only."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from segbench.core.environment import memory_bytes
from segbench.launch.base import Capacity, JobRef, JobState, Need
from segbench.launch.command import ask_to_stop, cell_command, popen_cell
from segbench.launch.gpus import GpuPool, Place, visible_gpus


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    place: Place | None


class LocalLauncher:
    """Child processes, one per slot: a slot is a GPU, or room for one more cell on the CPU.

    Args:
        slots: Cells at a time; None: one per GPU where the cells want GPUs, else one.
        gpus: GPUs of one cell, 0 when it runs on the CPU.
        arguments: Further arguments of `segbench cell`.
    """

    name = "local"
    detached = False
    poll_s = 0.05

    def __init__(self, *, slots: int | None = None, gpus: int = 0, arguments: Sequence[str] = ()) -> None:
        found = visible_gpus() if gpus else []
        self.gpus = gpus if len(found) >= gpus else 0
        self.slots = slots or max(1, len(found) // gpus if self.gpus else 1)
        self._pool = GpuPool(found) if self.gpus else None
        self._arguments = tuple(arguments)
        self._children: dict[str, _Child] = {}
        self._numbers = count(1)

    def capacity(self) -> Capacity:
        """Cells at a time on this machine."""
        return Capacity(self.slots, self.gpus, memory_bytes())

    def start(self, cells: Sequence[Path], need: Need) -> list[JobRef]:
        """Start a child process for each cell that finds a slot."""
        started: list[JobRef] = []
        for folder in cells:
            place = None
            if self._pool is not None:
                place = self._pool.take(self.gpus)
                if place is None:
                    break
            process = popen_cell(
                cell_command(folder, self._arguments, threads=need.threads),
                launcher=self.name,
                extra={} if place is None else {"CUDA_VISIBLE_DEVICES": ",".join(place.indices)},
            )
            ref = JobRef(folder, f"{next(self._numbers)}:{process.pid}")
            self._children[ref.job] = _Child(process, place)
            started.append(ref)
        return started

    def poll(self, jobs: Sequence[JobRef]) -> list[JobState]:
        """Exit status of the children that have ended; a negative one means killed by that signal."""
        return [self._state(ref) for ref in jobs]

    def cancel(self, jobs: Sequence[JobRef]) -> None:
        """Ask the children to stop at the next safe point and wait for them."""
        children = [self._children[ref.job] for ref in jobs]
        for child in children:
            ask_to_stop(child.process)
        for child in children:
            child.process.wait()

    def _state(self, ref: JobRef) -> JobState:
        child = self._children[ref.job]
        code = child.process.poll()
        if code is None:
            return JobState(ref, "running")
        if child.place is not None:
            child.place.release()
            child.place = None
        if code < 0:
            return JobState(ref, "lost", f"killed by signal {-code}", code)
        return JobState(ref, "done", exit_code=code)
