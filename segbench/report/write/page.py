"""report.html: one offline file that a reader finishes; what few need is folded below its first screen."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from typing import Any

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.numbers import format_number
from segbench.report.analysis.sentences import headline
from segbench.report.write.document import versions
from segbench.report.write.figures.collect import figure_files
from segbench.report.write.figures.style import INK, MODEL, PAPER, REFERENCE, RULE, SOFT, Sketch
from segbench.report.write.grids import (
    Grid,
    Line,
    cost_grid,
    failure_grid,
    number_cell,
    pair_grid,
    plain_grid,
    rank_grids,
    region_grids,
    run_grid,
    score_grid,
    seed_grids,
)
from segbench.report.write.method import method_facts, protocol_notes
from segbench.report.write.tables import STARS, pair_table, score_tables
from segbench.report.write.viewer import (
    AGREE,
    CLASS_COLOURS,
    EXTRA,
    MISSED,
    Picture,
    colour_table,
    fitting,
    load_pictures,
    notices,
    viewer_code,
)

THEME = {
    INK: "--ink",
    SOFT: "--soft",
    RULE: "--line",
    PAPER: "--paper",
    MODEL: "--model",
    REFERENCE: "--reference",
}
"""Colours of Figure 1 that follow the page, so that it can be read in the dark."""
ON_TOP = ("edited-record", "leak", "demo-data")
"""Findings that stand above the verdict."""
SEVERITY_WORDS = {"error": "Errors", "warn": "Limits", "info": "Notes"}
MOST_ALIKE = 3  # findings of one code before the others are folded
OPENING = re.compile(r"<svg[^>]*viewBox=\"([^\"]*)\"[^>]*>")


@dataclass(frozen=True, slots=True)
class Section:
    """A folded part of the page.

    Attributes:
        name: id of the element.
        title: its heading.
        texts: paragraphs.
        grids: tables.
        printed: whether printing opens it.
    """

    name: str
    title: str
    texts: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    printed: bool = True


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """report.html within `--max-size` (worst cases are dropped from the end), and the figures as files."""
    figure, drawn = figure_files(analysis)
    picture = (
        "" if figure is None else inline_svg(drawn.pop("figures/models.svg").decode("utf-8"), figure.alt)
    )
    found = load_pictures(analysis)
    code, problem = viewer_code() if found else ("", "")
    limit, told = analysis.options.max_size, [problem] if problem else []
    bare = _html(analysis, figure, picture, [], "", told)
    if not found:
        return {"report.html": bare, **drawn}
    kept = fitting(found, limit - len(bare.encode()) - len(code))
    while True:  # the estimate leaves out what stands around a case
        lost = len(found) - len(kept)
        notes = [f"{lost} of {len(found)} worst cases left out: the page would be too large"] if lost else []
        text = _html(analysis, figure, picture, kept, code if kept else "", [*told, *notes])
        if not kept or len(text.encode()) <= limit:
            return {"report.html": text, **drawn}
        kept = kept[:-1]


def inline_svg(text: str, alt: str) -> str:
    """A figure for the page: no outside name in it, in the page's colours, with its words for readers."""
    from markupsafe import escape

    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = OPENING.sub(
        lambda found: f'<svg viewBox="{found[1]}" role="img" aria-label="{escape(one_line(alt))}">',
        body,
        count=1,
    )
    body = body.replace("xlink:href", "href")
    for colour, name in THEME.items():
        body = re.sub(rf"{colour}\b", f"var({name})", body, flags=re.IGNORECASE)
    return body.strip()


def _html(
    analysis: Analysis,
    figure: Sketch | None,
    picture: str,
    pictures: Sequence[Picture],
    code: str,
    notes: Sequence[str],
) -> str:
    """The page from its parts."""
    from markupsafe import Markup, escape

    names = list(dict.fromkeys(block.dataset for block in analysis.blocks))
    models = {scores.label for block in analysis.blocks for scores in block.models}
    runs = sum(len(entry.runs) for entry in analysis.entries)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=f"Comparison on {', '.join(names)}" if names else "Report",
            subtitle=f"{_count(len(models), 'model')}, {_count(runs, 'run')}, segbench "
            f"{versions().get('segbench', '')}".strip(),
            css=Markup(_asset("page.css")),
            script=Markup(_asset("page.js")),
            viewer_script=Markup(_asset("viewer.js")),
            banners=[item for item in analysis.findings if item.code in ON_TOP],
            verdicts=headline(analysis) if analysis.metrics else [],
            figure=figure,
            picture=Markup(picture),
            wide=len(analysis.main_columns() if analysis.metrics else ()) > 1,
            tables=[score_grid(table, place) for place, table in enumerate(score_tables(analysis), start=1)],
            findings=_grouped(analysis.findings),
            most=MOST_ALIKE,
            sections=_sections(analysis, pictures, notes, viewer=bool(code)),
            pictures=pictures,
            colours=[CLASS_COLOURS[kind] for kind in (AGREE, MISSED, EXTRA)],
            cases=Markup(_case_json(pictures)) if pictures else "",
            viewer_code=Markup(code),
            licences=escape(notices()) if code else "",
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _grouped(findings: Sequence[Finding]) -> list[tuple[str, str, list[Finding]]]:
    """(severity, head, findings) without those that stand on top; each finding stands once on the page."""
    found: list[tuple[str, str, list[Finding]]] = []
    for severity, words in SEVERITY_WORDS.items():
        members = [item for item in findings if item.severity == severity and item.code not in ON_TOP]
        if members:
            found.append((severity, words, members))
    return found


