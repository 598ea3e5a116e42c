"""What a table is before it becomes text in any format: values, and the marks computed from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Mark = Literal["", "best", "second"]
MARK_DECIMALS = 12  # float noise beyond this never breaks a tie


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, its direction and how its numbers are printed.

    Attributes:
        header: levels from the outermost inwards, e.g. ``("BraTS2023", "WT")``.
        higher_is_better: True, False, or None when the column has no direction (never marked, no arrow).
        scale: factor between the stored and the printed number (100 for Dice).
        digits: decimals of the printed number.
        rankable: False withholds every mark of this column (cannot-rank, not comparable).
        spread: how a cell's ``spread`` is printed: ``pm`` ("a ± b") or ``paren`` ("a (b)").
    """

    header: tuple[str, ...]
    higher_is_better: bool | None
    scale: float = 1.0
    digits: int = 2
    rankable: bool = True
    spread: Literal["pm", "paren"] = "pm"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number with its company; ``value`` None or NaN prints as an en dash.

    Attributes:
        value: the number in stored units; ``text`` replaces what is printed, never what is ranked.
        spread: SD (or IQR) in stored units.
        low: lower end of an interval; printed when there is no ``spread``.
        high: upper end of the interval.
        mark: set by `with_marks`.
        dagger: True prints a dagger: not different from the best after Holm.
        single: True for a single training run: italic and superscript 1.
        text: plain text printed in place of the number, escaped like any other text.
        note: a further superscript, such as ``2`` for a degraded run.
        eligible: False keeps this cell out of the ranking of its column (a leak, a floor).
    """

    value: float | None
    spread: float | None = None
    low: float | None = None
    high: float | None = None
    mark: Mark = ""
    dagger: bool = False
    single: bool = False
    text: str | None = None
    note: str = ""
    eligible: bool = True

    @property
    def missing(self) -> bool:
        """Whether there is nothing to print."""
        return self.text is None and not _known(self.value)


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled line of cells, one per column.

    Attributes:
        label: text of the first column.
        cells: one per column.
        kind: `head` for a line that belongs to the head (counts): it is never sorted.
    """

    label: str
    cells: tuple[Cell, ...]
    kind: Literal["", "head"] = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table without any format: what `render` turns into text.

    Attributes:
        name: file stem and, without ``label``, the source of the LaTeX label.
        caption: plain text; markup in it is escaped.
        columns: heads, without the label column.
        rows: lines; every row has one cell per column.
        notes: plain-text lines printed under the table.
        label: LaTeX label (``[a-z0-9:-]``); None derives it from the name.
        corner: head of the label column.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    label: str | None = None
    corner: str = ""

    def __post_init__(self) -> None:
        """Refuse a ragged table.

        Raises:
            ValueError: a row with more or fewer cells than columns, or heads of unequal depth.
        """
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"table {self.name!r}: row {row.label!r} has {len(row.cells)} cells "
                    f"for {len(self.columns)} columns"
                )
        if len({len(column.header) for column in self.columns}) > 1:
            raise ValueError(f"table {self.name!r}: column heads have unequal numbers of levels")


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _score(cell: Cell) -> float | None:
    """Value for ranking, rounded so that noise in the last bits cannot break a tie."""
    if cell.value is None or math.isnan(cell.value) or not cell.eligible:
        return None
    return round(cell.value, MARK_DECIMALS) if math.isfinite(cell.value) else cell.value


def column_marks(scores: list[float | None], *, higher_is_better: bool | None) -> list[Mark]:
    """Marks of one column: ties share; two or more best leave no second; fewer than two values, no mark."""
    known = [score for score in scores if score is not None]
    blank: list[Mark] = ["" for _ in scores]
    if higher_is_better is None or len(known) < 2:
        return blank
    ordered = sorted(set(known), reverse=higher_is_better)
    best = ordered[0]
    second = ordered[1] if len(ordered) > 1 and known.count(best) == 1 else None
    marks: list[Mark] = []
    for score in scores:
        if score is None:
            marks.append("")
        elif score == best:
            marks.append("best")
        else:
            marks.append("second" if second is not None and score == second else "")
    return marks


def with_marks(table: Table) -> Table:
    """The table with best and second marked in each rankable column, from unrounded values.

    Marks that were set before are replaced. Cells without a value, cells that are not eligible and columns
    without a direction or with ``rankable=False`` stay unmarked.
    """
    marks_by_column: list[list[Mark]] = []
    for index, column in enumerate(table.columns):
        scores = [_score(row.cells[index]) for row in table.rows]
        direction = column.higher_is_better if column.rankable else None
        marks_by_column.append(column_marks(scores, higher_is_better=direction))
    rows = tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, mark=marks_by_column[place][line]) for place, cell in enumerate(row.cells)
            ),
        )
        for line, row in enumerate(table.rows)
    )
    return replace(table, rows=rows)
