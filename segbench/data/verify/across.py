"""The same scan in two datasets: looked for by content digest among all datasets verified on this machine.

Public abdominal CT sets share more than half of their cases, so a model trained on one may be tested on
what it has seen under another name. Source: arXiv 2508.13626 (reuse of cases across abdominal CT sets).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segbench.core.foreign import parse_json
from segbench.data.adapters.base import inside
from segbench.data.dataset import Dataset
from segbench.data.finding import Finding, finding
from segbench.data.verify.cache import FactsCache
from segbench.data.verify.gather import DatasetFacts
from segbench.data.verify.view import channels_of


def note_images(dataset: Dataset, facts: DatasetFacts, cache: FactsCache) -> None:
    """Leave the digests of a dataset's images in its memory for the verification of others."""
    images = {
        voxels.digest: case
        for case in reversed(list(dataset.discovery.cases))
        for voxels in channels_of(dataset.case(case), facts).values()
    }
    cache.note({"dataset": dataset.card.slug, "generated": dataset.is_generated, "images": images})


def check_across(dataset: Dataset, facts: DatasetFacts, cache: FactsCache) -> Iterator[Finding]:
    """Images that another verified dataset has too, under another id.

    A copy of the same dataset elsewhere has the same ids and is no finding; generated scans are none either.
    """
    if dataset.is_generated or cache.path is None or not cache.path.parent.is_dir():
        return
    others = list(_others(dataset, cache.path))
    if not others:
        return
    for case in dataset.discovery.cases:
        files = dataset.case(case)
        for channel, voxels in channels_of(files, facts).items():
            for slug, images in others:
                twin = images.get(voxels.digest, case)
                if twin != case:
                    message = f"channel {channel}: the same image as case {twin} of dataset {slug}"
                    file = inside(files.images[channel], dataset.root)
                    yield finding("SB321", "warning", message, case=case, file=file)


def _others(dataset: Dataset, own: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for path in sorted(own.parent.glob("*.json")):
        if path == own:
            continue
        about = _about(path)
        if about.get("generated") is False and about.get("dataset") != dataset.card.slug:
            images = about.get("images")
            if isinstance(images, dict):
                yield str(about["dataset"]), images


def _about(path: Path) -> dict[str, Any]:
    try:
        about = parse_json(path.read_bytes())["about"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return about if isinstance(about, dict) else {}
