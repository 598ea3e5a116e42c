"""What a reader must know before the numbers: each finding with a code, a severity and its runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from segbench.core.text import one_line, some
from segbench.records import facts
from segbench.records.conditions import UNKNOWN
from segbench.report.analysis.blocks import Block, Scores, failures
from segbench.report.analysis.columns import Column, comparable_tables
from segbench.report.analysis.entries import Entry, value_words
from segbench.report.analysis.slices import Table, slice_words, slices
from segbench.report.read.runs import Run

SEVERITY_WORDS = {"error": "error", "warn": "warning", "info": "note"}
"""Severities as every output prints them."""
SEVERITY: Mapping[str, str] = {
    code: severity
    for severity, codes in (
        ("error", "edited-record not-comparable leak missing-cases penalty-unknown unusable-run"),
        ("warn", "start-differs recipe-differs inference-differs budget-differs not-known-equal not-checked"),
        ("warn", "cases-differ regions-differ below-baseline slices-differ single-seed two-seeds few-cases"),
        ("warn", "copied-run modified-code unfinished-run degraded-run prediction-is-reference"),
        ("info", "several-datasets demo-data"),
    )
    for code in codes.split()
}
FEW_CASES = 30
listed = partial(some, most=6)
MORE_SEEDS = "better five, to measure run-to-run variation"
MOST_FIELDS = 6  # of a recipe difference; the rest is counted
Said = tuple[str, str, Iterable[Run]]
"""Code, words without the name of the block, runs concerned."""
INFERENCE_FIELDS = ("inference.overlap", "inference.mirror_axes", "inference.tta", "inference.importance")


class Finding(NamedTuple):
    """One finding.

    Attributes:
        code: of the list in `SEVERITY`.
        severity: error, warn or info.
        message: what, in one line.
        runs: ids of the runs concerned, sorted.
        dataset: where it applies, empty for the whole report.
    """

    code: str
    severity: str
    message: str
    runs: tuple[str, ...] = ()
    dataset: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object of report.json."""
        return self._asdict() | {"runs": list(self.runs)}


def finding(code: str, message: str, runs: Iterable[Run] = (), *, dataset: str = "") -> Finding:
    """A finding with the severity of its code."""
    ids = tuple(sorted({run.run_id for run in runs}))
    return Finding(code, SEVERITY[code], one_line(message), ids, dataset)


def gathered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings as a reader is shown them: what holds of several datasets in the same words is said once."""
    alike: dict[tuple[str, str], dict[str, Finding]] = {}
    for item in findings:
        dataset = re.escape(one_line(item.dataset))
        block = re.match(rf"{dataset}( \(\w\))?(: only \d+ test \w+)?(?=: )", item.message)
        name = block[0] if block else ""
        alike.setdefault((item.code, item.message.removeprefix(name)), {})[name] = item
    return [
        next(iter(found.values()))._replace(message=some(list(found)) + words)
        for (_, words), found in alike.items()
    ]


def find_all(
    runs: Sequence[Run], blocks: Sequence[Block], *, columns: Sequence[Column], table: Table
) -> tuple[Finding, ...]:
    """Every finding over the runs and blocks, errors first, then by code and dataset.

    Args:
        runs: all runs found, unusable ones included.
        blocks: comparable entries.
        columns: of the blocks.
        table: columns of `--slices`.
    """
    found = _records(runs, blocks)
    told = [
        (block, *said)
        for block in blocks
        for said in chain(*(check(block) for check in CHECKS), _missing(block, columns))
    ]
    told += [
        (column.block, *said)
        for column in columns
        if column.role == "primary"
        for said in chain(_below_baseline(column), _unlike(column, table))
    ]
    for block, code, words, members in told:
        found.append(finding(code, f"{block.name}: {words}", members, dataset=block.dataset))
    codes = list(SEVERITY)
    return tuple(sorted(set(found), key=lambda item: (codes.index(item.code), item.dataset, item.message)))


def _not_comparable(block: Block) -> Iterator[Said]:
    if block.differs:
        words = (
            f"{_names(block.scores)} cannot be compared with the other results on {block.dataset}, "
            f"shown apart: {'; '.join(block.differs[:MOST_FIELDS])}"
        )
        apart = all(line.startswith("start is ") for line in block.differs)
        yield "start-differs" if apart else "not-comparable", words, block.runs


def _runs_of(scores: Iterable[Scores]) -> list[Run]:
    return [run for item in scores for run in item.entry.runs]


def _names(scores: Iterable[Scores]) -> str:
    return listed([item.short for item in scores])


def _by_value(told: Iterable[tuple[object, str]]) -> str:
    """(value, who) as words, a value with all who have it; empty where all have the same."""
    values: dict[str, set[str]] = {}
    for value, who in told:
        values.setdefault(value_words(value), set()).add(who)
    parts = [f"{value} ({listed(sorted(who))})" for value, who in sorted(values.items())]
    return ", ".join(parts) if len(parts) > 1 else ""


def _recipes(block: Block) -> Iterator[Said]:
    """Differences of training and inference between the models of one block, field by field."""
    tables = [
        (scores.short, scores.entry.identity.recipe)
        for scores in block.models
        if scores.entry.identity.recipe != UNKNOWN
    ]
    differing = {
        name: words
        for name in sorted({name for _, table in tables for name in table})
        if (words := _by_value((table.get(name, UNKNOWN), who) for who, table in tables))
    }
    for code, what, inference in (
        ("recipe-differs", "models were trained by different recipes", False),
        ("inference-differs", "models predict with different settings", True),
    ):
        parts = [
            f"{name} {words}" for name, words in differing.items() if (name in INFERENCE_FIELDS) is inference
        ]
        if parts:
            more = [f"and {len(parts) - MOST_FIELDS} more fields"] if len(parts) > MOST_FIELDS else []
            yield code, f"{what}: {'; '.join(parts[:MOST_FIELDS] + more)}", _runs_of(block.models)


def _budgets(block: Block) -> Iterator[Said]:
    """Differences of samples seen or of the accelerator's memory."""
    for name, read in (
        ("training samples seen", lambda record: record.samples_seen),
        ("GPU memory (GiB)", facts.gpu_memory_gib),
    ):
        told = [(read(run.record), s.short) for s in block.models for run in s.entry.runs]
        words = _by_value((str(value), who) for value, who in told if value is not None)
        if words:
            yield "budget-differs", f"{name} differ: {words}", _runs_of(block.models)


