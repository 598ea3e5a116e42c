"""Tables as Markdown, CSV, JSON and HTML."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
from itertools import groupby
from typing import Any

from segbench.report.cells import arrow, cell_parts, superscript
from segbench.report.numbers import exact, finite_or_none
from segbench.report.table import Cell, Column, Table

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_|\[<&])")
_NUMBER_LIKE = re.compile(r"^(<?-?\d|n/a$|$)")  # texts that stand right-aligned like numbers
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


def one_line(text: str) -> str:
    """The text without control characters, line breaks and direction marks: it cannot leave its cell."""
    kept = (
        " " if unicodedata.category(character) in {"Cc", "Zl", "Zp"} else character
        for character in text
        if unicodedata.category(character) not in {"Cf", "Cs"}
    )
    return "".join(kept)


def escape_markdown(text: str) -> str:
    """Plain text that prints as itself in a GitHub pipe table."""
    escaped = _MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text))
    return re.sub(r"^(\s*)#", r"\1\\#", escaped)


def render_markdown(table: Table) -> str:
    """A GitHub pipe table under its caption, the notes below."""
    heads = [escape_markdown(" / ".join(part for part in column.header if part)) for column in table.columns]
    heads = [f"{head} {arrow(column)}".strip() for head, column in zip(heads, table.columns, strict=True)]
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    lines.append("| " + " | ".join([escape_markdown(table.corner), *heads]) + " |")
    lines.append("|" + "|".join([" :--- ", *(" ---: " for _ in table.columns)]) + "|")
    for row in table.rows:
        cells = [_markdown_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
        lines.append("| " + " | ".join([escape_markdown(row.label), *cells]) + " |")
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell, column: Column) -> str:
    parts = cell_parts(cell, column)
    text = escape_markdown(parts.main) if not parts.is_number else parts.main
    text += f" \N{PLUS-MINUS SIGN} {parts.spread}" if parts.spread else ""
    text += parts.tail.replace("[", "\\[")
    if cell.missing or not text:
        return text
    if cell.single:
        text = f"_{text}_"
    if cell.mark == "best":
        text = f"**{text}**"
    elif cell.mark == "second":
        text = f"<u>{text}</u>"
    raised = superscript(cell)
    text += f"<sup>{html.escape(raised)}</sup>" if raised else ""
    return text + ("<sup>\N{DAGGER}</sup>" if cell.dagger else "")


def safe_csv_text(text: str, *, raw: bool = False) -> str:
    """A text cell that no spreadsheet takes for a formula; ``raw`` leaves it as it is."""
    return text if raw or not text.startswith(_FORMULA_START) else "'" + text


CSV_COLUMNS = ("value", "spread", "low", "high", "mark", "dagger", "single", "text", "note")


def render_csv(table: Table, *, raw: bool = False) -> str:
    """The table in tidy form: one line per cell, head levels and parts of the number in columns."""
    depth = max((len(column.header) for column in table.columns), default=0)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", *(f"head_{level + 1}" for level in range(depth)), *CSV_COLUMNS])
    for row in table.rows:
        for cell, column in zip(row.cells, table.columns, strict=True):
            texts = [one_line(row.label), *(one_line(part) for part in column.header)]
            writer.writerow(
                [
                    *(safe_csv_text(text, raw=raw) for text in texts),
                    exact(cell.value),
                    exact(cell.spread),
                    exact(cell.low),
                    exact(cell.high),
                    cell.mark,
                    int(cell.dagger),
                    int(cell.single),
                    safe_csv_text(one_line(cell.text or ""), raw=raw),
                    cell.note,
                ]
            )
    return buffer.getvalue()


def render_json(table: Table) -> str:
    """The table as one JSON object; NaN is null, infinities are the strings "inf" and "-inf"."""
    document = {
        "name": table.name,
        "caption": table.caption,
        "corner": table.corner,
        "columns": [
            {
                "header": list(column.header),
                "higher_is_better": column.higher_is_better,
                "scale": column.scale,
                "digits": column.digits,
                "rankable": column.rankable,
            }
            for column in table.columns
        ],
        "rows": [
            {"label": row.label, "cells": [_json_cell(cell) for cell in row.cells]} for row in table.rows
        ],
        "notes": list(table.notes),
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def json_number(value: float | None) -> float | str | None:
    """A number for JSON: None for NaN, the strings "inf" and "-inf" for infinities."""
    known = finite_or_none(value)
    if known is not None and known in {float("inf"), float("-inf")}:
        return "inf" if known > 0 else "-inf"
    return known


def _json_cell(cell: Cell) -> dict[str, Any]:
    return {
        "value": json_number(cell.value),
        "spread": json_number(cell.spread),
        "low": json_number(cell.low),
        "high": json_number(cell.high),
        "mark": cell.mark,
        "dagger": cell.dagger,
        "single": cell.single,
        "text": cell.text,
        "note": cell.note,
    }


def escape_html(text: str) -> str:
    """Plain text for HTML, in one line and without characters that turn the writing direction."""
    return html.escape(one_line(text), quote=True)


def render_html(table: Table) -> str:
    """A `table` element with caption, head levels, values for sorting in `data-value`, notes in the foot."""
    lines = [f'<table class="report" id="{_identifier(table)}">']
    lines.append(f"<caption>{escape_html(table.caption)}</caption>")
    lines += ["<thead>", *_html_head(table), "</thead>", "<tbody>"]
    for row in table.rows:
        cells = "".join(
            _html_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)
        )
        fixed = ' class="fixed"' if row.kind == "head" else ""
        lines.append(f'<tr{fixed}><th scope="row">{escape_html(row.label)}</th>{cells}</tr>')
    lines.append("</tbody>")
    if table.notes:
        notes = "".join(f"<p>{escape_html(note)}</p>" for note in table.notes)
        lines.append(f'<tfoot><tr><td colspan="{len(table.columns) + 1}">{notes}</td></tr></tfoot>')
    lines.append("</table>")
    return "\n".join(lines) + "\n"


def _identifier(table: Table) -> str:
    return "table-" + (
        re.sub(r"[^a-z0-9]+", "-", (table.label or table.name).lower()).strip("-") or "unnamed"
    )


def _html_head(table: Table) -> list[str]:
    depth = len(table.columns[0].header) if table.columns else 1
    lines: list[str] = []
    for level in range(depth - 1):
        cells = "<td></td>"
        for _, group in groupby(table.columns, key=lambda item: item.header[: level + 1]):
            members = list(group)
            text = escape_html(members[0].header[level])
            cells += f'<th scope="colgroup" colspan="{len(members)}">{text}</th>'
        lines.append(f'<tr class="group">{cells}</tr>')
    leaves = f'<th scope="col">{escape_html(table.corner)}</th>'
    for column in table.columns:
        name = escape_html(column.header[-1]) if column.header else ""
        leaves += f'<th scope="col">{f"{name} {arrow(column)}".strip()}</th>'
    lines.append(f'<tr class="leaf">{leaves}</tr>')
    return lines


def _html_cell(cell: Cell, column: Column) -> str:
    parts = cell_parts(cell, column)
    text = escape_html(parts.main)
    text += f" \N{PLUS-MINUS SIGN}\N{NO-BREAK SPACE}{parts.spread}" if parts.spread else ""
    text += parts.tail
    words = not parts.is_number and _NUMBER_LIKE.match(parts.main) is None
    classes = [name for name, on in (("single", cell.single), ("text", words)) if on]
    if not cell.missing and text:
        if cell.mark == "best":
            text = f"<strong>{text}</strong>"
        elif cell.mark == "second":
            text = f"<u>{text}</u>"
        raised = superscript(cell)
        text += f"<sup>{html.escape(raised)}</sup>" if raised else ""
        text += "<sup>\N{DAGGER}</sup>" if cell.dagger else ""
    attributes = f' class="{" ".join(classes)}"' if classes else ""
    if cell.text is None and cell.value is not None and not cell.missing:
        attributes += f' data-value="{cell.value:.5g}"'
    return f"<td{attributes}>{text}</td>"
