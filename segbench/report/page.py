"""report.html: one file, no outside address, readable without script, the findings first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from segbench.report.analysis import Analysis
from segbench.report.figures import Drawn
from segbench.report.markup import one_line
from segbench.report.sections import Section, page_sections
from segbench.report.svg import scatter, shared_glyphs
from segbench.report.tables import TableSet
from segbench.report.viewer import (
    AGREE,
    CLASS_COLOURS,
    EXTRA,
    MISSED,
    Picture,
    colour_table,
    fitting,
    viewer_code,
)
from segbench.report.worst import MOST_PER_MODEL, case_values, first_metric

MOST_POINTS = 1500  # of the scatter of all cases
MOST_SIDE = 6  # worst cases on the page itself when the others lie in files beside it


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
    sections = page_sections(analysis, tables, drawn, pictures, notes, embedded_viewer=bool(code))
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
    return shared_glyphs(
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
