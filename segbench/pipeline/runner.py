"""Running one cell: take the lease, run the stages from `run.json`, record how it ended.

`run_cell` is the only way a cell is ever run, whoever starts it: `segbench run`, a launcher, or a person.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import disk_error, remove_leftovers
from segbench.core.catalogue import ExitCode
from segbench.core.crash import write_crash
from segbench.core.environment import git_state, machine, threads_note, tilde, versions, with_threads
from segbench.core.errors import SegbenchError
from segbench.core.faults import note_run
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.data.splits import count_leaks
from segbench.launch.command import JOB
from segbench.metrics.profiles import load_profile
from segbench.pipeline.cell import Cell
from segbench.pipeline.cell_stages import CELL_STAGES
from segbench.pipeline.context import Context, Execution, context_of, execution_of, log_line, started_by
from segbench.pipeline.stages import drop_from, execute
from segbench.pipeline.trial import first_step
from segbench.records import Failure, Leaks, RunRecord, SplitRecord, read_run, write_run
from segbench.records.lease import Lease
from segbench.records.schema import SCHEMA_VERSION, FailureClass
from segbench.scoring.rules import rules_for

_CLASS_BY_CODE: dict[str, FailureClass] = {
    "SB402": "diverged",
    "SB404": "hang",
    "SB405": "environment",
    "SB501": "environment",
    "SB502": "environment",
    "SB503": "lost",
    "SB504": "oom",
    "SB505": "environment",
    "SB508": "environment",
    "SB603": "locked",
    "SB605": "lost_lease",
}


def plan_run(cell: Cell, execution: Execution, *, patient_of: Callable[[str], str]) -> RunRecord:
    """Write `run.json` of a cell with status `planned`, unless the run exists already; give the record."""
    if (cell.folder / "run.json").is_file():
        return read_run(cell.folder)
    leaks = count_leaks(cell.split, patient_of=patient_of)
    rules = rules_for(cell.dataset, load_profile(cell.protocol.metrics.profile))
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=cell.run_id,
        kind="floor" if cell.model.kind == "floor" else "trained",
        status="planned",
        created=now(),
        command=tuple(tilde(part) for part in sys.argv),
        model={
            "slug": cell.model.slug,
            "card": cell.model.model_dump(mode="json", exclude_none=True),
            "arguments": cell.network_arguments,
        },
        code=cell.code,
        dataset={
            "slug": cell.dataset.slug,
            "card": cell.dataset.model_dump(mode="json", exclude_none=True),
            "digest": cell.dataset_digest,
        },
        protocol=cell.protocol.resolved(),
        protocol_digest=cell.protocol.digest(),
        metric_profile=rules.as_dict(),
        rules_digest=rules.digest(),
        split=SplitRecord(
            name=cell.split.name,
            digest=cell.split.digest,
            train=cell.split.train,
            validation=cell.split.validation,
            test=cell.split.test,
            acknowledged_leaks=cell.split.acknowledged_leaks,
            leaks=Leaks(patients=leaks.patients, test_cases=leaks.test_cases),
        ),
        fold=cell.fold,
        seed=cell.seed,
        execution=execution.as_dict(),
    )
    write_run(cell.folder, record)
    return record


def run_cell(
    folder: Path,
    *,
    execution: Execution | None = None,
    fresh: str | None = None,
) -> RunRecord:
    """Run the stages of a planned cell and record how it ended.

    Args:
        folder: The run folder; `run.json` says everything.
        execution: Where it runs now, in place of what the record says.
        fresh: Forget this stage and every later one first.

    Returns:
        The record as written at the end: complete or failed.

    Raises:
        Interrupted: A signal came; the record says so.
        SegbenchError: SB603 another process holds the run; SB605 it was taken over.
    """
    job = os.environ.get(JOB, "")
    with StopRequest() as stop, Lease(folder, job=job) as lease:
        remove_leftovers(folder)
        if fresh is not None:
            drop_from(folder, fresh)
        record = read_run(folder)
        where = started_by(execution or execution_of(record))
        if fresh is None and not where.check_outputs and _is_done(folder, record):
            return record  # another driver was quicker; its record must not say "running" for a moment
        note_run(record.run_id)
        _log_taking_over(folder, lease)
        record = _updated(
            record,
            status="running",
            failure=None,
            finished=None,
            execution=where.as_dict(),
            **_surroundings(),
        )
        write_run(folder, record)
        try:
            context = context_of(record, folder, where, stop, lease.check)
            context.give_up = partial(_give_up, record, folder, lease)
            note = threads_note(where.threads)
            if note is not None:
                context.warn(note)
            with with_threads(where.threads):
                _run_stages(context)
            record = _updated(record, status="complete", finished=now(), **_outcome(context))
        except Interrupted:
            write_run(folder, _updated(record, status="interrupted"))
            raise
        except Exception as error:
            record = _ended_by(error, record, folder)
        write_run(folder, record)
    return record


def look_at_cell(folder: Path) -> RunRecord:
    """Verify a planned cell's dataset and make one training step on zeros; a failure is the cell's.

    What `segbench run` asks of one cell of each kind before it starts the first long one. The step leaves
    `startup.json`, so that the same command does not ask again.

    Raises:
        Interrupted: A signal came.
        SegbenchError: SB603 another process holds the run; SB605 it was taken over.
    """
    with StopRequest() as stop, Lease(folder, job=os.environ.get(JOB, "")) as lease:
        record = read_run(folder)
        _log_taking_over(folder, lease)
        try:
            context = context_of(record, folder, started_by(execution_of(record)), stop, lease.check)
            with with_threads(context.execution.threads):
                execute(CELL_STAGES[0], context)
                stop.check()
                if context.model.kind == "network":
                    first_step(context)
            if record.status == "failed":  # by an earlier command; what it met may have been mended since
                record = _updated(record, status="planned", failure=None, finished=None)
                write_run(folder, record)
        except Interrupted:
            raise
        except Exception as error:
            record = _ended_by(error, _updated(record, **_surroundings()), folder)
            write_run(folder, record)
    return record


def _ended_by(error: Exception, record: RunRecord, folder: Path) -> RunRecord:
    """Say what ended a cell; the record that says so too.

    Raises:
        SegbenchError: The error itself, when the run is no longer ours to write (SB605).
    """
    error = disk_error(error) or error
    if isinstance(error, SegbenchError):
        if error.code == "SB605":
            raise error
        console.fail(error)
        return _failed(record, error)
    trace = write_crash(error, folder)
    console.warn(f"{record.run_id}: {type(error).__name__}: {error} (unexpected; the trace is in {trace})")
    failure = Failure(failure_class="bug", message=f"{type(error).__name__}: {error}")
    return _updated(record, status="failed", finished=now(), failure=failure)


def _log_taking_over(folder: Path, lease: Lease) -> None:
    if lease.taken_from is not None:
        held = lease.taken_from
        log_line(folder, f"taken over from pid {held.pid} on {held.host}, gone, which began {held.created}")


def _is_done(folder: Path, record: RunRecord) -> bool:
    return record.status == "complete" and (folder / "cases.csv").is_file()


def failure_class(error: SegbenchError) -> FailureClass:
    """The class of an expected failure; it decides whether the cell is tried again."""
    if error.code.startswith(("SB2", "SB3")):
        return "data"
    return _CLASS_BY_CODE.get(error.code, "bug")


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _give_up(record: RunRecord, folder: Path, lease: Lease, error: SegbenchError) -> None:
    """End a process that hangs: called by the thread that watches, while the main thread cannot act."""
    console.fail(error)
    write_run(folder, _failed(record, error))
    lease.__exit__(None, None, None)
    os._exit(ExitCode.PARTIAL)


def _run_stages(context: Context) -> None:
    """Run what is left of the cell."""
    for stage in CELL_STAGES:
        if stage.networks_only and context.model.kind == "floor":
            continue
        execute(stage, context)
        context.stop.check()


def _surroundings() -> dict[str, Any]:
    package = Path(__file__).resolve().parent.parent
    found = versions()
    return {
        "segbench": {"version": found.get("segbench", "unknown"), "git": git_state(package)},
        "versions": found,
        "machine": machine(),
    }


def _outcome(context: Context) -> dict[str, Any]:
    """What the finished stages say about the run."""
    train, predict = context.facts.get("train", {}), context.facts.get("predict", {})
    scored = context.facts.get("evaluate", {})
    digests = {"cases": context.artefacts["evaluate"]}
    if "weights_sha256" in train:
        digests["weights"] = train["weights_sha256"]
    if "manifest_sha256" in predict:
        digests["predictions"] = predict["manifest_sha256"]
    execution = {
        **context.execution.as_dict(),
        **{k: train[k] for k in ("scan_backend", "device") if k in train},
        **({"predict_scan_backend": predict["scan_backend"]} if "scan_backend" in predict else {}),
    }
    return {
        "durations": context.seconds,
        "samples_seen": train.get("samples_seen"),
        "peak_memory_bytes": train.get("peak_memory_bytes"),
        "degraded": train.get("degraded"),
        "code": None if context.code is None else context.code.model_copy(update=train.get("structure", {})),
        "references": scored.get("references"),
        "determinism": train.get("determinism"),
        "machine": {**machine(), **train.get("accelerator", {})},
        "normalisation_statistics": context.facts.get("prepare", {}).get("normalisation_statistics"),
        "execution": execution,
        "digests": digests,
        "warnings": tuple(context.warnings),
    }


def _failed(record: RunRecord, error: SegbenchError) -> RunRecord:
    failure = Failure(
        failure_class=failure_class(error),
        code=error.code,
        message="; ".join((error.message, *error.details)),
        where=None if error.path is None else tilde(error.path),
    )
    return _updated(record, status="failed", finished=now(), failure=failure)


def _updated(record: RunRecord, **changes: Any) -> RunRecord:
    return record.model_copy(update=changes)
