"""`segbench compare`: models side by side on the terminal or as JSON, with gates for a pipeline."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli.common import settings, split_list
from segbench.cli.options import option
from segbench.cli.report import (
    AllowEdited,
    Alpha,
    Margin,
    Metrics,
    Missing,
    Primary,
    Regions,
    Select,
    metric_numbers,
    parse_number,
    print_findings,
)
from segbench.core import console
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from segbench.report.analysis.compare import CompareResult

MOST_PAIRS = 2  # pairs whose cases are listed unasked
MOST_OF_A_NAME = 24  # characters of a model's name above a column of its scores
STATISTICS, GATES = "Statistics", "Gates"
Sides = Annotated[
    list[str],
    typer.Argument(metavar="A B [C...]", help="Run folders, folders of one model, or labels in --results."),
]
Published = Annotated[bool, option("--published", "Published numbers beside ours, with a grade.")]
_REFERENCE = "Compare every side with this one; none: all pairs. [default: A]"
Reference = Annotated[str | None, option("--reference", _REFERENCE, STATISTICS, "SIDE")]
_UNDER = "Exit 6 when the mean of A is worse than X."
FailUnder = Annotated[list[str] | None, option("--fail-under", _UNDER, GATES, "METRIC=X")]
_WORSE = "Exit 6 unless a loss of A beyond MARGIN is excluded."
NoWorse = Annotated[list[str] | None, option("--no-worse-than", _WORSE, GATES, "[METRIC=]MARGIN")]


def compare(
    sides: Sides,
    metrics: Metrics = None,
    primary: Primary = None,
    regions: Regions = None,
    published: Published = False,
    reference: Reference = None,
    alpha: Alpha = 0.05,
    margin: Margin = None,
    missing: Missing = "worst",
    select: Select = None,
    allow_edited: AllowEdited = False,
    fail_under: FailUnder = None,
    no_worse_than: NoWorse = None,
) -> int:
    """Compare models on the same cases: difference, interval, verdict; who lacks which case.

    Exit 0; 3 with findings of severity error, such as runs that are not comparable; 6 when a gate fails.

    Example: segbench compare segmamba-v2 nnunet --metrics dice --no-worse-than 0.01
    """
    from segbench.report.analysis.compare import compare as compare_sides
    from segbench.report.write.terminal import compare_lines

    result = compare_sides(
        *sides,
        runs=settings().results,
        reference=reference,
        metrics=split_list(metrics),
        primary=primary,
        regions=split_list(regions),
        alpha=alpha,
        margin=metric_numbers(margin, "--margin"),
        missing=missing,
        select=split_list(select),
        allow_edited=allow_edited,
        published=published,
        fail_under=metric_numbers(fail_under, "--fail-under", "dice=0.80"),
        no_worse_than=_margins(no_worse_than),
        progress=console.detail,
    )
    if settings().json:
        console.emit_json(result.as_json())
    else:
        for line in [*compare_lines(result, wide=settings().verbose), *_change_lines(result)]:
            console.emit(line)
    print_findings(result.findings)
    for gate in result.gates:
        if not gate.passed:
            console.warn(f"gate failed: {gate.name}: {gate.message}")
        elif not settings().json:
            console.emit(f"passed {gate.name}: {gate.message}")
    return result.exit_code


def _change_lines(result: CompareResult) -> list[str]:
    """The cases that each pair gains and loses most on, primary metric; of many pairs with --verbose."""
    from segbench.report.write.terminal import shortened

    primary = [item for item in result.pairs if item.column.role == "primary"]
    if len(primary) > MOST_PAIRS and not settings().verbose:
        return ["", "the cases that each pair gains or loses most on: --verbose or --json"]
    lines: list[str] = []
    for item in primary:
        column, short = item.column, item.column.block.short
        rows = [
            [change.case, word, *map(column.number, (change.a, change.b, change.a - change.b))]
            for word, changes in (("gain", item.gains), ("loss", item.drops))
            for change in changes
        ]
        models = f"{short(item.pair.a)} gains or loses most on {short(item.pair.b)}"
        if rows:
            title = f"{column.metric.head}, {column.region_words}: cases where {models}"
            lines += ["", *textwrap.wrap(title, console.line_width())]
            sides = shortened([short(item.pair.a), short(item.pair.b)], MOST_OF_A_NAME)
            lines += console.table_lines(["case", "", *sides, "difference"], rows, right=(2, 3, 4))
    return lines


def _margins(texts: list[str] | None) -> dict[str, float] | float | None:
    """`--no-worse-than`: one bare margin for the first metric, or margins by metric."""
    parts = split_list(texts)
    if not parts:
        return None
    bare = parse_number(parts[0]) if len(parts) == 1 else None
    margins = (
        {"": bare} if bare is not None else metric_numbers(parts, "--no-worse-than", "0.01 or dice=0.01")
    )
    for value in margins.values():
        if value < 0:
            raise SegbenchError("SB104", f"--no-worse-than {value:g}: a margin is 0 or more")
    return bare if bare is not None else margins
