"""Cost against score: log cost, mean with its interval, and the front of models that none beats in both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from segbench.report.analysis.analysis import Analysis
from segbench.report.write.figures.style import (
    SOFT,
    WIDTHS,
    NoData,
    Sketch,
    axis_words,
    limits,
    new_figure,
)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette (its yellow, too pale for points on white, replaced by a brown)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")

AXES = (
    ("gmacs", "operations (GMAC)"),
    ("seconds_per_case", "inference (s per case)"),
    ("parameters_m", "parameters (M)"),
    ("peak_memory_gib", "peak memory (GiB)"),
    ("training_hours", "training (device hours)"),
)


def draw(analysis: Analysis, number: int) -> Sketch:
    """The first cost that at least two models have against the deciding column.

    Raises:
        NoData: no cost is known of two models.
    """
    column = analysis.column(number, analysis.metrics[0])
    labels = [] if column is None else list(column.order)
    words, known = _costs(analysis, labels)
    if column is None or not known:
        raise NoData("no cost is known of two models")
    metric, colours = column.metric, looks(analysis.names)
    points = {label: (known[label], (column.means[label].value or 0.0) * metric.scale) for label in known}
    figure, axis = new_figure(WIDTHS["double"], max(2.8, 0.6 + 0.17 * len(points)))
    front = pareto_front(points, higher=bool(metric.higher_is_better))
    axis.plot(
        [points[label][0] for label in front],
        [points[label][1] for label in front],
        color=SOFT,
        linestyle="--",
        linewidth=0.9,
        zorder=0,
        label="front",
    )
    shown = [y for _, y in points.values()]
    for label, (x, y) in points.items():
        (colour, marker), mean = colours[label], column.means[label]
        if mean.low is not None and mean.high is not None:
            ends = [mean.low * metric.scale, mean.high * metric.scale]
            shown += ends
            axis.plot([x, x], ends, color=colour, linewidth=1.0)
        axis.plot([x], [y], marker, color=colour, ms=6, label=analysis.names[label].short)
    axis.set_xscale("log")
    _plain_log(axis.xaxis, min(known.values()), max(known.values()))
    axis.set_xlabel(f"{words} \N{DOWNWARDS ARROW}")
    axis.set_ylabel(axis_words(metric))
    axis.set_ylim(*limits(metric, shown))
    axis.grid(which="both")
    figure.legend(loc="outside right center", frameon=False)
    name = analysis.blocks[number].name
    listed = "; ".join(f"{analysis.names[label].short} {x:.3g}, {y:.2f}" for label, (x, y) in points.items())
    leading = ", ".join(analysis.names[label].short for label in front)
    return Sketch(
        figure,
        f"{metric.head} on {name} against {words}; dashed: models that no other beats in both.",
        f"{metric.head} against {words} on {name}: {listed}. On the front: {leading}.",
    )


def _costs(analysis: Analysis, labels: list[str]) -> tuple[str, Mapping[str, float]]:
    """Words and values by label of the first cost known of two models; no values when there is none."""
    for field, words in AXES:
        values = {label: getattr(analysis.costs[label], field) or 0.0 for label in labels}
        known = {label: value for label, value in values.items() if value > 0}
        if len(known) >= 2:
            return words, known
    return "", {}


def pareto_front(points: Mapping[str, tuple[float, float]], *, higher: bool) -> list[str]:
    """Models that no other beats in both cost (lower) and score, from cheap to dear."""
    sign = 1 if higher else -1
    front: list[str] = []
    best = float("-inf")
    for label in sorted(points, key=lambda name: (points[name][0], -sign * points[name][1], name)):
        if sign * points[label][1] > best:
            best = sign * points[label][1]
            front.append(label)
    return front


def looks(labels: Iterable[str]) -> Mapping[str, tuple[str, str]]:
    """A fixed (colour, marker) for each label, by the sorted labels; pairs repeat after 24."""
    return {
        label: (COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, label in enumerate(sorted(labels))
    }


def _plain_log(axis: Any, low: float, high: float) -> None:
    """Plain numbers on a log axis: four round ones below a decade, else decades, with 2 and 5 below two."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = math.log10(high / low)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if decades < 1:
        steps = [low * (high / low) ** (place / 3) for place in range(4)]
        axis.set_major_locator(FixedLocator(sorted({float(f"{value:.2g}") for value in steps})))
        axis.set_minor_locator(NullLocator())
    else:
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
        axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
