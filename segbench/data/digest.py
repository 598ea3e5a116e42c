"""The digest of a dataset's content: the same voxels give the same digest on every machine.

It does not depend on where the files lie, what they are called, how they are compressed, of which type they
are stored or in which order of axes; it enters the run id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.data.adapters import CaseFiles
from segbench.data.dataset import Dataset
from segbench.data.verify.cache import open_cache
from segbench.data.verify.facts import FileFacts
from segbench.data.verify.gather import DatasetFacts, gather, masks_of, roles_of
from segbench.data.verify.view import channels_of

LABEL = "label"
"""Name of the reference among the channels of a case."""


def dataset_digest(
    dataset: Dataset,
    *,
    cases: Iterable[str] | None = None,
    keep: bool = True,
) -> str:
    """Sha256 over the sorted lines `case TAB channel-or-label TAB array digest`, 64 hex digits.

    Args:
        dataset: an open dataset.
        cases: only these; those of `digest_cases` when None. The first call reads every file that no
            verification read before; the second opens none.
        keep: False neither uses nor fills the cache.

    A file that cannot be read counts with its code and the digest of its bytes: one bad case, of which the
    split at hand may know nothing, does not keep a dataset from having a digest.

    Raises:
        SegbenchError: SB324 when the dataset has no such case.
    """
    chosen = sorted(digest_cases(dataset) if cases is None else cases)
    cache = open_cache(dataset.root, keep=keep)
    facts = gather(dataset, cache, cases=chosen)
    return digest_of_facts(dataset, facts, chosen)


@lru_cache(maxsize=16)
def content_digest(dataset: Dataset) -> str:
    """The digest of an open dataset's labelled cases; only the first call reads the files."""
    return dataset_digest(dataset)


def digest_cases(dataset: Dataset) -> tuple[str, ...]:
    """The cases that make up the digest: those with a reference, else (in a test set) those without."""
    return dataset.case_ids or dataset.cases_without_reference


def image_digests(dataset: Dataset, cases: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The digest of every image of these cases, over voxels alone: the same under any name."""
    chosen = sorted(cases)
    facts = gather(dataset, open_cache(dataset.root), cases=chosen)
    return {
        case: tuple(voxels.digest for voxels in channels_of(dataset.case(case), facts).values())
        for case in chosen
    }


def digest_of_facts(dataset: Dataset, facts: DatasetFacts, cases: Iterable[str]) -> str:
    """The digest from facts that are here already."""
    lines: list[str] = []
    for case in cases:
        files = dataset.case(case)
        lines += [f"{case}\t{name}\t{digest}\n" for name, digest in _digests(dataset, files, facts).items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def check_unchanged(dataset: Dataset, cases: Iterable[str]) -> None:
    """Refuse a case whose files changed since they were verified; one that never was is taken as it is.

    A file with another time but the same bytes (a copy, a touch) has not changed.

    Raises:
        SegbenchError: SB338, naming the case and the file.
    """
    cache = open_cache(dataset.root)
    for case in cases:
        files = dataset.case(case)
        paths = [path for path, _ in roles_of(files)] + [path for _, path in masks_of(dataset, files)]
        for path in paths:
            known = cache.remembered(path)
            if known is None or known.sha256 is None or cache.file(path) is not None:
                continue
            if not path.is_file() or sha256_file(path) != known.sha256:
                raise SegbenchError(
                    "SB338",
                    "the file has changed since the dataset was verified",
                    path=path,
                    case=case,
                    expected=f"{known.state[0]:,} bytes, sha256 {known.sha256[:16]}...",
                    mend="run segbench data verify again, then prepare",
                )


def _digests(dataset: Dataset, files: CaseFiles, facts: DatasetFacts) -> dict[str, str]:
    """Array digests by channel and `label`; what cannot be read is told by its code and its bytes."""
    digests = {channel: _refused(facts.files[path]) for channel, path in files.images.items()}
    digests |= {channel: voxels.digest for channel, voxels in channels_of(files, facts).items()}
    if isinstance(files.references, Path):
        entry = facts.files[files.references]
        digests[LABEL] = _refused(entry) if entry.label is None else entry.label.digest
    elif files.references is not None:
        composite = facts.composites.get(files.case)
        if composite is not None:
            digests[LABEL] = composite.label.digest
        else:
            for value, path in masks_of(dataset, files):
                digests[f"{LABEL}:{value}"] = _refused(facts.files[path])
    return digests


def _refused(entry: FileFacts) -> str:
    code = "-" if entry.fault is None else entry.fault.code
    return f"{code}:{entry.sha256}"
