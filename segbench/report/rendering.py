"""One table in one of the formats."""

from __future__ import annotations

from segbench.report import latex, markup
from segbench.report.table import Table

FORMATS = ("latex", "markdown", "csv", "json", "html")


def render(
    table: Table,
    format: str,
    *,
    standalone: bool = False,
    column: str = "single",
    font: str = "footnotesize",
) -> str:
    """The table as text in ``format``: latex, markdown, csv, json or html.

    Args:
        table: what to print; marks are taken as they stand (see `with_marks`).
        format: one of the five names.
        standalone: LaTeX only: a whole document around the same bytes of the fragment.
        column: LaTeX only: ``single`` or ``double`` (`table*`).
        font: LaTeX only: size command without its backslash.

    Raises:
        ValueError: an unknown format, column width or font size.
    """
    if format == "latex":
        return latex.render_latex(table, standalone=standalone, column=column, font=font)
    if format == "markdown":
        return markup.render_markdown(table)
    if format == "csv":
        return markup.render_csv(table)
    if format == "json":
        return markup.render_json(table)
    if format == "html":
        return markup.render_html(table)
    raise ValueError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
