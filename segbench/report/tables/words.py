"""Sentences that captions share: what a cell means, which test, which policy, which recipe."""

from __future__ import annotations

from segbench.report import facts
from segbench.report.analysis import Analysis
from segbench.report.block import Block
from segbench.report.display import MetricDisplay

CELL_WORDS = {
    "mean-sd": "mean \N{PLUS-MINUS SIGN} SD over cases",
    "mean-ci": "mean [{level} % interval] over cases",
    "median-iqr": "median (interquartile range) over cases",
}
MISSING_WORDS = {
    "worst": "Missing or unreadable predictions are scored worst.",
    "drop-case": "Cases without a usable prediction are left out for all models.",
    "error": "No prediction is missing.",
}
TEST_WORDS = (
    "two-sided Wilcoxon signed rank on seed-averaged cases (zeros dropped, normal approximation with "
    "continuity "
    "correction)"
)
LEVEL_WORDS = "two-level test over seeds and cases where both have two or more seeds"


def cell_words(analysis: Analysis) -> str:
    """Meaning of a cell of the main table."""
    level = f"{100 * analysis.options.confidence:g}"
    return CELL_WORDS[analysis.options.cell].format(level=level)


def n_words(blocks: list[Block]) -> str:
    """Numbers of cases by block."""
    return ", ".join(f"{block.name} n = {len(block.cases) - len(block.dropped_cases)}" for block in blocks)


def pair_count(pairs: int) -> str:
    """Size of a family in words."""
    return f"{pairs} pairs" if pairs != 1 else "1 pair"


def dagger_words(analysis: Analysis, pairs: int) -> str:
    """What the dagger says and in which family it was tested."""
    families = pair_count(pairs)
    return (
        f"Best bold, second underlined; \N{DAGGER} not different from the best after Holm over {families} "
        "per dataset, "
        f"region and metric at alpha {analysis.options.alpha:g} ({TEST_WORDS}; {LEVEL_WORDS}); no correction "
        "across "
        "metrics and regions."
    )


def policy_words(analysis: Analysis, blocks: list[Block]) -> str:
    """Missing policy, metric profile, protocol and recipe of the blocks of one table."""
    runs = [run for block in blocks for run in block.runs]
    profiles = sorted({_profile(facts.metric_profile(run).get("name")) for run in runs})
    policies = sorted({_profile(facts.empty_policy(run)) for run in runs})
    protocols = sorted({block.protocol for block in blocks})
    recipes = sorted({_recipe(block) for block in blocks})
    return (
        f"{MISSING_WORDS[analysis.options.missing]} Metric profile {', '.join(profiles)}, empty policy "
        f"{', '.join(policies)}; protocol {', '.join(protocols)}; recipe {', '.join(recipes)}."
    )


def _profile(name: object) -> str:
    return str(name) if name else "unknown"


def _recipe(block: Block) -> str:
    """Optimiser, patch and budget of a block in a few words, or unknown."""
    texts: set[str] = set()
    for scores in block.ranked:
        for run in scores.runs:
            fields = facts.recipe_fields(run)
            parts: list[str] = []
            if "optimiser.name" in fields:
                parts.append(str(fields["optimiser.name"]))
            if isinstance(fields.get("patch.size"), list | tuple):
                parts.append("patch " + "x".join(str(size) for size in fields["patch.size"]))
            if "budget.samples" in fields:
                parts.append(f"{fields['budget.samples']} samples")
            texts.add(" ".join(parts) or "unknown")
    return " / ".join(sorted(texts)) or "none"


def metric_words(metric: MetricDisplay) -> str:
    """A metric with its unit and what it is measured in."""
    return metric.head


def guard_notes(
    analysis: Analysis, blocks: list[Block], metric: MetricDisplay, *, codes: frozenset[str] | None = None
) -> tuple[str, ...]:
    """Findings that touch the blocks and the metric of a table, as note lines with their codes."""
    datasets = {block.dataset for block in blocks} | {""}
    return tuple(
        f"[{item.code}] {item.message}"
        for item in analysis.guards
        if item.dataset in datasets
        and item.metric in {"", metric.name}
        and (codes is None or item.code in codes)
    )
