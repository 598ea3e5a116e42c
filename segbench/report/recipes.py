"""Do the rows of a block differ in how they were trained, split or scored? The findings that say in what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from segbench.report import facts
from segbench.report.block import Block
from segbench.report.finding import Guard, guard, listed_names
from segbench.report.runs import Run

MOST_FIELDS = 12  # of a recipe difference; the rest is counted
INFERENCE_FIELDS = ("inference.overlap", "inference.mirror_axes", "inference.tta", "inference.importance")
FAMILY_FIELDS = ("optimiser.", "schedule.")  # what a protocol may set by family


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
            models = listed_names(sorted({run.model for run in lacking}))
            message = f"{what} unknown for {models}: not known to be equal"
            found.append(guard(code, message, lacking, severity="warn"))
    return found
