"""Fairness guards: what a reader must know before the numbers, each with a code, a severity and the runs it
concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbench.report import facts
from segbench.report.blocks import Block, ModelScores, failures
from segbench.report.markup import one_line
from segbench.report.missing import FAILED_CODES
from segbench.report.runs import Run
from segbench.report.spread import Discrimination, coverage_differs

SEVERITIES = ("error", "warn", "info")
SEVERITY: Mapping[str, str] = {
    "recipe-differs": "warn",
    "split-differs": "error",
    "profile-differs": "error",
    "cases-differ": "warn",
    "leak": "error",
    "below-floor": "warn",
    "single-seed": "warn",
    "cannot-rank": "warn",
    "few-cases": "warn",
    "few-datasets": "info",
    "inference-differs": "warn",
    "budget-differs": "warn",
    "missing-cases": "error",
    "penalty-unknown": "error",
    "demo-data": "info",
    "modified-code": "warn",
    "unfinished-run": "warn",
    "degraded-run": "warn",
}
FEW_CASES = 30
FEW_DATASETS = 6
MOST_FIELDS = 12  # of a recipe difference; the rest is counted
MOST_NAMES = 10
INFERENCE_FIELDS = ("inference.overlap", "inference.mirror_axes", "inference.tta", "inference.importance")
FAMILY_FIELDS = ("optimiser.", "schedule.")  # what a protocol may set by family


@dataclass(frozen=True, slots=True)
class Guard:
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


def guard(
    code: str, message: str, runs: Iterable[Run] = (), *, dataset: str = "", severity: str | None = None
) -> Guard:
    """A finding with its usual severity."""
    ids = tuple(sorted({run.run_id for run in runs}))
    return Guard(code, severity or SEVERITY[code], one_line(message), ids, dataset)


def find_guards(
    runs: Sequence[Run],
    blocks: Sequence[Block],
    discriminations: Sequence[Discrimination],
    *,
    metrics: Sequence[str],
    beats_floor: Callable[[Block, ModelScores, ModelScores], bool | None],
) -> list[Guard]:
    """Every finding over the runs and blocks, errors first, then by code and dataset.

    Args:
        runs: all runs found, unusable ones included.
        blocks: comparable runs.
        discriminations: of the asked columns.
        metrics: asked metrics.
        beats_floor: (block, model, floor) -> whether the model is significantly better, None when it cannot
            be said.
    """
    found: list[Guard] = []
    for block in blocks:
        found += recipe_guards(block)
        found += case_guards(block)
        found += leak_guards(block)
        found += seed_guards(block)
        found += missing_guards(block, metrics)
        for model in block.ranked:
            for floor in block.floors:
                if beats_floor(block, model, floor) is False:
                    message = f"{model.model} does not beat the floor {floor.model} on {block.name}"
                    found.append(guard("below-floor", message, model.runs, dataset=block.dataset))
    found += variant_guards(blocks)
    found += protocol_guards(blocks)
    found += unknown_guards(blocks)
    found += discrimination_guards(discriminations)
    found += record_guards(runs, blocks)
    datasets = sorted({block.dataset for block in blocks})
    if len(datasets) < FEW_DATASETS:
        count = f"{len(datasets)} dataset" + ("s" if len(datasets) > 1 else "")
        message = f"{count}: no p-value across datasets below {FEW_DATASETS} of them"
        found.append(guard("few-datasets", message))
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(set(found), key=lambda item: (order[item.severity], item.code, item.dataset, item.message))


def recipe_groups(block: Block) -> dict[str, list[Run]]:
    """Runs of the ranked models by the digest of their recipe; runs of unknown recipe are left out."""
    groups: dict[str, list[Run]] = {}
    for scores in block.ranked:
        for run in scores.runs:
            digest = facts.recipe_digest(run)
            if digest is not None:
                groups.setdefault(digest, []).append(run)
    return groups


def recipe_differs(block: Block) -> bool:
    """Whether rows were trained by recipes that differ in more than the protocol sets by family."""
    groups = recipe_groups(block)
    unknown = any(facts.recipe_digest(run) is None for scores in block.ranked for run in scores.runs)
    if groups and unknown:
        return True
    return len(groups) > 1 and not by_family(groups)


def by_family(groups: Mapping[str, Sequence[Run]]) -> bool:
    """Whether recipes differ only where one protocol sets optimiser and schedule by family of models."""
    runs = [run for group in groups.values() for run in group]
    if any(run.protocol.endswith("+custom") for run in runs) or len({run.protocol for run in runs}) > 1:
        return False
    digests: dict[str, set[str | None]] = {}
    for run in runs:
        family = facts.family(run)
        if not family:
            return False
        digests.setdefault(family, set()).add(facts.recipe_digest(run))
    differing = differing_fields([group[0] for group in groups.values()])
    return all(len(found) == 1 for found in digests.values()) and all(
        name.startswith(FAMILY_FIELDS) for name in differing
    )


def differing_fields(runs: Sequence[Run]) -> dict[str, list[tuple[str, str]]]:
    """Recipe fields whose values differ: field -> [(value, models)], "unknown" where a record lacks it."""
    tables = [(run.model, facts.recipe_fields(run)) for run in runs]
    names = sorted({name for _, table in tables for name in table})
    found: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        values: dict[str, set[str]] = {}
        for model, table in tables:
            text = _plain(table[name]) if name in table else "unknown"
            values.setdefault(text, set()).add(model)
        if len(values) > 1:
            found[name] = [(value, ", ".join(sorted(models))) for value, models in sorted(values.items())]
    return found


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _field_text(fields: Mapping[str, list[tuple[str, str]]]) -> str:
    shown = list(fields.items())[:MOST_FIELDS]
    parts = [f"{name}: " + " / ".join(f"{value} ({who})" for value, who in values) for name, values in shown]
    if len(fields) > len(shown):
        parts.append(f"and {len(fields) - len(shown)} more fields")
    return "; ".join(parts) or "the records do not say in what"


def recipe_guards(block: Block) -> list[Guard]:
    """Differences of training, inference and budget between the rows of one block."""
    groups = recipe_groups(block)
    runs = [run for group in groups.values() for run in group]
    found: list[Guard] = []
    if len(groups) > 1:
        fields = differing_fields(runs)
        how = (
            "by family of models, as the protocol says"
            if by_family(groups)
            else "not bolded against each other"
        )
        message = f"{block.name}: recipes differ ({how}): {_field_text(fields)}"
        found.append(guard("recipe-differs", message, runs, dataset=block.dataset))
        inference = {name: values for name, values in fields.items() if name in INFERENCE_FIELDS}
        if inference:
            message = f"{block.name}: inference differs between rows: {_field_text(inference)}"
            found.append(guard("inference-differs", message, runs, dataset=block.dataset))
    return found + budget_guards(block)


def budget_guards(block: Block) -> list[Guard]:
    """Differences of samples seen or of the accelerator's memory."""
    found: list[Guard] = []
    facts_of: tuple[tuple[str, Callable[[Run], object | None]], ...] = (
        ("samples seen", lambda run: run.record.get("samples_seen")),
        ("GPU memory", facts.gpu_memory_gib),
    )
    for name, read in facts_of:
        values: dict[str, set[str]] = {}
        runs: list[Run] = []
        for scores in block.ranked:
            for run in scores.runs:
                value = read(run)
                if value is not None:
                    values.setdefault(str(value), set()).add(run.model)
                    runs.append(run)
        if len(values) > 1:
            text = " / ".join(f"{value} ({', '.join(sorted(who))})" for value, who in sorted(values.items()))
            found.append(
                guard("budget-differs", f"{block.name}: {name}: {text}", runs, dataset=block.dataset)
            )
    return found


