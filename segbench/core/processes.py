"""Whether a process that left its pid in a file still lives, and who can know that.

A pid says something only to an observer of the same process table: same host, same boot, same PID namespace.
"""

from __future__ import annotations

import socket
from pathlib import Path


def boot_id() -> str:
    """The id of this boot of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """What pids of this process are numbers of, such as `pid:[4026531836]`; "" where nobody tells."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def same_process_table(host: object, boot: object, namespace: object) -> bool:
    """Whether a pid noted there means the same process here; never where any of it is unknown."""
    here = (socket.gethostname(), boot_id(), pid_namespace())
    return all(here) and here == (host, boot, namespace)


def process_start(pid: int) -> str:
    """The start time of a process in the system's ticks, so that a reused pid is told apart; "" unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""
