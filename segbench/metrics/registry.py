"""What each metric is: name, unit, direction, limits, needs, version and source, as data.

One `MetricInfo` per metric. The formulas live in `overlap.py`, `surface.py`, `cldice.py`, `lesionwise.py` and
`airway.py`; this file is what everything else (tables, reports, statistics, `segbench list metrics`) asks.
Adding a metric is one function and one entry here. A change that moves any value raises `version`, which is
part of the profile digest and so of the run id.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["higher", "lower", "near-zero"]
Needs = Literal["counts", "distances", "skeleton", "lesions", "airway"]
Group = Literal["region", "lesionwise", "lesion-nsd", "small-lesions", "airway"]
Family = Literal["overlap", "distance", "descriptive"]


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """The facts of one metric.

    Attributes:
        name: column name in `cases.csv`.
        unit: "1" for fractions, "mm" for distances, "count".
        direction: which way is better; "near-zero" for signed descriptive values.
        best: the value of a perfect prediction.
        worst: the value of a total failure; "diagonal" is the physical diagonal of the scored grid in mm;
            None for descriptive metrics, which are never ranked.
        needs: the cheapest thing it can be computed from.
        descriptive: True when the metric is shown and never ranked.
        version: raised with every change that moves a value.
        source: paper or repository path of the definition.
        title: the words of a table head.
        group: the set it belongs to: region metrics, one of the lesion-wise sets, airway.
        family: how empty regions are filled (`policies.py`).
        definition: the formula in one line.
    """

    name: str
    unit: str
    direction: Direction
    best: float
    worst: float | Literal["diagonal"] | None
    needs: Needs
    descriptive: bool = False
    version: int = 1
    source: str
    title: str = ""
    group: Group = "region"
    family: Family = "overlap"
    definition: str = ""


def _overlap(name: str, title: str, definition: str, source: str, needs: Needs = "counts") -> MetricInfo:
    return MetricInfo(
        name=name,
        title=title,
        unit="1",
        direction="higher",
        best=1.0,
        worst=0.0,
        needs=needs,
        group="region",
        family="overlap",
        source=source,
        definition=definition,
    )


def _distance(name: str, title: str, definition: str, source: str) -> MetricInfo:
    return MetricInfo(
        name=name,
        title=title,
        unit="mm",
        direction="lower",
        best=0.0,
        worst="diagonal",
        needs="distances",
        group="region",
        family="distance",
        source=source,
        definition=definition,
    )


def _lesion(
    name: str,
    title: str,
    definition: str,
    direction: Direction = "higher",
    *,
    group: Group = "lesionwise",
    version: int = 1,
) -> MetricInfo:
    ranked, distance = name.startswith(("lesionwise_", "legacy_")), name.endswith("_hd95")
    sources = ["rachitsaluja/BraTS-2023-Metrics metrics.py"] if group == "lesionwise" else []
    return MetricInfo(
        name=name,
        title=title,
        unit="mm" if distance else "1" if ranked else "count",
        direction="lower" if distance else direction,
        best=1.0 if ranked and not distance else 0.0,
        worst=(374.0 if distance else 0.0) if ranked else None,
        needs="lesions",
        group=group,
        family=("distance" if distance else "overlap") if ranked else "descriptive",
        descriptive=not ranked,
        version=version,
        source="; ".join([*sources, "brats-evaluation 0.0.10"]),
        definition=definition,
    )


def _airway(
    name: str,
    title: str,
    direction: Direction,
    definition: str,
    *,
    unit: str = "1",
    descriptive: bool = False,
) -> MetricInfo:
    higher = direction == "higher"
    return MetricInfo(
        name=f"airway_{name}",
        title=title,
        unit=unit,
        direction=direction,
        best=1.0 if higher and not descriptive else 0.0,
        worst=None if descriptive else (0.0 if higher else 1.0),
        needs="airway",
        group="airway",
        family="descriptive" if descriptive else "overlap",
        descriptive=descriptive,
        source="Nandayang/AIIB23 utils/airway_metric.py, utils/tree_parse.py",
        definition=definition,
    )


_RELOADED = "Maier-Hein et al. 2024, Metrics Reloaded"

_ENTRIES: tuple[MetricInfo, ...] = (
    _overlap("dice", "Dice", "2 #(R∩P) / (#R + #P)", "Dice 1945; " + _RELOADED),
    _overlap("iou", "IoU", "#(R∩P) / #(R∪P)", "Jaccard 1912; " + _RELOADED),
    _overlap("precision", "Precision", "#(R∩P) / #P", _RELOADED),
    _overlap("recall", "Recall", "#(R∩P) / #R", _RELOADED),
    _overlap(
        "volume_similarity",
        "Volume similarity",
        "1 - abs(#P - #R) / (#P + #R)",
        "Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x",
    ),
    MetricInfo(
        name="relative_volume_error",
        title="Relative volume error",
        unit="1",
        direction="near-zero",
        best=0.0,
        worst=None,
        needs="counts",
        group="region",
        family="descriptive",
        descriptive=True,
        source=_RELOADED,
        definition="(#P - #R) / #R, signed",
    ),
    _distance("hd", "HD", "max(pool)", "Huttenlocher et al. 1993; loli/medpy metric/binary.py hd"),
    _distance("hd95", "HD95", "95th percentile of pool", "loli/medpy metric/binary.py hd95"),
    _distance(
        "hd95_max",
        "HD95 (max of directed)",
        "max(p95(D1), p95(D2))",
        "Project-MONAI/MONAI metrics/hausdorff_distance.py; " + _RELOADED,
    ),
    _distance("assd", "ASSD", "mean(pool)", "loli/medpy >= 0.5 metric/binary.py assd"),
    _distance("masd", "MASD", "(mean(D1) + mean(D2)) / 2", "Project-MONAI/MetricsReloaded MASD"),
    _overlap(
        "nsd",
        "NSD",
        "(#{D1 <= t} + #{D2 <= t}) / (#D1 + #D2)",
        "Nikolov et al. 2021 (voxel form); Project-MONAI/MONAI metrics/surface_dice.py",
        needs="distances",
    ),
    _overlap(
        "cldice",
        "clDice",
        "harmonic mean of #(S(P)∩R)/#S(P) and #(S(R)∩P)/#S(R)",
        "Shit et al. 2021, arXiv:2003.07311",
        needs="skeleton",
    ),
    # The rules of two years share these columns: docs/reference/metric-definitions.md.
    _lesion(
        "lesionwise_dice", "Lesion-wise Dice", "2023: sum / (kept + FP); 2026: mean over matched lesions"
    ),
    _lesion(
        "lesionwise_hd95", "Lesion-wise HD95", "likewise; 2023: over surfel area; 2026: pooled", version=2
    ),
    _lesion("lesions_tp", "Lesions found", "kept lesions that are matched"),
    _lesion("lesions_fn", "Lesions missed", "kept lesions that are not matched", "lower"),
    _lesion("lesions_fp", "False positive lesions", "components of P without a lesion", "lower"),
    _lesion("lesions_ignored", "Lesions ignored", "lesions too small for the means", "near-zero"),
    _lesion("legacy_dice", "Dice (legacy)", "Dice of the whole region"),
    _lesion(
        "legacy_hd95", "HD95 (legacy)", "whole region; 2023: over surfel area; 2026: in voxels", version=2
    ),
    _lesion(
        "lesionwise_nsd",
        "Lesion-wise NSD",
        "mean over matched lesions, at the smallest spacing",
        group="lesion-nsd",
    ),
    _lesion("legacy_nsd", "NSD (legacy)", "whole region in voxels, tolerance 0.5", group="lesion-nsd"),
    _lesion(
        "small_lesions_found",
        "Small lesions found",
        "small lesions met with Dice >= 0.1",
        group="small-lesions",
    ),
    _airway("iou", "Airway IoU", "higher", "#(P'∩R) / #(P'∪R)"),
    _airway("dlr", "Tree length detected", "higher", "#(P'∩S) / #S"),
    _airway("dbr", "Branches detected", "higher", "detected / n"),
    _airway("precision", "Airway precision", "higher", "#(P'∩R) / #P'"),
    _airway("leakage", "Leakage", "lower", "#(P'\\R) / #R", descriptive=True),
    _airway("amr", "Airway missing ratio", "lower", "1 - #(P'∩R) / #R"),
    _airway("branches", "Branches", "near-zero", "n", unit="count", descriptive=True),
    _airway("branches_detected", "Branches found", "higher", "detected", unit="count", descriptive=True),
    _airway("skeleton_voxels", "Skeleton voxels", "near-zero", "#S", unit="count", descriptive=True),
)

METRICS: Mapping[str, MetricInfo] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every metric by its column name, in the order of tables."""

