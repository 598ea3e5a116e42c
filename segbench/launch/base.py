"""What a launcher is: a way to start `segbench cell <run folder>`, and to see whether it still runs.

The run folders are the truth. A launcher keeps no state that matters: a driver may die, another may come, a
cell may be started by hand; the lease in the run folder decides who works on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

JobPhase = Literal["pending", "running", "done", "lost"]


@dataclass(frozen=True, slots=True)
class Need:
    """What one cell needs.

    Attributes:
        gpus: GPUs, 0 for a cell on the CPU.
        cores: Processor cores.
        threads: Threads for compute as planned; kept on workers with fewer cores, so that the numbers are.
        hours: Time limit to ask for (the forecast x 1.3), None when nothing was measured.
    """

    gpus: int = 0
    cores: int = 1
    threads: int = 1
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One started cell, and where it stands.

    Attributes:
        folder: The run folder.
        name: The launcher's own name for the job.
        phase: pending, running, done (the process ended by itself) or lost (killed, or its node is gone).
        reason: Why it waits or was lost, in the launcher's words.
        exit_code: Exit status of `segbench cell`, None where the launcher does not learn it.
    """

    folder: Path
    name: str
    phase: JobPhase = "running"
    reason: str = ""
    exit_code: int | None = None

    def now(self, phase: JobPhase, reason: str = "", exit_code: int | None = None) -> Job:
        """The same job as it stands now."""
        return Job(self.folder, self.name, phase, reason, exit_code)

    def ended(self, exit_code: int) -> Job:
        """The same job after its process ended; a negative status means killed by that signal."""
        if exit_code < 0:
            return self.now("lost", f"killed by signal {-exit_code}", exit_code)
        return self.now("done", exit_code=exit_code)


UNLIMITED = 100_000
"""Slots of a launcher that takes every cell at once and lets others decide how many run at a time."""


class Launcher(Protocol):
    """A way to run cells.

    Attributes:
        name: `local`, `slurm` or `ray`.
        detached: Whether jobs go on when the command that started them ends.
        poll_s: Seconds between two looks at the jobs.
        slots: Cells that run at a time.
    """

    name: str
    detached: bool
    poll_s: float
    slots: int

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        """Start cells; those that find no place are left out and offered again later."""
        ...

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        """Each job as it stands now, in order."""
        ...

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ask the jobs to write a checkpoint and stop, and wait where the launcher can."""
        ...
