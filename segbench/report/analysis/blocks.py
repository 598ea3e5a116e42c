"""Comparable entries as dense arrays: what every table, test and figure starts from.

Entries stand in one block when data, split and scoring rules are not known to differ; recipes may differ.
What contradicts stands in a block of its own, with the differing field named, and nothing is ranked or tested
across blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.metrics.registry import METRICS
from segbench.metrics.summary import MEAN_REGION, regions_in_mean
from segbench.report.analysis.entries import Entry
from segbench.report.analysis.identity import UNKNOWN, data_facts, patients_of, rules
from segbench.report.analysis.missing import (
    MISSING,
    NOT_RUN,
    STATUS_CODE,
    BoolArray,
    FloatArray,
    StatusArray,
    failed,
    fill,
)
from segbench.report.read import facts
from segbench.report.read.runs import Run

MISSING_POLICIES = ("worst", "drop-case", "error")


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
        status: (seeds, cases, regions) codes of `missing.STATUS_CODE`, `NOT_RUN` where no run covers the
            case or the region was not asked for.
        prediction_ml: (seeds, cases, regions) predicted volumes, NaN where unknown.
    """

    entry: Entry
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    asked: BoolArray
    values: FloatArray
    unknown: BoolArray
    status: StatusArray
    prediction_ml: FloatArray

    @property
    def label(self) -> str:
        """Name of the row."""
        return self.entry.label

    @property
    def baseline(self) -> bool:
        """Whether this is a predictor without learning."""
        return self.entry.baseline

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
        dataset: dataset slug.
        variant: 0, or the running number of a block set apart because data, split or rules differ.
        differs: in what this block differs from the ones before it, a line each.
        cases: expected case ids, sorted.
        patients: the patient of each case; the case itself where no grouping is declared.
        folds: fold of each case (the first when a case is in several).
        regions: name -> labels in table order, without the pseudo-region; labels are empty where unknown.
        mean_regions: the regions that the pseudo-region `mean` averages.
        metrics: metric columns, registry order first, unknown ones after.
        scores: baselines and models by label.
        reference_ml: (cases, regions) reference volumes, NaN where unknown.
        diagonal_mm: the largest diagonal of a case, NaN where none is known.
        expected_known: whether the expected cases come from split.test (else: union over the runs).
        extra_cases: cases with rows that are not expected, left out.
        dropped_cases: cases left out for all entries under `drop-case`.
    """

    dataset: str
    variant: int
    differs: tuple[str, ...]
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    folds: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]]
    mean_regions: tuple[str, ...]
    metrics: tuple[str, ...]
    scores: tuple[Scores, ...]
    reference_ml: FloatArray
    diagonal_mm: float
    expected_known: bool
    extra_cases: tuple[str, ...] = ()
    dropped_cases: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the block."""
        return tuple(run for scores in self.scores for run in scores.entry.runs)

    @property
    def models(self) -> tuple[Scores, ...]:
        """What takes part in comparisons: all but the baselines."""
        return tuple(scores for scores in self.scores if not scores.baseline)

    @property
    def baselines(self) -> tuple[Scores, ...]:
        """The predictors without learning."""
        return tuple(scores for scores in self.scores if scores.baseline)

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

    def asked(self, scores: Scores, region: str) -> bool:
        """Whether an entry was asked to score a region (for `mean`: all regions that it averages)."""
        names = list(self.regions)
        wanted = self.mean_regions if region == MEAN_REGION else (region,)
        return all(bool(scores.asked[names.index(name)]) for name in wanted)

    def per_case(self, scores: Scores, region: str, metric: str) -> FloatArray:
        """(seeds, cases): values of each training run; NaN where undefined, unknown, not asked or not run."""
        values = np.where(scores.unknown, np.nan, scores.values)[:, :, :, self.metrics.index(metric)]
        if not self.asked(scores, region):
            return np.full(values.shape[:2], np.nan)
        names = list(self.regions)
        if region == MEAN_REGION:
            return nan_mean(values[:, :, [names.index(name) for name in self.mean_regions]], axis=2)
        return values[:, :, names.index(region)]

    def per_patient(self, scores: Scores, region: str, metric: str) -> FloatArray:
        """(seeds, patients): the cases of a patient averaged; patients in sorted order."""
        table = self.per_case(scores, region, metric)
        if not self.grouped:
            return table
        names, place = np.unique(np.array(self.patients), return_inverse=True)
        parts = [nan_mean(table[:, place == index], axis=1) for index in range(len(names))]
        return np.stack(parts, axis=1)

    @property
    def units(self) -> tuple[str, ...]:
        """Names along the second axis of `per_patient`."""
        return tuple(sorted(set(self.patients))) if self.grouped else self.cases

    def lacks_penalty(self, scores: Scores, region: str, metric: str) -> bool:
        """Whether a penalty of this column is not known, so that no mean may be printed."""
        names = list(self.regions)
        wanted = self.mean_regions if region == MEAN_REGION else (region,)
        places = [names.index(name) for name in wanted]
        return bool(np.any(scores.unknown[:, :, places, self.metrics.index(metric)]))


