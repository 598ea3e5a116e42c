"""Running one cell: take the lease, run the stages from `run.json`, record how it ended.

`run_cell` is the only way a cell is ever run, whoever starts it: `segbench run`, a launcher, or a person.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import disk_error, remove_leftovers
from segbench.core.catalogue import ExitCode
from segbench.core.crash import write_crash
from segbench.core.environment import machine, now, threads_note, with_threads
from segbench.core.errors import SegbenchError
from segbench.core.faults import note_run
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.data.splits import count_leaks
from segbench.launch.command import JOB
from segbench.metrics.profiles import load_profile
from segbench.records import Leaks, RunRecord, SplitRecord, read_run, run_in, write_run
from segbench.records.birth import failed_record, new_record, surroundings
from segbench.records.lease import Lease
from segbench.records.schema import FailureClass
from segbench.runs.active import ActiveCell, active_cell, log_line
from segbench.runs.build import FINAL_WEIGHTS, check_own_network
from segbench.runs.cell import Cell, Execution, card_settings
from segbench.runs.prepare import open_prepared, prepare_stage, verify_stage
from segbench.runs.results import evaluate_stage, predict_stage, profile_stage
from segbench.runs.stages import Stage, StageResult, drop_from, execute
from segbench.runs.start import keep_start
from segbench.runs.trial import first_step
from segbench.scoring.rules import rules_for

_CLASS_BY_CODE: dict[str, FailureClass] = {
    "SB110": "network",
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


def plan_run(cell: Cell, execution: Execution, *, known: RunRecord | None = None) -> RunRecord:
    """Write `run.json` of a cell with status `planned`, unless the run exists already; give the record.

    Args:
        cell: What is to be run.
        execution: Where and how.
        known: The run's record when it was read already.
    """
    if cell.init_file is not None:
        keep_start(cell.init_file, cell.folder)
    if (there := known or run_in(cell.folder)) is not None:
        return there
    leaks = count_leaks(cell.split, patient_of=cell.data.patient_of)
    rules = rules_for(cell.dataset, load_profile(cell.protocol.metrics.profile))
    record = new_record(
        cell.run_id,
        "floor" if cell.model.kind == "floor" else "trained",
        "planned",
        model={
            "slug": cell.model.slug,
            "card": cell.model.model_dump(mode="json", exclude_none=True),
            "arguments": cell.network_arguments,
        },
        code=cell.code,
        init=cell.init,
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


def run_cell(folder: Path, *, execution: Execution | None = None, fresh: str | None = None) -> RunRecord:
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
    with _leased(folder) as (stop, lease):
        remove_leftovers(folder)
        if fresh is not None:
            drop_from(folder, fresh)
        record = read_run(folder)
        where = (execution or Execution.of(record)).started()
        if fresh is None and not where.check_outputs and _is_done(folder, record):
            return record  # another driver was quicker; its record must not say "running" for a moment
        note_run(record.run_id)
        begun = {"status": "running", "failure": None, "finished": None, "execution": where.as_dict()}
        record = record.model_copy(update={**begun, **surroundings()})
        write_run(folder, record)
        try:
            cell = active_cell(record, folder, where, stop, lease.check)
            cell.give_up = partial(_give_up, record, folder, lease)
            note = threads_note(where.threads)
            if note is not None:
                cell.warn(note)
            with with_threads(where.threads):
                _run_stages(cell)
            record = record.model_copy(update={"status": "complete", "finished": now(), **_outcome(cell)})
        except Interrupted:
            write_run(folder, record.model_copy(update={"status": "interrupted"}))
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
    with _leased(folder) as (stop, lease):
        record = read_run(folder)
        try:
            cell = active_cell(record, folder, Execution.of(record).started(), stop, lease.check)
            with with_threads(cell.execution.threads):
                execute(CELL_STAGES[0], cell)
                stop.check()
                if cell.trains:
                    first_step(cell)
            if record.status == "failed":  # by an earlier command; what it met may have been fixed since
                record = record.model_copy(update={"status": "planned", "failure": None, "finished": None})
                write_run(folder, record)
        except Interrupted:
            raise
        except Exception as error:
            record = _ended_by(error, record.model_copy(update=surroundings()), folder)
            write_run(folder, record)
    return record


@contextmanager
def _leased(folder: Path) -> Generator[tuple[StopRequest, Lease]]:
    """Hold a run, with signals kept for the next safe point; a takeover stands in its log."""
    with StopRequest() as stop, Lease(folder, job=os.environ.get(JOB, "")) as lease:
        if (held := lease.taken_from) is not None:
            who = f"pid {held.pid} on {held.host}"
            log_line(folder, f"taken over from {who}, gone, which began {held.created}")
        yield stop, lease


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
        return failed_record(record, error, failure_class(error))
    trace = write_crash(error, folder)
    what = f"{type(error).__name__}: {error}"
    console.warn(f"{record.run_id}: {what} (unexpected; the trace is in {trace})")
    return failed_record(record, what, "bug")


def _is_done(folder: Path, record: RunRecord) -> bool:
    return record.status == "complete" and (folder / "cases.csv").is_file()


def failure_class(error: SegbenchError) -> FailureClass:
    """The class of an expected failure; it decides whether the cell is tried again."""
    if error.code.startswith(("SB2", "SB3")):
        return "data"
    return _CLASS_BY_CODE.get(error.code, "bug")


def _give_up(record: RunRecord, folder: Path, lease: Lease, error: SegbenchError) -> None:
    """End a process that hangs: called by the thread that watches, while the main thread cannot act."""
    console.fail(error)
    write_run(folder, failed_record(record, error, failure_class(error)))
    lease.__exit__(None, None, None)
    os._exit(ExitCode.PARTIAL)


def _run_stages(cell: ActiveCell) -> None:
    """Run what is left of the cell."""
    check_own_network(cell)
    for stage in CELL_STAGES:
        if stage.networks_only and not cell.trains:
            continue
        execute(stage, cell)
        cell.stop.check()


def _outcome(cell: ActiveCell) -> dict[str, Any]:
    """What the finished stages say about the run."""
    train, predict = cell.facts.get("train", {}), cell.facts.get("predict", {})
    scored = cell.facts.get("evaluate", {})
    digests = {"cases": cell.artefacts["evaluate"]}
    if "weights_sha256" in train:
        digests["weights"] = train["weights_sha256"]
    if "manifest_sha256" in predict:
        digests["predictions"] = predict["manifest_sha256"]
    execution = {
        **cell.execution.as_dict(),
        **{k: train[k] for k in ("scan_backend", "device", "fast") if k in train},
        **({"predict_scan_backend": predict["scan_backend"]} if "scan_backend" in predict else {}),
    }
    return {
        "durations": cell.seconds,
        "samples_seen": train.get("samples_seen"),
        "peak_memory_bytes": train.get("peak_memory_bytes"),
        "degraded": train.get("degraded"),
        "code": None if cell.code is None else cell.code.model_copy(update=train.get("structure", {})),
        "references": scored.get("references"),
        "spacing_mm": scored.get("spacing_mm"),
        "determinism": train.get("determinism"),
        "machine": {**machine(), **train.get("accelerator", {})},
        "normalisation_statistics": cell.facts.get("prepare", {}).get("normalisation_statistics"),
        "execution": execution,
        "digests": digests,
        "warnings": tuple(cell.warnings),
    }


def train_stage(cell: ActiveCell) -> StageResult:
    """Train the network to the end of its budget, resuming from the last checkpoint."""
    if cell.execution.gpus_per_cell > 1:
        from segbench.runs.ranks import train_on_ranks

        facts = train_on_ranks(cell)
    else:
        from segbench.runs.train import train_here

        facts = train_here(cell, open_prepared(cell))
    return StageResult(artefact=facts["weights_sha256"], outputs=[cell.folder / FINAL_WEIGHTS], facts=facts)


def _split(cell: ActiveCell) -> dict[str, Any]:
    return {
        "dataset": cell.dataset_digest,
        "split": cell.split.digest,
        "card": card_settings(cell.dataset),
    }


def _training(cell: ActiveCell) -> dict[str, Any]:
    return {
        **_split(cell),
        "model": cell.model.slug,
        "implementation": cell.model.implementation,
        "arguments": cell.network_arguments,
        "seed": cell.seed,
        "fold": cell.fold,
    }


CELL_STAGES: tuple[Stage, ...] = (
    Stage("verify", 1, (), (), verify_stage, inputs=_split),
    Stage("prepare", 1, ("data",), ("verify",), prepare_stage, networks_only=True, inputs=_split),
    Stage(
        "train",
        1,
        ("data", "patch", "sampling", "augment", "budget", "optimiser", "schedule", "loss", "train",
         "validation", "inference", "determinism"),
        ("prepare",),
        train_stage,
        networks_only=True,
        inputs=_training,
    ),
    Stage("predict", 2, ("data", "patch", "loss", "inference"), ("train",), predict_stage, inputs=_training),
    Stage("evaluate", 1, ("metrics",), ("predict",), evaluate_stage, inputs=_split),
    Stage("profile", 1, ("patch", "loss", "train"), (), profile_stage, networks_only=True, inputs=_training),
)  # fmt: skip
