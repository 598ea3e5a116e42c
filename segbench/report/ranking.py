"""Ranks under every scheme and how stable they are when the cases are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.report.block import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.missing import FloatArray

IntArray = npt.NDArray[np.int64]

SCHEMES = (
    "mean_then_rank",
    "median_then_rank",
    "rank_then_mean",
    "rank_then_median",
    "test_then_rank_none",
    "test_then_rank_holm",
)
STABILITY_SCHEME = "mean_then_rank"
OTHER_DRAWS = 1000  # of the other schemes, in the last region of a block in the first metric alone


@dataclass(frozen=True, slots=True)
class ColumnRanks:
    """Ranks of the models in one column.

    Attributes:
        models: names, in block order.
        n: cases every model has a finite value for.
        n_patients: units that were drawn; fewer than n where several cases are of one patient.
        schemes: ranks by scheme, one per model.
        probability_best: share of draws in which a model is first.
        rank_low: lower end of the percentile interval of ranks.
        rank_high: upper end.
        frequencies: (models, ranks) share of draws.
        kendall_tau: mean tau-b of the draws against the full data, None when it is not defined.
        winner_changes: how many single cases, left out, change the winner.
        best_by_scheme: share of draws in which each model is first, by scheme; only in the last region of the
            first metric.
    """

    block: Block
    region: str
    metric: str
    models: tuple[str, ...]
    n: int
    n_patients: int
    schemes: dict[str, tuple[int, ...]]
    probability_best: FloatArray
    rank_low: IntArray
    rank_high: IntArray
    frequencies: FloatArray
    kendall_tau: float | None
    winner_changes: int | None
    best_by_scheme: dict[str, tuple[float, ...]]


def rank_columns(
    block: Block,
    metric: MetricDisplay,
    regions: Sequence[str],
    *,
    alpha: float,
    confidence: float,
    resamples: int,
    seed: int,
    patients: Sequence[str] | None = None,
    every_scheme: bool = False,
) -> list[ColumnRanks]:
    """Ranks of every region of one metric; regions whose values or cases do not allow ranks are left out.

    Models without any value in a column are left out of it; cases in which a remaining model has no finite
    value leave all of them.
    """
    if metric.higher_is_better is None:
        return []
    groups: dict[tuple[tuple[str, ...], bytes], list[tuple[str, FloatArray]]] = {}
    for region in regions:
        scores, table = _table(block, region, metric.name)
        if len(scores) < 2 or table.shape[0] < 2:
            continue
        models = tuple(item.model for item in scores)
        mask = _complete(block, region, metric.name, scores)
        groups.setdefault((models, mask.tobytes()), []).append((region, table))
    found: list[ColumnRanks] = []
    for (models, mask), columns in groups.items():
        stack = np.stack([table for _, table in columns], axis=2)
        kept = np.frombuffer(mask, dtype=bool)
        drawn = None if patients is None else [name for name, use in zip(patients, kept, strict=True) if use]
        names = [region for region, _ in columns]
        found += _stability(
            block,
            metric,
            models,
            names,
            stack,
            alpha=alpha,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
            patients=drawn,
            last=regions[-1] if every_scheme else "",
        )
    order = {region: place for place, region in enumerate(regions)}
    return sorted(found, key=lambda item: order[item.region])


def _table(block: Block, region: str, metric: str) -> tuple[list[ModelScores], FloatArray]:
    """Models with a mean in the column and the (cases, models) table of cases complete for all of them."""
    scores = [item for item in block.ranked if _has_mean(block, region, metric, item)]
    if not scores:
        return [], np.empty((0, 0))
    table = np.stack([block.per_case(item, region, metric) for item in scores], axis=1)
    return scores, table[np.all(np.isfinite(table), axis=1)]


def _complete(block: Block, region: str, metric: str, scores: Sequence[ModelScores]) -> FloatArray:
    table = np.stack([block.per_case(item, region, metric) for item in scores], axis=1)
    return np.all(np.isfinite(table), axis=1)


def _has_mean(block: Block, region: str, metric: str, scores: ModelScores) -> bool:
    from segbench.report.summary import lacks_penalty

    if lacks_penalty(block, region, metric, scores):
        return False
    return bool(np.any(np.isfinite(block.per_case(scores, region, metric))))


def _stability(
    block: Block,
    metric: MetricDisplay,
    models: tuple[str, ...],
    regions: list[str],
    stack: FloatArray,
    *,
    alpha: float,
    confidence: float,
    resamples: int,
    seed: int,
    patients: Sequence[str] | None,
    last: str,
) -> list[ColumnRanks]:
    """Ranks and their bootstrap for regions that share models and cases: one set of draws for all."""
    from segbench.stats import rank_cases, rank_stability

    higher = bool(metric.higher_is_better)
    stable = rank_stability(
        stack,
        scheme=STABILITY_SCHEME,
        higher_is_better=higher,
        resamples=resamples,
        seed=seed,
        groups=patients,
        confidence=confidence,
    )
    found: list[ColumnRanks] = []
    for place, region in enumerate(regions):
        schemes = {
            scheme: tuple(
                int(rank)
                for rank in rank_cases(
                    stack[:, :, place], scheme=scheme, higher_is_better=higher, alpha=alpha
                ).ranks
            )
            for scheme in SCHEMES
        }
        best = np.asarray(stable.probability_best)[:, place]
        by_scheme: dict[str, tuple[float, ...]] = {}
        if region == last:
            by_scheme = {STABILITY_SCHEME: tuple(best.tolist())}
            for scheme in SCHEMES:
                if scheme != STABILITY_SCHEME:
                    other = rank_stability(
                        stack[:, :, place],
                        scheme=scheme,
                        higher_is_better=higher,
                        resamples=min(resamples, OTHER_DRAWS),
                        seed=seed,
                        groups=patients,
                        confidence=confidence,
                    )
                    by_scheme[scheme] = tuple(np.asarray(other.probability_best).tolist())
        taus = np.asarray(stable.kendall_tau)[:, place]
        known = taus[~np.isnan(taus)]
        found.append(
            ColumnRanks(
                block=block,
                region=region,
                metric=metric.name,
                models=models,
                n=stack.shape[0],
                n_patients=stack.shape[0] if patients is None else len(set(patients)),
                schemes=schemes,
                probability_best=best,
                rank_low=np.asarray(stable.rank_low)[:, place],
                rank_high=np.asarray(stable.rank_high)[:, place],
                frequencies=np.asarray(stable.frequencies)[:, :, place],
                kendall_tau=float(known.mean()) if known.size else None,
                winner_changes=int(np.asarray(stable.leave_one_out_winner_changes).reshape(-1)[place]),
                best_by_scheme=by_scheme,
            )
        )
    return found
