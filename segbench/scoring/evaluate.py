"""Evaluate-only: predictions of any tool against references, streamed, resumable, nothing dropped.

Each case is one task for a pool of processes; its rows are appended to `cases.jsonl` as soon as they are
there, with the digests of both files, and the same command skips what still holds. A prediction that is
missing, damaged or on another grid is scored worst and named; a damaged reference is the user's data: all are
listed and nothing is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import remove_leftovers, sync_lines
from segbench.core.environment import physical_cores
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import sha256_file
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.data.workers import ordered_map
from segbench.metrics.summary import number
from segbench.records import append_case, read_case_lines, write_cases_csv, write_run
from segbench.records.lease import Lease
from segbench.records.store import CASE_LINES, CASES_FILE, check_run_folder
from segbench.scoring.case import (
    KILLED,
    CaseResult,
    Row,
    reference_digest,
    score_failure,
)
from segbench.scoring.plan import Job, prepare
from segbench.scoring.record import PROTOCOL, as_failed, external_record, now
from segbench.scoring.request import Evaluation, Request
from segbench.scoring.work import SAME_FILE, Answer, ScoreCase, Task, preloaded, untouched
from segbench.volumes import read_header
from segbench.volumes.limits import memory_budget

__all__ = ["PROTOCOL", "Evaluation", "Request", "evaluate_predictions"]

SMALL_BYTES = 4 * 2**20
"""Files of this many bytes together are scored in this process: starting workers would take longer."""


def evaluate_predictions(request: Request, *, command: Sequence[str] | None = None) -> Evaluation:
    """Score predictions against references and leave a run of kind `external`.

    Args:
        request: what to score and how.
        command: the command line, for the record.

    Returns:
        Rows, failures and the run's folder. Cases whose files and rules are unchanged are not scored again.

    Raises:
        SegbenchError: SB104 and SB101 usage, SB201 to SB217 for references, SB311 no case, SB603 another
            process holds the run; with `on_error="stop"` the first unusable prediction.
        Interrupted: a signal came; finished cases are kept.
    """
    job = prepare(request)
    check_run_folder(job.folder, job.run_id, _given(job))
    with StopRequest() as stop, Lease(job.folder) as lease:
        remove_leftovers(job.folder)
        if request.fresh:
            for name in (CASE_LINES, CASES_FILE):
                (job.folder / name).unlink(missing_ok=True)
        record = external_record(
            request,
            job.rules,
            identity=job.keys,
            cases=job.cases,
            split=job.split,
            extra=job.predictions.extra,
            command=command,
        )
        write_run(job.folder, record)
        try:
            warnings = _score_all(job, stop)
            lease.check()
        except Interrupted:
            write_run(job.folder, record.model_copy(update={"status": "interrupted"}))
            raise
        except SegbenchError as error:
            write_run(job.folder, as_failed(record, error))
            raise
        sync_lines(job.folder / CASE_LINES)
        evaluation = _evaluation(job, warnings)
        table = write_cases_csv(job.folder, job.rules.columns, cases=job.cases)
        lines = read_case_lines(job.folder)
        ended = {
            "status": "complete",
            "finished": now(),
            "warnings": evaluation.warnings,
            "references": {case: lines[case]["reference"] for case in job.cases},
            "digests": {"cases": sha256_file(table)},
            "external": {**(record.external or {}), **_equal(evaluation.notes)},
        }
        write_run(job.folder, record.model_copy(update=ended))
    return evaluation


@dataclass
class _Progress:
    """What happened so far, in this process."""

    warnings: list[str] = field(default_factory=list[str])
    reference_faults: list[SegbenchError] = field(default_factory=list[SegbenchError])
    killed: list[Task] = field(default_factory=list[Task])


def _score_all(job: Job, stop: StopRequest) -> list[str]:
    """Score every case that is not done; return warnings that belong to no case."""
    done = read_case_lines(job.folder, repair=True)
    pending = _pending(job, done)
    progress = _Progress()
    if job.predictions.extra:
        names = ", ".join(job.predictions.extra[:10])
        more = len(job.predictions.extra) - 10
        what = (
            "file has no reference and is"
            if len(job.predictions.extra) == 1
            else "files have no reference and are"
        )
        progress.warnings.append(
            f"{len(job.predictions.extra)} {what} not scored: {names}"
            + (f" and {more} more" if more > 0 else "")
        )
        console.warn(progress.warnings[-1])
    for case in sorted(set(job.cases).difference(pending)):
        if done[case].get("failure"):
            _tell(done[case]["failure"], done[case]["rows"], job)
    workers = _worker_count(job, pending)
    if workers > 1:
        _warm_up(job)
    function = ScoreCase(job.rules, job.references)
    done_before = len(job.cases) - len(pending)
    with console.progress(f"evaluate {job.model}", len(job.cases), before=done_before) as bar:
        bar.advance(0)
        results = ordered_map(
            function,
            _tasks(job, pending, done, progress),
            workers if workers > 1 else 0,
            case_of=lambda task: task.case,
            preload=preloaded(job.rules, _largest_payload(job, pending)) if workers > 1 else (),
        )
        for task, answer, error in results:
            _take(job, task, answer, error, progress, done)
            bar.advance(note=task.case)
            stop.check()
        for task in progress.killed:
            # Alone: with no other worker beside it, memory may suffice.
            for _, answer, error in ordered_map(function, [task], 1, case_of=lambda each: each.case):
                _take(job, task, answer, error, progress, done, last=True)
            stop.check()
    if progress.reference_faults:
        raise _all_faults(progress.reference_faults)
    return progress.warnings


def _pending(job: Job, done: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the cases whose files have changed since they were scored, or that were not."""
    rules = job.rules.digest()
    return [
        case
        for case in job.cases
        if "reference" not in done.get(case, {})
        or not untouched(
            done[case].get("inputs") or {}, job.references.files(case), job.predictions.paths[case], rules
        )
    ]


