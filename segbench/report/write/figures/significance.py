"""04 Significance matrix: colour is the effect of row against column, star a difference, dot equivalence."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import view
from segbench.report.figures.labels import slant
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure
from segbench.report.numbers import format_number
from segbench.report.pairwise import Pair
from segbench.report.tables.words import LEVEL_WORDS

NUMBERS_UP_TO = 8  # models; beyond, the cells are too small for text


def draw(analysis: Analysis, number: int) -> Sketch:
    """Matched-pairs rank-biserial, signed so that blue means: the row is better than the column.

    Raises:
        NoData: fewer than two compared models.
    """
    shown = view(analysis, number, floors=False)
    region = shown.regions[-1]
    pairs = [pair for pair in analysis.pairs.get(shown.key(region), ()) if pair.rank_biserial is not None]
    if not pairs:
        raise NoData("no pair was tested")
    models = analysis.ordered(sorted({name for pair in pairs for name in (pair.a, pair.b)}))
    sign = 1.0 if shown.metric.higher_is_better else -1.0
    k = len(models)
    effect = np.full((k, k), np.nan)
    for pair in pairs:
        i, j = models.index(pair.a), models.index(pair.b)
        effect[i, j] = sign * float(pair.rank_biserial or 0.0)
        effect[j, i] = -effect[i, j]
    side = min(1.6 + 0.3 * k, 6.2)
    wide = side + 1.2 > WIDTHS["single"]
    figure, axis = new_figure(WIDTHS["double" if wide else "single"], side)
    withheld = analysis.withheld.get(shown.key(region), "")
    stars = not withheld
    image = axis.imshow(effect, cmap="RdBu", vmin=-1, vmax=1, aspect="auto" if wide else "equal")
    for pair in pairs:
        i, j = models.index(pair.a), models.index(pair.b)
        mark = _mark(pair, stars=stars)
        for row, column in ((i, j), (j, i)):
            dark = abs(effect[row, column]) > 0.65
            text = mark if k > NUMBERS_UP_TO else f"{format_number(effect[row, column])}\n{mark}"
            colour = "white" if dark else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    axis.set_facecolor("0.92")
    texts = shown.names(length=26, lines=2 if k <= NUMBERS_UP_TO else 1)
    names = [texts[model] for model in models]
    axis.set_xticks(range(k), names, linespacing=1.0, **slant(names))
    axis.set_yticks(range(k), names, linespacing=1.0)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("rank-biserial: row better \N{UPWARDS ARROW}")
    bar.outline.set_visible(False)
    different = sum(_mark(pair, stars=stars) == "*" for pair in pairs)
    star = f"star: different after Holm at alpha {analysis.options.alpha:g} ({LEVEL_WORDS}, else over cases)"
    if not stars:
        star = f"no stars: {withheld}"
    rest = "neither: undecided" if stars else "else not decided"
    caption = (
        f"Pairs on {shown.block.name} ({region}), {shown.metric.label}: blue, the row is better; {star}; "
        f"dot: equivalent within the margin; {rest}."
    )
    alt = (
        f"Significance matrix of {k} models by {shown.metric.head} on {shown.block.name}, region {region}: "
        f"{different} "
        f"of {len(pairs)} pairs differ after Holm, {sum(p.verdict == 'equivalent' for p in pairs)} are "
        "equivalent."
    )
    return Sketch(figure, caption, alt)


def _mark(pair: Pair, *, stars: bool) -> str:
    if pair.verdict == "equivalent":
        return "\N{BULLET}"
    return "*" if stars and pair.p_decision is not None and pair.stands else ""
