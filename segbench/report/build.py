"""`build_report`: records in, a folder of tables, figures, a page and report.json out."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segbench.core.atomic import atomic_write
from segbench.core.errors import SegbenchError
from segbench.core.outputs import RECORD, OutputFolder
from segbench.records.store import CASE_LINES, CASES_FILE, RUN_FILE
from segbench.report import latex, markup
from segbench.report.analysis import Analysis, analyse
from segbench.report.answers import find_answers
from segbench.report.document import document, document_text, protocol_notes
from segbench.report.guards import Guard
from segbench.report.lint import lint_latex
from segbench.report.load import as_paths
from segbench.report.options import Options, make_options
from segbench.report.panels import COLUMN_POINTS, PAGE_POINTS, TEXT_POINTS, fitted, table_points
from segbench.report.table import Table
from segbench.report.tables import TableSet, build_tables
from segbench.report.tables.published import published_rows

PARTIAL = 3  # exit code: the report is written and has findings of severity error


@dataclass(frozen=True)
class ReportResult:
    """What a report consists of.

    Attributes:
        files: paths written, in order.
        guards: findings, errors first.
        exit_code: 0, or 3 with a finding of severity error.
        document: the content of report.json.
        analysis: what everything was made from.
        tables: the tables, by file.
    """

    files: tuple[Path, ...]
    guards: tuple[Guard, ...]
    exit_code: int
    document: Mapping[str, Any] = field(repr=False, default_factory=dict[str, Any])
    analysis: Analysis | None = field(repr=False, default=None)
    tables: tuple[TableSet, ...] = field(repr=False, default=())


def build_report(runs: Path | str | Iterable[Path | str], out: Path | str, **options: Any) -> ReportResult:
    """Write a report of the runs into a folder; the same records give the same bytes.

    Args:
        runs: a run folder, a folder of runs, a `cases.csv`, or several of them.
        out: folder of the report; files of an earlier report are replaced, others left alone.
        **options: see `segbench.report.options.Options`; `format` is understood as `formats`.

    Returns:
        Files, findings and the exit code of the command.

    Raises:
        SegbenchError: SB104 an option that cannot be, SB701 no usable run, SB702 duplicate rows, SB705 no
            common case, SB703 an invalid published file, SB215 under `missing="error"`, SB505 the folder
            cannot be written, SB337 a file of the report would be written over a record or a foreign file.
    """
    chosen = make_options(**options)
    analysis = analyse(as_paths(runs), chosen)
    published = published_rows(analysis)
    tables = build_tables(analysis, published)
    folder = Path(out)
    skipped: list[dict[str, str]] = []
    drawn = _figures(analysis, skipped) if {"figures", "html"} & set(chosen.formats) else []
    plan: list[tuple[Path, bytes | str]] = []
    if "html" in chosen.formats:
        page = _page(analysis, tables, drawn)
        plan.append((folder / "report.html", page.html))
        plan += [(folder / name, text) for name, text in page.beside]
        skipped += [{"figure": "report.html", "reason": note} for note in page.notes]
    content = document(analysis, published=[row.as_json() for row in published], skipped=skipped)
    if "json" in chosen.formats:
        plan.append((folder / "report.json", document_text(content)))
    if "markdown" in chosen.formats:
        plan.append((folder / "report.md", markdown_text(analysis, tables, drawn)))
    plan += _table_files(folder / "tables", tables, chosen)
    if "csv" in chosen.formats and chosen.long:
        plan.append((folder / "tables" / "long.csv", long_text(analysis, raw=chosen.raw_csv)))
    if "figures" in chosen.formats:
        plan += _figure_files(folder / "figures", drawn)
    files = _written(folder, plan, [*as_paths(runs), *_records(analysis)])
    failing = any(item.severity == "error" for item in analysis.guards)
    return ReportResult(
        files=tuple(files),
        guards=analysis.guards,
        exit_code=PARTIAL if failing else 0,
        document=content,
        analysis=analysis,
        tables=tuple(tables),
    )


def _records(analysis: Analysis) -> list[Path]:
    """The files that were read of every run."""
    names = (RUN_FILE, CASES_FILE, CASE_LINES, "profile.json")
    return [run.folder / name for run in analysis.runs if run.folder is not None for name in names]


def _written(folder: Path, plan: Sequence[tuple[Path, bytes | str]], inputs: Sequence[Path]) -> list[Path]:
    """Write all files, or none where one of them is not ours to replace."""
    contents = {path: data.encode() if isinstance(data, str) else data for path, data in plan}

    def same(path: Path) -> bool:
        return path.is_file() and path.read_bytes() == contents.get(path)

    names = [path.relative_to(folder).as_posix() for path in contents]
    with OutputFolder(folder, names, inputs=inputs, same=same) as results:
        files = [atomic_write(path, data) for path, data in contents.items()]
        results.wrote(*files)
    return [*files, folder / RECORD]


def _figures(analysis: Analysis, skipped: list[dict[str, str]]) -> list[Any]:
    from segbench.report.figures import draw_figures
    from segbench.report.figures.collect import KINDS

    drawn, left_out = draw_figures(analysis, KINDS if "figures" in analysis.options.formats else ("svg",))
    skipped += left_out
    return drawn


def _page(analysis: Analysis, tables: Sequence[TableSet], drawn: Sequence[Any]) -> Any:
    from segbench.report.page import build_page
    from segbench.report.viewer import load_pictures

    return build_page(analysis, tables, drawn, load_pictures(analysis))


def markdown_text(analysis: Analysis, tables: Sequence[TableSet], drawn: Sequence[Any]) -> str:
    """report.md: findings first, then every table, links to the figures where they are written."""
    lines = ["# Comparison on " + ", ".join(sorted({block.dataset for block in analysis.blocks})), ""]
    lines += ["## Findings about comparability", ""]
    lines += [
        f"- **{item.severity}: {item.code}** {markup.escape_markdown(item.message)}"
        for item in analysis.guards
    ]
    lines += [] if analysis.guards else ["None."]
    lines += [""]
    for item in find_answers(analysis):
        lines += [f"## What the records answer: {markup.escape_markdown(item.title)}", ""]
        lines += [f"- {markup.escape_markdown(sentence)}" for sentence in item.sentences] + [""]
    notes = protocol_notes(analysis)
    lines += ["## Notes of protocol and metric profile", ""] if notes else []
    lines += [*(markup.escape_markdown(note) + "\n" for note in notes)]
    titles = {
        "main": "Main tables",
        "pairwise": "Pairwise comparison",
        "ranks": "Ranks",
        "subgroups": "Subgroups by size",
        "discrimination": "Can the datasets rank these methods?",
        "seeds": "Training runs",
        "cost": "Cost",
        "published": "Published numbers",
        "missing": "Runs and missing cases",
    }
    for kind, title in titles.items():
        found = [table for item in tables if item.kind == kind for table in item.tables]
        if found:
            lines += [f"## {title}", "", *(markup.render_markdown(table) for table in found)]
    if drawn and "figures" in analysis.options.formats:
        lines += ["## Figures", ""]
        for item in drawn:
            alt = markup.escape_markdown(item.alt).replace("]", "\\]")
            lines += [f"![{alt}](figures/{item.name}.png)", "", markup.escape_markdown(item.caption), ""]
    return "\n".join(lines) + "\n"


def _figure_files(folder: Path, drawn: Sequence[Any]) -> list[tuple[Path, bytes | str]]:
    plan: list[tuple[Path, bytes | str]] = []
    for item in drawn:
        plan += [(folder / f"{item.name}.{kind}", data) for kind, data in sorted(item.files.items())]
    plan.append((folder / "alt.json", document_text({item.name: item.alt for item in drawn})))
    return plan


def _table_files(
    folder: Path, tables: Sequence[TableSet], options: Options
) -> list[tuple[Path, bytes | str]]:
    """Tables in the asked formats; LaTeX that fails its own lint is never written."""
    plan: list[tuple[Path, bytes | str]] = []
    for item in tables:
        if "latex" in options.formats:
            fragment = latex_text(item, options)
            plan.append((folder / f"{item.name}.tex", fragment))
            plan.append((folder / f"{item.name}_standalone.tex", latex.wrap_standalone(fragment)))
        if "markdown" in options.formats:
            text = "\n".join(markup.render_markdown(table) for table in item.tables)
            plan.append((folder / f"{item.name}.md", text or EMPTY_TEXT))
        if "csv" in options.formats:
            plan.append((folder / f"{item.name}.csv", csv_text(item, raw=options.raw_csv)))
    return plan


EMPTY_TEXT = "No data for this table.\n"
MOST_FLOATS = 40
"""Floats of one file: LaTeX gives up at 52 that wait for a page. Where there are more, only tables over all
regions are printed; the page, the Markdown and the CSV file hold the others."""


def latex_text(item: TableSet, options: Options) -> str:
    """All floats of one file.

    Raises:
        SegbenchError: SB704, our own LaTeX breaks the rules it is written by.
    """
    floats = [part for table in item.latex for part in _printed(table, options)]
    if len(floats) > MOST_FLOATS and item.leading:
        note = f"Other regions stand in {item.name}.csv and {item.name}.md."
        chosen = [table for table in item.latex if (table.label or "") in item.leading]
        chosen = [replace(table, notes=(*table.notes, note)) for table in chosen]
        floats = [part for table in chosen for part in _printed(table, options)]
    text = "\n".join(floats) or latex.escape_latex(EMPTY_TEXT.strip()) + "\n"
    findings = lint_latex(text)
    if findings:
        raise SegbenchError("SB704", f"{item.name}.tex fails its lint", details=findings[:20])
    return text


def _printed(table: Table, options: Options) -> list[str]:
    """The floats of one table: as it is, a size smaller, or in panels, so that it fits the text width."""
    limit = PAGE_POINTS if options.column == "double" else TEXT_POINTS
    rows = tuple(replace(row, label=" ".join(row.label.split())) for row in table.rows)
    font, parts = fitted(replace(table, rows=rows), options.font, limit)
    widest = max(table_points(part, font) for part in parts)
    column = "double" if widest > COLUMN_POINTS else options.column
    return latex.latex_floats(table, parts, column=column, font=font)


def csv_text(item: TableSet, *, raw: bool) -> str:
    """The tables of one file as one tidy CSV; with several tables each line begins with the table's label."""
    if len(item.tables) == 1:
        return markup.render_csv(item.tables[0], raw=raw)
    if not item.tables:
        return "row\n"
    lines: list[str] = []
    for number, table in enumerate(item.tables):
        name = markup.safe_csv_text(table.label or table.name, raw=raw)
        parts = markup.render_csv(table, raw=raw).split("\n")[:-1]
        if number == 0:
            lines.append(f"table,{parts[0]}")
        lines += [f"{name},{line}" for line in parts[1:]]
    return "\n".join(lines) + "\n"


