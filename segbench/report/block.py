"""A block of comparable runs as dense arrays: what every table, test and figure starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbench.report import facts
from segbench.report.missing import (
    NOT_RUN,
    BoolArray,
    FloatArray,
    StatusArray,
)
from segbench.report.rows import MEAN_REGION
from segbench.report.runs import Run


@dataclass(frozen=True, eq=False)
class ModelScores:
    """All training runs of one model within a block.

    Attributes:
        model: slug or label.
        runs: its runs, by seed and fold.
        seeds: seeds with at least one run, ascending.
        folds: folds with at least one run, ascending.
        values: (seeds, cases, regions, metrics) after the missing policy; NaN where undefined or not run.
        unknown: same shape; True where a distance penalty is due and no diagonal is known.
        status: (seeds, cases, regions) codes of `missing.STATUS_CODE`, `NOT_RUN` where no run covers the
            case.
        prediction_ml: (seeds, cases, regions) predicted volumes, NaN where unknown.
    """

    model: str
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    values: FloatArray
    unknown: BoolArray
    status: StatusArray
    prediction_ml: FloatArray

    @property
    def floor(self) -> bool:
        """Whether this is a floor: shown in a line of its own, never ranked."""
        return any(facts.is_floor(run) for run in self.runs)

    @property
    def covered(self) -> BoolArray:
        """(cases,): cases that at least one run of the model was to score."""
        return np.any(self.status != NOT_RUN, axis=(0, 2))

    def per_case(self, region: int, metric: int) -> FloatArray:
        """(cases,): mean over seeds; NaN where nothing is defined or known."""
        stack = self.values[:, :, region, metric]
        averaged = nan_mean(stack, axis=0)
        averaged[np.any(self.unknown[:, :, region, metric], axis=0)] = np.nan
        return averaged

    def per_case_mean_region(self, metric: int) -> FloatArray:
        """(cases,): mean over seeds, then over the regions that have a value."""
        columns = [self.per_case(region, metric) for region in range(self.values.shape[2])]
        return nan_mean(np.stack(columns), axis=0)

    def lacks_penalty(self, region: int, metric: int) -> bool:
        """Whether a penalty of this column is not known, so that no mean may be printed."""
        return bool(np.any(self.unknown[:, :, region, metric]))


@dataclass(frozen=True, eq=False)
class Block:
    """Runs that may be compared with each other.

    Attributes:
        dataset: dataset slug.
        protocol: protocol name.
        variant: 0, or the running number of a block split off because its split or profile differs.
        cases: expected case ids, sorted.
        folds: fold of each case (the first when a case is in several).
        regions: region names in table order, without the pseudo-region.
        metrics: metric columns, registry order first, unknown ones after.
        models: floors and models by name.
        reference_ml: (cases, regions) reference volumes, NaN where unknown.
        expected_known: whether the expected cases come from split.test (else: union over the runs).
        extra_cases: cases with rows that are not expected, left out.
        dropped_cases: cases left out for all models under `drop-case`.
    """

    dataset: str
    protocol: str
    variant: int
    cases: tuple[str, ...]
    folds: tuple[int, ...]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    models: tuple[ModelScores, ...]
    reference_ml: FloatArray
    expected_known: bool
    extra_cases: tuple[str, ...] = ()
    dropped_cases: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the block."""
        return tuple(run for model in self.models for run in model.runs)

    @property
    def ranked(self) -> tuple[ModelScores, ...]:
        """Models that take part in comparisons: all but the floors."""
        return tuple(model for model in self.models if not model.floor)

    @property
    def floors(self) -> tuple[ModelScores, ...]:
        """The floors."""
        return tuple(model for model in self.models if model.floor)

    @property
    def name(self) -> str:
        """Dataset, with the variant when there is more than one block of it."""
        return self.dataset if self.variant == 0 else f"{self.dataset} ({chr(ord('b') + self.variant - 1)})"

    @property
    def table_regions(self) -> tuple[str, ...]:
        """Regions as tables show them: the mean is added when there is more than one."""
        return (*self.regions, MEAN_REGION) if len(self.regions) > 1 else self.regions

    def per_case(self, model: ModelScores, region: str, metric: str) -> FloatArray:
        """(cases,): seed-averaged values of a model, `mean` being the per-case mean over regions."""
        column = self.metrics.index(metric)
        if region == MEAN_REGION:
            return model.per_case_mean_region(column)
        return model.per_case(self.regions.index(region), column)

    def per_seed(self, model: ModelScores, region: str, metric: str) -> FloatArray:
        """(seeds, cases): values of each training run; unknown penalties are NaN."""
        column = self.metrics.index(metric)
        values = np.where(model.unknown, np.nan, model.values)[:, :, :, column]
        if region == MEAN_REGION:
            return nan_mean(values, axis=2)
        return values[:, :, self.regions.index(region)]


def nan_mean(values: FloatArray, *, axis: int) -> FloatArray:
    """Mean without NaN along an axis; NaN where there is nothing; inf stays inf."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
