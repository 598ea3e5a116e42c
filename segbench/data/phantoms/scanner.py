"""What a scanner does to a phantom: blur, texture, noise, bias, scale; integers as the last step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.data.phantoms.space import Array, Grid, interpolate

TEXTURE_SIGMA_VOXELS = 1.2
TEXTURE_HU = 8.0
NOISE_HU = 14.0
RICIAN = 0.04


@dataclass(frozen=True, slots=True)
class Scanner:
    """The machine a case was "taken" with; site B is noisier, blurs more and has thicker slices."""

    site_b: bool = False

    def spacing(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """The spacing at this site."""
        z, y, x = spacing
        return (round(z * 1.2, 6) if self.site_b else z), y, x

    def blur(self, rng: np.random.Generator) -> float:
        """Partial volume: sigma in voxels."""
        return rng.uniform(0.4, 0.7) * (1.5 if self.site_b else 1.0)

    @property
    def noise_factor(self) -> float:
        """How much stronger the noise is than at site A."""
        return 1.8 if self.site_b else 1.0

    def ct(self, rng: np.random.Generator, tissue: Array, *, noise_hu: float = NOISE_HU) -> NDArray[np.int16]:
        """A CT in HU of a map of tissue densities. `tissue` is used up."""
        image = ndimage.gaussian_filter(tissue, self.blur(rng), output=tissue, truncate=3)
        texture = ndimage.gaussian_filter(rng.standard_normal(image.shape), TEXTURE_SIGMA_VOXELS, truncate=3)
        texture *= TEXTURE_HU / math.sqrt(float((texture * texture).mean()))
        image += texture
        del texture
        noise = rng.standard_normal(image.shape)
        noise *= noise_hu * self.noise_factor
        image += noise
        return np.clip(np.rint(image), -1024, 3071).astype(np.int16)

    def mr(
        self, rng: np.random.Generator, tissues: Mapping[str, Array], grid: Grid, mask: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.int16]]:
        """MR contrasts of maps of tissue intensities (a few hundred), zero outside of the mask.

        Each contrast has its own bias field, scale (log-uniform 0.3 to 30) and Rician noise of 4 % of 300.
        """
        sigma = self.blur(rng)
        images: dict[str, NDArray[np.int16]] = {}
        for channel, tissue in tissues.items():
            image = ndimage.gaussian_filter(tissue, sigma, truncate=3)
            image *= bias_field(rng, grid)
            scale = math.exp(rng.uniform(math.log(0.3), math.log(30.0)))
            noise = 300.0 * RICIAN * self.noise_factor
            real = image + noise * rng.standard_normal(image.shape)
            imaginary = noise * rng.standard_normal(image.shape)
            image = np.sqrt(real * real + imaginary * imaginary)
            image *= scale
            # Inside the mask at least 1, so that "not zero" is exactly the mask.
            stored = np.clip(np.rint(image), 1, 32767).astype(np.int16)
            stored[~mask] = 0
            images[channel] = stored
        return images


def bias_field(rng: np.random.Generator, grid: Grid) -> Array:
    """exp(0.25 f), f smooth with a sigma of 40 mm, mean 0 and rms 1."""
    step = 8.0
    cells = [math.ceil(extent / step) + 3 for extent in grid.extent]
    coarse = ndimage.gaussian_filter(rng.standard_normal(cells), 40.0 / step, mode="nearest", truncate=3)
    coarse -= coarse.mean()
    coarse /= math.sqrt(float((coarse * coarse).mean()))
    return np.exp(0.25 * interpolate(coarse, [grid.axis(axis) for axis in range(3)], step))
