"""`segbench data verify`: everything that can be known to be wrong with a dataset before anything trains on
it.

Three steps: what the adapter found in the tree, the headers of all files, their voxels. The first two take
seconds for thousands of cases. Facts of files are remembered, judgement is made anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.core.errors import SegbenchError
from segbench.data.dataset import Dataset
from segbench.data.digest import digest_cases, digest_of_facts
from segbench.data.finding import Finding, finding_of
from segbench.data.opening import open_dataset
from segbench.data.splits import Split
from segbench.data.verify.across import check_across, note_images
from segbench.data.verify.cache import FactsCache, open_cache
from segbench.data.verify.cases import check_case
from segbench.data.verify.gather import DatasetFacts, gather
from segbench.data.verify.report import Report, sorted_findings
from segbench.data.verify.view import CaseView
from segbench.data.verify.whole_set import (
    check_classes,
    check_duplicates,
    check_split,
    count_labels,
    labels_of,
)
from segbench.volumes.volume import DEFAULT_MAX_BYTES

__all__ = ["Finding", "Report", "verify"]

_OF_THE_DATA = {"SB302", "SB311", "SB330", "SB331"}
"""What keeps a folder from being opened but is said in a report, not as a failure of the command."""

OnProgress = Callable[[str, int], Callable[[float], None]]
"""Told (title, number of cases) when a pass begins; gives what is called with the number of cases done."""


def verify(
    dataset: str | Path | DatasetCard | Dataset,
    *,
    path: Path | str | None = None,
    split: str | Path | Split | Sequence[Split] | None = None,
    headers_only: bool = False,
    workers: int = 1,
    cache: Path | bool | None = None,
    data_dir: Path | str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    on_progress: OnProgress | None = None,
) -> Report:
    """All findings about a dataset, sorted by severity, code, case and file.

    Args:
        dataset: a slug, a card, a folder that describes itself, or an open dataset.
        path: the dataset's root itself.
        split: a split to check with it: name, file, or folds.
        headers_only: leave the voxels out.
        workers: processes that read; the report does not depend on it.
        cache: where the memory of unchanged files lies; None or True for the cache folder of this user, False
            for none.
        data_dir: the folder that holds the datasets.
        max_bytes: largest volume that is read.
        on_progress: is told what is going on.

    Raises:
        SegbenchError: SB101 unknown name, SB301 not here, SB110 malformed card or split file. Whatever is
            wrong with the data itself is a finding.
    """
    if isinstance(dataset, Dataset):
        opened = dataset
    else:
        try:
            opened = open_dataset(dataset, path=path, data_dir=data_dir, max_bytes=max_bytes)
        except SegbenchError as error:
            if error.code not in _OF_THE_DATA:
                raise
            return _refused(dataset, error)
    folder = cache if isinstance(cache, Path) else None
    memory = open_cache(opened.root, folder=folder, keep=cache is not False)
    facts = _gather(opened, memory, headers_only, workers=workers, on_progress=on_progress)
    findings = list(opened.layout_findings)
    splits: list[Split] = []
    if split is not None:
        splits, of_split = check_split(opened, split)
        findings += of_split
    for case in opened.discovery.cases:
        findings += check_case(CaseView(opened, case, facts))
    labels = labels_of(opened, facts)
    if not headers_only:
        findings += check_classes(opened, labels, splits)
        findings += check_duplicates(opened, facts, labels, splits)
        findings += check_across(opened, facts, memory)
        note_images(opened, facts, memory)
        memory.save()
    counted = digest_cases(opened)
    return Report(
        dataset=opened.card.slug,
        root=str(opened.root),
        adapter=opened.adapter,
        form=opened.form,
        cases_found=len(opened.case_ids),
        cases_expected=_expected_cases(opened),
        cases_without_reference=len(opened.cases_without_reference),
        labels=count_labels(labels),
        findings=sorted_findings(findings),
        digest=digest_of_facts(opened, facts, counted) if counted and not headers_only else None,
        cached=facts.opened == 0,
        label_names=opened.card.labels,
    )


def _gather(
    dataset: Dataset, memory: FactsCache, headers_only: bool, *, workers: int, on_progress: OnProgress | None
) -> DatasetFacts:
    """Headers of all files first, so that what they tell is known (and kept) before the long pass begins."""
    count = len(dataset.discovery.cases)

    def begin(title: str) -> Callable[[float], None] | None:
        return None if on_progress is None else on_progress(f"{title} {dataset.card.slug}", count)

    # Headers take a fraction of a millisecond each: starting processes for them would cost more.
    facts = gather(dataset, memory, pixels=False, advance=begin("headers of"))
    if headers_only:
        return facts
    opened = facts.opened
    facts = gather(dataset, memory, workers=workers, advance=begin("voxels of"))
    facts.opened += opened
    return facts


def _refused(dataset: str | Path | DatasetCard, error: SegbenchError) -> Report:
    """The report on a folder that cannot be opened as a dataset at all."""
    name = dataset.slug if isinstance(dataset, DatasetCard) else str(dataset)
    place = None if error.path is None else error.path.name
    lines = error.details or (error.message,)
    return Report(
        dataset=name,
        root=str(error.path) if error.path is not None else "",
        findings=sorted_findings(finding_of(error, message=line, file=place) for line in lines),
    )


def _expected_cases(dataset: Dataset) -> int | None:
    """What the folder announces itself, else what the card says; unknown for a tree of phantoms."""
    if dataset.discovery.announced is not None:
        return dataset.discovery.announced
    return None if dataset.is_generated else dataset.card.expected.cases
