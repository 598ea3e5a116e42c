"""Models side by side: the analysis of the runs named, who lacks which case, and gates for a pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segbench.core.environment import results_dir
from segbench.core.errors import ExitCode, SegbenchError, unknown_name
from segbench.records.conditions import identity_of
from segbench.report.analysis.analysis import UNUSABLE, Analysis, Progress, analyse_runs, usable
from segbench.report.analysis.blocks import FloatArray, failures, nan_mean
from segbench.report.analysis.columns import Column
from segbench.report.analysis.entries import Entry, build_entries
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.gates import Gate, judge
from segbench.report.analysis.options import Options, make_options
from segbench.report.analysis.published_beside import PublishedRow, published_beside
from segbench.report.analysis.sentences import pair_sentence
from segbench.report.read.runs import Run, find_run_folders, read_runs

if TYPE_CHECKING:
    from segbench.stats import Comparison

LACKING = ("block", "model", "case", "status")
MOST_CASES = 5  # largest gains and losses that are listed


class CaseChange(NamedTuple):
    """One case of a pair; `gain` is a less b, turned so that a positive number is good for a."""

    case: str
    a: float
    b: float
    gain: float


class ComparedPair(NamedTuple):
    """A comparison of a deciding column, with what is counted over cases beside it.

    Attributes:
        column: where it stands.
        pair: difference, interval, p and verdict, as the report has them.
        sentence: the same in words.
        wins, ties, losses: cases on which a is better, equal, worse; averaged over seeds.
        gains, drops: cases with the largest gain and the largest loss of a.
    """

    column: Column
    pair: Comparison
    sentence: str
    wins: int
    ties: int
    losses: int
    gains: tuple[CaseChange, ...]
    drops: tuple[CaseChange, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`; its difference, test and verdict stand in the report."""
        counts = {name: getattr(self, name) for name in ("sentence", "wins", "ties", "losses")}
        changes = {name: [c._asdict() for c in getattr(self, name)] for name in ("gains", "drops")}
        place = {
            "block": self.column.block.number,
            "region": self.column.region,
            "metric": self.column.metric.name,
        }
        return place | {"a": self.pair.a, "b": self.pair.b} | counts | changes


