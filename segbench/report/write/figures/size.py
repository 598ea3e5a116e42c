"""06 Score against reference volume: every case a point, a running median per model, the volume bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import View, limits, view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import (
    LINES,
    WIDTHS,
    legend_height,
    new_figure,
    plain_log,
    point_size,
)
from segbench.report.missing import FloatArray
from segbench.report.rows import MEAN_REGION
from segbench.report.subgroups import size_bins

MOST_PANELS = 6
POINTS_UP_TO = 6  # models; beyond, only the running medians are drawn
WINDOW = 0.2  # share of the cases under the running median


def draw(analysis: Analysis, number: int) -> Sketch:
    """One panel per real region, log x.

    Raises:
        NoData: volumes are not in the records.
    """
    shown = view(analysis, number, floors=False)
    regions = [
        region
        for region in shown.regions
        if region != MEAN_REGION and np.nanmax(_volumes(shown, region), initial=0.0) > 0
    ][:MOST_PANELS]
    if not regions:
        raise NoData("volumes are not in the records")
    columns = min(3, len(regions))
    rows = -(-len(regions) // columns)
    width = WIDTHS["double"] if columns > 1 else WIDTHS["single"]
    figure, axes = new_figure(
        width,
        max(0.7 + 1.9 * rows, legend_height(shown.names().values())),
        rows,
        columns,
        squeeze=False,
        sharey=True,
    )
    panels = list(axes.flat)
    drawn = [_panel(axis, shown, region) for region, axis in zip(regions, panels, strict=False)]
    found = np.concatenate(drawn)
    if found.size:  # the panels share their axis: one range for all
        panels[0].set_ylim(*limits(shown.metric, float(found.min()), float(found.max())))
    for axis in panels[len(regions) :]:
        axis.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.supxlabel("reference volume (ml)", fontsize=8)
    figure.supylabel(shown.metric.axis, fontsize=8)
    caption = (
        f"{shown.metric.head} against reference volume on {shown.block.name}: "
        + ("cases as points, " if len(shown.models) <= POINTS_UP_TO else "")
        + "running median per model, dotted lines between the volume bins of the subgroup table."
    )
    return Sketch(figure, caption, _alt(shown, regions))


def _volumes(shown: View, region: str) -> FloatArray:
    return shown.block.reference_ml[:, shown.block.regions.index(region)]


def _panel(axis: Any, shown: View, region: str) -> FloatArray:
    """Points and running medians of one region; gives every score shown."""
    volumes = _volumes(shown, region)
    everything: list[FloatArray] = []
    names = shown.names()
    for place, model in enumerate(shown.models):
        values = shown.values(model, region)
        usable = np.isfinite(values) & np.isfinite(volumes) & (volumes > 0)
        look = shown.looks[model]
        order = np.argsort(volumes[usable], kind="stable")
        x, y = volumes[usable][order], values[usable][order]
        everything.append(y)
        if len(shown.models) <= POINTS_UP_TO:
            axis.plot(x, y, look.marker, color=look.colour, ms=point_size(x.size), alpha=0.45, mew=0)
        if x.size:
            style = LINES[place % len(LINES)]
            axis.plot(*running_median(x, y), color=look.colour, linestyle=style, label=names[model])
    for edge in _edges(volumes):
        axis.axvline(edge, color="0.6", linewidth=0.7, linestyle=":")
    axis.set_xscale("log")
    filled = volumes[volumes > 0]
    plain_log(axis.xaxis, float(filled.min()), float(filled.max()))
    axis.set_title(region, fontsize=8, loc="left")
    axis.grid(color="0.93", linewidth=0.5)
    return np.concatenate(everything)


def running_median(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median of y in a window of a fifth of the cases (at least 5) that slides over x in ascending order."""
    width = min(max(5, round(WINDOW * x.size)), x.size)
    starts = range(x.size - width + 1)
    return (
        np.array([np.exp(np.mean(np.log(x[start : start + width]))) for start in starts]),
        np.array([np.median(y[start : start + width]) for start in starts]),
    )


def _edges(volumes: FloatArray) -> list[float]:
    """Bounds between the bins that hold cases: the smallest volume of each bin but the first."""
    _, place = size_bins(volumes)
    filled = (volumes > 0) & (place >= 0)
    return [
        float(volumes[filled & (place == bin_)].min()) for bin_ in sorted(set(place[filled].tolist()))[1:]
    ]


def _alt(shown: View, regions: list[str]) -> str:
    parts: list[str] = []
    for model in shown.models:
        values, volumes = shown.values(model, regions[0]), _volumes(shown, regions[0])
        usable = np.isfinite(values) & (volumes > 0)
        if usable.sum() >= 2:
            half = float(np.median(volumes[usable]))
            small = float(np.median(values[usable & (volumes <= half)]))
            large = float(np.median(values[usable & (volumes >= half)]))
            parts.append(f"{shown.label(model)} {small:.1f} below and {large:.1f} above the median volume")
    return (
        f"Scatter of {shown.metric.head} against reference volume on {shown.block.name} for {len(regions)} "
        "regions. "
        f"Median in {regions[0]}: {'; '.join(parts)}."
    )
