"""`segbench report`: a page, a paper and tables from records; trains nothing, scores nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from segbench.cli.common import parse_size, settings, split_list
from segbench.cli.options import option
from segbench.core import console
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segbench.report import ReportResult
    from segbench.report.analysis.findings import Finding

TABLES, STATISTICS, RECORDS, PAGE = "Tables", "Statistics", "Records", "Page"
Texts = list[str] | None

# Options that `segbench compare` has as well
Metrics = Annotated[
    Texts, option("--metrics", "Metrics, in this order. [default: the profile's headline]", TABLES, "NAMES")
]
Primary = Annotated[
    str | None,
    option("--primary", "The metric that decides. [default: the first]", TABLES, "METRIC"),
]
Regions = Annotated[Texts, option("--regions", "Regions, in this order. [default: all]", TABLES, "NAMES")]
Margin = Annotated[
    Texts,
    option(
        "--margin",
        "Equivalence margin in stored units. [default: the dataset card's]",
        STATISTICS,
        "METRIC=X",
    ),
]
Alpha = Annotated[float, option("--alpha", "Level of the tests.", STATISTICS, "X")]
Missing = Annotated[
    Literal["worst", "drop-case", "error"],
    option("--missing", "What a case without a usable prediction counts.", STATISTICS),
]
_SELECT = "Which run to take where several cover one model, fold and seed."
Select = Annotated[Texts, option("--select", _SELECT, RECORDS, "RUN|newest")]
_EDITED = "Take records that were changed after they were written; the report says so."
AllowEdited = Annotated[bool, option("--allow-edited", _EDITED, RECORDS)]

_RUNS = "Run folder or folder of runs. Repeatable. [default: the results folder]"
Runs = Annotated[list[Path] | None, option("--runs", _RUNS, metavar="DIR")]
_OUTPUT = "Folder of the report. [default: report beside the results folder]"
Output = Annotated[Path | None, option("--output", _OUTPUT, metavar="DIR")]
_FORMATS = "html, markdown, latex, csv, json. [default: all but json]"
Formats = Annotated[Texts, option("--format", _FORMATS, metavar="NAMES")]
_APPENDIX = "Also all pairs, ranks, regions and subgroups as tables."
Appendix = Annotated[bool, option("--appendix", _APPENDIX)]
Cells = Annotated[Literal["mean-ci", "mean-sd", "mean"], option("--cells", "What a cell shows.", TABLES)]
Digits = Annotated[int, option("--digits", "Decimals.", TABLES, "N")]
_REFERENCE = (
    "Compare every model with this one; none: all pairs. [default: segmamba-v2 if there, else all pairs]"
)
Reference = Annotated[str | None, option("--reference", _REFERENCE, STATISTICS, "MODEL")]
Resamples = Annotated[int, option("--resamples", "Bootstrap draws of the ranks.", STATISTICS, "N")]
BootstrapSeed = Annotated[int, option("--seed", "Random seed of the bootstrap.", STATISTICS, "N")]
_UNFINISHED = "Take unfinished runs; absent cases are missing."
Unfinished = Annotated[bool, option("--include-unfinished", _UNFINISHED, RECORDS)]
_SLICES = "Do models compare alike over these columns? A row for each case or patient."
Slices = Annotated[str | None, option("--slices", _SLICES, STATISTICS, "FILE:COLUMNS")]
Published = Annotated[bool, option("--published/--no-published", "Published numbers beside ours.", PAGE)]
Viewer = Annotated[str, option("--viewer", "Worst cases in 3D: none or worst:K.", PAGE, "CASES")]
MaxSize = Annotated[str, option("--max-size", "Largest report.html.", PAGE, "SIZE")]
Pseudonyms = Annotated[bool, option("--pseudonyms", "Print case-001 in place of case ids.", PAGE)]


def report(
    runs: Runs = None,
    output: Output = None,
    formats: Formats = None,
    appendix: Appendix = False,
    metrics: Metrics = None,
    primary: Primary = None,
    regions: Regions = None,
    cells: Cells = "mean-ci",
    digits: Digits = 2,
    reference: Reference = None,
    margin: Margin = None,
    alpha: Alpha = 0.05,
    resamples: Resamples = 10_000,
    seed: BootstrapSeed = 0,
    missing: Missing = "worst",
    slices: Slices = None,
    select: Select = None,
    allow_edited: AllowEdited = False,
    include_unfinished: Unfinished = False,
    published: Published = True,
    viewer: Viewer = "worst:6",
    max_size: MaxSize = "25MB",
    pseudonyms: Pseudonyms = False,
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
        slices=slices,
        select=split_list(select),
        allow_edited=allow_edited,
        include_unfinished=include_unfinished,
        published=published,
        viewer=viewer,
        max_size=parse_size(max_size),
        pseudonyms=pseudonyms,
        data_dir=None if settings().data_dir is None else str(settings().data_dir),
    )
    return _show(result)


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


def _show(result: ReportResult) -> int:
    """Print the answer, the scores, the findings and where the files are; or the document."""
    from segbench.report.write.document import document
    from segbench.report.write.terminal import report_lines

    if settings().json:
        console.emit_json(document(result.analysis))
    else:
        for line in report_lines(result.analysis, wide=settings().verbose):
            console.emit(line)
    print_findings(result.findings)
    if result.files:
        count = len(result.files)
        many = f"{count} file{'s' if count > 1 else ''}; begin with {result.files[0].name}"
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


def common_folder(paths: tuple[Path, ...]) -> Path:
    """The folder all files of the report are in."""
    import os

    return Path(os.path.commonpath([path.parent for path in paths]))
