"""Ours beside published: difference and grade, never a rank, a mark or a word of praise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from segbench.report.analysis import Analysis
from segbench.report.display import display
from segbench.report.published import PublishedRow
from segbench.report.table import Cell, Column, Row, Table

GRADES = (
    "A: same dataset, split, regions, metric definition. B: same dataset and definition, split different or "
    "unknown. C: anything else differs or is unknown. Published numbers have no per-case values: nothing is "
    "tested or ranked."
)


def published_rows(analysis: Analysis) -> tuple[PublishedRow, ...]:
    """Published numbers beside the means of this report.

    Raises:
        SegbenchError: SB703 when a published table is invalid.
    """
    from segbench.report.compare import our_numbers
    from segbench.report.published import beside, load_published

    if not analysis.options.published:
        return ()
    ours = our_numbers(item for items in analysis.summaries.values() for item in items)
    return beside(load_published(analysis.options.published_root), ours)


def published_tables(
    analysis: Analysis, rows: Sequence[PublishedRow], *, in_notes: bool = False
) -> list[Table]:
    """One table per dataset and metric; in LaTeX the reasons stand below, where lines can break."""
    found: list[Table] = []
    for (dataset, protocol, metric), group in groupby(
        rows, key=lambda row: (row.dataset, row.protocol, row.metric)
    ):
        members = list(group)
        shown = display(metric)
        number = Column(
            (f"Published{_unit(shown.unit)}",), None, scale=shown.scale, digits=analysis.options.digits
        )
        columns = (
            Column(("Region",), None),
            number,
            Column((f"Ours{_unit(shown.unit)}",), None, scale=shown.scale, digits=analysis.options.digits),
            Column(("Ours - published",), None, scale=shown.scale, digits=analysis.options.digits),
            Column(("Grade",), None),
            Column(("See" if in_notes else "Differs or unknown",), None),
        )
        reasons = list(dict.fromkeys(_reasons(row) for row in members))
        found.append(
            Table(
                name="published",
                caption=f"Published numbers: {shown.head}, beside {dataset} ({protocol}). {GRADES}",
                columns=columns,
                rows=tuple(_row(row, reasons if in_notes else None) for row in members),
                notes=_notes(reasons) if in_notes else (),
                label=f"tab:published-{dataset}-{protocol}-{metric}",
                corner="Model, source",
            )
        )
    return found


def _unit(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _reasons(row: PublishedRow) -> str:
    return ", ".join(row.reasons) or "nothing"


def _notes(reasons: list[str]) -> tuple[str, ...]:
    return tuple(f"({number}) differs or unknown: {text}" for number, text in enumerate(reasons, start=1))


def _row(row: PublishedRow, numbered: list[str] | None) -> Row:
    reason = _reasons(row)
    cells = (
        Cell(None, text=row.region),
        Cell(row.value, spread=row.sd),
        Cell(row.our_value),
        Cell(row.difference),
        Cell(None, text=row.grade),
        Cell(None, text=reason if numbered is None else f"({numbered.index(reason) + 1})"),
    )
    return Row(f"{row.model}, {row.source}", cells)
