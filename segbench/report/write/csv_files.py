"""The numbers as CSV files: stored units, 17 significant digits, no formula for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.core.text import one_line
from segbench.records.store import cell_text
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column, without_verdict
from segbench.report.analysis.slices import slice_rows, slices

if TYPE_CHECKING:
    from segbench.stats import Comparison

PLACE = ("dataset", "block", "metric", "region", "role")
SCORES = (
    "dataset", "block", "model", "region", "metric", "mean", "low", "high", "sd_seeds", "sd_units", "n",
    "unit", "cases", "seeds", "failed", "expected", "note",
)  # fmt: skip
SEEDS = ("dataset", "block", "model", "region", "metric", "seed", "mean")
COMPARISONS = (
    *PLACE, "model", "other", "reference", "difference", "low", "high", "confidence", "p", "p_adjusted",
    "family", "verdict", "claim", "n", "unit", "seeds_model", "seeds_other", "detectable_difference",
    "p_equivalence", "p_equivalence_adjusted", "wilcoxon_p", "shift", "wins", "degenerate", "note",
)  # fmt: skip
RANKS = (
    "dataset", "block", "metric", "region", "model", "rank", "rank_low", "rank_high", "probability_best",
    "rank_by_median", "mean_rank", "resamples", "seed",
)  # fmt: skip
SUBGROUPS = (
    "dataset", "block", "metric", "region", "model", "slice", "group", "least", "most", "n", "mean", "p",
    "p_adjusted",
)  # fmt: skip


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """Scores, comparisons and seeds as `tables/*.csv`; with the appendix also what decides nothing: single
    regions, all pairs, ranks, and scores by the size of the reference.

    Differences, `shift` and intervals are the model less the other, in stored units (a Dice of 0.9, not 90).
    """
    columns = [analysis.columns[key] for key in sorted(analysis.columns)]
    deciding = [column for column in columns if column.decided]
    found = {
        "scores": _csv(SCORES, _scores(analysis, columns)),
        "comparisons": _csv(COMPARISONS, _comparisons(analysis, deciding)),
        "seeds": _csv(SEEDS, _seeds(analysis, columns)),
    }
    if analysis.options.appendix:
        regions = [column for column in columns if not column.decided]
        every = [replace(column, comparisons=tuple(all_pairs(column))) for column in deciding]
        for name, shown in (("regions", regions), ("pairs", every)):
            found[name] = _csv(COMPARISONS, _comparisons(analysis, shown, decided=False))
        found["ranks"] = _csv(RANKS, _rank_rows(analysis, deciding))
    if analysis.options.appendix or analysis.slices:
        found["subgroups"] = _csv(SUBGROUPS, _subgroups(analysis, deciding))
    return {f"tables/{name}.csv": text for name, text in found.items()}


def _csv(head: Sequence[str], rows: Iterator[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        cells = [one_line(cell) if isinstance(cell, str) else cell for cell in row]
        writer.writerow([cell_text(cell) for cell in cells])
    return stream.getvalue()


def _block(analysis: Analysis, column: Column) -> tuple[str, str]:
    block = analysis.blocks[column.block]
    return block.dataset, block.name


def _scores(analysis: Analysis, columns: Sequence[Column]) -> Iterator[Sequence[Any]]:
    for column in columns:
        for label in analysis.ordered(list(column.means)):
            mean = column.means[label]
            yield (
                *_block(analysis, column), label, column.region, column.metric.name, mean.value, mean.low,
                mean.high, mean.sd_seeds, mean.sd_units, mean.n, column.unit, mean.cases, len(mean.per_seed),
                mean.failed, mean.expected, mean.note,
            )  # fmt: skip


def _seeds(analysis: Analysis, columns: Sequence[Column]) -> Iterator[Sequence[Any]]:
    for column in columns:
        for label in analysis.ordered(list(column.means)):
            for seed, value in column.means[label].per_seed:
                yield *_block(analysis, column), label, column.region, column.metric.name, seed, value


def _comparisons(
    analysis: Analysis, columns: Sequence[Column], *, decided: bool = True
) -> Iterator[Sequence[Any]]:
    for column in columns:
        for pair in column.comparisons:
            yield (
                *_block(analysis, column), column.metric.name, column.region, column.role,
                *_pair(column, pair, decided=decided),
            )  # fmt: skip


def _pair(column: Column, pair: Comparison, *, decided: bool) -> Sequence[Any]:
    """The fields of one comparison; where nothing is decided there is no adjusted p and no verdict."""
    return (
        pair.a, pair.b, column.reference, pair.difference, pair.low, pair.high, pair.confidence, pair.p,
        pair.p_adjusted if decided else None, len(column.comparisons) if decided else None,
        pair.verdict if decided else None, pair.claim, pair.n, column.unit, pair.seeds_a, pair.seeds_b,
        pair.detectable_difference, pair.p_equivalence, pair.p_equivalence_adjusted, pair.wilcoxon_p,
        pair.shift, pair.wins, pair.degenerate, pair.note,
    )  # fmt: skip


def _rank_rows(analysis: Analysis, columns: Sequence[Column]) -> Iterator[Sequence[Any]]:
    for column in columns:
        ranks = column.ranks
        if ranks is None:
            continue
        schemes = rank_schemes(column)
        for place, label in enumerate(column.order):
            yield (
                *_block(analysis, column), column.metric.name, column.region, label,
                *(
                    float(values[place]) if values.size else None  # one seed: an order of weights, no more
                    for values in (ranks.ranks, ranks.rank_low, ranks.rank_high, ranks.probability_best)
                ),
                *schemes[place], ranks.resamples, ranks.seed,
            )  # fmt: skip


def _subgroups(analysis: Analysis, columns: Sequence[Column]) -> Iterator[Sequence[Any]]:
    for column in columns:
        block = analysis.blocks[column.block]
        sizes = analysis.options.appendix
        for row in slice_rows(slices(block, column, analysis.slices, analysis.case_names, sizes=sizes)):
            yield *_block(analysis, column), column.metric.name, column.region, *row


# ---- what only the appendix says; nothing here is a verdict


def all_pairs(column: Column) -> list[Comparison]:
    """Every pair of the compared models as an estimate with its interval, the better mean first."""
    return [
        without_verdict(pair, "an estimate; verdicts stand in comparisons.csv") for pair in column.pairs()
    ]


def rank_schemes(column: Column) -> list[tuple[float, float]]:
    """Of each compared model the rank by medians over patients, and the mean over patients of its ranks."""
    sign = -1.0 if column.metric.higher_is_better else 1.0
    # (models, patients)
    scores = np.array([sign * table.mean(axis=0) for table in column.tables.values()]).round(12)
    each = np.array([_ranks(patient) for patient in scores.T]).mean(axis=0)
    medians = _ranks(np.array([np.median(row) for row in scores]))
    return [(float(median), float(mean)) for median, mean in zip(medians, each, strict=True)]


def _ranks(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[int]:
    """Ranks of values of which the smallest is best; ties share the smaller rank."""
    return [1 + int(np.sum(values < value)) for value in values]
