"""Many cases to rows: cores, progress, resume, and nothing dropped.

Each case is one task for a pool of processes; its rows are appended to `cases.jsonl` as soon as they are
there, with the digests of both files, and the same call skips what still holds. A prediction that is
missing, damaged or on another grid is scored worst and named; so is a case that no worker survives. A damaged
reference is the user's data: all are listed and nothing is scored.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import sync_lines
from segbench.core.environment import named_threads, physical_cores
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.interrupt import StopRequest
from segbench.core.text import some
from segbench.data.workers import ordered_map
from segbench.records import append_case, read_case_lines
from segbench.records.store import CASE_LINES
from segbench.scoring.case import KILLED, CaseResult, failure_error
from segbench.scoring.rules import ScoringRules
from segbench.scoring.sources import Predictions, References
from segbench.scoring.work import ScoreCase, Task, preloaded
from segbench.volumes import read_header
from segbench.volumes.limits import memory_budget

TOLD = 3
"""Cases of one kind that are named one by one; of the others the number is told."""

SMALL_BYTES = 4 * 2**20
"""Files of this many bytes together are scored in this process: starting workers would take longer."""


def score_cases(
    cases: Sequence[str],
    references: References,
    predictions: Predictions,
    rules: ScoringRules,
    folder: Path,
    workers: int | None = None,
    *,
    keys: Mapping[str, Any],
    stop: StopRequest,
    tell: Callable[[CaseResult], object] = lambda result: None,
    title: str,
    stop_at_failure: bool = False,
) -> list[CaseResult]:
    """Return what scoring left of each case; rows of an earlier call are kept where they still hold.

    Args:
        cases: ids, each scored once.
        references: where references come from.
        predictions: the prediction of each case.
        rules: how to score.
        folder: the run folder; a line per case is appended to its `cases.jsonl`.
        workers: processes; None decides by threads, cores, memory and size.
        keys: the columns that say whose rows these are.
        stop: asked after each case.
        tell: called with each case, those of an earlier call first.
        title: of the progress bar.
        stop_at_failure: end at the first unusable prediction.

    Raises:
        SegbenchError: SB201 to SB3xx when references are damaged, all listed; nothing is scored then. With
            `stop_at_failure` the first unusable prediction.
        Interrupted: a signal came; finished cases are kept.
    """
    before = _kept(folder, repair=True)
    function = ScoreCase(rules, references, predictions)
    pending = [case for case in cases if not function.holds(before.get(case))]
    for case in sorted(set(cases).difference(pending)):
        tell(before[case])
    faults: list[SegbenchError] = []

    def tasks() -> Iterator[Task]:
        for case in pending:
            fault("case")
            yield Task(case, before.get(case), bool(faults))

    with console.progress(title, len(cases), before=len(cases) - len(pending)) as bar:
        bar.advance(0)
        for task, result, error in _results(function, tasks(), pending, workers):
            if isinstance(error, SegbenchError) and error.code.startswith(("SB2", "SB3")):
                faults.append(error)
            elif error is not None:
                raise error
            elif result is not None and not faults:
                if stop_at_failure and result.failure is not None:
                    raise _stopping(result.failure)
                append_case(folder, task.case, [{**keys, **row} for row in result.rows], **result.as_line())
                tell(result)
            bar.advance(note=task.case)
            stop.check()
    if faults:
        raise _all_faults(faults)
    sync_lines(folder / CASE_LINES)
    after = _kept(folder)
    return [after[case] for case in cases]


def notes_by_text(results: Iterable[CaseResult]) -> dict[str, list[str]]:
    """Return what holds of several cases, with an example of each such case."""
    notes: dict[str, list[str]] = {}
    for result in results:
        for text, example in result.notes:
            notes.setdefault(text, []).append(example)
    return notes


def notes_told_once(results: Sequence[CaseResult]) -> list[str]:
    """Return each note once, with the number of cases and up to three examples."""
    return [
        f"{len(examples)} of {len(results)} cases: {text} (such as {'; '.join(examples[:TOLD])})"
        for text, examples in notes_by_text(results).items()
    ]


def median_spacing(results: Sequence[CaseResult]) -> tuple[float, float, float] | None:
    """Return the median voxel size (z, y, x) that distances were measured with; None where none is known."""
    known = [result.spacing_mm for result in results if result.spacing_mm is not None]
    if not known:
        return None
    z, y, x = (statistics.median_low(steps) for steps in zip(*known, strict=True))
    return z, y, x


def _kept(folder: Path, *, repair: bool = False) -> dict[str, CaseResult]:
    """Return what `cases.jsonl` holds; lines of older versions, which lack references, are left out."""
    lines = read_case_lines(folder, repair=repair)
    return {case: CaseResult.of_line(line) for case, line in lines.items() if "reference" in line}


def _results(
    function: ScoreCase, tasks: Iterator[Task], pending: Sequence[str], workers: int | None
) -> Iterator[tuple[Task, CaseResult | None, Exception | None]]:
    """Yield tasks with their results or errors; one that has killed its worker comes last, tried alone."""
    count = _worker_count(function, pending, workers)
    preload: tuple[str, ...] = ()
    if count > 1:
        _warm_up(function.rules)
        preload = preloaded(function.rules, _largest_payload(function, pending))
    killed: list[Task] = []
    pool = ordered_map(
        function, tasks, count if count > 1 else 0, case_of=lambda task: task.case, preload=preload
    )
    for task, result, error in pool:
        if _is_killed(error):
            killed.append(task)
        else:
            yield task, result, error
    for task in killed:
        # Alone: with no other worker beside it, memory may suffice.
        for _, result, error in ordered_map(function, [task], 1, case_of=lambda each: each.case):
            if isinstance(error, SegbenchError) and _is_killed(error):
                yield task, function.killed(task.case, error), None
            else:
                yield task, result, error


def _is_killed(error: Exception | None) -> bool:
    return isinstance(error, SegbenchError) and error.code == KILLED


def _stopping(failure: Mapping[str, Any]) -> SegbenchError:
    error = failure_error(failure, "stopped here (--on-error stop); the same command goes on")
    error.exit_code = 4
    return error


def _all_faults(faults: Sequence[SegbenchError]) -> SegbenchError:
    """Return one error that lists every damaged reference."""
    first = faults[0]
    if len(faults) == 1:
        return first
    alike = {fault.code for fault in faults} == {first.code}
    cases: dict[str, list[str]] = {}
    for each in faults:
        found = f" (found {each.found})" if each.found is not None else ""
        text = f"{each.code} {each.message.removeprefix('reference: ')}{found}"
        cases.setdefault(text, []).append(each.case or "")
    return SegbenchError(
        first.code,
        f"{len(faults)} references are not usable, nothing was scored",
        path=None if first.path is None else first.path.parent,
        expected=first.expected if alike else None,
        details=[f"{some(names)}: {text}" for text, names in cases.items()],
        mend=first.mend if alike else "fix the references: scores against damaged ones would mean nothing",
    )


def _worker_count(function: ScoreCase, pending: Sequence[str], asked: int | None) -> int:
    """Return how many processes to use: asked for, else threads or cores, fewer where memory or work is
    short.
    """
    if not pending:
        return 1
    count = asked if asked is not None else named_threads() or physical_cores()
    files = [path for case in pending for path in function.files(case)]
    if asked is None and sum(_bytes_of(path) for path in files) < SMALL_BYTES:
        return 1
    budget = memory_budget()
    if budget is not None and count > 1:
        count = max(1, min(count, budget // max(1, 4 * _largest_payload(function, pending))))
    return max(1, min(count, len(pending)))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _largest_payload(function: ScoreCase, pending: Sequence[str]) -> int:
    """Return the bytes of the largest reference, once read."""
    return max((_payload(path) for case in pending for path in function.references.files(case)), default=1)


def _payload(path: Path) -> int:
    """Return the bytes of a volume once read; 1 for what is not a volume (told when it is scored)."""
    try:
        return read_header(path).payload_bytes
    except SegbenchError:
        return 1


def _warm_up(rules: ScoringRules) -> None:
    """Compile the kernels here, once, before several processes would each do it; not when they are cached."""
    from segbench.metrics.engine.choice import compiled_engine_wanted, kernels_are_cached

    if compiled_engine_wanted() and not kernels_are_cached():
        try:
            import segbench.metrics.engine._native  # noqa: F401
        except ImportError:
            return
