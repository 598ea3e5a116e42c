"""`segbench report`: tables, figures and one page from records; trains nothing, scores nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import parse_size, settings, split_list
from segbench.core import console
from segbench.core.errors import SegbenchError

TABLES = "Tables"
STATISTICS = "Statistics"
PAGE = "Page"


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs",
            metavar="DIR",
            help="Run folder or folder of runs. Repeatable. [default: the results folder]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Folder of the report. [default: report beside the results folder]",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", metavar="DIR", help="Results folder. [env: SEGBENCH_RESULTS, default results/runs]"
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="latex, html, markdown, csv, json, figures. [default: all]",
            rich_help_panel=TABLES,
        ),
    ] = None,
    long: Annotated[
        bool,
        typer.Option("--long", help="Also one file of case, region, metric, value.", rich_help_panel=TABLES),
    ] = False,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="Metrics in order.", rich_help_panel=TABLES)
    ] = None,
    regions: Annotated[
        list[str] | None, typer.Option("--regions", help="Regions in order.", rich_help_panel=TABLES)
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="MODEL", help="Compare every model with this one.", rich_help_panel=TABLES
        ),
    ] = None,
    order: Annotated[str, typer.Option("--order", help="rank or name.", rich_help_panel=TABLES)] = "rank",
    cell: Annotated[
        str, typer.Option("--cell", help="mean-sd, mean-ci or median-iqr.", rich_help_panel=TABLES)
    ] = "mean-sd",
    digits: Annotated[int, typer.Option("--digits", help="Decimals.", rich_help_panel=TABLES)] = 2,
    column: Annotated[
        str, typer.Option("--column", help="LaTeX and figures: single or double.", rich_help_panel=TABLES)
    ] = "single",
    font: Annotated[str, typer.Option("--font", help="LaTeX size.", rich_help_panel=TABLES)] = "footnotesize",
    raw_csv: Annotated[
        bool,
        typer.Option("--raw-csv", help="Leave text cells that begin like a formula.", rich_help_panel=TABLES),
    ] = False,
    missing: Annotated[
        str, typer.Option("--missing", help="worst, drop-case or error.", rich_help_panel=STATISTICS)
    ] = "worst",
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="METRIC=X",
            help="Equivalence margin in stored units.",
            rich_help_panel=STATISTICS,
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Level of tests.", rich_help_panel=STATISTICS)
    ] = 0.05,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap draws.", rich_help_panel=STATISTICS)
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of every draw.", rich_help_panel=STATISTICS)] = 0,
    include_unfinished: Annotated[
        bool,
        typer.Option(
            "--include-unfinished",
            help="Take unfinished runs; absent cases are missing.",
            rich_help_panel=STATISTICS,
        ),
    ] = False,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--no-published", help="Published numbers beside ours.", rich_help_panel=PAGE
        ),
    ] = True,
    viewer: Annotated[
        str, typer.Option("--viewer", help="3D worst cases: none, worst:K or all.", rich_help_panel=PAGE)
    ] = "worst:6",
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Largest report.html.", rich_help_panel=PAGE)
    ] = "25MB",
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="Print case-001 in place of case ids.", rich_help_panel=PAGE)
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Datasets, for pictures of worst cases. [env: SEGBENCH_DATA]",
            rich_help_panel=PAGE,
        ),
    ] = None,
) -> int:
    """Tables, figures and report.html from the records of runs.

    Exit 0; 3 when findings of severity error were raised or cases are missing; 4 without a usable run.
    """
    from segbench.core.environment import results_dir
    from segbench.report.build import build_report

    places = list(runs or []) or [results_dir(results)]
    result = build_report(
        places,
        output or default_output(results_dir(results)),
        formats=split_list(formats),
        long=long,
        metrics=split_list(metrics),
        regions=split_list(regions),
        reference=reference,
        order=order,
        cell=cell,
        digits=digits,
        column=column,
        font=font,
        raw_csv=raw_csv,
        missing=missing,
        margin=parse_margins(margin),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        include_unfinished=include_unfinished,
        published=published,
        viewer=viewer,
        max_size=parse_size(max_size),
        pseudonyms=pseudonyms,
        data_dir=None if data_dir is None else str(data_dir),
    )
    return _show(result)


def default_output(results: Path) -> Path:
    """The folder `report` beside the results folder."""
    return results.parent / "report"


def parse_margins(values: list[str] | None) -> dict[str, float]:
    """Margins from `dice=0.005`, commas or repetition.

    Raises:
        SegbenchError: SB104 for anything else.
    """
    margins: dict[str, float] = {}
    for part in split_list(values):
        name, sign, number = part.partition("=")
        try:
            margins[name.strip()] = float(number)
        except ValueError:
            sign = ""
        if not sign:
            raise SegbenchError(
                "SB104", f"--margin {part!r} is not METRIC=NUMBER", mend="for example --margin dice=0.005"
            )
    return margins


def _show(result: object) -> int:
    """Print findings to stderr and the main table (or report.json) to stdout."""
    from segbench.report.build import ReportResult, main_text

    assert isinstance(result, ReportResult)
    for item in result.guards:
        line = f"[{item.code}] {item.message}"
        console.warn(line) if item.severity == "error" else console.note(f"{item.severity}: {line}")
    if settings().json:
        console.emit_json(result.document)
    else:
        for head, lines in main_text(result):
            console.emit_table(head, lines, right=range(1, len(head)))
    if result.files:
        console.note(
            f"-> {result.files[0].parent if len(result.files) == 1 else common_folder(result.files)}"
        )
    return result.exit_code


def common_folder(paths: tuple[Path, ...]) -> Path:
    """The folder all files of the report are in."""
    import os

    return Path(os.path.commonpath([path.parent for path in paths]))
