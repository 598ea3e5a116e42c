"""The `run.json` of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench.core.environment import git_state, machine, tilde, versions
from segbench.core.errors import SegbenchError
from segbench.records.schema import SCHEMA_VERSION, Failure, RunRecord, SplitRecord
from segbench.scoring.request import Request
from segbench.scoring.rules import ScoringRules

PROTOCOL = "external"


def external_record(
    request: Request,
    rules: ScoringRules,
    *,
    identity: Mapping[str, Any],
    cases: tuple[str, ...],
    split: str | None,
    extra: tuple[str, ...],
    command: Sequence[str] | None,
) -> RunRecord:
    """Return the `run.json` of an evaluation that begins.

    Args:
        request: what was asked.
        rules: how it is scored.
        identity: run id, model and dataset.
        cases: expected cases.
        split: name of the split they come from.
        extra: prediction files without a reference.
        command: the command line; None takes this process's.
    """
    found = versions()
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=identity["run_id"],
        kind="external",
        status="running",
        created=now(),
        command=tuple(tilde(part) for part in (command if command is not None else sys.argv)),
        model={"slug": identity["model"]},
        dataset={"slug": identity["dataset"]},
        protocol={"name": PROTOCOL},
        metric_profile=rules.as_dict(),
        rules_digest=rules.digest(),
        split=SplitRecord(name=split, test=cases),
        fold=request.fold,
        seed=request.seed,
        segbench={
            "version": found.get("segbench", "unknown"),
            "git": git_state(Path(__file__).resolve().parent.parent),
        },
        versions=found,
        machine=machine(),
        execution={"workers": request.workers},
        external={
            "prediction": tilde(request.prediction),
            "reference": None if request.reference is None else tilde(request.reference),
            "geometry": rules.profile.geometry,
            "backend": rules.backend,
            "backend_version": found.get(rules.backend, found.get("segbench")),
            "extra_predictions": list(extra),
        },
    )


def as_failed(record: RunRecord, error: SegbenchError) -> RunRecord:
    """Return the record of an evaluation that ended with an error."""
    failure = Failure(
        failure_class="data",  # type: ignore[call-arg]
        code=error.code,
        message="; ".join((error.message, *error.details)),
        where=None if error.path is None else tilde(error.path),
    )
    return record.model_copy(update={"status": "failed", "finished": now(), "failure": failure})


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
