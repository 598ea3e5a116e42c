"""What a reader must know before the numbers: each finding with a code, a severity and its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbench.core.text import one_line
from segbench.report.analysis.blocks import Block, Scores, failures
from segbench.report.analysis.entries import Entry
from segbench.report.analysis.identity import UNKNOWN
from segbench.report.read import facts
from segbench.report.read.runs import Run

SEVERITIES = ("error", "warn", "info")
SEVERITY_WORDS = {"error": "error", "warn": "warning", "info": "note"}
"""Severities as every output prints them."""
SEVERITY: Mapping[str, str] = {
    "edited-record": "error",
    "not-comparable": "error",
    "leak": "error",
    "missing-cases": "error",
    "penalty-unknown": "error",
    "unusable-run": "error",
    "recipe-differs": "warn",
    "inference-differs": "warn",
    "budget-differs": "warn",
    "not-known-equal": "warn",
    "cases-differ": "warn",
    "regions-differ": "warn",
    "below-baseline": "warn",
    "single-seed": "warn",
    "two-seeds": "warn",
    "few-cases": "warn",
    "copied-run": "warn",
    "modified-code": "warn",
    "unfinished-run": "warn",
    "degraded-run": "warn",
    "prediction-is-reference": "warn",
    "demo-data": "info",
}
FEW_CASES = 30
MOST_NAMES = 6
MOST_FIELDS = 6  # of a recipe difference; the rest is counted
Short = Mapping[str, str]
"""Printed name of each label."""
INFERENCE_FIELDS = ("inference.overlap", "inference.mirror_axes", "inference.tta", "inference.importance")


@dataclass(frozen=True, slots=True)
class Finding:
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
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "runs": list(self.runs),
            "dataset": self.dataset,
        }


def finding(code: str, message: str, runs: Iterable[Run] = (), *, dataset: str = "") -> Finding:
    """A finding with the severity of its code."""
    ids = tuple(sorted({run.run_id for run in runs}))
    return Finding(code, SEVERITY[code], one_line(message), ids, dataset)


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first of them and how many more."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def find_all(
    runs: Sequence[Run],
    blocks: Sequence[Block],
    *,
    metrics: Sequence[str],
    below: Sequence[tuple[Block, str, str]],
    short: Short,
) -> tuple[Finding, ...]:
    """Every finding over the runs and blocks, errors first, then by code and dataset.

    Args:
        runs: all runs found, unusable ones included.
        blocks: comparable entries.
        metrics: shown metrics.
        below: (block, model, baseline) where a model is not significantly better than a baseline.
        short: printed name of each label.
    """
    found: list[Finding] = []
    for block in blocks:
        for check in (_not_comparable, _recipes, _budgets, _unknown, _cases, _leaks, _seeds, _copies):
            found += check(block, short)
        found += _missing(block, metrics, short)
    found += [
        finding(
            "below-baseline",
            f"{block.name}: {short[model]} is not significantly better than the baseline {short[baseline]}",
            dataset=block.dataset,
        )
        for block, model, baseline in below
    ]
    found += _records(runs, blocks)
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    codes = {code: place for place, code in enumerate(SEVERITY)}
    return tuple(
        sorted(
            set(found),
            key=lambda item: (order[item.severity], codes[item.code], item.dataset, item.message),
        )
    )


def _not_comparable(block: Block, short: Short) -> list[Finding]:
    if not block.differs:
        return []
    labels = listed([short[scores.label] for scores in block.scores])
    message = (
        f"{block.name}: {labels} cannot be compared with the other results on {block.dataset}, shown apart: "
        f"{'; '.join(block.differs[:MOST_FIELDS])}"
    )
    return [finding("not-comparable", message, block.runs, dataset=block.dataset)]


def _runs_of(scores: Iterable[Scores]) -> list[Run]:
    return [run for item in scores for run in item.entry.runs]


def differing_fields(entries: Sequence[Entry], short: Short) -> dict[str, list[tuple[str, str]]]:
    """Recipe fields whose values differ: field -> [(value, names)], "unknown" where a record lacks it."""
    tables = [
        (short[entry.label], entry.identity.recipe) for entry in entries if entry.identity.recipe != UNKNOWN
    ]
    names = sorted({name for _, table in tables for name in table})
    found: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        values: dict[str, list[str]] = {}
        for label, table in tables:
            values.setdefault(_plain(table[name]) if name in table else UNKNOWN, []).append(label)
        if len(values) > 1:
            found[name] = [(value, listed(sorted(who))) for value, who in sorted(values.items())]
    return found


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return "x".join(_plain(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _field_text(fields: Mapping[str, list[tuple[str, str]]]) -> str:
    shown = list(fields.items())[:MOST_FIELDS]
    parts = [f"{name} {', '.join(f'{value} ({who})' for value, who in values)}" for name, values in shown]
    if len(fields) > len(shown):
        parts.append(f"and {len(fields) - len(shown)} more fields")
    return "; ".join(parts)


def _recipes(block: Block, short: Short) -> list[Finding]:
    """Differences of training and inference between the models of one block."""
    fields = differing_fields([scores.entry for scores in block.models], short)
    inference = {name: values for name, values in fields.items() if name in INFERENCE_FIELDS}
    training = {name: values for name, values in fields.items() if name not in INFERENCE_FIELDS}
    runs = _runs_of(block.models)
    found: list[Finding] = []
    if training:
        message = f"{block.name}: models were trained by different recipes: {_field_text(training)}"
        found.append(finding("recipe-differs", message, runs, dataset=block.dataset))
    if inference:
        message = f"{block.name}: models predict with different settings: {_field_text(inference)}"
        found.append(finding("inference-differs", message, runs, dataset=block.dataset))
    return found


def _budgets(block: Block, short: Short) -> list[Finding]:
    """Differences of samples seen or of the accelerator's memory."""
    found: list[Finding] = []
    reads: tuple[tuple[str, Callable[[Run], object | None]], ...] = (
        ("training samples seen", lambda run: run.record.samples_seen),
        ("GPU memory (GiB)", lambda run: facts.gpu_memory_gib(run.record)),
    )
    for name, read in reads:
        values: dict[str, set[str]] = {}
        for scores in block.models:
            for run in scores.entry.runs:
                if read(run) is not None:
                    values.setdefault(str(read(run)), set()).add(short[scores.label])
        if len(values) > 1:
            text = ", ".join(f"{value} ({listed(sorted(who))})" for value, who in sorted(values.items()))
            message = f"{block.name}: {name} differ: {text}"
            found.append(finding("budget-differs", message, _runs_of(block.models), dataset=block.dataset))
    return found


