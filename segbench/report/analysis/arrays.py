"""The rows of comparable entries as the arrays of a `Block`, with the missing policy applied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.metrics.policies import POLICIES, filled_value, may_be_undefined
from segbench.metrics.registry import METRICS
from segbench.metrics.summary import regions_in_mean
from segbench.records import facts
from segbench.report.analysis.blocks import (
    NOT_RUN,
    STATUS_CODE,
    Block,
    BoolArray,
    FloatArray,
    Scores,
    StatusArray,
    failed,
    failures,
)
from segbench.report.analysis.entries import Entry, comparable
from segbench.report.read.rows import CaseRows
from segbench.report.read.runs import Run, dataset_card


def build_blocks(
    entries: Iterable[Entry],
    *,
    missing: str = "worst",
    case_names: Mapping[tuple[str, str], str] | None = None,
) -> tuple[Block, ...]:
    """Blocks of comparable entries with the missing policy applied, by dataset and variant.

    Args:
        entries: as `build_entries` gives them; one without rows is left out.
        missing: `worst`, `drop-case` or `error`.
        case_names: how each (dataset, case) is printed, by default as it is called.

    Raises:
        SegbenchError: SB215 under `error` when a case is missing or broken, SB705 when entries of one block
            share no case.
    """
    by_dataset: dict[str, list[Entry]] = {}
    for entry in entries:
        if any(run.rows is not None for run in entry.runs):
            by_dataset.setdefault(entry.dataset, []).append(entry)
    blocks: list[Block] = []
    for dataset, members in sorted(by_dataset.items()):
        names = {case: name for (of, case), name in (case_names or {}).items() if of == dataset}
        for variant, (part, differs) in enumerate(comparable(members, names)):
            block = replace(_block(differs, part, names), number=len(blocks), variant=variant)
            _refuse_no_common(block)
            blocks.append(_without_failures(block) if missing == "drop-case" else block)
    found = [(block, *item) for block in blocks for item in failures(block)] if missing == "error" else []
    if found:
        raise SegbenchError(
            "SB215",
            f"{len(found)} expected cases have no usable result, and --missing error was asked for",
            details=[f"{block.name}: {label}: {case} {status}" for block, label, case, status in found],
            mend="write the missing predictions, or use --missing worst",
        )
    return tuple(blocks)


def _block(differs: tuple[str, ...], entries: Sequence[Entry], case_names: Mapping[str, str]) -> Block:
    """One block, values filled by the worst policy."""
    runs = [run for entry in entries for run in entry.runs]
    rows = [run.rows for run in runs if run.rows is not None]
    folds, known = _expected(runs)
    cases = tuple(sorted(folds))
    regions, mean_regions = _regions(runs)
    names = {name for part in rows for name in part.metrics}
    bare = Block(
        number=0,
        dataset=runs[0].dataset,
        variant=0,
        differs=differs,
        cases=cases,
        case_names=tuple(case_names.get(case, case) for case in cases),
        patients=patients_of(runs, cases) or cases,
        case_folds=tuple(folds[case] for case in cases),
        regions=regions,
        mean_regions=mean_regions,
        metrics=(*(name for name in METRICS if name in names), *sorted(names - set(METRICS))),
        scores=(),
        reference_ml=_largest(rows, "reference_volume_ml", cases, tuple(regions)),
        diagonals_mm=np.fmax.reduce(_largest(rows, "diagonal_mm", cases, tuple(regions)), axis=1),
        expected_known=known,
        extra_cases=tuple(sorted({case for part in rows for case in part.case} - set(cases))),
    )
    held = _largest(rows, "ok", cases, tuple(regions)) == 1
    scored = replace(bare, scores=tuple(_scores(entry, bare, held) for entry in entries))
    shared = tuple(name for name in mean_regions if all(scored.asked(one, name) for one in scored.models))
    return replace(scored, mean_regions=shared or mean_regions)


def _expected(runs: Sequence[Run]) -> tuple[dict[str, tuple[int, ...]], bool]:
    """The folds of every expected case, and whether the cases come from split.test of every fold."""
    folds: dict[str, tuple[int, ...]] = {}
    known = True
    for fold in sorted({run.fold for run in runs}):
        members = [run for run in runs if run.fold == fold]
        listed = [cases for cases in (facts.split(run.record).test for run in members) if cases]
        known &= bool(listed)
        for case in {case for cases in listed or map(_cases, members) for case in cases}:
            folds[case] = (*folds.get(case, ()), fold)
    return folds, known


def _cases(run: Run) -> Sequence[str]:
    return run.rows.case if run.rows is not None else ()


def _regions(runs: Sequence[Run]) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Regions in the order of the card, or of the records, others after by name; and those that a mean may
    average: which the card names, else all but unions of other regions.
    """
    card = dataset_card(runs[0].dataset)
    defined: dict[str, tuple[int, ...]] = {}
    for run in runs:
        for region, labels in (facts.region_labels(run.record) or {}).items():
            defined.setdefault(region, labels)
    order = [*(card.regions if card is not None else ()), *defined]
    named = {region for run in runs if run.rows is not None for region in run.rows.region}
    names = sorted(named, key=lambda name: (order.index(name) if name in order else len(order), name))
    regions = {name: defined.get(name, ()) for name in names}
    averaged = card.evaluation.mean_regions if card is not None else ()
    return regions, tuple(name for name in averaged if name in regions) or regions_in_mean(regions)


