"""Prepare the cases of a dataset once per recipe, each whole or absent, and open them as a cache.

The same call again does only what is missing: a case is made anew when its files changed, when a stored file
is damaged, or when the recipe is another one. One bad case stays alone: the others go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError, about_case
from segbench.core.hashing import digest_json, file_state, sha256_file
from segbench.core.text import bytes_words
from segbench.data.grids import on_grid_of
from segbench.data.prepared.cache import Cache, CacheDamagedError, write_case
from segbench.data.prepared.case import (
    PreparedCase,
    RawCase,
    finish_case,
    load_case,
    prepare_case,
    prepared_shape,
)
from segbench.data.prepared.eviction import note_use
from segbench.data.prepared.normalisation import Float32, channel_statistics, foreground_intensities
from segbench.data.prepared.recipe import PREPARE_VERSION, PreparationRecipe, target_spacing
from segbench.data.workers import ordered_map
from segbench.volumes import Volume, read_header, read_volume
from segbench.volumes.geometry import canonical_orientation

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

__all__ = [
    "PREPARE_VERSION",
    "PreparationRecipe",
    "PreparedCase",
    "forecast_preparation",
    "prepare_case",
    "prepare_dataset",
    "prepared_folder",
]

# Share of the uncompressed size that compressed float16 images and label maps take on disk.
_IMAGE_RATIO, _LABEL_RATIO = 0.25, 0.05
_FREE_DISK_FACTOR = 1.2


def prepared_folder(
    cache_root: Path | str, slug: str, recipe: PreparationRecipe, training_ids: Sequence[str] = ()
) -> Path:
    """Where the cases of a recipe lie: `<cache>/<dataset>/<16 hex of the recipe's digest>`."""
    return Path(cache_root) / slug / recipe.digest(training_ids)[:16]


def prepare_dataset(
    dataset: Dataset,
    case_ids: Sequence[str],
    recipe: PreparationRecipe,
    cache_root: Path | str,
    *,
    training_ids: Sequence[str],
    workers: int = 0,
    progress: Callable[[str], None] | None = None,
    between: Callable[[], None] = lambda: None,
    on_error: Literal["raise", "collect"] = "raise",
) -> Cache:
    """Prepare what is missing and open the cache.

    Args:
        dataset: The opened dataset.
        case_ids: Cases that are needed.
        recipe: How they are prepared.
        cache_root: Folder of all caches.
        training_ids: Cases of the training split: source of the `ct` statistics and of the median spacing.
        workers: Processes; 0 does the work here.
        progress: Called with a case's id when it is ready (or has failed).
        between: Called after each case that was worked on; what it raises ends the work, cases done stay.
        on_error: "raise": after all other cases are done, the first error, naming the rest; "collect": errors
            stand in `Cache.failures` and the cache holds the others.

    Returns:
        The cache, able to prepare a damaged case again by itself.

    Raises:
        SegbenchError: SB505 before anything is written when the forecast does not fit the disk; else the
            error of a case (SB2xx, SB3xx, SB410, SB503).
    """
    training = tuple(sorted(training_ids))
    folder = prepared_folder(cache_root, dataset.card.slug, recipe, training)
    wanted = tuple(dict.fromkeys(case_ids))
    missing = _missing(dataset, wanted, Cache(folder))
    if (folder / "recipe.json").is_file():
        note_use(folder)  # before the first case, so that nobody removes it meanwhile
    if missing:
        spacing = _resolved_spacing(dataset, recipe, training)
        _require_disk(_forecast_bytes(dataset, missing, recipe, spacing), folder)
    fingerprint = _fingerprint(dataset, recipe, folder, training, workers, between)
    job = partial(_prepare, dataset, recipe, folder, fingerprint)
    absent = set(missing)
    if progress is not None:
        for case in wanted:
            if case not in absent:
                progress(case)
    failures: dict[str, SegbenchError] = {}
    with closing(ordered_map(job, missing, workers)) as done:
        for case, _, error in done:
            if isinstance(error, SegbenchError):
                failures[case] = error
            elif error is not None:
                raise error
            if progress is not None:
                progress(case)
            between()
    note_use(folder)
    cache = Cache(folder, repair=job)
    cache.failures.update(failures)
    if failures and on_error == "raise":
        raise _first_of(failures)
    return cache


def forecast_preparation(
    dataset: Dataset,
    case_ids: Sequence[str],
    recipe: PreparationRecipe,
    cache_root: Path | str,
    *,
    training_ids: Sequence[str],
) -> tuple[tuple[str, ...], int]:
    """The cases still to prepare, and the bytes that they will fill; reads headers only."""
    training = tuple(sorted(training_ids))
    folder = prepared_folder(cache_root, dataset.card.slug, recipe, training)
    missing = _missing(dataset, tuple(dict.fromkeys(case_ids)), Cache(folder))
    if not missing:
        return (), 0
    spacing = _resolved_spacing(dataset, recipe, training)
    return missing, _forecast_bytes(dataset, missing, recipe, spacing)


def _prepare(
    dataset: Dataset, recipe: PreparationRecipe, folder: Path, fingerprint: dict[str, Any], case: str
) -> None:
    """Prepare and store `case` from its files, whatever is stored already."""
    stat, source = _stat(dataset, case), _source_digest(dataset, case)
    raw = _load(dataset, recipe, case)
    spacing = fingerprint["spacing_mm"]
    with about_case(case):
        prepared = finish_case(
            raw,
            spacing_mm="native" if spacing == "native" else tuple(spacing),
            normalisation=recipe.normalisation,
            normalisation_statistics=fingerprint["normalisation_statistics"],
        )
        write_case(folder, case, prepared, source=source, dtype=recipe.dtype)
    atomic_write_json(folder / "sources" / f"{case}.json", {"stat": stat, "digest": source})


def _foreground(dataset: Dataset, recipe: PreparationRecipe, case: str) -> Float32:
    """(n, c) intensities of at most 10 000 voxels of a training case, for the statistics of `ct`."""
    raw = _load(dataset, recipe, case)
    if raw.labels is None:
        raise SegbenchError("SB303", f"training case {case} has no reference", case=case)
    return foreground_intensities(raw.images, raw.labels, case=case)


def _load(dataset: Dataset, recipe: PreparationRecipe, case: str) -> RawCase:
    """Channels in the recipe's order and the reference where there is one, turned and cropped."""
    files = dataset.case(case)
    with about_case(case):
        labels = dataset.read_reference(case) if files.references is not None else None
        images: list[Volume]
        if files.stacked:
            stacked = dataset.read_image(case)
            order = [dataset.card.channels.order.index(name) for name in recipe.channels]
            array = stacked.array if stacked.array.ndim == 4 else stacked.array[None]
            images = [stacked.with_array(array[index]) for index in order]
        else:
            paths = [files.images[name] for name in recipe.channels]
            images = [read_volume(path, raw=True, max_bytes=dataset.max_bytes) for path in paths]
            if labels is not None:  # predictions are scored in the reference's order of axes
                images = [on_grid_of(labels, image, case=case) for image in images]
        return load_case(images, labels, orientation=recipe.orientation, crop=recipe.crop)


