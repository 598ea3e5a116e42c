"""3-D thinning to a one-voxel skeleton, bit-identical to scikit-image's `skeletonize` on the same array.

Voxels are peeled off one direction at a time (y-1, y+1, x+1, x-1, z+1, z-1) as long as their removal changes
neither the Euler number nor the number of 26-connected pieces around them, and they are no end point. The
candidates of a direction are found first, in raster order; each is then looked at again before it goes,
because its neighbours may have gone meanwhile. The result depends on the axis order: use z, y, x.

Faster than scanning the volume once per direction: only voxels with a background face are kept in a list,
and what a removal lays bare joins it.

Source: Lee, Kashyap & Chu 1994, "Building skeleton models via 3-D medial surface/axis thinning algorithms";
the order of the passes is scikit-image's (skimage/morphology, Lee's method). Shit et al. 2021, "clDice - a
novel topology-preserving loss function for tubular structure segmentation" (CVPR).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.boxes import box_of
from segbench.metrics.engine.choice import compiled_engine_wanted

_DIRECTIONS = ((0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0))
_OFFSETS = tuple(
    (z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) != (0, 0, 0)
)


def thin(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The skeleton of a mask.

    Args:
        mask: 3-D, z y x; nonzero is foreground. Never written to.

    Returns:
        A bool array of the same shape: one voxel wide, same topology, ends kept.

    Raises:
        ValueError: The mask does not have three axes.
    """
    foreground = np.asarray(mask) != 0
    if foreground.ndim != 3:
        raise ValueError(f"a mask to be thinned has three axes, found {foreground.ndim}")
    result = np.zeros(foreground.shape, dtype=np.bool_)
    box = box_of(foreground)
    if box is None:
        return result
    padded = np.ascontiguousarray(np.pad(foreground[box].astype(np.uint8), 1))
    # A single slice is thinned in its plane only, and whether it is one depends on the whole array.
    directions = 4 if foreground.shape[0] == 1 else 6
    _thin(padded, directions)
    result[box] = padded[1:-1, 1:-1, 1:-1] != 0
    return result


def cldice(reference: NDArray[Any], prediction: NDArray[Any]) -> float:
    """The centre-line Dice of two masks, in [0, 1].

    The harmonic mean of the share of the prediction's skeleton inside the reference and of the reference's
    skeleton inside the prediction; 0 when both shares are 0.

    Args:
        reference: 3-D mask, z y x, not empty.
        prediction: Mask of the same shape, not empty.
    """
    truth, guess = np.asarray(reference) != 0, np.asarray(prediction) != 0
    precision = _share(thin(guess), truth)
    sensitivity = _share(thin(truth), guess)
    total = precision + sensitivity
    return 2.0 * precision * sensitivity / total if total > 0 else 0.0


def _share(skeleton: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    length = int(np.count_nonzero(skeleton))
    return int(np.count_nonzero(skeleton & mask)) / length if length else 0.0


def _thin(padded: NDArray[np.uint8], directions: int) -> None:
    """Thin in place by the compiled loop, or by the plain one where compiled code is not wanted."""
    euler, octants, adjacency = tables()
    sizes = padded.shape
    strides = (sizes[1] * sizes[2], sizes[2], 1)
    steps = np.array([sum(d * s for d, s in zip(o, strides, strict=True)) for o in _OFFSETS], dtype=np.int64)
    faces = np.array(
        [sum(d * s for d, s in zip(o, strides, strict=True)) for o in _DIRECTIONS], dtype=np.int64
    )
    flat = padded.reshape(-1)
    if compiled_engine_wanted():
        try:
            from segbench.metrics.airways._thinning import thin_flat
        except ImportError:
            pass
        else:
            thin_flat(flat, steps, faces, directions, euler, octants, adjacency)
            return
    _plain_loop(flat, steps, faces[:directions], euler, octants, adjacency)


@cache
def tables() -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]]:
    """Euler change per octant, members of the octants, and adjacency of the 26 neighbours.

    Returns:
        euler: (128,) change of eight times the Euler number (26-connected) when the centre leaves an octant
            whose seven other voxels are the bits of the index.
        octants: (8, 7) neighbour numbers of each octant, in the order of the bits.
        adjacency: (26,) bit mask of the neighbours that are 26-adjacent to each neighbour.
    """
    number = {offset: i for i, offset in enumerate(_OFFSETS)}
    corners = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    octants = np.zeros((8, 7), dtype=np.int64)
    for i, (sz, sy, sx) in enumerate((z, y, x) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)):
        octants[i] = [number[z * sz, y * sy, x * sx] for z, y, x in corners[1:]]
    euler = np.array(
        [
            _euler_of({(0, 0, 0), *(corners[1 + b] for b in range(7) if bits >> b & 1)})
            - _euler_of({corners[1 + b] for b in range(7) if bits >> b & 1})
            for bits in range(128)
        ],
        dtype=np.int8,
    )
    adjacency = np.array(
        [
            sum(
                1 << j
                for j, other in enumerate(_OFFSETS)
                if other != offset and max(abs(a - b) for a, b in zip(offset, other, strict=True)) <= 1
            )
            for offset in _OFFSETS
        ],
        dtype=np.int64,
    )
    return euler, octants, adjacency


def _euler_of(voxels: set[tuple[int, int, int]]) -> int:
    """Eight times what the middle corner of a 2x2x2 block adds to the Euler number of its voxels.

    A voxel has eight corners, a face four, an edge two: seen from every corner, they add an eighth, a quarter
    and a half of what they are.
    """
    vertex = int(bool(voxels))
    edges = {(axis, side) for voxel in voxels for axis, side in enumerate(voxel)}
    # An edge from the corner along +-axis is in the union when a voxel lies on that side.
    faces = {(a, voxel[a], b, voxel[b]) for voxel in voxels for a in range(3) for b in range(a + 1, 3)}
    return 8 * vertex - 4 * len(edges) + 2 * len(faces) - len(voxels)


def _plain_loop(
    flat: NDArray[np.uint8],
    steps: NDArray[np.int64],
    faces: NDArray[np.int64],
    euler: NDArray[np.int8],
    octants: NDArray[np.int64],
    adjacency: NDArray[np.int64],
) -> None:
    """The loop in plain Python: the oracle of the compiled one, slow."""
    links = [int(mask) for mask in adjacency]

    def neighbourhood(at: int) -> int:
        return sum(1 << i for i, step in enumerate(steps) if flat[at + step])

    def simple(bits: int) -> bool:
        seen = frontier = bits & -bits
        while frontier:
            reached = 0
            for i in range(26):
                if frontier >> i & 1:
                    reached |= links[i]
            frontier = reached & bits & ~seen
            seen |= frontier
        return seen == bits

    def removable(bits: int) -> bool:
        if bits.bit_count() == 1:
            return False
        change = sum(
            int(euler[sum((bits >> int(n) & 1) << b for b, n in enumerate(octant))]) for octant in octants
        )
        return change == 0 and simple(bits)

    unchanged = 0
    while unchanged < len(faces):
        unchanged = 0
        for face in faces:
            candidates = [
                int(at)
                for at in np.flatnonzero(flat)
                if not flat[at + face] and removable(neighbourhood(int(at)))
            ]
            removed = False
            for at in candidates:
                if simple(neighbourhood(at)):
                    flat[at] = 0
                    removed = True
            unchanged += not removed
