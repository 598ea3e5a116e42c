"""report.html: one offline file that a reader finishes; what few need is folded below its first screen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from segbench.core.text import count, one_line
from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.findings import gathered
from segbench.report.analysis.published_beside import GRADES, beside_sentence, published_beside
from segbench.report.analysis.sentences import context, verdicts, where
from segbench.report.write.details import details, listing, number
from segbench.report.write.document import versions
from segbench.report.write.figures import INK, MODEL, PAPER, REFERENCE, RULE, SOFT, figure_files
from segbench.report.write.paper import CITATION, method_sentences
from segbench.report.write.tables import STARS, Head, pair_tables, score_tables
from segbench.report.write.templating import FOLDER, environment
from segbench.report.write.viewer import (
    CLASS_COLOURS,
    Picture,
    colour_table,
    load_pictures,
    view,
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
MOST_ALIKE = 3  # findings of one code before the others are folded
MOST_VERDICTS = 3  # sentences of each of several datasets on the first screen; the others are folded
NO_PICTURES = "No pictures: the volumes of these runs are not stored with them, or not on this machine."


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """report.html within `--max-size` (worst cases are dropped from the end), and the figures as files."""
    found = load_pictures(analysis)
    code, problem = viewer_code() if found else ("", "")
    content, drawn = _content(analysis), figure_files(analysis)[1]
    views = [view(item, item.shown) for item in found if item.shown is not None]
    pages = environment(one_line, autoescape=True)
    pages.filters |= {"minus": _minus, "spans": _spans}
    pages.globals["stars"] = STARS
    template, text = pages.get_template("page.html.j2"), ""
    for kept in range(len(found), -1, -1):
        lost = len(found) - kept
        notes = [problem] if problem else []
        notes += [f"{lost} of {len(found)} worst cases left out: the page would be too large"] if lost else []
        text = template.render(
            content | _pictures(found[:kept], views[:kept], code if kept else "", notes or [NO_PICTURES])
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
        place, first, others = where(column), verdicts(column), context(column)
        most = min(len(first), MOST_VERDICTS) if len(columns) > 1 else len(first) + len(others)
        said, rest = [*first, *others][:most], [*first, *others][most:]
        shown.append((place, said))
        folded += [f"{place}: {' '.join(rest)}"] if rest else []
    pairs, beside = pair_tables(analysis), list(map(beside_sentence, published_beside(analysis)))
    grades = "; ".join(f"{grade}: {words}" for grade, words in GRADES.items())
    findings = gathered(analysis.findings)
    return {
        "title": f"Comparison on {', '.join(names)}" if names else "Report",
        "subtitle": f"{count(len(models), 'model')}, {count(runs, 'run')}, segbench "
        f"{versions().get('segbench', '')}".strip(),
        "css": Markup(_asset("page.css")),
        "script": Markup(_asset("page.js")),
        "viewer_script": Markup(_asset("viewer.js")),
        "banners": [item for item in findings if item.code in ON_TOP],
        "verdicts": shown,
        "figure": figure,
        "picture": "" if figure is None else inline_svg(drawn["figures/models.svg"].decode(), figure.alt),
        "wide": len(columns) > 1,
        "scores": score_tables(analysis, screen=True),
        "findings": [item for item in findings if item.code not in ON_TOP],
        "most": MOST_ALIKE,
        "pairs": [table for table in pairs if table.name == "table-pairs"],
        "secondary": [table for table in pairs if table.name != "table-pairs"],
        "more_verdicts": folded,
        "statistics": CITATION.sub("", " ".join(method_sentences(analysis))),
        "published": beside and [f"Published numbers, in no test and no rank. {grades}.", *beside],
        "notes": [*(line for block in analysis.blocks for line in block.differs), *_stated(analysis)],
    } | details(analysis)


def _stated(analysis: Analysis) -> list[str]:
    """Notes of the protocols and metric profiles of the runs used, verbatim, each once."""
    found: dict[str, None] = {}
    for run in (run for block in analysis.blocks for run in block.runs):
        stated = facts.table(run.record.protocol, "notes")
        notes = [stated[key] for key in sorted(stated) if key != "purpose"]
        for note in (*notes, facts.metric_profile(run.record).get("notes")):
            lines = note if isinstance(note, list | tuple) else [note] if isinstance(note, str) else []
            found |= dict.fromkeys(str(line) for line in lines if line)
    return list(found)


def inline_svg(text: str, alt: str) -> Any:
    """A figure for the page: no outside name in it, in the page's colours, with its words for readers."""
    from markupsafe import Markup, escape

    body = text[text.index("<svg") :].strip().replace("xlink:href", "href")
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    words = f'role="img" aria-label="{escape(one_line(alt))}"'
    opening = r"<svg[^>]*(viewBox=\"[^\"]*\")[^>]*>"
    body = re.sub(opening, lambda found: f"<svg {found[1]} {words}>", body, count=1)
    for colour, name in THEME.items():
        body = re.sub(rf"{colour}\b", f"var({name})", body, flags=re.IGNORECASE)
    return Markup(body)


def _pictures(
    pictures: Sequence[Picture], views: Sequence[Mapping[str, Any]], code: str, notes: Sequence[str]
) -> dict[str, Any]:
    """Worst cases; names lead to the 3D view, or without its code to the picture."""
    from markupsafe import Markup

    rows = [
        (
            item.case,
            item.column.block.short(item.label),
            number(item.run.seed),
            item.column.block.name,
            number(item.value, scale=item.column.metric.scale, digits=2),
            number(item.volume_ml, digits=2),
        )
        for item in pictures
    ]
    score = pictures[0].column.metric.head if pictures else ""
    heads = ("Case", "Model", "Seed", "Dataset", score, "Reference (ml)")
    items = [{name: view[name] for name in ("title", "scan", "mask", "step")} for view in views]
    data = json.dumps({"colours": colour_table(), "items": items}, sort_keys=True, allow_nan=False)
    for sign in "<>&":  # so that nothing can close the script element
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return {
        "worst": listing("table-worst", "Worst cases, at most three of one model.", heads, rows),
        "worst_notes": [note for note in notes if note != NO_PICTURES or not pictures],
        "pictures": views,
        "colours": list(CLASS_COLOURS.values()),
        "cases": Markup(data) if views else "",
        "viewer_code": Markup(code),
        "licences": _asset("THIRD_PARTY.md") if code else "",
    }


def _minus(text: str) -> str:
    """Text with a minus sign in place of the hyphen before a number."""
    return re.sub(r"(?<![\w.])-(?=\d|inf)", "\N{MINUS SIGN}", text)


def _spans(heads: Iterable[Head]) -> list[tuple[str, int]]:
    """(text, columns) of the heads above others; none where no column has one."""
    found = [(text, len(list(members))) for text, members in groupby(heads, key=lambda head: head.above)]
    return found if any(text for text, _ in found) else []


def _asset(name: str) -> str:
    return (FOLDER.parent / "assets" / name).read_text(encoding="utf-8")
