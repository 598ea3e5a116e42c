"""What a run's record says about how its numbers came about, with None wherever it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.core.hashing import digest_json
from segbench.report.runs import Run, slug_of


def table_of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that should be a table; empty when it is absent or something else."""
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def recipe_digest(run: Run) -> str | None:
    """Digest of the protocol without its name and notes, None when the record holds no protocol."""
    stored = run.record.get("protocol_digest")
    if isinstance(stored, str) and stored:
        return stored
    fields = recipe_fields(run)
    return digest_json({key: repr(value) for key, value in fields.items()}) if fields else None


def recipe_fields(run: Run) -> dict[str, Any]:
    """The protocol as dotted fields, without name, notes and default seeds."""
    protocol = table_of(run.record, "protocol")
    kept = {
        key: value
        for key, value in protocol.items()
        if key not in {"name", "notes", "seeds", "schema_version"}
    }
    return _flatten(kept)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in sorted(table):
        value = table[key]
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def protocol_notes(run: Run) -> list[str]:
    """Every text in the protocol's `[notes]`, in order, without its purpose."""
    notes = table_of(table_of(run.record, "protocol"), "notes")
    lines: list[str] = []
    for key in sorted(notes, key=str):
        value = notes[key]
        if isinstance(value, str) and value and key != "purpose":
            lines.append(value)
        elif isinstance(value, list | tuple):
            lines.extend(str(item) for item in value)
    return lines


def split_digest(run: Run) -> str | None:
    """Digest of the split, None when unknown."""
    split = table_of(run.record, "split")
    for key in ("digest", "sha256"):
        if isinstance(split.get(key), str) and split[key]:
            return str(split[key])
    return None


def split_name(run: Run) -> str | None:
    """Name of the split, None when unknown."""
    name = table_of(run.record, "split").get("name")
    return str(name) if name else None


def test_cases(run: Run) -> tuple[str, ...] | None:
    """Expected case ids of the run (`split.test`), None when unknown."""
    listed = table_of(run.record, "split").get("test")
    return tuple(str(case) for case in listed) if isinstance(listed, list | tuple) and listed else None


def metric_profile(run: Run) -> Mapping[str, Any]:
    """The metric profile as a table; with only a name known, a table with that name; else empty."""
    profile = run.record.get("metric_profile")
    if isinstance(profile, Mapping):
        return profile
    if isinstance(profile, str) and profile:
        return {"name": profile}
    name = slug_of(table_of(table_of(run.record, "protocol"), "metrics").get("profile"))
    return {"name": name} if name else {}


def profile_digest(run: Run) -> str | None:
    """Identity of the metric profile: its digest, else its fields, None when unknown."""
    profile = metric_profile(run)
    if not profile:
        return None
    stored = profile.get("digest")
    if isinstance(stored, str) and stored:
        return stored
    fields = {key: repr(value) for key, value in _flatten(profile).items() if key != "notes"}
    return digest_json(fields)


def empty_policy(run: Run) -> str | None:
    """Empty policy of the metric profile, None when unknown."""
    value = metric_profile(run).get("empty_policy")
    return str(value) if value else None


def nsd_tolerance(run: Run) -> float | None:
    """Tolerance of NSD in mm when the record says one number, else None."""
    value = metric_profile(run).get("nsd_tolerance")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        numbers = {number for number in value.values() if isinstance(number, int | float)}
        return float(numbers.pop()) if len(numbers) == 1 else None
    card = table_of(table_of(run.record, "dataset"), "card")
    tolerances = table_of(table_of(card, "evaluation"), "nsd_tolerance_mm")
    if set(tolerances) == {"default"} and isinstance(tolerances["default"], int | float):
        return float(tolerances["default"])
    return None


def leak_counts(run: Run) -> tuple[int, int]:
    """Test cases that share a patient with training, and patients in more than one part."""
    leaks = table_of(table_of(run.record, "split"), "leaks")
    return _count(leaks.get("test_cases")), _count(leaks.get("patients"))


def test_used_for_selection(run: Run) -> int:
    """How many test cases also stand in the validation list, hence took part in choosing the model."""
    split = table_of(run.record, "split")
    test, validation = split.get("test"), split.get("validation")
    if isinstance(test, list | tuple) and isinstance(validation, list | tuple):
        return len(set(map(str, test)) & set(map(str, validation)))
    return 0


def test_in_training(run: Run) -> int:
    """How many test cases stand in the training list as well."""
    split = table_of(run.record, "split")
    test, train = split.get("test"), split.get("train")
    if isinstance(test, list | tuple) and isinstance(train, list | tuple):
        return len(set(map(str, test)) & set(map(str, train)))
    return 0


def _count(value: object) -> int:
    if isinstance(value, list | tuple):
        return len(value)
    return value if isinstance(value, int) else 0


def dirty(run: Run) -> bool:
    """Whether the code that made the run had uncommitted changes."""
    for place in (run.record, table_of(run.record, "segbench")):
        if table_of(place, "git").get("dirty") is True:
            return True
    return False


def degraded(run: Run) -> bool:
    """Whether training was rolled back after non-finite values."""
    return run.record.get("degraded") is True


def equal_to_reference(run: Run) -> bool:
    """Whether a prediction of an evaluation was its reference, byte for byte."""
    return bool(table_of(run.record, "external").get("equal_to_reference"))


def title_of(run: Run) -> str:
    """Display name of the model as the record has it, else empty."""
    model = table_of(run.record, "model")
    for place in (model, table_of(model, "card")):
        if isinstance(place.get("title"), str) and place["title"].strip():
            return str(place["title"]).strip()
    return ""


def phantom(run: Run) -> bool:
    """Whether the numbers come from generated scans or from the demo protocol."""
    card = table_of(table_of(run.record, "dataset"), "card")
    return run.dataset.startswith("phantom") or run.protocol.startswith("demo") or bool(card.get("phantom"))


def is_floor(run: Run) -> bool:
    """Whether the run is a floor: a predictor without learning, below which nothing counts."""
    return run.kind == "floor"


def acknowledged_leaks(run: Run) -> bool:
    """Whether the split is known to leak and was run all the same."""
    return table_of(run.record, "split").get("acknowledged_leaks") is True


def family(run: Run) -> str:
    """Family of the model by its card in the record, empty when unknown."""
    model = table_of(run.record, "model")
    for place in (table_of(model, "card"), model):
        if isinstance(place.get("family"), str):
            return str(place["family"])
    return ""


def gpu_memory_gib(run: Run) -> int | None:
    """Memory of the accelerator in whole GiB, None without one or when unknown."""
    machine = table_of(run.record, "machine")
    for place in (table_of(machine, "gpu"), machine):
        for key in ("gpu_memory_bytes", "accelerator_memory_bytes", "total_memory_bytes"):
            value = place.get(key)
            if isinstance(value, int | float) and value > 0:
                return round(value / 2**30)
    value = table_of(machine, "gpu").get("memory_bytes")
    return round(value / 2**30) if isinstance(value, int | float) and value > 0 else None
