"""medpy as a cross-check (extra `reference`). The only module that imports it: medpy is GPL-3, we call it and
copy none.

dice, iou, precision, recall, hd, hd95 and assd are medpy's own functions; hd95_max, masd and nsd follow from
its surface distances.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.core.errors import BackendUnavailable
from segbench.metrics.surface import hd95_max, masd, nsd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

OVERLAPS = {"dice": "dc", "iou": "jc", "precision": "precision", "recall": "recall"}
DISTANCES = {"hd": "hd", "hd95": "hd95", "assd": "assd"}
FROM_DISTANCES = ("hd95_max", "masd", "nsd")
SUPPORTED = (*OVERLAPS, *DISTANCES, *FROM_DISTANCES)


def scores(
    reference: Mask,
    prediction: Mask,
    *,
    names: tuple[str, ...],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[str, float]:
    """Return medpy's values for two non-empty masks.

    Args:
        reference: bool mask, z y x.
        prediction: bool mask of the same shape.
        names: metrics to compute.
        spacing_mm: voxel size in mm, z y x.
        tolerance_mm: tolerance of `nsd` in mm.

    Raises:
        ValueError: a metric that medpy lacks.
        BackendUnavailable: medpy is not installed.
    """
    missing = [name for name in names if name not in SUPPORTED]
    if missing:
        raise ValueError(f"backend 'medpy' has no metric {missing[0]!r} (it has {', '.join(SUPPORTED)})")
    binary = _binary()
    values: dict[str, float] = {}
    for name in names:
        if name in OVERLAPS:
            values[name] = float(getattr(binary, OVERLAPS[name])(prediction, reference))
        elif name in DISTANCES:
            values[name] = float(
                getattr(binary, DISTANCES[name])(prediction, reference, voxelspacing=spacing_mm)
            )
    if any(name in FROM_DISTANCES for name in names):
        surface_distances: Callable[..., Any] = binary.__surface_distances
        d1 = np.asarray(surface_distances(prediction, reference, spacing_mm, 1))
        d2 = np.asarray(surface_distances(reference, prediction, spacing_mm, 1))
        found = {"hd95_max": hd95_max(d1, d2), "masd": masd(d1, d2), "nsd": nsd(d1, d2, tolerance_mm)}
        values.update({name: found[name] for name in names if name in found})
    return values


def _binary() -> Any:
    try:
        return importlib.import_module("medpy.metric.binary")
    except ImportError as error:
        raise BackendUnavailable(
            "backend 'medpy' is not installed", mend='pip install "segbench[reference]"'
        ) from error
