"""One writer per run: a lease file that names its holder, with a heartbeat, and no trust in clocks.

`lease.json` is created by link(2) of a prepared file, so it is never seen half-written; it holds a random
token, host, boot id, pid and the process's start time.
Every 30 seconds the holder replaces `lease.beat` with a counter. A lease is stale when its process is gone
(same host and boot), or when the heartbeat's content has not changed for 300 s of the observer's own clock.
flock is not used: it is unreliable on network file systems.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from segbench.core.atomic import atomic_write, make_folder, temporary_name
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json

LEASE = "lease.json"
BEAT = "lease.beat"
BEAT_EVERY_S = 30.0


def stale_after_s() -> float:
    """Seconds without a heartbeat that make a foreign lease stale (`SEGBENCH_LEASE_STALE_S` in tests)."""
    return float(os.environ.get("SEGBENCH_LEASE_STALE_S", "300"))


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


class Lease:
    """The right to write one run folder; a context manager that beats while it is held.

    Attributes:
        taken_from: The dead holder whose lease this one took over, if any.

    Raises:
        SegbenchError: SB603 on entering when a living process holds it.
    """

    def __init__(self, folder: Path, *, job: str = "") -> None:
        self.folder = folder
        self.holder = Holder(
            token=secrets.token_hex(16),
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            job=job,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.taken_from: Holder | None = None
        self._stop = threading.Event()
        self._beat = 0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        make_folder(self.folder)
        if not self._create():
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
        finally:
            prepared.unlink(missing_ok=True)
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
        while not self._stop.wait(min(BEAT_EVERY_S, stale_after_s() / 4)):
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
        return Holder(**{name: content[name] for name in Holder.__slots__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lease_holder(folder: Path) -> Holder | None:
    """The living holder of a run, or None; answers at once (a foreign host's holder counts as living)."""
    held = read_lease(folder)
    if held is None or _dead(held):
        return None
    return held


def is_stale(folder: Path, held: Holder) -> bool:
    """Whether a lease may be taken over; waits for a foreign heartbeat when that cannot be seen at once."""
    if _dead(held):
        return True
    if held.host == socket.gethostname() and held.boot_id == _boot_id():
        return False
    first, limit, began = _read_beat(folder), stale_after_s(), time.monotonic()
    while time.monotonic() - began < limit:
        time.sleep(min(1.0, limit / 10))
        if _read_beat(folder) != first or read_lease(folder) != held:
            return False
    return True


def process_start(pid: int) -> str:
    """The start time of a process in the system's ticks, so that a reused pid is told apart; "" unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _dead(held: Holder) -> bool:
    """Dead for certain: same host and boot, and no process with that pid and start time."""
    if held.host != socket.gethostname():
        return False
    if held.boot_id != _boot_id():
        return True
    if Path("/proc").is_dir():
        return process_start(held.pid) != held.process_start
    try:
        os.kill(held.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _read_beat(folder: Path) -> str:
    try:
        return (folder / BEAT).read_text(encoding="utf-8")
    except OSError:
        return ""