def _unknown(block: Block, short: Short) -> list[Finding]:
    """What records do not say counts as unknown, never as equal."""
    if len(block.models) < 2:
        return []
    reads: tuple[tuple[str, Callable[[Scores], bool]], ...] = (
        ("training recipe", lambda scores: scores.entry.identity.recipe == UNKNOWN),
        ("split", lambda scores: facts.split_digest(scores.entry.runs[0].record) is None),
        ("scoring rules", lambda scores: scores.entry.identity.rules == UNKNOWN),
    )
    found: list[Finding] = []
    for what, unknown in reads:
        lacking = [scores for scores in block.models if unknown(scores)]
        if lacking:
            names = listed([short[scores.label] for scores in lacking])
            message = f"{block.name}: {what} of {names} is unknown, so equal conditions cannot be checked"
            found.append(finding("not-known-equal", message, _runs_of(lacking), dataset=block.dataset))
    return found


def _cases(block: Block, short: Short) -> list[Finding]:
    """Test sets and regions that are not the same, and sets that are small."""
    found: list[Finding] = []
    reasons: list[str] = []
    expected = {short[scores.label]: int(scores.expected.sum()) for scores in block.models}
    if len(set(expected.values())) > 1:
        sizes = listed([f"{name} {count}" for name, count in expected.items()])
        reasons.append(f"models cover different test cases and are compared on common ones: {sizes}")
    if block.extra_cases:
        count = len(block.extra_cases)
        reasons.append(f"{count} scored but not in the test split, left out")
    if reasons:
        message = f"{block.name}: {'; '.join(reasons)}"
        found.append(finding("cases-differ", message, block.runs, dataset=block.dataset))
    partial = [
        f"{short[scores.label]} ({', '.join(np.array(list(block.regions))[scores.asked].tolist())})"
        for scores in block.scores
        if not scores.asked.all()
    ]
    if partial:
        message = (
            f"{block.name}: not every model was scored on every region; one without a region has no part in "
            f"it, nor in a mean that contains it: {listed(partial)}"
        )
        found.append(finding("regions-differ", message, block.runs, dataset=block.dataset))
    units = len(block.units)
    if units < FEW_CASES:
        unit = block.unit if units > 1 else block.unit[:-1]
        message = f"{block.name}: only {units} test {unit}: intervals are wide and may be too short"
        found.append(finding("few-cases", message, block.runs, dataset=block.dataset))
    return found


def leaks(entry: Entry) -> list[str]:
    """Why the numbers of an entry are upper bounds; empty when its runs show no leak."""
    found: set[str] = set()
    for run in entry.runs:
        record = run.record
        total = len(facts.test_cases(record) or (set(run.rows.case) if run.rows is not None else ()))
        shared, _ = facts.leak_counts(record)
        for count, text in (
            (shared, "share a patient with training"),
            (facts.test_in_training(record), "are in the training list"),
            (facts.test_used_for_selection(record), "were used to select the weights"),
        ):
            if count:
                found.add(f"{count} of {total} test cases {text}")
        if not found and facts.acknowledged_leaks(record):
            found.add("the split is known to leak between test and training")
    return sorted(found)


def _leaks(block: Block, short: Short) -> list[Finding]:
    reasons: dict[str, list[Scores]] = {}
    for scores in block.scores:
        for reason in leaks(scores.entry):
            reasons.setdefault(reason, []).append(scores)
    return [
        finding(
            "leak",
            f"{block.name}: {reason} ({listed([short[scores.label] for scores in members])}): "
            "these numbers are upper bounds and are not marked best",
            _runs_of(members),
            dataset=block.dataset,
        )
        for reason, members in sorted(reasons.items())
    ]


