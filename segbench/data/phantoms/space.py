"""Where things are in a phantom: the grid in millimetres, its deformation, and closed shapes in it.

Coordinates are millimetres from the centre of the grid, as three arrays (z, y, x) that broadcast against each
other. Everything is float64 and elementwise: no FFT, no BLAS, so the same bits come out everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Points = tuple[Array, Array, Array]
Triple = tuple[float, float, float]

_SLAB_VOXELS = 4_000_000


def triple(values: Iterable[float]) -> Triple:
    """Three numbers as a point."""
    z, y, x = values
    return float(z), float(y), float(x)


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of voxels, its centre at the origin.

    Attributes:
        shape: Voxels along (z, y, x).
        spacing: Millimetres along (z, y, x).
    """

    shape: tuple[int, int, int]
    spacing: Triple

    @property
    def extent(self) -> Triple:
        """Size in millimetres along (z, y, x)."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return z, y, x

    def axis(self, which: int) -> Array:
        """Coordinates of the voxel centres along one axis."""
        count = self.shape[which]
        return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * self.spacing[which]

    def slabs(self) -> Iterator[slice]:
        """Slices along z that together cover the grid, small enough to hold several arrays of each."""
        depth = max(1, _SLAB_VOXELS // (self.shape[1] * self.shape[2]))
        for start in range(0, self.shape[0], depth):
            yield slice(start, min(start + depth, self.shape[0]))

    def points(self, slab: slice) -> Points:
        """The voxel centres of a slab, as arrays of shape (z, 1, 1), (1, y, 1), (1, 1, x)."""
        return self.axis(0)[slab, None, None], self.axis(1)[None, :, None], self.axis(2)[None, None, :]

    def affine(self) -> Array:
        """(4, 4): RAS+, axes along the millimetre axes, the origin at the centre of the grid."""
        sz, sy, sx = self.spacing
        start = [self.axis(axis)[0] for axis in (2, 1, 0)]
        affine = np.diag([sx, sy, sz, 1.0])
        affine[:3, 3] = start
        return affine


@dataclass(frozen=True, eq=False)
class Deformation:
    """How a case differs from the plan: shift, rotation about z, smooth warp; `None` fields do nothing."""

    shift: Triple = (0.0, 0.0, 0.0)
    angle: float = 0.0
    warp: Array | None = None
    warp_step: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator, grid: Grid, *, scale: float = 1.0) -> Deformation:
        """Shift N(0, 2.5 mm), rotation U(-15, 15) degrees, warp 2.5 mm rms, sigma 6 mm; mm times scale."""
        shift = np.clip(rng.standard_normal(3), -2, 2) * 2.5 * scale
        angle = math.radians(rng.uniform(-15.0, 15.0))
        step = 3.0 * scale
        cells = [math.ceil(extent / step) + 3 for extent in grid.extent]
        warp = ndimage.gaussian_filter(rng.standard_normal((3, *cells)), (0, 2, 2, 2), mode="nearest")
        warp *= 2.5 * scale / math.sqrt(float((warp * warp).mean()))
        return cls((shift[0], shift[1], shift[2]), angle, warp, step)

    def undo(self, points: Points) -> Points:
        """Where in the plan the points of the grid lie."""
        z, y, x = (p - s for p, s in zip(points, self.shift, strict=True))
        if self.angle:
            c, s = math.cos(self.angle), math.sin(self.angle)
            y, x = c * y + s * x, c * x - s * y
        if self.warp is None:
            return z, y, x
        dz, dy, dx = self._warp_at(points)
        return z + dz, y + dy, x + dx

    def apply(self, point: Sequence[float] | Array) -> Array:
        """About where in the grid a point of the plan lies (the warp taken at the shifted point)."""
        z, y, x = point
        if self.angle:
            c, s = math.cos(self.angle), math.sin(self.angle)
            y, x = c * y - s * x, c * x + s * y
        moved = np.array([z, y, x]) + self.shift
        if self.warp is None:
            return moved
        at = tuple(np.array([[[value]]]) for value in moved)
        return moved - np.array([float(d[0, 0, 0]) for d in self._warp_at((at[0], at[1], at[2]))])

    def _warp_at(self, points: Points) -> Points:
        """The warp at points that form a product grid."""
        assert self.warp is not None
        field = interpolate(self.warp, points, self.warp_step)
        return field[0], field[1], field[2]


def interpolate(field: Array, coordinates: Sequence[Array], step: float) -> Array:
    """A coarse field about the origin at a product grid of points, trilinear, one axis after the other.

    Args:
        field: (..., z, y, x), a value every `step` millimetres.
        coordinates: Of the points along z, y, x.
        step: Millimetres between the values.
    """
    lead = field.ndim - 3
    for axis, coordinate in enumerate(coordinates, start=lead):
        cells = field.shape[axis]
        position = np.clip(coordinate.reshape(-1) / step + (cells - 1) / 2, 0, cells - 1.000001)
        low = position.astype(np.int64)
        weight = (position - low).reshape([-1 if a == axis else 1 for a in range(field.ndim)])
        field = np.take(field, low, axis) * (1 - weight) + np.take(field, low + 1, axis) * weight
    return field


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid with axes along the grid; millimetres, z y x."""

    centre: Triple
    radii: Triple

    def level(self, points: Points) -> Array:
        """Squared scaled distance: below 1 inside, 1 on the surface."""
        terms = [((p - c) / r) ** 2 for p, c, r in zip(points, self.centre, self.radii, strict=True)]
        return terms[0] + terms[1] + terms[2]

    @property
    def volume_ml(self) -> float:
        """4/3 pi abc."""
        return 4 / 3 * math.pi * self.radii[0] * self.radii[1] * self.radii[2] / 1000

    def scaled(self, share: float) -> Ellipsoid:
        """The radii times a share, about the same centre."""
        return Ellipsoid(self.centre, triple(share * radius for radius in self.radii))

    def varied(self, rng: np.random.Generator, *, scale: float = 1.0) -> Ellipsoid:
        """Radii times U(0.82, 1.18), centre shifted by N(0, 2.5 mm) times scale."""
        factor = rng.uniform(0.82, 1.18)
        shift = np.clip(rng.standard_normal(3), -2, 2) * 2.5 * scale
        centre = triple(c + s for c, s in zip(self.centre, shift, strict=True))
        return Ellipsoid(centre, triple(r * factor for r in self.radii))


