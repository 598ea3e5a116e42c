"""Reads the files of one case once and writes down what they hold. Runs in worker processes; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.core.hashing import file_state, sha256_file
from segbench.data.finding import finding_of
from segbench.data.verify.facts import (
    ChannelFacts,
    CompositeFacts,
    FileFacts,
    HeaderFacts,
    LabelFacts,
    Role,
)
from segbench.volumes import as_label_array, count_labels, digest_canonical, read_header
from segbench.volumes.geometry import canonical_orientation, compare_geometry
from segbench.volumes.read import as_real, check_finite, load_stored

_HASHED_REFUSALS = 256 * 2**20
"""Bytes up to which a refused file is hashed."""


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Files of one case that have to be opened.

    Attributes:
        case: its id.
        files: (path, role) of files that are read one by one.
        masks: (label value, path) of masks in painting order; read together when any of them has to be.
        combined: label map that is compared with the painted masks.
        pixels: read the files whole, not the headers alone.
        max_bytes: largest volume that is read.
    """

    case: str
    files: tuple[tuple[Path, Role], ...] = ()
    masks: tuple[tuple[int, Path], ...] = ()
    combined: Path | None = None
    pixels: bool = True
    max_bytes: int = 8 * 2**30


ScanResult = tuple[dict[Path, FileFacts], CompositeFacts | None]
"""What `scan_case` found: facts by path, facts of the painted reference."""


def scan_case(task: ScanTask) -> ScanResult:
    """Facts of all files of a task. A file that cannot be read becomes a fact too; nothing is raised."""
    files = {path: _scan(path, role, task)[0] for path, role in task.files}
    return files, _scan_masks(task, files) if task.masks else None


def inputs_of(masks: Sequence[tuple[int, Path]], combined: Path | None) -> str:
    """State of every file that a painted reference is made from, as text."""
    parts = [f"{value}:{path.name}:{file_state(path)}" for value, path in masks]
    if combined is not None:
        parts.append(f"combined:{combined.name}:{file_state(combined)}")
    return ";".join(parts)


def _scan(path: Path, role: Role, task: ScanTask) -> tuple[FileFacts, NDArray[Any] | None]:
    """Facts of a file and, where it could be read whole, its voxels."""
    facts = FileFacts(file_state(path), role)
    image = role == "image"
    try:
        header = read_header(path, max_bytes=task.max_bytes, allow_channels=image)
        facts = replace(facts, header=HeaderFacts.of(header))
        if not task.pixels:
            return facts, None
        sha256 = hashlib.sha256()
        header, stored = load_stored(path, max_bytes=task.max_bytes, allow_channels=image, hasher=sha256)
        if image:
            # Integers stay as stored: their digest is that of the same numbers as float, at a quarter of
            # the work.
            array = as_real(header, stored) if header.scaled else stored
            check_finite(array, path=path)
            facts = replace(facts, sha256=sha256.hexdigest(), channels=_channel_facts(header.affine, array))
        else:
            array = as_label_array(stored, slope=header.slope, inter=header.inter, path=path)
            facts = replace(facts, sha256=sha256.hexdigest(), label=_label_facts(header.affine, array))
        return facts, array
    except SegbenchError as error:
        sha256_of_refused = _bytes_digest(path) if task.pixels else None
        return replace(facts, fault=finding_of(error), sha256=sha256_of_refused), None


def _bytes_digest(path: Path) -> str | None:
    """Sha256 of a refused file, so that the dataset's digest tells one damage from another.

    None for one of an absurd size: hashing gigabytes of what no reader takes helps nobody.
    """
    try:
        return sha256_file(path) if path.is_file() and path.stat().st_size <= _HASHED_REFUSALS else None
    except OSError:
        return None


def _channel_facts(affine: NDArray[np.float64], array: NDArray[Any]) -> tuple[ChannelFacts, ...]:
    orientation = canonical_orientation(affine)
    return tuple(
        ChannelFacts(digest_canonical(orientation.view(channel)), float(channel.min()), float(channel.max()))
        for channel in (array if array.ndim == 4 else array[np.newaxis])
    )


def _label_facts(affine: NDArray[np.float64], array: NDArray[Any]) -> LabelFacts:
    return LabelFacts(digest_canonical(canonical_orientation(affine).view(array)), count_labels(array))


def _scan_masks(task: ScanTask, files: dict[Path, FileFacts]) -> CompositeFacts | None:
    """Paint the masks as `Dataset.read_reference` does, and count where they overlap.

    Args:
        task: what is read.
        files: receives the facts of each mask and of the combined map.
    """
    inputs = inputs_of(task.masks, task.combined)
    painted: NDArray[np.uint8] | None = None
    first: HeaderFacts | None = None
    overlaps: dict[tuple[int, int], int] = {}
    whole = task.pixels
    for value, path in task.masks:
        facts, array = _scan(path, "mask", task)
        files[path] = facts
        if array is None or facts.label is None or facts.header is None or not is_mask(facts.label.voxels):
            whole = False
            continue
        if first is None or painted is None:
            first, painted = facts.header, np.zeros(array.shape, dtype=np.uint8)
        array = _in_order_of(first, facts.header, array)
        if painted.shape != array.shape:
            whole = False
            continue
        inside = array != 0
        beneath = painted[inside]
        if beneath.any():
            for other, count in count_labels(beneath).items():
                if other:
                    overlaps[other, value] = count
        painted[inside] = value
    combined = None
    if task.combined is not None:
        files[task.combined], combined = _scan(task.combined, "label", task)
    if not whole or painted is None or first is None:
        return None
    differs = None
    if task.combined is not None and combined is not None:
        combined = _in_order_of(first, files[task.combined].header, combined)
        differs = int((combined != painted).sum()) if combined.shape == painted.shape else None
    pairs = tuple((first, second, count) for (first, second), count in sorted(overlaps.items()))
    return CompositeFacts(inputs, _label_facts(first.affine, painted), pairs, differs)


def _in_order_of(first: HeaderFacts, header: HeaderFacts | None, array: NDArray[Any]) -> NDArray[Any]:
    """The voxels in the order of axes of the first file, where only that differs."""
    orientation = None if header is None else compare_geometry(first, header).orientation
    return array if orientation is None else orientation.apply(array)


def is_mask(voxels: Mapping[int, int]) -> bool:
    """Whether the values that occur are those of a mask: 0 and 1, or 0 and 255."""
    return set(voxels) <= {0, 1} or set(voxels) <= {0, 255}
