"""Several datasets: mean ranks and win counts; a p-value only where enough datasets make one possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segbench.report.block import Block
from segbench.report.display import MetricDisplay
from segbench.report.missing import FloatArray
from segbench.report.pairwise import Pair

LEAST_DATASETS = 6  # the smallest two-sided signed-rank p is 2/2^D: .0625 for five datasets


@dataclass(frozen=True, slots=True)
class Across:
    """Comparison over datasets in one metric; every list follows `models`.

    Attributes:
        pvalue: signed-rank p over dataset means (smallest after Holm for more than two models), None with a
            reason.
        reason: why there is no p-value, else how it was made.
        pairs: per pair of models the raw and adjusted p, when there are enough datasets.
    """

    metric: str
    region_rule: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    pvalue: float | None
    reason: str
    mean_ranks: tuple[float, ...] = ()
    rank_low: tuple[float, ...] = ()
    rank_high: tuple[float, ...] = ()
    wins: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    pairs: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object of report.json."""
        return {
            "metric": self.metric,
            "datasets": list(self.datasets),
            "pvalue": self.pvalue,
            "reason": self.reason,
            "mean_ranks": dict(zip(self.models, self.mean_ranks, strict=False)),
            "rank_low": dict(zip(self.models, self.rank_low, strict=False)),
            "rank_high": dict(zip(self.models, self.rank_high, strict=False)),
            "wins": self.wins,
            "pairs": list(self.pairs),
        }