REGION_METRICS: tuple[str, ...] = tuple(entry.name for entry in _ENTRIES if entry.group == "region")
"""Names that `evaluate_case` knows."""

DEFAULT_METRICS: tuple[str, ...] = tuple(name for name in REGION_METRICS if name != "cldice")
"""What `evaluate_case(metrics=None)` computes: all region metrics but clDice, whose skeletons are slow."""


def value_range(name: str) -> tuple[float, float]:
    """Return the least and the largest value a metric can have; infinite where there is no limit.

    Args:
        name: column name; one that the registry does not know has no limits.
    """
    info = METRICS.get(name)
    if info is None:
        return -math.inf, math.inf
    if info.worst is None:  # shown, not ranked: counts and ratios; one of them is signed
        return (-1.0 if name == "relative_volume_error" else 0.0), math.inf
    if info.unit == "1":
        least, most = sorted((info.best, float(info.worst)))
        return least, most
    return info.best, math.inf


def suggestions(name: object, known: Iterable[str]) -> str:
    """Return " (did you mean a or b?)" for a name that is not in `known`, or the whole list when nothing is
    near.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if near:
        return f" (did you mean {' or '.join(near)}?)"
    return f" (known: {', '.join(names)})"


def resolve_metrics(metrics: Iterable[str] | None) -> tuple[str, ...]:
    """Return the region metrics asked for, each once, in the order given.

    Args:
        metrics: names of region metrics; None means `DEFAULT_METRICS`.

    Raises:
        ValueError: an unknown name, with suggestions.
    """
    if metrics is None:
        return DEFAULT_METRICS
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a sequence of names, not the single text {metrics!r}")
    names = tuple(dict.fromkeys(metrics))
    for name in names:
        if name not in REGION_METRICS:
            raise ValueError(f"unknown metric {name!r}{suggestions(name, REGION_METRICS)}")
    return names
