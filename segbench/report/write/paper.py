r"""`paper.tex` and `references.bib`: the tables and the paragraph on statistics that an author pastes.

Every number, verdict and mark comes from `write.tables`; here is only how LaTeX sets it. TeX chooses the
layout: columns side by side in the largest type that fits the line, else one group below the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

from segbench.cards.bibtex import BibEntry, parse_bibtex
from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.sentences import alone
from segbench.report.read.runs import dataset_card
from segbench.report.write.figures import figure_files
from segbench.report.write.latex import prose, render
from segbench.report.write.tables import STARS, Head, Row, ScoreCell, Table, pair_tables, score_tables
from segbench.report.write.templating import Raw, environment

MOST_ROWS = 30  # of one float: more do not fit a page
MOST_PAIRS = 40  # of Table 2; of more pairs only those with a verdict are shown
CITATION = re.compile(r" \[@(segbench|satterthwaite1946|smyth2004|holm1979|shaffer1986|schuirmann1987)\]")
"""A key of `statistics.bib` within the paragraph."""
MOST_COLUMNS = 5  # of scores in one panel of the narrow layout
ONE_COLUMN = {False: 4, True: 2}  # columns of numbers that one column of a page holds, by spanning heads


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """`paper.tex`, `references.bib` and the figures."""
    citations, entries = cited_entries(analysis)
    figure, drawn = figure_files(analysis)
    pairs = pair_tables(analysis, most=MOST_PAIRS)[:1]
    text = render(
        "paper.tex",
        version=version("segbench"),
        tables=[part for table in (*score_tables(analysis), *pairs) for part in _floats(table, citations)],
        figure=None if figure is None else prose(figure.caption),
        statistics=Raw("\n".join(map(_cited, method_sentences(analysis)))),
    )
    methods = [entry for entry in _method_entries() if f"{{{entry.key}}}" in text]
    references = "\n".join(entry.text() for entry in [*methods, *entries])
    return {"paper.tex": text, "references.bib": references, **drawn}


def _cited(text: str) -> str:
    """A sentence with its citations."""
    words, *parts = CITATION.split(text)  # text, key, text, ...
    cited = (_cite(key) + prose(more) for key, more in zip(parts[::2], parts[1::2], strict=True))
    return prose(words) + "".join(cited)


def _cite(key: str) -> str:
    return f"~\\cite{{{key}}}" if key else ""


def cited_entries(analysis: Analysis) -> tuple[dict[str, str], list[BibEntry]]:
    """(citation key by label, entries by key) of the papers of the models; equal entries share a key.

    A key that two different entries claim is lengthened for the second.
    """
    taken = {entry.key: entry for entry in _method_entries()}
    reserved = len(taken)
    keys: dict[str, str] = {}
    for label in analysis.ordered(sorted(analysis.by_label)):
        text = analysis.by_label[label].bibtex
        if not text:
            continue
        entry = parse_bibtex(text)
        key = entry.key
        while key in taken and taken[key] != BibEntry(entry.kind, key, entry.fields):
            key += "x"
        taken[key] = BibEntry(entry.kind, key, entry.fields)
        keys[label] = key
    return keys, sorted(list(taken.values())[reserved:], key=lambda entry: entry.key)


def _method_entries() -> list[BibEntry]:
    """What the paragraph on statistics may cite."""
    return [
        parse_bibtex(part) for part in render("statistics.bib", version=version("segbench")).split("\n\n")
    ]


def _floats(table: Table, citations: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The table in as many floats as its rows need; the notes stand under the last."""
    groups = _column_groups(table)
    packs = list(_packed(groups))
    whole = [place for pack in packs for place in pack]
    wide, *panels = [_panel(groups, pack) for pack in (whole, *(packs if len(packs) > 1 else ()))]
    scores = table.heads[1 + table.facts :]
    star = len(scores) > ONE_COLUMN[any(head.above for head in scores)]
    label = table.name.replace("table-", "tab:segbench-").removesuffix("-1")
    flat = [(head, row) for head, rows in table.groups for row in rows]
    chunks = [flat[start : start + MOST_ROWS] for start in range(0, len(flat), MOST_ROWS)]
    for place, chunk in enumerate(chunks):
        last = place == len(chunks) - 1
        yield {
            "float": Raw("table*" if star else "table"),
            "caption": Raw(prose(table.caption) + (" (continued)" if place else "")),
            "label": Raw(label + (f"-part{place + 1}" if place else "")),
            "wide": wide,
            "panels": panels,
            "arguments": Raw("".join(f"##{part + 1}" for part in range(len(groups)))),
            "groups": [
                {
                    "head": prose(head if len(table.groups) > 1 else ""),
                    "rows": [_row(row, groups, citations) for _, row in members],
                }
                for head, members in groupby(chunk, key=lambda item: item[0])
            ],
            "notes": Raw("; ".join(map(prose, table.notes)) + "." if table.notes and last else ""),
        }


