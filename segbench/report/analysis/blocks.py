"""Comparable entries as dense arrays: what every table, test and figure starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.metrics.policies import FAILED, STATUSES
from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.entries import Entry
from segbench.report.read.runs import Run

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StatusArray = npt.NDArray[np.uint8]

STATUS_CODE: Mapping[str, int] = {name: index for index, name in enumerate(STATUSES)}
NOT_RUN = 255  # no run covers this case (another fold): not expected, not counted


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one entry within a block.

    Attributes:
        entry: whose they are.
        seeds: seeds with at least one run, ascending.
        folds: folds with at least one run, ascending.
        asked: (regions,): the regions that its runs were asked to score by the block's definition.
        values: (seeds, cases, regions, metrics) after the missing policy; NaN where undefined, not asked for
            or not run.
        unknown: same shape; True where a distance penalty is due and no diagonal is known.
        status: (seeds, cases, regions) codes of `STATUS_CODE`, `NOT_RUN` where no run covers the
            case or the region was not asked for.
    """

    entry: Entry
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    asked: BoolArray
    values: FloatArray
    unknown: BoolArray
    status: StatusArray

    @property
    def label(self) -> str:
        """Name of the row."""
        return self.entry.label

    @property
    def short(self) -> str:
        """Its printed name."""
        return self.entry.short

    @property
    def expected(self) -> BoolArray:
        """(cases,): cases that at least one run was to score."""
        return np.any(self.status != NOT_RUN, axis=(0, 2))

    @property
    def failures(self) -> BoolArray:
        """(cases,): cases without a usable prediction in any of the runs."""
        return np.any(failed(self.status), axis=(0, 2))


