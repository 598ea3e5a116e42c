"""How the numbers came about: facts that the paragraph "Statistics" of paper and page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from segbench.report.analysis.analysis import Analysis, margin_of
from segbench.report.analysis.columns import Column
from segbench.report.analysis.numbers import format_number
from segbench.report.read import facts


def method_facts(analysis: Analysis) -> dict[str, Any]:
    """What the paragraph on statistics says, in paper and page alike: facts of the deciding columns."""
    options = analysis.options
    columns = [column for column in analysis.main_columns() if column.means] if analysis.metrics else []
    tested = [column for column in columns if column.comparisons]
    pairs = [pair for column in tested for pair in column.comparisons]
    references = sorted({column.reference for column in tested if column.reference})
    whole = any(column.reference is None for column in tested)
    seeds = [len(scores.seeds) for column in columns for scores in analysis.blocks[column.block].models]
    return {
        "version": version("segbench"),
        "blocks": [_block_facts(analysis, column) for column in columns],
        "unit": " and ".join(dict.fromkeys(column.unit for column in columns)) or "cases",
        "several_seeds": any(count > 1 for count in seeds),
        "failures": options.missing,
        "percent": f"{options.confidence * 100:g}",
        "alpha": f"{options.alpha:g}",
        "primary": analysis.metrics[0].label if analysis.metrics else "",
        "claims": {pair.claim for pair in pairs},
        "family": _span([len(column.comparisons) for column in tested]) if tested else "",
        "references": " or ".join(analysis.names[label].short for label in references),
        "all_pairs": whole,
        "margins": _margins(analysis, tested),
        "resamples": options.resamples if any(map(_ranked, tested)) else 0,
    }


def _ranked(column: Column) -> bool:
    """Whether ranks were drawn: with one seed of a model there is only an order."""
    return column.ranks is not None and bool(len(column.ranks.rank_low))


def _block_facts(analysis: Analysis, column: Column) -> dict[str, Any]:
    """Dataset, what it was counted in and how often each model was trained."""
    block = analysis.blocks[column.block]
    seeds = _span([len(scores.seeds) for scores in block.models] or [1])
    return {
        "name": block.name,
        "n": len(block.units),
        "unit": block.unit,
        "cases": len(block.cases) - len(block.dropped_cases) if block.grouped else 0,
        "seeds": f"{seeds} training run{'s' if seeds != '1' else ''}",
    }


def _span(counts: Sequence[int]) -> str:
    """`3`, or `2 to 3` where counts differ."""
    return " to ".join(str(count) for count in dict.fromkeys((min(counts), max(counts))))


def _margins(analysis: Analysis, columns: Sequence[Column]) -> str:
    """The declared equivalence margins of the tested columns, with their units."""
    found: dict[str, None] = {}
    for column in columns:
        margin = margin_of(analysis.blocks[column.block], column.metric, analysis.options)
        if margin is not None:
            value = format_number(margin, scale=column.metric.scale, digits=analysis.options.digits)
            found[f"{column.metric.label} {value} {column.metric.difference_unit}".strip()] = None
    return ", ".join(found)


def protocol_notes(analysis: Analysis) -> list[str]:
    """Notes of the protocols and metric profiles of the runs used, verbatim, each once."""
    found: dict[str, None] = {}
    for block in analysis.blocks:
        for run in block.runs:
            notes = facts.metric_profile(run.record).get("notes") or ()
            for note in (*facts.protocol_notes(run.record), *(str(note) for note in notes)):
                found.setdefault(note, None)
    return list(found)