def _seeds(block: Block, short: Short) -> list[Finding]:
    """Models of which too few training runs exist for a claim about the method."""
    found: list[Finding] = []
    single = [scores for scores in block.models if len(scores.seeds) < 2]
    if single:
        names = listed([short[scores.label] for scores in single])
        message = (
            f"{block.name}: only one training run of {names}: results hold for these weights, not for the "
            "method; train three seeds, better five"
        )
        found.append(finding("single-seed", message, _runs_of(single), dataset=block.dataset))
    two = [scores for scores in block.models if len(scores.seeds) == 2]
    if two and len(block.models) > 2:
        names = listed([short[scores.label] for scores in two])
        message = (
            f"{block.name}: two training runs of {names} are too few for a verdict among {len(block.models)} "
            "models: intervals only; train three seeds, better five"
        )
        found.append(finding("two-seeds", message, _runs_of(two), dataset=block.dataset))
    return found


def _copies(block: Block, short: Short) -> list[Finding]:
    """Runs with rows equal to those of another run: counted once within a model, told between models."""
    found: list[Finding] = []
    for scores in block.models:
        if scores.entry.copies:
            ids = listed([run.run_id for run in scores.entry.copies])
            message = (
                f"{block.name}: {short[scores.label]}: the scores of {ids} equal those of another run "
                "(a copied run, or a seed that was not used); they count once"
            )
            found.append(finding("copied-run", message, scores.entry.copies, dataset=block.dataset))
    rows: dict[str, dict[str, Run]] = {}
    for scores in block.models:
        for run in scores.entry.runs:
            if run.rows is not None:
                rows.setdefault(run.rows.digest, {}).setdefault(short[scores.label], run)
    for same in rows.values():
        if len(same) > 1:
            message = f"{block.name}: {listed(sorted(same))} have the same scores, number for number"
            found.append(finding("copied-run", message, same.values(), dataset=block.dataset))
    return found


def _missing(block: Block, metrics: Sequence[str], short: Short) -> list[Finding]:
    """Expected cases without a usable prediction, and penalties that are not known."""
    found: list[Finding] = []
    broken = failures(block)
    for scores in block.scores:
        who = f"{block.name}: {short[scores.label]}"
        lost = [f"{case} ({status})" for label, case, status in broken if label == scores.label]
        if lost:
            how = "left out for all models" if block.dropped_cases else "scored worst"
            message = (
                f"{who}: {len(lost)} of {int(scores.expected.sum())} expected cases "
                f"have no usable prediction, {how}: {listed(lost)}"
            )
            found.append(finding("missing-cases", message, scores.entry.runs, dataset=block.dataset))
        unknown = [
            name
            for name in metrics
            if name in block.metrics and np.any(scores.unknown[..., block.metrics.index(name)])
        ]
        if unknown:
            message = (
                f"{who}: {', '.join(unknown)} shown as n/a because the worst distance "
                "of a failed case is unknown"
            )
            found.append(finding("penalty-unknown", message, scores.entry.runs, dataset=block.dataset))
    return found


def _records(runs: Sequence[Run], blocks: Sequence[Block]) -> list[Finding]:
    """Findings about single runs: edited, unusable and unfinished ones, demo data, modified code."""
    used = [run for block in blocks for run in block.runs]
    found = [
        finding("unusable-run", f"{run.run_id} is left out: {run.problem}", [run], dataset=run.dataset)
        for run in runs
        if run.problem and not run.edited
    ]
    groups: tuple[tuple[str, str, Sequence[Run]], ...] = (
        ("edited-record", "taken although the record was changed after it was written: {names}", [
            run for run in used if run.edited
        ]),
        ("demo-data", "generated scans or the demo protocol: not a benchmark", [
            run for run in used if facts.phantom(run.record)
        ]),
        ("modified-code", "segbench had uncommitted changes when these runs were made: {names}", [
            run for run in used if facts.dirty(run.record)
        ]),
        ("degraded-run", "training was rolled back after non-finite values: {names}", [
            run for run in used if facts.degraded(run.record)
        ]),
        ("prediction-is-reference", "predictions are the reference files, byte for byte: {names}", [
            run for run in used if facts.equal_to_reference(run.record)
        ]),
        ("unfinished-run", "not complete: {names}", [
            run for run in runs if not run.complete and not run.problem
        ]),
    )  # fmt: skip
    for code, words, members in groups:
        if members:
            names = listed(sorted({_state(run) for run in members}))
            found.append(finding(code, words.format(names=names.replace("{", "(")), members))
    return found


def _state(run: Run) -> str:
    if run.complete:
        return run.run_id
    kind = run.record.failure.failure_class if run.record.failure is not None else ""
    return f"{run.run_id} ({run.status}{f': {kind}' if kind else ''})"
