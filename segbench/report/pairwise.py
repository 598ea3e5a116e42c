"""Two models at a time: difference, effect sizes, tests, the verdict, and the two-level test when seeds
allow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.report.block import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.intervals import NO_INTERVAL, Interval, IntervalSource
from segbench.report.markup import json_number
from segbench.report.missing import FloatArray

if TYPE_CHECKING:
    from segbench.stats import WilcoxonResult

VERDICTS = ("equivalent", "better", "worse", "undecided")


@dataclass(frozen=True, slots=True)
class Pair:
    """Model a against model b in one column; numbers in stored units, None where undefined.

    Attributes:
        n: cases both have a value for.
        difference: mean of a - b over these cases.
        interval: of the difference, over cases.
        p_holm: `p_wilcoxon` adjusted by Holm within (dataset, region, metric).
        p_decision: what daggers go by: the two-level p where seeds allow, else Wilcoxon's, adjusted by Holm.
        verdict: a against b: equivalent, better, worse, undecided.
        significant: whether the two-sided test of the verdict is below alpha.
        stands: whether that difference is still below alpha after Holm, by `p_decision`.
        two_level: fields of the two-level result, None without two seeds on each side.
        note: why there is no test, else empty.
    """

    block: Block
    region: str
    metric: str
    a: str
    b: str
    n: int
    difference: float | None = None
    interval: Interval = NO_INTERVAL
    hodges_lehmann: float | None = None
    hl_low: float | None = None
    hl_high: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None
    p_decision: float | None = None
    rank_biserial: float | None = None
    cohen_dz: float | None = None
    probability_superior: float | None = None
    zeros: int | None = None
    p_equivalence: float | None = None
    verdict: str = "undecided"
    significant: bool = False
    stands: bool = True
    two_level: dict[str, Any] | None = None
    note: str = ""

    @property
    def words(self) -> str:
        """The verdict as tables print it."""
        if self.note:
            return self.note
        if self.verdict == "equivalent" and self.significant:
            return "different but within the margin"
        if self.verdict in {"better", "worse"} and not self.stands:
            return f"{self.verdict}, not after Holm"
        return self.verdict

    @property
    def estimate(self) -> tuple[float | None, float | None, float | None]:
        """Difference, low and high as the verdict sees them: two-level where seeds allow, else over cases."""
        level = self.two_level
        if level is not None and isinstance(level["low"], float) and isinstance(level["high"], float):
            return level["difference"], level["low"], level["high"]
        return self.difference, self.interval.low, self.interval.high

    def as_json(self) -> dict[str, Any]:
        """The object of report.json and of `segbench compare --json`."""
        return {
            "dataset": self.block.dataset,
            "protocol": self.block.protocol,
            "region": self.region,
            "metric": self.metric,
            "a": self.a,
            "b": self.b,
            "n": self.n,
            "difference": json_number(self.difference),
            "low": json_number(self.interval.low),
            "high": json_number(self.interval.high),
            "hodges_lehmann": json_number(self.hodges_lehmann),
            "hl_low": json_number(self.hl_low),
            "hl_high": json_number(self.hl_high),
            "p_wilcoxon": json_number(self.p_wilcoxon),
            "p_holm": json_number(self.p_holm),
            "p_decision": json_number(self.p_decision),
            "rank_biserial": json_number(self.rank_biserial),
            "cohen_dz": json_number(self.cohen_dz),
            "probability_superior": json_number(self.probability_superior),
            "zeros": self.zeros,
            "p_equivalence": json_number(self.p_equivalence),
            "verdict": self.verdict,
            "significant": self.significant,
            "two_level": self.two_level,
            "note": self.note,
        }


def compare_all(
    block: Block,
    region: str,
    metric: MetricDisplay,
    source: IntervalSource,
    *,
    alpha: float,
    reference: str | None = None,
    models: Sequence[ModelScores] | None = None,
) -> list[Pair]:
    """Every pair of ranked models in one column (or each against the reference), one Holm family.

    Args:
        block: comparable runs.
        region: region or `mean`.
        metric: how the metric is shown; one without a direction is not compared.
        source: of intervals.
        alpha: level of verdicts.
        reference: model every other one is compared with; ignored when the block does not have it.
        models: models to compare, by default the block's ranked ones.
    """
    if metric.higher_is_better is None:
        return []
    chosen = list(block.ranked if models is None else models)
    names = {scores.model: scores for scores in chosen}
    if reference in names:
        order = [(a, reference) for a in names if a != reference]
    else:
        order = [(a, b) for index, a in enumerate(names) for b in list(names)[index + 1 :]]
    found = [compare_pair(block, region, metric, names[a], names[b], source, alpha=alpha) for a, b in order]
    intervals = source.means([differences for _, differences in found])
    pairs = [replace(pair, interval=interval) for (pair, _), interval in zip(found, intervals, strict=True)]
    return with_holm(pairs, alpha=alpha)


def with_holm(pairs: Sequence[Pair], *, alpha: float) -> list[Pair]:
    """Pairs with Holm's adjustment within their family, of Wilcoxon's and of the deciding p-values."""
    from segbench.stats import holm

    adjusted: dict[str, list[float | None]] = {}
    for name in ("p_wilcoxon", "p_decision"):
        raw: list[float | None] = [getattr(pair, name) for pair in pairs]
        known = [value for value in raw if value is not None]
        done = iter(holm(np.array(known)).tolist() if known else ())
        adjusted[name] = [None if value is None else next(done) for value in raw]
    return [
        replace(
            pair,
            p_holm=p_holm,
            p_decision=p_decision,
            stands=p_decision is not None and p_decision < alpha,
        )
        for pair, p_holm, p_decision in zip(
            pairs, adjusted["p_wilcoxon"], adjusted["p_decision"], strict=True
        )
    ]


def compare_pair(
    block: Block,
    region: str,
    metric: MetricDisplay,
    a: ModelScores,
    b: ModelScores,
    source: IntervalSource,
    *,
    alpha: float,
) -> tuple[Pair, FloatArray]:
    """One pair before its interval and adjustment, and its differences.

    There is no test where there are fewer than two common cases or infinite values; the differences are then
    empty.
    """
    x, y = block.per_case(a, region, metric.name), block.per_case(b, region, metric.name)
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    pair = Pair(block=block, region=region, metric=metric.name, a=a.model, b=b.model, n=int(both.sum()))
    if pair.n < 2:
        return replace(pair, difference=_only(x, y), note="fewer than two common cases"), x[:0]
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        return replace(pair, note="infinite values: no test"), x[:0]
    seeds = _seed_tables(block, region, metric.name, a, b)
    return _tested(pair, x, y, seeds, metric, source, alpha=alpha), x - y


def _only(x: FloatArray, y: FloatArray) -> float | None:
    """The difference of a single common case."""
    return float(x[0] - y[0]) if x.size == 1 and np.isfinite(x[0] - y[0]) else None


def _seed_tables(
    block: Block, region: str, metric: str, a: ModelScores, b: ModelScores
) -> tuple[FloatArray, FloatArray] | None:
    """(seeds, cases) of both sides over cases with a finite value in every seed, or None without two seeds
    each.
    """
    if len(a.seeds) < 2 or len(b.seeds) < 2:
        return None
    x, y = block.per_seed(a, region, metric), block.per_seed(b, region, metric)
    complete = np.all(np.isfinite(x), axis=0) & np.all(np.isfinite(y), axis=0)
    return (x[:, complete], y[:, complete]) if complete.sum() >= 2 else None


def _tested(
    pair: Pair,
    x: FloatArray,
    y: FloatArray,
    seeds: tuple[FloatArray, FloatArray] | None,
    metric: MetricDisplay,
    source: IntervalSource,
    *,
    alpha: float,
) -> Pair:
    """The pair with every test the data allow."""
    from segbench import stats
    from segbench.stats.equivalence import verdict_from_estimate

    higher = bool(metric.higher_is_better)
    wilcoxon = stats.wilcoxon_signed_rank(x, y)
    shift = stats.hodges_lehmann(x, y, confidence=source.confidence)
    equal = stats.equivalence_test(x, y, margin=metric.margin, alpha=alpha, higher_is_better=higher)
    changes: dict[str, Any] = {
        "difference": math.fsum((x - y).tolist()) / x.size,
        "hodges_lehmann": shift.estimate,
        "hl_low": shift.low,
        "hl_high": shift.high,
        "p_wilcoxon": wilcoxon.pvalue,
        "p_decision": wilcoxon.pvalue,
        "rank_biserial": _rank_biserial(wilcoxon),
        "cohen_dz": stats.cohen_dz(x, y),
        "probability_superior": stats.probability_superior(x, y),
        "zeros": wilcoxon.zeros,
        "p_equivalence": equal.pvalue,
        "verdict": equal.verdict,
        "significant": equal.significant,
    }
    if seeds is not None:
        level = stats.two_level_test(seeds[0], seeds[1], alpha=alpha, confidence=source.confidence)
        over_both = verdict_from_estimate(
            level.difference,
            level.standard_error,
            level.df,
            n=level.cases,
            margin=metric.margin,
            alpha=alpha,
            higher_is_better=higher,
        )
        changes |= {
            "two_level": two_level_json(level),
            "p_decision": level.pvalue,
            "p_equivalence": over_both.pvalue,
            "verdict": over_both.verdict,
            "significant": over_both.significant,
        }
    return replace(pair, **changes)


def _rank_biserial(test: WilcoxonResult) -> float:
    """(W+ - W-)/(W+ + W-) from the ranks of the test at hand; `stats.rank_biserial` would rank them again."""
    total = test.n * (test.n + 1) / 2
    return 2 * test.statistic / total - 1 if total else 0.0


def two_level_json(level: Any) -> dict[str, Any]:
    """Every field of a two-level result as plain values."""
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(level):
        value = getattr(level, item.name)
        plain[item.name] = value if isinstance(value, bool | int) else json_number(float(value))
    return plain
