"""Score against reference volume: a dot for each case, and a running median for each model."""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block, nan_mean
from segbench.report.analysis.metric import Metric
from segbench.report.analysis.missing import FloatArray
from segbench.report.write.figures.style import (
    RULE,
    WIDTHS,
    NoData,
    Sketch,
    axis_words,
    limits,
    looks,
    new_figure,
    plain_log,
)

MOST_PANELS = 6
POINTS_UP_TO = 6  # models; beyond, only the running medians are drawn
WINDOW = 0.2  # share of the cases under the running median
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))


def draw(analysis: Analysis, number: int) -> Sketch:
    """One panel for each region, log x; models without the baselines.

    Raises:
        NoData: volumes are not in the records.
    """
    block, metric = analysis.blocks[number], analysis.metrics[0]
    regions = [
        region
        for region in analysis.regions(number)
        if region in block.regions and np.any(_volumes(block, region) > 0)
    ][:MOST_PANELS]
    if not regions or metric.name not in block.metrics:
        raise NoData("volumes are not in the records")
    across = min(3, len(regions))
    down = -(-len(regions) // across)
    figure, axes = new_figure(
        WIDTHS["double"],
        max(0.8 + 1.9 * down, 0.5 + 0.17 * len(block.models)),
        down,
        across,
        squeeze=False,
        sharey=True,
    )
    panels = list(axes.flat)
    found = np.concatenate(
        [_panel(axis, analysis, block, region, metric) for region, axis in zip(regions, panels, strict=False)]
    )
    if not found.size:
        raise NoData("no case has a score and a volume")
    panels[0].set_ylim(*limits(metric, [float(found.min()), float(found.max())]))
    for axis in panels[len(regions) :]:
        axis.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.supxlabel("reference volume (ml)", fontsize=8)
    figure.supylabel(axis_words(metric), fontsize=8)
    return Sketch(
        figure,
        f"{metric.head} against reference volume on {block.name}; lines: running medians.",
        f"{metric.head} against reference volume on {block.name} in {', '.join(regions)}, for "
        f"{', '.join(analysis.names[scores.label].short for scores in block.models)}.",
    )


def _volumes(block: Block, region: str) -> FloatArray:
    return np.nan_to_num(block.reference_ml[:, list(block.regions).index(region)])


def _panel(axis: Any, analysis: Analysis, block: Block, region: str, metric: Metric) -> FloatArray:
    """Dots and running medians of one region; gives every score shown."""
    volumes, colours = _volumes(block, region), looks(list(analysis.names))
    everything: list[FloatArray] = [np.empty(0)]
    for place, label in enumerate(analysis.ordered([scores.label for scores in block.models])):
        scores = next(item for item in block.models if item.label == label)
        values = nan_mean(block.per_case(scores, region, metric.name), axis=0) * metric.scale
        usable = np.isfinite(values) & (volumes > 0)
        order = np.argsort(volumes[usable], kind="stable")
        x, y = volumes[usable][order], values[usable][order]
        everything.append(y)
        colour, marker = colours[label]
        if len(block.models) <= POINTS_UP_TO:
            axis.plot(x, y, marker, color=colour, ms=2.0, alpha=0.45, mew=0)
        if x.size:
            line = LINES[place % len(LINES)]
            name = analysis.names[label].short
            axis.plot(*running_median(x, y), color=colour, linestyle=line, label=name)
    axis.set_xscale("log")
    filled = volumes[volumes > 0]
    plain_log(axis.xaxis, float(filled.min()), float(filled.max()))
    axis.set_title(region, loc="left")
    axis.grid(color=RULE, linewidth=0.5)
    return np.concatenate(everything)


def running_median(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median of y in a window of a fifth of the cases (at least 5) that slides over x in ascending order."""
    width = min(max(5, round(WINDOW * x.size)), x.size)
    starts = range(x.size - width + 1)
    return (
        np.array([np.exp(np.mean(np.log(x[start : start + width]))) for start in starts]),
        np.array([np.median(y[start : start + width]) for start in starts]),
    )
