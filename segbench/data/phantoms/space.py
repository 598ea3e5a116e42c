"""Where things are in a phantom: the grid in millimetres, its deformation, and closed shapes in it.

Coordinates are millimetres from the centre of the grid, as three arrays (z, y, x) that broadcast against each
other. Everything is float64 and elementwise: no FFT, no BLAS, so the same bits come out everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Vector = Array
"""A point, a direction or radii: (3,), z y x."""
Points = tuple[Array, Array, Array]

_SLAB_VOXELS = 4_000_000
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of voxels, its centre at the origin.

    Attributes:
        shape: Voxels along (z, y, x).
        spacing: Millimetres along (z, y, x).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def extent(self) -> Vector:
        """Size in millimetres along (z, y, x)."""
        return np.multiply(self.shape, self.spacing)

    def axis(self, which: int) -> Array:
        """Coordinates of the voxel centres along one axis."""
        count = self.shape[which]
        return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * self.spacing[which]

    def points(self, z: slice = _ALL, y: slice = _ALL, x: slice = _ALL) -> Points:
        """The voxel centres of a box, as arrays of shape (z, 1, 1), (1, y, 1), (1, 1, x)."""
        return self.axis(0)[z, None, None], self.axis(1)[None, y, None], self.axis(2)[None, None, x]

    def slabs(self) -> Iterator[tuple[slice, Points]]:
        """Slices along z and their points, small enough to hold several arrays of each."""
        depth = max(1, _SLAB_VOXELS // (self.shape[1] * self.shape[2]))
        for start in range(0, self.shape[0], depth):
            slab = slice(start, min(start + depth, self.shape[0]))
            yield slab, self.points(slab)

    def affine(self) -> Array:
        """(4, 4): RAS+, axes along the millimetre axes, the origin at the centre of the grid."""
        sz, sy, sx = self.spacing
        start = [self.axis(axis)[0] for axis in (2, 1, 0)]
        affine = np.diag([sx, sy, sz, 1.0])
        affine[:3, 3] = start
        return affine


@dataclass(frozen=True, eq=False)
class Deformation:
    """How a case differs from the plan: shift, rotation about z, smooth warp."""

    shift: Vector
    angle: float
    warp: Array
    warp_step: float

    @classmethod
    def draw(cls, rng: np.random.Generator, grid: Grid, *, scale: float = 1.0) -> Deformation:
        """Shift N(0, 2.5 mm), rotation U(-15, 15) degrees, warp 2.5 mm rms, sigma 6 mm; mm times scale."""
        shift = np.clip(rng.standard_normal(3), -2, 2) * 2.5 * scale
        angle = math.radians(rng.uniform(-15.0, 15.0))
        step = 3.0 * scale
        cells = [math.ceil(extent / step) + 3 for extent in grid.extent]
        warp = ndimage.gaussian_filter(rng.standard_normal((3, *cells)), (0, 2, 2, 2), mode="nearest")
        warp *= 2.5 * scale / math.sqrt(float((warp * warp).mean()))
        return cls(shift, angle, warp, step)

    def undo(self, points: Points) -> Points:
        """Where in the plan the points of the grid lie."""
        z, y, x = (p - s for p, s in zip(points, self.shift, strict=True))
        c, s = math.cos(self.angle), math.sin(self.angle)
        y, x = c * y + s * x, c * x - s * y
        dz, dy, dx = interpolate(self.warp, points, self.warp_step)
        return z + dz, y + dy, x + dx

    def apply(self, point: Vector) -> Vector:
        """About where in the grid a point of the plan lies (the warp taken at the shifted point)."""
        z, y, x = point
        c, s = math.cos(self.angle), math.sin(self.angle)
        moved = np.array([z, c * y - s * x, c * x + s * y]) + self.shift
        return moved - interpolate(self.warp, moved, self.warp_step).reshape(3)


def interpolate(field: Array, coordinates: Sequence[Array] | Vector, step: float) -> Array:
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


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid with axes along the grid; millimetres."""

    centre: Vector
    radii: Vector

    def level(self, points: Points) -> Array:
        """Squared scaled distance: below 1 inside, 1 on the surface."""
        terms = [((p - c) / r) ** 2 for p, c, r in zip(points, self.centre, self.radii, strict=True)]
        return terms[0] + terms[1] + terms[2]

    @property
    def volume_ml(self) -> float:
        """4/3 pi abc."""
        return 4 / 3 * math.pi * self.radii[0] * self.radii[1] * self.radii[2] / 1000

    def varied(self, rng: np.random.Generator, *, scale: float = 1.0) -> Ellipsoid:
        """Radii times U(0.82, 1.18), centre shifted by N(0, 2.5 mm) times scale."""
        factor = rng.uniform(0.82, 1.18)
        shift = np.clip(rng.standard_normal(3), -2, 2) * 2.5 * scale
        return Ellipsoid(self.centre + shift, self.radii * factor)