@dataclass(frozen=True, slots=True)
class Capsule:
    """A straight tube with round ends; millimetres, z y x."""

    start: Triple
    end: Triple
    radius: float

    @property
    def length(self) -> float:
        """Between the centres of the two round ends."""
        return math.sqrt(sum((b - a) ** 2 for a, b in zip(self.start, self.end, strict=True)))

    @property
    def volume_ml(self) -> float:
        """Pi r^2 L + 4/3 pi r^3."""
        r = self.radius
        return (math.pi * r**2 * self.length + 4 / 3 * math.pi * r**3) / 1000

    def distance(self, points: Points) -> Array:
        """Millimetres to the surface, negative inside."""
        along = [b - a for a, b in zip(self.start, self.end, strict=True)]
        offset = [p - a for p, a in zip(points, self.start, strict=True)]
        norm = sum(d * d for d in along)
        dot = offset[0] * along[0] + offset[1] * along[1] + offset[2] * along[2]
        t = np.clip(dot / norm if norm > 0 else dot * 0.0, 0.0, 1.0)
        squared = [(o - t * d) ** 2 for o, d in zip(offset, along, strict=True)]
        return np.sqrt(squared[0] + squared[1] + squared[2]) - self.radius


def box_around(grid: Grid, lower: Sequence[float], upper: Sequence[float]) -> tuple[slice, slice, slice]:
    """The voxels whose centres lie in a box of millimetres, as slices; they may be empty."""
    slices: list[slice] = []
    for axis in range(3):
        origin = -(grid.shape[axis] - 1) / 2 * grid.spacing[axis]
        first = math.ceil((lower[axis] - origin) / grid.spacing[axis] - 1e-9)
        last = math.floor((upper[axis] - origin) / grid.spacing[axis] + 1e-9)
        slices.append(slice(max(0, first), max(0, min(grid.shape[axis], last + 1))))
    return slices[0], slices[1], slices[2]


def points_in(grid: Grid, box: tuple[slice, slice, slice]) -> Points:
    """The voxel centres of a box."""
    z, y, x = (grid.axis(axis)[box[axis]] for axis in range(3))
    return z[:, None, None], y[None, :, None], x[None, None, :]


@dataclass(frozen=True, slots=True)
class Blob:
    """A star-shaped body whose radius varies with direction: spherical harmonics up to degree 4.

    Zonal harmonics P_l about random axes span the same space as the usual ones and need no trigonometry.
    """

    centre: Triple
    radius: float
    stretch: Triple
    terms: tuple[tuple[int, Triple, float], ...]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, centre: Triple, radius: float, *, roughness: float = 0.25
    ) -> Blob:
        """A random body of about this radius."""
        terms: list[tuple[int, Triple, float]] = []
        for degree in (1, 2, 3, 4):
            axis = rng.standard_normal(3)
            axis /= math.sqrt(float((axis * axis).sum()))
            terms.append((degree, (axis[0], axis[1], axis[2]), roughness * rng.uniform(-1, 1) / degree))
        stretch = np.exp(0.15 * np.clip(rng.standard_normal(3), -2, 2))
        return cls(centre, radius, (stretch[0], stretch[1], stretch[2]), tuple(terms))

    def level(self, points: Points) -> Array:
        """Distance from the centre over the radius in that direction: below 1 inside."""
        z, y, x = ((p - c) / s for p, c, s in zip(points, self.centre, self.stretch, strict=True))
        distance = np.sqrt(z * z + y * y + x * x)
        safe = np.maximum(distance, 1e-9)
        surface = np.ones_like(distance)
        for degree, axis, weight in self.terms:
            surface += weight * _legendre(degree, (z * axis[0] + y * axis[1] + x * axis[2]) / safe)
        return distance / (self.radius * np.maximum(surface, 0.2))


def _legendre(degree: int, t: Array) -> Array:
    if degree == 1:
        return t
    if degree == 2:
        return (3 * t * t - 1) / 2
    if degree == 3:
        return (5 * t**3 - 3 * t) / 2
    return (35 * t**4 - 30 * t * t + 3) / 8


def distance_to(grid: Grid, pieces: Iterable[Capsule], *, reach: float) -> Array:
    """Millimetres to the nearest surface of any piece, negative inside; `reach` where nothing is that near.

    Args:
        grid: Where.
        pieces: The tubes.
        reach: How far around each piece distances are computed, mm.
    """
    nearest = np.full(grid.shape, reach)
    for piece in pieces:
        margin = piece.radius + reach
        lower = [min(a, b) - margin for a, b in zip(piece.start, piece.end, strict=True)]
        upper = [max(a, b) + margin for a, b in zip(piece.start, piece.end, strict=True)]
        box = box_around(grid, lower, upper)
        if any(part.start >= part.stop for part in box):
            continue
        view = nearest[box]
        np.minimum(view, piece.distance(points_in(grid, box)), out=view)
    return nearest
