"""What only the appendix says: every pair, other ways to rank, scores by the size of the reference.

Nothing here is a verdict. Those come from `columns.decide` alone, whose family is the one that was declared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import nan_mean
from segbench.report.analysis.columns import Column, without_verdict

if TYPE_CHECKING:
    from segbench.stats import Comparison

SIZES = ("small", "middle", "large")


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


def by_size(analysis: Analysis, column: Column) -> Iterator[tuple[str, str, float, float, int, float]]:
    """Label, size, smallest and largest reference volume (ml), cases and mean score.

    Sizes are thirds of the cases with a known reference volume, of the regions that the column averages
    together; nothing where fewer than six cases have one.
    """
    block = analysis.blocks[column.block]
    wanted = block.mean_regions if column.region == MEAN_REGION else (column.region,)
    places = [list(block.regions).index(name) for name in wanted]
    volumes = block.reference_ml[:, places].sum(axis=1)
    known = np.flatnonzero(np.isfinite(volumes))
    if known.size < 2 * len(SIZES):
        return
    thirds = np.array_split(known[np.argsort(volumes[known], kind="stable")], len(SIZES))
    for scores in block.scores:
        if scores.label in column.means and column.means[scores.label].value is not None:
            values = nan_mean(block.per_case(scores, column.region, column.metric.name), axis=0)
            for size, cases in zip(SIZES, thirds, strict=True):
                mine = values[cases][~np.isnan(values[cases])]
                mean = float(mine.mean()) if mine.size else float("nan")
                ends = float(volumes[cases].min()), float(volumes[cases].max())
                yield scores.label, size, *ends, int(mine.size), mean
