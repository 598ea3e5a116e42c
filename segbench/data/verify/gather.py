"""Brings the facts of a whole dataset together: from the cache where nothing changed, else by reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.data.adapters import CaseFiles
from segbench.data.dataset import Dataset
from segbench.data.finding import finding_of
from segbench.data.verify.cache import FactsCache
from segbench.data.verify.facts import CompositeFacts, FileFacts, Role
from segbench.data.verify.reading import ScanResult, ScanTask, inputs_of, scan_case
from segbench.data.workers import ordered_map

_SAVE_EVERY_S = 60.0

Advance = Callable[[float], None]


@dataclass(slots=True)
class DatasetFacts:
    """Facts of every file of a dataset.

    Attributes:
        files: by path.
        composites: painted references by case.
        opened: files that were read now, not taken from the cache.
    """

    files: dict[Path, FileFacts] = field(default_factory=dict[Path, FileFacts])
    composites: dict[str, CompositeFacts] = field(default_factory=dict[str, CompositeFacts])
    opened: int = 0


def gather(
    dataset: Dataset,
    cache: FactsCache,
    *,
    pixels: bool = True,
    workers: int = 1,
    cases: Iterable[str] | None = None,
    advance: Advance | None = None,
) -> DatasetFacts:
    """Facts of all files, those of unchanged files from the cache.

    Args:
        dataset: an open dataset.
        cache: its memory; filled and saved.
        pixels: read files whole; False looks at the headers alone.
        workers: processes that read. The result does not depend on it.
        cases: only these; all when None.
        advance: is told the number of cases done.
    """
    facts = DatasetFacts()
    chosen = list(dataset.discovery.cases) if cases is None else sorted(cases)
    tasks: list[ScanTask] = []
    for case in chosen:
        task = _task_for(dataset, dataset.case(case), cache, facts, pixels=pixels)
        if task is None:
            if advance is not None:
                advance(1)
        else:
            tasks.append(task)
    saved = time.monotonic()
    try:
        for case, (files, composite) in _run(tasks, workers):
            facts.opened += len(files)
            facts.files |= files
            for path, entry in files.items():
                cache.keep(path, entry)
            if composite is not None:
                facts.composites[case] = composite
                cache.keep_composite(case, composite)
            if advance is not None:
                advance(1)
            if time.monotonic() - saved > _SAVE_EVERY_S:  # a pass over a large set may take hours
                cache.save()
                saved = time.monotonic()
    finally:
        cache.save()
    return facts


def roles_of(files: CaseFiles) -> list[tuple[Path, Role]]:
    """Every file of a case that is read by itself, each once; the masks of a painted reference are not."""
    roles: list[tuple[Path, Role]] = [(path, "image") for path in dict.fromkeys(files.images.values())]
    if isinstance(files.references, Path):
        roles.append((files.references, "label"))
        if files.combined is not None:
            roles.append((files.combined, "label"))
    return roles


def masks_of(dataset: Dataset, files: CaseFiles) -> tuple[tuple[int, Path], ...]:
    """(label value, file) of the masks that a reference is painted from, in painting order."""
    if files.references is None or isinstance(files.references, Path):
        return ()
    values = {name: value for value, name in dataset.card.labels.items()}
    return tuple((values[name], path) for name, path in files.references.items())


def _task_for(
    dataset: Dataset, files: CaseFiles, cache: FactsCache, facts: DatasetFacts, *, pixels: bool
) -> ScanTask | None:
    """What has to be opened for a case; known facts go straight to `facts`. None when nothing has."""
    stale: list[tuple[Path, Role]] = []
    for path, role in roles_of(files):
        known = cache.file(path)
        if known is not None and known.role == role and (known.has_pixels or not pixels):
            facts.files[path] = known
        else:
            stale.append((path, role))
    masks = masks_of(dataset, files)
    if masks and _masks_known(files, masks, cache, facts, pixels=pixels):
        masks = ()
    if not stale and not masks:
        return None
    return ScanTask(
        case=files.case,
        files=tuple(stale),
        masks=masks,
        combined=files.combined if masks else None,
        pixels=pixels,
        max_bytes=dataset.max_bytes,
    )


def _masks_known(
    files: CaseFiles,
    masks: tuple[tuple[int, Path], ...],
    cache: FactsCache,
    facts: DatasetFacts,
    *,
    pixels: bool,
) -> bool:
    """Whether all masks are in the cache, with what was painted from them."""
    wanted: list[tuple[Path, Role]] = [(path, "mask") for _, path in masks]
    if files.combined is not None:
        wanted.append((files.combined, "label"))
    known = {path: cache.file(path) for path, _ in wanted}
    for path, role in wanted:
        entry = known[path]
        if entry is None or entry.role != role or (pixels and not entry.has_pixels):
            return False
    facts.files.update({path: entry for path, entry in known.items() if entry is not None})
    composite = cache.composite(files.case, inputs_of(masks, files.combined))
    if composite is not None:
        facts.composites[files.case] = composite
    return True


def _run(tasks: list[ScanTask], workers: int) -> Iterator[tuple[str, ScanResult]]:
    """(case, result) in the order of the tasks; one on which a worker died twice gives faults, not an end."""
    pool = 0 if workers <= 1 or len(tasks) < 2 else min(workers, len(tasks))
    for task, result, error in ordered_map(scan_case, tasks, pool, case_of=lambda task: task.case):
        if error is None:
            yield task.case, result
        elif isinstance(error, SegbenchError):
            masks: list[tuple[Path, Role]] = [(path, "mask") for _, path in task.masks]
            # Size -1: never remembered.
            lost = {
                path: FileFacts((-1, -1, -1, -1), role, fault=finding_of(error))
                for path, role in (*task.files, *masks)
            }
            yield task.case, (lost, None)
        else:
            raise error
