"""The compiled kernels of the engine. Nothing here knows what a metric or a policy is.

`sweep` reads both label maps once and returns joint counts and boundary voxels, `split` sorts those by
region; `_nearest.py` finds the nearest of them. `_native.py` says how they fit together.

Signatures are explicit, so everything compiles when this module is first imported and comes from numba's
cache afterwards. No `fastmath`, no parallel reductions: every float operation happens in the order written
here. Positions are packed as z << 42 | y << 21 | x, so that sorting them is raster order.
"""

# Compiled functions are typed by their signatures.
# ruff: noqa: ANN001, ANN202
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import boolean, int64, njit, types, uint8, uint16, uint64, void
from numba.core import cgutils
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from collections.abc import Callable

U8 = types.Array(uint8, 1, "C", readonly=True)
U16 = types.Array(uint16, 1, "C", readonly=True)
BYTES = types.Array(uint8, 1, "C")
WORDS = types.Array(uint64, 1, "C")
LONGS = types.Array(int64, 1, "C")
RANGES = types.Array(int64, 2, "C")

PREFETCH_AHEAD = 2048
"""Bytes read ahead in `sweep`. Hardware prefetchers stop at page borders; this took a scan of two maps in
memory from 8 to 14 GB/s on the machine it was chosen on, and 1 to 8 KiB differ by less than 5 %."""

LOW_BITS = 0x0101010101010101
HIGH_BITS = 0x8080808080808080
ALL_BUT_HIGH = 0x7F7F7F7F7F7F7F7F


