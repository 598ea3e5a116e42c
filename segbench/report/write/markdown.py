"""`report.md`: what a reader of a pull request sees in two screens, tables as GitHub draws them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.published_beside import beside_sentence, published_beside
from segbench.report.analysis.sentences import headline
from segbench.report.write.tables import PairTable, ScoreCell, ScoreHead, ScoreTable, pair_table, score_tables

MOST_PAIRS = 20  # of Table 2; of more pairs only those with a verdict are shown
MOST_FINDINGS = 3  # of one kind; the others are counted
SEVERITY_WORDS = {"error": "Errors", "warn": "Warnings", "info": "Notes"}
STARS = {"method": "\\*", "weights": "\N{DAGGER}", "": ""}

_SPECIAL = re.compile(r"([\\`*_{}|\[\]<>&~#$@])")


def escape_markdown(text: str) -> str:
    """Plain text in one line that GitHub prints as itself, in a cell, a list or a sentence."""
    escaped = _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\@", "&#64;").replace("://", ":\\//")
    return re.sub(r"^(\s*)([-+=]|\d+[.)])(?=\s|$)", r"\1\\\2", escaped)


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """`report.md`."""
    return {"report.md": "\n\n".join(_parts(analysis)) + "\n"}


def _parts(analysis: Analysis) -> Iterator[str]:
    yield "# Report"
    for where, sentences in headline(analysis):
        yield "\n".join(
            [f"**{escape_markdown(where)}**", "", *(f"- {escape_markdown(line)}" for line in sentences)]
        )
    for table in score_tables(analysis):
        yield f"**{escape_markdown(table.caption)}**\n\n{score_table(table)}\n\n{_notes(table.notes)}"
    pairs = pair_table(analysis)
    if pairs is not None:
        short = pairs.short(MOST_PAIRS)
        yield f"**{escape_markdown(short.caption)}**\n\n{_pair_table(short)}\n\n{_notes(short.notes)}"
    if analysis.findings:
        yield _findings(analysis.findings)
    main = {block.main_region for block in analysis.blocks}
    beside = published_beside(analysis)
    rows = [row for row in beside if row.our_value is not None and row.region in main]
    if rows:
        lines = (f"- {escape_markdown(beside_sentence(analysis, row))}" for row in rows)
        yield "\n".join(["**Published numbers beside ours (no verdict)**", "", *lines])


def _notes(notes: Sequence[str]) -> str:
    return escape_markdown("; ".join(notes) + ".") if notes else ""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A pipe table; the first `left` columns are set left, the others right."""
    rule = [":---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def score_table(table: ScoreTable) -> str:
    """Table 1: families as rows of their own, intervals below their means."""
    head = ["Model", "Params (M)", "GMAC", "Seeds", *map(_head, table.heads)]
    rows: list[list[str]] = []
    for family, members in table.groups:
        if len(table.groups) > 1:
            rows.append([f"_{escape_markdown(family)}_", *[""] * (len(head) - 1)])
        rows += [
            [escape_markdown(row.name), row.parameters, row.gmacs, row.seeds, *map(_cell, row.cells)]
            for row in members
        ]
    return grid(head, rows, 1)


def _head(head: ScoreHead) -> str:
    return " ".join(
        escape_markdown(part) for part in (head.dataset, head.metric, head.region, head.arrow) if part
    )


def _cell(cell: ScoreCell) -> str:
    text = escape_markdown(cell.value)
    text = {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text) + STARS[cell.star]
    text += f"<sup>({cell.failed})</sup>" if cell.failed else ""
    text += f"<br><sub>[{cell.low}, {cell.high}]</sub>" if cell.low else ""
    return text + (f" \N{PLUS-MINUS SIGN} {cell.spread}" if cell.spread else "")


def _pair_table(table: PairTable) -> str:
    unit = f" ({table.unit})" if table.unit else ""
    datasets = any(row.dataset for row in table.rows)
    names = [*(["Dataset"] if datasets else []), "Model", *([] if table.reference else ["Against"])]
    head = [*names, f"Difference{unit}", "Interval", "Adjusted p", "Won (%)", "Verdict"]
    rows = [
        [
            *([escape_markdown(row.dataset)] if datasets else []),
            escape_markdown(row.model),
            *([] if table.reference else [escape_markdown(row.other)]),
            row.difference,
            f"[{row.low}, {row.high}]",
            html.escape(row.p),
            row.won,
            escape_markdown(row.verdict),
        ]
        for row in table.rows
    ]
    return grid(head, rows, len(names))


def _findings(findings: Sequence[Finding]) -> str:
    """Findings by severity, of each kind the first few."""
    lines: list[str] = []
    for severity, members in groupby(findings, key=lambda item: item.severity):
        lines += ["", f"**{SEVERITY_WORDS[severity]}**", ""]
        for code, same in groupby(members, key=lambda item: item.code):
            found = list(same)
            lines += [f"- {code}: {escape_markdown(item.message)}" for item in found[:MOST_FINDINGS]]
            more = len(found) - MOST_FINDINGS
            lines += [f"- {code}: {more} more"] if more > 0 else []
    return "\n".join(lines[1:])
