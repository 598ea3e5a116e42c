"""01 Rain cloud: the distribution of one metric per model and region: half violin, box, case points."""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import View, limits, view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import GREY, WIDTHS, new_figure, point_size
from segbench.report.missing import FloatArray

MOST_PANELS = 6
MOST_KERNELS = 2000
MOST_POINTS = 400  # per model; beyond, a fixed sample is drawn
LINES_UP_TO = 2  # paired lines only where they can be read


def draw(analysis: Analysis, number: int) -> Sketch:
    """One panel per region, models as rows in the order of the table.

    Raises:
        NoData: nothing finite to draw.
    """
    shown = view(analysis, number)
    regions = [region for region in shown.regions if any(shown.known(m, region).size for m in shown.models)]
    regions = regions[-MOST_PANELS:]
    if not regions:
        raise NoData("no finite values")
    columns = min(len(regions), 3 if len(regions) != 4 else 2)
    rows = -(-len(regions) // columns)
    width = WIDTHS["double"] if columns > 1 else WIDTHS["single"]
    height = rows * (0.55 + 0.36 * max(len(shown.models), 2))
    figure, axes = new_figure(width, height, rows, columns, sharey=True, squeeze=False)
    panels = list(axes.flat)
    for region, axis in zip(regions, panels, strict=False):
        _panel(axis, shown, region, seed=analysis.options.seed)
    for axis in panels[len(regions) :]:
        axis.set_visible(False)
    names = shown.names()
    for row in axes:
        row[0].set_yticks(range(len(shown.models)), [names[m] for m in shown.models], linespacing=1.0)
        for tick, model in zip(row[0].get_yticklabels(), shown.models, strict=True):
            tick.set_color(GREY if model in shown.single else "black")
    figure.supxlabel(shown.metric.axis, fontsize=8)
    return Sketch(figure, _caption(shown), _alt(shown, regions))


def _panel(axis: Any, shown: View, region: str, *, seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    size = point_size(len(shown.block.cases))
    everything = np.concatenate([shown.known(model, region) for model in shown.models])
    low, high = limits(shown.metric, float(everything.min()), float(everything.max()))
    for place, model in enumerate(shown.models):
        values = shown.known(model, region)
        if not values.size:
            continue
        colour = shown.looks[model].colour
        _half_violin(axis, values, place, colour)
        points = values if values.size <= MOST_POINTS else rng.choice(values, MOST_POINTS, replace=False)
        jitter = place + 0.28 + 0.09 * (2 * rng.random(points.size) - 1)
        axis.plot(points, jitter, shown.looks[model].marker, color=colour, ms=size, alpha=0.55, mew=0)
    _boxes(axis, shown, region)
    if 1 < len(shown.models) <= LINES_UP_TO:
        _paired_lines(axis, shown, region)
    axis.set_xlim(low, high)
    axis.set_ylim(len(shown.models) - 0.45, -0.6)
    axis.set_title(region, fontsize=8, loc="left")
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)


def _boxes(axis: Any, shown: View, region: str) -> None:
    """Quartile boxes with medians and Tukey's whiskers, three artists for the whole panel (boxplot
    makes seven each).
    """
    rows = [(place, model, shown.known(model, region)) for place, model in enumerate(shown.models)]
    rows = [row for row in rows if row[2].size]
    y = np.array([place + 0.08 for place, _, _ in rows])
    colours = [shown.looks[model].colour for _, model, _ in rows]
    q1, middle, q3 = np.array([np.percentile(values, [25, 50, 75]) for _, _, values in rows]).T
    reach = 1.5 * (q3 - q1)
    ends = [
        (values[values >= low].min(), values[values <= high].max())
        for (_, _, values), low, high in zip(rows, q1 - reach, q3 + reach, strict=True)
    ]
    low, high = np.array(ends).T
    axis.hlines(y, low, q1, colors=colours, linewidth=0.9)
    axis.hlines(y, q3, high, colors=colours, linewidth=0.9)
    axis.barh(y, q3 - q1, left=q1, height=0.12, color="white", edgecolor=colours, linewidth=0.9)
    axis.vlines(middle, y - 0.06, y + 0.06, colors="black", linewidth=1.3)


def _half_violin(axis: Any, values: FloatArray, place: int, colour: str) -> None:
    """Density above the row's line, within the range of the data; nothing where all values are equal."""
    if values.size < 3 or np.ptp(values) <= 1e-9 * max(abs(float(values[0])), 1.0):
        return
    grid = np.linspace(values.min(), values.max(), 160)
    density = kernel_density(values, grid)
    density *= 0.42 / density.max()
    axis.fill_between(grid, place, place - density, color=colour, alpha=0.35, linewidth=0)
    axis.plot(grid, place - density, color=colour, linewidth=0.7)


def kernel_density(values: FloatArray, grid: FloatArray) -> FloatArray:
    """Gaussian kernel density with Scott's bandwidth; of many values, 2,000 evenly spaced quantiles.

    Source: Scott 1992, Multivariate Density Estimation (the factor n^(-1/5)).
    """
    width = float(values.std(ddof=1)) * values.size ** (-0.2)
    points = values if values.size <= MOST_KERNELS else np.quantile(values, np.linspace(0, 1, MOST_KERNELS))
    steps = (grid[:, None] - points[None, :]) / width
    return np.exp(-0.5 * steps**2).mean(axis=1) / (width * np.sqrt(2 * np.pi))


def _paired_lines(axis: Any, shown: View, region: str) -> None:
    first, second = (shown.values(model, region) for model in shown.models[:2])
    both = ~np.isnan(first) & ~np.isnan(second)
    for a, b in zip(first[both][:MOST_POINTS], second[both][:MOST_POINTS], strict=True):
        axis.plot([a, b], [0.28, 1.28], color="0.6", linewidth=0.3, alpha=0.5, zorder=0)


def _caption(shown: View) -> str:
    text = f"{shown.metric.head} per case on {shown.block.name}: density, quartiles, median, cases as points."
    return text + (" Names in grey: one training run." if shown.single else "")


def _alt(shown: View, regions: list[str]) -> str:
    region = regions[-1]
    parts = [
        f"{shown.label(model)} median {np.median(shown.known(model, region)):.2f}"
        for model in shown.models
        if shown.known(model, region).size
    ]
    return (
        f"Rain cloud plot of {shown.metric.head} on {shown.block.name} for {len(shown.models)} models and "
        f"{len(regions)} regions. Region {region}: {'; '.join(parts)}."
    )
