"""One column of the results, a metric of a region: the mean of every entry, and what may be said of pairs.

`decide` is the only place that turns scores into statements. Everything that is printed of a comparison, in
any format, is a field of the `Column` it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from segbench.metrics.grid_floor import grid_floor
from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.blocks import Block, FloatArray, Scores, nan_mean
from segbench.report.analysis.metric import Metric, format_number
from segbench.report.analysis.options import Options

if TYPE_CHECKING:
    from segbench.stats import Comparison, NullCheck, Omnibus, RankStability

NOT_AVAILABLE = "n/a"
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


@dataclass(frozen=True, eq=False)
class Column:
    """Everything that is said about one metric of one region of a block.

    Attributes:
        block: the comparable entries.
        region: region, or `mean`.
        metric: the metric.
        role: what the column decides.
        options: level, resamples and seed.
        means: by label, of every entry that was asked for the region, baselines included.
        bounds: range of the metric here, stored units.
        tables: (seeds, patients) of each model that is compared, best first; all on the same patients.
        left_out: by label, why a model takes no part in the comparisons.
        reference: the model that all others are compared with, None where all pairs are compared.
        margin: equivalence margin in stored units, None where none is declared or nothing is decided.
        comparisons: of the models, each against the reference or all pairs: one family. A column of a single
            region has estimates and intervals, and no verdict counts there.
        floor: below this a difference says nothing, because of the grid; 0 where the spacing is not known.
        null: pairs of retrainings of one model that the usual one-run test calls different.
        omnibus: whether the models differ at all.
    """

    block: Block
    region: str
    metric: Metric
    role: Role
    options: Options
    means: Mapping[str, Mean]
    bounds: tuple[float, float]
    tables: Mapping[str, FloatArray] = field(default_factory=dict[str, FloatArray])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    reference: str | None = None
    margin: float | None = None
    comparisons: tuple[Comparison, ...] = ()
    floor: float = 0.0
    null: NullCheck | None = None
    omnibus: Omnibus | None = None

    def number(self, value: float | None) -> str:
        """A value of this column, in stored units, as every output prints it; `n/a` where there is none."""
        if value is None or value != value:
            return NOT_AVAILABLE
        return format_number(value, scale=self.metric.scale, digits=self.options.digits)

    def words(self, value: float) -> str:
        """A difference, margin or gain with its unit, such as `1.00 points`."""
        return f"{self.number(value)} {self.metric.difference_unit}".rstrip()

    def interval(self, of: Mean | Comparison) -> str:
        """The interval of a mean or a difference, such as ` [0.49, 1.21]`; empty without one."""
        low, high = self.number(of.low), self.number(of.high)
        return "" if NOT_AVAILABLE in (low, high) else f" [{low}, {high}]"

    @property
    def region_words(self) -> str:
        """The region, or `mean over regions`."""
        return "mean over regions" if self.region == MEAN_REGION else self.region

    @property
    def sign(self) -> float:
        """What turns a score so that more is better."""
        return 1.0 if self.metric.higher_is_better else -1.0

    @property
    def decided(self) -> bool:
        """Whether verdicts of this column are statements: single regions have estimates only."""
        return self.role != "region"

    @property
    def best_first(self) -> list[Comparison]:
        """The comparisons in the order of their models."""
        place = {label: index for index, label in enumerate(self.order)}
        return sorted(self.comparisons, key=lambda pair: (place[pair.a], place[pair.b]))

    @property
    def order(self) -> tuple[str, ...]:
        """Compared models by their mean, best first."""
        return tuple(self.tables)

    @cached_property
    def ranks(self) -> RankStability | None:
        """Of the models in `order` with seeds and patients drawn; None where nothing is decided."""
        from segbench.stats import rank_models

        if not self.decided or len(self.tables) < 2:
            return None
        return rank_models(
            self.tables,
            higher_is_better=bool(self.metric.higher_is_better),
            resamples=self.options.resamples,
            confidence=self.options.confidence,
            seed=self.options.seed,
        )

    def pairs(
        self, *, reference: str | None = None, margin: float | None = None, confidence: float | None = None
    ) -> tuple[Comparison, ...]:
        """Comparisons of the models: with a reference, or all pairs, the one ahead first.

        Args:
            reference: label that all others are compared with.
            margin: equivalence margin in stored units.
            confidence: of the intervals, None takes that of the report.
        """
        from segbench.stats import compare_models

        if len(self.tables) < 2:
            return ()
        return compare_models(
            self.tables,
            higher_is_better=bool(self.metric.higher_is_better),
            alpha=self.options.alpha,
            confidence=self.options.confidence if confidence is None else confidence,
            margin=margin,
            reference=reference,
            patients=np.arange(next(iter(self.tables.values())).shape[1]) if self.block.grouped else None,
            bounds=self.bounds,
            resolution=self.floor,
        )

    def star(self, label: str) -> str:
        """How a table marks a model that is significantly better than the reference.

        `method` for a claim about the method, `weights` for one about these trained weights only, else empty.
        """
        against = (pair for pair in self.comparisons if (pair.a, pair.b) == (label, self.reference))
        pair = next(against, None) if self.decided else None
        return pair.claim if pair is not None and pair.verdict == "better" else ""


def decide(
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
        block: comparable entries.
        region: a region of the block, or `mean`.
        metric: the metric.
        role: what the column decides.
        reference: label of the model that all others are compared with; None compares all pairs.
        margin: equivalence margin in stored units, None where none is declared.
        options: level, resamples and seed.
    """
    from segbench.stats import models_differ, null_check

    asked = [scores for scores in block.scores if block.asked(scores, region)]
    tables = {scores.label: block.per_patient(scores, region, metric.name) for scores in asked}
    # A penalty that some policies set beyond the diagonal widens the range
    least, most = metric.bounds(block.diagonal_mm)
    finite = [table[np.isfinite(table)] for table in tables.values()]
    bounds = least, max([most, *(float(values.max()) for values in finite if values.size)])
    floors = grid_floor(block.spacing_mm) if metric.unit == "mm" and block.spacing_mm is not None else {}
    floor = floors.get(metric.name, 0.0)
    column = Column(block, region, metric, role, options, {}, bounds, floor=floor)
    means = {scores.label: mean_of(scores, column, tables[scores.label]) for scores in asked}
    column = replace(column, means=means)
    if metric.higher_is_better is None:
        return column
    contenders = [scores for scores in block.contenders(options.baselines) if scores.label in means]
    ranked = {
        scores.label: (-column.sign * mean, scores.label)
        for scores in contenders
        if (mean := means[scores.label].value) is not None
    }
    seeds = max((len(tables[label]) for label in ranked), default=1)
    for label in ranked.keys() & {scores.label for scores in block.baselines if len(scores.seeds) == 1}:
        tables[label] = np.repeat(tables[label], seeds, axis=0)  # no random number, so the same again
    family, left_out = comparable_tables({label: tables[label] for label in ranked})
    unknown = [scores for scores in contenders if block.lacks_penalty(scores, region, metric.name)]
    left_out |= {scores.label: "the penalty of a failed case is not known" for scores in unknown}
    column = replace(
        column,
        tables={label: family[label] for label in sorted(family, key=ranked.__getitem__)},
        left_out=left_out,
        reference=reference if reference in family else None,
        margin=margin if column.decided else None,
    )
    if len(family) < 2:
        return column
    if column.decided:
        return replace(
            column,
            comparisons=column.pairs(reference=column.reference, margin=column.margin),
            null=null_check(column.tables, alpha=options.alpha),
            omnibus=models_differ(column.tables),
        )
    against = column.reference or column.order[0]  # estimates only: one row per model is enough
    note = "a single region has an estimate and no verdict"
    estimates = tuple(without_verdict(pair, note) for pair in column.pairs(reference=against))
    return replace(column, comparisons=estimates, reference=against)


