"""One machine: each cell is a child process, so that a crash or a kill takes one cell only."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from segbench.launch.base import Job, Need
from segbench.launch.command import ask_to_stop, cell_command, popen_cell
from segbench.launch.gpus import Place, release, take_gpus, variables_of, visible_gpus


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
        self._found = visible_gpus() if gpus else []
        self.gpus = gpus if len(self._found) >= gpus else 0
        self.slots = slots or max(1, len(self._found) // gpus if self.gpus else 1)
        self._arguments = tuple(arguments)
        self._children: dict[str, tuple[subprocess.Popen[bytes], Place]] = {}
        self._numbers = count(1)

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        """Start a child process for each cell that finds a slot."""
        started: list[Job] = []
        for folder in cells:
            place = take_gpus(self._found, self.gpus)
            if place is None:
                break
            process = popen_cell(
                cell_command(folder, self._arguments, threads=need.threads),
                launcher=self.name,
                extra=variables_of(place),
            )
            job = Job(folder, f"{next(self._numbers)}:{process.pid}")
            self._children[job.name] = (process, place)
            started.append(job)
        return started

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        """Exit status of the children that have ended."""
        return [self._looked_at(job) for job in jobs]

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ask the children to stop at the next safe point and wait for them."""
        children = [self._children[job.name][0] for job in jobs]
        for child in children:
            ask_to_stop(child)
        for child in children:
            child.wait()

    def _looked_at(self, job: Job) -> Job:
        process, place = self._children[job.name]
        code = process.poll()
        if code is None:
            return job
        release(place)
        return job.ended(code)
