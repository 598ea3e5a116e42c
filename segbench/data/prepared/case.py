"""One case from files to what a network sees: read, orient, crop, normalise, resample; and the way back.

Every step is a function of its own. `PreparedCase.properties` records all that export needs to bring a
prediction back to the stored grid, as plain JSON.

Arrays are (z, y, x), images (c, z, y, x); boxes are half-open [start, stop) per axis.

Source: MIC-DKFZ/nnUNet preprocessing/preprocessors/default_preprocessor.py (order of the steps: crop,
normalise, then resample).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.core.text import bytes_words
from segbench.data.grids import on_grid_of
from segbench.data.prepared.normalisation import NORMALISATIONS, nonzero_mask, normalise
from segbench.volumes import read_label_map, read_volume
from segbench.volumes.geometry import Orientation, canonical_orientation
from segbench.volumes.limits import memory_budget
from segbench.volumes.resample import low_resolution_axis, resample_image, resample_labels
from segbench.volumes.volume import Volume

__all__ = [
    "PreparedCase",
    "RawCase",
    "load_case",
    "nonzero_box",
    "prepare_case",
    "prepared_shape",
]

Array = npt.NDArray[Any]
Source = Path | str | Volume
Axes = Literal["canonical", "stored"]
Spacing = Sequence[float] | Literal["native"] | None

PROPERTIES_VERSION = 2


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as networks see it.

    Attributes:
        image: (c, z, y, x) float32, normalised, on the training grid.
        labels: (z, y, x) integers on the same grid, or None.
        properties: everything export needs, JSON-able: original_shape, original_spacing_mm, affine,
            orientation {axes, flips}, canonical_shape, crop_box, spacing_in, spacing_out,
            shape_before, shape_after, nearest_axis, nearest_axis_back, normalisation,
            normalisation_statistics, warnings.
        raw: (c, z, y, x) int16 before normalisation when that determines `image` bit for bit (nothing
            resampled, every channel `ct`), else None; the cache then stores this instead of rounded floats.
    """

    image: npt.NDArray[np.float32]
    labels: Array | None
    properties: dict[str, Any]
    raw: npt.NDArray[np.int16] | None = None


@dataclass(eq=False)
class RawCase:
    """Channels and labels after reading, orienting and cropping, in their stored types.

    Attributes:
        images: one (z, y, x) array per channel; views where possible.
        labels: (z, y, x) or None.
        properties: what is known so far (see `PreparedCase`).
    """

    images: list[Array]
    labels: Array | None
    properties: dict[str, Any] = field(default_factory=dict)


def prepare_case(
    images: Sequence[Source],
    labels: Source | None = None,
    *,
    spacing_mm: Spacing,
    normalisation: Sequence[str],
    normalisation_statistics: Sequence[Mapping[str, float] | None] | None = None,
    orientation: Axes = "canonical",
    crop: bool = True,
) -> PreparedCase:
    """The case, ready for a network.

    Args:
        images: one path or `Volume` per channel; a single `Volume` with channels first stands for all of
            them.
        labels: path or `Volume` of the label map, or None.
        spacing_mm: (3,) target spacing z y x in millimetres, or "native" (None): no resampling.
        normalisation: one of ct, zscore, zscore-nonzero, rescale01, none per channel.
        normalisation_statistics: per channel {p005, p995, mean, std} where the channel is `ct`, else None.
        orientation: "canonical" turns the axes to the nearest RAS+; "stored" leaves them.
        crop: cut to the box of voxels where any channel is not 0.

    Raises:
        SegbenchError: SB2xx of a file that cannot be read (SB208 also where the training grid does not fit in
            memory), SB307-SB309 when files of the case lie on different grids.
        ValueError: numbers of channels, schemes and statistics do not fit together.
    """
    raw = load_case(images, labels, orientation=orientation, crop=crop)
    return finish_case(
        raw,
        spacing_mm=spacing_mm,
        normalisation=normalisation,
        normalisation_statistics=normalisation_statistics,
    )


