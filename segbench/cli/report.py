"""`segbench report`: a page, a paper and tables from records; trains nothing, scores nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segbench.cli.common import parse_size, settings, split_list
from segbench.core import console
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segbench.report import ReportResult
    from segbench.report.analysis.findings import Finding

TABLES, STATISTICS, RECORDS, PAGE = "Tables", "Statistics", "Records", "Page"
Cells = Literal["mean-ci", "mean-sd", "mean"]

# Options that `segbench compare` has as well
Margin = Annotated[
    list[str] | None,
    typer.Option(
        "--margin",
        metavar="METRIC=X",
        help="Equivalence margin in stored units. [default: the dataset card's]",
        rich_help_panel=STATISTICS,
    ),
]
Alpha = Annotated[
    float, typer.Option("--alpha", metavar="X", help="Level of the tests.", rich_help_panel=STATISTICS)
]
Missing = Annotated[
    Literal["worst", "drop-case", "error"],
    typer.Option(
        "--missing", help="What a case without a usable prediction counts.", rich_help_panel=STATISTICS
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="RUN|newest",
        help="Which run to take where several cover one model, fold and seed.",
        rich_help_panel=RECORDS,
    ),
]


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
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAMES",
            help="html, markdown, latex, csv, json. [default: all but json]",
        ),
    ] = None,
    appendix: Annotated[
        bool,
        typer.Option("--appendix", help="Also all pairs, ranks, regions, subgroups and figures as files."),
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Every region and metric on the terminal, wider than 80 columns.")
    ] = False,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="NAMES",
            help="Metrics, in this order. [default: the profile's headline]",
            rich_help_panel=TABLES,
        ),
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option(
            "--primary",
            metavar="METRIC",
            help="The metric that decides. [default: the first]",
            rich_help_panel=TABLES,
        ),
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--regions",
            metavar="NAMES",
            help="Regions, in this order. [default: all]",
            rich_help_panel=TABLES,
        ),
    ] = None,
    cells: Annotated[
        Cells, typer.Option("--cells", help="What stands in a cell.", rich_help_panel=TABLES)
    ] = "mean-ci",
    digits: Annotated[
        int, typer.Option("--digits", metavar="N", help="Decimals.", rich_help_panel=TABLES)
    ] = 2,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="Compare every model with this one; none: all pairs. [default: segmamba-v2 if there, "
            "else all pairs]",
            rich_help_panel=STATISTICS,
        ),
    ] = None,
    margin: Margin = None,
    alpha: Alpha = 0.05,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", metavar="N", help="Bootstrap draws of the ranks.", rich_help_panel=STATISTICS
        ),
    ] = 10_000,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="Random seed of the bootstrap.", rich_help_panel=STATISTICS),
    ] = 0,
    missing: Missing = "worst",
    select: Select = None,
    allow_edited: Annotated[
        bool,
        typer.Option(
            "--allow-edited",
            help="Take records that were changed after they were written; the report says so.",
            rich_help_panel=RECORDS,
        ),
    ] = False,
    include_unfinished: Annotated[
        bool,
        typer.Option(
            "--include-unfinished",
            help="Take unfinished runs; absent cases are missing.",
            rich_help_panel=RECORDS,
        ),
    ] = False,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--no-published", help="Published numbers beside ours.", rich_help_panel=PAGE
        ),
    ] = True,
    viewer: Annotated[
        str,
        typer.Option(
            "--viewer",
            metavar="CASES",
            help="Worst cases in 3D: none or worst:K.",
            rich_help_panel=PAGE,
        ),
    ] = "worst:6",
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Largest report.html.", rich_help_panel=PAGE)
    ] = "25MB",
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="Print case-001 in place of case ids.", rich_help_panel=PAGE)
    ] = False,
) -> int:
    """One page, one paper and tables from the records of runs; the answer on the terminal.

    Exit 0; 3 with findings of severity error, such as missing cases; 4 without a usable run.

    Example: segbench report --runs results/runs --reference segmamba-v2 --margin dice=0.01
    """
    from segbench.core.environment import results_dir
    from segbench.report import build_report

    result = build_report(
        list(runs or []) or [results_dir(settings().results)],
        output or default_output(results_dir(settings().results)),
        progress=console.step,
        formats=split_list(formats),
        appendix=appendix,
        metrics=split_list(metrics),
        primary=primary,
        regions=split_list(regions),
        cells=cells,
        digits=digits,
        reference=reference,
        margin=metric_numbers(margin, "--margin"),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        missing=missing,
        select=split_list(select),
        allow_edited=allow_edited,
        include_unfinished=include_unfinished,
        published=published,
        viewer=viewer,
        max_size=parse_size(max_size),
        pseudonyms=pseudonyms,
        data_dir=None if settings().data_dir is None else str(settings().data_dir),
    )
    return _show(result, wide=wide)


def default_output(results: Path) -> Path:
    """The folder `report` beside the results folder."""
    return results.parent / "report"


def metric_numbers(texts: list[str] | None, flag: str, example: str = "dice=0.005") -> dict[str, float]:
    """The numbers of `METRIC=X` texts, commas or repetition.

    Raises:
        SegbenchError: SB104 for anything else.
    """
    numbers: dict[str, float] = {}
    for text in split_list(texts):
        name, _, number = text.rpartition("=")
        value = parse_number(number)
        if not name.strip() or value is None:
            message = f"{flag} {text!r} is not METRIC=NUMBER"
            raise SegbenchError("SB104", message, mend=f"for example {flag} {example}")
        numbers[name.strip()] = value
    return numbers


def parse_number(text: str) -> float | None:
    """The number of a text, None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None


def _show(result: ReportResult, *, wide: bool) -> int:
    """Print the answer, the scores, the findings and where the files are; or the document."""
    from segbench.report.write.document import document
    from segbench.report.write.terminal import report_lines

    if settings().json:
        console.emit_json(document(result.analysis))
    else:
        for line in report_lines(result.analysis, wide=wide):
            console.emit(line)
    print_findings(result.findings)
    if result.files:
        count = len(result.files)
        many = f"{count} file{'s' if count > 1 else ''}; begin with {_first(result)}"
        console.note(f"-> {common_folder(result.files)}/  ({many})")
    return result.exit_code


def print_findings(findings: Sequence[Finding]) -> None:
    """Findings below the result; beside a JSON document, which holds them all, the errors on stderr."""
    from segbench.report.write.terminal import finding_lines

    if settings().json:
        for line in finding_lines(item for item in findings if item.severity == "error"):
            console.note(line)
        return
    for line in finding_lines(findings):
        console.emit(line)


def _first(result: ReportResult) -> str:
    """The file to open first."""
    return result.files[0].name


def common_folder(paths: tuple[Path, ...]) -> Path:
    """The folder all files of the report are in."""
    import os

    return Path(os.path.commonpath([path.parent for path in paths]))
