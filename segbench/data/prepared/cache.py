"""Prepared cases on disk: written once per recipe, read in patches, checked before a byte is believed.

`<folder>/cases/<case>/{image.b2nd, labels.b2nd, locations.b2nd, case.json}` with `case.json` last. Arrays are
blosc2 files in chunks of 64^3, so that a patch inflates what it touches and no more. Blosc2 itself has no
checksum; `case.json` therefore holds the CRC-32 of every compressed chunk, and a chunk is checked the first
time a process touches it.

Nothing here revives or evaluates stored objects: files are opened by the plain opener of blosc2, never by
`blosc2.open`, which would.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blosc2 import blosc2_ext

from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.data.prepared.cache_write import BLOCK, LOCATIONS_PER_LABEL, class_locations, pieces, write_case
from segbench.data.prepared.normalisation import normalise

__all__ = ["LOCATIONS_PER_LABEL", "Cache", "CacheDamagedError", "class_locations", "write_case"]

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_OPEN_CASES = 32
# Numbers widened at once (they stay in the processor's cache), and what the exponents' biases differ by.
_AT_ONCE, _BIAS = 1 << 15, np.float32(2.0**112)


class CacheDamagedError(Exception):
    """A file of a prepared case is not what was written; prepare the case again.

    Attributes:
        case: The case.
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, case: str, path: Path, reason: str) -> None:
        super().__init__(f"prepared case {case}: {path.name}: {reason}")
        self.case, self.path, self.reason = case, path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.case, self.path, self.reason)


@dataclass(frozen=True, eq=False)
class _OpenCase:
    """One case's record and its open arrays; `checked` remembers which chunks were verified."""

    record: dict[str, Any]
    arrays: dict[str, Any]
    checked: dict[str, npt.NDArray[np.bool_]]


