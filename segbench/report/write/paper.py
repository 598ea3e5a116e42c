r"""`paper.tex` and `references.bib`: the tables and the paragraph on statistics that an author pastes.

Every number, verdict and mark comes from `write.tables`; here is only how LaTeX sets it. TeX chooses the
layout: columns side by side in the largest type that fits the line, else one group below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from segbench.cards.bibtex import BibEntry, parse_bibtex
from segbench.report.analysis.analysis import Analysis
from segbench.report.write.latex import Tex, escape_latex, number, prose, render
from segbench.report.write.method import method_facts
from segbench.report.write.tables import (
    WEIGHTS_NOTE,
    PairRow,
    PairTable,
    ScoreCell,
    ScoreHead,
    ScoreRow,
    ScoreTable,
    pair_table,
    score_tables,
)

MOST_ROWS = 30  # of one float: more do not fit a page
MOST_PAIRS = 40  # of Table 2; of more pairs only those with a verdict are shown
MOST_COLUMNS = 5  # of scores in one panel of the narrow layout
DAGGER = Tex(r"$\dagger$")

Groups = tuple[tuple[str, tuple[Any, ...]], ...]
"""(head, rows), the heads in italics above their rows; empty heads are not printed."""


@dataclass(frozen=True, slots=True)
class Span:
    """A head over several columns, numbered from 1."""

    text: Tex
    first: int
    last: int

    @property
    def size(self) -> int:
        """Columns under it."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Panel:
    r"""One tabular: its head, and which parts of a row it holds.

    Attributes:
        above: upper heads of the columns before the spans; empty for a head of one line.
        spans: heads over groups of columns, empty where there are none.
        below: head of each column.
        line: a row as the macro `\segrow` sets it from its arguments; empty where rows are written out.
        count: arguments of that macro.
    """

    above: tuple[Tex, ...]
    spans: tuple[Span, ...]
    below: tuple[Tex, ...]
    line: Tex
    count: int

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.below)

    @property
    def arguments(self) -> Tex:
        """Parameters of the macro, as a definition inside a definition writes them."""
        return Tex("".join(f"##{part + 1}" for part in range(self.count)))


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """`paper.tex` and `references.bib`."""
    citations, entries = cited_entries(analysis)
    statistics = method_facts(analysis)
    if statistics["resamples"]:
        statistics["resamples"] = Tex(f"{statistics['resamples']:,}".replace(",", "\\,"))
    text = render(
        "paper.tex",
        tables=list(_tables(analysis, citations)),
        figure=None,
        seg_width=Tex(r"\segspan"),
        **statistics,
    )
    methods = [entry for entry in _method_entries(statistics["version"]) if f"{{{entry.key}}}" in text]
    references = "\n".join(entry.text() for entry in [*methods, *entries])
    return {"paper.tex": text, "references.bib": references}


def cited_entries(analysis: Analysis) -> tuple[dict[str, str], list[BibEntry]]:
    """(citation key by label, entries by key) of the papers of the models; equal entries share a key.

    A key that two different entries claim is lengthened for the second.
    """
    taken = {entry.key: entry for entry in _method_entries("")}
    reserved = len(taken)
    keys: dict[str, str] = {}
    for label in analysis.ordered(sorted(analysis.names)):
        text = analysis.names[label].bibtex
        if not text:
            continue
        entry = parse_bibtex(text)
        key = entry.key
        while key in taken and taken[key] != BibEntry(entry.kind, key, entry.fields):
            key += "x"
        taken[key] = BibEntry(entry.kind, key, entry.fields)
        keys[label] = key
    return keys, sorted(list(taken.values())[reserved:], key=lambda entry: entry.key)


def _method_entries(release: str) -> list[BibEntry]:
    """What the paragraph on statistics may cite."""
    text = (Path(__file__).parent / "templates" / "statistics.bib").read_text(encoding="ascii")
    entries = [parse_bibtex(part) for part in text.split("\n\n")]
    return [
        BibEntry(item.kind, item.key, {**item.fields, "note": f"Version {release}"})
        if item.key == "segbench"
        else item
        for item in entries
    ]