def _sections(
    analysis: Analysis, pictures: Sequence[Picture], notes: Sequence[str], *, viewer: bool
) -> list[Section]:
    """The folded parts that have something to say, in order."""
    primary, *others = analysis.metrics or (None,)
    table = pair_table(analysis, primary)
    secondary = [
        pair_grid(found, f"table-pairs-{place}")
        for place, metric in enumerate(others, start=1)
        if metric is not None and (found := pair_table(analysis, metric)) is not None
    ]
    cost, failed = cost_grid(analysis), failure_grid(analysis)
    apart = tuple(line for block in analysis.blocks for line in block.differs)
    parts = [
        Section(
            "pairs", "Table 2: differences", grids=() if table is None else (pair_grid(table, "table-pairs"),)
        ),
        Section("regions", "By dataset and region", grids=tuple(region_grids(analysis))),
        Section("ranks", "Ranks", grids=tuple(rank_grids(analysis))),
        Section("seeds", "Seeds", grids=tuple(seed_grids(analysis))),
        Section("cost", "Cost", grids=(cost,) if cost else ()),
        Section(
            "secondary",
            "Differences in the other metrics",
            ("Each metric is a family of tests of its own, beside the primary one.",) if secondary else (),
            tuple(secondary),
            printed=False,
        ),
        _worst(analysis, pictures, notes, viewer=viewer),
        Section("failed", "Failed cases", grids=(failed,) if failed else ()),
        Section("method", "Statistics", (_statistics(analysis),)),
        Section(
            "provenance",
            "Provenance and versions",
            (*apart, *protocol_notes(analysis)),
            (run_grid(analysis), _version_grid()),
            printed=False,
        ),
    ]
    return [part for part in parts if part.texts or part.grids]


def _statistics(analysis: Analysis) -> str:
    """The paragraph on statistics, as markup."""
    from markupsafe import Markup

    return Markup(_environment().get_template("statistics.html.j2").render(method_facts(analysis)))


def _version_grid() -> Grid:
    rows = [Line(name, (number_cell(version),)) for name, version in versions().items()]
    return plain_grid("table-versions", "What computed and drew this report.", ("Package", "Version"), rows)


NO_PICTURES = "No pictures: the volumes of these runs are not stored with them, or not on this machine."


def _worst(analysis: Analysis, pictures: Sequence[Picture], notes: Sequence[str], *, viewer: bool) -> Section:
    """The list of worst cases; names lead to the 3D view, or without it to the picture."""
    rows: list[Line] = []
    for item in (picture.item for picture in pictures):
        known = item.volume_ml == item.volume_ml
        cells = (
            analysis.names[item.label].short,
            number_cell(str(item.run.seed)),
            item.block.name,
            number_cell(format_number(item.value, scale=item.metric.scale, digits=2)),
            number_cell(format_number(item.volume_ml, digits=2) if known else ""),
        )
        rows.append(Line(item.case, cells))
    if not rows:
        return Section("worst", "Worst cases", tuple(notes) or (NO_PICTURES,), printed=False)
    metric = pictures[0].item.metric
    heads = ("Case", "Model", "Seed", "Dataset", metric.head, "Reference (ml)")
    grid = plain_grid("table-worst", "Worst cases, at most three of one model.", heads, rows)
    grid = replace(grid, link="#viewer=" if viewer else "#case-")
    return Section("worst", "Worst cases", tuple(notes), (grid,), printed=False)


def _environment() -> Any:
    """Jinja2 with escaping on for everything."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_plain,
    )
    found.filters["minus"] = _minus
    found.globals["stars"] = STARS
    return found


def _minus(text: str) -> str:
    """Text with a minus sign in place of the hyphen before a number."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "\N{MINUS SIGN}", text)


def _plain(value: Any) -> Any:
    """Texts without characters that turn the writing direction; markup as it stands."""
    return one_line(value) if type(value) is str else value


def _template(name: str) -> str:
    return resources("segbench.report.write").joinpath("templates", name).read_text(encoding="utf-8")


def _asset(name: str) -> str:
    return resources("segbench.report.write").joinpath("assets", name).read_text(encoding="utf-8")


def _case_json(pictures: Sequence[Picture]) -> str:
    """Data of the 3D view; `<` is written as a code, so that nothing can close the script element."""
    content = {
        "colours": colour_table(),
        "items": [{"title": p.title, "scan": p.scan, "mask": p.mask, "step": p.step} for p in pictures],
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
