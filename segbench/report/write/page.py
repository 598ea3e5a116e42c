"""report.html: one offline file that a reader finishes; what few need is folded below its first screen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from itertools import groupby
from typing import Any

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.numbers import plural
from segbench.report.analysis.sentences import context, verdicts, where
from segbench.report.write.details import (
    cost_tables,
    failure_tables,
    listing,
    number,
    published_tables,
    rank_tables,
    region_tables,
    seed_tables,
    source_tables,
)
from segbench.report.write.document import versions
from segbench.report.write.figures.models import figure_files
from segbench.report.write.figures.style import INK, MODEL, PAPER, REFERENCE, RULE, SOFT
from segbench.report.write.method import CITATION, method_sentences, protocol_notes
from segbench.report.write.tables import STARS, Head, Table, pair_tables, score_tables
from segbench.report.write.viewer import (
    CLASS_COLOURS,
    Picture,
    colour_table,
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
MOST_VERDICTS = 3  # sentences of each of several datasets on the first screen; the others are folded
NO_PICTURES = "No pictures: the volumes of these runs are not stored with them, or not on this machine."


@dataclass(frozen=True, slots=True)
class Section:
    """A folded part of the page.

    Attributes:
        name: id of the element.
        title: its heading.
        tables: in order.
        texts: paragraphs above them.
        printed: whether printing opens it.
    """

    name: str
    title: str
    tables: Sequence[Table] = ()
    texts: Sequence[str] = ()
    printed: bool = True


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """report.html within `--max-size` (worst cases are dropped from the end), and the figures as files."""
    found = load_pictures(analysis)
    code, problem = viewer_code() if found else ("", "")
    content, drawn = _content(analysis), figure_files(analysis)[1]
    template, text = _environment().get_template("page.html.j2"), ""
    for count in range(len(found), -1, -1):
        lost = len(found) - count
        notes = [problem] if problem else []
        notes += [f"{lost} of {len(found)} worst cases left out: the page would be too large"] if lost else []
        text = template.render(
            content | _pictures(analysis, found[:count], code if count else "", notes or [NO_PICTURES])
        )
        if len(text.encode()) <= analysis.options.max_size:
            break
    return {"report.html": text, **drawn}


def _content(analysis: Analysis) -> dict[str, Any]:
    """What stands on the page besides pictures of cases."""
    from markupsafe import Markup

    figure, drawn = figure_files(analysis)
    names = list(dict.fromkeys(block.dataset for block in analysis.blocks))
    models = {scores.label for block in analysis.blocks for scores in block.models}
    runs = sum(len(entry.runs) for entry in analysis.entries)
    shown, folded = list[tuple[str, Sequence[str]]](), list[str]()
    columns = analysis.main_columns()
    for column in columns:
        place, first, others = where(analysis, column), verdicts(analysis, column), context(analysis, column)
        most = min(len(first), MOST_VERDICTS) if len(columns) > 1 else len(first) + len(others)
        said, rest = [*first, *others][:most], [*first, *others][most:]
        shown.append((place, said))
        folded += [f"{place}: {' '.join(rest)}"] if rest else []
    found = [item for item in analysis.findings if item.code not in ON_TOP]
    by_severity = [
        (severity, words, [item for item in found if item.severity == severity])
        for severity, words in SEVERITY_WORDS.items()
    ]
    return {
        "title": f"Comparison on {', '.join(names)}" if names else "Report",
        "subtitle": f"{plural(len(models), 'model')}, {plural(runs, 'run')}, segbench "
        f"{versions().get('segbench', '')}".strip(),
        "css": Markup(_file("assets", "page.css")),
        "script": Markup(_file("assets", "page.js")),
        "viewer_script": Markup(_file("assets", "viewer.js")),
        "banners": [item for item in analysis.findings if item.code in ON_TOP],
        "verdicts": shown,
        "figure": figure,
        "picture": "" if figure is None else inline_svg(drawn["figures/models.svg"].decode(), figure.alt),
        "wide": len(columns) > 1,
        "tables": list(map(_scores_first, score_tables(analysis))),
        "findings": [item for item in by_severity if item[2]],
        "most": MOST_ALIKE,
        "results": _results(analysis, folded),
        "sources": _sources(analysis),
    }


def _scores_first(table: Table) -> Table:
    """Table 1 with facts behind the scores: a narrow screen shows what was asked for."""

    def turned(items: Sequence[Any], first: int) -> tuple[Any, ...]:
        last = first + table.facts
        return (*items[:first], *items[last:], *items[first:last])

    groups = tuple(
        (family, tuple(replace(row, cells=turned(row.cells, 0)) for row in rows))
        for family, rows in table.groups
    )
    return replace(table, heads=turned(table.heads, 1), groups=groups)


def inline_svg(text: str, alt: str) -> Any:
    """A figure for the page: no outside name in it, in the page's colours, with its words for readers."""
    from markupsafe import Markup, escape

    body = text[text.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    words = f'role="img" aria-label="{escape(one_line(alt))}"'
    opening = re.compile(r"<svg[^>]*(viewBox=\"[^\"]*\")[^>]*>")
    body = opening.sub(lambda found: f"<svg {found[1]} {words}>", body, count=1)
    body = body.replace("xlink:href", "href")
    for colour, name in THEME.items():
        body = re.sub(rf"{colour}\b", f"var({name})", body, flags=re.IGNORECASE)
    return Markup(body)


def _results(analysis: Analysis, texts: Sequence[str]) -> list[Section]:
    """The folded parts about scores that have something to say, in order."""
    pairs = pair_tables(analysis)
    first = [table for table in pairs if table.name == "table-pairs"]
    others = [table for table in pairs if table not in first]
    families = "Each metric is a family of tests of its own, beside the primary one."
    parts = [
        Section("pairs", "Table 2: differences", first),
        Section("regions", "By dataset and region", region_tables(analysis), texts),
        Section("ranks", "Ranks", rank_tables(analysis)),
        Section("seeds", "Seeds", seed_tables(analysis)),
        Section("cost", "Cost", cost_tables(analysis)),
        Section("secondary", "Differences in the other metrics", others, [families], printed=False),
        Section("failed", "Failed cases", failure_tables(analysis)),
        Section("published", "Published numbers", published_tables(analysis), printed=False),
    ]
    return [part for part in parts if part.tables or (part.name == "regions" and texts)]


def _sources(analysis: Analysis) -> list[Section]:
    """How the numbers came about and where from."""
    method = CITATION.sub("", " ".join(method_sentences(analysis)))
    apart = [line for block in analysis.blocks for line in block.differs]
    notes = [*apart, *protocol_notes(analysis)]
    return [
        Section("method", "Statistics", (), [method]),
        Section("provenance", "Provenance and versions", source_tables(analysis), notes, printed=False),
    ]


def _pictures(
    analysis: Analysis, pictures: Sequence[Picture], code: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Worst cases; names lead to the 3D view, or without its code to the picture."""
    from markupsafe import Markup

    rows = [
        (
            item.case,
            analysis.short(item.label),
            number(item.run.seed),
            item.block.name,
            number(item.value, scale=item.column.metric.scale, digits=2),
            number(item.volume_ml, digits=2),
        )
        for item in pictures
    ]
    score = pictures[0].column.metric.head if pictures else ""
    heads = ("Case", "Model", "Seed", "Dataset", score, "Reference (ml)")
    tables = listing("table-worst", "Worst cases, at most three of one model.", heads, rows)
    notes = [note for note in notes if note != NO_PICTURES or not pictures]
    return {
        "worst": Section("worst", "Worst cases", tables, notes, printed=False),
        "pictures": pictures,
        "colours": list(CLASS_COLOURS.values()),
        "cases": Markup(_case_json(pictures)) if pictures else "",
        "viewer_code": Markup(code),
        "licences": notices() if code else "",
    }


def _case_json(pictures: Sequence[Picture]) -> str:
    """Data of the 3D view; `<` is written as a code, so that nothing can close the script element."""
    content = {
        "colours": colour_table(),
        "items": [{"title": p.title, "scan": p.scan, "mask": p.mask, "step": p.step} for p in pictures],
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _environment() -> Any:
    """Jinja2 with escaping on for everything."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _file("templates", name)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: one_line(value) if type(value) is str else value,
    )
    found.filters |= {"minus": _minus, "spans": _spans}
    found.globals["stars"] = STARS
    return found


def _minus(text: str) -> str:
    """Text with a minus sign in place of the hyphen before a number."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "\N{MINUS SIGN}", text)


def _spans(heads: Iterable[Head]) -> list[tuple[str, int]]:
    """(text, columns) of the heads above others; none where no column has one."""
    found = [(text, len(list(members))) for text, members in groupby(heads, key=lambda head: head.above)]
    return found if any(text for text, _ in found) else []


def _file(folder: str, name: str) -> str:
    return resources("segbench.report.write").joinpath(folder, name).read_text(encoding="utf-8")
