"""The native engine: counts and exact surface distances of all regions from one pass over both maps.

1. Labels become **classes**: labels that belong to the same regions are one class, labels in no region are
class 0. 2. `sweep` reads both maps once, plane by plane. Rows that are all zero are skipped after one look.
   It counts (reference class, prediction class) pairs and lists the boundary voxels with the regions they
bound. 3. For each region and direction the targets become a bit map, one bit per voxel. Nearest targets are
   found by bit scans of the rows around a query (`near`); the few that are further than a disc of rows
   reaches are found among bricks of targets (`far`).

Every distance is the minimum of the formula of `surface.py` over all targets, so neither the order of the
search nor the number of threads can change a bit; `_plain.py` gives the same.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.metrics.engine import _kernels, _nearest
from segbench.metrics.engine.choice import in_threads, threads_wanted
from segbench.metrics.engine.measure import Measurement
from segbench.metrics.overlap import Counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics.inputs import LabelMap, Regions, Spacing

    Longs = NDArray[np.int64]
    Reals = NDArray[np.float64]

MAX_CLASSES = 255
MAX_REGIONS = 64
"""Regions of one sweep: their membership is one 64-bit word. More regions take more sweeps."""

NARROW_BYTES = 8 * 2**20
"""Size of the slabs in which maps of wide or strided types are copied."""

SMALL_BOX = 4 * 2**20
PARALLEL_VOXELS = 4 * 2**20
PARALLEL_QUERIES = 20_000
DISC_ROWS = 200
"""Rows of the disc that `near` searches: a radius of eight voxels on a cubic grid."""
MAX_REACH = 300
"""Rows that the disc may reach along one axis; only spacings that differ a thousandfold come here."""


def measure(
    reference: LabelMap, prediction: LabelMap, *, spacing_mm: Spacing, regions: Regions, distances: bool
) -> dict[str, Measurement]:
    """Return counts and distances of every region; arguments and result as `_plain.measure`."""
    names = list(regions)
    measurements: dict[str, Measurement] = {}
    start = 0
    while start < len(names):
        group = names[start : start + MAX_REGIONS]
        classes = classify([regions[name] for name in group])
        while len(classes.membership) - 1 > MAX_CLASSES:
            group = group[: len(group) // 2]
            classes = classify([regions[name] for name in group])
        measurements.update(_measure_group(reference, prediction, group, classes, spacing_mm, distances))
        start += len(group)
    return measurements


@dataclass(frozen=True)
class Classes:
    """Labels grouped by the regions they belong to.

    Attributes:
        of_label: label -> class; labels that are absent are class 0.
        membership: class -> bits of its regions; class 0 has none.
        exclusive: True when no region has two classes and no class two regions: the usual organs.
    """

    of_label: dict[int, int]
    membership: NDArray[np.uint64]
    exclusive: bool


def classify(regions: list[tuple[int, ...]]) -> Classes:
    """Return the classes of up to 64 regions."""
    bits: dict[int, int] = {}
    for index, labels in enumerate(regions):
        for label in labels:
            bits[label] = bits.get(label, 0) | 1 << index
    distinct = {0: 0}
    for member in bits.values():
        distinct.setdefault(member, len(distinct))
    exclusive = all(member.bit_count() <= 1 for member in distinct)
    return Classes(
        {label: distinct[member] for label, member in bits.items()},
        np.array(list(distinct), dtype=np.uint64),
        exclusive,
    )


def _measure_group(
    reference: LabelMap,
    prediction: LabelMap,
    names: list[str],
    classes: Classes,
    spacing_mm: Spacing,
    distances: bool,
) -> dict[str, Measurement]:
    joint, parts = _sweep(reference, prediction, classes, distances)
    members = [(classes.membership >> np.uint64(index)) & np.uint64(1) == 1 for index in range(len(names))]
    counts = [
        Counts(int(joint[of].sum()), int(joint[:, of].sum()), int(joint[of][:, of].sum())) for of in members
    ]
    if not distances:
        return {name: Measurement(count) for name, count in zip(names, counts, strict=True)}

    def split(columns: tuple[int, int]) -> Any:
        return _kernels.split(*_joined(parts, *columns), len(names))

    both = in_threads(split, [(1, 2), (3, 4)], _threads_for(reference))
    (reference_points, reference_offsets), (prediction_points, prediction_offsets) = both
    surfaces = [
        (
            reference_points[reference_offsets[index] : reference_offsets[index + 1]],
            prediction_points[prediction_offsets[index] : prediction_offsets[index + 1]],
        )
        for index in range(len(names))
    ]
    found = _both_ways(surfaces, spacing_mm, reference.shape)
    return {
        name: Measurement(count, *found.get(index, (None, None)))
        for index, (name, count) in enumerate(zip(names, counts, strict=True))
    }


def _both_ways(
    surfaces: list[tuple[Longs, Longs]], spacing_mm: Spacing, shape: tuple[int, ...]
) -> dict[int, tuple[Reals, Reals]]:
    """Return D1 and D2 of every region whose surfaces (reference, prediction) are both there."""
    present = [index for index, (r, p) in enumerate(surfaces) if len(r) and len(p)]
    searches = [(surfaces[i][1], surfaces[i][0]) for i in present]
    searches += [(surfaces[i][0], surfaces[i][1]) for i in present]
    # The largest first, so that no thread is left with it alone at the end.
    order = sorted(range(len(searches)), key=lambda job: -len(searches[job][0]))
    small = sum(len(queries) for queries, _ in searches) < PARALLEL_QUERIES
    threads = 1 if small else threads_wanted()
    parts = -(-threads // max(1, len(searches)))
    distances: dict[int, Reals] = {}

    def search(job: int) -> None:
        distances[job] = nearest_mm(*searches[job], spacing_mm, shape, parts=parts)

    in_threads(search, order, threads)
    return {index: (distances[place], distances[place + len(present)]) for place, index in enumerate(present)}


def _sweep(
    reference: LabelMap, prediction: LabelMap, classes: Classes, boundaries: bool
) -> tuple[Longs, list[Any]]:
    """Return the joint counts, and what `_kernels.sweep` gave for each slab of planes, in order."""
    depth = reference.shape[0]
    slabs = list(_slabs(reference, prediction))

    def run(slab: tuple[int, int]) -> Any:
        first, last = slab
        begin, end = max(0, first - 1), min(depth, last + 1)
        r, r_lut = _flat_planes(reference[begin:end], classes)
        p, p_lut = _flat_planes(prediction[begin:end], classes)
        if r.dtype != p.dtype:
            r, r_lut = _as_classes(r, r_lut)
            p, p_lut = _as_classes(p, p_lut)
        return _kernels.sweep(
            r, p, end - begin, *reference.shape[1:], first - begin, last - begin, r_lut, p_lut,
            classes.membership, classes.exclusive, boundaries, begin,
        )  # fmt: skip

    parts = in_threads(run, slabs, threads_wanted())
    size = len(classes.membership)
    return np.sum([part[0] for part in parts], axis=0).reshape(size, size), parts


def _joined(parts: list[Any], *columns: int) -> tuple[Any, ...]:
    """Return the boundary voxels of one map: positions and the regions that they bound."""
    if len(parts) == 1:
        return tuple(parts[0][column] for column in columns)
    return tuple(np.concatenate([part[column] for part in parts]) for column in columns)


def _slabs(reference: LabelMap, prediction: LabelMap) -> Iterator[tuple[int, int]]:
    """Yield the ranges of planes that one call of `sweep` handles."""
    depth = reference.shape[0]
    plane = reference[0].size
    planes = depth
    if not (_is_flat(reference) and _is_flat(prediction)):
        planes = max(1, NARROW_BYTES // max(1, plane))
    threads = _threads_for(reference)
    if threads > 1:
        planes = min(planes, -(-depth // (4 * threads)))
    for first in range(0, depth, max(1, planes)):
        yield first, min(depth, first + planes)


def _threads_for(labels: LabelMap) -> int:
    """Return the threads that a map of this size is worth."""
    return threads_wanted() if labels.size >= PARALLEL_VOXELS else 1


def _is_flat(labels: LabelMap) -> bool:
    return labels.flags.c_contiguous and labels.dtype.itemsize <= 2 and labels.dtype.isnative


def _flat_planes(planes: LabelMap, classes: Classes) -> tuple[Any, NDArray[np.uint8]]:
    """Return planes as a flat uint8 or uint16 array, and the class of each of its values.

    Contiguous maps of one or two bytes are read where they are. Others are copied; wide types are replaced by
    their classes on the way.
    """
    if planes.dtype.itemsize <= 2:
        native = planes.astype(planes.dtype.newbyteorder("="), copy=False)
        unsigned = np.uint8 if planes.dtype.itemsize == 1 else np.uint16
        flat = np.ascontiguousarray(native).reshape(-1).view(unsigned)
        return flat, _lookup(classes, planes.dtype)
    labels = np.array(sorted(classes.of_label), dtype=np.int64)
    targets = np.array([classes.of_label[int(label)] for label in labels], dtype=np.uint8)
    low, high = int(planes.min()), int(planes.max())
    if low >= 0 and high < 2**16:
        table = np.zeros(high + 1, dtype=np.uint8)
        inside = (labels >= 0) & (labels <= high)
        table[labels[inside]] = targets[inside]
        return table[planes].reshape(-1), np.arange(256, dtype=np.uint8)
    # uint64 beyond int64 cannot be a label that anyone named: such values match nothing.
    values = np.where(planes > np.iinfo(np.int64).max, 0, planes).astype(np.int64)
    place = np.minimum(np.searchsorted(labels, values), len(labels) - 1)
    return np.where(labels[place] == values, targets[place], 0).astype(np.uint8).reshape(-1), np.arange(
        256, dtype=np.uint8
    )


def _lookup(classes: Classes, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
    """Return the class of every value of a one- or two-byte type, indexed by its unsigned bits."""
    table = np.zeros(256 if dtype.itemsize == 1 else 2**16, dtype=np.uint8)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for label, number in classes.of_label.items():
        if low <= label <= high:
            table[label % len(table)] = number
    return table


def _as_classes(flat: Any, lut: NDArray[np.uint8]) -> tuple[Any, NDArray[np.uint8]]:
    return lut[flat], np.arange(256, dtype=np.uint8)


def nearest_mm(
    queries: Longs, targets: Longs, spacing_mm: Spacing, shape: tuple[int, ...], *, parts: int = 1
) -> Reals:
    """Return the exact distance in mm from each query to the nearest target.

    Args:
        queries: packed positions in raster order.
        targets: packed positions in raster order, at least one.
        spacing_mm: voxel size in mm, z y x.
        shape: shape of the array.
        parts: parts of the queries that are searched side by side.
    """
    low, high = bounds(targets)
    steps, rows, x_squares, limit = disc_rows(spacing_mm)
    box, bits = _bit_map(targets, low, high, steps)
    offsets = steps[:, 0] * (box[3] * box[4]) + steps[:, 1] * box[4]
    squares = np.empty(len(queries), dtype=np.float64)
    edges = np.linspace(0, len(queries), parts + 1).astype(int)
    slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]

    def search(part: slice) -> int:
        return _nearest.near(queries[part], box, bits, offsets, rows, x_squares, limit, squares[part])

    if sum(in_threads(search, slices, parts, inner=True)):
        tables = [step_squares(size, value) for size, value in zip(shape, spacing_mm, strict=True)]
        extents = high - low + 1
        shifts = brick_shifts(spacing_mm, int(extents.prod()))
        bricks = _nearest.build_bricks(targets, np.concatenate((low, extents)), shifts)

        def search_far(part: slice) -> None:
            _nearest.far(queries[part], *bricks, *tables, squares[part])

        in_threads(search_far, slices, parts, inner=True)
    return np.sqrt(squares, out=squares)


def bounds(positions: Longs) -> tuple[Longs, Longs]:
    """Return the smallest and largest z, y, x of packed positions."""
    y, x = (positions >> 21) & 0x1FFFFF, positions & 0x1FFFFF
    low = [positions[0] >> 42, y.min(), x.min()]
    high = [positions[-1] >> 42, y.max(), x.max()]
    return np.array(low, dtype=np.int64), np.array(high, dtype=np.int64)


@functools.lru_cache(maxsize=64)
def disc_rows(spacing_mm: Spacing) -> tuple[Longs, Reals, Reals, float]:
    """Return the rows of a grid around a query that `near` looks at, about `DISC_ROWS` of them.

    Returns:
        steps (k, 2) in z and y, nearest first; squared distance (k,) of each row in mm2; those (65,) of 0 to
        63 steps in x, then inf; the squared distance up to which the nearest is certain.
    """
    radius = float(np.sqrt(DISC_ROWS * spacing_mm[0] * spacing_mm[1] / np.pi))
    reach_z, reach_y = (int(min(radius / spacing_mm[axis], MAX_REACH)) + 2 for axis in (0, 1))
    # What lies beyond a reach that was cut is at least this far; else the radius is nearer.
    radius = min(radius, (reach_z + 1) * spacing_mm[0], (reach_y + 1) * spacing_mm[1])
    z_squares, y_squares = step_squares(reach_z + 1, spacing_mm[0]), step_squares(reach_y + 1, spacing_mm[1])
    grid: Any = np.mgrid[-reach_z : reach_z + 1, -reach_y : reach_y + 1]
    z, y = grid.reshape(2, -1)
    squares: Reals = z_squares[abs(z)] + y_squares[abs(y)]
    order = np.argsort(squares, kind="stable")
    order = order[squares[order] <= radius * radius]
    x_squares = np.append(step_squares(64, spacing_mm[2]), np.inf)
    # Rows beyond the disc start at the radius; what a window may miss starts one step beyond it.
    limit = min(radius * radius, float(x_squares[_nearest.WINDOW + 1]))
    return np.stack((z[order], y[order]), axis=1).astype(np.int64), squares[order], x_squares, limit


def step_squares(count: int, spacing: float) -> Reals:
    """Return the squared length in mm2 of 0, 1, ... count - 1 steps along one axis."""
    steps = np.arange(count, dtype=np.float64) * spacing
    return steps * steps


def _bit_map(targets: Longs, low: Longs, high: Longs, steps: Longs) -> tuple[Longs, NDArray[np.uint8]]:
    """Return the bit map of the targets and where it lies; see `_nearest.near`."""
    pad_z, pad_y = (int(abs(steps[:, axis]).max()) for axis in (0, 1))
    planes, rows = (int(high[axis] - low[axis]) + 1 + 4 * pad for axis, pad in ((0, pad_z), (1, pad_y)))
    width = int(high[2] - low[2]) + 1
    stride = (width + 32 + _nearest.X_PAD - _nearest.WINDOW) // 8 + 9
    box = np.array(
        [
            low[0] - 2 * pad_z, low[1] - 2 * pad_y, low[2], rows, stride,
            pad_z, planes - pad_z, pad_y, rows - pad_y, width + 32,
        ],
        dtype=np.int64,
    )  # fmt: skip
    bits = np.zeros(planes * rows * stride, dtype=np.uint8)
    _nearest.build_bits(targets, box, bits)
    return box, bits


def brick_shifts(spacing_mm: Spacing, voxels: int) -> Longs:
    """Return log2 of the brick's size along each axis: about equal in mm on all of them.

    Four steps of the finest axis in a small box, eight in a large one, where many small bricks cost more than
    they save.

    Args:
        spacing_mm: voxel size in mm, z y x.
        voxels: voxels of the box that holds the targets.
    """
    finest, size = min(spacing_mm), 2 if voxels < SMALL_BOX else 3
    shifts = [max(0, round(size - float(np.log2(value / finest)))) for value in spacing_mm]
    return np.array(shifts, dtype=np.int64)
