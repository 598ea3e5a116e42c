"""Comparable runs as dense arrays: what every table, test and figure starts from.

A block holds runs of one dataset and one protocol whose split and metric profile do not contradict each
other; where they do, a further block is opened, so that nothing is ranked or tested across the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.metrics.registry import METRICS
from segbench.report import facts
from segbench.report.missing import (
    BOTH_EMPTY,
    MISSING,
    NOT_RUN,
    STATUS_CODE,
    BoolArray,
    FloatArray,
    StatusArray,
    failed,
    fill,
)
from segbench.report.runs import MEAN_REGION, Run

MISSING_POLICIES = ("worst", "drop-case", "error")


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


def build_blocks(
    runs: Iterable[Run], *, missing: str = "worst", include_unfinished: bool = False
) -> tuple[Block, ...]:
    """Blocks of comparable runs with the missing policy applied, by dataset, protocol and variant.

    Args:
        runs: as `read_runs` gives them; runs without usable rows are left out (unless unfinished ones are
            included, whose absent cases then count as missing).
        missing: `worst`, `drop-case` or `error`.
        include_unfinished: take runs that are not complete as well.

    Raises:
        SegbenchError: SB215 under `error` when a case is missing or broken, SB705 when models share no case.
        ValueError: an unknown policy.
    """
    if missing not in MISSING_POLICIES:
        raise ValueError(f"missing must be one of {', '.join(MISSING_POLICIES)}, not {missing!r}")
    usable = [
        run
        for run in runs
        if (run.complete and run.rows is not None) or (include_unfinished and not run.complete)
    ]
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(usable, key=lambda run: run.key):
        groups.setdefault((run.dataset, run.protocol), []).append(run)
    blocks: list[Block] = []
    for (dataset, protocol), members in sorted(groups.items()):
        for variant, part in enumerate(partition(members)):
            block = _block(dataset, protocol, variant, part)
            if block is not None:
                blocks.append(_apply(block, missing))
    if missing == "error":
        _refuse_missing(blocks)
    return tuple(blocks)


def partition(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in groups without a known contradiction of split (per fold) or metric profile."""
    groups: list[list[Run]] = []
    for run in runs:
        home = next((group for group in groups if not any(_contradict(run, other) for other in group)), None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    return groups


def _contradict(a: Run, b: Run) -> bool:
    def differ(x: str | None, y: str | None) -> bool:
        return x is not None and y is not None and x != y

    split = a.fold == b.fold and differ(facts.split_digest(a), facts.split_digest(b))
    return split or differ(facts.profile_digest(a), facts.profile_digest(b))


def _block(dataset: str, protocol: str, variant: int, runs: Sequence[Run]) -> Block | None:
    """One block, values filled by the worst policy; None when no run of it has rows."""
    with_rows = [run for run in runs if run.rows is not None]
    if not with_rows:
        return None
    cases, folds, known, extra = _expected(runs)
    regions = _region_order(
        dataset, {region for run in with_rows for region in (run.rows.region if run.rows else ())}
    )
    metrics = _metric_order({name for run in with_rows for name in (run.rows.metrics if run.rows else ())})
    frame = _Frame(cases, folds, regions, metrics, _diagonals(with_rows, cases))
    names = sorted({run.model for run in runs})
    models = tuple(_model(name, [run for run in runs if run.model == name], frame) for name in names)
    block = Block(
        dataset=dataset,
        protocol=protocol,
        variant=variant,
        cases=cases,
        folds=tuple(folds[case][0] for case in cases),
        regions=regions,
        metrics=metrics,
        models=models,
        reference_ml=_reference_volumes(with_rows, cases, regions),
        expected_known=known,
        extra_cases=extra,
    )
    _refuse_no_common(block)
    return block


@dataclass(frozen=True)
class _Frame:
    """Axes shared by the arrays of a block."""

    cases: tuple[str, ...]
    folds: Mapping[str, tuple[int, ...]]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    diagonal: FloatArray


def _expected(
    runs: Sequence[Run],
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], bool, tuple[str, ...]]:
    """Expected cases with their folds, whether they come from split.test, and rows beyond them."""
    by_fold: dict[int, set[str]] = {}
    known = True
    scored: set[str] = set()
    for fold in sorted({run.fold for run in runs}):
        members = [run for run in runs if run.fold == fold]
        listed = [cases for cases in (facts.test_cases(run) for run in members) if cases is not None]
        rows = {case for run in members if run.rows is not None for case in run.rows.case}
        scored |= rows
        known &= bool(listed)
        by_fold[fold] = {case for cases in listed for case in cases} if listed else rows
    folds: dict[str, tuple[int, ...]] = {}
    for fold, cases in by_fold.items():
        for case in cases:
            folds[case] = (*folds.get(case, ()), fold)
    return tuple(sorted(folds)), folds, known, tuple(sorted(scored - set(folds)))


