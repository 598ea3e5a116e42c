"""The `run.json` of scores that were made outside: of an evaluation, or taken in from a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench.core.environment import git_state, machine, tilde, versions
from segbench.core.errors import SegbenchError
from segbench.records.schema import SCHEMA_VERSION, Failure, RunRecord, SplitRecord

PROTOCOL = "external"


def external_record(
    keys: Mapping[str, Any],
    *,
    cases: Sequence[str],
    profile: Mapping[str, Any],
    external: Mapping[str, Any],
    command: Sequence[str] | None,
    split: str | None = None,
) -> RunRecord:
    """Return the `run.json` of a run of kind `external` that begins.

    Args:
        keys: the columns of its rows that say whose they are: run id, model, dataset, fold, seed.
        cases: expected cases.
        profile: how they were scored, as far as known.
        external: where the scores come from.
        command: the command line; None takes this process's.
        split: name of the split the cases come from.
    """
    found = versions()
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=keys["run_id"],
        kind="external",
        status="running",
        created=now(),
        command=tuple(tilde(part) for part in (command if command is not None else sys.argv)),
        model={"slug": keys["model"]},
        dataset={"slug": keys["dataset"]},
        protocol={"name": PROTOCOL},
        metric_profile=dict(profile),
        split=SplitRecord(name=split, test=tuple(cases)),
        fold=keys["fold"],
        seed=keys["seed"],
        segbench={
            "version": found.get("segbench", "unknown"),
            "git": git_state(Path(__file__).resolve().parent.parent),
        },
        versions=found,
        machine=machine(),
        external=dict(external),
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
