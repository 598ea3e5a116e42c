"""Writes a prepared case into the cache: whole or not at all, with a checksum for every chunk.

See `cache.py` for what lies where and for reading it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
import numpy.typing as npt

from segbench.core.atomic import atomic_folder, atomic_write, atomic_write_json
from segbench.core.errors import SegbenchError
from segbench.data.prepared.case import PreparedCase
from segbench.data.random import rng

__all__ = ["LOCATIONS_PER_LABEL", "as_read_back", "class_locations", "write_case"]

Array = npt.NDArray[Any]

#: Voxel positions stored per label for drawing patch centres.
LOCATIONS_PER_LABEL = 10_000
SCHEMA_VERSION = 1

_CHUNK, BLOCK = 64, 32
# Largest magnitude that float16 holds with room to spare; beyond it the data were never normalised.
_FLOAT16_LIMIT = 60_000.0


def write_case(
    folder: Path | str, case: str, prepared: PreparedCase, *, source: str = "", dtype: str = "float16"
) -> Path:
    """Store a prepared case whole or not at all; the folder `<folder>/cases/<case>`.

    Args:
        folder: The recipe's folder.
        case: The case's id.
        prepared: What to store: int16 where that and the recorded statistics give the image exactly, else
            `dtype`.
        source: Digest of the files it was made from, kept for the next look.
        dtype: "float16" or "float32".

    Raises:
        SegbenchError: SB410 when a value lies beyond +-60000 or is not finite; SB505 when the disk is full.
    """
    target = Path(folder) / "cases" / case
    image: Array = prepared.image if prepared.raw is None else prepared.raw
    if prepared.raw is None and dtype == "float16":
        image = _as_float16(prepared.image, case)
    try:
        with atomic_folder(target) as temporary:
            arrays = {"image": _store(temporary / "image.b2nd", image)}
            locations: dict[str, dict[str, int]] = {}
            if prepared.labels is not None:
                labels = _smallest_unsigned(prepared.labels)
                arrays["labels"] = _store(temporary / "labels.b2nd", labels)
                flat, locations = class_locations(labels, case)
                arrays["locations"] = _store(temporary / "locations.b2nd", flat)
            record = {
                "schema_version": SCHEMA_VERSION,
                "case": case,
                "source": source,
                "arrays": arrays,
                "normalise_on_read": prepared.raw is not None,
                "locations": locations,
                "properties": prepared.properties,
            }
            atomic_write_json(temporary / "case.json", record)
    except OSError:
        # Another writer renamed first: both made the same bytes.
        if not (target / "case.json").is_file():
            raise
    return target


def as_read_back(
    prepared: PreparedCase, case: str = "", *, dtype: str = "float16"
) -> npt.NDArray[np.float32]:
    """The image (c, z, y, x) float32 as the cache would give it back, so that nothing depends on the detour.

    Raises:
        SegbenchError: SB410 as `write_case`.
    """
    if prepared.raw is not None or dtype == "float32":
        return prepared.image
    return _as_float16(prepared.image, case).astype(np.float32)


def class_locations(labels: Array, case: str) -> tuple[npt.NDArray[np.int32], dict[str, dict[str, int]]]:
    """Positions of each label > 0 for drawing patch centres.

    Args:
        labels: (z, y, x) unsigned integers.
        case: The case's id; which voxels are kept is a function of it and the label.

    Returns:
        Flat indices of all labels one after the other, sorted within a label, at most 10 000 each; and per
        label {start, stop, voxels}: its part of the array and how many voxels it has.
    """
    if labels.size > np.iinfo(np.int32).max:
        raise ValueError(f"{labels.size} voxels do not fit 32-bit positions")
    where = np.flatnonzero(labels)
    values = labels.reshape(-1)[where]
    kept: list[Array] = [np.empty(0, dtype=np.int64)]
    table: dict[str, dict[str, int]] = {}
    start = 0
    for label in np.flatnonzero(np.bincount(values)):
        positions = where[values == label]
        voxels = positions.size
        if voxels > LOCATIONS_PER_LABEL:
            draw = rng(0, "locations", case, int(label))
            positions = np.sort(draw.choice(positions, LOCATIONS_PER_LABEL, replace=False, shuffle=False))
        kept.append(positions)
        table[str(label)] = {"start": start, "stop": start + positions.size, "voxels": int(voxels)}
        start += positions.size
    return np.concatenate(kept).astype(np.int32), table


def pieces(shape: Sequence[int], edge: int) -> tuple[int, ...]:
    """Shape of an array's pieces: `edge` voxels a side at most, of one channel; a list is one piece."""
    if len(shape) < 3:
        return (max(1, *shape),)
    return (*(1,) * (len(shape) - 3), *(min(edge, n) for n in shape[-3:]))


def _store(path: Path, array: Array) -> dict[str, Any]:
    """Write one array and say what was written."""
    stored: Any = blosc2.asarray(
        cast("Any", np.ascontiguousarray(array)),
        chunks=pieces(array.shape, _CHUNK),
        blocks=pieces(array.shape, BLOCK),
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 1,
            # Byte shuffle: on prepared CT and MR smaller (0.49 against 0.62 of raw) and read 1.3 times faster
            # than bit shuffle; the noisy low bytes then lie by themselves and are copied, not inflated.
            "filters": [blosc2.Filter.SHUFFLE],
            "nthreads": 1,
            "typesize": array.dtype.itemsize,
        },
    )
    # Made in memory and written by us: a full disk is then SB505, which blosc2's own writer does not report.
    frame: bytes = stored.to_cframe()
    atomic_write(path, frame)
    # Checksums of the chunks as the frame gives them: an array in memory answers for runs of zeros otherwise.
    framed: Any = blosc2.ndarray_from_cframe(frame)
    crc = [zlib.crc32(framed.schunk.get_chunk(index)) for index in range(framed.schunk.nchunks)]
    return {
        "shape": [int(n) for n in array.shape],
        "dtype": str(array.dtype),
        "chunks": [int(n) for n in stored.chunks],
        "crc32": crc,
        "bytes": len(frame),
    }


def _as_float16(image: npt.NDArray[np.float32], case: str) -> npt.NDArray[np.float16]:
    low, high = float(image.min()), float(image.max())
    if not (low >= -_FLOAT16_LIMIT and high <= _FLOAT16_LIMIT):
        raise SegbenchError(
            "SB410",
            "prepared values do not fit the cache's 16-bit floats",
            case=case,
            expected=f"within +-{_FLOAT16_LIMIT:.0f}",
            found=f"{low:.6g} to {high:.6g}",
        )
    return image.astype(np.float16)


def _smallest_unsigned(labels: Array) -> Array:
    highest = int(labels.max()) if labels.size else 0
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise ValueError("labels must not be negative")
    return labels.astype(np.min_scalar_type(highest), copy=False)
