"""Does a difference depend on the size of the structure? Bins by reference volume, fixed before any
prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbench.report.blocks import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.intervals import Interval, IntervalSource
from segbench.report.missing import FloatArray

EMPTY_BIN = "empty"
LEAST_CASES = 6  # fewer cases with a volume than this are not cut into three


@dataclass(frozen=True, slots=True)
class Subgroups:
    """Bins of one region and metric: means per model, differences of each model against one other.

    Attributes:
        labels: bins from small to large, `empty` last.
        counts: cases per bin.
        models: names in block order.
        means: (bins, models); NaN where a bin has no value.
        against: the model that differences are taken against.
        differences: by model: (bins,) mean of model - against.
        intervals: by model: one per bin.
        interaction: by model: p of the one interaction test, None where it cannot be made.
        spearman: by model: rank correlation of the difference with log volume, None where it is not defined.
        interaction_intervals: unused bins carry an empty interval.
    """

    block: Block
    region: str
    metric: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    models: tuple[str, ...]
    means: FloatArray
    against: str
    differences: dict[str, tuple[float | None, ...]]
    intervals: dict[str, tuple[Interval, ...]]
    interaction: dict[str, float | None]
    spearman: dict[str, float | None]


def size_bins(volumes: FloatArray, bounds: Sequence[float] = ()) -> tuple[list[str], FloatArray]:
    """Labels of the bins and the bin of every case (-1: no volume known).

    Args:
        volumes: (cases,) reference volumes in ml; 0 is an empty reference with a bin of its own.
        bounds: fixed bounds in ml from the dataset card; without them the tertiles of the volumes above 0.
    """
    filled = volumes[np.isfinite(volumes) & (volumes > 0)]
    edges = list(bounds)
    if not edges and filled.size >= LEAST_CASES:
        edges = sorted(set(np.quantile(filled, [1 / 3, 2 / 3]).tolist()))
    labels = [_label(low, high) for low, high in zip([None, *edges], [*edges, None], strict=True)]
    place = np.searchsorted(np.array(edges), volumes, side="left").astype(np.int64)
    place[~np.isfinite(volumes)] = -1
    if np.any(volumes == 0):
        labels.append(EMPTY_BIN)
        place[volumes == 0] = len(labels) - 1
    return labels, place


def _label(low: float | None, high: float | None) -> str:
    if low is None:
        return "all" if high is None else f"up to {high:.3g} ml"
    return f"above {low:.3g} ml" if high is None else f"{low:.3g} to {high:.3g} ml"


def subgroup_tables(
    block: Block,
    region: str,
    metric: MetricDisplay,
    source: IntervalSource,
    *,
    against: str,
    bounds: Sequence[float] = (),
) -> Subgroups | None:
    """The bins of one real region, or None where volumes are unknown or there is nothing to compare."""
    volumes = block.reference_ml[:, block.regions.index(region)]
    labels, place = size_bins(volumes, bounds)
    models = block.ranked
    if np.all(place < 0) or len(labels) < 2 or metric.higher_is_better is None or not models:
        return None
    values = {scores.model: _finite(block.per_case(scores, region, metric.name)) for scores in models}
    means = np.array(
        [[_mean(values[scores.model][place == number]) for scores in models] for number in range(len(labels))]
    )
    found = Subgroups(
        block=block,
        region=region,
        metric=metric.name,
        labels=tuple(labels),
        counts=tuple(int((place == number).sum()) for number in range(len(labels))),
        models=tuple(scores.model for scores in models),
        means=means,
        against=against,
        differences={},
        intervals={},
        interaction={},
        spearman={},
    )
    for scores in models:
        if scores.model != against and against in values:
            _compare(found, scores, values[scores.model] - values[against], place, volumes, source)
    return found


def _compare(
    found: Subgroups,
    scores: ModelScores,
    differences: FloatArray,
    place: FloatArray,
    volumes: FloatArray,
    source: IntervalSource,
) -> None:
    """Differences of one model per bin, their intervals, one interaction test, the trend with size."""
    from segbench.stats import subgroup_interaction

    parts = [differences[(place == number) & np.isfinite(differences)] for number in range(len(found.labels))]
    name = scores.model
    found.differences[name] = tuple(float(part.mean()) if part.size else None for part in parts)
    found.intervals[name] = tuple(source.means(parts))
    usable = np.isfinite(differences) & (place >= 0)
    bins = np.array(found.labels, dtype=object)[place[usable].astype(int)]
    if len(set(bins.tolist())) >= 2 and usable.sum() >= 3:
        tested = subgroup_interaction(
            differences[usable], bins.tolist(), resamples=source.resamples, seed=source.seed
        )
        found.interaction[name] = float(tested.pvalue)
    else:
        found.interaction[name] = None
    found.spearman[name] = _spearman(differences[usable], volumes[usable])


def _spearman(differences: FloatArray, volumes: FloatArray) -> float | None:
    """Rank correlation of the difference with the (log) volume; None for too few or constant values."""
    from scipy.stats import spearmanr

    filled = volumes > 0
    x, y = volumes[filled], differences[filled]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
