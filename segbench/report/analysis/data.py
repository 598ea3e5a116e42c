"""The data behind rows: what runs were split and scored on, whose cases they are, the card of the dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segbench.core.errors import SegbenchError
from segbench.records import facts
from segbench.report.read.runs import Run

if TYPE_CHECKING:
    from segbench.cards import DatasetCard


def data_facts(run: Run) -> dict[tuple[str, ...], object]:
    """What a run was split and scored on, as far as is known: two runs that give one key two values differ.

    Keys are (what, where): the split of a fold, the reference label map of a case, and the volume of a
    reference region by its name and labels, which shows other references where digests are not recorded.
    """
    record = run.record
    found: dict[tuple[str, ...], object] = {}
    if facts.split_digest(record) is not None:
        found["split", f"fold {run.fold}"] = facts.split_digest(record)
    for case, digest in (record.references or {}).items():
        found["reference label map", case] = digest
    if run.rows is not None:
        labels = facts.region_labels(record) or {}
        volumes = run.rows.numbers["reference_volume_ml"].tolist()
        for case, region, volume in zip(run.rows.case, run.rows.region, volumes, strict=True):
            if volume == volume:
                found["reference volume", case, region, str(labels.get(region, ""))] = round(volume, 9)
    return found


def patients_of(runs: Sequence[Run], cases: Sequence[str]) -> tuple[str, ...] | None:
    """The patient of each case by the card in the records, else the card of the dataset's name; None where
    each case is its own patient.

    Args:
        runs: runs of one dataset.
        cases: case ids.
    """
    recorded = next(filter(None, (_grouping(facts.table(run.record.dataset, "card")) for run in runs)), None)
    card = dataset_card(runs[0].dataset)
    grouping = recorded or (_grouping(card.model_dump(include={"layout", "patient"})) if card else None)
    if grouping is None or grouping[1] == "case":
        return None
    pattern, group = grouping
    try:
        compiled = re.compile(pattern)
    except re.error:  # a record of another tool may hold anything
        return None
    found: list[str] = []
    for case in cases:
        match = compiled.fullmatch(case)
        if match is None or not match.groupdict().get(group):
            return None
        found.append(str(match.groupdict()[group]))
    return tuple(found)


def _grouping(card: Mapping[str, Any]) -> tuple[str, str] | None:
    """The pattern of case ids and the group in it that names the patient, where a card declares them."""
    pattern, group = facts.text(card, "layout", "case_pattern"), facts.text(card, "patient", "group")
    return (pattern, group) if pattern and group else None


def dataset_card(slug: str) -> DatasetCard | None:
    """The suite's card of a dataset, None where it has none that can be read."""
    from segbench.cards import load_dataset_card

    try:
        return load_dataset_card(slug)
    except SegbenchError:
        return None