@dataclass(frozen=True)
class CompareResult:
    """The result of `compare`.

    Attributes:
        analysis: everything that is said of the runs, as a report of the same runs has it.
        sides: labels in the order given; the first is what the gates judge.
        pairs: the comparisons of every deciding column, the primary metric first.
        gates: conditions and whether they held.
    """

    analysis: Analysis
    sides: tuple[str, ...]
    pairs: tuple[ComparedPair, ...]
    gates: tuple[Gate, ...]

    @property
    def lacking(self) -> list[tuple[str, str, str, str]]:
        """(block, model, case, status) of every case for which a model has no usable prediction."""
        return [(block.name, *item) for block in self.analysis.blocks for item in failures(block)]

    @property
    def published(self) -> list[PublishedRow]:
        """Published numbers beside ours, when asked for."""
        return published_beside(self.analysis)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a reader must know, errors first."""
        return self.analysis.findings

    @property
    def exit_code(self) -> int:
        """6 when a gate failed, 3 with a finding of severity error, else 0."""
        held = all(gate.passed for gate in self.gates)
        return self.analysis.exit_code if held else int(ExitCode.GATE)

    def as_json(self) -> dict[str, Any]:
        """The document of `segbench compare --json`; `report` is the report.json of the same runs."""
        from segbench.report.write.document import document

        report = document(self.analysis)
        return {
            "schema_version": 2,
            "sides": list(self.sides),
            "cases": [item.as_json() for item in self.pairs],
            "lacking": [dict(zip(LACKING, item, strict=True)) for item in self.lacking],
            "gates": [gate._asdict() for gate in self.gates],
            "report": report,
            "published": report["published"],
        }


def compare(
    *sides: Path | str,
    runs: Path | str | None = None,
    fail_under: Mapping[str, float] | None = None,
    no_worse_than: Mapping[str, float] | float | None = None,
    progress: Progress = lambda text: None,
    **options: Any,
) -> CompareResult:
    """Compare models on the same cases: differences with intervals, tests, verdicts and gates.

    Args:
        *sides: two or more run folders (or their `cases.csv`), folders with the runs of one model, or labels
            of models in `runs`. The first is what the gates judge.
        runs: folder in which labels are looked up; None is the results folder.
        fail_under: bounds on the mean of the first side by metric, over regions, on every dataset.
        no_worse_than: by metric, how much worse than each other side the first may be; a bare number is for
            the first metric. It holds when the one-sided 1 - alpha bound excludes a larger loss: not knowing
            is not passing.
        progress: told what is being done.
        **options: see `segbench.report.analysis.options.Options`, with two other defaults: `reference`, the
            side that all others are compared with, is the first one (`none` compares all pairs), and
            `published` numbers stand beside ours only when asked for.

    Raises:
        SegbenchError: SB101 unknown label, metric or region, SB104 an option that is not valid, SB701 a side
            without a usable run, SB702 two runs of one entry, fold and seed, SB703 published file invalid,
            SB705 no common dataset or case, SB215 under `missing="error"`.
    """
    chosen = make_options(**{"published": False, **options, "baselines": True})
    progress("reading records")
    found = read_sides(sides, results_dir(runs), chosen)
    _refuse_no_dataset(found)
    members = [run for side in found for run in side.runs]
    entries = build_entries(usable(members, chosen, []), select=chosen.select)
    chosen = replace(chosen, reference=_reference(chosen.reference, found, entries))
    analysis = analyse_runs(members, chosen, progress=progress)
    return CompareResult(
        analysis=analysis,
        sides=tuple(label for side in found for label in _labels(side, entries)),
        pairs=tuple(
            _compared_pair(analysis, column, pair)
            for metric in analysis.metrics
            for column in analysis.main_columns(metric)
            for pair in column.comparisons
        ),
        gates=judge(fail_under or {}, no_worse_than, _labels(found[0], entries), analysis),
    )


def _labels(side: Side, entries: Sequence[Entry]) -> list[str]:
    """The rows that hold the runs of a side."""
    ids = {id(run) for run in side.runs}
    found = [entry.label for entry in entries if any(id(run) in ids for run in (*entry.runs, *entry.copies))]
    return list(dict.fromkeys(found))


def _reference(asked: str | None, sides: Sequence[Side], entries: Sequence[Entry]) -> str:
    """The label that all others are compared with: of the side asked for, by default the first.

    Raises:
        SegbenchError: SB104 when that side is several rows.
    """
    if asked == "none" or asked in {entry.label for entry in entries}:
        return asked
    side = sides[0] if asked is None else next((side for side in sides if side.asked == asked), None)
    if side is None:
        return str(asked)  # told as unknown where names are checked
    labels = _labels(side, entries)
    if len(labels) > 1:
        raise SegbenchError(
            "SB104",
            f"{side.asked} is {len(labels)} rows, because its runs differ in more than fold and seed",
            details=labels,
            mend=f"name one of them, or --reference {labels[0]!r}",
        )
    return labels[0] if labels else str(asked or side.asked)


def _compared_pair(analysis: Analysis, column: Column, pair: Comparison) -> ComparedPair:
    """Wins, ties and losses by case, and the cases that changed most."""
    from segbench.stats.arrays import noise_floor

    block, scored = column.block, list[FloatArray]()
    for label in (pair.a, pair.b):
        scores = next(item for item in block.scores if item.label == label)
        scored.append(nan_mean(block.per_case(scores, column.region, column.metric.name), axis=0))
    a, b = scored
    common = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    gain = column.sign * (a - b)[common]
    gain[np.abs(gain) <= noise_floor(a[common], b[common])] = 0.0
    changes = [
        CaseChange(block.case_names[case], float(a[case]), float(b[case]), float(column.sign * (a - b)[case]))
        for case in common[np.argsort(-gain, kind="stable")].tolist()
    ]
    wins, losses = int(np.sum(gain > 0)), int(np.sum(gain < 0))
    return ComparedPair(
        column=column,
        pair=pair,
        sentence=pair_sentence(column, pair),
        wins=wins,
        ties=int(gain.size) - wins - losses,
        losses=losses,
        gains=tuple(changes[: min(MOST_CASES, wins)]),
        drops=tuple(changes[::-1][: min(MOST_CASES, losses)]),
    )


def _refuse_no_dataset(sides: Sequence[Side]) -> None:
    """SB705 when no two sides share a dataset; contradicting data or rules are findings, not this."""
    datasets = [{run.dataset for run in side.runs if run.complete} for side in sides]
    if any(one & other for place, one in enumerate(datasets) for other in datasets[place + 1 :]):
        return
    raise SegbenchError(
        "SB705",
        "the sides share no dataset",
        details=[
            f"{side.asked}: {', '.join(sorted(names)) or 'none'}"
            for side, names in zip(sides, datasets, strict=True)
        ],
        mend="compare runs of the same test set",
    )


# ---- the sides of a comparison


class Side(NamedTuple):
    """One side of a comparison: as it was named, and its runs, of other identity than any other side's."""

    asked: str
    runs: tuple[Run, ...]


