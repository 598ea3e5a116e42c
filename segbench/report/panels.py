r"""How wide a table is in print, and the panels in which one that is too wide stands below itself.

A fragment does not know the class it will be put into. Widths are those of llncs, whose small sizes are the
widest of the classes we compile in (Computer Modern, \footnotesize at 9 pt); a table that fits there fits in
article and IEEEtran too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from segbench.report.cells import cell_parts, superscript
from segbench.report.table import Cell, Column, Table

TEXT_POINTS = 345.0
"""Text width of article and llncs in points: the widest table of a fragment."""
PAGE_POINTS = 516.0
"""Text width of a journal's two columns (IEEEtran), for `--column double`."""
COLUMN_POINTS = 291.0
"""Estimated width that fills one column of 252 pt in IEEEtran, whose Times runs narrower."""
PAGE_HEIGHT = 549.0
"""Text height of llncs in points; article has 550, IEEEtran 696."""
BASELINES = {"tiny": 6.0, "scriptsize": 8.0, "footnotesize": 11.0, "small": 11.0, "normalsize": 12.0}
"""Height of a line by size command, the largest of the three classes."""
LABEL_WIDTH = 34  # characters of a row's label in one line
NARROWER = (LABEL_WIDTH, 27, 20)
"""Widths of labels that are tried where a table is too wide."""
SMALLER = "scriptsize"
"""Size that is tried where a table is too wide."""
SIZES = {"tiny": 0.74, "scriptsize": 0.87, "footnotesize": 1.0, "small": 1.0, "normalsize": 1.09}
"""Width of text by size command, footnotesize being 1."""

_EM = 9.0
_WIDTHS = {
    character: width
    for width, characters in (
        (0.29, "!',.:;[]`il"), (0.31, "fj"), (0.34, "- "), (0.37, "I_"), (0.40, "()rt"), (0.41, "s"),
        (0.46, "cez"), (0.51, "0123456789$*/\\^ago{}~\""), (0.54, "Jkqvxy"), (0.57, "Sbdhnpu?"),
        (0.64, "LZ"), (0.67, "F"), (0.70, "EP"), (0.74, "BCTw"), (0.77, "RAHNUVXY"), (0.80, "D&+=@KOQ<>"),
        (0.86, "G#%m"), (0.94, "M"), (1.06, "W"),
    )
    for character in characters
}  # fmt: skip
_BOLD, _ITALIC = 1.155, 1.06
_SIGN = 0.80 * _EM  # plus-minus, minus and arrows stand in mathematics
_RAISED = 4.2  # one superscript, whatever the size


def text_points(text: str) -> float:
    """Width of plain text at footnotesize; characters outside ASCII count as wide ones."""
    return _EM * sum(_WIDTHS.get(character, 0.8) for character in text)


def lines_beside(table: Table, font: str) -> int:
    """How many lines of a page are left for rows and heads, beside caption, notes and rules of a float."""
    caption = 12.0 * (_paragraph(table.caption, 1.09) + 1)
    notes = BASELINES[font] * sum(_paragraph(note, SIZES[font]) for note in table.notes)
    return max(8, int((PAGE_HEIGHT - caption - notes - 20.0) / BASELINES[font]))


def _paragraph(text: str, size: float) -> int:
    """Lines of a paragraph; words leave some of each line empty."""
    return math.ceil(1.05 * size * text_points(text) / TEXT_POINTS)


def label_lines(label: str) -> list[str]:
    """A row's label in lines that fit, at its own line breaks or where they are needed."""
    return [line for part in label.split("\n") for line in _wrapped(part, LABEL_WIDTH)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""] if len(text) > width else [text]


def column_gap(columns: int) -> float:
    """Space on either side of a column in points: tighter the more there are."""
    if columns > 12:
        return 2.0
    return 3.0 if columns > 4 else 5.0


def table_points(table: Table, font: str) -> float:
    """Width of the whole table in points."""
    return _points(table, _label_points(table), _column_points(table), range(len(table.columns)), font)


