"""Evaluate-only: predictions of any tool against references, as a run of kind `external`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import remove_leftovers
from segbench.core.environment import now, tilde
from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.core.text import some
from segbench.metrics.summary import Summary, number, summarise
from segbench.records import RunRecord, write_cases_csv, write_run
from segbench.records.birth import failed_record
from segbench.records.lease import Lease
from segbench.records.store import CASE_LINES, CASES_FILE, check_run_folder
from segbench.scoring.case import CaseResult, Row, failure_error
from segbench.scoring.cases import TOLD, median_spacing, notes_by_text, notes_told_once, score_cases
from segbench.scoring.record import external_record
from segbench.scoring.request import Job, Request, prepare
from segbench.scoring.rules import ScoringRules
from segbench.scoring.work import SAME_FILE

__all__ = ["Evaluation", "Request", "evaluate_predictions"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation left.

    Attributes:
        run_id: id of the run.
        folder: its folder.
        rules: how it was scored.
        cases: expected cases.
        rows: one per (case, region), in the order of cases, then regions.
        failures: one per case without a usable prediction: case, status, code, message and more.
        extra_predictions: files without a reference.
        warnings: what else the user should know, notes with their numbers of cases included.
        notes: what holds of several cases, with an example of each such case.
    """

    run_id: str
    folder: Path
    rules: ScoringRules
    cases: tuple[str, ...]
    rows: list[Row]
    failures: list[dict[str, Any]]
    extra_predictions: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @cached_property
    def summaries(self) -> list[Summary]:
        """The summary of every region and metric, regions in the order of the tables."""
        order = {region: index for index, region in enumerate(self.rules.regions)}
        rows = sorted(self.rows, key=lambda row: order[row["region"]])
        return summarise(rows, self.rules.columns, self.cases, self.rules.mean_regions)

    def as_json(self, readers: Sequence[Evaluation] = ()) -> dict[str, Any]:
        """Return the document of `segbench evaluate --json`, with one for each further reader."""
        failed = [
            {key: failure.get(key) for key in ("case", "status", "code", "message")}
            for failure in self.failures
        ]
        return {
            "schema_version": 1,
            "kind": "external",
            "run_id": self.run_id,
            "run_directory": str(self.folder),
            "profile": self.rules.profile.name,
            "empty_policy": self.rules.profile.empty_policy,
            "n_expected": len(self.cases),
            "n_scored": len(self.cases) - len(failed),
            "n_failed": len(failed),
            "extra_predictions": list(self.extra_predictions),
            "failures": failed,
            "summary": [summary.as_json() for summary in self.summaries],
            **({"readers": [reader.as_json() for reader in readers]} if readers else {}),
        }


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
    check_run_folder(job.folder, job.run_id, job.given)
    with StopRequest() as stop, Lease(job.folder) as lease:
        remove_leftovers(job.folder)
        if request.fresh:
            for name in (CASE_LINES, CASES_FILE):
                (job.folder / name).unlink(missing_ok=True)
        record = _record(job, command)
        write_run(job.folder, record)
        superfluous = _superfluous(job.predictions.extra)
        try:
            results = score_cases(
                job.cases,
                job.references,
                job.predictions,
                job.rules,
                job.folder,
                request.workers,
                keys=job.keys,
                stop=stop,
                tell=_teller(job.rules),
                title=f"evaluate {job.model}",
                stop_at_failure=request.on_error == "stop",
            )
            lease.check()
        except Interrupted:
            write_run(job.folder, record.model_copy(update={"status": "interrupted"}))
            raise
        except SegbenchError as error:
            write_run(job.folder, failed_record(record, error, "data"))
            raise
        evaluation = _evaluation(job, results, superfluous)
        table = write_cases_csv(job.folder, job.rules.columns, cases=job.cases)
        same = evaluation.notes.get(SAME_FILE)
        ended = {
            "status": "complete",
            "finished": now(),
            "warnings": evaluation.warnings,
            "references": {result.case: result.reference for result in results},
            "spacing_mm": median_spacing(results),
            "digests": {"cases": sha256_file(table)},
            "external": {**(record.external or {}), **({"equal_to_reference": len(same)} if same else {})},
        }
        write_run(job.folder, record.model_copy(update=ended))
    return evaluation


def _record(job: Job, command: Sequence[str] | None) -> RunRecord:
    """Return the record of an evaluation that begins."""
    request, rules = job.request, job.rules
    record = external_record(
        job.keys,
        cases=job.cases,
        profile=rules.as_dict(),
        external={
            "prediction": tilde(request.prediction),
            "reference": None if request.reference is None else tilde(request.reference),
            "geometry": rules.profile.geometry,
            "backend": "native",
            "extra_predictions": list(job.predictions.extra),
            **request.origin,
        },
        command=command,
        split=job.split,
    )
    version = {"backend_version": (record.versions or {}).get("segbench")}
    return record.model_copy(
        update={
            "rules_digest": rules.digest(),
            "execution": {"workers": request.workers},
            "external": {**(record.external or {}), **version},
        }
    )


def _superfluous(extra: Sequence[str]) -> list[str]:
    """Warn of files without a reference; the warning, or nothing."""
    if not extra:
        return []
    what = "file has no reference and is" if len(extra) == 1 else "files have no reference and are"
    console.warn(text := f"{len(extra)} {what} not scored: {some(extra, 10)}")
    return [text]


def _teller(rules: ScoringRules) -> Callable[[CaseResult], None]:
    """Return what names failed cases on stderr, with what they cost: three of each code."""
    told: Counter[str] = Counter()

    def tell(result: CaseResult) -> None:
        if result.failure is None:
            return
        code = result.failure["code"]
        told[code] += 1
        failed = next(row for row in result.rows if row["code"])
        if told[code] <= TOLD:
            costs = ", ".join(f"{name} {number(failed.get(name)):.4g}" for name in rules.headline)
            console.fail(failure_error(result.failure, f"scored as a failure ({costs}), not left out"))

    return tell


def _tell_of_more(results: Sequence[CaseResult]) -> None:
    """Say how many failures of each code were not named one by one."""
    failed = Counter(result.failure["code"] for result in results if result.failure is not None)
    for code, count in failed.items():
        if count > TOLD:
            console.warn(
                f"{count - TOLD} more cases failed with {code}: all are named in run.json and --json"
            )


def _evaluation(job: Job, results: Sequence[CaseResult], warnings: Sequence[str]) -> Evaluation:
    """Return the rows of all cases, those of earlier runs included."""
    order = {region: index for index, region in enumerate(job.rules.regions)}
    told = notes_told_once(results)
    for text in told:
        console.warn(text)
    _tell_of_more(results)
    return Evaluation(
        run_id=job.run_id,
        folder=job.folder,
        rules=job.rules,
        cases=job.cases,
        rows=[row for result in results for row in sorted(result.rows, key=lambda row: order[row["region"]])],
        failures=[result.failure for result in results if result.failure is not None],
        extra_predictions=job.predictions.extra,
        warnings=(*warnings, *told),
        notes=notes_by_text(results),
    )
