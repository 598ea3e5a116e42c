"""Which cases are shown: the worst in the primary metric whose volumes are here, at most three a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block, Scores
from segbench.report.analysis.metric import Metric
from segbench.report.read.runs import Run
from segbench.report.write.scans import ScanSource

MOST_PER_MODEL = 3


@dataclass(frozen=True, slots=True, eq=False)
class ShownCase:
    """A case of one training run.

    Attributes:
        run: the training run.
        label: of its entry.
        block: where it belongs.
        case: case id.
        metric: the primary metric.
        value: score of the case in the deciding column, stored units.
        volume_ml: largest reference volume of its regions, NaN where unknown.
    """

    run: Run
    label: str
    block: Block
    case: str
    metric: Metric
    value: float
    volume_ml: float


def worst_cases(analysis: Analysis, source: ScanSource, count: int) -> list[ShownCase]:
    """The worst cases over all blocks: each case once per model, at most three of one model."""
    found: list[tuple[float, int, str, int, str, ShownCase]] = []
    for column in analysis.main_columns() if analysis.metrics else ():
        block, metric = analysis.blocks[column.block], column.metric
        if metric.higher_is_better is None:
            continue
        sign = 1.0 if metric.higher_is_better else -1.0
        for scores in block.models:
            if not any(source.holds(run) for run in scores.entry.runs):
                continue
            for item in _case_values(block, scores, column.region, metric):
                key = (sign * item.value, column.block, item.label, item.run.seed, item.case)
                found.append((*key, item))
    found.sort(key=lambda entry: entry[:5])
    kept: list[ShownCase] = []
    taken: dict[str, int] = {}
    seen: set[tuple[int, str, str]] = set()
    for *_, item in found:
        if len(kept) == count:
            break
        key = (id(item.block), item.label, item.case)
        if key in seen or taken.get(item.label, 0) >= MOST_PER_MODEL:
            continue
        if source.has(item.run, item.case):
            seen.add(key)
            taken[item.label] = taken.get(item.label, 0) + 1
            kept.append(item)
    return kept


def _case_values(block: Block, scores: Scores, region: str, metric: Metric) -> list[ShownCase]:
    """Every (training run, case) of an entry with a finite score."""
    found: list[ShownCase] = []
    largest = np.max(np.nan_to_num(block.reference_ml, nan=-1.0), axis=1, initial=-1.0)
    table = block.per_case(scores, region, metric.name)
    for seed, values in zip(scores.seeds, table, strict=True):
        for place in np.flatnonzero(np.isfinite(values)).tolist():
            run = _run_of(scores, seed, block.folds[place])
            if run is not None:
                volume = float(largest[place]) if largest[place] >= 0 else float("nan")
                case, value = block.cases[place], float(values[place])
                found.append(ShownCase(run, scores.label, block, case, metric, value, volume))
    return found


def _run_of(scores: Scores, seed: int, fold: int) -> Run | None:
    """The training run of a seed that was to score a case of a fold."""
    runs = (run for run in scores.entry.runs if (run.seed, run.fold) == (seed, fold))
    return next((run for run in runs if run.rows is not None), None)
