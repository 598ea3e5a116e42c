"""Driving cells to their end: start, look, start again what was lost, and tell how each one ended.

A lost cell (its node gone, killed, pre-empted, out of time) is started again without limit while it comes
further; after `retries` starts that brought nothing it ends as `no_progress`. What failed by itself is not
tried again: an out-of-memory or a divergence is a result. A broken environment stops further starts here; a
fault in the data ends the cells that would meet the same fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.environment import tilde
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.launch.base import Job, Launcher, Need
from segbench.records import Failure, RunRecord, read_run, write_run
from segbench.records.lease import Lease, lease_holder
from segbench.records.progress import progress_of
from segbench.records.schema import FailureClass

Ending = Literal["complete", "failed", "environment", "interrupted", "locked", "not started"]
RETRIES = 3
_WAIT_S = 1.0


@dataclass(slots=True)
class _Try:
    """What is known of a cell while it is driven."""

    record: bytes = b""
    progress: tuple[int, ...] = ()
    without_progress: int = 0


class _Matrix:
    """The cells on their way: waiting, at work, held by others, ended."""

    def __init__(self, launcher: Launcher, cells: Sequence[Path], retries: int, title: str) -> None:
        self.launcher, self.retries, self.title, self.total = launcher, retries, title, len(cells)
        self.waiting = list(cells)
        self.active: dict[Path, Job] = {}
        self.held: list[Path] = []
        self.ended: dict[Path, Ending] = {}
        self.tries: dict[Path, _Try] = {}

    def start(self, need: Callable[[Path], Need]) -> None:
        """Start what finds a place, cells of equal need together."""
        launcher = self.launcher
        chosen = self.waiting[: max(0, launcher.slots - len(self.active))]
        groups: dict[Need, list[Path]] = {}
        for folder in chosen:
            groups.setdefault(need(folder), []).append(folder)
        for wanted, folders in groups.items():
            for folder in folders:
                attempt = self.tries.setdefault(folder, _Try())
                attempt.record, attempt.progress = _record_bytes(folder), progress_of(folder)
            for job in launcher.start(folders, wanted):
                self.waiting.remove(job.folder)
                self.active[job.folder] = job
                if not launcher.detached:
                    place = list(self.tries).index(job.folder) + 1
                    console.note(f"{self.title} {place} of {self.total}: {job.folder.name}")
        if chosen and not self.active:  # every GPU is taken by another shell
            time.sleep(_WAIT_S)

    def look(self, same_data: Callable[[Path], Hashable] | None) -> None:
        """See how the cells at work stand; those that ended end, or wait for another start."""
        for job in self.launcher.poll(list(self.active.values())):
            if job.phase in {"pending", "running"}:
                continue
            del self.active[job.folder]
            ending = _ending(job, self.tries[job.folder])
            if ending is not None:
                self._end(job.folder, ending, same_data)
            elif job.exit_code == ExitCode.LOCKED:
                self.held.append(job.folder)
            elif _try_again(job, self.tries[job.folder], self.retries):
                self.waiting.append(job.folder)
            else:
                self.ended[job.folder] = "failed" if self.retries else "interrupted"

    def _end(self, folder: Path, ending: Ending, same_data: Callable[[Path], Hashable] | None) -> None:
        """Note how a cell ended, and what that means for those that wait."""
        self.ended[folder] = ending
        record = _record(folder) if ending == "failed" else None
        kind = None if record is None or record.failure is None else record.failure.failure_class
        if same_data is not None and kind == "data":
            others = [other for other in self.waiting if same_data(other) == same_data(folder)]
            spared = spread_failure(folder, others)
            self.waiting = [other for other in self.waiting if other not in spared]
            self.ended |= dict.fromkeys(spared, "failed")
        if "environment" in (ending, kind) and not self.launcher.detached:
            console.warn("what failed (see above) would meet every cell here: no further cell is started")
            self.ended.update(dict.fromkeys(self.waiting, "not started"))
            self.waiting.clear()

    def take_up_held(self) -> None:
        """Cells that another process has let go: finished ones are done, the others wait for a start here."""
        for folder in [folder for folder in self.held if lease_holder(folder) is None]:
            self.held.remove(folder)
            record = _record(folder)
            if record is not None and record.status in {"complete", "failed"}:
                self.ended[folder] = "complete" if record.status == "complete" else "failed"
            else:
                self.waiting.append(folder)

    def let_go(self) -> bool:
        """Ask the cells of this machine to stop, those elsewhere go on; whether one has said that it did."""
        jobs = list(self.active.values())
        if not self.launcher.detached:
            self.launcher.cancel(jobs)
            return any(job.exit_code in {130, 143} for job in self.launcher.poll(jobs))
        if jobs:
            console.note(f"{len(jobs)} jobs go on under {self.launcher.name}; see segbench status")
        return False


def drive(
    launcher: Launcher,
    cells: Sequence[Path],
    *,
    need: Callable[[Path], Need] = lambda folder: Need(),
    same_data: Callable[[Path], Hashable] | None = None,
    retries: int = RETRIES,
    wait: bool = False,
    title: str = "cell",
) -> dict[Path, Ending]:
    """Bring every cell to its end and tell how it ended.

    Args:
        launcher: Where they run.
        cells: Run folders with a `run.json`, in the order they are to start.
        need: What a cell needs; cells of equal need are started together.
        same_data: Equal for cells whose data are the same: a fault of one's data ends the others unstarted.
        retries: Starts in a row without progress after which a lost cell is given up; 0: never again here.
        wait: Wait for cells that other processes hold, and take over what they leave.
        title: What a start is called on the screen: "cell 3 of 12".

    Raises:
        Interrupted: A signal came. Cells of this machine were asked to stop; those elsewhere go on.
    """
    matrix = _Matrix(launcher, cells, retries, title)
    with StopRequest() as stop:
        while matrix.waiting or matrix.active or (wait and matrix.held):
            if stop.number is not None:
                raise Interrupted(stop.number, told=matrix.let_go())
            matrix.start(need)
            matrix.look(same_data)
            if wait:
                matrix.take_up_held()
            idle = not matrix.active and not matrix.waiting
            time.sleep(_WAIT_S if idle and wait else launcher.poll_s if matrix.active else 0.0)
    matrix.ended.update(dict.fromkeys(matrix.held, "locked"))
    return matrix.ended


def _ending(job: Job, attempt: _Try) -> Ending | None:
    """How the cell ended by its own record; None when it does not say, because it was lost or held."""
    if job.exit_code == ExitCode.LOCKED or job.phase == "lost":
        return None
    if job.exit_code is None and _record_bytes(job.folder) == attempt.record:
        return None  # the job is gone and has left no word
    record = _record(job.folder)
    if record is None:
        return "failed"
    if record.status in {"complete", "failed"}:
        return "complete" if record.status == "complete" else "failed"
    if job.exit_code in {130, 143}:
        return "interrupted"
    if job.exit_code == ExitCode.ENVIRONMENT:  # the disk took not even the record
        return "environment"
    return None if job.exit_code is None else "failed"


def _try_again(job: Job, attempt: _Try, retries: int) -> bool:
    """Note the loss in the record; whether the cell is to be started once more."""
    further = progress_of(job.folder) > attempt.progress
    attempt.without_progress = 0 if further else attempt.without_progress + 1
    count, reason = attempt.without_progress, job.reason or "the job is gone"
    kind, status, message = "lost", "interrupted", reason
    advice = "run the same command again to resume"
    if retries and count < retries:
        advice = "started again"
    elif retries:
        message = f"lost {count} times in a row without coming further; the last time: {reason}"
        kind, status, advice = "no_progress", "failed", ""
    note_failure(job.folder, kind, message, status=status)
    console.warn("; ".join(filter(None, (f"{tilde(job.folder)}: {message}", advice))))
    return bool(retries) and count < retries


def spread_failure(folder: Path, others: Iterable[Path]) -> list[Path]:
    """Write a cell's failure into those that would fail alike, unstarted; the ones nobody works on."""
    record = _record(folder)
    if record is None or record.failure is None:
        return []
    message = f"{record.failure.message} (found by {record.run_id}; not started)"
    failure = record.failure.model_copy(update={"message": message})
    return [other for other in others if _write_failure(other, failure, "failed")]


def note_failure(
    folder: Path, failure_class: FailureClass, message: str, *, status: Literal["interrupted", "failed"]
) -> None:
    """Write into `run.json` that the cell was lost, unless it is finished or another process holds it."""
    _write_failure(folder, Failure(failure_class=failure_class, code="SB503", message=message), status)


def _write_failure(folder: Path, failure: Failure, status: Literal["interrupted", "failed"]) -> bool:
    """Whether the record says how the cell ended, now or before; not when another process holds it."""
    if lease_holder(folder) is not None:
        return False
    try:
        with Lease(folder):
            record = read_run(folder)
            if record.status not in {"complete", "failed"}:
                write_run(folder, record.model_copy(update={"status": status, "failure": failure}))
    except SegbenchError as error:
        if error.code not in {"SB603", "SB605"}:
            raise
        return False
    return True


def _record(folder: Path) -> RunRecord | None:
    try:
        return read_run(folder)
    except SegbenchError as error:
        console.fail(error)
        return None


def _record_bytes(folder: Path) -> bytes:
    try:
        return (folder / "run.json").read_bytes()
    except OSError:
        return b""
