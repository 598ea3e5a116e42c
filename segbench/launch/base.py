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
        memory_bytes: Memory of the host, None when nothing was measured.
        hours: Time limit to ask for (the forecast x 1.3), None when nothing was measured.
    """

    gpus: int = 0
    cores: int = 1
    threads: int = 1
    memory_bytes: int | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a launcher can run at a time: cells, GPUs for each, and the memory of the host in bytes."""

    slots: int
    devices_per_slot: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class JobRef:
    """One started cell: its run folder and the launcher's own name for the job."""

    folder: Path
    job: str


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands.

    Attributes:
        ref: The job.
        phase: pending, running, done (the process ended by itself) or lost (killed, or its node is gone).
        reason: Why it waits or was lost, in the launcher's words.
        exit_code: Exit status of `segbench cell`, None where the launcher does not learn it.
    """

    ref: JobRef
    phase: JobPhase
    reason: str = ""
    exit_code: int | None = None


class Launcher(Protocol):
    """A way to run cells.

    Attributes:
        name: `local`, `slurm` or `ray`.
        detached: Whether jobs go on when the command that started them ends.
        poll_s: Seconds between two looks at the jobs.
    """

    name: str
    detached: bool
    poll_s: float

    def capacity(self) -> Capacity:
        """How many cells run at a time."""
        ...

    def start(self, cells: Sequence[Path], need: Need) -> list[JobRef]:
        """Start cells; those that find no place are left out and offered again later."""
        ...

    def poll(self, jobs: Sequence[JobRef]) -> list[JobState]:
        """The state of each job, in order."""
        ...

    def cancel(self, jobs: Sequence[JobRef]) -> None:
        """Ask the jobs to write a checkpoint and stop, and wait where the launcher can."""
        ...
