"""What a run's record says about how its numbers came about, with None wherever it says nothing.

A record may come from another tool and hold anything in its tables (`model`, `dataset`, `protocol`,
`metric_profile`, `machine`): every function here takes any content and never raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from segbench.core.foreign import table
from segbench.records.schema import Leaks, SplitRecord

if TYPE_CHECKING:
    from segbench.records.schema import RunRecord


def text(value: object, *names: str) -> str:
    """The text at a path of names below a value; empty where there is none."""
    *above, last = names
    found = table(value, *above).get(last)
    return found if isinstance(found, str) else ""


def number(value: object) -> float | None:
    """A finite number that a float can hold; JSON of other tools knows NaN, Infinity and 400 digits."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return None


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names, sorted."""
    found: dict[str, Any] = {}
    for key in sorted(content, key=str):
        value = content[key]
        inner = table(value)
        if inner:
            found.update(flat(inner, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def split(record: RunRecord) -> SplitRecord:
    """The split, every field of it None where the record does not say."""
    return record.split or SplitRecord()


def split_digest(record: RunRecord) -> str | None:
    """Digest of the split, None when unknown."""
    return split(record).digest or None


def leaked(record: RunRecord) -> dict[str, int]:
    """How many test cases took part in training or in the choice of weights, by what they did."""
    parts = split(record)
    test = set(parts.test or ())
    return {
        "share a patient with training": (parts.leaks or Leaks()).test_cases,
        "are in the training list": len(test & set(parts.train or ())),
        "were used to select the weights": len(test & set(parts.validation or ())),
        "were seen by the weights it started from": 0 if record.init is None else len(record.init.overlap),
    }


def metric_profile(record: RunRecord) -> Mapping[str, Any]:
    """The metric profile; with only a name known, a table with that name; else empty."""
    if record.metric_profile:
        return record.metric_profile
    name = text(record.protocol, "metrics", "profile")
    return {"name": name} if name else {}


def empty_policy(record: RunRecord) -> str | None:
    """Empty policy of the metric profile, None when unknown."""
    return text(metric_profile(record), "empty_policy") or None


def region_labels(record: RunRecord) -> dict[str, tuple[int, ...]] | None:
    """Label values of every region the run was asked for, None when the record does not say."""
    asked = table(record.metric_profile, "regions") or table(record.dataset, "card", "regions")
    found = {
        name: tuple(sorted(label for label in cast("Sequence[Any]", labels) if isinstance(label, int)))
        for name, labels in asked.items()
        if isinstance(labels, list | tuple)
    }
    return found or None


def nsd_tolerances(record: RunRecord) -> dict[str, float] | None:
    """Tolerance of NSD in mm by region, `default` for all others; None when the record does not say."""
    profile = metric_profile(record)
    stated = profile.get("nsd_tolerance")
    if number(stated) is not None:
        by_region: Mapping[str, Any] = {"default": stated}
    elif isinstance(stated, Mapping):
        by_region = table(profile, "nsd_tolerance")
    else:
        by_region = table(record.dataset, "card", "evaluation", "nsd_tolerance_mm")
    found = {name: number(value) for name, value in by_region.items()}
    return {name: value for name, value in found.items() if value is not None} or None


def nsd_tolerance(record: RunRecord) -> float | None:
    """Tolerance of NSD in mm where the record says one number for all regions, else None."""
    numbers = set((nsd_tolerances(record) or {}).values())
    return numbers.pop() if len(numbers) == 1 else None


def phantom(record: RunRecord) -> bool:
    """Whether the numbers come from generated images or from the demo protocol."""
    named = text(record.dataset, "slug").startswith("phantom")
    demo = text(record.protocol, "name").startswith("demo")
    return named or demo or bool(table(record.dataset, "card").get("phantom"))


def gpu_memory_gib(record: RunRecord) -> int | None:
    """Memory of the accelerator in whole GiB, None without one or when unknown."""
    gpu = table(record.machine, "gpu")
    places = ("gpu_memory_bytes", "accelerator_memory_bytes", "total_memory_bytes")
    stated = [place.get(key) for place in (gpu, table(record.machine)) for key in places]
    for value in map(number, (*stated, gpu.get("memory_bytes"))):
        if value is not None and value > 0:
            return round(value / 2**30)
    return None
