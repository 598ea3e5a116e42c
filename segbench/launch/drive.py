"""Driving cells to their end: start, look, start again what was lost, and tell how each one ended.

A lost cell (its node gone, killed, pre-empted, out of time) is started again without limit while it comes
further; after `retries` starts that brought nothing it ends as `no_progress`. What failed by itself is not
tried again: an out-of-memory or a divergence is a result. A broken environment stops further starts here; a
fault in the data ends the cells that would meet the same fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.environment import tilde
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.launch.base import JobRef, JobState, Launcher, Need
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
    in_vain: int = 0


@dataclass(slots=True)
class _Matrix:
    waiting: list[Path]
    title: str
    total: int
    active: dict[Path, JobRef] = field(default_factory=dict[Path, JobRef])
    held: list[Path] = field(default_factory=list[Path])
    ended: dict[Path, Ending] = field(default_factory=dict[Path, Ending])
    tries: dict[Path, _Try] = field(default_factory=dict[Path, _Try])


def drive(
    launcher: Launcher,
    cells: Sequence[Path],
    *,
    need: Callable[[Path], Need] = lambda folder: Need(),
    akin: Callable[[Path], Hashable] | None = None,
    retries: int = RETRIES,
    wait: bool = False,
    title: str = "cell",
) -> dict[Path, Ending]:
    """Bring every cell to its end and tell how it ended.

    Args:
        launcher: Where they run.
        cells: Run folders with a `run.json`, in the order they are to start.
        need: What a cell needs; cells of equal need are started together.
        akin: What cells share whose data are the same: a fault of one's data ends the others unstarted.
        retries: Starts in a row without progress after which a lost cell is given up; 0: never again here.
        wait: Wait for cells that other processes hold, and take over what they leave.
        title: What a start is called on the screen: "cell 3 of 12".

    Raises:
        Interrupted: A signal came. Cells of this machine were asked to stop; those elsewhere go on.
    """
    matrix = _Matrix(list(cells), title, len(cells))
    with StopRequest() as stop:
        while matrix.waiting or matrix.active or (wait and matrix.held):
            if stop.number is not None:
                _let_go(launcher, matrix)
                raise Interrupted(stop.number)
            _start(launcher, matrix, need)
            _look(launcher, matrix, retries, akin)
            if wait:
                _take_up_held(matrix)
            idle = not matrix.active and not matrix.waiting
            time.sleep(_WAIT_S if idle and wait else launcher.poll_s if matrix.active else 0.0)
    matrix.ended.update(dict.fromkeys(matrix.held, "locked"))
    return matrix.ended


def _start(launcher: Launcher, matrix: _Matrix, need: Callable[[Path], Need]) -> None:
    free = launcher.capacity().slots - len(matrix.active)
    chosen = matrix.waiting[: max(0, free)]
    groups: dict[Need, list[Path]] = {}
    for folder in chosen:
        groups.setdefault(need(folder), []).append(folder)
    for wanted, folders in groups.items():
        for folder in folders:
            attempt = matrix.tries.setdefault(folder, _Try())
            attempt.record, attempt.progress = _record_bytes(folder), progress_of(folder)
        for ref in launcher.start(folders, wanted):
            matrix.waiting.remove(ref.folder)
            matrix.active[ref.folder] = ref
            if not launcher.detached:
                place = list(matrix.tries).index(ref.folder) + 1
                console.note(f"{matrix.title} {place} of {matrix.total}: {ref.folder.name}")
    if chosen and not matrix.active:  # every GPU is taken by another shell
        time.sleep(_WAIT_S)


def _look(launcher: Launcher, matrix: _Matrix, retries: int, akin: Callable[[Path], Hashable] | None) -> None:
    for state in launcher.poll(list(matrix.active.values())):
        if state.phase in {"pending", "running"}:
            continue
        folder = state.ref.folder
        del matrix.active[folder]
        ending = _ending(state, matrix.tries[folder])
        if ending is not None:
            matrix.ended[folder] = ending
            if akin is not None and ending == "failed" and _class_of(folder) == "data":
                others = [other for other in matrix.waiting if akin(other) == akin(folder)]
                spared = spread_failure(folder, others)
                matrix.waiting = [other for other in matrix.waiting if other not in spared]
                matrix.ended |= dict.fromkeys(spared, "failed")
            broken = ending == "environment" or (ending == "failed" and _class_of(folder) == "environment")
            if broken and not launcher.detached:
                console.warn("the environment is broken (see above): no further cell is started")
                matrix.ended.update(dict.fromkeys(matrix.waiting, "not started"))
                matrix.waiting.clear()
        elif state.exit_code == ExitCode.LOCKED:
            matrix.held.append(folder)
        elif _try_again(state, matrix.tries[folder], retries):
            matrix.waiting.append(folder)
        else:
            matrix.ended[folder] = "failed" if retries else "interrupted"


def _ending(state: JobState, attempt: _Try) -> Ending | None:
    """How the cell ended by its own record; None when it does not say, because it was lost or held."""
    folder = state.ref.folder
    if state.exit_code == ExitCode.LOCKED or state.phase == "lost":
        return None
    if state.exit_code is None and _record_bytes(folder) == attempt.record:
        return None  # the job is gone and has left no word
    record = _record(folder)
    if record is None:
        return "failed"
    if record.status in {"complete", "failed"}:
        return "complete" if record.status == "complete" else "failed"
    if state.exit_code in {130, 143}:
        return "interrupted"
    if state.exit_code == ExitCode.ENVIRONMENT:  # the disk took not even the record
        return "environment"
    return None if state.exit_code is None else "failed"


def _try_again(state: JobState, attempt: _Try, retries: int) -> bool:
    """Note the loss in the record; whether the cell is to be started once more."""
    folder = state.ref.folder
    further = progress_of(folder) > attempt.progress
    attempt.in_vain = 0 if further else attempt.in_vain + 1
    reason = state.reason or "the job is gone"
    if retries and attempt.in_vain < retries:
        note_failure(folder, "lost", reason, status="interrupted")
        console.warn(f"{tilde(folder)}: {reason}; started again")
        return True
    if retries:
        message = f"lost {attempt.in_vain} times in a row without coming further; the last time: {reason}"
        note_failure(folder, "no_progress", message, status="failed")
        console.warn(f"{tilde(folder)}: {message}")
    else:
        note_failure(folder, "lost", reason, status="interrupted")
        console.warn(f"{tilde(folder)}: {reason}; run the same command again to resume")
    return False


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


def _take_up_held(matrix: _Matrix) -> None:
    """Cells that another process has let go: finished ones are done, the others wait for a start here."""
    for folder in [folder for folder in matrix.held if lease_holder(folder) is None]:
        matrix.held.remove(folder)
        record = _record(folder)
        if record is not None and record.status in {"complete", "failed"}:
            matrix.ended[folder] = "complete" if record.status == "complete" else "failed"
        else:
            matrix.waiting.append(folder)


def _let_go(launcher: Launcher, matrix: _Matrix) -> None:
    jobs = list(matrix.active.values())
    if launcher.detached:
        if jobs:
            console.note(f"{len(jobs)} jobs go on under {launcher.name}; see segbench status")
        return
    launcher.cancel(jobs)
    launcher.poll(jobs)


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


def _class_of(folder: Path) -> str | None:
    record = _record(folder)
    return None if record is None or record.failure is None else record.failure.failure_class
