"""What a scanner does to a phantom: blur, texture, noise, bias, scale; integers as the last step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.data.phantoms.plan import Case
from segbench.data.phantoms.space import Array, Grid, interpolate

TEXTURE_SIGMA_VOXELS = 1.2
TEXTURE_HU = 8.0
NOISE_HU = 14.0
RICIAN = 0.04
# Site B blurs more and is noisier.
_BLUR_AT_B, _NOISE_AT_B = 1.5, 1.8


def ct(
    case: Case, rng: np.random.Generator, tissue: Array, *, noise_hu: float = NOISE_HU
) -> NDArray[np.int16]:
    """A CT in HU of a map of tissue densities. `tissue` is used up."""
    image = ndimage.gaussian_filter(tissue, _blur(case, rng), output=tissue, truncate=3)
    texture = ndimage.gaussian_filter(rng.standard_normal(image.shape), TEXTURE_SIGMA_VOXELS, truncate=3)
    texture *= TEXTURE_HU / math.sqrt(float((texture * texture).mean()))
    image += texture
    del texture
    noise = rng.standard_normal(image.shape)
    noise *= noise_hu * (_NOISE_AT_B if case.site_b else 1.0)
    image += noise
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def mr(
    case: Case, rng: np.random.Generator, tissues: Mapping[str, Array], mask: NDArray[np.bool_]
) -> dict[str, NDArray[np.int16]]:
    """MR contrasts of maps of tissue intensities (a few hundred), zero outside of the mask.

    Each contrast has its own bias field, scale (log-uniform 0.3 to 30) and Rician noise of 4 % of 300.
    """
    sigma = _blur(case, rng)
    noise = 300.0 * RICIAN * (_NOISE_AT_B if case.site_b else 1.0)
    images: dict[str, NDArray[np.int16]] = {}
    for channel, tissue in tissues.items():
        image = ndimage.gaussian_filter(tissue, sigma, truncate=3)
        image *= bias_field(rng, case.grid)
        scale = math.exp(rng.uniform(math.log(0.3), math.log(30.0)))
        real = image + noise * rng.standard_normal(image.shape)
        imaginary = noise * rng.standard_normal(image.shape)
        image = np.sqrt(real * real + imaginary * imaginary)
        image *= scale
        # Inside the mask at least 1, so that "not zero" is exactly the mask.
        stored = np.clip(np.rint(image), 1, 32767).astype(np.int16)
        stored[~mask] = 0
        images[channel] = stored
    return images


def _blur(case: Case, rng: np.random.Generator) -> float:
    """Partial volume: sigma in voxels."""
    return rng.uniform(0.4, 0.7) * (_BLUR_AT_B if case.site_b else 1.0)


def bias_field(rng: np.random.Generator, grid: Grid) -> Array:
    """exp(0.25 f), f smooth with a sigma of 40 mm, mean 0 and rms 1."""
    step = 8.0
    cells = [math.ceil(extent / step) + 3 for extent in grid.extent]
    coarse = ndimage.gaussian_filter(rng.standard_normal(cells), 40.0 / step, mode="nearest", truncate=3)
    coarse -= coarse.mean()
    coarse /= math.sqrt(float((coarse * coarse).mean()))
    return np.exp(0.25 * interpolate(coarse, [grid.axis(axis) for axis in range(3)], step))
