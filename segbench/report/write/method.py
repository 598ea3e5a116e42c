"""How the numbers came about: the paragraph "Statistics" of paper and page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.read.runs import dataset_card
from segbench.report.write.tables import STARS
from segbench.report.write.templating import environment

CITATION = re.compile(r" \[@(segbench|satterthwaite1946|smyth2004|holm1979|shaffer1986|schuirmann1987)\]")
"""A key of `statistics.bib` within the paragraph."""


def method_sentences(analysis: Analysis) -> list[str]:
    """What the deciding columns rest on and how they were decided, with citations."""
    options = analysis.options
    columns = [column for column in analysis.main_columns() if column.means]
    tested = [column for column in columns if column.comparisons]
    blocks = [column.block for column in columns]
    text = (
        environment(one_line)
        .get_template("statistics.txt")
        .render(
            version=version("segbench"),
            data=[(block, _span([len(s.seeds) for s in block.models] or [1])) for block in blocks],
            missing=options.missing,
            percent=f"{options.confidence * 100:g}",
            unit=" and ".join(dict.fromkeys(column.unit for column in columns)) or "cases",
            several=any(len(scores.seeds) > 1 for block in blocks for scores in block.models),
            primary=analysis.metrics[0].label if tested else "",
            claims={pair.claim for column in tested for pair in column.comparisons},
            dagger=STARS["weights"],
            family=_span([len(column.comparisons) for column in tested]) if tested else "",
            references=[
                analysis.short(label) for label in sorted({c.reference for c in tested if c.reference})
            ],
            all_pairs=any(column.reference is None for column in tested),
            alpha=f"{options.alpha:g}",
            margins=_margins(analysis, tested),
            ranked=any(column.ranks is not None and column.ranks.rank_low.size for column in tested),
            resamples=f"{options.resamples:,}",
        )
    )
    return [line for line in text.split("\n") if line]


def _span(counts: Iterable[int]) -> str:
    """`3`, or `2 to 3` where counts differ."""
    known = sorted(counts)
    return " to ".join(str(count) for count in dict.fromkeys((known[0], known[-1])))


def _margins(analysis: Analysis, columns: Sequence[Column]) -> str:
    """The declared equivalence margins of the tested columns, with their units."""
    found: dict[str, None] = {}
    for column in columns:
        if column.margin is not None:
            card = dataset_card(column.block.dataset)
            own = column.metric.name in analysis.options.margin or card is None
            source = "" if own or card is None else f" ({card.evaluation.margin_source})"
            found[f"{column.metric.label} {column.words(column.margin)}{source}"] = None
    return ", ".join(found)