def protocol_guards(blocks: Sequence[Block]) -> list[Guard]:
    """One dataset under several protocols: they stand in separate blocks and are not compared."""
    found: list[Guard] = []
    for dataset in sorted({block.dataset for block in blocks}):
        members = [block for block in blocks if block.dataset == dataset and block.ranked]
        protocols = sorted({block.protocol for block in members})
        if len(protocols) < 2:
            continue
        runs = [run for block in members for scores in block.ranked for run in scores.runs]
        known = [run for run in runs if facts.recipe_fields(run)]
        text = _field_text(differing_fields(known)) if len(known) > 1 else "recipe unknown"
        message = f"{dataset}: several protocols ({', '.join(protocols)}), in separate blocks: {text}"
        found.append(guard("recipe-differs", message, runs, dataset=dataset))
    return found


def variant_guards(blocks: Sequence[Block]) -> list[Guard]:
    """Blocks that were opened because split or metric profile contradict each other."""
    found: list[Guard] = []
    groups: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.dataset, block.protocol), []).append(block)
    for (dataset, protocol), members in sorted(groups.items()):
        if len(members) < 2:
            continue
        runs = [run for block in members for run in block.runs]
        where = f"{dataset}, protocol {protocol}"
        for code, read, words in (
            ("split-differs", facts.split_digest, "splits"),
            ("profile-differs", facts.profile_digest, "metric profiles"),
        ):
            by_fold: dict[int, set[str]] = {}
            for run in runs:
                value = read(run)
                if value is not None:
                    by_fold.setdefault(run.fold if code == "split-differs" else 0, set()).add(value)
            if any(len(values) > 1 for values in by_fold.values()):
                detail = "" if code == "split-differs" else f": {_field_text(_profile_fields(runs))}"
                text = f"{where}: {words} differ; separate blocks, no test and no rank between them{detail}"
                found.append(guard(code, text, runs, dataset=dataset))
    return found