@dataclass(frozen=True, eq=False)
class Block:
    """Entries that may be compared with each other.

    Attributes:
        number: among all blocks of the analysis, from 0.
        dataset: dataset slug.
        variant: 0, or the running number of a block set apart because data, split or rules differ.
        differs: in what this block differs from the ones before it, a line each.
        cases: expected case ids, sorted.
        case_names: how each is printed: its id, or a pseudonym.
        patients: the patient of each case; the case itself where no grouping is declared.
        case_folds: folds of each case, ascending.
        regions: name -> labels in table order, without the pseudo-region; labels are empty where unknown.
        mean_regions: the regions that the pseudo-region `mean` averages; all models were asked for them.
        metrics: metric columns, registry order first, unknown ones after.
        scores: baselines and models by label.
        reference_ml: (cases, regions) reference volumes, NaN where unknown.
        diagonals_mm: (cases,) the largest diagonal that any run knows of a case, NaN where none does.
        expected_known: whether the expected cases come from split.test (else: union over the runs).
        extra_cases: cases with rows that are not expected, left out.
        dropped_cases: cases left out for all entries under `drop-case`.
    """

    number: int
    dataset: str
    variant: int
    differs: tuple[str, ...]
    cases: tuple[str, ...]
    case_names: tuple[str, ...]
    patients: tuple[str, ...]
    case_folds: tuple[tuple[int, ...], ...]
    regions: Mapping[str, tuple[int, ...]]
    mean_regions: tuple[str, ...]
    metrics: tuple[str, ...]
    scores: tuple[Scores, ...]
    reference_ml: FloatArray
    diagonals_mm: FloatArray
    expected_known: bool
    extra_cases: tuple[str, ...] = ()
    dropped_cases: tuple[str, ...] = ()

    @property
    def folds(self) -> tuple[int, ...]:
        """Fold of each case, the first when it is in several."""
        return tuple(folds[0] for folds in self.case_folds)

    @property
    def diagonal_mm(self) -> float:
        """The largest diagonal of a case, NaN where none is known."""
        return float(np.fmax.reduce(self.diagonals_mm, initial=np.nan))

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x) that distances were measured with; None where no record has it."""
        return next((run.record.spacing_mm for run in self.runs if run.record.spacing_mm), None)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the block."""
        return tuple(run for scores in self.scores for run in scores.entry.runs)

    @property
    def models(self) -> tuple[Scores, ...]:
        """What takes part in comparisons: all but the baselines and the other readers."""
        return tuple(scores for scores in self.scores if not (scores.entry.baseline or scores.entry.reader))

    @property
    def baselines(self) -> tuple[Scores, ...]:
        """The predictors without learning."""
        return tuple(scores for scores in self.scores if scores.entry.baseline)

    @property
    def readers(self) -> tuple[Scores, ...]:
        """Other people's segmentations of the same cases: the ceiling."""
        return tuple(scores for scores in self.scores if scores.entry.reader)

    def short(self, label: str) -> str:
        """The printed name of an entry."""
        return next(scores.short for scores in self.scores if scores.label == label)

    def contenders(self, baselines: bool) -> tuple[Scores, ...]:
        """What is compared: the models, and the baselines where they are to take part."""
        return self.scores if baselines else self.models

    @property
    def grouped(self) -> bool:
        """Whether some patient has several cases."""
        return len(set(self.patients)) < len(self.patients)

    @property
    def unit(self) -> str:
        """What n counts: `patients` where a grouping is declared, else `cases`."""
        return "patients" if self.grouped else "cases"

    @property
    def count(self) -> str:
        """How many patients, with their cases beside them, such as `20 patients (45 cases)`."""
        cases = f" ({len(self.cases) - len(self.dropped_cases)} cases)" if self.grouped else ""
        return f"{len(self.units)} {self.unit}{cases}"

    @property
    def name(self) -> str:
        """Dataset, with a letter when there is more than one block of it."""
        return self.dataset if self.variant == 0 else f"{self.dataset} ({chr(ord('a') + self.variant)})"

    @property
    def table_regions(self) -> tuple[str, ...]:
        """Regions as tables show them: the mean is added where it averages more than one."""
        names = tuple(self.regions)
        return (*names, MEAN_REGION) if len(self.mean_regions) > 1 else names

    @property
    def main_region(self) -> str:
        """The column that decides: the mean over regions, or the one region it would consist of."""
        return self.mean_regions[0] if len(self.mean_regions) == 1 else MEAN_REGION

    def places(self, region: str) -> list[int]:
        """Where a region stands along the third axis of the scores; for `mean`: all that it averages."""
        names = list(self.regions)
        wanted = self.mean_regions if region == MEAN_REGION else (region,)
        return [names.index(name) for name in wanted]

    def asked(self, scores: Scores, region: str) -> bool:
        """Whether an entry was asked to score a region (for `mean`: all regions that it averages)."""
        return bool(scores.asked[self.places(region)].all())

    def per_case(self, scores: Scores, region: str, metric: str) -> FloatArray:
        """(seeds, cases): values of each training run; NaN where undefined, unknown, not asked or not run."""
        if not self.asked(scores, region):
            return np.full(scores.values.shape[:2], np.nan)
        places, column = self.places(region), self.metrics.index(metric)
        unknown, values = (part[:, :, places, column] for part in (scores.unknown, scores.values))
        return nan_mean(np.where(unknown, np.nan, values), axis=2)

    def per_patient(self, scores: Scores, region: str, metric: str) -> FloatArray:
        """(seeds, patients): the cases of a patient averaged; patients in sorted order."""
        table = self.per_case(scores, region, metric)
        if not self.grouped:
            return table
        names, place = np.unique(np.array(self.patients), return_inverse=True)
        parts = [nan_mean(table[:, place == index], axis=1) for index in range(len(names))]
        return np.stack(parts, axis=1)

    @property
    def unit_of(self) -> tuple[str, ...]:
        """The patient of each case where n counts patients, else the case."""
        return self.patients if self.grouped else self.cases

    @property
    def units(self) -> tuple[str, ...]:
        """Names along the second axis of `per_patient`."""
        return tuple(sorted(set(self.unit_of)))

    def lacks_penalty(self, scores: Scores, region: str, metric: str) -> bool:
        """Whether a penalty of this column is not known, so that no mean may be printed."""
        return bool(np.any(scores.unknown[:, :, self.places(region), self.metrics.index(metric)]))


def failed(status: StatusArray) -> BoolArray:
    """Where there is no usable prediction."""
    return np.isin(status, [STATUS_CODE[name] for name in sorted(FAILED)])


def nan_mean(values: FloatArray, *, axis: int) -> FloatArray:
    """Mean without NaN along an axis; NaN where there is nothing; inf stays inf."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def failures(block: Block) -> list[tuple[str, str, str]]:
    """(label, case, status) of every case without a usable result, once per entry and case."""
    found: list[tuple[str, str, str]] = []
    for scores in block.scores:
        broken = failed(scores.status)
        for index in np.flatnonzero(scores.failures).tolist():
            codes = scores.status[:, index][broken[:, index]]
            found.append((scores.label, block.case_names[index], STATUSES[int(codes.min())]))
    return found