class Cache:
    """A folder of prepared cases, open for reading; cheap to make and to send to another process.

    Args:
        folder: `<cache>/<dataset>/<recipe>`.
        repair: Called with a case's id when one of its files is damaged; prepares it again. The read then
            goes on; a case that is damaged again is SB501. Without it damage is `CacheDamagedError`.

    Attributes:
        failures: Cases that could not be prepared, with the reason (filled by `prepare_dataset`).
    """

    def __init__(self, folder: Path | str, *, repair: Callable[[str], None] | None = None) -> None:
        self.folder = Path(folder)
        self.repair = repair
        self.failures: dict[str, SegbenchError] = {}
        self._open: OrderedDict[str, _OpenCase] = OrderedDict()
        self._repaired: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all whole cases, sorted."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("cases/*/case.json")))

    @property
    def recipe(self) -> dict[str, Any]:
        """What made these cases (`recipe.json`)."""
        return json.loads((self.folder / "recipe.json").read_text())

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Numbers taken from the training split (`fingerprint.json`): spacing, intensity statistics."""
        return json.loads((self.folder / "fingerprint.json").read_text())

    def __contains__(self, case: str) -> bool:
        return (self.folder / "cases" / case / "case.json").is_file()

    def properties(self, case: str) -> dict[str, Any]:
        """The case's geometry and history (see `PreparedCase.properties`)."""
        return self._case(case).record["properties"]

    def source(self, case: str) -> str:
        """Digest of the files the case was made from."""
        return self._case(case).record["source"]

    def shape(self, case: str) -> tuple[int, ...]:
        """(c, z, y, x) of the prepared image."""
        return tuple(self._case(case).record["arrays"]["image"]["shape"])

    def label_values(self, case: str) -> tuple[int, ...]:
        """Labels > 0 that occur in the case, ascending."""
        return tuple(sorted(int(label) for label in self._case(case).record["locations"]))

    def voxels(self, case: str, label: int) -> int:
        """Number of voxels of a label, 0 when absent."""
        entry = self._case(case).record["locations"].get(str(label))
        return 0 if entry is None else int(entry["voxels"])

    def locations(self, case: str, label: int) -> npt.NDArray[np.int32]:
        """Flat positions (sorted, at most 10 000) of a label in the prepared grid; empty when absent."""
        entry = self._case(case).record["locations"].get(str(label))
        if entry is None:
            return np.empty(0, dtype=np.int32)
        return self._read(case, "locations", (slice(entry["start"], entry["stop"]),))

    def image(self, case: str) -> Float32:
        """The whole image (c, z, y, x), float32."""
        shape = self.shape(case)
        return self.image_patch(case, (0, 0, 0), shape[1:])

    def labels(self, case: str) -> Array:
        """The whole label map (z, y, x), unsigned."""
        return self.labels_patch(case, (0, 0, 0), self.shape(case)[1:])

    def image_patch(self, case: str, start: Sequence[int], size: Sequence[int]) -> Float32:
        """Part of the image (c, *size), float32; see `stored_patch`."""
        values = self.stored_patch(case, start, size)
        return widened(values) if values.dtype == np.float16 else values.astype(np.float32, copy=False)

    def stored_patch(self, case: str, start: Sequence[int], size: Sequence[int]) -> Array:
        """Part of the image (c, *size) in the cache's own type; positions outside the image are 0.

        The type is float16 or float32; float32 where a case is normalised as it is read.

        Args:
            case: The case's id.
            start: (3,) first voxel z y x; may be negative.
            size: (3,) voxels.

        Raises:
            CacheDamagedError: a chunk is not what was written.
        """
        record = self._case(case).record
        shape = record["arrays"]["image"]["shape"]
        inside, place = _overlap(start, size, shape[1:])
        block = self._read(case, "image", (slice(0, shape[0]), *inside))
        if record["normalise_on_read"]:
            statistics = record["properties"]["normalisation_statistics"]
            block = np.stack(
                [normalise(b, "ct", statistics=s) for b, s in zip(block, statistics, strict=True)]
            )
        if block.shape[1:] == tuple(size):
            return block
        patch = np.zeros((shape[0], *size), dtype=block.dtype)
        patch[(slice(None), *place)] = block
        return patch

    def labels_patch(
        self, case: str, start: Sequence[int], size: Sequence[int], *, outside: int = 0
    ) -> Array:
        """Part of the label map (*size), unsigned; positions outside the scan get `outside`."""
        entry = self._case(case).record["arrays"].get("labels")
        if entry is None:
            raise ValueError(f"prepared case {case} has no labels")
        inside, place = _overlap(start, size, entry["shape"])
        block = self._read(case, "labels", inside)
        if block.shape == tuple(size):
            return block
        dtype = block.dtype if outside <= np.iinfo(block.dtype).max else np.uint16
        patch = np.full(tuple(size), outside, dtype=dtype)
        patch[place] = block
        return patch

    def digest(self, case_ids: Sequence[str]) -> str:
        """Digest of what the cases hold, for a stage's inputs; the same wherever the cache lies."""
        records = {case: self._case(case).record for case in case_ids}
        return digest_json(
            {case: [r["arrays"], r["locations"], r["properties"]] for case, r in records.items()}
        )

    def mend(self, error: CacheDamagedError) -> None:
        """Prepare a damaged case again, once.

        Raises:
            CacheDamagedError: the cache does not know how.
            SegbenchError: SB501 when that was done before.
        """
        if self.repair is None:
            raise error
        self.forget(error.case)
        if error.case in self._repaired:
            raise SegbenchError(
                "SB501", f"prepared data are damaged: {error.reason}", path=error.path, case=error.case
            ) from error
        self._repaired.add(error.case)
        self.repair(error.case)

    def forget(self, case: str) -> None:
        """Drop what is open of a case (after it was prepared again)."""
        self._open.pop(case, None)

    def verify(self, case: str) -> None:
        """Check every chunk of a case against its recorded checksum.

        Raises:
            CacheDamagedError: the first difference.
        """
        for name, entry in self._case(case).record["arrays"].items():
            self._check(case, name, range(len(entry["crc32"])))

    def _case(self, case: str) -> _OpenCase:
        found = self._open.get(case)
        if found is not None:
            self._open.move_to_end(case)
            return found
        try:
            opened = self._open_case(case)
        except CacheDamagedError as error:
            self.mend(error)
            return self._case(case)
        self._open[case] = opened
        while len(self._open) > _OPEN_CASES:
            self._open.popitem(last=False)
        return opened

    def _open_case(self, case: str) -> _OpenCase:
        folder = self.folder / "cases" / case
        if not (folder / "case.json").is_file():
            raise KeyError(f"case {case} is not in {self.folder}")
        try:
            record = json.loads((folder / "case.json").read_text())
            entries = record["arrays"].items()
        except (ValueError, KeyError, AttributeError) as error:
            raise CacheDamagedError(case, folder / "case.json", "is not readable") from error
        arrays: dict[str, Any] = {}
        for name, entry in entries:
            path = folder / f"{name}.b2nd"
            size = path.stat().st_size if path.is_file() else -1
            if size != entry["bytes"]:
                raise CacheDamagedError(case, path, f"has {size} bytes, {entry['bytes']} were written")
            try:
                array = blosc2_ext.open(str(path), "r", 0, mmap_mode="r", dparams={"nthreads": 1})
                blocks, count = tuple(array.blocks), array.schunk.nchunks
                seen = (list(array.shape), str(array.dtype), list(array.chunks), blocks, count)
            except Exception as error:  # blosc2 raises RuntimeError, ValueError and others for a broken frame
                raise CacheDamagedError(case, path, "does not open") from error
            blocks = pieces(entry["shape"], BLOCK)  # in no checksum: a flipped bit there moves every voxel
            if seen != (entry["shape"], entry["dtype"], entry["chunks"], blocks, len(entry["crc32"])):
                raise CacheDamagedError(case, path, "has another shape or type than was written")
            arrays[name] = array
        checked = {name: np.zeros(len(entry["crc32"]), dtype=np.bool_) for name, entry in entries}
        return _OpenCase(record, arrays, checked)

    def _read(self, case: str, name: str, cut: tuple[slice, ...]) -> Array:
        """Part of an array, after the chunks it touches were checked; a damaged case is mended once."""
        try:
            return self._read_checked(case, name, cut)
        except CacheDamagedError as error:
            self.mend(error)
            return self._read(case, name, cut)

    def _read_checked(self, case: str, name: str, cut: tuple[slice, ...]) -> Array:
        opened = self._case(case)
        entry = opened.record["arrays"][name]
        shape = [piece.stop - piece.start for piece in cut]
        if min(shape) == 0:
            return np.zeros(shape, dtype=entry["dtype"])
        if not opened.checked[name].all():
            self._check(case, name, _chunks_touched(cut, entry["shape"], entry["chunks"]))
        try:
            return opened.arrays[name][cut]
        except Exception as error:
            raise CacheDamagedError(
                case, self.folder / "cases" / case / f"{name}.b2nd", "does not inflate"
            ) from error

    def _check(self, case: str, name: str, chunks: Sequence[int] | range) -> None:
        opened = self._case(case)
        expected, checked = opened.record["arrays"][name]["crc32"], opened.checked[name]
        for index in chunks:
            if checked[index]:
                continue
            path = self.folder / "cases" / case / f"{name}.b2nd"
            try:
                crc = zlib.crc32(opened.arrays[name].schunk.get_chunk(index))
            except Exception as error:
                raise CacheDamagedError(case, path, f"chunk {index} does not read") from error
            if crc != expected[index]:
                raise CacheDamagedError(case, path, f"chunk {index} is not what was written")
            checked[index] = True


def widened(block: npt.NDArray[np.float16]) -> Float32:
    """The finite half-precision numbers as float32, bit for bit `astype`, in half its time.

    numpy widens one number after the other. Here sign and digits are shifted to their places by whole-array
    operations and the exponent's bias is made good by one multiplication, exact for subnormal numbers too.
    """
    result = np.empty(block.shape, dtype=np.float32)
    source, target = np.ascontiguousarray(block).reshape(-1).view(np.int16), result.reshape(-1)
    bits, keep = target.view(np.int32), np.int32(-0x70002000)  # 0x8fffe000: sign, exponent, digits
    for start in range(0, source.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        np.left_shift(source[part], 13, out=bits[part], dtype=np.int32)
        np.bitwise_and(bits[part], keep, out=bits[part])
        np.multiply(target[part], _BIAS, out=target[part])
    return result


def _overlap(
    start: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a patch meets the scan: the slices in the scan and in the patch."""
    inside, place = [], []
    for first, length, extent in zip(start, size, shape, strict=True):
        low, high = min(max(first, 0), extent), max(min(first + length, extent), 0)
        high = max(high, low)
        inside.append(slice(int(low), int(high)))
        place.append(slice(int(low - first), int(high - first)))
    return tuple(inside), tuple(place)


def _chunks_touched(cut: Sequence[slice], shape: Sequence[int], chunks: Sequence[int]) -> list[int]:
    """Numbers (C order) of the chunks that a box meets."""
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    ranges = [range(s.start // c, (s.stop - 1) // c + 1) for s, c in zip(cut, chunks, strict=True)]
    numbers: list[int] = []
    for place in product(*ranges):
        number = 0
        for index, extent in zip(place, grid, strict=True):
            number = number * extent + index
        numbers.append(number)
    return numbers
