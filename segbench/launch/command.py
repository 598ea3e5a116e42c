"""The one command every launcher starts, `segbench cell <run folder>`, and the ties to who started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.catalogue import ExitCode
from segbench.core.environment import BLAS_VARIABLES, THREADS

LAUNCHER, JOB, NODE, PARENT = "SEGBENCH_LAUNCHER", "SEGBENCH_JOB", "SEGBENCH_NODE", "SEGBENCH_PARENT"
"""Set for a started cell: the launcher's name, its job, the node, and the process to stop with."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class CellCommand:
    """How a cell is started on another host that shares the file system: plain values that travel.

    Attributes:
        folder: The run folder, absolute.
        directory: Working directory of the command that planned it (paths in `run.json` may be relative).
        arguments: Further arguments of `segbench cell`.
        variables: `SEGBENCH_*` variables of the command that planned it, and those that fix the threads.
    """

    folder: str
    directory: str
    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


def cell_command(folder: Path, arguments: Sequence[str] = (), *, threads: int | None = None) -> CellCommand:
    """The command for a run folder as this process would start it.

    Args:
        folder: The run folder.
        arguments: Further arguments of `segbench cell`.
        threads: Threads that the cell was planned with; the libraries below torch are held to them as well.
    """
    own = {LAUNCHER, JOB, NODE, PARENT}
    variables = {k: v for k, v in os.environ.items() if k.startswith("SEGBENCH_") and k not in own}
    if threads is not None:
        variables |= dict.fromkeys((THREADS, *BLAS_VARIABLES), str(threads))
    return CellCommand(
        str(folder.resolve()), str(Path.cwd()), tuple(arguments), tuple(sorted(variables.items()))
    )


def popen_cell(
    command: CellCommand, *, launcher: str, job: str = "", node: str = "", extra: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `segbench cell` as a child that stops, with a checkpoint, when this process dies.

    Args:
        command: What to start.
        launcher: Recorded in `run.json`, as are `job` and `node`.
        job: The launcher's name for the job.
        node: Where it runs, "" for this machine.
        extra: Further environment variables.
    """
    ties = {LAUNCHER: launcher, JOB: job, NODE: node, PARENT: str(os.getpid())}
    environment = {**os.environ, **dict(command.variables), **ties, **(extra or {})}
    line = [sys.executable, "-m", "segbench", "cell", command.folder, *command.arguments]
    return subprocess.Popen(line, env=environment, cwd=command.directory)


def wait_for_cell(child: subprocess.Popen[bytes]) -> int:
    """The child's exit status; no lock is held while waiting, since a signal handler may look at it too."""
    while (code := child.poll()) is None:
        time.sleep(0.1)
    return code


def run_when_free(
    command: CellCommand, *, launcher: str, job: str, node: str, patience_s: float = 900.0
) -> int:
    """Run a cell to its end and give its exit status; wait while a lost predecessor still holds the lease.

    A node that vanished leaves a lease behind, and a process that lost its parent needs a step to stop: for
    this long a locked run is tried again.
    """
    end = time.monotonic() + patience_s
    while True:
        code = wait_for_cell(popen_cell(command, launcher=launcher, job=job, node=node))
        if code != ExitCode.LOCKED or time.monotonic() > end:
            return code
        time.sleep(2.0)


def ask_to_stop(child: subprocess.Popen[bytes]) -> None:
    """Ask a cell to write a checkpoint and end.

    SIGUSR1 never counts as a second request, so a signal that had reached the whole process group already
    (Ctrl-C, a scheduler) does not turn into the one that stops without a checkpoint.
    """
    if child.poll() is None:
        child.send_signal(signal.SIGUSR1)


def stop_with_parent() -> None:
    """Let this process be asked to stop when the launcher's process dies (Linux; elsewhere nothing)."""
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the tie was made
        os.kill(os.getpid(), signal.SIGUSR1)
