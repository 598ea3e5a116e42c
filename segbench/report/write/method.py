"""How the numbers came about, told once: the sentences of the page's section "Statistics"."""

from __future__ import annotations

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.numbers import format_number
from segbench.report.read import facts

MISSING_WORDS = {
    "worst": "A case without a usable prediction has the worst value of each metric.",
    "drop-case": "A case without a usable prediction of any model is left out for all models.",
    "error": "Every expected case has a usable prediction.",
}


def method_sentences(analysis: Analysis) -> list[str]:
    """What was compared, how and at which level; only what took place in this report."""
    columns = analysis.main_columns() if analysis.metrics else []
    units = " and ".join(dict.fromkeys(block.unit for block in analysis.blocks))
    percent = f"{analysis.options.confidence * 100:g} %"
    found = [_basis(analysis), MISSING_WORDS[analysis.options.missing]]
    found.append(
        f"Intervals are {percent} intervals of the mean over {units}, and over training runs where there are "
        "two or more; they are not adjusted for multiple comparisons."
    )
    pairs = [pair for column in columns for pair in column.comparisons]
    if not pairs:
        return found
    found.append(
        f"The primary endpoint is {columns[0].metric.label}, averaged over regions where there are several. "
        "Other metrics are families of tests of their own; single regions have estimates and no verdict."
    )
    claims = {pair.claim for pair in pairs}
    if "method" in claims:
        found.append(
            "Where both models of a comparison have two or more training runs, training runs and "
            f"{units} are random in a two-level test (Satterthwaite's degrees of freedom). It is made with "
            "each model's own variance between runs and with these variances moderated towards those of all "
            "models; the larger p counts."
        )
    if "weights" in claims:
        found.append(
            f"Where a model has a single training run, the paired t-test over {units} is used; its claims "
            "hold for these trained weights, not for the method."
        )
    return [*found, _correction(analysis, columns), *_margins(columns), *_ranks(columns)]


def _basis(analysis: Analysis) -> str:
    parts: list[str] = []
    for block in analysis.blocks:
        cases = f" ({len(block.cases)} cases, averaged within a patient first)" if block.grouped else ""
        counts = sorted({len(scores.seeds) for scores in block.models}) or [0]
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        plural = "s" if seeds != "1" else ""
        parts.append(
            f"{len(block.units)} {block.unit}{cases} of {block.name}, {seeds} seed{plural} per model"
        )
    return f"Results rest on {'; '.join(parts)}."


def _correction(analysis: Analysis, columns: list[Column]) -> str:
    sizes = sorted({len(column.comparisons) for column in columns if column.comparisons})
    family = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    reference = any(column.reference for column in columns)
    by = "Holm's method with the reference" if reference else "Shaffer's steps for all pairs"
    plural = "s" if sizes[-1] > 1 else ""
    return (
        f"p-values are adjusted for the {family} comparison{plural} of a dataset by {by}; a difference is "
        f"called significant below {analysis.options.alpha:g}."
    )


def _margins(columns: list[Column]) -> list[str]:
    if not any(pair.verdict == "equivalent" for column in columns for pair in column.comparisons):
        return []
    return [
        "Models are called equivalent where two one-sided tests, adjusted by Holm's method, exclude a "
        "difference beyond the declared margin."
    ]


def _ranks(columns: list[Column]) -> list[str]:
    draws = {
        column.ranks.resamples
        for column in columns
        if column.ranks is not None and len(column.ranks.rank_low)
    }
    if not draws:
        return []
    count = format_number(float(draws.pop()), digits=0)
    return [f"Ranks draw training runs and {columns[0].unit} together ({count} draws)."]


def protocol_notes(analysis: Analysis) -> list[str]:
    """Notes of the protocols and metric profiles of the runs used, verbatim, each once."""
    found: dict[str, None] = {}
    for block in analysis.blocks:
        for run in block.runs:
            notes = facts.metric_profile(run.record).get("notes") or ()
            for note in (*facts.protocol_notes(run.record), *(str(note) for note in notes)):
                found.setdefault(note, None)
    return list(found)
