"""What a run's record says about how its numbers came about, with None wherever it says nothing.

A record may come from another tool and hold anything in its tables (`model`, `dataset`, `protocol`,
`metric_profile`, `machine`): every function here takes any content and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segbench.core.hashing import digest_json

if TYPE_CHECKING:
    from segbench.records.schema import RunRecord

_NOT_RECIPE = frozenset(("name", "notes", "seeds", "schema_version"))


def table(value: object, *names: str) -> Mapping[str, Any]:
    """The table at a path of names below a value; empty where it is absent or something else."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def text(value: object, *names: str) -> str:
    """The text at a path of names below a value; empty where there is none."""
    *above, last = names
    found = table(value, *above).get(last)
    return found if isinstance(found, str) else ""


def model_name(record: RunRecord) -> str:
    """Slug of the model, empty when unknown."""
    return text(record.model, "slug")


def dataset_name(record: RunRecord) -> str:
    """Slug of the dataset, empty when unknown."""
    return text(record.dataset, "slug")


def protocol_name(record: RunRecord) -> str:
    """Name of the protocol, empty when unknown."""
    return text(record.protocol, "name")


def title(record: RunRecord) -> str:
    """Display name of the model, empty when unknown."""
    return text(record.model, "title").strip() or text(record.model, "card", "title").strip()


def family(record: RunRecord) -> str:
    """Family of the model by its card, empty when unknown."""
    return text(record.model, "card", "family") or text(record.model, "family")


def recipe_fields(record: RunRecord) -> dict[str, Any]:
    """The protocol as dotted fields (`optimiser.lr`), without name, notes and default seeds."""
    return flat({key: value for key, value in table(record.protocol).items() if key not in _NOT_RECIPE})


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names, sorted."""
    found: dict[str, Any] = {}
    for key in sorted(content, key=str):
        value = content[key]
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def protocol_notes(record: RunRecord) -> list[str]:
    """Every text in the protocol's `[notes]`, in order, without its purpose."""
    notes = table(record.protocol, "notes")
    lines: list[str] = []
    for key in sorted(notes, key=str):
        value = notes[key]
        if isinstance(value, str) and value and key != "purpose":
            lines.append(value)
        elif isinstance(value, list | tuple):
            lines.extend(str(item) for item in value)
    return lines


def split_digest(record: RunRecord) -> str | None:
    """Digest of the split, None when unknown."""
    return (record.split.digest if record.split is not None else None) or None


def split_name(record: RunRecord) -> str | None:
    """Name of the split, None when unknown."""
    return (record.split.name if record.split is not None else None) or None


def test_cases(record: RunRecord) -> tuple[str, ...] | None:
    """Expected case ids of the run, None when unknown."""
    return (record.split.test if record.split is not None else None) or None


def test_used_for_selection(record: RunRecord) -> int:
    """How many test cases also stand in the validation list, hence took part in choosing the weights."""
    split = record.split
    return 0 if split is None else len(set(split.test or ()) & set(split.validation or ()))


def test_in_training(record: RunRecord) -> int:
    """How many test cases stand in the training list as well."""
    split = record.split
    return 0 if split is None else len(set(split.test or ()) & set(split.train or ()))


def leak_counts(record: RunRecord) -> tuple[int, int]:
    """Test cases that share a patient with training, and patients in more than one part."""
    leaks = record.split.leaks if record.split is not None else None
    return (0, 0) if leaks is None else (leaks.test_cases, leaks.patients)


def acknowledged_leaks(record: RunRecord) -> bool:
    """Whether the split is known to leak and was run all the same."""
    return record.split is not None and record.split.acknowledged_leaks


def metric_profile(record: RunRecord) -> Mapping[str, Any]:
    """The metric profile; with only a name known, a table with that name; else empty."""
    if record.metric_profile:
        return record.metric_profile
    name = text(record.protocol, "metrics", "profile")
    return {"name": name} if name else {}


def profile_digest(record: RunRecord) -> str | None:
    """Digest of the metric profile as a file, else of its fields; None when unknown."""
    profile = metric_profile(record)
    if not profile:
        return None
    stored = text(profile, "digest")
    fields = {key: value for key, value in flat(profile).items() if key != "notes"}
    return stored or digest_json(repr(fields))


def empty_policy(record: RunRecord) -> str | None:
    """Empty policy of the metric profile, None when unknown."""
    return text(metric_profile(record), "empty_policy") or None


def region_labels(record: RunRecord) -> dict[str, tuple[int, ...]] | None:
    """Label values of every region the run was asked for, None when the record does not say."""
    card = table(record.dataset, "card", "regions")
    asked = table(record.metric_profile, "regions") or card
    found = {
        str(name): tuple(sorted(label for label in labels if isinstance(label, int)))
        for name, labels in asked.items()
        if isinstance(labels, list | tuple)
    }
    return found or None


def nsd_tolerances(record: RunRecord) -> dict[str, float] | None:
    """Tolerance of NSD in mm by region, `default` for all others; None when the record does not say."""
    stated = metric_profile(record).get("nsd_tolerance")
    card = table(record.dataset, "card", "evaluation", "nsd_tolerance_mm")
    by_region = stated if isinstance(stated, Mapping) else card
    found = {str(name): number(value) for name, value in by_region.items()}
    found = {"default": number(stated)} if number(stated) is not None else found
    return {name: value for name, value in found.items() if value is not None} or None


def nsd_tolerance(record: RunRecord) -> float | None:
    """Tolerance of NSD in mm where the record says one number for all regions, else None."""
    numbers = set((nsd_tolerances(record) or {}).values())
    return numbers.pop() if len(numbers) == 1 else None


def dirty(record: RunRecord) -> bool:
    """Whether segbench's own code had uncommitted changes."""
    return table(record.segbench, "git").get("dirty") is True


def degraded(record: RunRecord) -> bool:
    """Whether training was rolled back after non-finite values."""
    return record.degraded is True


def equal_to_reference(record: RunRecord) -> bool:
    """Whether a prediction of an evaluation was its reference, byte for byte."""
    return bool(table(record.external).get("equal_to_reference"))


def phantom(record: RunRecord) -> bool:
    """Whether the numbers come from generated scans or from the demo protocol."""
    named = dataset_name(record).startswith("phantom") or protocol_name(record).startswith("demo")
    return named or bool(table(record.dataset, "card").get("phantom"))


def gpu_memory_gib(record: RunRecord) -> int | None:
    """Memory of the accelerator in whole GiB, None without one or when unknown."""
    gpu = table(record.machine, "gpu")
    places = ("gpu_memory_bytes", "accelerator_memory_bytes", "total_memory_bytes")
    stated = [place.get(key) for place in (gpu, table(record.machine)) for key in places]
    for value in map(number, (*stated, gpu.get("memory_bytes"))):
        if value is not None and value > 0:
            return round(value / 2**30)
    return None


def number(value: object) -> float | None:
    """A finite number that a float can hold; JSON of other tools knows NaN, Infinity and 400 digits."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return None