def _unknown(block: Block) -> Iterator[Said]:
    """What records do not say counts as unknown, never as equal."""
    models = block.models if len(block.models) > 1 else ()
    for what, lacking in (
        ("training recipe", [s for s in models if s.entry.identity.recipe == UNKNOWN]),
        ("split", [s for s in models if facts.split_digest(s.entry.runs[0].record) is None]),
        ("scoring rules", [s for s in models if s.entry.identity.rules == UNKNOWN]),
    ):
        if lacking:
            words = f"{what} unknown for {_names(lacking)}, so equal conditions cannot be checked"
            yield "not-known-equal", words, _runs_of(lacking)


def _cases(block: Block) -> Iterator[Said]:
    """Test sets and regions that are not the same, and sets that are small."""
    reasons: list[str] = []
    if len({scores.expected.tobytes() for scores in block.models}) > 1:
        sizes = listed([f"{scores.short} {scores.expected.sum()}" for scores in block.models])
        reasons.append(f"models cover different test cases and are compared on common ones: {sizes}")
    if block.extra_cases:
        reasons.append(f"{len(block.extra_cases)} scored but not in the test split, left out")
    if reasons:
        yield "cases-differ", "; ".join(reasons), block.runs
    partial = [
        f"{scores.short} ({', '.join(np.array(list(block.regions))[scores.asked].tolist())})"
        for scores in block.scores
        if not scores.asked.all()
    ]
    if partial:
        words = (
            "not every model was scored on every region; one without a region has no part in it, and "
            f"the mean is over the regions that all have: {listed(partial)}"
        )
        yield "regions-differ", words, block.runs
    units = len(block.units)
    if units < FEW_CASES:
        unit = block.unit if units > 1 else block.unit[:-1]
        yield "few-cases", f"only {units} test {unit}: intervals are wide and may be too short", block.runs


def leaks(entry: Entry) -> list[str]:
    """Why the numbers of an entry are upper bounds; empty when its runs show no leak."""
    found: set[str] = set()
    for run in entry.runs:
        record = run.record
        total = len(facts.split(record).test or (set(run.rows.case) if run.rows is not None else ()))
        leaked = facts.leaked(record).items()
        found |= {f"{count} of {total} test cases {text}" for text, count in leaked if count}
        if not found and facts.split(record).acknowledged_leaks:
            found.add("the split is known to leak between test and training")
        if record.init is not None and record.init.trained_on is None:
            found.add("it is not known what the weights it started from were trained on")
    return sorted(found)


def _leaks(block: Block) -> Iterator[Said]:
    reasons: dict[str, list[Scores]] = {}
    for scores in block.scores:
        for reason in leaks(scores.entry):
            reasons.setdefault(reason, []).append(scores)
    for reason, members in sorted(reasons.items()):
        words = f"{reason} ({_names(members)}): these numbers are upper bounds and are not marked best"
        yield "leak", words, _runs_of(members)


def _seeds(block: Block) -> Iterator[Said]:
    """Models of which too few training runs exist for a claim about the method."""
    single, two = ([s for s in block.models if len(s.seeds) == count] for count in (1, 2))
    for what, how, external in (
        ("training run", "these weights, not for the method; train three seeds", False),
        ("set of predictions", "these predictions, not for the method; score those of three seeds", True),
    ):
        members = [s for s in single if (s.entry.identity.kind == "external") is external]
        if members:
            words = f"only one {what} of {_names(members)}: results hold for {how}"
            yield "single-seed", f"{words}, {MORE_SEEDS}", _runs_of(members)
    if two and len(block.models) > 2:
        words = f"are too few for a verdict among {len(block.models)} models: intervals only"
        more = f"train three seeds, {MORE_SEEDS}"
        yield "two-seeds", f"two training runs of {_names(two)} {words}; {more}", _runs_of(two)


