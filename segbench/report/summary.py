"""One row of numbers per (block, region, metric, model): counts, means, quartiles, intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segbench.metrics.summary import mean as mean_of
from segbench.report.block import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.intervals import Interval, IntervalSource
from segbench.report.missing import BOTH_EMPTY, MISSING, NOT_RUN, FloatArray, failed
from segbench.report.rows import MEAN_REGION


@dataclass(frozen=True, slots=True)
class Summary:
    """What one cell of the main table stands for; every number in stored units, None where undefined.

    Attributes:
        block: where it belongs.
        region: region or `mean`.
        metric: column name.
        scores: the model's arrays.
        n: cases in the aggregate, seeds averaged first.
        n_expected: cases the model was to score.
        n_scored: of these, with a usable prediction in every seed.
        n_failed: n_expected - n_scored.
        n_missing: failed cases whose prediction is missing.
        n_both_empty: cases where reference and prediction are both empty.
        n_undefined: cases whose value is not defined.
        n_seeds: training runs behind each value.
        mean: for the region `mean` the mean of the region means.
        std: SD over cases, ddof 1.
        note: why a number is absent or stands apart, else empty.
    """

    block: Block
    region: str
    metric: str
    scores: ModelScores
    n: int
    n_expected: int
    n_scored: int
    n_failed: int
    n_missing: int
    n_both_empty: int
    n_undefined: int
    n_seeds: int
    mean: float | None
    std: float | None
    sem: float | None
    median: float | None
    q1: float | None
    q3: float | None
    minimum: float | None
    maximum: float | None
    iqm: float | None
    mean_interval: Interval
    median_interval: Interval
    note: str = ""

    @property
    def model(self) -> str:
        """Slug of the model."""
        return self.scores.model


def summarise(
    block: Block, region: str, metric: MetricDisplay, scores: ModelScores, source: IntervalSource
) -> Summary:
    """The summary of one model in one column."""
    name = metric.name
    values = block.per_case(scores, region, name)
    known = values[~np.isnan(values)]
    counts = _counts(block, region, scores)
    lacking = lacks_penalty(block, region, name, scores)
    dropped = len(block.dropped_cases)
    undefined = int(np.isnan(values[scores.covered]).sum()) - dropped
    note = "penalty unknown" if lacking else ""
    if lacking:
        undefined -= _unknown_cases(block, region, name, scores)
    mean = None if lacking else _mean(block, region, name, scores, known)
    usable = known if not lacking else known[:0]
    finite = usable.size > 0 and bool(np.all(np.isfinite(usable)))
    std = _std(usable) if finite else None
    quartiles = quantiles(usable, (0.25, 0.5, 0.75))
    if region == MEAN_REGION and mean is not None and known.size:
        pooled = mean_of(known.tolist())
        if math.isfinite(pooled) and abs(pooled - mean) > 1e-9:
            note = f"mean of cases {pooled:.6g}"
    seeds = block.per_seed(scores, region, name)
    return Summary(
        block=block,
        region=region,
        metric=name,
        scores=scores,
        n=int(known.size),
        **counts,
        n_undefined=max(undefined, 0),
        n_seeds=len(scores.seeds),
        mean=mean,
        std=std,
        sem=None if std is None else std / math.sqrt(usable.size),
        median=quartiles[1],
        q1=quartiles[0],
        q3=quartiles[2],
        minimum=float(usable.min()) if usable.size else None,
        maximum=float(usable.max()) if usable.size else None,
        iqm=interquartile_mean(usable) if finite else None,
        mean_interval=source.mean(seeds, usable, worst=metric.worst) if finite else Interval(),
        median_interval=source.median(usable) if finite else Interval(),
        note=note,
    )


def _counts(block: Block, region: str, scores: ModelScores) -> dict[str, int]:
    """Counts of cases; a case counts as failed when any seed, or for `mean` any region, failed."""
    place = slice(None) if region == MEAN_REGION else [block.regions.index(region)]
    status = scores.status[:, :, place]
    expected = int(np.any(status != NOT_RUN, axis=(0, 2)).sum())
    broken = int(np.any(failed(status), axis=(0, 2)).sum())
    missing = int(np.any(status == MISSING, axis=(0, 2)).sum())
    empty = int(np.any(status == BOTH_EMPTY, axis=(0, 2)).sum())
    return {
        "n_expected": expected,
        "n_scored": expected - broken,
        "n_failed": broken,
        "n_missing": missing,
        "n_both_empty": empty,
    }


def lacks_penalty(block: Block, region: str, metric: str, scores: ModelScores) -> bool:
    """Whether a penalty of this column is due and not known; then no mean exists."""
    column = block.metrics.index(metric)
    if region == MEAN_REGION:
        return any(scores.lacks_penalty(place, column) for place in range(len(block.regions)))
    return scores.lacks_penalty(block.regions.index(region), column)


def _unknown_cases(block: Block, region: str, metric: str, scores: ModelScores) -> int:
    column = block.metrics.index(metric)
    unknown = scores.unknown[:, :, :, column]
    if region != MEAN_REGION:
        unknown = unknown[:, :, [block.regions.index(region)]]
    return int(np.any(unknown, axis=(0, 2)).sum())


def _mean(block: Block, region: str, metric: str, scores: ModelScores, known: FloatArray) -> float | None:
    """Mean by exact summation; for `mean`, of the region means."""
    if region != MEAN_REGION:
        return exact_mean(known)
    means: list[float] = []
    for name in block.regions:
        values = block.per_case(scores, name, metric)
        value = exact_mean(values[~np.isnan(values)])
        if value is not None:
            means.append(value)
    return exact_mean(np.array(means))


def exact_mean(values: FloatArray) -> float | None:
    """Mean that does not depend on the order of values; None of nothing; inf stays inf."""
    if values.size == 0:
        return None
    if not np.all(np.isfinite(values)):
        return float(values.sum())
    return mean_of(values.tolist())


def _std(values: FloatArray) -> float | None:
    if values.size < 2:
        return None
    mean = mean_of(values.tolist())
    return math.sqrt(math.fsum(((values - mean) ** 2).tolist()) / (values.size - 1))


def quantiles(values: FloatArray, shares: tuple[float, ...]) -> list[float | None]:
    """Quantiles by linear interpolation; between a finite value and inf stands inf."""
    if values.size == 0:
        return [None] * len(shares)
    ordered = np.sort(values)
    found: list[float | None] = []
    for share in shares:
        place = share * (ordered.size - 1)
        low = math.floor(place)
        weight = place - low
        a, b = float(ordered[low]), float(ordered[min(low + 1, ordered.size - 1)])
        found.append(a if weight == 0 or a == b else a + weight * (b - a))
    return found


def interquartile_mean(values: FloatArray) -> float | None:
    """Mean of what is left when a quarter of the values is cut at either end."""
    if values.size == 0:
        return None
    cut = values.size // 4
    return exact_mean(np.sort(values)[cut : values.size - cut])
