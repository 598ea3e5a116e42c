"""Tables as a printed page can hold them: pairs by number, groups under one head, equal cells in a note.

The page and the Markdown file may be as wide as they like; a column of a journal is 88 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segbench.report.table import Cell, Row, Table

LONGEST_PAIR = 30  # characters of "a vs b" up to which names stand in the cells


def numbered_pairs(table: Table, pairs: Sequence[tuple[str, str]], order: Sequence[str]) -> Table:
    """The table with "1 vs 3" for its pairs and the names below, where the names would not fit.

    Args:
        table: one row per pair, labelled "a vs b".
        pairs: names of each row.
        order: all names in the order of their numbers.
    """
    if all(len(row.label) <= LONGEST_PAIR for row in table.rows):
        return table
    number = {name: place for place, name in enumerate(order, start=1)}
    rows = tuple(
        replace(row, label=f"{number[a]} vs {number[b]}")
        for row, (a, b) in zip(table.rows, pairs, strict=True)
    )
    key = "; ".join(f"{place} {name}" for name, place in number.items())
    return replace(table, rows=rows, notes=(f"Models: {key}.", *table.notes))


def grouped_rows(table: Table, groups: Sequence[tuple[str, str]]) -> Table:
    """The table with each group's name on a line of its own above its rows.

    Args:
        table: rows in the order of their groups.
        groups: name of the group and label within it, one per row.
    """
    rows: list[Row] = []
    previous = ""
    for row, (group, label) in zip(table.rows, groups, strict=True):
        if group != previous:
            rows.append(Row(group, tuple(Cell(None, text="") for _ in table.columns), kind="head"))
        previous = group
        rows.append(replace(row, label=f"- {label}"))
    return replace(table, rows=tuple(rows))


def common_to_notes(table: Table, heads: Sequence[str]) -> Table:
    """The table without the text columns named that say the same in every row; a note says it once."""
    keep: list[int] = []
    said: list[str] = []
    for place, column in enumerate(table.columns):
        texts = {row.cells[place].text for row in table.rows}
        if column.header[-1] in heads and len(texts) == 1 and table.rows:
            text = texts.pop()
            said += [f"{column.header[-1]}: {text}."] if text else []
        else:
            keep.append(place)
    if len(keep) == len(table.columns):
        return table
    return replace(
        table,
        columns=tuple(table.columns[place] for place in keep),
        rows=tuple(replace(row, cells=tuple(row.cells[place] for place in keep)) for row in table.rows),
        notes=(*table.notes, " ".join(said)) if said else table.notes,
    )
