"""Scores of all patients, model by model: where failures and long tails are seen."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import nan_mean
from segbench.report.analysis.missing import FloatArray
from segbench.report.write.figures.style import (
    INK,
    MODEL,
    RULE,
    WIDTHS,
    NoData,
    Sketch,
    axis_words,
    limits,
    new_figure,
    short_names,
)

SPREAD = 0.32  # of the dots, in rows


def draw(analysis: Analysis, number: int) -> Sketch:
    """A dot for each patient averaged over seeds, quartiles as a box; baselines included.

    Raises:
        NoData: no entry has a finite score.
    """
    column, block = analysis.column(number, analysis.metrics[0]), analysis.blocks[number]
    if column is None:
        raise NoData("the metric was not measured")
    metric, found = column.metric, dict[str, FloatArray]()
    for scores in block.scores:
        if scores.label in column.means:
            table = nan_mean(block.per_patient(scores, column.region, metric.name), axis=0) * metric.scale
            if np.any(np.isfinite(table)):
                found[scores.label] = table[np.isfinite(table)]
    if not found:
        raise NoData("no entry has a finite score")
    labels = analysis.ordered(list(found))
    figure, axis = new_figure(WIDTHS["double"], 0.7 + 0.34 * len(labels))
    parts: list[str] = []
    for place, label in enumerate(labels):
        values = np.sort(found[label])
        shift = SPREAD * (np.arange(values.size) * 0.618034 % 1.0 - 0.5)  # spread evenly, never at random
        axis.plot(values, place + 2 * shift, "o", color=MODEL, ms=2.2, alpha=0.5, mew=0, zorder=2)
        low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
        axis.plot([low, high], [place, place], color=INK, linewidth=3.2, alpha=0.55, zorder=3)
        axis.plot([middle], [place], "|", color=INK, ms=11, mew=1.4, zorder=4)
        parts.append(
            f"{analysis.names[label].short} median {middle:.2f}, worst "
            f"{values[0 if metric.higher_is_better else -1]:.2f}"
        )
    axis.set_yticks(range(len(labels)), short_names(analysis, labels), linespacing=0.95)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    every = np.concatenate(list(found.values()))
    axis.set_xlim(*limits(metric, [float(every.min()), float(every.max())]))
    axis.set_xlabel(axis_words(metric))
    axis.grid(axis="x", color=RULE, linewidth=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    return Sketch(
        figure,
        f"{metric.head} of the {column.unit} of {block.name}, averaged over seeds; bar: quartiles, median.",
        f"{metric.head} of {len(block.units)} {column.unit} of {block.name}: {'; '.join(parts)}.",
    )