def _tasks(
    job: Job, pending: Sequence[str], done: Mapping[str, Mapping[str, Any]], progress: _Progress
) -> Iterator[Task]:
    """Yield the tasks; once a reference is damaged the rest are only checked."""
    for case in pending:
        fault("case")
        line = done.get(case, {})
        before = line.get("inputs") if "reference" in line else None
        yield Task(case, job.predictions.paths[case], before, bool(progress.reference_faults))


def _take(
    job: Job,
    task: Task,
    answer: Answer | None,
    error: Exception | None,
    progress: _Progress,
    done: dict[str, dict[str, Any]],
    *,
    last: bool = False,
) -> None:
    """Keep what a task gave: rows, or why there are none."""
    if isinstance(error, SegbenchError) and error.code == KILLED:
        if not last:
            progress.killed.append(task)
            return
        answer, error = _killed_answer(job, task, error), None
    if isinstance(error, SegbenchError) and error.code.startswith(("SB2", "SB3")):
        progress.reference_faults.append(error)
        return
    if error is not None:
        raise error
    assert answer is not None
    if progress.reference_faults:
        return
    if answer.result is None:
        line = done[task.case]
        append_case(
            job.folder,
            task.case,
            line["rows"],
            inputs=answer.inputs,
            reference=line["reference"],
            **_notes(line.get("failure"), line),
        )
        return
    result = answer.result
    if result.failure is not None and job.request.on_error == "stop":
        raise _stopping(result.failure)
    rows = [job.keys | row for row in result.rows]
    append_case(
        job.folder,
        task.case,
        rows,
        inputs=answer.inputs,
        reference=result.reference,
        failure=result.failure,
        warnings=list(result.warnings),
        notes=[list(note) for note in result.notes],
    )
    if result.failure is not None:
        _tell(result.failure, rows, job)
    for warning in result.warnings:
        console.warn(warning)


def _equal(notes: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how many predictions are their references, for the record; nothing where none is."""
    return {"equal_to_reference": len(notes[SAME_FILE])} if SAME_FILE in notes else {}


def _notes(failure: Any, line: Mapping[str, Any]) -> dict[str, Any]:
    return {"failure": failure, "warnings": line.get("warnings", []), "notes": line.get("notes", [])}


def _killed_answer(job: Job, task: Task, error: SegbenchError) -> Answer:
    """Return the rows of a case that no worker survives: unreadable, with the signal's name."""
    reference = job.references.read(task.case)
    rows = score_failure(job.rules, task.case, reference, error)
    failure = {**error.as_dict(), "case": task.case, "status": "unreadable"}
    result = CaseResult(case=task.case, rows=rows, reference=reference_digest(reference), failure=failure)
    return Answer({"rules": job.rules.digest()}, result)


def _tell(failure: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], job: Job) -> None:
    """Name a failed case on stderr, with what it costs."""
    costs = ", ".join(f"{name} {number(rows[0].get(name)):.4g}" for name in job.rules.headline)
    console.fail(
        SegbenchError(
            failure["code"],
            failure["message"],
            path=failure.get("path"),
            case=failure["case"],
            expected=failure.get("expected"),
            found=failure.get("found"),
            mend=failure.get("mend"),
            details=[*failure.get("details", ()), f"scored as a failure ({costs}), not left out"],
        )
    )