def long_text(analysis: Analysis, *, raw: bool) -> str:
    """Every value after the missing policy, one per line, sorted by its key."""
    from segbench.report.load import frame_of

    frame = frame_of(analysis.blocks)
    for name in ("dataset", "protocol", "model", "case", "region", "metric"):
        frame[name] = [markup.safe_csv_text(text, raw=raw) for text in frame[name]]
    stream = io.StringIO()
    frame.to_csv(stream, index=False, float_format="%.17g", lineterminator="\n")
    return stream.getvalue()


def main_text(result: ReportResult) -> list[tuple[list[str], list[list[str]]]]:
    """Head and lines of the main table's parts, as a terminal shows them."""
    from segbench.report.cells import arrow, cell_parts, superscript

    found: list[tuple[list[str], list[list[str]]]] = []
    for item in result.tables:
        if item.name != "main":
            continue
        for table in item.tables:
            head = [table.corner, *(f"{' '.join(c.header)} {arrow(c)}".strip() for c in table.columns)]
            lines = []
            for row in table.rows:
                cells = [row.label]
                for cell, column in zip(row.cells, table.columns, strict=True):
                    parts = cell_parts(cell, column)
                    text = (
                        parts.main
                        + (f" \N{PLUS-MINUS SIGN} {parts.spread}" if parts.spread else "")
                        + parts.tail
                    )
                    text += {"best": " *", "second": " +"}.get(cell.mark, "")
                    text += " \N{DAGGER}" if cell.dagger else ""
                    raised = superscript(cell)
                    cells.append(text + (f" ({raised})" if raised else ""))
                lines.append(cells)
            found.append((head, lines))
    return found
