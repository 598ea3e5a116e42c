"""Differences with their intervals and verdicts: the comparisons of Table 2 as a picture."""

from __future__ import annotations

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.numbers import format_number
from segbench.report.analysis.sentences import difference_words, verdict_words
from segbench.report.write.figures.style import (
    INK,
    MODEL,
    SOFT,
    WIDTHS,
    NoData,
    Sketch,
    name_rows,
    new_figure,
    short_names,
)

MOST = 40  # rows; beyond, only the pairs of the best models are drawn


def draw(analysis: Analysis, number: int) -> Sketch:
    """One row for each comparison of the deciding column; the verdict stands beside it.

    Raises:
        NoData: nothing is compared.
    """
    column = analysis.column(number, analysis.metrics[0])
    if column is None or not column.comparisons:
        raise NoData("nothing is compared")
    metric, place = column.metric, {label: index for index, label in enumerate(column.order)}
    pairs = sorted(column.comparisons, key=lambda pair: (place[pair.a], place[pair.b]))[:MOST]
    first = short_names(analysis, [pair.a for pair in pairs], width=40)
    other = short_names(analysis, [pair.b for pair in pairs], width=40)
    names = first if column.reference else [f"{a}\nless {b}" for a, b in zip(first, other, strict=True)]
    step = 0.2 if column.reference else 0.3
    figure, axis = new_figure(WIDTHS["double"], 0.8 + step * len(pairs))
    axis.axvline(0, color=SOFT, linewidth=0.7, zorder=1)
    for row, pair in enumerate(pairs):
        ends = [pair.low * metric.scale, pair.high * metric.scale]
        axis.plot(ends, [row, row], color=MODEL, linewidth=1.3)
        axis.plot([pair.difference * metric.scale], [row], "o", color=MODEL, ms=4.5)
        axis.annotate(
            verdict_words(column, pair),
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=INK,
            annotation_clip=False,
        )
    name_rows(axis, names)
    better = "right" if metric.higher_is_better else "left"
    unit = f"{metric.difference_unit}, " if metric.difference_unit else ""
    against = f" to {analysis.names[column.reference].short}" if column.reference else ""
    axis.set_xlabel(f"{metric.label} difference{against} ({unit}{better} is better)")
    percent = format_number(analysis.options.confidence, scale=100, digits=0)
    parts = [
        f"{analysis.names[pair.a].short} less {analysis.names[pair.b].short} "
        f"{difference_words(column, pair, digits=analysis.options.digits)}, {verdict_words(column, pair)}"
        for pair in pairs
    ]
    name = analysis.blocks[number].name
    return Sketch(
        figure,
        f"Differences in {metric.label} on {name} with {percent} % intervals, not adjusted; the verdict is.",
        f"{metric.label} differences on {name}: {'; '.join(parts)}.",
    )
