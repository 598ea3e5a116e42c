"""The parts of a printed cell that every text format shares; each format dresses them in its own way."""

from __future__ import annotations

from dataclasses import dataclass

from segbench.report.numbers import format_number
from segbench.report.table import Cell, Column

EN_DASH = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class CellParts:
    """A cell as text: the main number and what follows it, both undressed.

    Attributes:
        main: printed number, free text, or an en dash.
        spread: printed SD for "main ± spread", else empty.
        tail: interval " [lo, hi]" or " (spread)", else empty.
        is_number: False for free text and the en dash.
    """

    main: str
    spread: str = ""
    tail: str = ""
    is_number: bool = True


def cell_parts(cell: Cell, column: Column) -> CellParts:
    """Numbers of one cell at the column's scale and digits."""
    if cell.text is not None:
        return CellParts(main=cell.text, is_number=False)
    if cell.missing or cell.value is None:
        return CellParts(main=EN_DASH, is_number=False)

    def show(value: float) -> str:
        return format_number(value, scale=column.scale, digits=column.digits)

    main = show(cell.value)
    if cell.spread is not None and cell.spread == cell.spread:
        spread = show(cell.spread)
        return CellParts(main, spread) if column.spread == "pm" else CellParts(main, tail=f" ({spread})")
    if cell.low is not None and cell.high is not None and cell.low == cell.low and cell.high == cell.high:
        return CellParts(main, tail=f" [{show(cell.low)}, {show(cell.high)}]")
    return CellParts(main)


def superscript(cell: Cell) -> str:
    """Marks of the superscript in their fixed order: 1 single run, then further notes."""
    marks = ["1"] if cell.single and not cell.missing else []
    if cell.note:
        marks.append(cell.note)
    return ",".join(marks)


def arrow(column: Column) -> str:
    """Direction of a column as a character: up, down, or nothing."""
    if column.higher_is_better is None:
        return ""
    return "\N{UPWARDS ARROW}" if column.higher_is_better else "\N{DOWNWARDS ARROW}"
