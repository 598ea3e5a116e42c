"""`report.md`: what a reader of a pull request sees in two screens, tables as GitHub draws them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.published_beside import beside_sentence, published_beside
from segbench.report.analysis.sentences import headline
from segbench.report.write.tables import STARS, ScoreCell, Table, pair_tables, score_tables

MOST_PAIRS = 20  # of Table 2; of more pairs only those with a verdict are shown
MOST_FINDINGS = 3  # of one kind; the others are counted
SEVERITY_WORDS = {"error": "Errors", "warn": "Warnings", "info": "Notes"}

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
    for table in (*score_tables(analysis), *pair_tables(analysis, most=MOST_PAIRS)[:1]):
        yield f"**{escape_markdown(table.caption)}**\n\n{pipes(table)}"
        if table.notes:
            yield escape_markdown("; ".join(table.notes) + ".")
    if analysis.findings:
        yield _findings(analysis.findings)
    main = {block.main_region for block in analysis.blocks}
    beside = published_beside(analysis)
    rows = [row for row in beside if row.our_value is not None and row.ours.region in main]
    if rows:
        lines = (f"- {escape_markdown(beside_sentence(analysis, row))}" for row in rows)
        yield "\n".join(["**Published numbers beside ours (no verdict)**", "", *lines])


def pipes(table: Table) -> str:
    """A table as pipes: groups as rows of their own, intervals below their numbers."""
    heads = [escape_markdown(f"{head.above} {head.text}".strip()) for head in table.heads]
    rows = [heads, [":---" if head.words else "---:" for head in table.heads]]
    for name, members in table.groups:
        if name and len(table.groups) > 1:
            rows.append([f"_{escape_markdown(name)}_", *[""] * (len(heads) - 1)])
        rows += [[escape_markdown(row.name), *map(_cell, row.cells)] for row in members]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _cell(cell: str | ScoreCell) -> str:
    if isinstance(cell, str):
        return escape_markdown(cell)
    text = escape_markdown(cell.value)
    text = {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    text += escape_markdown(STARS.get(cell.star, ""))
    text += f"<sup>({cell.failed})</sup>" if cell.failed else ""
    text += f"<br><sub>[{cell.low}, {cell.high}]</sub>" if cell.low else ""
    return text + (f" \N{PLUS-MINUS SIGN} {cell.spread}" if cell.spread else "")


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
