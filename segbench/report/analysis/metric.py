"""How a score is printed: its number, its metric's label, unit, scale and direction, and which are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from segbench.core.errors import unknown_name
from segbench.metrics.registry import METRICS, value_range
from segbench.records import facts
from segbench.report.analysis.blocks import Block
from segbench.report.analysis.options import Options

_CONTEXT = Context(prec=400, rounding=ROUND_HALF_EVEN)  # wide enough for any double at any number of digits
HEADLINE = ("dice", "hd95", "nsd")
BOUNDARY = ("hd95", "lesionwise_hd95", "nsd", "assd", "masd", "hd")
"""Boundary metrics in the order in which one is chosen to stand beside the primary metric."""

_LABELS = {
    "hd95_max": "HD95 (max)",
    "lesionwise_dice": "Lesion-wise Dice",
    "lesionwise_hd95": "Lesion-wise HD95",
}


def format_number(value: float, *, scale: float = 1.0, digits: int = 2) -> str:
    """A number with fixed decimals, `-` as minus, `inf` for infinities; a rounded -0.00 becomes 0.00.

    Args:
        value: in stored units, not NaN.
        scale: factor applied before rounding (100 prints a Dice of 0.9 as 90.00).
        digits: decimals, 0 or more.
    """
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    exact = _CONTEXT.multiply(Decimal(repr(float(value))), Decimal(repr(float(scale))))
    rounded = exact.quantize(Decimal(1).scaleb(-digits), context=_CONTEXT)
    return f"{abs(rounded):f}" if rounded.is_zero() else f"{rounded:f}"


def format_p(value: float | None) -> str:
    """A p-value with three decimals, `<0.001` below that, never 0; `n/a` when there is none."""
    if value is None or math.isnan(value):
        return "n/a"
    return "<0.001" if value < 0.001 else format_number(value, digits=3)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as tables and figures show it.

    Attributes:
        name: column name.
        label: words of a head, with the tolerance where there is one: "NSD 2 mm".
        unit: "%" for scaled fractions, "mm", "" for counts and unknown metrics.
        scale: factor from stored to printed.
        higher_is_better: None when the direction is unknown or the metric is descriptive.
    """

    name: str
    label: str
    unit: str
    scale: float
    higher_is_better: bool | None

    @property
    def head(self) -> str:
        """Label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def difference_unit(self) -> str:
        """The unit of a difference in words: "points" for percentages."""
        return "points" if self.unit == "%" else self.unit

    @property
    def arrow(self) -> str:
        """An arrow in the better direction, empty where there is none."""
        return {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}", None: ""}[self.higher_is_better]

    def bounds(self, diagonal_mm: float) -> tuple[float, float]:
        """The range of the metric in stored units; distances end at the largest diagonal, where known."""
        least, most = value_range(self.name)
        reaches = self.unit == "mm" and diagonal_mm == diagonal_mm
        return least, min(most, diagonal_mm) if reaches else most


def metric(name: str, *, tolerance_mm: float | None = None) -> Metric:
    """How to show a metric column; one that the registry does not know has no direction.

    Args:
        name: column name.
        tolerance_mm: of NSD, printed in its label.
    """
    info = METRICS.get(name)
    if info is None:
        return Metric(name, name, "", 1.0, None)
    fraction = info.unit == "1"
    label = _LABELS.get(name, info.title)
    if name == "nsd" and tolerance_mm is not None:
        label = f"NSD {tolerance_mm:g} mm"
    return Metric(
        name=name,
        label=label,
        unit="%" if fraction else "mm" if info.unit == "mm" else "",
        scale=100.0 if fraction else 1.0,
        higher_is_better=None if info.descriptive else info.direction == "higher",
    )


def choose_metrics(blocks: Sequence[Block], options: Options) -> tuple[Metric, ...]:
    """Asked metrics, or the headline of the profiles, ranked metrics of their sets, and unknown columns; the
    primary one first.

    Raises:
        SegbenchError: SB101 for a metric that no run has.
    """
    present = list(dict.fromkeys(name for block in blocks for name in block.metrics))
    for name in (*options.metrics, *([options.primary] if options.primary else [])):
        if name not in present:
            raise unknown_name("metric", name, present, listing="segbench list metrics")
    chosen = list(options.metrics) or _default_metrics(blocks, present)
    if options.primary:
        chosen = [options.primary, *(name for name in chosen if name != options.primary)]
    tolerances = {facts.nsd_tolerance(run.record) for block in blocks for run in block.runs}
    tolerance = next(iter(tolerances)) if len(tolerances) == 1 else None
    return tuple(metric(name, tolerance_mm=tolerance) for name in chosen)


def _default_metrics(blocks: Sequence[Block], present: Sequence[str]) -> list[str]:
    listed = [
        str(name)
        for block in blocks
        for run in block.runs
        for name in facts.metric_profile(run.record).get("headline") or ()
    ]
    chosen = [name for name in dict.fromkeys([*HEADLINE, *listed]) if name in present]
    # lesion-wise and airway scores belong to the headline wherever they were computed
    extra = [
        name
        for name in present
        if (info := METRICS.get(name)) is not None
        and info.group != "region"
        and not info.descriptive
        and not name.startswith("legacy")
    ]
    chosen += [name for name in extra if name not in chosen]
    if not chosen:
        chosen = [name for name in present if name in METRICS]
    return chosen + [name for name in present if name not in METRICS and name not in chosen]


def check_names(blocks: Sequence[Block], options: Options) -> None:
    """SB101 for a region, reference or margin that names nothing there is."""
    regions = sorted({region for block in blocks for region in block.table_regions})
    for region in options.regions:
        if region not in regions:
            raise unknown_name("region", region, regions, listing="segbench show dataset:NAME")
    labels = sorted({scores.label for block in blocks for scores in block.contenders(options.baselines)})
    if options.reference not in (None, "none", *labels):
        raise unknown_name("run of a model", str(options.reference), labels, listing="segbench list runs")
    for name in options.margin:
        known = sorted({*METRICS, *(column for block in blocks for column in block.metrics)})
        if name not in known:
            raise unknown_name("metric", name, known, listing="segbench list metrics")


def shown_regions(block: Block, options: Options) -> tuple[str, ...]:
    """Regions of a block that the options ask for; all when none is named. The deciding one is last."""
    if not options.regions:
        return block.table_regions
    named = tuple(region for region in options.regions if region in block.table_regions)
    return named if block.main_region in named else (*named, block.main_region)
