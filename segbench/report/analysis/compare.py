"""Models side by side: the analysis of the runs named, who lacks which case, and gates for a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segbench.core.environment import results_dir
from segbench.core.errors import ExitCode, SegbenchError
from segbench.report.analysis.analysis import Analysis, Progress, analyse_runs, usable
from segbench.report.analysis.blocks import Block, failures, nan_mean
from segbench.report.analysis.columns import Column
from segbench.report.analysis.entries import Entry, build_entries
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.gates import Gate, judge
from segbench.report.analysis.options import make_options
from segbench.report.analysis.sentences import pair_sentence
from segbench.report.analysis.sides import Side, read_sides

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


@dataclass(frozen=True, slots=True)
class ComparedPair:
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
        return {
            "block": self.column.block,
            "region": self.column.region,
            "metric": self.column.metric.name,
            "a": self.pair.a,
            "b": self.pair.b,
            **{name: getattr(self, name) for name in ("sentence", "wins", "ties", "losses")},
            "gains": [change._asdict() for change in self.gains],
            "drops": [change._asdict() for change in self.drops],
        }


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
    def findings(self) -> tuple[Finding, ...]:
        """What a reader must know, errors first."""
        return self.analysis.findings

    @property
    def exit_code(self) -> int:
        """6 when a gate failed, 3 with a finding of severity error, else 0."""
        if not all(gate.passed for gate in self.gates):
            return int(ExitCode.GATE)
        return int(ExitCode.PARTIAL if self.analysis.failing else ExitCode.DONE)

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
        *sides: two or more run folders, folders with the runs of one model, `cases.csv` files, or labels of
            models in `runs`. The first is what the gates judge.
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
        SegbenchError: SB101 unknown label, metric or region, SB104 an option that cannot be, SB701 a side
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

    block, sign = analysis.blocks[column.block], 1.0 if column.metric.higher_is_better else -1.0
    a, b = _per_case(block, column, pair.a), _per_case(block, column, pair.b)
    common = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    gain = sign * (a - b)[common]
    gain[np.abs(gain) <= noise_floor(a[common], b[common])] = 0.0
    order = common[np.argsort(-gain, kind="stable")].tolist()
    changes = [
        CaseChange(block.cases[case], float(a[case]), float(b[case]), float(sign * (a - b)[case]))
        for case in order
    ]
    wins, losses = int(np.sum(gain > 0)), int(np.sum(gain < 0))
    return ComparedPair(
        column=column,
        pair=pair,
        sentence=pair_sentence(analysis, column, pair),
        wins=wins,
        ties=int(gain.size) - wins - losses,
        losses=losses,
        gains=tuple(changes[: min(MOST_CASES, wins)]),
        drops=tuple(changes[::-1][: min(MOST_CASES, losses)]),
    )


def _per_case(block: Block, column: Column, label: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    scores = next(item for item in block.scores if item.label == label)
    return nan_mean(block.per_case(scores, column.region, column.metric.name), axis=0)


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
