"""What only the appendix says: every pair, and other ways to rank.

Nothing here is a verdict. Those come from `columns.decide` alone, whose family is the one that was declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segbench.report.analysis.columns import Column, without_verdict

if TYPE_CHECKING:
    from segbench.stats import Comparison


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
