"""02 Critical-difference diagram: mean ranks on a line, bars over models that Nemenyi's test cannot tell
apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import View, complete_values, view
from segbench.report.figures.labels import most_lines
from segbench.report.figures.sketch import WEIGHTS_ONLY, NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure

LEAST_MODELS = 3
ROW = 0.165  # inches per name of one line
SECOND_LINE = 0.1  # inches more where a name has two


def draw(analysis: Analysis, number: int) -> Sketch:
    """Mean ranks over cases in the last region shown (the mean over regions where there are several).

    Raises:
        NoData: fewer than three models or two cases.
    """
    from segbench.stats import nemenyi

    shown = view(analysis, number, floors=False)
    region = shown.regions[-1]
    if shown.metric.higher_is_better is None or analysis.withheld.get(shown.key(region)) in {
        "recipes differ",
        "test cases differ",
    }:
        raise NoData("models cannot be ranked here")
    models, table = complete_values(shown, region)
    if len(models) < LEAST_MODELS or table.shape[0] < 2:
        raise NoData(f"a critical difference needs {LEAST_MODELS} models and 2 cases")
    found = nemenyi(table, alpha=analysis.options.alpha, higher_is_better=bool(shown.metric.higher_is_better))
    ranks = np.asarray(found.mean_ranks)
    order = [int(place) for place in np.argsort(ranks, kind="stable")]
    left = (len(order) + 1) // 2
    names = shown.names(length=32)
    row = ROW + SECOND_LINE * (most_lines(names) - 1)
    height = 0.75 + row * (left + 1 + 0.55 * len(found.cliques))
    figure, axis = new_figure(WIDTHS["double"], height)
    _axis_line(axis, len(models), found.critical_difference)
    depth = _cliques(axis, ranks, found.cliques)
    _names(axis, shown, names, models, ranks, order, left, depth, len(models))
    _frame(axis, len(models), depth + left + 1.0)
    alt = (
        f"Critical-difference diagram of {shown.metric.head} on {shown.block.name}, region {region}, "
        f"{table.shape[0]} "
        f"cases, critical difference {found.critical_difference:.2f}. Mean ranks: "
        + "; ".join(f"{shown.label(models[i])} {ranks[i]:.2f}" for i in order)
        + "."
    )
    caption = (
        f"Mean ranks over cases on {shown.block.name} ({region}), 1 is best; thick bars join models that "
        f"Nemenyi's test cannot tell apart at alpha {analysis.options.alpha:g}. {WEIGHTS_ONLY}"
    )
    return Sketch(figure, caption, alt)


def _axis_line(axis: Any, k: int, difference: float) -> None:
    """Scale of ranks on top, and the critical difference above its left end."""
    axis.plot([1, k], [0, 0], color="black", linewidth=0.8)
    for rank in range(1, k + 1):
        axis.plot([rank, rank], [0, -0.28], color="black", linewidth=0.8)
        if k <= 12 or rank % 2 == 1 or rank == k:
            axis.text(rank, -0.4, str(rank), ha="center", va="bottom", fontsize=7)
    end = min(1 + difference, k)
    axis.plot([1, end], [-1.75, -1.75], color="black", linewidth=1.2)
    for place in (1, end):
        axis.plot([place, place], [-1.9, -1.6], color="black", linewidth=1.0)
    axis.text(1, -2.0, f"CD = {difference:.2f}", ha="left", va="bottom", fontsize=7)


def _cliques(axis: Any, ranks: np.ndarray, cliques: tuple[tuple[int, ...], ...]) -> float:
    """Bars below the scale, each clique on its own line; gives the depth they reach."""
    depth = 0.55
    for clique in sorted(cliques, key=lambda members: ranks[list(members)].min()):
        low, high = ranks[list(clique)].min(), ranks[list(clique)].max()
        axis.plot(
            [low - 0.04, high + 0.04], [depth, depth], color="black", linewidth=2.4, solid_capstyle="round"
        )
        depth += 0.55
    return depth


def _names(
    axis: Any,
    shown: View,
    names: dict[str, str],
    models: list[str],
    ranks: np.ndarray,
    order: list[int],
    left: int,
    depth: float,
    k: int,
) -> None:
    """Better half on the left, the other on the right, one line each, the outermost lowest: no two names
    meet.
    """
    span = max(k - 1, 1)
    for place, index in enumerate(order):
        on_left = place < left
        row = place if on_left else len(order) - 1 - place
        y = depth + 0.6 + row
        x_end = 1 - 0.06 * span if on_left else k + 0.06 * span
        look = shown.looks[models[index]]
        axis.plot([ranks[index], ranks[index], x_end], [0, y, y], color="0.45", linewidth=0.6)
        axis.plot([ranks[index]], [0], look.marker, color=look.colour, ms=3.5, zorder=3, clip_on=False)
        text = f"{names[models[index]]}  {ranks[index]:.2f}"
        axis.text(
            x_end - 0.01 * span if on_left else x_end + 0.01 * span,
            y,
            text,
            ha="right" if on_left else "left",
            va="center",
            fontsize=7,
            linespacing=1.0,
            multialignment="right" if on_left else "left",
        )


def _frame(axis: Any, k: int, depth: float) -> None:
    span = max(k - 1, 1)
    axis.set_xlim(1 - 0.62 * span, k + 0.62 * span)
    axis.set_ylim(depth, -2.9)
    axis.axis("off")
