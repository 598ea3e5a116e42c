"""How a run record begins and how it ends in failure: the one place for cells and for scores from outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segbench.core.environment import git_state, machine, now, tilde, versions
from segbench.core.errors import SegbenchError
from segbench.records.schema import SCHEMA_VERSION, Failure, FailureClass, RunKind, RunRecord, RunStatus


def new_record(
    run_id: str, kind: RunKind, status: RunStatus, *, command: Sequence[str] | None = None, **fields: Any
) -> RunRecord:
    """A record that begins now, with the command line that asked for it.

    Args:
        run_id: Its id.
        kind: trained, external or floor.
        status: Where it stands.
        command: The command line; None takes this process's.
        fields: The other fields of `RunRecord`.
    """
    words = sys.argv if command is None else command
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        kind=kind,
        status=status,
        created=now(),
        command=tuple(tilde(word) for word in words),
        **fields,
    )


def surroundings() -> dict[str, Any]:
    """What segbench, Python, its packages and the machine are during a run: fields of its record."""
    found = versions()
    return {
        "segbench": {
            "version": found.get("segbench", "unknown"),
            "git": git_state(Path(__file__).resolve().parents[1]),
        },
        "versions": found,
        "machine": machine(),
    }


def failed_record(record: RunRecord, error: SegbenchError | str, kind: FailureClass) -> RunRecord:
    """The record of a run that ends now with an error, or with what its text says.

    Args:
        record: As it stands.
        error: What ended it.
        kind: Its class; decides whether the run is tried again.
    """
    code, message, path = None, str(error), None
    if isinstance(error, SegbenchError):
        code, message, path = error.code, "; ".join((error.message, *error.details)), error.path
    where = None if path is None else tilde(path)
    failure = Failure(failure_class=kind, code=code, message=message, where=where)
    return record.model_copy(update={"status": "failed", "finished": now(), "failure": failure})