def _tables(analysis: Analysis, citations: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Table 1 of each group of comparable blocks, then Table 2, cut into floats."""
    for place, table in enumerate(score_tables(analysis)):
        label = "tab:segbench-scores" + (f"-{place + 1}" if place else "")
        yield from _score_floats(table, label, citations)
    pairs = pair_table(analysis)
    if pairs is not None and pairs.rows:
        yield from _pair_floats(pairs.short(MOST_PAIRS))


def _floats(
    groups: Groups,
    panels: Sequence[Panel],
    *,
    wide: Panel,
    label: str,
    caption: str,
    notes: Sequence[str],
    star: bool,
) -> Iterator[dict[str, Any]]:
    """The table in as many floats as its rows need; the notes stand under the last."""
    flat = [(head, row) for head, rows in groups for row in rows]
    chunks = [flat[start : start + MOST_ROWS] for start in range(0, len(flat), MOST_ROWS)]
    for place, chunk in enumerate(chunks):
        yield {
            "float": Tex("table*" if star else "table"),
            "caption": Tex(prose(caption) + (" (continued)" if place else "")),
            "label": Tex(label + (f"-part{place + 1}" if place else "")),
            "wide": wide,
            "panels": panels,
            "groups": [
                {"head": prose(head), "rows": [row for _, row in members]}
                for head, members in groupby(chunk, key=lambda item: item[0])
            ],
            "notes": _joined(notes) if place == len(chunks) - 1 else "",
        }


def _joined(notes: Sequence[str]) -> Tex:
    return Tex("; ".join(prose(note) for note in notes) + "." if notes else "")


def _score_floats(table: ScoreTable, label: str, citations: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    seeds = {row.seeds for row in table.rows if not row.baseline}
    one_count = len(seeds) == 1  # said in a note, not in a column
    facts = [
        (above, below, read)
        for above, below, read in (
            ("Params", "(M)", lambda row: row.parameters),
            ("", "GMAC", lambda row: row.gmacs),
            ("", "Seeds", lambda row: "" if one_count else row.seeds),
        )
        if any(read(row) for row in table.rows)
    ]
    heads = _head_groups(table.heads)
    counts = [len(members) for _, members in heads]
    packs = list(_packed(counts))
    whole = [tuple(range(len(heads)))]
    wide, *_ = panels = [
        _score_panel(
            heads, part, facts=[fact[:2] for fact in facts] if part[0] == 0 else [], total=len(heads) + 2
        )
        for part in (whole if len(packs) == 1 else [*whole, *packs])
    ]

    def parts(row: ScoreRow) -> list[Tex]:
        cited = f"~\\cite{{{citations[row.label]}}}" if row.label in citations else ""
        cells = iter([_score_cell(cell) for cell in row.cells])
        groups = [[next(cells) for _ in range(count)] for count in counts]
        columns = [
            [Tex(prose(row.name) + cited)],
            [number(read(row)) or Tex("--") for _, _, read in facts],
            *groups,
        ]
        if len(packs) == 1:
            return [cell for column in columns for cell in column]
        return [Tex(" & ".join(column)) for column in columns]

    named = len(table.groups) > 1
    groups = tuple(
        (family if named else "", tuple(parts(row) for row in rows)) for family, rows in table.groups
    )
    yield from _floats(
        groups,
        panels[1:],
        wide=wide,
        label=label,
        caption=table.caption,
        notes=[*table.notes, *(f"training runs of each model: {count}" for count in seeds if one_count)],
        star=len(table.heads) > 2,
    )


def _head_groups(heads: Sequence[ScoreHead]) -> list[tuple[Tex, list[Tex]]]:
    """(head above, heads below) of the columns: by dataset, else by metric."""

    def metric(head: ScoreHead) -> Tex:
        return prose(f"{head.metric} {head.arrow}".strip())

    if any(head.dataset for head in heads):
        return [
            (prose(dataset), [metric(head) for head in members])
            for dataset, members in groupby(heads, key=lambda head: head.dataset)
        ]
    grouped = [(name, list(members)) for name, members in groupby(heads, key=metric)]
    if all(len(members) == 1 for _, members in grouped):
        return [(Tex(""), [name for name, _ in grouped])]
    return [(name, [prose(head.region) for head in members]) for name, members in grouped]


def _packed(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Groups of columns by panel of the narrow layout, in order."""
    pack: list[int] = []
    for place, count in enumerate(counts):
        if pack and sum(counts[other] for other in pack) + count > MOST_COLUMNS:
            yield tuple(pack)
            pack = []
        pack.append(place)
    yield tuple(pack)


def _score_panel(
    heads: Sequence[tuple[Tex, list[Tex]]],
    part: Sequence[int],
    *,
    facts: Sequence[tuple[str, str]],
    total: int,
) -> Panel:
    spans: list[Span] = []
    first = 2 + len(facts)
    for place in part:
        text, below = heads[place]
        spans += [Span(text, first, first + len(below) - 1)] if text else []
        first += len(below)
    return Panel(
        above=(Tex(""), *(Tex(above) for above, _ in facts)) if spans else (),
        spans=tuple(spans),
        below=(
            Tex("Model"),
            *(Tex(below if spans else f"{above} {below}".strip()) for above, below in facts),
            *(text for place in part for text in heads[place][1]),
        ),
        line=Tex(
            " & ".join(f"##{number}" for number in (1, *([2] if facts else []), *(n + 3 for n in part)))
        ),
        count=total,
    )


def _score_cell(cell: ScoreCell) -> Tex:
    """A score with its marks; they hang to the right where the interval stands below."""
    text = number(cell.value)
    if cell.mark:
        text = Tex(f"\\{'textbf' if cell.mark == 'best' else 'underline'}{{{text}}}")
    star = {"method": "*", "weights": DAGGER, "": ""}[cell.star]
    raised = "\\,".join(part for part in (star, f"({cell.failed})" if cell.failed else "") if part)
    if raised:
        above = f"\\textsuperscript{{{raised}}}"
        text = Tex(f"{text}\\rlap{{{above}}}" if cell.low else f"{text}{above}")
    if cell.low:
        return Tex(f"\\segci{{{text}}}{{{number(cell.low)},\\,{number(cell.high)}}}")
    return Tex(f"\\segsd{{{text}}}{{{number(cell.spread)}}}") if cell.spread else text


def _pair_floats(table: PairTable) -> Iterator[dict[str, Any]]:
    names = ["Model"] if table.reference else ["Model", "Against"]
    first = len(names)
    unit = f"({table.unit})" if table.unit else ""
    heads = [("Difference", unit), ("", "Interval"), ("Adjusted", "$p$"), ("Won", r"(\%)"), ("", "Verdict")]
    above, below = ([Tex("")] * first + [Tex(head[row]) for head in heads] for row in (0, 1))
    below[:first] = map(Tex, names)
    arguments = [f"##{place + 1}" for place in range(first + len(heads))]
    beside = [*arguments[:first], arguments[first], f"[{arguments[first + 1]}]", *arguments[first + 2 :]]
    stacked = [
        *arguments[:first],
        f"\\segci{{{arguments[first]}}}{{{arguments[first + 1]}}}",
        *arguments[first + 2 :],
    ]
    wide, narrow = (
        Panel(tuple(up), (), tuple(down), Tex(" & ".join(line)), len(arguments))
        for up, down, line in (
            (above, below, beside),
            ([*above[: first + 1], *above[first + 2 :]], [*below[: first + 1], *below[first + 2 :]], stacked),
        )
    )
    rows = [(row.dataset, _pair_cells(row, named=not table.reference)) for row in table.rows]
    groups = tuple(
        (dataset, tuple(cells for _, cells in members))
        for dataset, members in groupby(rows, key=lambda item: item[0])
    )
    yield from _floats(
        groups,
        [narrow],
        wide=wide,
        label="tab:segbench-pairs",
        caption=table.caption,
        notes=marked_notes(table),
        star=not table.reference,
    )


def marked_notes(table: PairTable) -> list[str]:
    """The notes of Table 2, that on trained weights with its dagger, where verdicts are marked with it."""
    return [f"\N{DAGGER}: {note}" if note == WEIGHTS_NOTE else note for note in table.notes]


def _pair_cells(row: PairRow, *, named: bool) -> list[Tex]:
    """Model, other model, difference, interval, p, share won, verdict; a dagger for these weights only."""
    limited = row.claim == "weights" and row.word != "inconclusive"
    return [
        prose(row.model),
        *([prose(row.other)] if named else []),
        number(row.difference),
        Tex(f"{number(row.low)},\\,{number(row.high)}"),
        number(row.p),
        number(row.won),
        Tex(escape_latex(row.word) + (f"\\rlap{{\\textsuperscript{{{DAGGER}}}}}" if limited else "")),
    ]
