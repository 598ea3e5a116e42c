"""Intervals of means and medians for the report: those of `segbench.stats`, many columns at a time.

One set of bootstrap draws serves every column with the same number of cases, so that 4,000 BCa intervals cost
one matrix product instead of 4,000 bootstraps. The bounds are those of `stats.mean_interval` with the same
seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segbench.report.missing import FloatArray

if TYPE_CHECKING:
    from segbench.stats import intervals as stats

CACHE_BYTES = 400_000_000  # draws kept for the next columns of the same length
SIGNIFICANT = 12  # bounds are rounded to this many digits: the last bits depend on the matrix library


@dataclass(frozen=True, slots=True)
class Interval:
    """Ends of an interval, its method and its note; None where there is none."""

    low: float | None = None
    high: float | None = None
    method: str | None = None
    note: str = ""


NO_INTERVAL = Interval()


@dataclass(slots=True)
class IntervalSource:
    """Intervals at one confidence, with one number of resamples and one seed.

    Attributes:
        confidence: nominal level.
        resamples: bootstrap draws.
        seed: of the draws.
    """

    confidence: float
    resamples: int
    seed: int
    _draws: dict[int, list[FloatArray]] = field(default_factory=dict[int, list[FloatArray]])
    _known: dict[bytes, Interval] = field(default_factory=dict[bytes, "Interval"])

    def prepare(self, columns: Sequence[FloatArray], *, worst: float | None = None) -> None:
        """Compute the intervals of many (cases,) columns at once, for `mean` and `means` to find.

        One product of the draws with all columns costs little more than with one; bounds are rounded, so that
        the company of a column does not show in them.
        """
        self._known.clear()
        usable = [values for values in columns if values.size >= 2]
        found = dict(
            zip((_key(values, worst) for values in usable), self.means(usable, worst=worst), strict=True)
        )
        self._known.update(found)

    def means(self, columns: Sequence[FloatArray], *, worst: float | None = None) -> list[Interval]:
        """Intervals of the means of (cases,) columns; none for fewer than two cases or infinite values."""
        from segbench.stats import mean_interval
        from segbench.stats.intervals import BCA_FROM

        found: list[Interval] = [NO_INTERVAL for _ in columns]
        batches: dict[int, list[int]] = {}
        for place, values in enumerate(columns):
            if values.size < 2 or not np.all(np.isfinite(values)):
                continue
            if self._known and (known := self._known.get(_key(values, worst))) is not None:
                found[place] = known
                continue
            if values.size < BCA_FROM or _constant(values):
                found[place] = _plain(mean_interval(values, confidence=self.confidence, worst=worst))
            else:
                batches.setdefault(values.size, []).append(place)
        for length, places in sorted(batches.items()):
            stack = np.stack([columns[place] for place in places], axis=1)
            for place, interval in zip(places, self._bca(stack, length, worst), strict=True):
                found[place] = interval
        return found

    def mean(self, per_seed: FloatArray, per_case: FloatArray, *, worst: float | None = None) -> Interval:
        """Interval of a model's mean: over seeds and cases where there are seeds, else over cases.

        Args:
            per_seed: (seeds, cases), NaN where a seed has no value.
            per_case: (cases,) seed-averaged values without NaN.
            worst: the metric's worst value, for the note on few cases with total failures.
        """
        from segbench.stats import mean_interval

        complete = per_seed[:, np.all(np.isfinite(per_seed), axis=0)]
        if complete.shape[0] >= 2 and complete.shape[1] >= 2:
            return _plain(mean_interval(complete, confidence=self.confidence, worst=worst))
        return self.means([per_case], worst=worst)[0]

    def median(self, per_case: FloatArray) -> Interval:
        """Exact order-statistic interval of the median over cases."""
        from segbench.stats import median_interval

        if per_case.size < 1 or not np.all(np.isfinite(per_case)):
            return NO_INTERVAL
        return _plain(median_interval(per_case, confidence=self.confidence))

    def _bca(self, stack: FloatArray, length: int, worst: float | None) -> list[Interval]:
        """BCa intervals of the columns of (cases, columns) from shared draws."""
        from segbench.stats.intervals import FEW_CASES, TOO_SHORT, bca_levels

        means = np.concatenate([counts @ stack for counts in self._counts(length)]) / length
        tails = np.array([(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        found: list[Interval] = []
        for place in range(stack.shape[1]):
            values, draws = stack[:, place], means[:, place]
            low, high = np.quantile(draws, bca_levels(values, draws, tails)).tolist()
            touches = worst is not None and bool((np.abs(values - worst) <= 1e-12).any())
            note = TOO_SHORT if length < FEW_CASES and touches else ""
            found.append(Interval(_rounded(low), _rounded(high), "bca", note))
        return found

    def _counts(self, length: int) -> Iterable[FloatArray]:
        """Count matrices of all draws for this number of cases, kept for the next columns where they fit."""
        from segbench.stats.resampling import count_blocks

        if length not in self._draws:
            blocks = count_blocks(length, resamples=self.resamples, seed=self.seed)
            size = 8 * self.resamples
            if size * length > CACHE_BYTES:
                return blocks  # consumed once, never held whole
            while self._draws and size * (length + sum(self._draws)) > CACHE_BYTES:
                del self._draws[next(iter(self._draws))]
            self._draws[length] = list(blocks)
        return self._draws[length]


def _key(values: FloatArray, worst: float | None) -> bytes:
    return repr(worst).encode() + values.tobytes()


def _constant(values: FloatArray) -> bool:
    from segbench.stats.arrays import noise_floor

    return float(np.ptp(values)) <= noise_floor(values)


def _plain(found: stats.Interval) -> Interval:
    return Interval(_rounded(found.low), _rounded(found.high), found.method, found.note)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{SIGNIFICANT}g}")