def _profile_fields(runs: Sequence[Run]) -> dict[str, list[tuple[str, str]]]:
    names = ("name", "empty_policy", "spacing", "nsd_tolerance", "metrics", "geometry")
    found: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        values: dict[str, set[str]] = {}
        for run in runs:
            profile = facts.metric_profile(run)
            values.setdefault(_plain(profile[name]) if name in profile else "unknown", set()).add(run.model)
        if len(values) > 1:
            found[name] = [(value, ", ".join(sorted(who))) for value, who in sorted(values.items())]
    return found


def unknown_guards(blocks: Sequence[Block]) -> list[Guard]:
    """What records do not say counts as unknown, never as equal; said once per kind, as a warning."""
    found: list[Guard] = []
    runs = [
        run for block in blocks if len(block.ranked) > 1 for scores in block.ranked for run in scores.runs
    ]
    for code, read, what in (
        ("recipe-differs", facts.recipe_digest, "recipe"),
        ("split-differs", facts.split_digest, "split"),
        ("profile-differs", facts.profile_digest, "metric profile"),
    ):
        lacking = [run for run in runs if read(run) is None]
        if lacking:
            models = _names(sorted({run.model for run in lacking}))
            message = f"{what} unknown for {models}: not known to be equal"
            found.append(guard(code, message, lacking, severity="warn"))
    return found


def case_guards(block: Block) -> list[Guard]:
    """Test sets that are not the same, and sets that are small."""
    found: list[Guard] = []
    scored: dict[tuple[int, frozenset[str]], list[Run]] = {}
    for run in block.runs:
        if run.rows is not None:
            cases = frozenset(run.rows.case) & frozenset(block.cases)
            scored.setdefault((run.fold, cases), []).append(run)
    by_fold: dict[int, list[frozenset[str]]] = {}
    for fold, cases in scored:
        by_fold.setdefault(fold, []).append(cases)
    reasons: list[str] = []
    for fold, sets in sorted(by_fold.items()):
        if len(sets) > 1:
            sizes = ", ".join(str(len(cases)) for cases in sorted(sets, key=len))
            reasons.append(f"fold {fold}: {sizes} of {len(frozenset.union(*sets))} cases")
    if block.extra_cases:
        reasons.append(f"{len(block.extra_cases)} scored cases are not in the test split and are left out")
    if coverage_differs(block):
        reasons.append("folds at hand differ between models: compared on common cases, no rank")
    if reasons:
        message = f"{block.name}: test cases are not the same set: {'; '.join(reasons)}"
        found.append(guard("cases-differ", message, block.runs, dataset=block.dataset))
    if len(block.cases) < FEW_CASES:
        count = f"{len(block.cases)} test case" + ("s" if len(block.cases) != 1 else "")
        message = f"{block.name}: {count}: intervals are wide and may be too short"
        found.append(guard("few-cases", message, block.runs, dataset=block.dataset))
    return found


def leaks(scores: ModelScores) -> list[str]:
    """Why the numbers of a model are upper bounds; empty when its runs show no leak."""
    found: set[str] = set()
    for run in scores.runs:
        total = len(facts.test_cases(run) or (set(run.rows.case) if run.rows is not None else ()))
        shared, _ = facts.leak_counts(run)
        for count, text in (
            (shared, "share a patient with training"),
            (facts.test_in_training(run), "stand in the training list"),
            (
                facts.test_used_for_selection(run),
                "were used for model selection (they stand in the validation list)",
            ),
        ):
            if count:
                found.add(f"{count} of {total} test cases {text}")
        if not found and facts.acknowledged_leaks(run):
            found.add("the split is known to leak between test and training")
    return sorted(found)