def _column_groups(table: Table) -> list[list[Head]]:
    """Columns that stay together: names, facts, then scores under one head."""
    first = 1 + table.facts
    scores = [list(members) for _, members in groupby(table.heads[first:], key=lambda head: head.above)]
    return [list(table.heads[:1]), list(table.heads[1:first]), *scores]


def _packed(groups: Sequence[Sequence[Head]]) -> Iterator[tuple[int, ...]]:
    """Groups of columns by panel of the narrow layout, in order; names stand in each, facts in the first."""
    pack, size = [0, 1], 0
    for place in range(2, len(groups)):
        if size and size + len(groups[place]) > MOST_COLUMNS:
            yield tuple(pack)
            pack, size = [0], 0
        pack.append(place)
        size += len(groups[place])
    yield tuple(pack)


def _panel(groups: Sequence[Sequence[Head]], pack: Sequence[int]) -> dict[str, Any]:
    r"""One tabular of some groups of columns: the lines above its first row, its width, and how the macro
    `\segrow` sets a row. Heads without a head above stand on two lines where they are two words.
    """
    pack = list(dict.fromkeys(pack))
    above: list[str] = []
    below: list[str] = []
    rules = ""
    for head, members in groupby((head for place in pack for head in groups[place]), key=lambda h: h.above):
        texts = [prose(member.text) for member in members]
        if head:
            start = len(below) + 1
            above.append(f"\\multicolumn{{{len(texts)}}}{{c}}{{{prose(head)}}}")
            rules += f"\\cmidrule(lr){{{start}-{start + len(texts) - 1}}}"
            below += texts
        else:
            parts = [text.rpartition(" ") if "arrow$" not in text else ("", "", text) for text in texts]
            above += [first for first, _, _ in parts]
            below += [last for _, _, last in parts]
    lines = [*([above] if any(above) else []), below]
    texts = [" & ".join(line) + r" \\" for line in lines]
    head = "\n".join([r"\toprule", texts[0], *([rules] if rules else []), *texts[1:]])
    line = " & ".join(f"##{place + 1}" for place in pack if groups[place])
    return {"head": Raw(head), "width": len(below), "line": Raw(line)}


def _row(
    row: Row, groups: Sequence[Sequence[Head]], citations: Mapping[str, str]
) -> list[list[str | ScoreCell]]:
    """The cells of a row by groups of columns that stay together."""
    cells = iter([Raw(prose(row.name) + _cite(citations.get(row.label, ""))), *row.cells])
    return [[next(cells) for _ in members] for members in groups]


# ---- the paragraph Statistics


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
            unit=" and ".join(dict.fromkeys(column.block.unit for column in columns)) or "cases",
            several=any(len(scores.seeds) > 1 for block in blocks for scores in block.models),
            primary=analysis.metrics[0].label if tested else "",
            alone=alone(scores for block in blocks for scores in block.models),
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
