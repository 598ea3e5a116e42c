"""Synthetic reference/prediction pairs of the four sizes that `benchmarks/metrics.py` times. Made in code,
seeded.

Shapes are ellipsoids with a smooth rough surface; the prediction has another roughness, so the two boundaries
agree in part and lie one to three voxels apart elsewhere, as those of a good network do, plus a far false
positive.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Pair:
    name: str
    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float]
    regions: dict[str, tuple[int, ...]]


def blob(labels, value, centre, radii, rng, roughness, noise=None):
    """Write one rough ellipsoid into the label map; return its noise so that a second one can be nearly
    equal."""
    if noise is None:
        noise = rng.standard_normal((6, 6, 6))
    reach = [int(radius * (1 + 3 * roughness)) + 2 for radius in radii]
    box = tuple(
        slice(max(0, int(c) - r), min(n, int(c) + r + 1))
        for c, r, n in zip(centre, reach, labels.shape, strict=True)
    )
    axes = [np.arange(part.start, part.stop) for part in box]
    shape = tuple(len(axis) for axis in axes)
    field = ndimage.zoom(noise, [n / 6 for n in shape], order=1, grid_mode=True, mode="nearest") * roughness
    for axis, (positions, c, radius) in enumerate(zip(axes, centre, radii, strict=True)):
        term = ((positions - c) / radius) ** 2
        field += term.reshape([-1 if index == axis else 1 for index in range(3)])
    labels[box][field < 1] = value
    return noise


def brats() -> Pair:
    """240 x 240 x 155 at 1 mm, nested WT / TC / ET and an island far away in the prediction."""
    rng = np.random.default_rng(11)
    reference, prediction = np.zeros((2, 155, 240, 240), np.uint8)
    for labels, jitter in ((reference, 0.0), (prediction, 1.0)):
        rng = np.random.default_rng(11)
        wiggle = np.random.default_rng(12)
        for value, radii in ((2, (30, 36, 32)), (1, (20, 22, 21)), (3, (15, 16, 15)), (1, (8, 8, 8))):
            noise = rng.standard_normal((6, 6, 6))
            noise = noise + jitter * 1.2 * wiggle.standard_normal((6, 6, 6))
            blob(labels, value, (80, 120, 90), radii, rng, 0.15, noise)
    blob(prediction, 2, (40, 60, 190), (6, 7, 6), rng, 0.1)
    return Pair("brats", reference, prediction, (1.0, 1.0, 1.0), {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)})


def crc() -> Pair:
    """512 x 512 x 120 at 3.75 x 0.79 x 0.79 mm, one tumour, an island 130 mm away in the prediction."""
    reference, prediction = np.zeros((2, 120, 512, 512), np.uint8)
    for labels, jitter in ((reference, 0.0), (prediction, 1.0)):
        rng, wiggle = np.random.default_rng(21), np.random.default_rng(22)
        noise = rng.standard_normal((6, 6, 6)) + jitter * 1.2 * wiggle.standard_normal((6, 6, 6))
        blob(labels, 1, (50, 300, 260), (9, 38, 33), rng, 0.2, noise)
    blob(prediction, 1, (75, 220, 390), (5, 17, 15), np.random.default_rng(23), 0.1)
    return Pair("crc", reference, prediction, (3.75, 0.79, 0.79), {"tumour": (1,)})


def abdomen() -> Pair:
    """512 x 512 x 300 at 1.5 x 0.8 x 0.8 mm, nine organs."""
    organs = [
        ((180, 230, 170), (70, 85, 95)),
        ((170, 220, 370), (35, 40, 35)),
        ((150, 300, 180), (38, 30, 28)),
        ((150, 300, 340), (38, 30, 28)),
        ((190, 180, 300), (30, 50, 45)),
        ((165, 200, 215), (14, 20, 16)),
        ((150, 250, 270), (12, 18, 55)),
        ((150, 280, 265), (120, 12, 12)),
        ((150, 275, 235), (115, 13, 14)),
    ]
    reference, prediction = np.zeros((2, 300, 512, 512), np.uint8)
    for labels, jitter in ((reference, 0.0), (prediction, 1.0)):
        rng, wiggle = np.random.default_rng(31), np.random.default_rng(32)
        for value, (centre, radii) in enumerate(organs, start=1):
            noise = rng.standard_normal((6, 6, 6)) + jitter * 0.8 * wiggle.standard_normal((6, 6, 6))
            blob(labels, value, centre, radii, rng, 0.12, noise)
    regions = {f"organ {value}": (value,) for value in range(1, 10)}
    return Pair("abdomen", reference, prediction, (1.5, 0.8, 0.8), regions)


def airway() -> Pair:
    """512 x 512 x 600 at 0.6 x 0.7 x 0.7 mm, a branching tree; the prediction misses thin branches and is
    thinner."""
    reference, prediction = np.zeros((2, 600, 512, 512), np.uint8)
    rng = np.random.default_rng(41)
    stack = [(np.array([40.0, 256.0, 256.0]), np.array([1.0, 0.0, 0.0]), 14.0, 150.0, 0)]
    while stack:
        start, direction, radius, length, depth = stack.pop()
        missed = depth >= 6 and rng.random() < 0.3
        thinner = float(rng.uniform(0.0, 0.8))
        end = start + direction * length
        for step in np.arange(0.0, length, 0.7):
            centre = start + direction * step
            ball(reference, centre, radius)
            if not missed:
                ball(prediction, centre, max(1.0, radius - thinner))
        if depth >= 8:
            continue
        for sign in (-1.0, 1.0):
            side = np.cross(direction, rng.standard_normal(3))
            side /= np.linalg.norm(side)
            turned = direction + sign * rng.uniform(0.5, 0.9) * side
            turned /= np.linalg.norm(turned)
            stack.append((end, turned, radius * 0.75, length * rng.uniform(0.62, 0.8), depth + 1))
    blob(prediction, 1, (450, 120, 120), (6, 6, 6), rng, 0.1)
    return Pair("airway", reference, prediction, (0.6, 0.7, 0.7), {"airway": (1,)})


def ball(labels, centre, radius):
    reach = int(radius) + 1
    low = [round(c) - reach for c in centre]
    high = [round(c) + reach + 1 for c in centre]
    if any(a < 0 or b > n for a, b, n in zip(low, high, labels.shape, strict=True)):
        return
    axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius * radius
    labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][inside] = 1


PAIRS = {"brats": brats, "crc": crc, "abdomen": abdomen, "airway": airway}
