"""Predictions of small cases: all planes at once, or the label map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segbench.engine.export import Labels, PlaneExporter
from segbench.engine.predictor import predict_planes


def predict_logits(networks: Any, image: Any, **options: Any) -> Tensor:
    """(K, Z, Y, X) float32 on the CPU; arguments as `predict_planes`."""
    planes = predict_planes(networks, image, **options)
    return torch.cat([part.to("cpu", copy=True) for part in planes], dim=1)


def predict_case(
    networks: Any,
    image: Any,
    *,
    num_outputs: int,
    shape: Any = None,
    nearest_axis: int | None = None,
    regions: Any = None,
    observe: Callable[[Tensor], None] = lambda part: None,
    **options: Any,
) -> Labels:
    """The label map on the grid of `shape`, plane by plane."""
    source = tuple((image[0] if isinstance(image, list | tuple) else image).shape[1:])
    exporter = PlaneExporter(
        num_outputs, source, source if shape is None else shape, nearest_axis=nearest_axis, regions=regions
    )
    by_sign = regions is not None
    for part in predict_planes(networks, image, num_outputs=num_outputs, by_sign=by_sign, **options):
        exporter.push(part)
        observe(part)
    return exporter.labels