def read_sides(asked: Sequence[Path | str], folder: Path, options: Options) -> list[Side]:
    """The sides of a comparison, in the order asked.

    Sides whose runs would stand in one row, such as two seeds of one model, are told apart by the names of
    their folders.

    Args:
        asked: run folders (or their `cases.csv`), folders that hold the runs of one model, or labels.
        folder: folder of runs in which labels are looked up.
        options: which records are taken.

    Raises:
        SegbenchError: SB104 fewer than two sides or a folder of several models, SB101 an unknown label,
            SB701 a side without a usable run, SB702 two runs of one entry, fold and seed.
    """
    if len(asked) < 2:
        what, mend = "compare needs two sides or more", "segbench compare A B"
        raise SegbenchError("SB104", what, found=len(asked), mend=mend)
    stock: tuple[Run, ...] | None = None  # the runs of the folder, read when the first label asks for them
    slugs = {
        part for item in map(str, asked) for part in (item, item.partition(" (")[0], item.partition(" [")[0])
    }
    found: list[Side] = []
    for item in map(str, asked):
        place = Path(item).expanduser()
        if place.is_file() or (place.is_dir() and find_run_folders(place)):
            members = _of_one_model(place, options)
        elif os.sep in item or item.endswith(".csv") or item.startswith((".", "~")):
            raise SegbenchError("SB701", f"{item} does not exist or holds no run", path=place)
        else:
            if stock is None:
                there = [folder] if folder.exists() else []
                stock = read_runs(there, allow_edited=options.allow_edited, models=slugs)
            members = _labelled(item, stock, folder, options)
        if not any(run.rows is not None and run.complete for run in members):
            reasons = [f"{run.run_id}: {run.problem or run.record.status}" for run in members[:20]]
            raise SegbenchError("SB701", f"{item} has no usable run", details=reasons, mend=UNUSABLE)
        found.append(Side(item, members))
    return _told_apart(found)


def _of_one_model(place: Path, options: Options) -> tuple[Run, ...]:
    """The runs of a folder or file that holds one model."""
    runs = read_runs([place], allow_edited=options.allow_edited)
    models = sorted({run.model for run in runs})
    if len(models) > 1:
        raise SegbenchError(
            "SB104",
            f"{place} holds runs of several models: {', '.join(models)}",
            mend=f"name them: segbench compare {models[0]} {models[1]} --results {place}",
        )
    return runs


def _labelled(label: str, stock: Sequence[Run], folder: Path, options: Options) -> tuple[Run, ...]:
    """All runs of a model in the folder of runs, or of one of its entries by the label that tables print."""
    members = tuple(run for run in stock if run.model == label)
    if members:
        return members
    with_rows = [run for run in stock if run.rows is not None]
    entries = build_entries(with_rows, select=options.select) if "(" in label or "[" in label else ()
    members = tuple(run for entry in entries if entry.label == label for run in entry.runs)
    if members:
        return members
    known = sorted({run.model for run in stock} | {entry.label for entry in entries})
    if known:
        raise unknown_name("run of a model", label, known, listing="segbench list runs")
    raise SegbenchError(
        "SB701",
        f"{label!r} is not a run folder, and there are no runs to look the label up in",
        path=folder,
        mend="name run folders, or the folder of runs with --results",
    )


def _told_apart(sides: Sequence[Side]) -> list[Side]:
    """The sides; those that share an identity with another one are renamed, so that they stay apart."""
    identities = [{identity_of(run.record).digest for run in side.runs} for side in sides]
    taken: set[str] = set()
    found: list[Side] = []
    for place, side in enumerate(sides):
        if any(identities[place] & digests for at, digests in enumerate(identities) if at != place):
            first = side.runs[0]
            own = first.folder.name if len(side.runs) == 1 and first.folder is not None else first.run_id
            name = own if own not in taken else f"{own} ({place + 1})"
            # the record keeps its card; a slug without one is printed as it is
            records = [
                run.record.model_copy(update={"model": {**(run.record.model or {}), "slug": name}})
                for run in side.runs
            ]
            renamed = (replace(run, record=record) for run, record in zip(side.runs, records, strict=True))
            side = Side(side.asked, tuple(renamed))
        taken.update(run.model for run in side.runs)
        found.append(side)
    return found
