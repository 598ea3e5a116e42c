# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""The reference's side of the airway scores: skeleton, branches, and which branch each skeleton voxel is of.

It is most of the work, and the same for every prediction: the last few trees are kept in the process, and on
disk where a folder is named. A tree is some thousand voxels, so it is kept as a list of them.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import spatial
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segbench.core.atomic import atomic_write
from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_bytes
from segbench.metrics.airways.skeleton import thin
from segbench.metrics.boxes import box_of
from segbench.metrics.engine._runs import fill_holes, largest_piece

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]

MINIMUM_PIECE = 5
"""Pieces of the skeleton with fewer voxels are no branch."""
MARGIN = 2
"""Voxels around a tree that are looked at."""
VERSION = 1
"""Of the trees on disk; a change that moves a branch makes it 2."""

_KEPT = 4
_HALF = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) < (0, 0, 0)]


@dataclass(frozen=True, eq=False)
class ReferenceTree:
    """What only depends on the reference.

    Attributes:
        skeleton: (n, 3) voxels of the skeleton as it is scored, z y x in the whole array, in raster order.
        branch: (n,) branch of each, from 1; 0 for those outside of the largest piece.
        branches: number of branches.
    """

    skeleton: Positions
    branch: NDArray[np.int64]
    branches: int


_cache: OrderedDict[tuple[str, str], ReferenceTree] = OrderedDict()


def reference_tree(truth: Mask, *, trunk_only: bool, folder: Path | None = None) -> ReferenceTree:
    """Return the tree of a reference, from the process's memory or from disk where it is there.

    Args:
        truth: reference mask, z y x, not empty.
        trunk_only: score the skeleton of the largest piece, holes filled, in place of the whole mask's.
        folder: where trees are kept on disk; None keeps them in memory only.
    """
    box = box_of(truth, margin=MARGIN)
    assert box is not None
    cut = np.ascontiguousarray(truth[box])
    shape = ",".join(map(str, cut.shape))
    key = ("trunk" if trunk_only else "whole", sha256_bytes(shape.encode() + np.packbits(cut).tobytes()))
    tree = _cache.get(key)
    if tree is None:
        file = None if folder is None else folder / f"{key[1]}-{key[0]}-v{VERSION}.npy"
        tree = _load(file)
        if tree is None:
            tree = _parse(cut, trunk_only)
            _save(tree, file)
    _cache[key] = tree
    _cache.move_to_end(key)
    while len(_cache) > _KEPT:
        _cache.popitem(last=False)
    corner = np.array([part.start for part in box], dtype=np.int64)
    return ReferenceTree(tree.skeleton + corner, tree.branch, tree.branches)


def _parse(truth: Mask, trunk_only: bool) -> ReferenceTree:
    trunk = fill_holes(largest_piece(truth))
    centre = thin(trunk)
    centre_voxels = np.argwhere(centre)
    pieces = _branches(centre_voxels)
    # The usual reference is one piece without holes: its skeleton is there already.
    whole = trunk_only or np.array_equal(trunk, truth)
    skeleton = centre_voxels if whole else np.argwhere(thin(truth))
    branch = np.zeros(len(skeleton), dtype=np.int64)
    of_piece = pieces > 0
    if of_piece.any():
        inside = np.flatnonzero(trunk[tuple(skeleton.T)])
        nearest = nearest_voxel(skeleton[inside], centre_voxels[of_piece])
        branch[inside] = pieces[of_piece][nearest]
    return ReferenceTree(skeleton, branch, int(pieces.max(initial=0)))