def without_verdict(pair: Comparison, note: str) -> Comparison:
    """A comparison as an estimate with its interval, and nothing that could be quoted."""
    return replace(pair, verdict="inconclusive", p_adjusted=float("nan"), note=note)


def comparable_tables(tables: Mapping[str, FloatArray]) -> tuple[dict[str, FloatArray], dict[str, str]]:
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


def mean_of(scores: Scores, column: Column, table: FloatArray) -> Mean:
    """The mean of one entry in a column; (seeds, patients) in `table`."""
    from segbench.stats import mean_interval

    per_unit = nan_mean(table, axis=0)
    values = per_unit[~np.isnan(per_unit)]
    finite = bool(np.all(np.isfinite(values)))
    per_case = nan_mean(column.block.per_case(scores, column.region, column.metric.name), axis=0)
    by_seed = [None if np.isnan(mean) else float(mean) for mean in nan_mean(table, axis=1).tolist()]
    known = [mean for mean in by_seed if mean is not None]
    value, low, high, note = None, None, None, ""
    if values.size and not column.block.lacks_penalty(scores, column.region, column.metric.name):
        value = float(values.mean())
        if finite:
            whole = table[:, np.all(np.isfinite(table), axis=0)]
            uses_seeds = whole.shape[0] > 1 and whole.shape[1] == values.size
            found = mean_interval(
                whole if uses_seeds else values,
                method="auto" if uses_seeds else "t",
                confidence=column.options.confidence,
                bounds=column.bounds,
            )
            low, high = (None if np.isnan(end) else float(end) for end in (found.low, found.high))
            note = found.note
    return Mean(
        value=value,
        low=low,
        high=high,
        n=int(values.size),
        cases=int(np.sum(~np.isnan(per_case))),
        per_seed=tuple(zip(scores.seeds, by_seed, strict=True)),
        sd_seeds=float(np.std(known, ddof=1)) if len(known) > 1 and np.all(np.isfinite(known)) else None,
        sd_units=float(np.std(values, ddof=1)) if values.size > 1 and finite else None,
        failed=int(scores.failures.sum()),
        expected=int(scores.expected.sum()),
        note=note,
    )