def load_case(
    images: Sequence[Source],
    labels: Source | None = None,
    *,
    orientation: Axes = "canonical",
    crop: bool = True,
) -> RawCase:
    """Read, turn and crop a case; values stay as stored. Arguments and errors: `prepare_case`."""
    channels = _channels(images)
    reference = channels[0]
    channels = [on_grid_of(reference, channel) for channel in channels]
    label_volume = None
    if labels is not None:
        given = labels if isinstance(labels, Volume) else read_label_map(Path(labels))
        label_volume = on_grid_of(reference, given)
    turn = canonical_orientation(reference.affine) if orientation == "canonical" else _AS_STORED
    arrays = [turn.view(channel.array) for channel in channels]
    label_array = None if label_volume is None else turn.view(label_volume.array)
    canonical_shape = arrays[0].shape
    warnings: list[str] = []
    box = nonzero_box(arrays) if crop else tuple((0, n) for n in canonical_shape)
    if box is None:
        warnings.append("every channel is 0 everywhere: not cropped")
        box = tuple((0, n) for n in canonical_shape)
    cut = tuple(slice(start, stop) for start, stop in box)
    spacing = tuple(reference.spacing_mm[axis] for axis in turn.axes)
    properties: dict[str, Any] = {
        "version": PROPERTIES_VERSION,
        "original_shape": [int(n) for n in reference.array.shape[-3:]],
        "original_spacing_mm": [float(s) for s in reference.spacing_mm],
        "affine": [[float(v) for v in row] for row in reference.affine],
        "sform_code": int(reference.sform_code),
        "qform_code": int(reference.qform_code),
        "unit": reference.unit,
        "orientation": {"axes": list(turn.axes), "flips": list(turn.flips)},
        "canonical_shape": [int(n) for n in canonical_shape],
        "crop_box": [[int(start), int(stop)] for start, stop in box],
        "spacing_in": [float(s) for s in spacing],
        "warnings": warnings,
    }
    return RawCase(
        [array[cut] for array in arrays], None if label_array is None else label_array[cut], properties
    )


def finish_case(
    raw: RawCase,
    *,
    spacing_mm: Spacing,
    normalisation: Sequence[str],
    normalisation_statistics: Sequence[Mapping[str, float] | None] | None = None,
) -> PreparedCase:
    """Normalise and resample what `load_case` read. Frees the raw channels as it goes.

    Raises:
        SegbenchError: SB208 when the result does not fit in memory.
        ValueError: numbers of channels, schemes and statistics do not fit together.
    """
    statistics = _checked_schemes(len(raw.images), normalisation, normalisation_statistics)
    before = raw.images[0].shape
    spacing_in = raw.properties["spacing_in"]
    if spacing_mm is None or isinstance(spacing_mm, str):
        spacing_out = list(spacing_in)
    else:
        spacing_out = [float(s) for s in spacing_mm]
    after = prepared_shape(before, spacing_in, spacing_out)
    nearest_axis = low_resolution_axis(spacing_in, spacing_out)
    _check_room(len(raw.images), before, spacing_in, after, spacing_out)

    stored: npt.NDArray[np.int16] | None = None
    if after == before and all(scheme == "ct" for scheme in normalisation):
        stored = _lossless(raw.images)
    mask = nonzero_mask(raw.images) if "zscore-nonzero" in normalisation else None
    image = np.empty((len(raw.images), *after), dtype=np.float32)
    for index, scheme in enumerate(normalisation):
        channel = normalise(raw.images[index], scheme, statistics=statistics[index], mask=mask)
        raw.images[index] = _EMPTY
        image[index] = (
            channel if after == before else resample_image(channel, after, nearest_axis=nearest_axis)
        )
        del channel
    labels = raw.labels
    if labels is not None:
        labels = np.ascontiguousarray(labels)
        labels = (
            labels.copy() if after == before else resample_labels(labels, after, nearest_axis=nearest_axis)
        )
    properties = {
        **raw.properties,
        "spacing_out": spacing_out,
        "shape_before": [int(n) for n in before],
        "shape_after": [int(n) for n in after],
        "nearest_axis": nearest_axis,
        "nearest_axis_back": low_resolution_axis(spacing_out, spacing_in),
        "normalisation": list(normalisation),
        "normalisation_statistics": [None if s is None else dict(s) for s in statistics],
    }
    return PreparedCase(image, labels, properties, stored)


