# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Pieces and holes of a large mask from its runs: some 100,000 intervals stand for 100 million voxels.

A row of a mask is cut into runs of equal value; runs of neighbouring rows that overlap are joined when their
values are equal. That is 6-connectivity, of the foreground and of the background at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = NDArray[np.bool_]
Longs = NDArray[np.int64]


def largest_piece(mask: Mask) -> Mask:
    """Return the largest 6-connected component; the first in raster order when several are equally large.

    Args:
        mask: bool, z y x, C-contiguous.
    """
    _, length, value, piece = _runs_of(mask)
    inside = np.flatnonzero(value)
    pieces, first = np.unique(piece[inside], return_index=True)
    if pieces.size <= 1:
        return mask
    sizes = np.bincount(piece[inside], weights=length[inside])[pieces]
    best = np.flatnonzero(sizes == sizes.max())
    chosen = pieces[best[first[best].argmin()]]
    return np.repeat(value & (piece == chosen), length).reshape(mask.shape)


def fill_holes(mask: Mask) -> Mask:
    """Return the mask with the background that no 6-connected path leads out of.

    Args:
        mask: bool, z y x, C-contiguous.
    """
    start, length, value, piece = _runs_of(mask)
    depth, height, width = mask.shape
    z, y = np.divmod(start // width, height)
    x = start % width
    outer = (z == 0) | (z == depth - 1) | (y == 0) | (y == height - 1)
    outer |= (x == 0) | (x + length == width)
    reached = np.unique(piece[outer & ~value])
    hole = ~value & ~np.isin(piece, reached)
    return np.repeat(value | hole, length).reshape(mask.shape) if hole.any() else mask


def _runs_of(mask: Mask) -> tuple[Longs, Longs, Mask, NDArray[np.int32]]:
    """The runs of a mask in raster order, which together tile it.

    Returns:
        Of each run the flat index of its first voxel, its voxels, whether it is foreground, and the number of
        the 6-connected component of equal value that it is of.
    """
    depth, height, width = mask.shape
    flat = mask.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    rows = np.arange(0, flat.size, width, dtype=np.int64)
    start = np.union1d(rows, changes)
    end = np.append(start[1:], flat.size)
    value = flat[start]
    row = start // width
    pairs: list[NDArray[np.int64]] = []
    for step, neighbour in ((width, row % height < height - 1), (width * height, row < height * (depth - 1))):
        here = np.flatnonzero(neighbour)
        low = np.searchsorted(end, start[here] + step, side="right")
        count = np.searchsorted(start, end[here] + step, side="left") - low
        a = np.repeat(here, count)
        b = np.repeat(low - np.cumsum(count) + count, count) + np.arange(a.size)
        pairs.append(np.stack((a, b))[:, value[a] == value[b]])
    a, b = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(a.size, dtype=np.bool_), (a, b)), shape=(start.size, start.size))
    piece = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int32)
    return start, end - start, value, piece
