"""The stages before training, verify and prepare; preparing ahead; keeping the cache within bounds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cards import DatasetCard, load_protocol
from segbench.cards.protocol import DataSection
from segbench.core import console
from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.finding import finding
from segbench.data.prepared.eviction import evict
from segbench.data.verify.report import grouped
from segbench.runs.active import ActiveCell
from segbench.runs.build import try_one_step
from segbench.runs.fit import usable_splits
from segbench.runs.stages import StageResult

if TYPE_CHECKING:
    from segbench.data.prepared.cache import Cache
    from segbench.data.prepared.recipe import PreparationRecipe


def verify_stage(cell: ActiveCell) -> StageResult:
    """Verify the dataset (cached per file); a fault in a case of the split stops the cell.

    Raises:
        SegbenchError: The first error that concerns the split, the others as details.
    """
    from segbench.data.verify.api import verify

    with ExitStack() as bars:

        def begin(title: str, total: int) -> Callable[[float], None]:
            bars.close()  # the bar of the pass before
            bar = bars.enter_context(console.progress(title, total))

            def advance(cases: float) -> None:
                bar.advance(cases)
                cell.stop.check()  # a signal need not wait for the last of a thousand cases

            return advance

        workers = max(1, cell.execution.workers)
        report = verify(cell.data, split=cell.split, workers=workers, on_progress=begin)
    ours = set(cell.split.train) | set(cell.split.validation) | set(cell.split.test)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    stopping = [finding for finding in errors if finding.case is None or finding.case in ours]
    if stopping:
        first = stopping[0]
        raise SegbenchError(
            first.code,
            first.message,
            path=first.file,
            case=first.case,
            expected=first.expected,
            found=first.found,
            mend=first.mend,
            details=[f"{f.code} {f.case or f.file or ''} {f.message}" for f in stopping[1:20]],
        )
    for line in grouped(errors):
        cell.warn(f"{line} (outside the split)")
    warnings = [finding for finding in report.findings if finding.severity == "warning"]
    # Often all but a few, by a list: one line for all. Of --limit nobody needs to be told.
    unused = [f.case for f in warnings if f.code == "SB324" and f.case is not None and f.case not in ours]
    for line in grouped(f for f in warnings if f.code != "SB324" or f.case not in unused):
        cell.warn(line)
    if unused and not cell.protocol.split.limit:
        cell.warn(f"SB324: split {cell.split.name} does not use {len(unused)} cases, such as {unused[0]}")
    return StageResult(artefact=report.digest or "", facts={"counts": report.counts})


def build_recipe(card: DatasetCard, data: DataSection, dataset_digest: str) -> PreparationRecipe:
    """How the cases of a dataset become network input under a protocol."""
    from segbench.data.prepared.recipe import PreparationRecipe

    own, spacing = data.normalisation, data.spacing
    if spacing == "card":
        spacing = card.geometry.spacing_mm or "median"
    return PreparationRecipe(
        channels=tuple(card.channels.order),
        normalisation=tuple(
            card.channel_normalisation if own == "card" else (own,) * len(card.channels.order)
        ),
        spacing_mm=spacing,
        orientation=card.geometry.orientation,
        dtype=data.cache_dtype,
        dataset_digest=dataset_digest,
    )


def recipe_of(cell: ActiveCell) -> PreparationRecipe:
    """How the cases of this cell become network input."""
    return build_recipe(cell.dataset, cell.protocol.data, cell.dataset_digest)


def prepared_root() -> Path:
    """The folder of all prepared recipes."""
    return cache_dir() / "prepared"


def open_prepared(cell: ActiveCell, *, tell: Callable[[str], None] | None = None) -> Cache:
    """The prepared cases of this cell, preparing what is missing; a bad test case is left to `predict`.

    Raises:
        SegbenchError: The error of a training or validation case, SB338 when a file changed since it was
            verified, or SB505 when the forecast does not fit.
    """
    from segbench.data.digest import check_unchanged
    from segbench.data.prepared.prepare import prepare_dataset

    check_unchanged(cell.data, cell.cases)
    cache = prepare_dataset(
        cell.data,
        cell.cases,
        recipe_of(cell),
        prepared_root(),
        training_ids=cell.split.train,
        workers=cell.execution.workers,
        progress=tell,
        between=cell.stop.check,
        on_error="collect",
    )
    for case in (*cell.split.train, *cell.split.validation):
        if case in cache.failures:
            raise cache.failures[case]
    return cache


def prepare_stage(cell: ActiveCell) -> StageResult:
    """Prepare every case once per recipe, shared by all models and cells.

    Where that is work, the network first shows that it can make a step at all.
    """
    from segbench.data.prepared.prepare import forecast_preparation

    recipe, training = recipe_of(cell), cell.split.train
    missing, _ = forecast_preparation(cell.data, cell.cases, recipe, prepared_root(), training_ids=training)
    if missing:
        try_one_step(cell)
    with console.progress(f"prepare {cell.dataset.slug}", len(cell.cases)) as bar:
        cache = open_prepared(cell, tell=lambda case: bar.advance(note=case))
    return StageResult(
        artefact=recipe.digest(training),
        facts={
            "spacing_mm": cache.fingerprint.get("spacing_mm"),
            "normalisation_statistics": cache.fingerprint.get("normalisation_statistics"),
            "failed_cases": sorted(cache.failures),
        },
    )


def prepare_ahead(
    dataset: str, *, path: Path | None, data_dir: Path | None, protocol: str, workers: int
) -> dict[str, Any]:
    """Prepare every case of the dataset's default split for a protocol; what was done, as `--json` prints it.

    Raises:
        SegbenchError: The dataset's or a case's fault; SB505 when the forecast does not fit the disk.
    """
    from segbench.data.prepared.prepare import prepare_dataset

    opened = open_dataset(dataset, path=path, data_dir=data_dir)
    settings = load_protocol(protocol)
    name = None if settings.split.name == "card" else settings.split.name
    split = usable_splits(opened, name, settings.split.limit)[0]
    cases = sorted({*split.train, *split.validation, *split.test})
    recipe = build_recipe(opened.card, settings.data, content_digest(opened))
    with console.progress(f"prepare {opened.card.slug}", len(cases)) as bar:
        cache = prepare_dataset(
            opened,
            cases,
            recipe,
            prepared_root(),
            training_ids=split.train,
            workers=workers,
            progress=lambda case: bar.advance(note=case),
            on_error="collect",
        )
    for line in grouped(finding(e.code, "error", e.message, case=case) for case, e in cache.failures.items()):
        console.warn(line)
    failures = {case: error.code for case, error in cache.failures.items()}
    return {
        "dataset": opened.card.slug,
        "cases": len(cases) - len(failures),
        "folder": str(cache.folder),
        "failures": failures,
    }


def evict_recipes(keep_gb: float) -> list[Path]:
    """Remove the recipes used longest ago until the rest fits; gives the folders removed.

    A recipe that a living process uses stays, whatever its size.

    Args:
        keep_gb: Size that may stay, in units of 10^9 bytes.

    Raises:
        SegbenchError: SB104 for a size that is not valid.
    """
    if not 0 <= keep_gb < float("inf"):
        raise SegbenchError(
            "SB104",
            f"--evict {keep_gb:g} is not a size to keep",
            expected="0 or more, in GB",
            found=keep_gb,
            mend="--evict 0 removes every recipe that no running cell uses",
        )
    return evict(prepared_root(), int(keep_gb * 1e9))