def nan_mean(values: FloatArray, *, axis: int) -> FloatArray:
    """Mean without NaN along an axis; NaN where there is nothing; inf stays inf."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def build_blocks(
    entries: Iterable[Entry], *, missing: str = "worst", case_names: Mapping[str, str] | None = None
) -> tuple[Block, ...]:
    """Blocks of comparable entries with the missing policy applied, by dataset and variant.

    Args:
        entries: as `build_entries` gives them; one without rows is left out.
        missing: `worst`, `drop-case` or `error`.
        case_names: real case id by pseudonym, where cases are printed under pseudonyms.

    Raises:
        SegbenchError: SB215 under `error` when a case is missing or broken, SB705 when entries of one block
            share no case.
        ValueError: an unknown policy.
    """
    if missing not in MISSING_POLICIES:
        raise ValueError(f"missing must be one of {', '.join(MISSING_POLICIES)}, not {missing!r}")
    by_dataset: dict[str, list[Entry]] = {}
    for entry in entries:
        if any(run.rows is not None for run in entry.runs):
            by_dataset.setdefault(entry.dataset, []).append(entry)
    blocks: list[Block] = []
    for dataset, members in sorted(by_dataset.items()):
        for variant, (part, differs) in enumerate(comparable(members)):
            block = _block(dataset, variant, differs, part, case_names or {})
            blocks.append(_apply(block, missing))
    if missing == "error":
        _refuse_missing(blocks)
    return tuple(blocks)


def comparable(entries: Sequence[Entry]) -> list[tuple[list[Entry], tuple[str, ...]]]:
    """Entries of one dataset in groups that may be compared, with what keeps each from those before it.

    Data and split are compared on what both records know, rules on the fields that both name. Recipes may
    differ, and so may the regions that were asked for; one region with other labels is a difference.
    """
    groups: list[tuple[dict[tuple[str, ...], object], list[Entry]]] = []
    differs: list[tuple[str, ...]] = []
    for entry in entries:
        known = _facts(entry)
        reasons: dict[str, None] = {}
        for facts_of_group, members in groups:
            found = _differences(facts_of_group, known, members[0].label, entry.label)
            if not found:
                facts_of_group.update(known)
                members.append(entry)
                break
            reasons.update(dict.fromkeys(found))
        else:
            groups.append((known, [entry]))
            differs.append(tuple(reasons))
    return [(members, lines) for (_, members), lines in zip(groups, differs, strict=True)]


def _facts(entry: Entry) -> dict[tuple[str, ...], object]:
    """Data, split and rules of an entry under one set of keys; unknown ones are absent."""
    found: dict[tuple[str, ...], object] = {}
    for run in entry.runs:
        found |= data_facts(run)
    found |= {("rule", name): str(value) for name, value in rules(entry.runs[0].record).items()}
    content = entry.identity.content
    if content not in ("", UNKNOWN) and not any(run.record.references for run in entry.runs):
        found["dataset files", entry.dataset] = content
    return found


def _differences(
    a: Mapping[tuple[str, ...], object], b: Mapping[tuple[str, ...], object], first: str, second: str
) -> list[str]:
    """In what two sets of facts are known to differ, a line for each kind of data and for each rule."""
    found: dict[str, None] = {}
    for key in sorted(a.keys() & b.keys()):
        if a[key] == b[key]:
            continue
        if key[0] == "rule":
            found[f"{key[1]} is {a[key]} for {first}, {b[key]} for {second}"] = None
        elif not any(line.startswith(f"{key[0]} ") for line in found):
            found[f"{key[0]} differs ({key[1]}; {first} / {second})"] = None
    return list(found)


@dataclass(frozen=True)
class _Axes:
    """Axes shared by the arrays of a block."""

    cases: tuple[str, ...]
    folds: Mapping[str, tuple[int, ...]]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    diagonal: FloatArray


def _block(
    dataset: str,
    variant: int,
    differs: tuple[str, ...],
    entries: Sequence[Entry],
    case_names: Mapping[str, str],
) -> Block:
    """One block, values filled by the worst policy."""
    runs = [run for entry in entries for run in entry.runs]
    with_rows = [run for run in runs if run.rows is not None]
    cases, folds, known, extra = _expected(runs)
    regions = _regions(dataset, runs)
    metrics = _metric_order({name for run in with_rows for name in (run.rows.metrics if run.rows else ())})
    axes = _Axes(cases, folds, tuple(regions), metrics, _diagonals(with_rows, cases))
    patients = patients_of(runs, cases, case_names)
    block = Block(
        dataset=dataset,
        variant=variant,
        differs=differs,
        cases=cases,
        patients=patients or cases,
        folds=tuple(folds[case][0] for case in cases),
        regions=regions,
        mean_regions=_mean_regions(dataset, regions),
        metrics=metrics,
        scores=tuple(_scores(entry, axes) for entry in entries),
        reference_ml=_reference_volumes(with_rows, cases, axes.regions),
        diagonal_mm=float(np.nanmax(axes.diagonal)) if np.any(np.isfinite(axes.diagonal)) else float("nan"),
        expected_known=known,
        extra_cases=extra,
    )
    _refuse_no_common(block)
    return block


def _expected(
    runs: Sequence[Run],
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], bool, tuple[str, ...]]:
    """Expected cases with their folds, whether they come from split.test, and rows beyond them."""
    by_fold: dict[int, set[str]] = {}
    known = True
    scored: set[str] = set()
    for fold in sorted({run.fold for run in runs}):
        members = [run for run in runs if run.fold == fold]
        listed = [cases for cases in (facts.test_cases(run.record) for run in members) if cases is not None]
        rows = {case for run in members if run.rows is not None for case in run.rows.case}
        scored |= rows
        known &= bool(listed)
        by_fold[fold] = {case for cases in listed for case in cases} if listed else rows
    folds: dict[str, tuple[int, ...]] = {}
    for fold, cases in by_fold.items():
        for case in cases:
            folds[case] = (*folds.get(case, ()), fold)
    return tuple(sorted(folds)), folds, known, tuple(sorted(scored - set(folds)))


def _regions(dataset: str, runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """Regions in the order of the card, or of the records; others after by name."""
    from segbench.cards import load_dataset_card

    named = {region for run in runs if run.rows is not None for region in run.rows.region}
    defined: dict[str, tuple[int, ...]] = {}
    for run in runs:
        for region, labels in (facts.region_labels(run.record) or {}).items():
            defined.setdefault(region, labels)
    try:
        order = [*load_dataset_card(dataset).regions, *defined]
    except SegbenchError:
        order = list(defined)
    names = sorted(named, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: defined.get(name, ()) for name in names}


def _mean_regions(dataset: str, regions: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Regions that the mean averages: those the card names, else all but unions of other regions."""
    from segbench.cards import load_dataset_card

    try:
        named = load_dataset_card(dataset).evaluation.mean_regions
    except SegbenchError:
        named = ()
    return tuple(name for name in named if name in regions) or regions_in_mean(regions)