def prepared_shape(
    shape: Sequence[int], spacing_in: Sequence[float], spacing_out: Sequence[float]
) -> tuple[int, ...]:
    """Voxels after resampling: round(spacing_in / spacing_out * n), halves to even, at least 1."""
    return tuple(
        max(1, round(float(old) / float(new) * int(n)))
        for n, old, new in zip(shape, spacing_in, spacing_out, strict=True)
    )


def _check_room(
    channels: int,
    before: Sequence[int],
    spacing_in: Sequence[float],
    after: Sequence[int],
    spacing_out: Sequence[float],
) -> None:
    """Refuse a grid that memory cannot hold: a spacing in the wrong unit makes one."""
    needed = 4 * (channels + 1) * math.prod(after)  # float32; one channel more is at work
    budget = memory_budget() if needed > _SURELY_FITS else None
    if budget is None or needed <= budget:
        return

    def grid(shape: Sequence[int], spacing: Sequence[float]) -> str:
        return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{s:g}' for s in spacing)} mm"

    raise SegbenchError(
        "SB208",
        "the scan does not fit in memory on the training grid",
        expected=f"at most {bytes_words(budget)}",
        found=f"{grid(before, spacing_in)} become {grid(after, spacing_out)}: {bytes_words(needed)}",
        mend="check the spacing in the header (is it in millimetres?); or use a machine with more memory",
    )


def nonzero_box(images: Sequence[Array]) -> tuple[tuple[int, int], ...] | None:
    """Smallest half-open box (z, y, x) outside which every channel is 0; None when all is 0.

    Planes are looked at from the outside inwards, so a scan that fills its grid costs six planes.
    """
    box = [[0, n] for n in images[0].shape]
    for axis in range(3):
        start, stop = 0, images[0].shape[axis]
        while start < stop and not _any_nonzero(images, box, axis, start):
            start += 1
        if start == stop:
            return None
        while not _any_nonzero(images, box, axis, stop - 1):
            stop -= 1
        box[axis] = [start, stop]
    return tuple((start, stop) for start, stop in box)


_AS_STORED = Orientation((0, 1, 2), (False, False, False))
_SURELY_FITS = 256 * 2**20
_EMPTY: Array = np.empty((0, 0, 0), dtype=np.float32)


def _any_nonzero(images: Sequence[Array], box: Sequence[Sequence[int]], axis: int, index: int) -> bool:
    cut: list[slice | int] = [slice(start, stop) for start, stop in box]
    cut[axis] = index
    return any(bool(np.any(image[tuple(cut)])) for image in images)


def _channels(images: Sequence[Source]) -> list[Volume]:
    """One (z, y, x) volume per channel."""
    channels: list[Volume] = []
    for source in images:
        volume = (
            source if isinstance(source, Volume) else read_volume(Path(source), raw=True, allow_channels=True)
        )
        if volume.array.ndim == 4:
            channels += [volume.with_array(channel) for channel in volume.array]
        else:
            channels.append(volume)
    if not channels:
        raise ValueError("a case needs at least one channel")
    return channels


def _checked_schemes(
    count: int, normalisation: Sequence[str], statistics: Sequence[Mapping[str, float] | None] | None
) -> list[Mapping[str, float] | None]:
    if isinstance(normalisation, str) or len(normalisation) != count:
        raise ValueError(
            f"normalisation must name one scheme for each of {count} channels, not {normalisation!r}"
        )
    for scheme in normalisation:
        if scheme not in NORMALISATIONS:
            raise ValueError(f"unknown normalisation {scheme!r}; known: {', '.join(NORMALISATIONS)}")
    listed: list[Mapping[str, float] | None] = [None] * count if statistics is None else list(statistics)
    if len(listed) != count:
        raise ValueError(f"normalisation_statistics must have one entry for each of {count} channels")
    return listed


def _lossless(images: Sequence[Array]) -> npt.NDArray[np.int16] | None:
    """The channels as one int16 array when they are whole numbers of at most 16 bits, else None."""
    for image in images:
        if image.dtype.kind not in "iu":
            return None
        if not np.can_cast(image.dtype, np.int16) and (image.min() < -32768 or image.max() > 32767):
            return None
    return np.stack([image.astype(np.int16, copy=False) for image in images])
