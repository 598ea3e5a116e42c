"""One case: the prepared image in, the label map out, as the weights' own settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segbench.engine.export import PlaneExporter, export_grid, to_stored_grid
from segbench.engine.memory import oom_as_error
from segbench.engine.precision import usable_precision
from segbench.engine.predictor import Image, predict_planes
from segbench.engine.probabilities import ProbabilityWriter
from segbench.predict.settings import Settings

__all__ = ["predict_case"]


def predict_case(
    networks: Sequence[nn.Module],
    images: Sequence[Image],
    settings: Settings,
    device: torch.device,
    *,
    properties: Mapping[str, Any] | None = None,
    probabilities: Path | None = None,
    between: Callable[[], None] = lambda: None,
) -> NDArray[Any]:
    """The label map (z, y, x) of one case: label values, on its stored grid where that is known.

    Args:
        networks: One, or several whose probabilities are averaged, in evaluation mode on the device.
        images: (C, Z, Y, X) float32 as prepared, one for each network.
        settings: What the weights say of patch, windows, precision and labels.
        device: Where the networks are.
        properties: `PreparedCase.properties`, the way to the stored grid; None: stay on the prepared one.
        probabilities: Also stream the class scores to this `.b2nd`; needs `properties`.
        between: Called after every window, such as `StopRequest.check`.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory.
    """
    inference, regions, source = settings.inference, settings.region_labels, images[0].shape[1:]
    shape, nearest_axis = (source, None) if properties is None else export_grid(properties)
    with oom_as_error(device), ExitStack() as stack:
        exporter = PlaneExporter(
            settings.num_outputs, source, shape, nearest_axis=nearest_axis, regions=regions
        )
        receivers: list[Callable[[Tensor], None]] = [exporter.push]
        if probabilities is not None:
            assert properties is not None  # scores are told apart by the grid that they are on
            writer = ProbabilityWriter(
                probabilities,
                settings.num_outputs,
                source,
                by_sign=regions is not None,
                averaged=len(networks) > 1,
                names=settings.outputs,
                properties=dict(properties),
            )
            receivers.append(stack.enter_context(writer).push)
        planes = predict_planes(
            networks,
            images,
            patch=settings.patch,
            num_outputs=settings.num_outputs,
            overlap=inference.overlap,
            mirror_axes=[axis for axis in ("z", "y", "x") if axis in inference.mirror_axes],
            window_batch=inference.window_batch,
            device=device,
            precision=usable_precision(settings.precision, device),
            importance=inference.importance,
            sigma_scale=inference.sigma_scale,
            by_sign=regions is not None,
            between=between,
        )
        for part in planes:
            for receive in receivers:
                receive(part)
        labels = exporter.labels
    if regions is None:
        labels = _label_values(labels, settings.label_values or range(settings.num_outputs))
    return labels if properties is None else to_stored_grid(labels, properties)


def _label_values(indices: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Label values in place of class indices."""
    return np.asarray(values, dtype=np.uint16 if max(values) > 255 else np.uint8)[indices]