def _metric_order(names: set[str]) -> tuple[str, ...]:
    return (*(name for name in METRICS if name in names), *sorted(names - set(METRICS)))


def _diagonals(runs: Sequence[Run], cases: tuple[str, ...]) -> FloatArray:
    """(cases,): the largest diagonal any run of the block knows of a case, NaN where none does."""
    place = {case: index for index, case in enumerate(cases)}
    diagonal = np.full(len(cases), np.nan)
    for run in runs:
        if run.rows is None:
            continue
        at = np.array([place.get(case, -1) for case in run.rows.case])
        values = np.where(
            np.isfinite(run.rows.numbers["diagonal_mm"]), run.rows.numbers["diagonal_mm"], np.nan
        )
        np.fmax.at(diagonal, at[at >= 0], values[at >= 0])
    return diagonal


def _reference_volumes(runs: Sequence[Run], cases: tuple[str, ...], regions: tuple[str, ...]) -> FloatArray:
    """(cases, regions): the reference's volume, NaN where no run knows it."""
    place = {case: index for index, case in enumerate(cases)}
    column = {region: index for index, region in enumerate(regions)}
    volumes = np.full((len(cases), len(regions)), np.nan)
    for run in runs:
        if run.rows is None:
            continue
        rows = np.array([place.get(case, -1) for case in run.rows.case])
        columns = np.array([column[region] for region in run.rows.region])
        values, known = run.rows.numbers["reference_volume_ml"], rows >= 0
        np.fmax.at(volumes, (rows[known], columns[known]), values[known])
    return volumes


