"""The way back of a prepared case in one call, for tests: logits to labels on the stored grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segbench.engine.export import Labels, export_grid, labels_from_logits, to_stored_grid
from segbench.volumes import Volume


def export_case(
    logits: Tensor | npt.NDArray[np.float32],
    properties: Mapping[str, Any],
    like: Volume | None = None,
    *,
    regions: Sequence[int] | None = None,
    values: Sequence[int] | None = None,
) -> Labels:
    """Label map (z, y, x) on the stored grid of the case, ready for `write_label_map`.

    Args:
        logits: (K, z, y, x) on the prepared grid.
        properties: `PreparedCase.properties` of the case.
        like: The stored scan; when given, its shape is checked.
        regions: See `labels_from_logits`.
        values: Label value of each class where classes are not 0, 1, 2, ...

    Raises:
        ValueError: logits on another grid than the properties', or `like` of another shape.
    """
    if tuple(logits.shape[1:]) != tuple(properties["shape_after"]):
        raise ValueError(
            f"logits on {tuple(logits.shape[1:])}, the case was prepared on {properties['shape_after']}"
        )
    if like is not None and list(like.shape_zyx) != list(properties["original_shape"]):
        raise ValueError(
            f"scan of shape {like.shape_zyx}, the case was prepared from {properties['original_shape']}"
        )
    shape, nearest_axis = export_grid(properties)
    labels = labels_from_logits(logits, shape, nearest_axis=nearest_axis, regions=regions)
    return to_stored_grid(labels, properties, values=values)


def stored_grid(properties: Mapping[str, Any]) -> Volume:
    """The stored grid of a case without its voxels, for `write_label_map(..., like=...)`."""
    shape = tuple(properties["original_shape"])
    spacing = properties["original_spacing_mm"]
    return Volume(
        np.broadcast_to(np.uint8(0), shape),
        (spacing[0], spacing[1], spacing[2]),
        np.asarray(properties["affine"], dtype=np.float64),
        sform_code=properties["sform_code"],
        qform_code=properties["qform_code"],
        unit=properties["unit"],
    )
