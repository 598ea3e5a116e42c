"""How a metric is shown: label, scale, digits, direction and the margin within which a difference does not
matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segbench.metrics.registry import METRICS, value_range

MARGINS: Mapping[str, float] = {
    **dict.fromkeys(("dice", "iou", "nsd", "cldice", "precision", "recall", "volume_similarity"), 0.01),
    **dict.fromkeys(("hd", "hd95", "hd95_max"), 1.0),
    **dict.fromkeys(("assd", "masd"), 0.5),
    "relative_volume_error": 0.02,
}
"""Equivalence margins in stored units; metrics not named here get one by their unit."""

_LABELS = {
    "hd95_max": "HD95 (max)",
    "lesionwise_dice": "Lesion-wise Dice",
    "lesionwise_hd95": "Lesion-wise HD95",
}


@dataclass(frozen=True, slots=True)
class MetricDisplay:
    """A metric as tables and figures show it.

    Attributes:
        name: column name.
        label: words of a head, with the tolerance where there is one: "NSD 2 mm".
        unit: "%" for scaled fractions, "mm", "" for counts and unknown metrics.
        scale: factor from stored to printed.
        higher_is_better: None when the direction is unknown or the metric is descriptive.
        margin: equivalence margin in stored units.
        worst: worst stored value where it does not depend on the case, else None.
    """

    name: str
    label: str
    unit: str
    scale: float
    higher_is_better: bool | None
    margin: float
    worst: float | None

    @property
    def head(self) -> str:
        """Label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def axis(self) -> str:
        """Label with unit and arrow, for an axis."""
        arrows = {True: " \N{UPWARDS ARROW}", False: " \N{DOWNWARDS ARROW}", None: ""}
        return self.head + arrows[self.higher_is_better]

    def within(self, bound: float | None) -> float | None:
        """An end of an interval of the mean, cut where the metric ends: that of few cases may lie beyond."""
        if bound is None:
            return None
        least, most = value_range(self.name)
        return min(max(bound, least), most)


def display(
    name: str, *, margins: Mapping[str, float] | None = None, tolerance_mm: float | None = None
) -> MetricDisplay:
    """How to show a metric.

    Args:
        name: column name; one that the registry does not know has no direction and is shown as it stands.
        margins: overrides of the equivalence margins, in stored units.
        tolerance_mm: of NSD, printed in its label.
    """
    info = METRICS.get(name)
    override = (margins or {}).get(name)
    if info is None:
        return MetricDisplay(name, name, "", 1.0, None, override or 0.01, None)
    fraction = info.unit == "1"
    default = MARGINS.get(name, 0.01 if fraction else 1.0)
    label = _LABELS.get(name, info.title)
    if name == "nsd" and tolerance_mm is not None:
        label = f"NSD {tolerance_mm:g} mm"
    return MetricDisplay(
        name=name,
        label=label,
        unit="%" if fraction else "mm" if info.unit == "mm" else "",
        scale=100.0 if fraction else 1.0,
        higher_is_better=None if info.descriptive else info.direction == "higher",
        margin=default if override is None else override,
        worst=info.worst if isinstance(info.worst, float) else None,
    )