def _branches(voxels: Positions) -> NDArray[np.int64]:
    """Return the branch of each skeleton voxel: 0 at forks and in pieces that are too small to be one.

    Args:
        voxels: (n, 3) in raster order.
    """
    around = np.ones(len(voxels), dtype=np.int64)  # of each voxel's 3 x 3 x 3 block, itself included
    for ends in _neighbours(voxels):
        around += sum(np.bincount(end, minlength=len(voxels)) for end in ends)
    kept = np.flatnonzero(around <= 3)
    a, b = (np.concatenate(ends) for ends in zip(*_neighbours(voxels[kept]), strict=True))
    graph = coo_array((np.ones(a.size, dtype=np.bool_), (a, b)), shape=(kept.size, kept.size))
    piece = connected_components(graph, directed=False)[1]
    _, first, piece, sizes = np.unique(piece, return_index=True, return_inverse=True, return_counts=True)
    large = np.flatnonzero(sizes >= MINIMUM_PIECE)
    number = np.zeros(sizes.size, dtype=np.int64)
    number[large[first[large].argsort()]] = np.arange(1, large.size + 1)
    result = np.zeros(len(voxels), dtype=np.int64)
    result[kept] = number[piece]
    return result


def _neighbours(voxels: Positions) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return, for half of the 26 directions each, the pairs of voxels that are neighbours."""
    sizes = voxels.max(axis=0, initial=0) + 3
    weights = np.array([sizes[1] * sizes[2], sizes[2], 1])
    keys = (voxels + 1) @ weights  # a border of one voxel, so that no step leaves its row
    pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for offset in _HALF:
        wanted = keys + int(np.dot(offset, weights))
        place = np.minimum(np.searchsorted(keys, wanted), max(0, keys.size - 1))
        here = np.flatnonzero(keys[place] == wanted) if keys.size else place
        pairs.append((here, place[here]))
    return pairs


def nearest_voxel(queries: Positions, targets: Positions) -> NDArray[np.int64]:
    """Return the index of the target nearest to each query; of equally near ones the smallest x, then y, z.

    That is the one `scipy.ndimage.distance_transform_edt(..., return_indices=True)` gives on a grid.

    Args:
        queries: (n, 3) z y x.
        targets: (m, 3) z y x, m > 0.
    """
    order = np.lexsort((targets[:, 0], targets[:, 1], targets[:, 2]))
    sorted_targets = targets[order]
    tree: Any = spatial.cKDTree(sorted_targets)  # pyright: ignore[reportAttributeAccessIssue]
    distance, found = tree.query(queries)
    found = np.asarray(found, dtype=np.int64)
    doubtful = np.flatnonzero(distance > 0)
    # Squares of distances are whole numbers: those that are equal lie well within half of one.
    squares = np.rint(np.asarray(distance)[doubtful] ** 2)
    near = tree.query_ball_point(queries[doubtful], np.sqrt(squares + 0.5), return_sorted=True)
    for at, square, candidates in zip(doubtful, squares, near, strict=True):
        gaps = ((sorted_targets[candidates] - queries[at]) ** 2).sum(axis=1)
        found[at] = candidates[int(np.flatnonzero(gaps == square)[0])]
    return order[found]


def _load(file: Path | None) -> ReferenceTree | None:
    """Return a tree from disk; None when there is none, or none that can be read."""
    if file is None:
        return None
    try:
        rows = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if rows.dtype != np.int32 or rows.ndim != 2 or rows.shape[1] != 4 or len(rows) < 1:
        return None
    rows = rows.astype(np.int64)
    return ReferenceTree(rows[1:, :3], rows[1:, 3], int(rows[0, 3]))


def _save(tree: ReferenceTree, file: Path | None) -> None:
    """Keep a tree on disk: a row that ends in the number of branches, then z, y, x, branch of each voxel.

    A full or read-only disk is no reason to stop: the tree is made again next time.
    """
    if file is None:
        return
    rows = np.zeros((len(tree.skeleton) + 1, 4), dtype=np.int32)
    rows[0, 3] = tree.branches
    rows[1:, :3], rows[1:, 3] = tree.skeleton, tree.branch
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=False)
    with suppress(SegbenchError, OSError):
        atomic_write(file, stream.getvalue())
