"""The table that `segbench evaluate` prints: per region what was expected, and each headline metric's
spread.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from segbench.core import console

if TYPE_CHECKING:
    from segbench.metrics.summary import Summary
    from segbench.scoring.evaluate import Evaluation

MOST_BLOCKS = 10
"""Regions up to which each has a block of its own; more are one line each."""


def evaluation_lines(evaluation: Evaluation, readers: Sequence[Evaluation] = ()) -> Iterator[str]:
    """The lines of the result, and of what other readers reach."""
    rules = evaluation.rules
    summaries = {(summary.region, summary.metric): summary for summary in evaluation.summaries}
    regions = list(rules.regions)
    if len(regions) <= MOST_BLOCKS:
        for region in regions:
            yield from _block(evaluation, region, [summaries[region, name] for name in rules.headline])
            yield ""
    else:
        yield _counts(summaries[regions[0], rules.headline[0]], "every region")
        heads = [_head(evaluation, name, None) for name in rules.headline]
        rows = [
            [region, *(_number(summaries[region, name].mean) for name in rules.headline)]
            for region in regions
        ]
        yield from console.table_lines(["mean of", *heads], rows, right=range(1, len(heads) + 1))
    if len(regions) > 1 and "mean" not in regions:
        means = [
            f"{_head(evaluation, name, None)} {_number(summaries['mean', name].mean)}"
            for name in rules.headline
        ]
        yield f"mean of {len(regions)} regions: {', '.join(means)}"
    for reader in readers:
        row = {item.metric: item for item in reader.summaries if item.region in ("mean", regions[-1])}
        means = [f"{_head(reader, name, None)} {_number(row[name].mean)}" for name in rules.headline]
        yield f"ceiling, another reader against the first: {', '.join(means)} ({len(reader.cases)} cases)"
    profile = rules.profile
    notes = "; ".join([*profile.notes, f"empty policy {profile.empty_policy}"])
    yield from textwrap.wrap(f"profile {profile.name}: {notes}", console.line_width(), subsequent_indent="  ")
    yield f"-> {evaluation.folder}/{'         exit 3' if evaluation.failures else ''}"


def _block(evaluation: Evaluation, region: str, summaries: Sequence[Summary]) -> list[str]:
    rows = [row for row in evaluation.rows if row["region"] == region]
    table = [_line(evaluation, region, summary, rows) for summary in summaries]
    header = ["", "mean", "95 % interval", "median", "worst case", "worst", ""]
    return [_counts(summaries[0], region), *console.table_lines(header, table)]


def _counts(summary: Summary, title: str) -> str:
    text = f"{title}: {summary.n_expected} expected, {summary.n_scored} scored"
    if summary.n_failed:
        text += f", {summary.n_failed} failed (scored worst)"
    empties = [
        (summary.n_both_empty, "in neither map"),
        (summary.n_reference_empty, "only predicted"),
        (summary.n_prediction_empty, "missed"),
    ]
    told = [f"{count} {what}" for count, what in empties if count]
    return text + (f"; {', '.join(told)}" if told else "")


def _line(evaluation: Evaluation, region: str, summary: Summary, rows: Sequence[dict[str, Any]]) -> list[str]:
    from segbench.metrics.summary import number

    values = [number(row.get(summary.metric)) for row in rows]
    mean = _number(summary.mean)
    if summary.n_undefined:
        mean += f" ({summary.n_undefined} not defined)"
    worst, why = "", ""
    if summary.worst_case is not None:
        row = next(row for row in rows if row["case"] == summary.worst_case)
        worst = _number(number(row.get(summary.metric)))
        if row["code"]:
            why = f"{row['status']} ({row['code']})"
        elif summary.metric in str(row["penalised"]).split(";"):
            why = f"{row['status']}, by policy"
    return [
        _head(evaluation, summary.metric, region),
        mean,
        _interval(values, summary.metric),
        _number(summary.median),
        summary.worst_case or "",
        worst,
        why,
    ]


def _head(evaluation: Evaluation, metric: str, region: str | None) -> str:
    from segbench.metrics.registry import METRICS

    info, rules = METRICS[metric], evaluation.rules
    if metric == "nsd":
        tolerances = {rules.tolerances_mm[region]} if region else set(rules.tolerances_mm.values())
        unit = "mm" if rules.profile.spacing == "header" else "voxels"
        return f"NSD {tolerances.pop():g} {unit}" if len(tolerances) == 1 else "NSD"
    if info.unit == "mm":
        return f"{info.title} {'mm' if rules.profile.spacing == 'header' else 'voxels'}"
    return info.title


def _interval(values: Sequence[float], metric: str) -> str:
    """Return the 95 % interval of the mean inside the metric's range, or why there is none.

    Student's interval of few cases may reach beyond what a mean can be; cutting it there loses no coverage.
    """
    from segbench.metrics.registry import value_range
    from segbench.stats import StatsError, mean_interval

    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return "-"
    try:
        interval = mean_interval(values)
    except StatsError:
        return "-"
    least, most = value_range(metric)
    low, high = max(interval.low, least), min(interval.high, most)
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    """Return a number with three digits after the point below 10, else three or more significant ones."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