def _missing(dataset: Dataset, case_ids: Sequence[str], cache: Cache) -> tuple[str, ...]:
    """Cases that are not stored, not whole, or stored from other files."""
    return tuple(case for case in case_ids if not _is_current(dataset, case, cache))


def _is_current(dataset: Dataset, case: str, cache: Cache) -> bool:
    if case not in cache:
        return False
    try:
        stored = cache.source(case)
    except CacheDamagedError:
        return False
    note = cache.folder / "sources" / f"{case}.json"
    stat = _stat(dataset, case)
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        known = {}
    # The same state as when it was prepared: believed. Else the bytes decide.
    if known.get("stat") == stat and known.get("digest") == stored:
        return True
    if _source_digest(dataset, case) != stored:
        return False
    atomic_write_json(note, {"stat": stat, "digest": stored})
    return True


def _stat(dataset: Dataset, case: str) -> list[list[Any]]:
    """Name and state of every file of a case."""
    return [[path.name, *file_state(path)] for path in dataset.case(case).files]


def _source_digest(dataset: Dataset, case: str) -> str:
    """Digest of the bytes of every file of a case."""
    return digest_json([sha256_file(path) for path in dataset.case(case).files])


def _fingerprint(
    dataset: Dataset,
    recipe: PreparationRecipe,
    folder: Path,
    training: Sequence[str],
    workers: int,
    between: Callable[[], None],
) -> dict[str, Any]:
    """Numbers taken from the training split; computed once, then read."""
    path = folder / "fingerprint.json"
    if path.is_file() and (folder / "recipe.json").is_file():
        return json.loads(path.read_text())
    statistics: list[dict[str, float] | None] = [None] * len(recipe.channels)
    if recipe.needs_statistics:
        samples: list[Float32] = []
        with closing(ordered_map(partial(_foreground, dataset, recipe), training, workers)) as done:
            for _, result, error in done:
                if error is not None:
                    raise error
                samples.append(result)
                between()
        measured = channel_statistics(samples)
        for index, scheme in enumerate(recipe.normalisation):
            statistics[index] = measured[index] if scheme == "ct" else None
    spacing = _resolved_spacing(dataset, recipe, training)
    fingerprint = {
        "schema_version": 1,
        "spacing_mm": spacing if isinstance(spacing, str) else list(spacing),
        "normalisation_statistics": statistics,
        "training_cases": len(training),
    }
    atomic_write_json(folder / "recipe.json", {**recipe.as_dict(), "digest": recipe.digest(training)})
    atomic_write_json(path, fingerprint)
    return fingerprint