def patients_of(runs: Sequence[Run], cases: Sequence[str]) -> tuple[str, ...] | None:
    """The patient of each case by the card in the records, else the card of the dataset's name; None where
    each case is its own patient.

    Args:
        runs: runs of one dataset.
        cases: case ids.
    """
    recorded = next(filter(None, (_grouping(facts.table(run.record.dataset, "card")) for run in runs)), None)
    card = dataset_card(runs[0].dataset)
    grouping = recorded or (_grouping(card.model_dump(include={"layout", "patient"})) if card else None)
    if grouping is None or grouping[1] == "case":
        return None
    pattern, group = grouping
    try:
        compiled = re.compile(pattern)
    except re.error:  # a record of another tool may hold anything
        return None
    matches = [compiled.fullmatch(case) for case in cases]
    named = [match.groupdict().get(group) if match else None for match in matches]
    # an id of another form is a patient of its own; it does not take the others apart
    return tuple(name or case for name, case in zip(named, cases, strict=True)) if any(named) else None


def _grouping(card: Mapping[str, Any]) -> tuple[str, str] | None:
    """The pattern of case ids and the group in it that names the patient, where a card declares them."""
    pattern, group = facts.text(card, "layout", "case_pattern"), facts.text(card, "patient", "group")
    return (pattern, group) if pattern and group else None


