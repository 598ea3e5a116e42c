"""clDice: do two tubes agree along their centre lines?

Source: Shit et al. 2021, "clDice - a novel topology-preserving loss function for tubular structure
segmentation" (CVPR).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.skeleton import thin


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
