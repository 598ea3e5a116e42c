"""The identity of a run: everything that decides its numbers except fold and seed, as one type.

Runs of different identity are never averaged and never tested as one. What a record does not say
is `UNKNOWN`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from segbench.core.hashing import digest_json
from segbench.records import facts
from segbench.records.schema import RunRecord

UNKNOWN = "unknown"
VERSIONED = ("monai",)
"""Packages whose networks have cards here; what they compute may differ by version."""
NOT_RECIPE = ("name", "notes", "seeds", "schema_version")
"""Fields of a protocol that decide no number."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that decides the numbers of a run except fold and seed; each part as plain JSON.

    Attributes:
        model: slug, or the name given to predictions of another tool.
        kind: trained, external or floor.
        implementation: dotted name of the network's class.
        arguments: of the card and of the network as built.
        code: digest of the sources of a network that is not segbench's own; of one that MONAI brings the
            version of MONAI, empty where none is recorded; empty for segbench's own. Where a record names a
            foreign class but not its code, the run's id: what is not known to be equal is never averaged.
        recipe: the resolved protocol as dotted fields, without name, notes and default seeds.
        dataset: slug of the dataset.
        content: digest of the dataset's files; of predictions of another tool empty, as their references are
            told one by one, or `UNKNOWN` where they are not.
        split: name of the split, and whether its digest is known.
        rules: metric profile, empty policy, regions with their labels, tolerances, lesion parameters.
        settings: fields of the dataset card that decide numbers.
    """

    model: str
    kind: str
    implementation: str
    arguments: Any
    code: str
    recipe: Any
    dataset: str
    content: str
    split: str
    rules: Any
    settings: Any

    @property
    def digest(self) -> str:
        """64 hex digits over all parts."""
        return digest_json({item.name: getattr(self, item.name) for item in fields(self)})


def identity_of(record: RunRecord) -> Identity:
    """The identity of a run, from its record alone."""
    implementation = facts.text(record.model, "card", "implementation") or UNKNOWN
    return Identity(
        model=facts.text(record.model, "slug"),
        kind=record.kind,
        implementation=implementation,
        arguments=plain(arguments(record)),
        code=_code(record, implementation),
        recipe=plain(_recipe(record)) or UNKNOWN,
        dataset=facts.text(record.dataset, "slug"),
        content=_content(record),
        split=_split(record),
        rules=plain(rules(record) | _rules_as_used(record)) or UNKNOWN,
        settings=plain(_settings(record)) or UNKNOWN,
    )


def _rules_as_used(record: RunRecord) -> dict[str, Any]:
    """The digest of the rules and the labels a prediction may hold: they keep runs from being one row."""
    found = {"digest": record.rules_digest, "labels": facts.metric_profile(record).get("labels")}
    return {name: value for name, value in found.items() if value is not None}


def _settings(record: RunRecord) -> dict[str, Any]:
    """What the dataset card in a record says that decides numbers, dotted names."""
    card = facts.table(record.dataset, "card")
    found = {name: facts.table(card, name) for name in ("channels", "labels", "regions", "geometry")}
    found["evaluation"] = {
        name: value
        for name, value in facts.table(card, "evaluation").items()
        if name not in {"mean_regions", "margin", "margin_source", "size_bins_ml", "readers"}
    }
    return facts.flat({name: table for name, table in found.items() if table})


def _content(record: RunRecord) -> str:
    """The digest of the dataset's files; of predictions of another tool only whether references are known."""
    if record.kind == "external":
        return "" if record.references else UNKNOWN
    return facts.text(record.dataset, "digest") or UNKNOWN


def _recipe(record: RunRecord) -> dict[str, Any]:
    """The protocol as dotted fields (`optimiser.lr`), without name, notes and default seeds."""
    fields = facts.table(record.protocol).items()
    return facts.flat({key: value for key, value in fields if key not in NOT_RECIPE})


def _split(record: RunRecord) -> str:
    """Name of the split; a run of which the digest is unknown is not known to be like one that says it."""
    name = facts.split(record).name or UNKNOWN
    return name if facts.split_digest(record) is not None else f"{name}, digest {UNKNOWN}"


def _code(record: RunRecord, implementation: str) -> str:
    if record.code is not None and record.code.digest:
        return record.code.digest
    package = implementation.partition(":")[0].split(".")[0]
    if package in VERSIONED:
        version = (record.versions or {}).get(package)
        return f"{package} {version}" if version else ""
    return "" if implementation == UNKNOWN or package == "segbench" else f"{UNKNOWN}, {record.run_id}"


def arguments(record: RunRecord) -> dict[str, Any]:
    """Arguments of the card and of the network as built, dotted names."""
    card, built = facts.table(record.model, "card", "arguments"), facts.table(record.model, "arguments")
    start = {} if record.init is None else {"init": record.init.sha256}
    return facts.flat({**card, **built, **start})


def rules(record: RunRecord) -> dict[str, Any]:
    """How a run was scored: fields of the profile, labels and tolerances by region; empty when unknown.

    A record that names the card in place of regions or tolerances is read with its own copy of the card.
    """
    stated = facts.metric_profile(record)
    found = {
        name.replace("_", " "): value
        for name, value in stated.items()
        if name not in {"notes", "headline", "digest", "regions", "nsd_tolerance", "metrics", "labels"}
    }
    if stated:
        fields = {name: value for name, value in facts.flat(stated).items() if name != "notes"}
        found["metric profile"] = facts.text(stated, "digest") or digest_json(repr(fields))
    found |= {
        f"labels of region {name}": labels for name, labels in (facts.region_labels(record) or {}).items()
    }
    tolerances = facts.nsd_tolerances(record) or {}
    for name in facts.region_labels(record) or tolerances:
        if name in tolerances or "default" in tolerances:
            found[f"NSD tolerance of {name} (mm)"] = tolerances.get(name, tolerances.get("default"))
    evaluation = facts.table(record.dataset, "card", "evaluation")
    for name in ("lesionwise", "ignore_label") if evaluation or "regions" in stated else ():
        found.setdefault(name.replace("_", " "), evaluation.get(name))  # a card without it says none
    return found


def plain(value: Any) -> Any:
    """A value of a foreign record as JSON with text keys; what JSON cannot hold as its `repr`."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else repr(value)
