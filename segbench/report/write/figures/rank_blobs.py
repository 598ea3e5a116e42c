"""03 Blob plot: how often each model holds each rank when the cases are drawn again."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import view
from segbench.report.figures.labels import slant
from segbench.report.figures.sketch import WEIGHTS_ONLY, NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure


def draw(analysis: Analysis, number: int) -> Sketch:
    """Area is the share of bootstrap draws, a cross the median rank, a bar the 95 % interval.

    Raises:
        NoData: the models of the block cannot be ranked.
    """
    shown = view(analysis, number, floors=False)
    region = shown.regions[-1]
    ranks = analysis.ranks.get(shown.key(region))
    if ranks is None:
        raise NoData("fewer than two models that can be ranked")
    models = analysis.ordered(list(ranks.models))
    k = len(models)
    wide = k > 8
    figure, axis = new_figure(WIDTHS["double" if wide else "single"], min(1.4 + 0.22 * k, 6.0))
    largest = (2600 if wide else 1500) / k
    for place, model in enumerate(models):
        index = ranks.models.index(model)
        look = shown.looks[model]
        share = np.asarray(ranks.frequencies[index])
        held = np.flatnonzero(share > 0)
        axis.scatter(
            np.full(held.size, place),
            held + 1,
            s=largest * share[held],
            color=look.colour,
            alpha=0.55,
            linewidth=0,
        )
        median = 1 + int(np.searchsorted(np.cumsum(share), 0.5 - 1e-12))
        axis.plot(
            [place, place], [ranks.rank_low[index], ranks.rank_high[index]], color="black", linewidth=0.9
        )
        axis.plot([place], [median], "x", color="black", ms=5, mew=1.2)
    names = shown.names(length=26, lines=1 if wide else 2)
    texts = [names[model] for model in models]
    axis.set_xticks(range(k), texts, linespacing=1.0, **slant(texts))
    axis.tick_params(axis="x", pad=1)
    axis.set_yticks(range(1, k + 1) if k <= 12 else range(1, k + 1, 2))
    axis.set_ylim(k + 0.6, 0.4)
    axis.set_xlim(-0.6, k - 0.4)
    axis.set_ylabel("rank (1 is best)")
    axis.grid(color="0.92", linewidth=0.5)
    axis.set_axisbelow(True)
    tau = "n/a" if ranks.kendall_tau is None else f"{ranks.kendall_tau:.2f}"
    level = f"{100 * analysis.options.confidence:g} %"
    caption = (
        f"Ranks of {shown.metric.label} on {shown.block.name} ({region}) over {analysis.options.resamples} "
        "bootstrap "
        f"draws of the cases: area is the share of draws, cross the median, bar the {level} interval; mean "
        f"tau {tau}. {WEIGHTS_ONLY}"
    )
    alt = (
        f"Blob plot of bootstrap ranks by {shown.metric.head} on {shown.block.name}, region {region}. "
        + "; ".join(
            f"{shown.label(model)} first in "
            f"{100 * float(ranks.probability_best[ranks.models.index(model)]):.0f} %"
            for model in models
        )
        + "."
    )
    return Sketch(figure, caption, alt)
