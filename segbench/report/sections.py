"""The sections of the page in their fixed order: which tables and figures stand where, what is folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segbench.report import facts, guards
from segbench.report.analysis import Analysis
from segbench.report.answers import find_answers
from segbench.report.document import protocol_notes, versions
from segbench.report.figures import Drawn
from segbench.report.markup import one_line, render_html
from segbench.report.svg import embedded
from segbench.report.table import Cell, Column, Row, Table
from segbench.report.tables import TableSet, words
from segbench.report.viewer import (
    Picture,
    notices,
)


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure as the template takes it."""

    picture: Any
    caption: str


@dataclass(slots=True)
class Part:
    """Tables and figures under one heading; folded ones open on a click."""

    title: str = ""
    tables: list[Any] = field(default_factory=list[Any])
    figures: list[PageFigure] = field(default_factory=list[PageFigure])
    folded: bool = False


@dataclass(slots=True)
class Section:
    """One section of the page."""

    id: str
    title: str
    texts: list[str] = field(default_factory=list[str])
    guards: list[guards.Guard] = field(default_factory=list[guards.Guard])
    parts: list[Part] = field(default_factory=list[Part])


def page_sections(
    analysis: Analysis,
    tables: Sequence[TableSet],
    drawn: Sequence[Drawn],
    pictures: Sequence[Picture],
    notes: Sequence[str],
    *,
    embedded_viewer: bool,
) -> list[Section]:
    """Sections in their fixed order; those without content say so."""
    by_kind: dict[str, list[TableSet]] = {}
    for item in tables:
        by_kind.setdefault(item.kind, []).append(item)
    figures = _Figures(drawn)
    found = Section("findings", "Findings about comparability", guards=list(analysis.guards))
    found.texts = [] if analysis.guards else ["None."]
    sections = [
        found,
        _compared(analysis),
        _tables_section("main", "Main tables", by_kind.get("main", []), figures("01_", "10_")),
        _tables_section(
            "pairwise", "Pairwise comparison", by_kind.get("pairwise", []), figures("04_", "09_", "02_")
        ),
        _stability(by_kind, figures("03_", "11_"), analysis),
        _tables_section("cost", "Cost", by_kind.get("cost", []), figures("08_")),
        _tables_section(
            "subgroups", "Subgroups by size", by_kind.get("subgroups", []), figures("06_", "05_")
        ),
        _tables_section("published", "Published numbers", by_kind.get("published", []), []),
        _worst_section(pictures, figures("07_"), notes),
        _tables_section("missing", "Runs and missing cases", by_kind.get("missing", []), []),
        _method(analysis, embedded_viewer=embedded_viewer),
    ]
    return [
        section
        for section in sections
        if section.parts or section.texts or section.guards or (section.id == "worst" and pictures)
    ]


@dataclass(slots=True)
class _Figures:
    """Figures by the number their name begins with."""

    drawn: Sequence[Drawn]

    def __call__(self, *starts: str) -> list[PageFigure]:
        """Figures whose names begin so, in that order."""
        from markupsafe import Markup

        return [
            PageFigure(
                Markup(embedded(item.files["svg"], item.screen, name=item.name, alt=item.alt)), item.caption
            )
            for start in starts
            for item in self.drawn
            if item.name.startswith(start)
        ]


def _tables_section(id_: str, title: str, sets: Sequence[TableSet], figures: list[PageFigure]) -> Section:
    """Tables of the first metric in the open (over all regions where there are several), the others
    folded.
    """
    from markupsafe import Markup

    section = Section(id_, title)
    for place, item in enumerate(sets):
        pages = [(table, Markup(render_html(table))) for table in item.tables]
        if not pages:
            continue
        leading = [page for table, page in pages if len(pages) == 1 or _is_leading(table, item)]
        others = [page for table, page in pages if len(pages) > 1 and not _is_leading(table, item)]
        if place == 0:
            section.parts.append(Part(tables=leading or [page for _, page in pages]))
            section.parts.append(Part(figures=figures))
            figures = []
            if leading and others:
                section.parts.append(Part(f"Single regions ({len(others)})", tables=others, folded=True))
        else:
            name = item.name.partition("_")[2] or item.name
            section.parts.append(Part(f"{title}: {name}", tables=leading + others, folded=True))
    if figures:
        section.parts.append(Part(figures=figures))
    return section


def _is_leading(table: Table, item: TableSet) -> bool:
    """Whether a table stands for all regions of its block."""
    return not item.leading or table.label in item.leading