def _copies(block: Block) -> Iterator[Said]:
    """Runs with rows equal to those of another run: counted once within a model, told between models."""
    rows: dict[str, dict[str, Run]] = {}
    for scores in block.models:
        copies = scores.entry.copies
        if copies:
            ids = listed([run.run_id for run in copies])
            words = (
                f"{scores.short}: the scores of {ids} equal those of another run "
                "(a copied run, or a seed that was not used); they count once"
            )
            yield "copied-run", words, copies
        for run in scores.entry.runs:
            if run.rows is not None:
                rows.setdefault(run.rows.digest, {}).setdefault(scores.short, run)
    for same in rows.values():
        if len(same) > 1:
            words = f"{listed(sorted(same))} have the same scores, number for number"
            yield "copied-run", words, same.values()


CHECKS = (_not_comparable, _recipes, _budgets, _unknown, _cases, _leaks, _seeds, _copies)
"""What is looked at in every block."""


def _below_baseline(column: Column) -> Iterator[Said]:
    """Models that are not significantly better than a baseline."""
    block = column.block
    if column.metric.higher_is_better is None or column.options.baselines:
        return
    for baseline in block.baselines:
        members = [scores for scores in (baseline, *block.models) if scores.label in column.means]
        tables, _ = comparable_tables(
            {scores.label: block.per_patient(scores, column.region, column.metric.name) for scores in members}
        )
        pairs = (
            replace(column, tables=tables).pairs(reference=baseline.label) if baseline.label in tables else ()
        )
        for pair in pairs:
            if pair.verdict != "better":
                words = (
                    f"{block.short(pair.a)} is not significantly better than the baseline {baseline.short}"
                )
                yield "below-baseline", words, ()


def _unlike(column: Column, table: Table) -> Iterator[Said]:
    """Columns of `--slices` on which the models do not compare alike."""
    for part in slices(column, table, sizes=False) if table else ():
        if part.p_adjusted < column.options.alpha:
            yield "slices-differ", slice_words(part, column), ()


def _missing(block: Block, columns: Sequence[Column]) -> Iterator[Said]:
    """Expected cases without a usable prediction, and penalties that are not known."""
    broken = failures(block)
    for scores in block.scores:
        lost = [f"{case} ({status})" for label, case, status in broken if label == scores.label]
        if lost:
            how = "left out for all models" if block.dropped_cases else "scored worst"
            words = (
                f"{scores.short}: {len(lost)} of {int(scores.expected.sum())} expected cases have no "
                f"usable prediction, {how}: {listed(lost)}"
            )
            yield "missing-cases", words, scores.entry.runs
        known = dict.fromkeys(column.metric.name for column in columns if column.block is block)
        unknown = [name for name in known if np.any(scores.unknown[..., block.metrics.index(name)])]
        if unknown:
            words = (
                f"{scores.short}: {', '.join(unknown)} shown as n/a because the worst distance of a "
                "failed case is unknown"
            )
            yield "penalty-unknown", words, scores.entry.runs


def _records(runs: Sequence[Run], blocks: Sequence[Block]) -> list[Finding]:
    """Findings about single runs: edited, unusable and unfinished ones, demo data, modified code."""
    used = [run for block in blocks for run in block.runs]
    found = [
        finding("unusable-run", f"{run.run_id} is left out: {run.problem}", [run], dataset=run.dataset)
        for run in runs
        if run.problem and not run.edited
    ]
    unchecked = [run for run in used if run.complete and not (run.record.digests or {}).get("cases")]
    if unchecked:
        words = "hold no digest of their scores, so a changed file would go unseen"
        found.append(finding("not-checked", f"{len(unchecked)} of {len(used)} runs {words}", unchecked))
    for code, words, members in (
        ("edited-record", "taken although the record was changed after it was written: ", [
            run for run in used if run.edited
        ]),
        ("demo-data", "generated images or the demo protocol: not a benchmark", [
            run for run in used if facts.phantom(run.record)
        ]),
        ("several-datasets", "a verdict holds for its own dataset; there is no test across datasets", [
            *(used if len({run.dataset for run in used}) > 1 else ()),
        ]),
        ("modified-code", "segbench had uncommitted changes when these runs were made: ", [
            run for run in used if facts.table(run.record.segbench, "git").get("dirty") is True
        ]),
        ("degraded-run", "training was rolled back after non-finite values: ", [
            run for run in used if run.record.degraded is True
        ]),
        ("prediction-is-reference", "some predictions are the reference files, byte for byte: ", [
            run for run in used if facts.table(run.record.external).get("equal_to_reference")
        ]),
        ("unfinished-run", "not complete: ", [run for run in runs if not run.complete and not run.problem]),
    ):  # fmt: skip
        if members:
            names = listed(sorted({_state(run) for run in members}))
            found.append(finding(code, words + names if words.endswith(": ") else words, members))
    return found


def _state(run: Run) -> str:
    if run.complete:
        return run.run_id
    kind = run.record.failure.failure_class if run.record.failure is not None else ""
    return f"{run.run_id} ({run.record.status}{f': {kind}' if kind else ''})"
