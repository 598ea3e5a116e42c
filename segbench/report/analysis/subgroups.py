"""Does a difference depend on the size of the structure? Bins by reference volume, fixed before any
prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.report.block import Block
from segbench.report.display import MetricDisplay
from segbench.report.intervals import Interval, IntervalSource
from segbench.report.missing import BoolArray, FloatArray

IntArray = npt.NDArray[np.int64]

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


def size_bins(volumes: FloatArray, bounds: Sequence[float] = ()) -> tuple[list[str], IntArray]:
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
    if against in values:
        differences = {s.model: values[s.model] - values[against] for s in models if s.model != against}
        found.interaction.update(
            interactions(differences, place, resamples=source.resamples, seed=source.seed)
        )
        for model, values_of in differences.items():
            _compare(found, model, values_of, place, volumes, source)
    return found


def _compare(
    found: Subgroups,
    model: str,
    differences: FloatArray,
    place: IntArray,
    volumes: FloatArray,
    source: IntervalSource,
) -> None:
    """Differences of one model per bin, their intervals, and the trend with size."""
    parts = [differences[(place == number) & np.isfinite(differences)] for number in range(len(found.labels))]
    found.differences[model] = tuple(float(part.mean()) if part.size else None for part in parts)
    found.intervals[model] = tuple(source.means(parts))
    usable = np.isfinite(differences) & (place >= 0)
    found.spearman[model] = _spearman(differences[usable], volumes[usable])


def interactions(
    differences: Mapping[str, FloatArray], place: IntArray, *, resamples: int, seed: int
) -> dict[str, float | None]:
    """The p-value of each model's interaction test, None where fewer than two bins or three cases are left.

    The test is `stats.subgroup_interaction`, with its permutations: models that have values for the same
    cases share them, so that ten models cost one shuffle. (The function itself shuffles for each call.)
    """
    groups: dict[bytes, list[str]] = {}
    masks: dict[bytes, BoolArray] = {}
    for model, values in differences.items():
        usable = np.isfinite(values) & (place >= 0)
        groups.setdefault(usable.tobytes(), []).append(model)
        masks[usable.tobytes()] = usable
    found: dict[str, float | None] = dict.fromkeys(differences)
    for key, models in groups.items():
        usable = masks[key]
        _, member = np.unique(place[usable], return_inverse=True)
        if usable.sum() >= 3 and member.max(initial=0) >= 1:
            table = np.stack([differences[model][usable] for model in models], axis=1)
            pvalues = _interaction_pvalues(table, member, resamples=resamples, seed=seed)
            found |= dict(zip(models, pvalues, strict=True))
    return found


def _interaction_pvalues(table: FloatArray, member: IntArray, *, resamples: int, seed: int) -> list[float]:
    """(models,) p-values of (cases, models) differences: between-bin variance against that of
    shuffled bins.
    """
    from segbench.stats.arrays import generator, noise_floor

    n = table.shape[0]
    sizes = np.bincount(member)
    centred = table - table.mean(axis=0)
    bins = np.eye(sizes.size)[member]
    observed = (((bins.T @ centred) ** 2) / sizes[:, None]).sum(axis=0) / n
    slack = np.array(
        [1e-9 * o + noise_floor(column) ** 2 for o, column in zip(observed, table.T, strict=True)]
    )
    stops = np.cumsum(sizes)
    rng = generator(seed)
    block = max(1, 2_000_000 // n)
    hits = np.zeros(table.shape[1])
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        shuffled = rng.permuted(np.broadcast_to(np.arange(n, dtype=np.float64), (rows, n)), axis=1).astype(
            np.int64
        )
        statistic = np.zeros((rows, table.shape[1]))
        for low, high in zip((0, *stops[:-1]), stops, strict=True):
            chosen = np.zeros((rows, n))
            np.put_along_axis(chosen, shuffled[:, low:high], 1.0, axis=1)
            statistic += (chosen @ centred) ** 2 / (high - low)
        hits += (statistic / n >= observed - slack).sum(axis=0)
    return ((1 + hits) / (1 + resamples)).tolist()


def _spearman(differences: FloatArray, volumes: FloatArray) -> float | None:
    """Rank correlation of the difference with the (log) volume; None for too few or constant values."""
    from segbench.stats.laws import ranks

    filled = volumes > 0
    x, y = volumes[filled], differences[filled]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(ranks(x, ties="average"), ranks(y, ties="average"))[0, 1])


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