def _region_order(dataset: str, regions: set[str]) -> tuple[str, ...]:
    """Regions in the card's order when there is a card, others after in alphabetical order."""
    from segbench.cards import load_dataset_card

    try:
        order = list(load_dataset_card(dataset).regions)
    except SegbenchError:
        order = []
    return tuple(sorted(regions, key=lambda name: (order.index(name) if name in order else len(order), name)))


def _metric_order(names: set[str]) -> tuple[str, ...]:
    return (*(name for name in METRICS if name in names), *sorted(names - set(METRICS)))


def _diagonals(runs: Sequence[Run], cases: tuple[str, ...]) -> FloatArray:
    """(cases,): the largest diagonal any run of the block knows of a case, NaN where none does."""
    place = {case: index for index, case in enumerate(cases)}
    diagonal = np.full(len(cases), np.nan)
    for run in runs:
        if run.rows is None:
            continue
        for case, value in zip(run.rows.case, run.rows.numbers["diagonal_mm"].tolist(), strict=True):
            if case in place and np.isfinite(value):
                diagonal[place[case]] = np.fmax(diagonal[place[case]], value)
    return diagonal


def _reference_volumes(runs: Sequence[Run], cases: tuple[str, ...], regions: tuple[str, ...]) -> FloatArray:
    """(cases, regions): the reference's volume, the largest where runs disagree."""
    place = {case: index for index, case in enumerate(cases)}
    column = {region: index for index, region in enumerate(regions)}
    volumes = np.full((len(cases), len(regions)), np.nan)
    for run in runs:
        if run.rows is None:
            continue
        values = run.rows.numbers["reference_volume_ml"].tolist()
        for case, region, value in zip(run.rows.case, run.rows.region, values, strict=True):
            if case in place and value == value:
                at = (place[case], column[region])
                volumes[at] = np.fmax(volumes[at], value)
    return volumes


def _model(name: str, runs: Sequence[Run], frame: _Frame) -> ModelScores:
    """The arrays of one model: each run filled by the policy of its own profile."""
    seeds = tuple(sorted({run.seed for run in runs}))
    shape = (len(seeds), len(frame.cases), len(frame.regions))
    total = np.zeros((*shape, len(frame.metrics)))
    count = np.zeros(total.shape, dtype=np.int64)
    unknown = np.zeros(total.shape, dtype=bool)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    volume = np.full(shape, np.nan)
    for run in runs:
        seed = seeds.index(run.seed)
        stored, run_status, run_volume = _dense(run, frame)
        filled = fill(stored, run_status, frame.diagonal, frame.metrics, empty_policy=facts.empty_policy(run))
        known = ~np.isnan(filled.values)
        total[seed] += np.where(known, filled.values, 0.0)
        count[seed] += known
        unknown[seed] |= filled.unknown
        covered = run_status != NOT_RUN
        worse = covered & ((status[seed] == NOT_RUN) | failed(run_status))
        status[seed] = np.where(worse, run_status, status[seed])
        volume[seed] = np.where(np.isnan(volume[seed]), run_volume, volume[seed])
    values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return ModelScores(
        model=name,
        runs=tuple(sorted(runs, key=lambda run: run.key)),
        seeds=seeds,
        folds=tuple(sorted({run.fold for run in runs})),
        values=values,
        unknown=unknown,
        status=status,
        prediction_ml=volume,
    )


