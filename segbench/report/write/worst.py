"""Which cases are shown: the worst of the first metric, at most three of one model, and best, median,
worst of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.block import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.runs import Run
from segbench.report.scans import ScanSource

MOST_PER_MODEL = 3


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A case of one training run with its score in the last region shown.

    Attributes:
        run: the training run.
        block: where it belongs.
        case: case id.
        region: region of the score.
        value: score in stored units.
        status: what happened to the case in that run.
        volume_ml: reference volume, NaN where unknown.
        stored: whether its volumes are on this machine.
    """

    run: Run
    block: Block
    case: str
    region: str
    value: float
    status: str
    volume_ml: float
    stored: bool


def first_metric(analysis: Analysis, block: Block) -> MetricDisplay | None:
    """The first asked metric that a block has and that has a direction."""
    return next(
        (
            item
            for item in analysis.metrics
            if item.name in block.metrics and item.higher_is_better is not None
        ),
        None,
    )


def case_values(analysis: Analysis, number: int) -> list[ShownCase]:
    """Every (training run, case) of a block with its score, worst first; ties by model, seed and case."""
    block = analysis.blocks[number]
    metric = first_metric(analysis, block)
    if metric is None:
        return []
    region = analysis.regions(number)[-1]
    sign = 1.0 if metric.higher_is_better else -1.0
    found: list[tuple[float, str, int, str, ShownCase]] = []
    for scores in block.ranked:
        table = block.per_seed(scores, region, metric.name)
        for seed, values in zip(scores.seeds, table, strict=True):
            for place in np.flatnonzero(~np.isnan(values)).tolist():
                run = run_of(block, scores, seed, place)
                if run is None:
                    continue
                item = _shown(block, scores, run, place, region, float(values[place]))
                found.append((sign * item.value, scores.model, seed, item.case, item))
    found.sort(key=lambda entry: entry[:4])
    return [entry[4] for entry in found]


def run_of(block: Block, scores: ModelScores, seed: int, place: int) -> Run | None:
    """The training run of a seed that was to score a case."""
    fold = block.folds[place]
    return next(
        (run for run in scores.runs if run.seed == seed and run.fold == fold and run.rows is not None), None
    )


def _shown(block: Block, scores: ModelScores, run: Run, place: int, region: str, value: float) -> ShownCase:
    from segbench.report.missing import NOT_RUN, STATUS_CODE, failed

    names = {code: name for name, code in STATUS_CODE.items()}
    status = scores.status[scores.seeds.index(run.seed), place]
    broken = status[failed(status)]
    code = int(broken[0]) if broken.size else next((int(c) for c in status if c != NOT_RUN), NOT_RUN)
    volumes = block.reference_ml[place]
    known = volumes[np.isfinite(volumes)]
    return ShownCase(
        run=run,
        block=block,
        case=block.cases[place],
        region=region,
        value=value,
        status=names.get(code, ""),
        volume_ml=float(known.max()) if known.size else float("nan"),
        stored=False,
    )


def worst_cases(analysis: Analysis, source: ScanSource, count: int | None) -> list[ShownCase]:
    """The worst cases over all blocks, at most three per model, each case once per model; all for None.

    Cases whose volumes are here come with `stored`; cases that have none are only listed in the missing
    table, so a picture can be shown for each while there are enough.
    """
    from dataclasses import replace

    chosen: list[tuple[float, int, ShownCase]] = []
    for number in range(len(analysis.blocks)):
        block = analysis.blocks[number]
        metric = first_metric(analysis, block)
        if metric is None:
            continue
        sign = 1.0 if metric.higher_is_better else -1.0
        taken: dict[str, int] = {}
        seen: set[tuple[str, str]] = set()
        for item in case_values(analysis, number):
            name = item.run.model
            if (name, item.case) in seen or (count is not None and taken.get(name, 0) >= MOST_PER_MODEL):
                continue
            if not source.has(item.run, item.case):
                continue
            seen.add((name, item.case))
            taken[name] = taken.get(name, 0) + 1
            chosen.append((sign * item.value, number, replace(item, stored=True)))
    chosen.sort(key=lambda entry: (entry[0], entry[1], entry[2].run.key, entry[2].case))
    items = [entry[2] for entry in chosen]
    return items if count is None else _stratified(items, count)


def _stratified(items: list[ShownCase], count: int) -> list[ShownCase]:
    """The first items, at most three of one model over all datasets."""
    taken: dict[str, int] = {}
    kept: list[ShownCase] = []
    for item in items:
        if len(kept) == count:
            break
        if taken.get(item.run.model, 0) < MOST_PER_MODEL:
            taken[item.run.model] = taken.get(item.run.model, 0) + 1
            kept.append(item)
    return kept


def spread_cases(analysis: Analysis, number: int, source: ScanSource) -> list[tuple[str, ShownCase]]:
    """Best, median and worst case of the model ranked first whose volumes are here; fewer when cases
    are few.
    """
    items = [item for item in case_values(analysis, number)]
    for model in analysis.ordered(sorted({item.run.model for item in items})):
        seed = min(item.run.seed for item in items if item.run.model == model)
        mine = [item for item in items if item.run.model == model and item.run.seed == seed]
        mine = [item for item in mine if item.status == "ok" and source.has(item.run, item.case)]
        if mine:
            places = {"best": len(mine) - 1, "median": len(mine) // 2, "worst": 0}
            chosen: dict[int, str] = {}
            for name, place in places.items():
                chosen.setdefault(place, name)
            return [(name, mine[place]) for place, name in sorted(chosen.items(), reverse=True)]
    return []
