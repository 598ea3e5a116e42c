"""One column of the results, a metric of a region: the mean of every entry, and what may be said of pairs.

`decide` is the only place that turns scores into statements. Everything that is printed of a comparison, in
any format, is a field of the `Column` it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from segbench.report.analysis.blocks import Block, Scores, nan_mean
from segbench.report.analysis.metric import Metric
from segbench.report.analysis.missing import FloatArray
from segbench.report.analysis.options import Options

if TYPE_CHECKING:
    from segbench.stats import Comparison, NullCheck, Omnibus, RankStability

Role = Literal["primary", "secondary", "region"]
"""Of a column: the one that decides, the mean over regions of another metric, a single region."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of one entry in one column; stored units, None where there is none.

    Attributes:
        value: over patients and seeds, failures at their worst; None also where a penalty is not known.
        low, high: its interval over patients, and over seeds where there are two or more.
        n: patients (or cases, where no grouping is declared) with a value.
        cases: cases with a value.
        per_seed: (seed, mean) of each training run.
        sd_seeds: standard deviation of the means of the seeds, None for fewer than two.
        sd_units: standard deviation over patients of the values averaged over seeds.
        failed: expected cases without a usable prediction, of any seed.
        expected: expected cases.
        note: what a reader has to know about the interval, empty when nothing.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    cases: int
    per_seed: tuple[tuple[int, float | None], ...]
    sd_seeds: float | None
    sd_units: float | None
    failed: int
    expected: int
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Everything that is said about one metric of one region of a block.

    Attributes:
        block: number of the block.
        region: region, or `mean`.
        metric: the metric.
        role: what the column decides.
        unit: what n counts, `patients` or `cases`.
        means: by label, of every entry that was asked for the region, baselines included.
        reference: the model that all others are compared with, None where all pairs are compared.
        margin: equivalence margin in stored units, None where none is declared or nothing is decided.
        comparisons: of the models, each against the reference or all pairs: one family. A column of a single
            region has estimates and intervals, and no verdict counts there.
        left_out: by label, why a model takes no part in the comparisons.
        order: models by their mean, best first.
        ranks: of the compared models with seeds and patients drawn; None for a single region.
        compared: models along the axes of `ranks`.
        null: pairs of retrainings of one model that the usual one-run test calls different.
        omnibus: whether the models differ at all.
    """

    block: int
    region: str
    metric: Metric
    role: Role
    unit: str
    means: Mapping[str, Mean]
    reference: str | None = None
    margin: float | None = None
    comparisons: tuple[Comparison, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    order: tuple[str, ...] = ()
    ranks: RankStability | None = None
    compared: tuple[str, ...] = ()
    null: NullCheck | None = None
    omnibus: Omnibus | None = None

    @property
    def decided(self) -> bool:
        """Whether verdicts of this column are statements: single regions have estimates only."""
        return self.role != "region"

    def against_reference(self, label: str) -> Comparison | None:
        """The comparison of a model with the reference, None without one."""
        return next((pair for pair in self.comparisons if (pair.a, pair.b) == (label, self.reference)), None)

    def star(self, label: str) -> str:
        """How a table marks a model that is significantly better than the reference.

        `method` for a claim about the method, `weights` for one about these trained weights only, else empty.
        """
        pair = self.against_reference(label) if self.decided else None
        return pair.claim if pair is not None and pair.verdict == "better" else ""


def decide(
    number: int,
    block: Block,
    region: str,
    metric: Metric,
    role: Role,
    *,
    reference: str | None,
    margin: float | None,
    options: Options,
) -> Column:
    """The column of a region and a metric.

    Args:
        number: of the block.
        block: comparable entries.
        region: a region of the block, or `mean`.
        metric: the metric.
        role: what the column decides.
        reference: label of the model that all others are compared with; None compares all pairs.
        margin: equivalence margin in stored units, None where none is declared.
        options: level, resamples and seed.
    """
    asked = [scores for scores in block.scores if block.asked(scores, region)]
    tables = {scores.label: block.per_patient(scores, region, metric.name) for scores in asked}
    bounds = bounds_of(metric, block, tables.values())
    means = {
        scores.label: mean_of(block, scores, region, metric, tables[scores.label], bounds, options)
        for scores in asked
    }
    plain = Column(number, region, metric, role, block.unit, means)
    if metric.higher_is_better is None:
        return plain
    higher = bool(metric.higher_is_better)
    family, left_out = family_of(block, region, metric, means, options)
    left_out |= {
        scores.label: "the penalty of a failed case is not known"
        for scores in block.contenders(options.baselines)
        if scores.label in means and block.lacks_penalty(scores, region, metric.name)
    }
    order = sorted(
        (label for label in family if means[label].value is not None),
        key=lambda label: ((means[label].value or 0.0) * (-1 if higher else 1), label),
    )
    kept = reference if reference in family else None
    column = replace(plain, reference=kept, left_out=left_out, order=tuple(order))
    if column.decided:
        column = replace(column, margin=margin)
    if len(family) < 2:
        return column
    family = {label: family[label] for label in order}  # of all pairs, the first is the one ahead
    return _compared(column, family, higher=higher, bounds=bounds, options=options)


def family_of(
    block: Block, region: str, metric: Metric, means: Mapping[str, Mean], options: Options
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Tables of the models that a column compares, and why others are left out, by label."""
    return comparable_tables(
        {
            scores.label: block.per_patient(scores, region, metric.name)
            for scores in block.contenders(options.baselines)
            if scores.label in means and means[scores.label].value is not None
        }
    )


