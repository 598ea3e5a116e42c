"""09 Forest plot: differences to one model with intervals, the margin band, the verdict in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from segbench.report.analysis import Analysis
from segbench.report.figures.data import View, view
from segbench.report.figures.labels import cut, most_lines
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure
from segbench.report.pairwise import Pair

MOST_REGIONS = 4


def draw(analysis: Analysis, number: int) -> Sketch:
    """Every model against the reference, else against the model ranked first.

    The interval is the two-level one where seeds allow (filled symbol), else that over cases (open symbol).

    Raises:
        NoData: no pair was tested.
    """
    shown = view(analysis, number, floors=False)
    against = analysis.options.reference or shown.models[0]
    regions = list(shown.regions[-1:])
    if len(shown.models) <= 8:
        regions = list(shown.regions[-MOST_REGIONS:])
    rows = [(region, pair) for region in reversed(regions) for pair in _against(shown, region, against)]
    if not rows:
        raise NoData("no pair was tested")
    scale = shown.metric.scale
    names = shown.names(length=34)
    step = 0.2 + 0.05 * (most_lines(names) - 1)
    several = len(regions) > 1
    figure, axis = new_figure(WIDTHS["double"], 0.75 + step * (len(rows) + 0.8 * len(regions) * several))
    margin = shown.metric.margin * scale
    axis.axvspan(-margin, margin, color="0.88", linewidth=0, zorder=0)
    axis.axvline(0, color="0.4", linewidth=0.7, zorder=1)
    places, labels, y, previous = [], [], 0.0, ""
    for region, pair in rows:
        y += 1.8 if several and region != previous else 1.0
        if several and region != previous:
            _heading(axis, region, y - 0.85)
        previous = region
        low, high, estimate, filled = interval_of(pair)
        look = shown.looks[pair.a]
        axis.plot([low * scale, high * scale], [y, y], color=look.colour, linewidth=1.2)
        face = look.colour if filled else "white"
        axis.plot([estimate * scale], [y], look.marker, color=look.colour, mfc=face, ms=4.5)
        axis.annotate(
            pair.words,
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            annotation_clip=False,
        )
        places.append(y)
        labels.append(names[pair.a])
    axis.set_yticks(places, labels, linespacing=1.0)
    axis.set_ylim(y + 0.8, 0.2)
    direction = {True: "right is better", False: "left is better"}[bool(shown.metric.higher_is_better)]
    unit = {"%": "points", "mm": "mm"}.get(shown.metric.unit, "")
    head = f"{shown.metric.label} difference to {cut(shown.label(against), 60)}"
    axis.set_xlabel(f"{head} ({unit}, {direction})" if unit else f"{head} ({direction})")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return Sketch(figure, _caption(shown, against), _alt(shown, against, rows))


def _heading(axis: Any, region: str, y: float) -> None:
    """The region above its rows, at the left edge of the names."""
    axis.annotate(
        region,
        (-0.01, y),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize=7.5,
        fontweight="bold",
        annotation_clip=False,
    )


def _against(shown: View, region: str, against: str) -> list[Pair]:
    """Tested pairs with the chosen model as second, in row order."""
    found: dict[str, Pair] = {}
    for pair in shown.analysis.pairs.get(shown.key(region), ()):
        if pair.p_wilcoxon is None or against not in (pair.a, pair.b):
            continue
        turned = pair if pair.b == against else turn(pair)
        found[turned.a] = turned
    return [found[model] for model in shown.models if model in found]


def turn(pair: Pair) -> Pair:
    """The same pair seen from the other side."""
    words = {"better": "worse", "worse": "better"}
    level = pair.two_level
    if level is not None:
        level = {
            **level,
            "difference": -level["difference"],
            "low": _minus(level["high"]),
            "high": _minus(level["low"]),
            "seeds_a": level["seeds_b"],
            "seeds_b": level["seeds_a"],
        }
    low, high = pair.interval.low, pair.interval.high
    return replace(
        pair,
        a=pair.b,
        b=pair.a,
        difference=_minus(pair.difference),
        interval=replace(pair.interval, low=_minus(high), high=_minus(low)),
        verdict=words.get(pair.verdict, pair.verdict),
        two_level=level,
    )


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def interval_of(pair: Pair) -> tuple[float, float, float, bool]:
    """Low, high and estimate to draw, and whether they come from the two-level test."""
    level = pair.two_level
    if level is not None and isinstance(level["low"], float) and isinstance(level["high"], float):
        return level["low"], level["high"], level["difference"], True
    estimate = pair.difference if pair.difference is not None else 0.0
    low = pair.interval.low if pair.interval.low is not None else estimate
    high = pair.interval.high if pair.interval.high is not None else estimate
    return low, high, estimate, False


def _caption(shown: View, against: str) -> str:
    return (
        f"Differences in {shown.metric.label} to {shown.label(against)} on {shown.block.name}; grey band: "
        "margin of equivalence; filled: two-level interval over seeds and cases; open: over cases, for these "
        "weights only; intervals are not adjusted, the words say where Holm takes a difference back."
    )


def _alt(shown: View, against: str, rows: list[tuple[str, Pair]]) -> str:
    parts = [
        f"{shown.label(pair.a)} in {region}: {interval_of(pair)[2] * shown.metric.scale:+.2f}, {pair.words}"
        for region, pair in rows
    ]
    return (
        f"Forest plot of differences to {shown.label(against)} on {shown.block.name}. "
        + "; ".join(parts)
        + "."
    )