@dataclass(frozen=True, eq=False)
class Capsule:
    """A straight tube with round ends; millimetres."""

    start: Vector
    end: Vector
    radius: float

    @property
    def volume_ml(self) -> float:
        """Pi r^2 L + 4/3 pi r^3."""
        r, length = self.radius, math.sqrt(float(((self.end - self.start) ** 2).sum()))
        return (math.pi * r**2 * length + 4 / 3 * math.pi * r**3) / 1000

    def distance(self, points: Points | Vector) -> Array:
        """Millimetres to the surface, negative inside."""
        along = self.end - self.start
        offset = [p - a for p, a in zip(points, self.start, strict=True)]
        norm = float((along * along).sum())
        dot = offset[0] * along[0] + offset[1] * along[1] + offset[2] * along[2]
        t = np.clip(dot / norm if norm > 0 else dot * 0.0, 0.0, 1.0)
        squared = [(o - t * d) ** 2 for o, d in zip(offset, along, strict=True)]
        return np.sqrt(squared[0] + squared[1] + squared[2]) - self.radius


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
        lower = np.minimum(piece.start, piece.end) - margin
        upper = np.maximum(piece.start, piece.end) + margin
        ends = [np.searchsorted(grid.axis(axis), (lower[axis], upper[axis])) for axis in range(3)]
        box = [slice(*axis.tolist()) for axis in ends]
        view = nearest[tuple(box)]
        np.minimum(view, piece.distance(grid.points(*box)), out=view)
    return nearest


def blob(
    rng: np.random.Generator, centre: Vector, radius: float, *, roughness: float = 0.25
) -> Callable[[Points], Array]:
    """The level of a random star-shaped body: the distance from its centre over the radius in that direction.

    The radius varies by spherical harmonics up to degree 4, about the one given. Zonal harmonics P_l about
    random axes span the same space as the usual ones and need no trigonometry.
    """
    terms: list[tuple[int, Vector, float]] = []
    for degree in (1, 2, 3, 4):
        axis = unit(rng.standard_normal(3))
        terms.append((degree, axis, roughness * rng.uniform(-1, 1) / degree))
    stretch = np.exp(0.15 * np.clip(rng.standard_normal(3), -2, 2))

    def level(points: Points) -> Array:
        z, y, x = ((p - c) / s for p, c, s in zip(points, centre, stretch, strict=True))
        distance = np.sqrt(z * z + y * y + x * x)
        safe = np.maximum(distance, 1e-9)
        surface = np.ones_like(distance)
        for degree, axis, weight in terms:
            surface += weight * _legendre(degree, (z * axis[0] + y * axis[1] + x * axis[2]) / safe)
        return distance / (radius * np.maximum(surface, 0.2))

    return level


def _legendre(degree: int, t: Array) -> Array:
    if degree == 1:
        return t
    if degree == 2:
        return (3 * t * t - 1) / 2
    if degree == 3:
        return (5 * t**3 - 3 * t) / 2
    return (35 * t**4 - 30 * t * t + 3) / 8


def unit(vector: Vector) -> Vector:
    """The direction of a vector."""
    return vector / math.sqrt(float((vector * vector).sum()))
