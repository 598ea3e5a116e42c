"""How often each model holds each rank when seeds and patients are drawn again."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.write.figures.style import (
    INK,
    MODEL,
    WIDTHS,
    NoData,
    Sketch,
    name_rows,
    new_figure,
    short_names,
)


def draw(analysis: Analysis, number: int) -> Sketch:
    """Area is the share of draws, a bar the interval of the rank.

    Raises:
        NoData: ranks were not drawn (one seed somewhere, or fewer than two models).
    """
    column = analysis.column(number, analysis.metrics[0])
    ranks = None if column is None else column.ranks
    if column is None or ranks is None or not np.asarray(ranks.rank_low).size:
        raise NoData("ranks need two seeds of every model")
    labels = [label for label in column.order if label in column.compared]
    k = len(labels)
    figure, axis = new_figure(WIDTHS["single" if k <= 8 else "double"], 0.7 + 0.24 * k)
    largest = 1500 / k if k <= 8 else 2600 / k
    for place, label in enumerate(labels):
        index = column.compared.index(label)
        share = np.asarray(ranks.frequencies[index])
        held = np.flatnonzero(share > 0)
        axis.scatter(
            held + 1,
            np.full(held.size, place),
            s=largest * share[held],
            color=MODEL,
            alpha=0.45,
            linewidth=0,
        )
        axis.plot([ranks.rank_low[index], ranks.rank_high[index]], [place, place], color=INK, linewidth=0.9)
    name_rows(axis, short_names(analysis, labels))
    axis.set_xticks(range(1, k + 1) if k <= 12 else range(1, k + 1, 2))
    axis.set_xlim(0.4, k + 0.6)
    axis.set_xlabel("rank (1 is best)")
    axis.grid(axis="y")
    name, percent = analysis.blocks[number].name, f"{analysis.options.confidence * 100:g}"
    first = [
        f"{analysis.names[label].short} first in "
        f"{100 * float(ranks.probability_best[column.compared.index(label)]):.0f} %"
        for label in labels
    ]
    return Sketch(
        figure,
        f"Ranks by {column.metric.label} on {name} over {ranks.resamples} draws of seeds and {column.unit}: "
        f"area is the share of draws, bar the {percent} % interval.",
        f"Ranks by {column.metric.head} on {name}: {'; '.join(first)}.",
    )