def bounds_of(metric: Metric, block: Block, tables: Iterable[FloatArray]) -> tuple[float, float]:
    """The range of the metric; a penalty that some policies set beyond the diagonal widens it."""
    least, most = metric.bounds(block.diagonal_mm)
    finite = [table[np.isfinite(table)] for table in tables]
    return least, max([most, *(float(values.max()) for values in finite if values.size)])


def _compared(
    column: Column,
    family: Mapping[str, FloatArray],
    *,
    higher: bool,
    bounds: tuple[float, float],
    options: Options,
) -> Column:
    """The column with its comparisons and, where it decides, ranks, null check and omnibus test."""
    from segbench.stats import compare_models, models_differ, null_check, rank_models

    against = column.reference
    if not column.decided and against is None:
        against = column.order[0]  # estimates only: one row per model is enough
    comparisons = compare_models(
        family,
        higher_is_better=higher,
        alpha=options.alpha,
        confidence=options.confidence,
        margin=column.margin,
        reference=against,
        bounds=bounds,
    )
    if not column.decided:
        note = "a single region has an estimate and no verdict"
        estimates = tuple(without_verdict(pair, note) for pair in comparisons)
        return replace(column, comparisons=estimates, reference=against)
    return replace(
        column,
        comparisons=tuple(comparisons),
        compared=tuple(family),
        ranks=rank_models(
            family,
            higher_is_better=higher,
            resamples=options.resamples,
            confidence=options.confidence,
            seed=options.seed,
        ),
        null=null_check(family, alpha=options.alpha),
        omnibus=models_differ(family),
    )


def turned(pair: Comparison) -> Comparison:
    """The same comparison told of the other model: b against a."""
    swapped = {"better": "worse", "worse": "better"}
    return replace(
        pair,
        a=pair.b,
        b=pair.a,
        difference=-pair.difference,
        low=-pair.high,
        high=-pair.low,
        verdict=swapped.get(pair.verdict, pair.verdict),
        seeds_a=pair.seeds_b,
        seeds_b=pair.seeds_a,
        shift=-pair.shift,
        wins=1.0 - pair.wins,
    )


def without_verdict(pair: Comparison, note: str) -> Comparison:
    """A comparison as an estimate with its interval, and nothing that could be quoted."""
    return replace(pair, verdict="inconclusive", p_adjusted=float("nan"), note=note)


def comparable_tables(
    tables: Mapping[str, FloatArray],
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Tables (seeds, patients) cut to the patients that all of them have, and why others are left out.

    Seeds that cover different folds are one training run of the method on each patient: they are averaged
    into one row. Models without finite values, and those that share no two patients with the models of the
    largest coverage, take no part.
    """
    left_out: dict[str, str] = {}
    kept: dict[str, FloatArray] = {}
    for label, table in tables.items():
        if np.any(np.isinf(table)):
            left_out[label] = "infinite values"
            continue
        defined = np.isfinite(table)
        covered = np.any(defined, axis=0)
        whole = np.all(defined, axis=0)
        kept[label] = table if covered.any() and (whole == covered).all() else nan_mean(table, axis=0)[None]
        if not covered.any():
            left_out[label] = "no value"
            del kept[label]
    common = np.ones(next(iter(tables.values())).shape[1], dtype=bool) if tables else np.zeros(0, dtype=bool)
    for label in sorted(kept, key=lambda label: (-int(np.isfinite(kept[label][0]).sum()), label)):
        joint = common & np.isfinite(kept[label][0])
        if joint.sum() < min(2, int(common.sum())):
            left_out[label] = "no patient in common with the other models"
            del kept[label]
        else:
            common = joint
    return {label: table[:, common] for label, table in kept.items() if common.sum() >= 2}, left_out


def mean_of(
    block: Block,
    scores: Scores,
    region: str,
    metric: Metric,
    table: FloatArray,
    bounds: tuple[float, float],
    options: Options,
) -> Mean:
    """The mean of one entry; (seeds, patients) in `table`."""
    from segbench.stats import mean_interval

    per_unit = nan_mean(table, axis=0)
    values = per_unit[~np.isnan(per_unit)]
    per_case = nan_mean(block.per_case(scores, region, metric.name), axis=0)
    seeds = [
        (seed, None if np.isnan(mean) else float(mean))
        for seed, mean in zip(scores.seeds, nan_mean(table, axis=1).tolist(), strict=True)
    ]
    known = [mean for _, mean in seeds if mean is not None]
    empty = Mean(
        None,
        None,
        None,
        int(values.size),
        int(np.sum(~np.isnan(per_case))),
        tuple(seeds),
        float(np.std(known, ddof=1)) if len(known) > 1 and np.all(np.isfinite(known)) else None,
        float(np.std(values, ddof=1)) if values.size > 1 and np.all(np.isfinite(values)) else None,
        int(scores.failures.sum()),
        int(scores.expected.sum()),
    )
    if not values.size or block.lacks_penalty(scores, region, metric.name):
        return empty
    whole = table[:, np.all(np.isfinite(table), axis=0)]
    uses_seeds = whole.shape[0] > 1 and whole.shape[1] == values.size
    value = float(values.mean())
    if not np.all(np.isfinite(values)):
        return replace(empty, value=value)
    found = mean_interval(
        whole if uses_seeds else values,
        method="auto" if uses_seeds else "t",
        confidence=options.confidence,
        bounds=bounds,
    )
    low, high = (None if np.isnan(end) else float(end) for end in (found.low, found.high))
    return replace(empty, value=value, low=low, high=high, note=found.note)
