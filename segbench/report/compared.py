"""Every pair of a comparison with the means, counts and cases that the terminal shows beside its tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbench.report.analysis import shown_regions
from segbench.report.blocks import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.intervals import IntervalSource
from segbench.report.markup import json_number
from segbench.report.missing import FloatArray
from segbench.report.options import Options
from segbench.report.pairwise import Pair, compare_all
from segbench.report.summary import Summary, summarise

MOST_CASES = 5  # largest gains and losses that are listed


@dataclass(frozen=True, slots=True)
class CaseChange:
    """One case of a pair; `gain` is a - b turned so that a positive number is good for a."""

    case: str
    a: float
    b: float
    gain: float

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "case": self.case,
            "a": json_number(self.a),
            "b": json_number(self.b),
            "gain": json_number(self.gain),
        }


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A pair with what the terminal shows beside its tests.

    Attributes:
        pair: tests and verdict, as in report.json.
        mean_a, mean_b: means of both models, as the main table has them.
        wins, ties, losses: cases on which a is better, equal, worse.
        gains, drops: cases with the largest gain and the largest loss of a.
        low, high: the (1 - 2 alpha) interval of a - b behind the verdict, over seeds and cases where seeds
            allow; None without a test.
    """

    pair: Pair
    mean_a: float | None
    mean_b: float | None
    wins: int
    ties: int
    losses: int
    gains: tuple[CaseChange, ...]
    drops: tuple[CaseChange, ...]
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """Counts and cases of the pair; its tests stand in `pairwise`."""
        pair = self.pair
        return {
            "dataset": pair.block.dataset,
            "protocol": pair.block.protocol,
            "region": pair.region,
            "metric": pair.metric,
            "a": pair.a,
            "b": pair.b,
            "mean_a": json_number(self.mean_a),
            "mean_b": json_number(self.mean_b),
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "largest_gains": [change.as_json() for change in self.gains],
            "largest_losses": [change.as_json() for change in self.drops],
        }


def all_pairs(
    blocks: Sequence[Block],
    metrics: Sequence[MetricDisplay],
    source: IntervalSource,
    options: Options,
    order: Sequence[str],
) -> tuple[list[ComparedPair], list[Summary]]:
    """Every pair of every column, models in the given order, and the means behind them."""
    pairs: list[ComparedPair] = []
    means: list[Summary] = []
    for block in blocks:
        models = {scores.model: scores for scores in sorted(block.models, key=lambda m: order.index(m.model))}
        for metric in metrics:
            if metric.name not in block.metrics:
                continue
            for region in shown_regions(block, options):
                column = {
                    name: summarise(block, region, metric, item, source) for name, item in models.items()
                }
                means += column.values()
                usable = [models[name] for name, item in column.items() if item.mean is not None]
                found = compare_all(block, region, metric, source, alpha=options.alpha, models=usable)
                pairs += [_with_cases(pair, models, column, metric, options.alpha) for pair in found]
    return pairs, means


def _with_cases(
    pair: Pair,
    models: Mapping[str, ModelScores],
    column: Mapping[str, Summary],
    metric: MetricDisplay,
    alpha: float,
) -> ComparedPair:
    """The pair with means, counts and the cases that changed most."""
    block = pair.block
    x = block.per_case(models[pair.a], pair.region, pair.metric)
    y = block.per_case(models[pair.b], pair.region, pair.metric)
    sign = 1.0 if metric.higher_is_better else -1.0
    with np.errstate(invalid="ignore"):  # inf - inf under the `inf` policy
        gain = np.round(sign * (x - y), 12)
    at = np.flatnonzero(np.isfinite(gain))
    order = at[np.argsort(-gain[at], kind="stable")].tolist()
    changes = [CaseChange(block.cases[c], float(x[c]), float(y[c]), float(gain[c])) for c in order]
    better = [change for change in changes if change.gain > 0]
    worse = [change for change in reversed(changes) if change.gain < 0]
    low, high = _verdict_interval(pair, x, y, metric, alpha)
    return ComparedPair(
        pair=pair,
        mean_a=column[pair.a].mean,
        mean_b=column[pair.b].mean,
        wins=len(better),
        ties=len(changes) - len(better) - len(worse),
        losses=len(worse),
        gains=tuple(better[:MOST_CASES]),
        drops=tuple(worse[:MOST_CASES]),
        low=low,
        high=high,
    )


def _verdict_interval(
    pair: Pair, x: FloatArray, y: FloatArray, metric: MetricDisplay, alpha: float
) -> tuple[float | None, float | None]:
    """The (1 - 2 alpha) interval that the verdict rests on: two-level where seeds allow, else paired t."""
    from segbench.stats import equivalence_test, verdict_from_estimate

    if pair.note:
        return None, None
    if pair.two_level is not None:
        level = pair.two_level
        df = level["df"] if isinstance(level["df"], float) else float("nan")
        test = verdict_from_estimate(
            level["difference"], level["standard_error"], df, n=pair.n, margin=metric.margin, alpha=alpha
        )
    else:
        both = np.isfinite(x) & np.isfinite(y)
        test = equivalence_test(x[both], y[both], margin=metric.margin, alpha=alpha)
    return test.low, test.high
