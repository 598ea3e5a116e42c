"""MONAI as a cross-check: dice, iou, hd, hd95_max, assd, nsd. The only module of this room that imports
torch.

MONAI computes distances in float32, so its values agree to about 1e-5, not to the bit.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.core.errors import BackendUnavailable
from segbench.metrics.surface import TIE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

SUPPORTED = ("dice", "iou", "hd", "hd95_max", "assd", "nsd")


def scores(
    reference: Mask,
    prediction: Mask,
    *,
    names: tuple[str, ...],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[str, float]:
    """Return MONAI's values for two non-empty masks.

    Args:
        reference: bool mask, z y x.
        prediction: bool mask of the same shape.
        names: metrics to compute.
        spacing_mm: voxel size in mm, z y x.
        tolerance_mm: tolerance of `nsd` in mm.

    Raises:
        ValueError: a metric that MONAI lacks.
        BackendUnavailable: MONAI or torch is not installed.
    """
    missing = [name for name in names if name not in SUPPORTED]
    if missing:
        raise ValueError(f"backend 'monai' has no metric {missing[0]!r} (it has {', '.join(SUPPORTED)})")
    try:
        torch: Any = importlib.import_module("torch")
        metrics: Any = importlib.import_module("monai.metrics")
    except ImportError as error:
        raise BackendUnavailable(
            "backend 'monai' is not installed", mend="pip install monai torch"
        ) from error
    p = torch.from_numpy(np.ascontiguousarray(prediction))[None, None].float()
    r = torch.from_numpy(np.ascontiguousarray(reference))[None, None].float()
    spacing = list(spacing_mm)
    calls = {
        "dice": lambda: metrics.compute_dice(p, r, include_background=True),
        "iou": lambda: metrics.compute_iou(p, r, include_background=True),
        "hd": lambda: metrics.compute_hausdorff_distance(p, r, include_background=True, spacing=spacing),
        "hd95_max": lambda: metrics.compute_hausdorff_distance(
            p, r, include_background=True, percentile=95, spacing=spacing
        ),
        "assd": lambda: metrics.compute_average_surface_distance(
            p, r, include_background=True, symmetric=True, spacing=spacing
        ),
        # MONAI compares float32 distances with the tolerance: leave room for their rounding, as we do for
        # ours.
        "nsd": lambda: metrics.compute_surface_dice(
            p, r, [tolerance_mm * TIE + 1e-5], include_background=True, spacing=spacing
        ),
    }
    with warnings.catch_warnings():
        # MONAI warns of arguments that its own functions pass to each other.
        warnings.simplefilter("ignore", FutureWarning)
        return {name: float(calls[name]()) for name in names}
