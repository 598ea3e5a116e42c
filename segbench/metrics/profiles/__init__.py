"""Metric profiles: named sets of metric definitions, read from the TOML files beside this one.

A profile says which metrics are computed, what empties score, in which unit, and how strictly geometry is
compared. Its digest covers the versions of the metrics it names and is part of the protocol, hence of the run
id.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from segbench.core.errors import SegbenchError, unknown_name
from segbench.core.foreign import parse_toml
from segbench.core.hashing import digest_json
from segbench.metrics.policies import POLICIES, EmptyPolicy
from segbench.metrics.registry import DEFAULT_METRICS, METRICS, REGION_METRICS, suggestions

SETS = ("lesionwise", "lesion-nsd", "small-lesions", "airway")

LESION_RULES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "brats2023-gli": {"dilation_iterations": 3, "minimum_volume_mm3": 50.0},
        "brats2023-ssa": {"dilation_iterations": 3, "minimum_volume_mm3": 50.0},
        "brats2023-ped": {"dilation_iterations": 3, "minimum_volume_mm3": 50.0},
        "brats2023-men": {"dilation_iterations": 1, "minimum_volume_mm3": 50.0},
        "brats2023-met": {"dilation_iterations": 1, "minimum_volume_mm3": 2.0},
        "brats2026": {},
        "brats2026-met": {"large_mm3": 20.0},
    }
)
"""What a card or a profile may name as its lesion-wise rules, and the arguments of each: those of 2023 are
`lesionwise.evaluate_lesions`, those of 2026 `lesions.matched.evaluate_matched_lesions`."""


@dataclass(frozen=True, kw_only=True)
class MetricProfile:
    """One named way to score.

    Attributes:
        name: slug of the profile; the file's stem for a user's own.
        metrics: region metrics, in column order.
        headline: the metrics that tables show first.
        empty_policy: what empties and failures score (`policies.py`).
        spacing: `header` scores in mm; `unit` scores with spacing 1, 1, 1, so distances are in voxels.
        nsd_tolerance: `card` (per region from the dataset card, 1 mm without one) or a number in mm.
        regions: `card` or fixed name -> labels.
        sets: extra sets of columns, of `SETS`.
        lesionwise: name in `LESION_RULES`; None takes the card's, or those of BraTS 2023 for gliomas.
        geometry: `strict` compares shape, spacing and position; `shape` compares the shape only.
        notes: printed in the report.
    """

    name: str
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    empty_policy: EmptyPolicy = "worst"
    spacing: Literal["header", "unit"] = "header"
    nsd_tolerance: Literal["card"] | float = "card"
    regions: Literal["card"] | Mapping[str, tuple[int, ...]] = "card"
    sets: tuple[str, ...] = ()
    lesionwise: str | None = None
    geometry: Literal["strict", "shape"] = "strict"
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every metric column that rows of this profile carry: the region metrics, then those of the sets."""
        return self.metrics + tuple(info.name for info in METRICS.values() if info.group in self.sets)

    def digest(self) -> str:
        """Return 64 hex digits over every field that moves a number and the version of every metric named."""
        content = asdict(self)
        content.pop("notes")
        if self.lesionwise is None:  # as before there was a choice
            content.pop("lesionwise")
        content["versions"] = {name: METRICS[name].version for name in self.columns}
        if isinstance(self.regions, Mapping):
            content["regions"] = {name: list(labels) for name, labels in self.regions.items()}
        return digest_json(content)


def list_profiles() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted."""
    folder = resources.files(__name__)
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_profile(name: str | Path) -> MetricProfile:
    """Return a shipped profile by name, or a user's own from a TOML file.

    Args:
        name: name of a shipped profile, or a path (with a separator, or ending in `.toml`).

    Raises:
        SegbenchError: SB101 for an unknown name, SB110 for a file that is invalid, all faults at once.
    """
    text = str(name)
    path = Path(text)
    if isinstance(name, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SegbenchError("SB110", f"profile file is not readable: {error}", path=path) from error
        return _parse(content, path.stem, str(path))
    known = list_profiles()
    if text not in known:
        raise unknown_name("metric profile", text, known, listing="segbench evaluate --help")
    content = resources.files(__name__).joinpath(f"{text}.toml").read_text(encoding="utf-8")
    return _parse(content, text, f"{text}.toml")


def _parse(text: str, name: str, origin: str) -> MetricProfile:
    try:
        table = parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise SegbenchError("SB110", f"metric profile is not valid TOML: {error}", path=origin) from error
    faults = _faults(table)
    if faults:
        raise SegbenchError("SB110", f"metric profile {name!r} is invalid", path=origin, details=faults)
    metrics = tuple(table.get("metrics", DEFAULT_METRICS))
    values: dict[str, Any] = dict(table)
    values["metrics"] = metrics
    values["headline"] = tuple(table.get("headline", [m for m in ("dice", "hd95", "nsd") if m in metrics]))
    for key in ("sets", "notes"):
        if key in table:
            values[key] = tuple(table[key])
    if isinstance(table.get("regions"), dict):
        values["regions"] = {region: tuple(labels) for region, labels in table["regions"].items()}
    values.pop("name", None)
    return MetricProfile(name=cast("str", table.get("name", name)), **values)


def _faults(table: Mapping[str, Any]) -> list[str]:
    """Return one line per fault of a profile table: key, what was found, what is allowed."""
    known = [entry.name for entry in fields(MetricProfile)]
    faults = [f"{key}: unknown key{suggestions(key, known)}" for key in table if key not in known]
    faults += _name_faults(table, "metrics", REGION_METRICS)
    faults += _name_faults(table, "headline", tuple(METRICS))
    faults += _name_faults(table, "sets", SETS)
    choices = {
        "empty_policy": tuple(POLICIES),
        "spacing": ("header", "unit"),
        "geometry": ("strict", "shape"),
        "lesionwise": tuple(LESION_RULES),
    }
    for key, allowed in choices.items():
        if key in table and table[key] not in allowed:
            faults.append(f"{key}: found {table[key]!r}, allowed {', '.join(allowed)}")
    faults += _tolerance_faults(table.get("nsd_tolerance", "card"))
    faults += _region_faults(table.get("regions", "card"))
    if not _is_texts(table.get("notes", [])):
        faults.append("notes: must be a list of texts")
    if not isinstance(table.get("name", ""), str):
        faults.append("name: must be a text")
    return faults


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in cast("list[Any]", value))


def _name_faults(table: Mapping[str, Any], key: str, known: tuple[str, ...]) -> list[str]:
    if not _is_texts(table.get(key, [])):
        return [f"{key}: must be a list of texts, found {table[key]!r}"]
    names = cast("list[str]", table.get(key, []))
    if len(set(names)) != len(names):
        return [f"{key}: a name appears twice"]
    return [f"{key}: unknown name {name!r}{suggestions(name, known)}" for name in names if name not in known]


def _tolerance_faults(value: Any) -> list[str]:
    if value == "card":
        return []
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return [f"nsd_tolerance: found {value!r}, allowed 'card' or a number of mm >= 0"]
    return []


def _region_faults(value: Any) -> list[str]:
    if value == "card":
        return []
    if not isinstance(value, dict) or not value:
        return [f"regions: found {value!r}, allowed 'card' or a table name = [labels]"]
    return [
        f"regions.{name}: found {labels!r}, allowed a list of labels > 0"
        for name, labels in cast("dict[str, Any]", value).items()
        if not isinstance(labels, list)
        or not labels
        or not all(type(label) is int and label > 0 for label in cast("list[Any]", labels))
    ]