def leak_guards(block: Block) -> list[Guard]:
    """A banner per reason: numbers are upper bounds and are not marked best."""
    reasons: dict[str, list[Run]] = {}
    for scores in block.models:
        for reason in leaks(scores):
            reasons.setdefault(reason, []).extend(scores.runs)
    return [
        guard(
            "leak",
            f"{block.name}: {reason}: numbers are upper bounds, not marked best",
            runs,
            dataset=block.dataset,
        )
        for reason, runs in sorted(reasons.items())
    ]


def seed_guards(block: Block) -> list[Guard]:
    """Models known from one training run only."""
    single = [scores for scores in block.ranked if len(scores.seeds) < 2]
    if not single:
        return []
    names = _names([scores.model for scores in single])
    message = f"{block.name}: one training run of {names}: no claim about the method"
    runs = [run for scores in single for run in scores.runs]
    return [guard("single-seed", message, runs, dataset=block.dataset)]


def missing_guards(block: Block, metrics: Sequence[str]) -> list[Guard]:
    """Expected cases without a usable result, and penalties that cannot be known."""
    found: list[Guard] = []
    for scores in block.models:
        lost = [(case, status) for model, case, status in failures(block) if model == scores.model]
        if lost:
            listed = _names([f"{case} ({status})" for case, status in lost])
            how = "left out for all models" if block.dropped_cases else "scored worst"
            message = (
                f"{block.name}: {scores.model}: {len(lost)} of {int(scores.covered.sum())} expected cases "
                f"have no usable result, {how}: {listed}"
            )
            found.append(guard("missing-cases", message, scores.runs, dataset=block.dataset))
        unknown = [
            metric
            for metric in metrics
            if metric in block.metrics and bool(np.any(scores.unknown[..., block.metrics.index(metric)]))
        ]
        if unknown:
            message = (
                f"{block.name}: {scores.model}: no diagonal known for a failed case: {', '.join(unknown)} n/a"
            )
            found.append(guard("penalty-unknown", message, scores.runs, dataset=block.dataset))
    return found


def discrimination_guards(discriminations: Sequence[Discrimination]) -> list[Guard]:
    """Columns in which models differ by less than retraining moves them."""
    found: list[Guard] = []
    for item in discriminations:
        if item.cannot_rank and item.ratio is not None:
            message = (
                f"{item.block.name}, {item.region}, {item.metric}: cannot rank methods: "
                f"spread between models is {item.ratio:.2f} of the spread over {item.within}"
            )
            found.append(guard("cannot-rank", message, item.block.runs, dataset=item.block.dataset))
    return found


def record_guards(runs: Sequence[Run], blocks: Sequence[Block]) -> list[Guard]:
    """Findings about single runs: demo data, modified code, roll-backs, unfinished and unusable runs."""
    found: list[Guard] = []
    used = {run.run_id for block in blocks for run in block.runs}
    demo = [run for run in runs if run.run_id in used and facts.phantom(run)]
    if demo:
        found.append(guard("demo-data", "generated scans or the demo protocol: not a benchmark", demo))
    dirty = [run for run in runs if run.run_id in used and facts.dirty(run)]
    if dirty:
        found.append(
            guard("modified-code", f"{len(dirty)} runs were made by code with uncommitted changes", dirty)
        )
    rolled = [run for run in runs if run.run_id in used and facts.degraded(run)]
    if rolled:
        names = _names(sorted({run.model for run in rolled}))
        message = f"training of {names} was rolled back after non-finite values (superscript 2)"
        found.append(guard("degraded-run", message, rolled))
    unfinished = [run for run in runs if not run.complete and not run.problem]
    if unfinished:
        states = ", ".join(sorted({run.status for run in unfinished}))
        message = f"{len(unfinished)} runs are not complete ({states})"
        found.append(guard("unfinished-run", message, unfinished))
    for run in runs:
        if run.problem:
            message = f"{run.run_id} cannot be used and is left out: {run.problem}"
            found.append(guard("missing-cases", message, [run], dataset=run.dataset))
    return found


def failed_anywhere(scores: ModelScores) -> bool:
    """Whether any case of the model has no usable result."""
    return bool(np.isin(scores.status, FAILED_CODES).any())


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"
