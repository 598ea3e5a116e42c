"""The `run.json` of scores that were made outside: of an evaluation, or taken in from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segbench.records.birth import new_record, surroundings
from segbench.records.schema import RunRecord, SplitRecord

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
    return new_record(
        keys["run_id"],
        "external",
        "running",
        command=command,
        model={"slug": keys["model"]},
        dataset={"slug": keys["dataset"]},
        protocol={"name": PROTOCOL},
        metric_profile=dict(profile),
        split=SplitRecord(name=split, test=tuple(cases)),
        fold=keys["fold"],
        seed=keys["seed"],
        external=dict(external),
        **surroundings(),
    )