def fitted(table: Table, font: str, limit: float) -> tuple[str, list[Table]]:
    """The size and the panels in which a table fits: one panel if a smaller size or narrower labels allow it.

    Args:
        table: what is to be printed.
        font: the size command asked for, without its backslash.
        limit: points.
    """
    fonts = (font, SMALLER) if SIZES[SMALLER] < SIZES[font] else (font,)
    best: tuple[str, list[Table]] | None = None
    for width in NARROWER:
        for size in fonts:
            parts = panels(with_narrow_labels(table, width), size, limit)
            if best is None or len(parts) < len(best[1]):
                best = size, parts
        if best is not None and len(best[1]) == 1:
            break
    assert best is not None
    return best


def with_narrow_labels(table: Table, width: int) -> Table:
    """The table with line breaks in its rows' labels, after so many characters at most."""
    rows = (replace(row, label="\n".join(_wrapped(row.label, width))) for row in table.rows)
    return replace(table, rows=tuple(rows))


def panels(table: Table, font: str, limit: float) -> list[Table]:
    """The table as few tables of whole columns, each within the limit; one column alone may exceed it.

    Every panel repeats the labels. Columns under one head stay together where that head fits a panel; panels
    are about equally wide.

    Args:
        table: what is to be printed.
        font: a LaTeX size command without its backslash.
        limit: points.
    """
    if table_points(table, font) <= limit:
        return [table]
    label, columns = _label_points(table), _column_points(table)

    def width(places: Sequence[int]) -> float:
        return _points(table, label, columns, places, font)

    heads = [
        [place for place, _ in group]
        for _, group in groupby(enumerate(table.columns), key=lambda item: item[1].header[:-1])
    ]
    groups = heads if len(table.columns[0].header) > 1 else [[place] for place in range(len(columns))]

    def filled(most: float) -> list[list[int]]:
        parts: list[list[int]] = []
        for group in groups:
            pieces = [group] if width(group) <= most else [[place] for place in group]
            for number, piece in enumerate(pieces):
                # What is left of a group that was taken apart goes on where it stands.
                together = parts and (number > 0 or len(pieces) == 1)
                if together and width([*parts[-1], *piece]) <= most:
                    parts[-1] += piece
                else:
                    parts.append(list(piece))
        return parts

    best = filled(limit)
    narrower = limit
    while narrower > limit / 2:
        narrower -= 5.0
        found = filled(narrower)
        if len(found) > len(best):
            break
        best = found
    return [_part(table, places) for places in best]


def _part(table: Table, places: Sequence[int]) -> Table:
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows)


def _label_points(table: Table) -> float:
    lines = [table.corner, *(line for row in table.rows for line in label_lines(row.label))]
    return max(text_points(line) for line in lines)


def _column_points(table: Table) -> list[float]:
    widths: list[float] = []
    for place, column in enumerate(table.columns):
        head = text_points(column.header[-1]) if column.header else 0.0
        arrow = 0.0 if column.higher_is_better is None else _SIGN + text_points(" ")
        cells = [_cell_points(row.cells[place], column) for row in table.rows]
        widths.append(max([head + arrow, *cells]))
    return widths


def _cell_points(cell: Cell, column: Column) -> float:
    parts = cell_parts(cell, column)
    width = text_points(parts.main + parts.tail)
    if parts.is_number:
        width += (_SIGN - text_points("-")) * (parts.main + parts.tail).count("-")
    if parts.spread:
        width += text_points(f"  {parts.spread}") + _SIGN
    width *= (_BOLD if cell.mark == "best" else 1.0) * (_ITALIC if cell.single else 1.0)
    return width + _RAISED * (bool(superscript(cell)) + cell.dagger)


def _points(table: Table, label: float, columns: Sequence[float], places: Sequence[int], font: str) -> float:
    """Width of a table of some of the columns; heads over several may be wider than what they cover."""
    size, gap = SIZES[font], column_gap(len(places))
    total = size * (label + sum(columns[place] for place in places)) + 2 * gap * (len(places) + 1)
    depth = len(table.columns[0].header) if table.columns else 0
    spare = 0.0
    for level in range(depth - 1):
        more = 0.0
        for head, group in groupby(places, key=lambda place: table.columns[place].header[: level + 1]):
            members = list(group)
            covered = size * sum(columns[place] for place in members) + 2 * gap * (len(members) - 1)
            more += max(0.0, size * text_points(head[-1]) - covered)
        spare = max(spare, more)
    return total + spare
