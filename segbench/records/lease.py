"""One writer per run: a lease file that names its holder, with a heartbeat, and no trust in clocks.

`lease.json` is created by link(2) of a prepared file, so it is never seen half-written; it holds a random
token, host, boot id, PID namespace, pid and the process's start time.
Every 30 seconds the holder replaces `lease.beat` with a counter. A pid says something only to an observer of
the same process table: same host, boot and PID namespace. There, a lease is stale when its process is gone;
for anybody else (another machine, another container, a machine that was started again) when the heartbeat's
content has not changed for 300 s of the observer's own clock.
flock is not used: it is unreliable on network file systems.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from segbench.core.atomic import atomic_write, make_folder, temporary_name
from segbench.core.environment import now
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.processes import boot_id, pid_namespace, process_start, same_process_table

LEASE = "lease.json"
BEAT = "lease.beat"
BEAT_EVERY_S = 30.0


def stale_after_s() -> float:
    """Seconds without a heartbeat that make a foreign lease stale (`SEGBENCH_LEASE_STALE_S` in tests).

    Raises:
        SegbenchError: SB104 when the variable is not a number above 0.
    """
    text = os.environ.get("SEGBENCH_LEASE_STALE_S", "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (seconds > 0 and isfinite(seconds)):
        raise SegbenchError(
            "SB104",
            "SEGBENCH_LEASE_STALE_S is not a number of seconds",
            expected="a number above 0",
            found=text,
            mend="unset it; 300 is what it is without",
        )
    return seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease."""

    token: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    job: str
    created: str
    pid_namespace: str = ""


_NO_LINKS = frozenset(
    (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
)
_WRITTEN_S = 0.5
"""A lease that says nothing is looked at again after this long: without hard links it is empty at first."""


class Lease:
    """The right to write one run folder; a context manager that beats while it is held.

    Attributes:
        taken_from: The dead holder whose lease this one took over, if any.

    Raises:
        SegbenchError: SB603 on entering when a living process holds it; SB104 see `stale_after_s`.
    """

    def __init__(self, folder: Path, *, job: str = "") -> None:
        self.folder = folder
        self.stale_s = stale_after_s()
        self.holder = Holder(
            token=secrets.token_hex(16),
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            job=job,
            created=now(),
            pid_namespace=pid_namespace(),
        )
        self.taken_from: Holder | None = None
        self._stop = threading.Event()
        self._beat = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        make_folder(self.folder)
        if not self._create():
            held = read_lease(self.folder)
            if held is None:
                time.sleep(_WRITTEN_S)
                held = read_lease(self.folder)
            if held is not None and not is_stale(self.folder, held):
                raise SegbenchError(
                    "SB603",
                    "another process works on this run",
                    path=self.folder,
                    found=f"pid {held.pid} on {held.host}, since {held.created}",
                )
            self._take_over(held)
            self.taken_from = held
        self._write_beat()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="segbench-lease")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self.still_ours():
            (self.folder / BEAT).unlink(missing_ok=True)
            (self.folder / LEASE).unlink(missing_ok=True)

    def still_ours(self) -> bool:
        """Whether the file still carries our token."""
        held = read_lease(self.folder)
        return held is not None and held.token == self.holder.token

    def check(self) -> None:
        """Raise SB605 when another process took the run over; call before anything final is written."""
        if not self.still_ours():
            raise SegbenchError("SB605", "another process took this run over", path=self.folder)

    def _create(self) -> bool:
        """Create the lease whole or not at all: link(2) gives a prepared file the name and never replaces."""
        text = json.dumps(asdict(self.holder), sort_keys=True) + "\n"
        # named as a temporary, so that the next holder clears it away after a kill between the two steps
        prepared = atomic_write(temporary_name(self.folder / LEASE), text)
        try:
            os.link(prepared, self.folder / LEASE)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_in_place(text)
        finally:
            prepared.unlink(missing_ok=True)
        return True

    def _create_in_place(self, text: str) -> bool:
        """As `_create` on a file system without hard links (exFAT, SMB, some FUSE): empty for a moment."""
        try:
            with (self.folder / LEASE).open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError:
            return False
        return True

    def _take_over(self, held: Holder | None) -> None:
        """Rename the stale lease away; whoever's rename succeeds may create the new one."""
        aside = self.folder / f"lease.stale-{held.token if held else secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            (self.folder / LEASE).rename(aside)
        if not self._create():
            raise SegbenchError(
                "SB603", "another process was quicker to take this run over", path=self.folder
            )
        aside.unlink(missing_ok=True)

    def _beat_on(self) -> None:
        while not self._stop.wait(min(BEAT_EVERY_S, self.stale_s / 4)):
            self._write_beat()

    def _write_beat(self) -> None:
        self._beat += 1
        try:
            atomic_write(self.folder / BEAT, f"{self.holder.token} {self._beat}\n")
        except SegbenchError:  # a full disk must not kill the training that a later write can still save
            return


def read_lease(folder: Path) -> Holder | None:
    """Who holds the lease according to the file, or None."""
    try:
        content = parse_json((folder / LEASE).read_text(encoding="utf-8"))
        named: dict[str, Any] = {name: content[name] for name in Holder.__slots__ if name in content}
        return Holder(**named)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lease_holder(folder: Path) -> Holder | None:
    """The living holder of a run, or None; at once: a holder of another process table counts as living."""
    held = read_lease(folder)
    if held is None or _dead(held):
        return None
    return held


def is_stale(folder: Path, held: Holder) -> bool:
    """Whether a lease may be taken over; waits for a foreign heartbeat when that cannot be seen at once."""
    if same_process_table(held.host, held.boot_id, held.pid_namespace):
        return _dead(held)
    first, limit, began = _read_beat(folder), stale_after_s(), time.monotonic()
    while time.monotonic() - began < limit:
        time.sleep(min(1.0, limit / 10))
        if _read_beat(folder) != first or read_lease(folder) != held:
            return False
    return True


def _dead(held: Holder) -> bool:
    """Dead for certain: seen in its own process table, where no process has that pid and start time."""
    seen = same_process_table(held.host, held.boot_id, held.pid_namespace)
    return seen and process_start(held.pid) != held.process_start


def _read_beat(folder: Path) -> str:
    try:
        return (folder / BEAT).read_text(encoding="utf-8")
    except OSError:
        return ""