def _stability(
    by_kind: Mapping[str, Sequence[TableSet]], figures: list[PageFigure], analysis: Analysis
) -> Section:
    section = _tables_section("stability", "Is the order stable?", by_kind.get("ranks", []), figures)
    for kind, title in (
        ("discrimination", "Can the datasets rank these methods?"),
        ("seeds", "Training runs"),
    ):
        inner = _tables_section(kind, title, by_kind.get(kind, []), [])
        if inner.parts:
            inner.parts[0].title = title
            section.parts += inner.parts
    across = analysis.across
    if len(across.datasets) > 1:
        ranks = "; ".join(
            f"{analysis.labels.get(model, model)} {rank:.2f} [{low:.2f}, {high:.2f}]"
            for model, rank, low, high in zip(
                across.models, across.mean_ranks, across.rank_low, across.rank_high, strict=True
            )
        )
        p = "no p-value" if across.pvalue is None else f"p = {across.pvalue:.4f}"
        section.texts.append(
            f"Over {len(across.datasets)} datasets ({', '.join(across.datasets)}), {across.metric}: {p}, "
            f"{across.reason}. Mean ranks with bootstrap intervals: {ranks or 'none'}."
        )
    return section


def _compared(analysis: Analysis) -> Section:
    """What was compared with what: protocol, split, profile, cases, models, seeds."""
    from markupsafe import Markup

    section = Section("compared", "What was compared")
    heads = ("Protocol", "Split", "Cases", "Models", "Seeds", "Folds", "Metric profile", "Empty policy")
    rows: list[Row] = []
    for block in analysis.blocks:
        runs = block.runs
        seeds = sorted({len(scores.seeds) for scores in block.ranked})
        cells = (
            block.protocol,
            _joined(
                f"{facts.split_name(run) or '?'} {(facts.split_digest(run) or 'unknown')[:12]}"
                for run in runs
            ),
            str(len(block.cases)),
            str(len(block.ranked)) + (f" and {len(block.floors)} floor" if block.floors else ""),
            "-".join(str(count) for count in sorted({seeds[0], seeds[-1]})) if seeds else "0",
            str(len({run.fold for run in runs})),
            _joined(str(facts.metric_profile(run).get("name") or "unknown") for run in runs),
            _joined(facts.empty_policy(run) or "unknown" for run in runs),
        )
        rows.append(Row(block.name, tuple(Cell(None, text=text) for text in cells)))
    table = Table(
        "compared",
        "Blocks of comparable runs; nothing is ranked or tested between blocks.",
        tuple(Column((head,), None) for head in heads),
        tuple(rows),
        corner="Dataset",
    )
    section.parts += [Part(tables=[Markup(render_html(table))]), *_answers(analysis)]
    section.texts = protocol_notes(analysis)
    return section


def _answers(analysis: Analysis) -> list[Part]:
    """The sentences of each dataset, the first metric in the open, the others folded."""
    from markupsafe import Markup

    parts: list[Part] = []
    for item in find_answers(analysis):
        lines = Markup("").join(Markup("<li>{}</li>").format(one_line(text)) for text in item.sentences)
        title = f"What the records answer: {one_line(item.title)}"
        folded = item.metric != analysis.metrics[0].name
        parts.append(Part(title, tables=[Markup("<ul>{}</ul>").format(lines)], folded=folded))
    return parts


def _joined(values: Any) -> str:
    return ", ".join(sorted(set(values)))


def _worst_section(pictures: Sequence[Picture], figures: list[PageFigure], notes: Sequence[str]) -> Section:
    section = Section("worst", "Worst cases", texts=list(notes))
    if not pictures:
        section.texts.append("The volumes of these runs are not stored with them, so no case can be shown.")
    if figures:
        section.parts.append(Part(figures=figures))
    return section


def _method(analysis: Analysis, *, embedded_viewer: bool) -> Section:
    """How the numbers were made, and by what."""
    options = analysis.options
    level = f"{100 * options.confidence:g} %"
    section = Section("method", "Method notes and versions")
    section.texts = [
        f"Means: BCa bootstrap intervals ({options.resamples} draws, seed {options.seed}) from 20 cases on, "
        "Student's t "
        "below, the two-level interval over seeds and cases from two seeds on; medians: exact order "
        "statistics; "
        f"{level} throughout.",
        f"Tests: {words.TEST_WORDS}; {words.LEVEL_WORDS}. Holm within a dataset, region and metric. A "
        "verdict is "
        "equivalent, better, worse or undecided; undecided is not equal.",
        words.MISSING_WORDS[options.missing] + " The region called mean is the mean of the region means.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions().items())) + ".",
    ]
    if embedded_viewer:
        from markupsafe import Markup, escape

        text = Markup("<pre>{}</pre>").format(escape(notices()))
        section.parts.append(Part("Licences of the embedded 3D viewer", tables=[text], folded=True))
    return section
