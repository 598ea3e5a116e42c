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
from segbench.report.block import Block, ModelScores, nan_mean
from segbench.report.missing import (
    BOTH_EMPTY,
    MISSING,
    NOT_RUN,
    STATUS_CODE,
    FloatArray,
    StatusArray,
    failed,
    fill,
)
from segbench.report.runs import Run

MISSING_POLICIES = ("worst", "drop-case", "error")


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
