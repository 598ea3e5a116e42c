"""report.html: one file, no outside address, readable without script, the findings first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from segbench.report import facts, guards
from segbench.report.analysis import Analysis
from segbench.report.document import protocol_notes, versions
from segbench.report.figures import Drawn
from segbench.report.markup import one_line, render_html
from segbench.report.svg import embedded, scatter
from segbench.report.table import Cell, Column, Row, Table
from segbench.report.tables import TableSet, words
from segbench.report.viewer import (
    AGREE,
    CLASS_COLOURS,
    EXTRA,
    MISSED,
    Picture,
    colour_table,
    fitting,
    notices,
    viewer_code,
)
from segbench.report.worst import MOST_PER_MODEL, case_values, first_metric

MOST_POINTS = 1500  # of the scatter of all cases
MOST_SIDE = 6  # worst cases on the page itself when the others lie in files beside it


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


@dataclass(frozen=True, slots=True)
class Page:
    """The page and the files beside it.

    Attributes:
        html: report.html.
        beside: name under the report's folder and text of each further page (`--viewer all`).
        notes: what was left out and why.
    """

    html: str
    beside: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def build_page(
    analysis: Analysis, tables: Sequence[TableSet], drawn: Sequence[Drawn], pictures: Sequence[Picture]
) -> Page:
    """The whole report as HTML, within `--max-size`: worst cases are dropped from the end, then figures.

    Args:
        analysis: what was computed.
        tables: every table, by file.
        drawn: figures with svg and png.
        pictures: worst cases whose volumes are here, worst first.
    """
    limit = analysis.options.max_size
    notes: list[str] = []
    code, problem = viewer_code() if pictures else ("", "")
    if problem:
        notes.append(problem)
    whole = analysis.options.viewer_cases is None
    embed = list(pictures[:MOST_SIDE] if whole else pictures)
    shown = list(drawn)
    bare = len(_html(analysis, tables, shown, [], "", [], []).encode())
    while bare > limit and shown:
        dropped = shown.pop()
        bare = len(_html(analysis, tables, shown, [], "", [], []).encode())
        notes.append(f"figure {dropped.name} left out: the page would be larger than --max-size")
    kept = fitting(embed, limit - bare - len(code))
    side = _side_pages(analysis, pictures, code) if whole else []
    names = [name for name, _, _ in side]
    while True:  # the estimate above leaves out what stands around a case
        lost = len(embed) - len(kept)
        said = [f"{lost} of {len(embed)} worst cases left out: the page would be too large"] if lost else []
        html = _html(analysis, tables, shown, kept, code if kept else "", [*notes, *said], names)
        if not kept or len(html.encode()) <= limit:
            break
        kept = kept[:-1]
    notes += said
    return Page(html, tuple((name, text) for name, _, text in side), tuple(notes))


def _html(
    analysis: Analysis,
    tables: Sequence[TableSet],
    drawn: Sequence[Drawn],
    pictures: Sequence[Picture],
    code: str,
    notes: Sequence[str],
    side: Sequence[str],
) -> str:
    """The page from its parts."""
    sections = _sections(analysis, tables, drawn, pictures, notes, embedded_viewer=bool(code))
    datasets = ", ".join(sorted({block.dataset for block in analysis.blocks}))
    demo = [item.message for item in analysis.guards if item.code == "demo-data"]
    worst = _worst(analysis, pictures, viewer=bool(code), side=side)
    return _render(
        title=f"Comparison on {datasets}",
        sections=sections,
        banners=[item.message for item in analysis.guards if item.code == "leak"],
        watermark="Not a benchmark: generated scans or the demo protocol." if demo else "",
        worst=worst,
        pictures=pictures,
        code=code,
    )


def _render(
    *,
    title: str,
    sections: Sequence[Section],
    banners: Sequence[str],
    watermark: str,
    worst: str,
    pictures: Sequence[Picture],
    code: str,
) -> str:
    from markupsafe import Markup

    cases = _case_json(pictures) if pictures else ""
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            css=Markup(_asset("page.css")),
            script=Markup(_asset("page.js")),
            viewer_script=Markup(_asset("viewer.js")),
            sections=sections,
            banners=banners,
            watermark=watermark,
            worst=Markup(worst),
            cases=Markup(cases),
            viewer_code=Markup(code),
        )
    )


def _environment() -> Any:
    """Jinja2 with escaping on for everything."""
    import jinja2

    def load(name: str) -> str:
        return _asset(name)

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_plain,
    )


def _plain(value: Any) -> Any:
    """Texts without characters that turn the writing direction; markup as it stands."""
    return one_line(value) if type(value) is str else value


def _asset(name: str) -> str:
    return files("segbench.report").joinpath("assets", name).read_text(encoding="utf-8")


def _case_json(pictures: Sequence[Picture]) -> str:
    """Data of the 3D view; `<` is written as a code, so that nothing can close the script element."""
    content = {
        "colours": colour_table(),
        "items": [{"title": p.title, "scan": p.scan, "mask": p.mask, "step": p.step} for p in pictures],
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sections(
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
    section.parts.append(Part(tables=[Markup(render_html(table))]))
    section.texts = protocol_notes(analysis)
    return section


def _joined(values: Any) -> str:
    return ", ".join(sorted(set(values)))


def _worst_section(pictures: Sequence[Picture], figures: list[PageFigure], notes: Sequence[str]) -> Section:
    section = Section("worst", "Worst cases", texts=list(notes))
    if not pictures:
        section.texts.append("The volumes of these runs are not stored with them, so no case can be shown.")
    if figures:
        section.parts.append(Part(figures=figures))
    return section


def _worst(analysis: Analysis, pictures: Sequence[Picture], *, viewer: bool, side: Sequence[str]) -> str:
    """List, scatter and posters of the worst cases."""
    if not pictures:
        return ""
    from markupsafe import Markup

    metric = first_metric(analysis, pictures[0].item.block)
    scale = metric.scale if metric else 1.0
    rows = [
        {
            "case": item.case,
            "model": analysis.labels.get(item.run.model, item.run.model),
            "seed": item.run.seed,
            "dataset": item.block.name,
            "raw": repr(item.value),
            "value": f"{item.value * scale:.2f}",
            "volume": f"{item.volume_ml:.2f}" if math.isfinite(item.volume_ml) else "",
        }
        for item in (picture.item for picture in pictures)
    ]
    links = [{"href": name, "title": f"case {place + 1}"} for place, name in enumerate(side)]
    return (
        _environment()
        .get_template("worst.html.j2")
        .render(
            pictures=pictures,
            rows=rows,
            metric=metric.head if metric else "",
            most=MOST_PER_MODEL,
            viewer=viewer,
            colours=[CLASS_COLOURS[code] for code in (AGREE, MISSED, EXTRA)],
            scatter=Markup(_scatter(analysis, pictures, viewer=viewer)),
            side=links,
        )
    )


def _scatter(analysis: Analysis, pictures: Sequence[Picture], *, viewer: bool) -> str:
    """All cases of the first picture's block; its worst cases are links."""
    block = pictures[0].item.block
    metric = first_metric(analysis, block)
    if metric is None:
        return ""
    number = next(place for place, item in enumerate(analysis.blocks) if item is block)
    points = [(item.volume_ml, item.value * metric.scale) for item in case_values(analysis, number)]
    step = max(1, -(-len(points) // MOST_POINTS))
    marked = [
        (place, picture.item.volume_ml, picture.item.value * metric.scale, picture.title)
        for place, picture in enumerate(pictures)
        if picture.item.block is block
    ]
    return scatter(
        points[::step],
        marked,
        x_label=f"largest reference volume (ml) on {block.name}",
        y_label=metric.head,
        target="#viewer=" if viewer else "#case-",
    )


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


def _side_pages(analysis: Analysis, pictures: Sequence[Picture], code: str) -> list[tuple[str, str, str]]:
    """One page per case: (name, title, html)."""
    pages: list[tuple[str, str, str]] = []
    for place, picture in enumerate(pictures, start=1):
        section = Section("worst", picture.title, texts=["Part of report.html."])
        html = _render(
            title=picture.title,
            sections=[section],
            banners=[],
            watermark="",
            worst=_worst(analysis, [picture], viewer=bool(code), side=()),
            pictures=[picture],
            code=code,
        )
        pages.append((f"cases/{place:04d}.html", picture.title, html))
    return pages
