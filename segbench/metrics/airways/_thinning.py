# pyright: basic
"""The compiled loop of `skeleton.thin`; see there for what it does and why."""

from __future__ import annotations

import numba
import numpy as np
from numba import int8, int64, uint8
from numpy.typing import NDArray

_FLAT = uint8[::1]
_LONG = int64[::1]


@numba.njit(int64(_FLAT, int64, _LONG), cache=True, nogil=True, inline="always")
def _neighbourhood(flat: NDArray[np.uint8], at: int, steps: NDArray[np.int64]) -> int:
    bits = 0
    for i in range(26):
        bits |= int64(flat[at + steps[i]] != 0) << i
    return bits


@numba.njit(numba.boolean(int64, _LONG), cache=True, nogil=True)
def _simple(bits: int, adjacency: NDArray[np.int64]) -> bool:
    """Whether the neighbours form at most one 26-connected piece."""
    seen = bits & -bits
    frontier = seen
    while frontier:
        reached = 0
        for i in range(26):
            if frontier >> i & 1:
                reached |= adjacency[i]
        frontier = reached & bits & ~seen
        seen |= frontier
    return seen == bits


@numba.njit(numba.boolean(int64, int8[::1], int64[:, ::1], _LONG), cache=True, nogil=True)
def _removable(
    bits: int, euler: NDArray[np.int8], octants: NDArray[np.int64], adjacency: NDArray[np.int64]
) -> bool:
    """No end point, Euler number kept, neighbours in one piece."""
    if bits & (bits - 1) == 0 and bits != 0:
        return False
    change = 0
    for o in range(8):
        index = 0
        for b in range(7):
            index |= (bits >> octants[o, b] & 1) << b
        change += euler[index]
    return change == 0 and _simple(bits, adjacency)


@numba.njit(_LONG(_LONG), cache=True, nogil=True)
def _grown(array: NDArray[np.int64]) -> NDArray[np.int64]:
    larger = np.empty(2 * array.size, dtype=np.int64)
    larger[: array.size] = array
    return larger


@numba.njit(numba.types.Tuple((_LONG, int64))(_FLAT, _LONG, int64, _LONG), cache=True, nogil=True)
def _merged(
    flat: NDArray[np.uint8], border: NDArray[np.int64], length: int, fresh: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """The border list without what was removed and with what was laid bare, in raster order."""
    result = np.empty(max(1024, length + fresh.size), dtype=np.int64)
    count = 0
    j = 0
    for i in range(length):
        at = border[i]
        if flat[at] == 0:
            continue
        while j < fresh.size and fresh[j] < at:
            if flat[fresh[j]]:
                result[count] = fresh[j]
                count += 1
            j += 1
        result[count] = at
        count += 1
    while j < fresh.size:
        if flat[fresh[j]]:
            result[count] = fresh[j]
            count += 1
        j += 1
    return result, count


@numba.njit(numba.void(_FLAT, _LONG, _LONG, int64, int8[::1], int64[:, ::1], _LONG), cache=True, nogil=True)
def thin_flat(
    flat: NDArray[np.uint8],
    steps: NDArray[np.int64],
    faces: NDArray[np.int64],
    directions: int,
    euler: NDArray[np.int8],
    octants: NDArray[np.int64],
    adjacency: NDArray[np.int64],
) -> None:
    """Thin a padded volume in place.

    Args:
        flat: The volume, raveled; 1 is foreground, 3 a foreground voxel that stands in the border list.
        steps: Index steps to the 26 neighbours.
        faces: Index steps to the six face neighbours, in the order of the passes.
        directions: How many of them are passes: 6, or 4 for a single slice.
        euler: See `skeleton.tables`, as the next two.
        octants: See there.
        adjacency: See there.
    """
    border = np.empty(1024, dtype=np.int64)
    length = 0
    for at in range(flat.size):
        if flat[at]:
            for k in range(6):
                if flat[at + faces[k]] == 0:
                    if length == border.size:
                        border = _grown(border)
                    border[length] = at
                    length += 1
                    flat[at] = 3
                    break
    candidates = np.empty(1024, dtype=np.int64)
    fresh = np.empty(1024, dtype=np.int64)
    unchanged = 0
    while unchanged < directions:
        unchanged = 0
        for f in range(directions):
            found = 0
            for i in range(length):
                at = border[i]
                if flat[at + faces[f]] == 0 and _removable(
                    _neighbourhood(flat, at, steps), euler, octants, adjacency
                ):
                    if found == candidates.size:
                        candidates = _grown(candidates)
                    candidates[found] = at
                    found += 1
            removed = 0
            bare = 0
            for i in range(found):
                at = candidates[i]
                if _simple(_neighbourhood(flat, at, steps), adjacency):
                    flat[at] = 0
                    removed += 1
                    for k in range(6):
                        other = at + faces[k]
                        if flat[other] == 1:
                            flat[other] = 3
                            if bare == fresh.size:
                                fresh = _grown(fresh)
                            fresh[bare] = other
                            bare += 1
            if removed == 0:
                unchanged += 1
                continue
            border, length = _merged(flat, border, length, np.sort(fresh[:bare]))
    for at in range(flat.size):
        if flat[at]:
            flat[at] = 1