def _stopping(failure: Mapping[str, Any]) -> SegbenchError:
    error = SegbenchError(
        failure["code"],
        failure["message"],
        path=failure.get("path"),
        case=failure["case"],
        expected=failure.get("expected"),
        found=failure.get("found"),
        mend=failure.get("mend"),
        details=[*failure.get("details", ()), "stopped here (--on-error stop); the same command goes on"],
    )
    error.exit_code = 4
    return error


def _all_faults(faults: Sequence[SegbenchError]) -> SegbenchError:
    """Return one error that lists every damaged reference."""
    first = faults[0]
    if len(faults) == 1:
        return first
    alike = {fault.code for fault in faults} == {first.code}
    lines = [f"{fault.case}: {fault.code} {fault.message.removeprefix('reference: ')}" for fault in faults]
    found = [f" (found {fault.found})" if fault.found is not None else "" for fault in faults]
    return SegbenchError(
        first.code,
        f"{len(faults)} references cannot be used, nothing was scored",
        path=None if first.path is None else first.path.parent,
        expected=first.expected if alike else None,
        details=[line + what for line, what in zip(lines, found, strict=True)],
        mend=first.mend if alike else "mend the references: scores against damaged ones would mean nothing",
    )


def _worker_count(job: Job, pending: Sequence[str]) -> int:
    """Return how many processes to use: asked for, else the cores, fewer where memory or work is short."""
    if not pending:
        return 1
    count = job.request.workers if job.request.workers is not None else physical_cores()
    sizes = [_bytes_of(path) for case in pending for path in _files(job, case)]
    if job.request.workers is None and sum(sizes) < SMALL_BYTES:
        return 1
    budget = memory_budget()
    if budget is not None and count > 1:
        count = max(1, min(count, budget // max(1, 4 * _largest_payload(job, pending))))
    return max(1, min(count, len(pending)))


def _given(job: Job) -> list[Path]:
    """Return every file that is read."""
    named = [path for path in (job.request.dataset_json, job.request.cases) if path is not None]
    return [*named, *(path for case in job.cases for path in _files(job, case))]


def _files(job: Job, case: str) -> list[Path]:
    prediction = job.predictions.paths[case]
    return [*job.references.files(case), *([prediction] if prediction is not None else [])]


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _largest_payload(job: Job, pending: Sequence[str]) -> int:
    """Return the bytes of the largest reference, once read."""
    return max((_payload(path) for case in pending for path in job.references.files(case)), default=1)


def _payload(path: Path) -> int:
    """Return the bytes of a volume once read; 1 for what is no volume (its fault is told when it is
    scored).
    """
    try:
        return read_header(path).payload_bytes
    except SegbenchError:
        return 1


def _warm_up(job: Job) -> None:
    """Compile the kernels here, once, before several processes would each do it; not when they are cached."""
    from segbench.metrics.engines import compiled_engine_wanted, kernels_are_cached

    if job.rules.backend == "native" and compiled_engine_wanted() and not kernels_are_cached():
        try:
            import segbench.metrics._native  # noqa: F401
        except ImportError:
            return


def _evaluation(job: Job, warnings: list[str]) -> Evaluation:
    """Return the rows of all cases, those of earlier runs included."""
    lines = read_case_lines(job.folder)
    order = {region: index for index, region in enumerate(job.rules.regions)}
    rows: list[Row] = []
    failures: list[dict[str, Any]] = []
    told = list(warnings)
    notes: dict[str, list[str]] = {}
    for case in job.cases:
        line = lines[case]
        rows.extend(sorted(line["rows"], key=lambda row: order[row["region"]]))
        if line.get("failure"):
            failures.append(line["failure"])
        told.extend(line.get("warnings") or ())
        for text, example in line.get("notes") or ():
            notes.setdefault(text, []).append(example)
    for text, examples in notes.items():
        told.append(f"{len(examples)} of {len(job.cases)} cases: {text} (such as {examples[0]})")
        console.warn(told[-1])
    return Evaluation(
        run_id=job.run_id,
        folder=job.folder,
        rules=job.rules,
        cases=job.cases,
        rows=rows,
        failures=failures,
        extra_predictions=job.predictions.extra,
        warnings=tuple(told),
        notes=notes,
    )