def _scores(entry: Entry, axes: _Axes) -> Scores:
    """The arrays of one entry: each run filled by the policy of its own profile, a case of several folds
    averaged over them.
    """
    seeds = tuple(sorted({run.seed for run in entry.runs}))
    shape = (len(seeds), len(axes.cases), len(axes.regions))
    total = np.zeros((*shape, len(axes.metrics)))
    count = np.zeros(total.shape, dtype=np.int64)
    unknown = np.zeros(total.shape, dtype=bool)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    volume = np.full(shape, np.nan)
    asked = _asked(entry, axes.regions)
    for run in entry.runs:
        seed = seeds.index(run.seed)
        stored, run_status, run_volume = _dense(run, axes, asked)
        filled = fill(
            stored, run_status, axes.diagonal, axes.metrics, empty_policy=facts.empty_policy(run.record)
        )
        known = ~np.isnan(filled.values)
        total[seed] += np.where(known, filled.values, 0.0)
        count[seed] += known
        unknown[seed] |= filled.unknown
        covered = run_status != NOT_RUN
        worse = covered & ((status[seed] == NOT_RUN) | failed(run_status))
        status[seed] = np.where(worse, run_status, status[seed])
        volume[seed] = np.where(np.isnan(volume[seed]), run_volume, volume[seed])
    return Scores(
        entry=entry,
        seeds=seeds,
        folds=tuple(sorted({run.fold for run in entry.runs})),
        asked=asked,
        values=np.where(count > 0, total / np.maximum(count, 1), np.nan),
        unknown=unknown,
        status=status,
        prediction_ml=volume,
    )


def _asked(entry: Entry, regions: Sequence[str]) -> BoolArray:
    """(regions,): what the runs of an entry were to score: as recorded, else the regions of their rows."""
    named = facts.region_labels(entry.runs[0].record)
    if named is None:
        named = {region: () for run in entry.runs if run.rows is not None for region in run.rows.region}
    return np.array([region in named for region in regions], dtype=bool)


def _dense(run: Run, axes: _Axes, asked: BoolArray) -> tuple[FloatArray, StatusArray, FloatArray]:
    """Stored values, statuses and predicted volumes of one run on the block's axes; absent rows: missing."""
    shape = (len(axes.cases), len(axes.regions))
    stored = np.full((*shape, len(axes.metrics)), np.nan)
    status = np.full(shape, NOT_RUN, dtype=np.uint8)
    volume = np.full(shape, np.nan)
    mine = np.array([run.fold in axes.folds[case] for case in axes.cases], dtype=bool)
    status[np.ix_(mine, asked)] = MISSING
    if run.rows is None:
        return stored, status, volume
    place = {case: index for index, case in enumerate(axes.cases) if mine[index]}
    column = {region: index for index, region in enumerate(axes.regions)}
    at = np.array([place.get(case, -1) for case in run.rows.case], dtype=np.int64)
    lines = np.flatnonzero(at >= 0)
    rows = at[lines]
    columns = np.array([column[region] for region in run.rows.region], dtype=np.int64)[lines]
    status[rows, columns] = np.array([STATUS_CODE[name] for name in run.rows.status], dtype=np.uint8)[lines]
    volume[rows, columns] = run.rows.numbers["prediction_volume_ml"][lines]
    for index, metric in enumerate(axes.metrics):
        if metric in run.rows.metrics:
            stored[rows, columns, index] = run.rows.metrics[metric][lines]
    return stored, status, volume


def _refuse_no_common(block: Block) -> None:
    """SB705 when the expected cases are only the union of the runs and two entries have none in common."""
    if block.expected_known:
        return
    scored = {
        scores.label: {case for run in scores.entry.runs if run.rows is not None for case in run.rows.case}
        for scores in block.models
    }
    folds = {scores.label: set(scores.folds) for scores in block.models}
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
    """The block under `drop-case`: cases that failed anywhere leave all entries; else as it is."""
    lost = np.any([scores.failures for scores in block.scores], axis=0)
    if missing != "drop-case" or not lost.any():
        return block

    def blank(scores: Scores) -> Scores:
        values, unknown = scores.values.copy(), scores.unknown.copy()
        values[:, lost] = np.nan
        unknown[:, lost] = False
        return replace(scores, values=values, unknown=unknown)

    dropped = tuple(case for case, gone in zip(block.cases, lost.tolist(), strict=True) if gone)
    return replace(block, scores=tuple(blank(scores) for scores in block.scores), dropped_cases=dropped)


def failures(block: Block) -> list[tuple[str, str, str]]:
    """(label, case, status) of every case without a usable result, once per entry and case."""
    names = {code: name for name, code in STATUS_CODE.items()}
    found: list[tuple[str, str, str]] = []
    for scores in block.scores:
        broken = failed(scores.status)
        for index in np.flatnonzero(scores.failures).tolist():
            codes = scores.status[:, index][broken[:, index]]
            found.append((scores.label, block.cases[index], names[int(codes.min())]))
    return found


def _refuse_missing(blocks: Sequence[Block]) -> None:
    found = [(block, *item) for block in blocks for item in failures(block)]
    if found:
        raise SegbenchError(
            "SB215",
            f"{len(found)} expected cases have no usable result, and --missing error was asked for",
            details=[f"{block.name}: {label}: {case} {status}" for block, label, case, status in found],
            mend="write the missing predictions, or use --missing worst",
        )
