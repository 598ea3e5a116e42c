"""One machine: each cell is a child process, so that a crash or a kill takes one cell only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.environment import thread_count
from segbench.core.interrupt import Interrupted, StopRequest


@dataclass(slots=True)
class _Child:
    folder: Path
    process: subprocess.Popen[bytes]


def run_local(folders: Sequence[Path], *, slots: int, extra: Sequence[str] = ()) -> dict[Path, int]:
    """Run cells in child processes, at most `slots` at a time; give each one's exit status.

    A signal is passed on to the children, which checkpoint and stop; then `Interrupted` is raised.

    Args:
        folders: Run folders in order.
        slots: Cells at a time; the cores are shared out between them.
        extra: Further arguments of `segbench cell`.

    Returns:
        Exit status per folder (negative: killed by that signal).
    """
    environment = dict(os.environ)
    if slots > 1:
        environment["SEGBENCH_THREADS"] = str(max(1, thread_count() // slots))
    waiting, running, ended = list(folders), list[_Child](), dict[Path, int]()
    with StopRequest() as stop:
        while waiting or running:
            while waiting and len(running) < slots and not stop.asked:
                folder = waiting.pop(0)
                command = [sys.executable, "-m", "segbench", "cell", str(folder), *extra]
                running.append(_Child(folder, subprocess.Popen(command, env=environment)))
            time.sleep(0.05)
            if stop.number is not None:
                _pass_on(running, stop.number)
                for child in running:
                    ended[child.folder] = child.process.wait()
                raise Interrupted(stop.number)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                ended[child.folder] = child.process.returncode
    return ended


def _pass_on(children: Sequence[_Child], number: int) -> None:
    """Hand the signal on once; a terminal's Ctrl-C has reached the whole process group already."""
    if number == signal.SIGINT and sys.stdin.isatty():
        return
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(number)