def across_datasets(
    blocks: Sequence[Block],
    metric: MetricDisplay | None,
    pairs: Mapping[tuple[int, str, str], Sequence[Pair]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Across:
    """Ranks averaged over the datasets that share models, by the mean over regions; never a pooled test.

    Args:
        blocks: of all datasets; one per dataset is used, the first with two models that all datasets share.
        metric: the first asked metric, None when there is none.
        pairs: compared pairs by (block number, region, metric).
        confidence: of the rank intervals.
        resamples: bootstrap draws.
        seed: of the draws.
    """
    name = metric.name if metric else ""
    datasets = sorted({block.dataset for block in blocks})
    if metric is None or metric.higher_is_better is None or len(datasets) < 2:
        reason = "one dataset" if len(datasets) < 2 else "no metric with a direction"
        return Across(name, "mean", tuple(datasets), (), None, reason)
    chosen, models = _shared(blocks, metric)
    if len(models) < 2 or len(chosen) < 2:
        return Across(name, "mean", tuple(datasets), (), None, "no two models share two datasets")
    tables = [_table(blocks[number], models, metric.name) for number in chosen]
    if any(table.shape[0] == 0 for table in tables):
        return Across(name, "mean", tuple(datasets), (), None, "a dataset has no case with all models")
    higher = bool(metric.higher_is_better)
    means = np.stack([table.mean(axis=0) for table in tables])
    ranks = _ranks(means, higher=higher).mean(axis=0)
    low, high = _rank_interval(tables, higher=higher, confidence=confidence, resamples=resamples, seed=seed)
    pvalue, reason, listed = _signed_rank(means, models)
    wins = _wins(blocks, chosen, models, metric.name, pairs)
    return Across(
        metric=metric.name,
        region_rule="mean",
        datasets=tuple(blocks[number].dataset for number in chosen),
        models=tuple(models),
        pvalue=pvalue,
        reason=reason,
        mean_ranks=tuple(ranks.tolist()),
        rank_low=tuple(low.tolist()),
        rank_high=tuple(high.tolist()),
        wins=wins,
        pairs=tuple(listed),
    )


def _shared(blocks: Sequence[Block], metric: MetricDisplay) -> tuple[list[int], list[str]]:
    """Numbers of the blocks used (one per dataset) and the models all of them have values for."""
    by_dataset: dict[str, list[int]] = {}
    for number, block in enumerate(blocks):
        if metric.name in block.metrics and len(block.ranked) >= 2:
            by_dataset.setdefault(block.dataset, []).append(number)
    # several protocols of one dataset: the one with the most models, then by name
    chosen = [
        max(numbers, key=lambda number: (len(blocks[number].ranked), -number))
        for numbers in by_dataset.values()
    ]
    chosen.sort(key=lambda number: blocks[number].dataset)
    if not chosen:
        return [], []
    valued = [
        {
            scores.model
            for scores in blocks[number].ranked
            if np.any(
                np.isfinite(blocks[number].per_case(scores, blocks[number].table_regions[-1], metric.name))
            )
        }
        for number in chosen
    ]
    return chosen, sorted(set.intersection(*valued))


def _table(block: Block, models: Sequence[str], metric: str) -> FloatArray:
    """(cases, models) of the region mean, cases with all models only."""
    scores = {item.model: item for item in block.ranked}
    region = block.table_regions[-1]
    table = np.stack([block.per_case(scores[name], region, metric) for name in models], axis=1)
    return table[np.all(np.isfinite(table), axis=1)]


def _ranks(means: FloatArray, *, higher: bool) -> FloatArray:
    """Ranks along the last axis, ties "min", by comparison counts on values rounded to 12 decimals."""
    scores = np.round(means, 12) * (1 if higher else -1)
    return 1.0 + (scores[..., None, :] > scores[..., :, None]).sum(axis=-1)


def _rank_interval(
    tables: Sequence[FloatArray], *, higher: bool, confidence: float, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Percentile interval of the mean rank, cases drawn again within each dataset."""
    from segbench.stats.resampling import bootstrap_means

    total = np.zeros((resamples, tables[0].shape[1]))
    for number, table in enumerate(tables):
        total += _ranks(bootstrap_means(table, resamples=resamples, seed=seed + number), higher=higher)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(total / len(tables), tails, axis=0)
    return low, high


def _signed_rank(means: FloatArray, models: Sequence[str]) -> tuple[float | None, str, list[dict[str, Any]]]:
    """Exact two-sided signed rank over dataset means for each pair, or the reason why there is none."""
    from segbench.stats import holm, wilcoxon_signed_rank

    count = means.shape[0]
    if count < LEAST_DATASETS:
        smallest = 2 / 2**count
        if smallest > 0.05:
            return None, f"{count} datasets can never reach p < 0.05", []
        return None, f"{count} datasets are fewer than {LEAST_DATASETS}", []
    order = [(i, j) for i in range(len(models)) for j in range(i + 1, len(models))]
    raw = [wilcoxon_signed_rank(means[:, i], means[:, j], method="exact").pvalue for i, j in order]
    adjusted = holm(np.array(raw)).tolist()
    listed = [
        {"a": models[i], "b": models[j], "p": p, "p_holm": p_holm}
        for (i, j), p, p_holm in zip(order, raw, adjusted, strict=True)
    ]
    reason = f"two-sided exact signed rank over the means of {count} datasets"
    if len(order) > 1:
        reason += f", smallest of {len(order)} pairs after Holm"
    return min(adjusted), reason, listed


def _wins(
    blocks: Sequence[Block],
    chosen: Sequence[int],
    models: Sequence[str],
    metric: str,
    pairs: Mapping[tuple[int, str, str], Sequence[Pair]],
) -> dict[str, dict[str, int]]:
    """Wins, ties and losses of each model over datasets and rivals, by the verdicts per dataset."""
    counts = {name: {"win": 0, "tie": 0, "loss": 0} for name in models}
    for number in chosen:
        for pair in pairs.get((number, blocks[number].table_regions[-1], metric), ()):
            if pair.a not in counts or pair.b not in counts:
                continue
            won, lost = {"better": ("win", "loss"), "worse": ("loss", "win")}.get(
                pair.verdict, ("tie", "tie")
            )
            counts[pair.a][won] += 1
            counts[pair.b][lost] += 1
    return counts
