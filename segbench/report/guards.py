"""Fairness guards: what a reader must know before the numbers, each with a code, a severity and the runs it
concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from segbench.report import facts
from segbench.report.block import Block, ModelScores
from segbench.report.blocks import failures
from segbench.report.finding import SEVERITIES, Guard, guard, listed_names
from segbench.report.missing import FAILED_CODES
from segbench.report.recipes import protocol_guards, recipe_guards, unknown_guards, variant_guards
from segbench.report.runs import Run
from segbench.report.spread import Discrimination, coverage_differs

FEW_CASES = 30
FEW_DATASETS = 6


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
    names = listed_names([scores.model for scores in single])
    message = f"{block.name}: one training run of {names}: no claim about the method"
    runs = [run for scores in single for run in scores.runs]
    return [guard("single-seed", message, runs, dataset=block.dataset)]


def missing_guards(block: Block, metrics: Sequence[str]) -> list[Guard]:
    """Expected cases without a usable result, and penalties that cannot be known."""
    found: list[Guard] = []
    for scores in block.models:
        lost = [(case, status) for model, case, status in failures(block) if model == scores.model]
        if lost:
            listed = listed_names([f"{case} ({status})" for case, status in lost])
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
    groups: dict[tuple[str, str, str], list[Discrimination]] = {}
    for item in discriminations:
        if item.cannot_rank and item.ratio is not None:
            groups.setdefault((item.block.name, item.metric, item.within), []).append(item)
    found: list[Guard] = []
    for (name, metric, within), items in groups.items():
        ratios = ", ".join(f"{item.region} {item.ratio:.2f}" for item in items)
        message = (
            f"{name}, {metric}: cannot rank methods: spread between models over spread of {within}: {ratios}"
        )
        runs = [run for item in items for run in item.block.runs]
        found.append(guard("cannot-rank", message, runs, dataset=items[0].block.dataset, metric=metric))
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
    same = [run for run in runs if run.run_id in used and facts.equal_to_reference(run)]
    if same:
        names = listed_names(sorted({run.model for run in same}))
        message = f"predictions of {names} are the reference files themselves, byte for byte"
        found.append(guard("prediction-is-reference", message, same))
    rolled = [run for run in runs if run.run_id in used and facts.degraded(run)]
    if rolled:
        names = listed_names(sorted({run.model for run in rolled}))
        message = f"training of {names} was rolled back after non-finite values (superscript 2)"
        found.append(guard("degraded-run", message, rolled))
    unfinished = [run for run in runs if not run.complete and not run.problem]
    if unfinished:
        found.append(guard("unfinished-run", unfinished_words(unfinished), unfinished))
    for run in runs:
        if run.problem:
            message = f"{run.run_id} cannot be used and is left out: {run.problem}"
            found.append(guard("missing-cases", message, [run], dataset=run.dataset))
    return found


def unfinished_words(runs: Sequence[Run]) -> str:
    """Which runs are not complete, and how they ended."""
    names: list[str] = []
    for run in runs:
        kind = facts.table_of(run.record, "failure").get("class")
        state = f"{run.status}: {kind}" if kind else run.status
        fold = f", fold {run.fold}" if run.fold else ""
        names.append(f"{run.model} on {run.dataset}{fold}, seed {run.seed} ({state})")
    count = "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"
    return f"{count} not complete: {listed_names(names)}"


def failed_anywhere(scores: ModelScores) -> bool:
    """Whether any case of the model has no usable result."""
    return bool(np.isin(scores.status, FAILED_CODES).any())