def _dense(run: Run, frame: _Frame) -> tuple[FloatArray, StatusArray, FloatArray]:
    """Stored values, statuses and predicted volumes of one run on the block's axes; absent rows: missing."""
    shape = (len(frame.cases), len(frame.regions))
    stored = np.full((*shape, len(frame.metrics)), np.nan)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    volume = np.full(shape, np.nan)
    mine = np.array([run.fold in frame.folds[case] for case in frame.cases], dtype=bool)
    status[mine] = MISSING
    if run.rows is None:
        return stored, status, volume
    place = {case: index for index, case in enumerate(frame.cases) if mine[index]}
    column = {region: index for index, region in enumerate(frame.regions)}
    pairs = [
        (line, place[case], column[region])
        for line, (case, region) in enumerate(zip(run.rows.case, run.rows.region, strict=True))
        if case in place
    ]
    if not pairs:
        return stored, status, volume
    lines, rows, columns = (np.array(part) for part in zip(*pairs, strict=True))
    status[rows, columns] = [STATUS_CODE[run.rows.status[line]] for line in lines]
    volume[rows, columns] = run.rows.numbers["prediction_volume_ml"][lines]
    for index, metric in enumerate(frame.metrics):
        if metric in run.rows.metrics:
            stored[rows, columns, index] = run.rows.metrics[metric][lines]
    return stored, status, volume


def _refuse_no_common(block: Block) -> None:
    """SB705 when the expected cases are only the union of the runs and two models have none in common."""
    if block.expected_known:
        return
    scored = {
        model.model: {case for run in model.runs if run.rows is not None for case in run.rows.case}
        for model in block.models
        if not model.floor
    }
    folds = {model.model: set(model.folds) for model in block.models}
    names = sorted(scored)
    for index, a in enumerate(names):
        for b in names[index + 1 :]:
            if folds[a] & folds[b] and scored[a] and scored[b] and not scored[a] & scored[b]:
                raise SegbenchError(
                    "SB705",
                    f"{a} and {b} share no case of {block.dataset}",
                    details=(f"{a}: {len(scored[a])} cases", f"{b}: {len(scored[b])} cases"),
                )


def _apply(block: Block, missing: str) -> Block:
    """The block under `drop-case`: cases that failed anywhere leave all models; else as it is."""
    if missing != "drop-case":
        return block
    lost = np.zeros(len(block.cases), dtype=bool)
    for model in block.models:
        lost |= np.any(failed(model.status), axis=(0, 2))
    if not lost.any():
        return block
    from dataclasses import replace

    def blank(model: ModelScores) -> ModelScores:
        values, unknown = model.values.copy(), model.unknown.copy()
        values[:, lost] = np.nan
        unknown[:, lost] = False
        return replace(model, values=values, unknown=unknown)

    dropped = tuple(case for case, gone in zip(block.cases, lost.tolist(), strict=True) if gone)
    return replace(block, models=tuple(blank(model) for model in block.models), dropped_cases=dropped)


def failures(block: Block) -> list[tuple[str, str, str]]:
    """(model, case, status) of every case without a usable result, once per model and case."""
    names = {code: name for name, code in STATUS_CODE.items()}
    found: list[tuple[str, str, str]] = []
    for model in block.models:
        broken = failed(model.status)
        for index in np.flatnonzero(np.any(broken, axis=(0, 2))).tolist():
            codes = model.status[:, index][broken[:, index]]
            found.append((model.model, block.cases[index], names[int(codes.min())]))
    return found


def _refuse_missing(blocks: Sequence[Block]) -> None:
    found = [(block, *item) for block in blocks for item in failures(block)]
    if found:
        raise SegbenchError(
            "SB215",
            f"{len(found)} expected cases have no usable result, and --missing error was asked for",
            details=[f"{block.name}: {model}: {case} {status}" for block, model, case, status in found],
            mend="write the missing predictions, or use --missing worst",
        )


__all__ = ["BOTH_EMPTY", "Block", "ModelScores", "build_blocks", "failures", "nan_mean", "partition"]
