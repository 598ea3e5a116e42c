"""The compiled kernels that find nearest boundary voxels: `build_bits` and `near` by bit scans of rows,
`build_bricks` and `far` those that are far away. As in `_kernels.py`, every float operation happens in the
order written here.
"""

# Compiled functions are typed by their signatures.
# ruff: noqa: ANN001, ANN202
# pyright: basic, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float64, int64, njit, types, uint8, uint64, void
from numba.extending import intrinsic

from segbench.metrics.engine._kernels import (
    BYTES,
    LONGS,
    RANGES,
    compiled,
    load_word,
    trailing_zeros,
    unpack,
)

REALS = types.Array(float64, 1, "C")

X_PAD = 64
"""Bits before and after each row of a bit map: queries reach 32 voxels beyond the box, windows 28 further."""

WINDOW = 28
"""Voxels to either side that a window of 64 bits is sure to cover, whatever the alignment."""


@intrinsic
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """Return the number of zeros above the highest set bit of a uint64; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return int64(uint64), generate


@compiled(void(LONGS, LONGS, BYTES))
def build_bits(targets, box, bits):
    """Set one bit per target voxel in a zeroed bit map.

    Args:
        targets: packed positions.
        box: origin z, y, x of the bit map, rows per plane, bytes per row.
        bits: bit map, x along the bits; row (z, y) starts at byte (z * rows + y) * bytes.
    """
    for index in range(len(targets)):
        z, y, x = unpack(targets[index])
        bit = x - box[2] + X_PAD
        bits[((z - box[0]) * box[3] + (y - box[1])) * box[4] + (bit >> 3)] |= uint8(1 << (bit & 7))


@compiled(int64(LONGS, LONGS, BYTES, LONGS, REALS, REALS, float64, REALS))
def near(queries, box, bits, row_offsets, row_squares, x_squares, limit, squares):
    """Find the nearest target of each query among the rows of a disc around it.

    The rows of the disc come in order of their squared distance, and each is searched 28 voxels to either
    side by one 64-bit window: the bit scan left and right of the query's own bit gives its nearest target.
    The search stops when the next row alone is not nearer than the best so far, so the result is exact up to
    `limit`.

    Args:
        queries: packed positions.
        box: as in `build_bits`, then the extents of the box: planes, rows and the width in voxels to search
            within.
        bits: the bit map of the targets.
        row_offsets: bytes from a row to each row of the disc.
        row_squares: squared distance of each row of the disc in mm2, ascending.
        x_squares: squared distance of 0 .. 63 steps in x in mm2, then inf.
        limit: squared distances above this are not certain: another row or window could hold a nearer target.
        squares: filled with the squared distance, or with inf where it is above the limit.

    Returns:
        How many queries were left at inf.
    """
    rows, stride = box[3], box[4]
    undecided = 0
    for index in range(len(queries)):
        z, y, x = unpack(queries[index])
        z -= box[0]
        y -= box[1]
        x -= box[2]
        best = np.inf
        if box[5] <= z < box[6] and box[7] <= y < box[8] and -32 <= x < box[9]:
            start = x + X_PAD - WINDOW
            base = (z * rows + y) * stride + (start >> 3)
            place = uint64((start & 7) + WINDOW)
            other = uint64(63) - place
            for row in range(len(row_squares)):
                if row_squares[row] >= best:
                    break
                window = load_word(bits, base + row_offsets[row])
                step = min(trailing_zeros(window >> place), leading_zeros(window << other))
                square = row_squares[row] + x_squares[step]
                if square < best:
                    best = square
        if best > limit:
            best = np.inf
            undecided += 1
        squares[index] = best
    return undecided


@njit(inline="always")
def _widen(boxes, index, z, y, x):
    """Make box `index` hold a position."""
    boxes[index, 0] = min(boxes[index, 0], z)
    boxes[index, 1] = max(boxes[index, 1], z)
    boxes[index, 2] = min(boxes[index, 2], y)
    boxes[index, 3] = max(boxes[index, 3], y)
    boxes[index, 4] = min(boxes[index, 4], x)
    boxes[index, 5] = max(boxes[index, 5], x)


@compiled(types.Tuple((LONGS, LONGS, RANGES, LONGS, RANGES))(LONGS, LONGS, LONGS))
def build_bricks(targets, box, shifts):
    """Sort targets into bricks and bricks into groups of 4 x 4 x 4, each with the tight box of what it holds.

    Args:
        targets: packed positions.
        box: smallest z, y, x, then the extents along z, y, x.
        shifts: log2 of the brick's size along z, y, x.

    Returns:
        The targets brick by brick; the first target of each brick (and the end); the bricks' boxes as
        smallest and largest z, y, x; the first brick of each group (and the end); the groups' boxes.
    """
    counts_z = ((box[3] - 1) >> (shifts[0] + 2)) + 1
    counts_y = ((box[4] - 1) >> (shifts[1] + 2)) + 1
    counts_x = ((box[5] - 1) >> (shifts[2] + 2)) + 1
    slots = np.zeros(counts_z * counts_y * counts_x * 64 + 1, np.int64)
    keys = np.empty(len(targets), np.int64)
    for index in range(len(targets)):
        z, y, x = unpack(targets[index])
        z, y, x = (z - box[0]) >> shifts[0], (y - box[1]) >> shifts[1], (x - box[2]) >> shifts[2]
        group = ((z >> 2) * counts_y + (y >> 2)) * counts_x + (x >> 2)
        keys[index] = group * 64 + ((z & 3) << 4 | (y & 3) << 2 | (x & 3))
        slots[keys[index] + 1] += 1
    bricks, groups, last = 0, 0, -1
    for key in range(len(slots) - 1):
        if slots[key + 1] > 0:
            bricks += 1
            if key >> 6 != last:
                last = key >> 6
                groups += 1
    brick_first, group_first = np.empty(bricks + 1, np.int64), np.empty(groups + 1, np.int64)
    brick_boxes, group_boxes = np.empty((bricks, 6), np.int64), np.empty((groups, 6), np.int64)
    brick, group, last, start = 0, 0, -1, 0
    for key in range(len(slots) - 1):
        here = slots[key + 1]
        slots[key] = start
        if here > 0:
            if key >> 6 != last:
                last = key >> 6
                group_first[group] = brick
                group += 1
            brick_first[brick] = start
            brick += 1
            start += here
    brick_first[bricks], group_first[groups] = start, bricks
    ordered = np.empty(len(targets), np.int64)
    for index in range(len(targets)):
        key = keys[index]
        ordered[slots[key]] = targets[index]
        slots[key] += 1
    for group in range(groups):
        group_boxes[group, 0::2] = 1 << 40
        group_boxes[group, 1::2] = -1
        for brick in range(group_first[group], group_first[group + 1]):
            brick_boxes[brick, 0::2] = 1 << 40
            brick_boxes[brick, 1::2] = -1
            for index in range(brick_first[brick], brick_first[brick + 1]):
                z, y, x = unpack(ordered[index])
                _widen(brick_boxes, brick, z, y, x)
            for axis in range(0, 6, 2):
                group_boxes[group, axis] = min(group_boxes[group, axis], brick_boxes[brick, axis])
                group_boxes[group, axis + 1] = max(group_boxes[group, axis + 1], brick_boxes[brick, axis + 1])
    return ordered, brick_first, brick_boxes, group_first, group_boxes


@njit(inline="always")
def _square_to_box(boxes, index, z, y, x, z_squares, y_squares, x_squares):
    """Return the squared distance to the nearest place of a box: never above that to a target in it.

    Rounding keeps order, so comparing it with the squared distance of a target is exact.
    """
    dz = max(boxes[index, 0] - z, z - boxes[index, 1], 0)
    dy = max(boxes[index, 2] - y, y - boxes[index, 3], 0)
    dx = max(boxes[index, 4] - x, x - boxes[index, 5], 0)
    return (z_squares[dz] + y_squares[dy]) + x_squares[dx]


@njit(inline="always")
def _square_to(target, z, y, x, z_squares, y_squares, x_squares):
    """Return the squared distance between a packed position and a place."""
    tz, ty, tx = unpack(target)
    return (z_squares[abs(tz - z)] + y_squares[abs(ty - y)]) + x_squares[abs(tx - x)]


@compiled(void(LONGS, LONGS, LONGS, RANGES, LONGS, RANGES, REALS, REALS, REALS, REALS))
def far(
    queries, targets, brick_first, brick_boxes, group_first, group_boxes,
    z_squares, y_squares, x_squares, squares,
):  # fmt: skip
    """Find the nearest target of each query that `near` left at inf.

    Queries come in raster order, so the target nearest to the last one is a good first guess for this one;
    what is left is to rule out groups and bricks that are not nearer than the best so far.

    Args:
        queries: packed positions.
        targets: packed positions, brick by brick; with the next four, from `build_bricks`.
        brick_first: first target of each brick.
        brick_boxes: boxes of the bricks.
        group_first: first brick of each group.
        group_boxes: boxes of the groups.
        z_squares: squared distance in mm2 of 0, 1, ... steps in z.
        y_squares: the same for y.
        x_squares: the same for x.
        squares: inf where a query is to be searched; filled.
    """
    guess, last = -1, np.int64(0)
    for index in range(len(queries)):
        if squares[index] != np.inf:
            continue
        z, y, x = unpack(queries[index])
        last_z, last_y, last_x = unpack(last)
        best = np.inf
        if guess >= 0:
            best = _square_to(targets[guess], z, y, x, z_squares, y_squares, x_squares)
        if guess < 0 or abs(last_z - z) + abs(last_y - y) + abs(last_x - x) > 32:
            nearest, least = 0, np.inf
            for group in range(len(group_boxes)):
                square = _square_to_box(group_boxes, group, z, y, x, z_squares, y_squares, x_squares)
                if square < least:
                    nearest, least = group, square
            first, least = group_first[nearest], np.inf
            for brick in range(group_first[nearest], group_first[nearest + 1]):
                square = _square_to_box(brick_boxes, brick, z, y, x, z_squares, y_squares, x_squares)
                if square < least:
                    first, least = brick, square
            for target in range(brick_first[first], brick_first[first + 1]):
                square = _square_to(targets[target], z, y, x, z_squares, y_squares, x_squares)
                if square < best:
                    best, guess = square, target
        for group in range(len(group_boxes)):
            if _square_to_box(group_boxes, group, z, y, x, z_squares, y_squares, x_squares) >= best:
                continue
            for brick in range(group_first[group], group_first[group + 1]):
                if _square_to_box(brick_boxes, brick, z, y, x, z_squares, y_squares, x_squares) >= best:
                    continue
                for target in range(brick_first[brick], brick_first[brick + 1]):
                    square = _square_to(targets[target], z, y, x, z_squares, y_squares, x_squares)
                    if square < best:
                        best, guess = square, target
        squares[index] = best
        last = queries[index]
