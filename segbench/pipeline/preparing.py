"""The stages before training: verify the dataset, prepare its cases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.cards import DatasetCard
from segbench.cards.protocol import DataSection
from segbench.core import console
from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.data.digest import content_digest
from segbench.pipeline.build import try_one_step
from segbench.pipeline.context import Context
from segbench.pipeline.stages import StageResult

if TYPE_CHECKING:
    from segbench.data.prepared.cache import Cache
    from segbench.data.prepared.recipe import PreparationRecipe


def verify_stage(context: Context) -> StageResult:
    """Verify the dataset (cached per file); a fault in a case of the split stops the cell.

    Raises:
        SegbenchError: The first error that concerns the split, the others as details.
    """
    from segbench.data.verify.api import verify
    from segbench.data.verify.report import grouped

    with ExitStack() as bars:

        def begin(title: str, total: int) -> Callable[[float], None]:
            bars.close()  # the bar of the pass before
            bar = bars.enter_context(console.progress(title, total))

            def advance(cases: float) -> None:
                bar.advance(cases)
                context.stop.check()  # a signal need not wait for the last of a thousand cases

            return advance

        workers = max(1, context.execution.workers)
        report = verify(context.dataset, split=context.split, workers=workers, on_progress=begin)
    ours = set(context.split.train) | set(context.split.validation) | set(context.split.test)
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
            details=[f"{f.code} {f.case or ''} {f.message}" for f in stopping[1:20]],
        )
    for line in grouped(errors):
        context.warn(f"{line} (outside the split)")
    warnings = [finding for finding in report.findings if finding.severity == "warning"]
    # Often all but a few, by --limit or a list: one line for all.
    unused = [f.case for f in warnings if f.code == "SB324" and f.case is not None and f.case not in ours]
    for line in grouped(f for f in warnings if f.code != "SB324" or f.case not in unused):
        context.warn(line)
    if unused:
        context.warn(
            f"SB324: split {context.split.name} does not use {len(unused)} cases, such as {unused[0]}"
        )
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


def recipe_of(context: Context) -> PreparationRecipe:
    """How the cases of this cell become network input."""
    return build_recipe(context.card, context.protocol.data, content_digest(context.dataset))


def prepared_root() -> Path:
    """The folder of all prepared recipes."""
    return cache_dir() / "prepared"


def open_prepared(context: Context, *, tell: Callable[[str], None] | None = None) -> Cache:
    """The prepared cases of this cell, preparing what is missing; a bad test case is left to `predict`.

    Raises:
        SegbenchError: The error of a training or validation case, SB338 when a file changed since it was
            verified, or SB505 when the forecast does not fit.
    """
    from segbench.data.digest import check_unchanged
    from segbench.data.prepared.prepare import prepare_dataset

    split = context.split
    cases = sorted({*split.train, *split.validation, *split.test})
    check_unchanged(context.dataset, cases)
    cache = prepare_dataset(
        context.dataset,
        cases,
        recipe_of(context),
        prepared_root(),
        training_ids=split.train,
        workers=context.execution.workers,
        progress=tell,
        between=context.stop.check,
        on_error="collect",
    )
    for case in (*split.train, *split.validation):
        if case in cache.failures:
            raise cache.failures[case]
    return cache


def prepare_stage(context: Context) -> StageResult:
    """Prepare every case once per recipe, shared by all models and cells.

    Where that is work, the network first shows that it can make a step at all.
    """
    from segbench.data.prepared.prepare import forecast_preparation

    split = context.split
    cases = sorted({*split.train, *split.validation, *split.test})
    missing = forecast_preparation(
        context.dataset, cases, recipe_of(context), prepared_root(), training_ids=split.train
    ).cases
    if missing:
        try_one_step(context)
    total = len({*split.train, *split.validation, *split.test})
    with console.progress(f"prepare {context.card.slug}", total) as bar:
        cache = open_prepared(context, tell=lambda case: bar.advance(note=case))
    return StageResult(
        artefact=recipe_of(context).digest(context.split.train),
        facts={
            "spacing_mm": cache.fingerprint.get("spacing_mm"),
            "normalisation_statistics": cache.fingerprint.get("normalisation_statistics"),
            "failed_cases": sorted(cache.failures),
        },
    )