def _resolved_spacing(
    dataset: Dataset, recipe: PreparationRecipe, training: Sequence[str]
) -> tuple[float, float, float] | Literal["native"]:
    """The target spacing as numbers, or "native"."""
    if recipe.spacing_mm == "native":
        return "native"
    if recipe.spacing_mm != "median":
        z, y, x = recipe.spacing_mm
        return float(z), float(y), float(x)  # type: ignore[arg-type]
    grids = [_canonical_grid(dataset, recipe, case) for case in training]
    return target_spacing([spacing for _, spacing in grids], [shape for shape, _ in grids])


def _canonical_grid(
    dataset: Dataset, recipe: PreparationRecipe, case: str
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and spacing of a case in the order of axes that training sees, from a header."""
    header = read_header(next(iter(dataset.case(case).images.values())))
    axes = canonical_orientation(header.affine).axes if recipe.orientation == "canonical" else (0, 1, 2)
    shape = tuple(header.shape_zyx[axis] for axis in axes)
    return shape, tuple(header.spacing_mm[axis] for axis in axes)


def _forecast_bytes(
    dataset: Dataset,
    cases: Sequence[str],
    recipe: PreparationRecipe,
    spacing: tuple[float, float, float] | Literal["native"],
) -> int:
    """Disk that the cases will fill; a case whose header does not read fails later, by itself."""
    total = 0.0
    for case in cases:
        try:
            shape, spacing_in = _canonical_grid(dataset, recipe, case)
        except (SegbenchError, OSError):
            continue
        after = shape if spacing == "native" else prepared_shape(shape, spacing_in, spacing)
        voxels = float(after[0]) * after[1] * after[2]
        size = 2 if recipe.dtype == "float16" else 4
        total += voxels * (size * len(recipe.channels) * _IMAGE_RATIO + _LABEL_RATIO)
    return int(total)


def _require_disk(needed: int, folder: Path) -> None:
    """SB505 when less than 1.2 times the forecast is free."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < _FREE_DISK_FACTOR * needed:
        raise SegbenchError(
            "SB505",
            "not enough disk for the prepared data",
            path=folder,
            expected=f"{bytes_words(round(_FREE_DISK_FACTOR * needed))} free",
            found=f"{bytes_words(free)} free",
        )


def _first_of(failures: Mapping[str, SegbenchError]) -> SegbenchError:
    """The first failure, with the others as details."""
    (case, first), *others = failures.items()
    if others:
        told = (f"case {name}: {error.code} {error.message}" for name, error in others)
        first.details = (*first.details, *told)
    first.case = first.case or case
    return first