def _places(rows: CaseRows, cases: Mapping[str, int], regions: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Of the rows whose case is among the cases: their number, the place of the case, of the region."""
    column = {region: place for place, region in enumerate(regions)}
    at = np.array([cases.get(case, -1) for case in rows.case], dtype=np.int64)
    columns = np.array([column[region] for region in rows.region], dtype=np.int64)
    lines = np.flatnonzero(at >= 0)
    return lines, at[lines], columns[lines]


def _largest(
    rows: Sequence[CaseRows], number: str, cases: Sequence[str], regions: Sequence[str]
) -> FloatArray:
    """(cases, regions): the largest that any run has of a number (`ok`: 1 where one has measured), or NaN."""
    found = np.full((len(cases), len(regions)), np.nan)
    place = {case: index for index, case in enumerate(cases)}
    for part in rows:
        lines, at, columns = _places(part, place, regions)
        values = np.array(part.status) == "ok" if number == "ok" else part.numbers[number]
        np.fmax.at(found, (at, columns), values[lines])
    return found


def _scores(entry: Entry, block: Block, held: BoolArray) -> Scores:
    """The arrays of one entry: each run filled by the policy of its own profile, a case of several folds
    averaged over them.
    """
    seeds = tuple(sorted({run.seed for run in entry.runs}))
    shape = (len(seeds), len(block.cases), len(block.regions))
    total = np.zeros((*shape, len(block.metrics)))
    count = np.zeros(total.shape, dtype=np.int64)
    unknown = np.zeros(total.shape, dtype=bool)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    # (regions,): what the runs were to score: as recorded, else the regions of their rows
    scored = {region for run in entry.runs if run.rows is not None for region in run.rows.region}
    named = facts.region_labels(entry.runs[0].record) or scored
    asked = np.array([region in named for region in block.regions], dtype=bool)
    for run in entry.runs:
        seed = seeds.index(run.seed)
        stored, run_status = _dense(run, block, asked)
        # What another has measured is in the reference: "in neither map" is then a value that is not there.
        run_status[held & (run_status == STATUS_CODE["both_empty"])] = STATUS_CODE["missing"]
        policy = facts.empty_policy(run.record)
        values, lacks = fill(stored, run_status, block.diagonals_mm, block.metrics, empty_policy=policy)
        known = ~np.isnan(values)
        total[seed] += np.where(known, values, 0.0)
        count[seed] += known
        unknown[seed] |= lacks
        worse = (run_status != NOT_RUN) & ((status[seed] == NOT_RUN) | failed(run_status))
        status[seed] = np.where(worse, run_status, status[seed])
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    folds = tuple(sorted({run.fold for run in entry.runs}))
    return Scores(entry, seeds, folds, asked, mean, unknown, status)


def _dense(run: Run, block: Block, asked: BoolArray) -> tuple[FloatArray, StatusArray]:
    """Stored values and statuses of one run on the block's axes; absent rows: missing."""
    shape = (len(block.cases), len(block.regions))
    stored = np.full((*shape, len(block.metrics)), np.nan)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    mine = np.flatnonzero([run.fold in folds for folds in block.case_folds])
    status[np.ix_(mine, asked)] = STATUS_CODE["missing"]
    if run.rows is not None:
        places = {block.cases[index]: index for index in mine.tolist()}
        lines, at, columns = _places(run.rows, places, [*block.regions])
        status[at, columns] = np.array([STATUS_CODE[name] for name in run.rows.status], dtype=np.uint8)[lines]
        for index, metric in enumerate(block.metrics):
            if metric in run.rows.metrics:
                stored[at, columns, index] = run.rows.metrics[metric][lines]
    return stored, status


def _refuse_no_common(block: Block) -> None:
    """SB705 when the expected cases are only the union of the runs and two models have none in common."""
    if block.expected_known:
        return
    scored = {
        scores.label: {case for run in scores.entry.runs for case in _cases(run)} for scores in block.models
    }
    folds = {scores.label: set(scores.folds) for scores in block.models}
    for a, b in combinations(sorted(scored), 2):
        if folds[a] & folds[b] and scored[a] and scored[b] and not scored[a] & scored[b]:
            raise SegbenchError(
                "SB705",
                f"{a} and {b} share no case of {block.dataset}",
                details=(f"{a}: {len(scored[a])} cases", f"{b}: {len(scored[b])} cases"),
            )


def _without_failures(block: Block) -> Block:
    """The block under `drop-case`: cases that failed anywhere leave all entries."""
    lost = np.any([scores.failures for scores in block.scores], axis=0)
    away = lost[:, None, None]
    scores = tuple(
        replace(item, values=np.where(away, np.nan, item.values), unknown=item.unknown & ~away)
        for item in block.scores
    )
    dropped = tuple(block.case_names[place] for place in np.flatnonzero(lost).tolist())
    return replace(block, scores=scores, dropped_cases=dropped)


# ---- what stands where a prediction is missing or broken: never anything that helps


def worst_values(metric: str, diagonal: FloatArray, empty_policy: str | None) -> FloatArray | None:
    """The worst value of a metric per case, NaN where it needs a diagonal that is not known.

    Args:
        metric: column name.
        diagonal: (cases,) physical diagonals in mm, NaN where unknown.
        empty_policy: of the metric profile, None when unknown. Under `inf`, `brats` and `paper` a failure
            costs at least what their own tables say, so that deleting a stored failure cannot help.

    Returns:
        (cases,), or None for metrics without a worst value (descriptive and unknown ones).
    """
    info = METRICS.get(metric)
    if info is None or info.worst is None:
        return None
    policy = empty_policy if empty_policy is not None and empty_policy in POLICIES else "worst"
    return np.array(
        [filled_value(metric, "missing", policy=policy, diagonal_mm=each) for each in diagonal.tolist()]
    )


def fill(
    stored: FloatArray,
    status: StatusArray,
    diagonal: FloatArray,
    metrics: Sequence[str],
    *,
    empty_policy: str | None,
) -> tuple[FloatArray, BoolArray]:
    """Values of one series with every failure at its worst.

    Failed rows take the worst value, a stored one that is as bad or worse stays. Rows with one side empty,
    and rows that should hold a measurement, keep a finite stored value and take the worst in place of
    anything else. `both_empty` keeps what is stored. A metric that a run did not measure at all stays
    undefined.

    Args:
        stored: (cases, regions, metrics) as read, NaN where empty.
        status: (cases, regions) codes, `NOT_RUN` where no run covers the case.
        diagonal: (cases,) mm, NaN where unknown.
        metrics: names along the last axis.
        empty_policy: see `worst_values`.

    Returns:
        values, NaN where undefined, not measured, not run or not known; and where a penalty is due and no
        diagonal is known. Both (cases, regions, metrics).
    """
    values = np.full(stored.shape, np.nan)
    unknown = np.zeros(stored.shape, dtype=bool)
    covered = status != NOT_RUN
    broken = failed(status) & covered
    empty = (status == STATUS_CODE["both_empty"]) & covered
    other = covered & ~broken & ~empty
    for index, metric in enumerate(metrics):
        column = stored[:, :, index]
        if np.isnan(column).all() and bool(np.any(status == STATUS_CODE["ok"])):
            continue  # the run did not measure it, though a row could have held a value
        out = np.where(other | empty, column, np.nan)
        worst = worst_values(metric, diagonal, empty_policy)
        if worst is not None:
            higher = METRICS[metric].direction == "higher"
            limit = np.broadcast_to(worst[:, None], column.shape)
            needs = other & ~np.isfinite(column)
            if may_be_undefined(metric, empty_policy):
                needs &= ~np.isnan(column)
            beyond = column <= limit if higher else (column >= limit) | np.isposinf(column)
            keep = broken & ~np.isnan(column) & beyond
            out = np.where(needs | (broken & ~keep), limit, out)
            out = np.where(keep, column, out)
            unknown[:, :, index] = (needs | broken) & np.isnan(out)
        values[:, :, index] = out
    return values, unknown