def compiled(*signatures: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles for these signatures at once, from the cache where a cache can be
    kept.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(list(signatures), cache=True, nogil=True)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return njit(list(signatures), nogil=True)(function)

    return decorate


@intrinsic
def load_word(typing_context: Any, array: Any, offset: Any) -> Any:
    """Return the 8 bytes of a uint8 array that start at a byte offset, wherever that is, as one uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        start = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [arguments[1]])
        word = builder.load(builder.bitcast(start, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return uint64(array, offset), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line at a byte offset of an array; an offset beyond its end does no harm."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        start = builder.gep(builder.bitcast(data, pointer), [arguments[1]])
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [start, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return void(array, offset), generate


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Return the index of the lowest set bit of a uint64; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return int64(uint64), generate


@njit(inline="always")
def pack(z: int, y: int, x: int) -> int:
    """Return a position as one integer whose order is raster order."""
    return (z << 42) | (y << 21) | x


@njit(inline="always")
def unpack(position: int) -> tuple[int, int, int]:
    """Return z, y, x of a packed position."""
    return position >> 42, (position >> 21) & 0x1FFFFF, position & 0x1FFFFF


@njit(inline="always")
def _uniform(word: Any) -> bool:
    """Tell whether all eight bytes of a word are equal."""
    return word == (word & uint64(0xFF)) * uint64(LOW_BITS)


@njit(inline="always")
def _nonzero_bytes(word: Any) -> Any:
    """Return a word with the high bit of each byte that is not zero."""
    return (((word & uint64(ALL_BUT_HIGH)) + uint64(ALL_BUT_HIGH)) | word) & uint64(HIGH_BITS)


@njit(inline="always")
def _byte(word: Any, shift: Any) -> int:
    """Return one byte of a word as a signed index."""
    return int64((word >> shift) & uint64(0xFF))


def _row_occupied(labels: Any, start: int, width: int) -> bool:
    """Tell whether a row of a flat label map holds anything but zeros."""
    raise NotImplementedError  # compiled only


@overload(_row_occupied, inline="always")
def _row_occupied_by_type(labels, start, width):
    if labels.dtype == uint8:

        def occupied_u8(labels, start, width):
            for ahead in range(0, width, 64):
                prefetch(labels, start + ahead + PREFETCH_AHEAD)
            anything = uint64(0)
            for index in range(width >> 3):
                anything |= load_word(labels, start + 8 * index)
            for x in range(start + (width & ~7), start + width):
                anything |= uint64(labels[x])
            return anything != uint64(0)

        return occupied_u8

    def occupied_u16(labels, start, width):
        for ahead in range(0, width, 32):
            prefetch(labels, start + ahead + PREFETCH_AHEAD)
        anything = uint16(0)
        for x in range(start, start + width):
            anything |= labels[x]
        return anything != uint16(0)

    return occupied_u16


def _fill_row(labels: Any, start: int, width: int, lut: Any, rows: Any, base: int) -> tuple[int, int]:
    """Write the classes of one row into zeroed words; return the range of words that are not zero."""
    raise NotImplementedError  # compiled only


@overload(_fill_row, inline="always")
def _fill_row_by_type(labels, start, width, lut, rows, base):
    if labels.dtype == uint8:

        def fill_u8(labels, start, width, lut, rows, base):
            low, high = 0, 0
            previous, classes = uint64(0), uint64(0)
            whole = width >> 3
            for index in range((width + 7) >> 3):
                word = uint64(0)
                if index < whole:
                    word = load_word(labels, start + 8 * index)
                else:
                    for byte in range(width & 7):
                        word |= uint64(labels[start + 8 * index + byte]) << uint64(8 * byte)
                if word != previous:
                    previous = word
                    if _uniform(word):
                        classes = uint64(lut[word & uint64(0xFF)]) * uint64(LOW_BITS)
                    else:
                        classes = uint64(0)
                        for byte in range(8):
                            shift = uint64(8 * byte)
                            classes |= uint64(lut[(word >> shift) & uint64(0xFF)]) << shift
                if classes != 0:
                    rows[base + index] = classes
                    if high == 0:
                        low = index
                    high = index + 1
            return low, high

        return fill_u8

    def fill_u16(labels, start, width, lut, rows, base):
        low, high = 0, 0
        for index in range((width + 7) >> 3):
            classes = uint64(0)
            for byte in range(min(8, width - 8 * index)):
                classes |= uint64(lut[labels[start + 8 * index + byte]]) << uint64(8 * byte)
            if classes != 0:
                rows[base + index] = classes
                if high == 0:
                    low = index
                high = index + 1
        return low, high

    return fill_u16


@compiled(
    boolean(U8, int64, int64, int64, U8, WORDS, RANGES),
    boolean(U16, int64, int64, int64, U8, WORDS, RANGES),
)
def fill_plane(labels, plane, height, width, lut, rows, ranges):
    """Write the class rows of one plane of a label map; tell whether any voxel has a class.

    A row is read once to see whether it holds anything; only rows that do are turned into classes, eight
    labels at a time and equal neighbours once.

    Args:
        labels: the flat label map.
        plane: index of the plane, or -1 for a plane outside of the array, which is empty.
        height: rows of the plane.
        width: voxels of a row.
        lut: class of each label; the class of label 0 is 0.
        rows: words of this plane's class rows. Row y starts at word (y + 1) * row_words + 1, where row_words
            is the words of a row and one zero word on either side; the plane has a zero row on either side.
        ranges: (height, 2), the word range of each class row that may be non-zero; holds what the plane
            before left there.
    """
    stride = ((width + 7) >> 3) + 2
    filled = False
    for y in range(height):
        base = (y + 1) * stride + 1
        if ranges[y, 1] > 0:
            for index in range(ranges[y, 0], ranges[y, 1]):
                rows[base + index] = 0
            ranges[y, 0] = 0
            ranges[y, 1] = 0
        if plane < 0:
            continue
        start = (plane * height + y) * width
        if _row_occupied(labels, start, width):
            low, high = _fill_row(labels, start, width, lut, rows, base)
            if high > 0:
                ranges[y, 0] = low
                ranges[y, 1] = high
                filled = True
    return filled


@compiled(void(WORDS, RANGES, WORDS, RANGES, int64, int64, LONGS, int64))
def count_plane(
    reference,
    reference_ranges,
    prediction,
    prediction_ranges,
    height,
    words,
    joint,
    classes,
):
    """Add one plane to the joint counts of (reference class, prediction class).

    Words that are zero in both planes are left out: the count of (0, 0) is not needed by any metric.
    """
    for y in range(height):
        begin = min(reference_ranges[y, 0], prediction_ranges[y, 0])
        end = max(reference_ranges[y, 1], prediction_ranges[y, 1])
        base = (y + 1) * (words + 2) + 1
        for index in range(base + begin, base + end):
            r, p = reference[index], prediction[index]
            if (r | p) == 0:
                continue
            if _uniform(r) and _uniform(p):
                joint[_byte(r, uint64(0)) * classes + _byte(p, uint64(0))] += 8
                continue
            for byte in range(8):
                shift = uint64(8 * byte)
                joint[_byte(r, shift) * classes + _byte(p, shift)] += 1


@njit(inline="always")
def _room(positions: Any, members: Any, used: int, more: int) -> tuple[Any, Any]:
    """Return the two lists, made longer when `more` entries would not fit."""
    if used + more <= len(positions):
        return positions, members
    size = 2 * len(positions) + more
    wider_positions, wider_members = np.empty(size, np.int64), np.empty(size, np.uint64)
    wider_positions[:used] = positions[:used]
    wider_members[:used] = members[:used]
    return wider_positions, wider_members


@compiled(
    types.Tuple((LONGS, WORDS, int64))(
        WORDS, WORDS, WORDS, RANGES, int64, int64, int64, WORDS, boolean, LONGS, WORDS, int64
    )
)
def boundary_plane(
    above,
    here,
    below,
    ranges,
    height,
    words,
    z,
    membership,
    exclusive,
    positions,
    members,
    used,
):
    """Append the boundary voxels of one plane; return both lists, longer if need be, and the entries in use.

    Eight voxels at a time: a word is compared with its six neighbour words, and only voxels whose class
    differs from a neighbour's are looked at one by one.

    Args:
        above: class rows of the plane at z - 1.
        here: class rows of the plane.
        below: class rows of the plane at z + 1.
        ranges: (height, 2) word ranges of `here`.
        height: rows of the plane.
        words: words of a row.
        z: index of the plane.
        membership: class -> bits of the regions it belongs to.
        exclusive: True when no two classes share a region; then a class border is a region border.
        positions: list of packed positions, in raster order.
        members: list of the regions, as bits, for which the voxel is a boundary voxel.
        used: entries in use.
    """
    stride = words + 2
    for y in range(height):
        if ranges[y, 1] == 0:
            continue
        positions, members = _room(positions, members, used, 8 * (ranges[y, 1] - ranges[y, 0]))
        base = (y + 1) * stride + 1
        for index in range(base + ranges[y, 0], base + ranges[y, 1]):
            centre = here[index]
            if centre == 0:
                continue
            left = (centre << uint64(8)) | (here[index - 1] >> uint64(56))
            right = (centre >> uint64(8)) | (here[index + 1] << uint64(56))
            north, south, up, down = here[index - stride], here[index + stride], above[index], below[index]
            differs = (centre ^ left) | (centre ^ right) | (centre ^ north)
            differs |= (centre ^ south) | (centre ^ up) | (centre ^ down)
            if differs == 0:
                continue
            marks = _nonzero_bytes(differs) & _nonzero_bytes(centre)
            while marks != 0:
                byte = trailing_zeros(marks) >> 3
                marks &= marks - uint64(1)
                shift = uint64(8 * byte)
                bits = membership[_byte(centre, shift)]
                if not exclusive:
                    around = membership[_byte(left, shift)] & membership[_byte(right, shift)]
                    around &= membership[_byte(north, shift)] & membership[_byte(south, shift)]
                    around &= membership[_byte(up, shift)] & membership[_byte(down, shift)]
                    bits &= ~around
                if bits != 0:
                    positions[used] = pack(z, y, 8 * (index - base) + byte)
                    members[used] = bits
                    used += 1
    return positions, members, used


SWEPT = types.Tuple((LONGS, LONGS, WORDS, LONGS, WORDS))


@compiled(
    SWEPT(U8, U8, int64, int64, int64, int64, int64, U8, U8, WORDS, boolean, boolean, int64),
    SWEPT(U16, U16, int64, int64, int64, int64, int64, U8, U8, WORDS, boolean, boolean, int64),
)
def sweep(
    reference,
    prediction,
    depth,
    height,
    width,
    first,
    last,
    reference_lut,
    prediction_lut,
    membership,
    exclusive,
    boundaries,
    origin,
):
    """Read the planes first <= z < last of both maps once, with one plane before and after.

    Returns:
        The joint counts (classes x classes, flat), then positions and region bits of the boundary voxels of
        the reference, then those of the prediction, in raster order.
    """
    classes = len(membership)
    joint = np.zeros(classes * classes, np.int64)
    words = (width + 7) >> 3
    plane = (words + 2) * (height + 2)
    # Three planes of each map: reference 0 to 2, prediction 3 to 5.
    rows = np.zeros((6, plane), np.uint64)
    ranges = np.zeros((6, height, 2), np.int64)
    filled = np.zeros(6, np.bool_)
    reference_positions, prediction_positions = np.empty(1024, np.int64), np.empty(1024, np.int64)
    reference_members, prediction_members = np.empty(1024, np.uint64), np.empty(1024, np.uint64)
    reference_used, prediction_used = 0, 0
    for z in range(first - 1, last + 1):
        slot = (z + 3) % 3
        source = z if 0 <= z < depth else -1
        if source >= 0 or filled[slot]:
            filled[slot] = fill_plane(
                reference, source, height, width, reference_lut, rows[slot], ranges[slot]
            )
        if source >= 0 or filled[slot + 3]:
            filled[slot + 3] = fill_plane(
                prediction, source, height, width, prediction_lut, rows[slot + 3], ranges[slot + 3]
            )
        if first <= z < last and (filled[slot] or filled[slot + 3]):
            count_plane(
                rows[slot], ranges[slot], rows[slot + 3], ranges[slot + 3], height, words, joint, classes
            )
        if not boundaries or z <= first:
            continue
        here, above = (z + 2) % 3, (z + 1) % 3
        if filled[here]:
            reference_positions, reference_members, reference_used = boundary_plane(
                rows[above], rows[here], rows[slot], ranges[here], height, words, origin + z - 1,
                membership, exclusive, reference_positions, reference_members, reference_used,
            )  # fmt: skip
        if filled[here + 3]:
            prediction_positions, prediction_members, prediction_used = boundary_plane(
                rows[above + 3], rows[here + 3], rows[slot + 3], ranges[here + 3], height, words, origin + z -
                1, membership, exclusive, prediction_positions, prediction_members, prediction_used,
            )  # fmt: skip
    return (
        joint,
        reference_positions[:reference_used],
        reference_members[:reference_used],
        prediction_positions[:prediction_used],
        prediction_members[:prediction_used],
    )


@compiled(types.Tuple((LONGS, LONGS))(LONGS, WORDS, int64))
def split(positions, members, regions):
    """Sort boundary voxels by region; a voxel that bounds several regions appears in each.

    Returns:
        The positions of all regions one after the other, each in raster order, and the (regions + 1,)
        offsets.
    """
    offsets = np.zeros(regions + 1, np.int64)
    for index in range(len(positions)):
        bits = members[index]
        while bits != 0:
            offsets[trailing_zeros(bits) + 1] += 1
            bits &= bits - uint64(1)
    for region in range(regions):
        offsets[region + 1] += offsets[region]
    fill = offsets[:-1].copy()
    grouped = np.empty(offsets[regions], np.int64)
    for index in range(len(positions)):
        bits = members[index]
        while bits != 0:
            region = trailing_zeros(bits)
            grouped[fill[region]] = positions[index]
            fill[region] += 1
            bits &= bits - uint64(1)
    return grouped, offsets
